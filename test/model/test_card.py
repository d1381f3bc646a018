# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from mdi_exit_ros.errors import ModelError
from mdi_exit_ros.model.card import CARD_NAME, ModelCard, load_card, promised_accuracy, weights_digest
from mdi_exit_ros.model.checkpoint import load_network, load_weights, save_weights
from mdi_exit_ros.model.segment import SegmentedNetwork


@pytest.fixture
def copy(card: ModelCard, tmp_path: Path) -> Path:
    return Path(shutil.copytree(card.directory, tmp_path / "copy"))


def rewrite(directory: Path, **changes: Any) -> None:
    path = directory / CARD_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def accept_weights(directory: Path) -> None:
    names = json.loads((directory / CARD_NAME).read_text())["weights_files"]
    rewrite(directory, weights_sha256=weights_digest(directory / name for name in names))


def last_weights(directory: Path) -> Path:
    return directory / json.loads((directory / CARD_NAME).read_text())["weights_files"][-1]


def test_card_is_found_by_name_folder_and_file(card: ModelCard) -> None:
    assert load_card(card.directory).model_id == card.model_id
    assert load_card(card.directory / CARD_NAME).model_id == card.model_id
    assert len(card.model_id) == 16


def test_card_is_read_without_torch() -> None:
    program = (
        "import sys; from mdi_exit_ros.model.card import load_card; load_card('mobilenetv2'); "
        "assert not {'torch', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_shipped_model_is_as_good_as_promised(card: ModelCard) -> None:
    assert card.accuracy_test[-1] >= 0.85
    assert min(card.accuracy_test) > 0.55
    assert card.training.validation_images >= 5000
    assert max(card.default_thresholds) <= 1.0


def test_threshold_curve_rises_in_every_column(card: ModelCard) -> None:
    for cheaper, dearer in pairwise(card.threshold_curve):
        assert dearer.accuracy > cheaper.accuracy
        assert all(low <= high for low, high in zip(cheaper.thresholds, dearer.thresholds, strict=True))
    best, _ = card.curve[-1]
    assert card.point_for(best) == card.threshold_curve[-1]
    assert best < card.threshold_curve[-1].accuracy
    with pytest.raises(ModelError, match="promises an accuracy of at most"):
        card.point_for(0.9999)


@pytest.mark.parametrize(
    ("accuracy", "images", "promised"), [(0.9, 5000, 0.8928), (0.9, 100, 0.8396), (1.0, 100, 0.9737), (0.0, 100, 0.0)]
)
def test_promise_is_the_lower_end_of_what_the_images_show(accuracy: float, images: int, promised: float) -> None:
    assert promised_accuracy(accuracy, images) == pytest.approx(promised, abs=1e-4)


def test_missing_model_names_the_shipped_ones() -> None:
    with pytest.raises(ModelError, match=r"no model 'resnet': expected a folder with model.json.*mobilenetv2"):
        load_card("resnet")


def test_temperatures_and_weights_are_part_of_the_id(card: ModelCard, copy: Path) -> None:
    rewrite(copy, temperatures=[1.5] * card.num_segments)
    assert load_card(copy).model_id != card.model_id


def test_weights_of_another_run_are_refused(copy: Path) -> None:
    weights = last_weights(copy)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match="the weights do not fit the card"):
        load_card(copy)


def test_missing_weights_are_named(copy: Path) -> None:
    last_weights(copy).unlink()
    with pytest.raises(ModelError, match="has no weights: cannot read"):
        load_card(copy)


def test_truncated_weights_are_refused(copy: Path) -> None:
    weights = last_weights(copy)
    weights.write_bytes(weights.read_bytes()[:-1000])
    accept_weights(copy)
    with pytest.raises(ModelError, match="cut short"):
        load_network(load_card(copy))


