# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mdi_exit_ros.cli.train import train
from mdi_exit_ros.errors import ConfigurationError, DataError, ModelError
from mdi_exit_ros.model.architecture import ARCHITECTURES, load_architecture
from mdi_exit_ros.model.backbones import torchvision_module
from mdi_exit_ros.model.card import load_card
from mdi_exit_ros.model.checkpoint import load_network
from mdi_exit_ros.model.segment import SegmentedNetwork
from mdi_exit_ros.training.augmentation import augment
from mdi_exit_ros.training.checkpoint import CHECKPOINT_NAME
from mdi_exit_ros.training.datasets import load_splits
from mdi_exit_ros.training.loop import (
    AVERAGING_RATE,
    Trainer,
    TrainingOptions,
    _stride_after_depthwise,
    learning_rate_factor,
)
from mdi_exit_ros.training.session import TrainingRun, train_model
from mdi_exit_ros.training.start import StartingPoint, starting_point

OPTIONS = TrainingOptions(epochs=2, seed=5, batch_size=25)
RUN = TrainingRun(
    name="tiny",
    architecture=ARCHITECTURES["mobilenetv2"],
    data="",
    validation_size=20,
    options=OPTIONS,
    start=None,
    command="mdi-exit train",
)

ArchiveWriter = Callable[[Path, dict[str, bytes]], Path]


class Interrupted(Exception):
    pass


def run(archive: Path, out: Path, *, resume: bool = False, stop_after: int = 99, **changes: Any) -> list[str]:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if len(said) >= stop_after:
            raise Interrupted

    train_model(
        dataclasses.replace(RUN, data=str(archive), **changes),
        out_directory=out,
        resume=resume,
        threads=1,
        on_step=lambda epoch, step, steps, loss: None,
        say=say,
    )
    return said


