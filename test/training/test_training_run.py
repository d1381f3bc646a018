# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mdi_exit_ros.cli.train import train
from mdi_exit_ros.errors import ConfigurationError, DataError
from mdi_exit_ros.model.card import load_card
from mdi_exit_ros.model.checkpoint import load_network
from mdi_exit_ros.training.augmentation import augment
from mdi_exit_ros.training.loop import TrainingOptions, learning_rate_factor
from mdi_exit_ros.training.session import train_model

OPTIONS = TrainingOptions(epochs=2, seed=5, batch_size=25)


ArchiveWriter = Callable[[Path, dict[str, bytes]], Path]


class Interrupted(Exception):
    pass


def run(archive: Path, out: Path, *, resume: bool = False, stop_after: int = 99) -> list[str]:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if len(said) >= stop_after:
            raise Interrupted

    train_model(
        data=str(archive),
        architecture_name="mobilenetv2",
        options=OPTIONS,
        validation_size=20,
        out_directory=out,
        resume=resume,
        threads=1,
        command="mdi-exit train",
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
        run(tiny_archive, tmp_path, stop_after=1)
    said = run(tiny_archive, tmp_path, resume=True)
    assert said[0].startswith("epoch 2/2")
    assert load_card(tmp_path).model_id == load_card(trained).model_id


def test_verb_trains_and_refuses_to_resume_with_other_options(tiny_archive: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(tiny_archive), "--validation-size", "20", "--batch-size", "50", "--threads", "1"]
    arguments += ["--out", str(tmp_path / "model")]
    result = CliRunner().invoke(train, [*arguments, "--epochs", "1"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "--data tiny.zip --architecture mobilenetv2 --epochs 1" in load_card(tmp_path / "model").training.command
    with pytest.raises(ConfigurationError, match=r"made with other options \(epochs\)"):
        CliRunner().invoke(train, [*arguments, "--epochs", "3", "--resume"], catch_exceptions=False)


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
    with pytest.raises(ConfigurationError, match="unknown architecture 'vgg': expected one of mobilenetv2"):
        CliRunner().invoke(
            train,
            ["--data", str(tiny_archive), "--architecture", "vgg", "--out", str(tmp_path)],
            catch_exceptions=False,
        )


def test_too_few_classes_are_refused(pictures: dict[str, bytes], tmp_path: Path, write_archive: ArchiveWriter) -> None:
    cats = {name: content for name, content in pictures.items() if "/cat/" in name or "/dog/" in name}
    with pytest.raises(DataError, match="tells 10 classes apart, but .* has 2: cat, dog"):
        run(write_archive(tmp_path / "cats.zip", cats), tmp_path / "model")


def test_augmentation_keeps_every_pixel_real() -> None:
    frames = torch.arange(2 * 8 * 8 * 3, dtype=torch.uint8).view(2, 8, 8, 3)
    assert torch.equal(
        augment(frames, padding=0, generator=torch.Generator().manual_seed(2))[0].sort(1).values,
        frames[0].sort(1).values,
    )
    shifted = augment(frames, padding=3, generator=torch.Generator().manual_seed(2))
    assert shifted.shape == frames.shape
    assert set(shifted[0].flatten().tolist()) <= set(frames[0].flatten().tolist())
    again = augment(frames, padding=3, generator=torch.Generator().manual_seed(2))
    assert torch.equal(shifted, again)


def test_learning_rate_rises_and_falls_to_zero() -> None:
    factors = [learning_rate_factor(step, total_steps=100, warm_up_share=0.1) for step in range(100)]
    assert np.argmax(factors) in (9, 10)
    assert factors[9] == 1.0
    assert factors[0] == pytest.approx(0.1)
    assert factors[-1] < 0.001