def test_weights_are_kept_one_file_per_segment_in_full_or_half(card: ModelCard, tmp_path: Path) -> None:
    network = load_network(card)
    sizes = []
    for half in (False, True):
        names = save_weights(network, tmp_path, half=half)
        assert names == tuple(f"segment_{number}.safetensors" for number in range(1, 6))
        sizes.append(sum((tmp_path / name).stat().st_size for name in names))
        again = SegmentedNetwork(card.architecture)
        load_weights(again, [tmp_path / name for name in names])
        for name, tensor in again.state_dict().items():
            ours = network.state_dict()[name]
            assert tensor.dtype == ours.dtype
            torch.testing.assert_close(tensor, ours, rtol=1e-3 if half else 0.0, atol=1e-4 if half else 0.0)
    assert sizes[1] < 0.55 * sizes[0]
    with pytest.raises(ModelError, match=r"has no tensor segments\.4\."):
        load_weights(SegmentedNetwork(card.architecture), [tmp_path / name for name in names[:4]])


@pytest.mark.parametrize("content", [b"", b"no tensors", pickle.dumps({"weight": 1}), b"\xff" * 64])
def test_files_that_are_no_safetensors_are_refused(content: bytes, copy: Path) -> None:
    last_weights(copy).write_bytes(content)
    accept_weights(copy)
    with pytest.raises(ModelError, match="cannot read the weights in"):
        load_network(load_card(copy))


def test_card_that_describes_another_network_is_refused(card: ModelCard, copy: Path) -> None:
    architecture = json.loads((copy / CARD_NAME).read_text())["architecture"]
    rewrite(copy, architecture={**architecture, "exit_hidden_channels": [64, 64, 128, 128, None]})
    with pytest.raises(
        ModelError, match=r"segments.1.exit.classifier.weight .* has shape \[10, 128\], expected \[10, 64\]"
    ):
        load_network(load_card(copy))


def test_card_with_other_feature_shapes_is_refused(copy: Path) -> None:
    shapes = json.loads((copy / CARD_NAME).read_text())["feature_shapes"]
    rewrite(copy, feature_shapes=[[1, 1, 1], *shapes[1:]])
    with pytest.raises(ModelError, match="names feature shapes"):
        load_network(load_card(copy))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperatures": [1.0]}, "temperatures has 1 entries for 5 segments"),
        ({"colour": "red"}, "colour"),
        ({"num_segments": "many"}, "num_segments"),
        ({"weights_files": ["../weights"]}, "files beside the card"),
        ({"temperatures": [1.0, 1.0, 0.0, 1.0, 1.0]}, "expected temperatures above 0"),
        ({"default_thresholds": [0.5, 0.5, 7.0, 0.5]}, "expected 4 thresholds from 0 to 1"),
        ({"threshold_curve": []}, "threshold_curve is empty"),
        ({"weights_files": []}, "weights_files: .* at least 1"),
        ({"accuracy_test": [0.7, 0.8, 0.9, 0.9, 90.0]}, "accuracy_test.4: .* less than or equal to 1"),
        ({"format_version": 9}, "format_version, input_shape, number of classes and segments: expected .1, "),
        ({"input_shape": [64, 64, 3]}, "expected .1, .32, 32, 3., 10, 5., .* got .1, .64, 64, 3., 10, 5."),
        ({"class_names": ["cat"]}, "expected .* 10, 5., .* got .* 1, 5."),
    ],
)
def test_broken_card_says_what_is_wrong(copy: Path, changes: dict[str, Any], message: str) -> None:
    rewrite(copy, **changes)
    with pytest.raises(ModelError, match=message):
        load_card(copy)


def test_card_with_impossible_figures_is_refused(copy: Path) -> None:
    given = json.loads((copy / CARD_NAME).read_text())
    rewrite(copy, threshold_curve=[{**given["threshold_curve"][0], "accuracy": 88.1}])
    with pytest.raises(ModelError, match=r"threshold_curve.0.accuracy: .* less than or equal to 1"):
        load_card(copy)
    rewrite(copy, threshold_curve=given["threshold_curve"], training={**given["training"], "validation_images": 0})
    with pytest.raises(ModelError, match=r"training.validation_images: .* greater than or equal to 1"):
        load_card(copy)


def test_card_that_is_not_json_is_refused(copy: Path) -> None:
    (copy / CARD_NAME).write_text("{")
    with pytest.raises(ModelError, match="is not a model card"):
        load_card(copy)