@pytest.fixture(scope="module")
def trained(tiny_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    run(tiny_archive, out)
    return out


def test_training_writes_a_complete_model_directory(trained: Path, pictures: dict[str, bytes]) -> None:
    card = load_card(trained)
    load_network(card)
    assert (card.training.epochs, card.training.seed, card.training.training_images) == (2, 5, 100)
    assert (card.training.validation_images, card.test_images) == (20, 20)
    assert len(card.training.data_hash) == 64
    assert card.training.data == "tiny.zip"
    assert all(0.2 <= temperature <= 10.0 for temperature in card.temperatures)
    assert len(card.default_thresholds) == 4


def test_a_resumed_run_gives_the_same_model(trained: Path, tiny_archive: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tiny_archive, tmp_path, stop_after=2)
    said = run(tiny_archive, tmp_path, resume=True)
    assert said[0] == "100 images to train, 20 to calibrate, 20 to report"
    assert said[1].startswith("epoch 2/2")
    assert load_card(tmp_path).model_id == load_card(trained).model_id


def test_a_run_resumed_with_other_options_goes_on_with_them(tiny_archive: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tiny_archive, tmp_path, stop_after=2)
    longer = dataclasses.replace(OPTIONS, epochs=4, early_exit_weight=0.7)
    shutil.copy(tmp_path / CHECKPOINT_NAME, tmp_path / "before")
    said = run(tiny_archive, tmp_path, resume=True, options=longer)
    assert [line.split()[1] for line in said if line.startswith("epoch")] == ["2/4", "3/4", "4/4"]
    training = load_card(tmp_path).training
    assert training.epochs == 4
    assert training.command == "mdi-exit train --resume, epochs 1 to 1 with --epochs 2 --early-exit-weight 0.4"
    ids = {load_card(tmp_path).model_id}
    for changes in ({"early_exit_weight": 0.4}, {"peak_learning_rate": 0.05}):
        shutil.copy(tmp_path / "before", tmp_path / CHECKPOINT_NAME)
        run(tiny_archive, tmp_path, resume=True, options=dataclasses.replace(longer, **changes))
        ids.add(load_card(tmp_path).model_id)
    assert len(ids) == 3, "each option decides the weights"
    with pytest.raises(ConfigurationError, match="4 epochs behind it, --epochs 3 asks for fewer"):
        run(tiny_archive, tmp_path, resume=True, options=dataclasses.replace(OPTIONS, epochs=3))


def test_a_checkpoint_from_before_epochs_kept_their_options_had_the_same_throughout(
    tiny_archive: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        run(tiny_archive, tmp_path, stop_after=2)
    path = tmp_path / CHECKPOINT_NAME
    with safe_open(path, framework="pt") as file:
        state = json.loads(file.metadata()["state"])
    for report in state["history"]:
        del report["options"]
    save_file(load_file(path), path, {"state": json.dumps(state)})
    run(tiny_archive, tmp_path, resume=True, options=dataclasses.replace(OPTIONS, epochs=3))
    assert load_card(tmp_path).training.command == "mdi-exit train --resume, epochs 1 to 1 with --epochs 2"


def parameters_of(network: SegmentedNetwork) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def test_averaged_epochs_give_the_mean_of_their_weights(tiny_archive: Path, pictures: dict[str, bytes]) -> None:
    images, _ = load_splits(str(tiny_archive), seed=5)
    trainer = Trainer(
        SegmentedNetwork(ARCHITECTURES["mobilenetv2"]),
        images,
        dataclasses.replace(OPTIONS, averaged_epochs=2, epochs=3),
    )
    seen = []
    for _ in range(3):
        trainer.run_epoch()
        seen.append(parameters_of(trainer.network))
    result = trainer.result()
    for name, mean in parameters_of(result).items():
        assert torch.allclose(mean, (seen[1][name] + seen[2][name]) / 2.0, atol=1e-6), name
    statistics = [name for name, _ in result.named_buffers() if name.endswith("running_mean")]
    own, last = dict(result.named_buffers()), dict(trainer.network.named_buffers())
    assert any(not torch.equal(own[name], last[name]) for name in statistics)


def test_a_resumed_run_averages_what_was_averaged_before(tiny_archive: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, epochs=3, averaged_epochs=2)
    run(tiny_archive, tmp_path / "whole", options=options)
    with pytest.raises(Interrupted):
        run(tiny_archive, tmp_path / "halves", options=options, stop_after=3)
    with pytest.raises(ConfigurationError, match=r"made by another run \(epochs 3, now 4\)"):
        run(tiny_archive, tmp_path / "halves", options=dataclasses.replace(options, epochs=4), resume=True)
    run(tiny_archive, tmp_path / "halves", options=options, resume=True)
    assert load_card(tmp_path / "halves").model_id == load_card(tmp_path / "whole").model_id


def test_more_averaged_epochs_than_can_be_are_refused(tiny_archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="2 epochs cannot be averaged of 2"):
        run(tiny_archive, tmp_path, options=dataclasses.replace(OPTIONS, averaged_epochs=2))


def test_verb_trains_and_refuses_to_resume_with_other_options(tiny_archive: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(tiny_archive), "--validation-size", "20", "--batch-size", "50", "--threads", "1"]
    arguments += ["--out", str(tmp_path / "model")]
    result = CliRunner().invoke(train, [*arguments, "--epochs", "1"], catch_exceptions=False)
    assert result.exit_code == 0
    card = load_card(tmp_path / "model")
    assert card.name == "model"
    assert "--data tiny.zip --architecture mobilenetv2 --epochs 1" in card.training.command
    with pytest.raises(ConfigurationError, match=r"made by another run \(seed 1, now 3\)"):
        CliRunner().invoke(train, [*arguments, "--epochs", "1", "--seed", "3", "--resume"], catch_exceptions=False)


def test_a_broken_image_stops_training_with_its_name(
    pictures: dict[str, bytes], tmp_path: Path, write_archive: ArchiveWriter
) -> None:
    archive = write_archive(
        tmp_path / "broken.zip", {**pictures, "train/cat/99.jpg": pictures["train/cat/0.jpg"][:300]}
    )
    with pytest.raises(DataError, match=r"train/cat/99.jpg in broken.zip is not a readable image"):
        run(archive, tmp_path / "model")


def test_nothing_to_resume_and_unknown_architecture_are_named(tiny_archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing to resume"):
        run(tiny_archive, tmp_path, resume=True)
    with pytest.raises(
        ConfigurationError,
        match="unknown architecture 'vgg': expected one of mobilenetv2, mobilenetv2_f",
    ):
        CliRunner().invoke(
            train,
            ["--data", str(tiny_archive), "--architecture", "vgg", "--out", str(tmp_path)],
            catch_exceptions=False,
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backbone: [", "is not YAML"),
        ("backbone: mobilenet_v2\n", "is not an architecture: cuts: Field required"),
        ("backbone: a\ncuts: [1]\nexit_hidden_channels: [null]\nstrides: [1]\ndepth: 3\n", "depth: Unexpected"),
    ],
)
def test_a_file_that_describes_no_architecture_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_architecture(str(tmp_path / "mine.yaml"))
    with pytest.raises(ConfigurationError, match="cannot read the architecture"):
        load_architecture(str(tmp_path / "nothing.yaml"))


def test_the_classes_are_those_of_the_images(
    pictures: dict[str, bytes], tmp_path: Path, write_archive: ArchiveWriter
) -> None:
    cats = {name: content for name, content in pictures.items() if "/cat/" in name or "/dog/" in name}
    options = dataclasses.replace(OPTIONS, batch_size=10, epochs=1)
    run(write_archive(tmp_path / "cats.zip", cats), tmp_path / "model", options=options, validation_size=4)
    card = load_card(tmp_path / "model")
    assert card.class_names == ("cat", "dog")
    assert load_network(card)[1].exit.classifier.out_features == 2


def test_a_run_can_start_from_another_models_weights(trained: Path, tiny_archive: Path, tmp_path: Path) -> None:
    start = starting_point(str(trained), SegmentedNetwork(RUN.architecture), "mobilenet_v2")
    options = dataclasses.replace(OPTIONS, epochs=1, peak_learning_rate=0.0)
    said = run(tiny_archive, tmp_path, options=options, start=start)
    assert said[1].startswith("started from tiny ")
    card = load_card(tmp_path)
    assert card.training.started_from == start.name
    ours, theirs = load_network(card).state_dict(), load_network(load_card(trained)).state_dict()
    assert torch.equal(ours["segments.0.layers.1.0.weight"], theirs["segments.0.layers.1.0.weight"])
    with pytest.raises(ConfigurationError, match="made by another run .*start"):
        run(tiny_archive, tmp_path, options=options, resume=True)


def test_weights_of_another_backbone_are_no_start(tmp_path: Path) -> None:
    stranger = StartingPoint("a stranger", {"conv.weight": torch.zeros(3)})
    with pytest.raises(ModelError, match="no weight of a stranger fits"):
        stranger.fill(SegmentedNetwork(RUN.architecture), torch.zeros(1, 32, 32, 3, dtype=torch.uint8))


def test_torchvisions_weights_start_the_same_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    network = torchvision_module("models").MobileNetV2()
    weights = torchvision_module("models").MobileNet_V2_Weights.DEFAULT
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_, **__: network.state_dict())
    ours = SegmentedNetwork(RUN.architecture)
    said = starting_point("torchvision", ours, "mobilenet_v2").fill(ours, torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    assert said.startswith("started from torchvision's mobilenet_v2: 312 of")
    frames = torch.rand(2, 3, 64, 64)
    network.eval(), ours.eval()
    layers = [layer for segment in ours.segments for layer in segment.layers][1:]
    for layer in layers:
        for convolution in layer.modules():
            if isinstance(convolution, torch.nn.Conv2d):
                convolution.stride = (1, 1)
    for layer in network.features.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.stride = (1, 1)
    with torch.inference_mode():
        assert torch.allclose(torch.nn.Sequential(*layers)(frames), network.features(frames), atol=1e-4)


def test_torchvisions_weights_that_cannot_be_had_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="torchvision's weights of mobilenet_v2 cannot be had"):
        starting_point("torchvision", SegmentedNetwork(RUN.architecture), "mobilenet_v2")
    with pytest.raises(ModelError, match="torchvision has no weights for 'other'"):
        starting_point("torchvision", SegmentedNetwork(RUN.architecture), "other")


def test_half_precision_strides_give_the_same_output() -> None:
    architecture = ARCHITECTURES["mobilenetv2"]
    torch.manual_seed(1)
    plain, changed = SegmentedNetwork(architecture), SegmentedNetwork(architecture)
    changed.load_state_dict(plain.state_dict())
    _stride_after_depthwise(changed)
    frames = torch.randint(0, 255, (2, 32, 32, 3), dtype=torch.uint8)
    for ours, theirs in zip(changed.eval()(frames), plain.eval()(frames), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", pickle.dumps({"epoch": 1})])
def test_a_file_that_is_no_checkpoint_is_named(content: bytes, tiny_archive: Path, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT_NAME).write_bytes(content)
    with pytest.raises(ConfigurationError, match="is not a whole checkpoint"):
        run(tiny_archive, tmp_path, resume=True)


def test_a_checkpoint_of_another_seed_or_model_is_refused(tiny_archive: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tiny_archive, tmp_path, stop_after=2)
    with pytest.raises(ConfigurationError, match="made by another run .*seed 5, now 6"):
        run(tiny_archive, tmp_path, resume=True, options=dataclasses.replace(OPTIONS, seed=6))
    with pytest.raises(ConfigurationError, match="made by another run .*architecture"):
        run(tiny_archive, tmp_path, resume=True, architecture=ARCHITECTURES["mobilenetv2_fast"])


def test_augmentation_keeps_every_pixel_real() -> None:
    frames = torch.arange(2 * 8 * 8 * 3, dtype=torch.uint8).view(2, 8, 8, 3)
    assert torch.equal(
        augment(frames, padding=0, cutout=0, generator=torch.Generator().manual_seed(2))[0].sort(1).values,
        frames[0].sort(1).values,
    )
    shifted = augment(frames, padding=3, cutout=0, generator=torch.Generator().manual_seed(2))
    assert shifted.shape == frames.shape
    assert set(shifted[0].flatten().tolist()) <= set(frames[0].flatten().tolist())
    again = augment(frames, padding=3, cutout=0, generator=torch.Generator().manual_seed(2))
    assert torch.equal(shifted, again)


def test_cutout_hides_one_square_behind_the_mean_colour() -> None:
    frames = torch.zeros(64, 16, 16, 3, dtype=torch.uint8)
    frames[:, :, ::2] = 200
    cut = augment(frames, padding=0, cutout=4, generator=torch.Generator().manual_seed(2))
    hidden = (cut == 100).all(dim=3)
    assert hidden.flatten(1).sum(dim=1).tolist() == pytest.approx([16] * 64, abs=12)
    assert hidden.flatten(1).sum(dim=1).max() == 16
    for square in hidden:
        rows, columns = square.any(dim=1).nonzero(), square.any(dim=0).nonzero()
        assert square.sum() == len(rows) * len(columns)


def test_learning_rate_rises_and_falls_to_zero() -> None:
    factors = [learning_rate_factor(step, total_steps=100, warm_up_share=0.1) for step in range(100)]
    assert np.argmax(factors) in (9, 10)
    assert factors[9] == 1.0
    assert factors[0] == pytest.approx(0.1)
    assert factors[-1] < 0.001


def test_learning_rate_is_constant_while_weights_are_averaged() -> None:
    factors = [learning_rate_factor(step, total_steps=100, warm_up_share=0.1, averaged_steps=30) for step in range(100)]
    assert max(factors) == factors[9] == 1.0
    assert factors[69] == pytest.approx(AVERAGING_RATE, abs=0.01)
    assert set(factors[70:]) == {AVERAGING_RATE}
