# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from mdi_exit_ros.cli.calibrate import calibrate as verb
from mdi_exit_ros.errors import ConfigurationError, DataError
from mdi_exit_ros.model.card import load_card, promised_accuracy
from mdi_exit_ros.model.checkpoint import load_network
from mdi_exit_ros.profile import BackendProfile, Profile, ServiceTime, save_profile
from mdi_exit_ros.training.calibration import exit_costs, outcome, time_costs
from mdi_exit_ros.training.operating_points import Calibration, calibrate, report, targets

MACS = exit_costs([10, 20, 70], [1, 1, 1])


def drawn(seed: int, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits (3, N, 10) of exits that get better, and labels (N,); at a temperature of 0.5 they are honest.

    Each exit sees the label's class in noise of variance 1, of which the posterior is known.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(10, size=count)
    signal = np.array([1.5, 2.5, 3.0])[:, None, None]
    seen = signal * np.eye(10)[labels] + rng.normal(size=(3, count, 10))
    return (0.5 * signal * seen).astype(np.float32), labels


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    return calibrate(*drawn(1), MACS)


def test_targets_are_promises_that_hold_on_other_images(fitted: Calibration) -> None:
    ours, others = report(fitted, *drawn(1)), report(fitted, *drawn(2, 20_000))
    assert len(ours["targets"]) > 10
    for each in ours["targets"]:
        assert 0.005 <= each["accuracy"] - each["target"] < 0.035, "what the images vouch for, not their mean"
    for each in others["targets"]:
        assert 0.0 <= each["accuracy"] - each["target"] < 0.04
        low, high = each["accuracy_interval"]
        assert each["held"] == (low <= each["target"] <= high)


def test_calibration_makes_confidence_honest(fitted: Calibration) -> None:
    assert fitted.temperatures == pytest.approx((0.5, 0.5, 0.5), abs=0.03)
    others = report(fitted, *drawn(2))
    for before, after in zip(others["ece_before"], others["ece_after"], strict=True):
        assert after < 0.03 < before
    for bins in others["reliability"]:
        assert sum(each["images"] for each in bins["after"]) == 4000


def test_default_gives_up_two_thousandths_at_most(fitted: Calibration) -> None:
    ours = report(fitted, *drawn(1))
    assert ours["default"]["accuracy"] >= ours["accuracy_exits"][-1] - 0.002
    assert ours["default"]["mac_fraction"] < 1.0


def test_measured_time_decides_what_is_cheap() -> None:
    logits, labels = drawn(1)
    slow_end, slow_start = time_costs([1.0, 1.0, 20.0]), time_costs([20.0, 1.0, 1.0])
    by_end, by_start = calibrate(logits, labels, MACS, slow_end), calibrate(logits, labels, MACS, slow_start)
    assert by_end.default.cost < by_start.default.cost
    correct = logits.argmax(axis=2) == labels
    for target, chosen in targets(by_end):
        other = next(point for each, point in targets(by_start) if each == target)
        theirs = outcome(by_end.confidence(logits), correct, MACS, other.thresholds, slow_end)
        assert chosen.cost <= theirs.cost + 0.01


def test_no_other_thresholds_are_much_cheaper(fitted: Calibration) -> None:
    logits, labels = drawn(1)
    correct, confidence = logits.argmax(axis=2) == labels, fitted.confidence(logits)
    everything = [
        outcome(confidence, correct, MACS, (first, second))
        for first in np.linspace(0.0, 1.0, 41)
        for second in np.linspace(0.0, 1.0, 41)
    ]
    for target, chosen in targets(fitted):
        sure = (point for point in everything if promised_accuracy(point.accuracy, fitted.images) >= target)
        cheapest = min(point.cost for point in sure)
        assert chosen.cost <= cheapest + 0.02


def test_curve_has_no_gap(fitted: Calibration) -> None:
    for cheaper, dearer in pairwise(fitted.curve):
        assert dearer.accuracy - cheaper.accuracy < 0.03


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_archive: Path) -> tuple[Path, dict[str, Any]]:
    """A model directory and the document of the verb, run on real images."""
    folder = tmp_path_factory.mktemp("calibrated")
    arguments = ["--data", str(tiny_archive), "--split", "train", "--out", str(folder / "model")]
    arguments += ["--plots", str(folder / "plots"), "--json", str(folder / "calibration.json")]
    result = CliRunner().invoke(verb, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder, json.loads((folder / "calibration.json").read_text())


def test_verb_writes_a_model_with_the_new_calibration(written: tuple[Path, dict[str, Any]]) -> None:
    folder, document = written
    card, shipped = load_card(folder / "model"), load_card("mobilenetv2")
    load_network(card)
    assert card.weights_sha256 == shipped.weights_sha256
    assert card.model_id != shipped.model_id
    assert list(card.temperatures) == document["temperatures"]
    assert list(card.default_thresholds) == document["default_thresholds"]
    assert card.cost_basis == document["cost"] == "multiply-accumulates"
    assert (document["validation"]["images"], document["test"]["images"]) == (120, 20)


def test_verb_draws_three_pictures(written: tuple[Path, dict[str, Any]]) -> None:
    names = {path.name for path in (written[0] / "plots").iterdir()}
    assert names == {"tradeoff.png", "reliability.png", "exits.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (written[0] / "plots").iterdir())


def test_verb_counts_with_the_times_of_a_profile(tiny_archive: Path, tmp_path: Path) -> None:
    card = load_card("mobilenetv2")
    times = tuple(ServiceTime(segment=k, batch=8, seconds=k, low=k, high=k) for k in range(1, 6))
    entry = BackendProfile(backend="b", precision="fp32", device="cpu", threads=1, version="1", times=times)
    facts = {"machine": {"processor": "P"}, "measured_on": "2026-11-25", "method": "by hand", "backends": (entry,)}
    save_profile(Profile(model=card.name, model_id=card.model_id, **facts), tmp_path / "p.json")
    arguments = ["--data", str(tiny_archive), "--split", "train", "--json", str(tmp_path / "out.json")]
    CliRunner().invoke(verb, [*arguments, "--profile", str(tmp_path / "p.json")], catch_exceptions=False)
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["cost"] == "time: b fp32, batches of 8, P"
    assert document["cost_exits"] == pytest.approx([1 / 15, 3 / 15, 6 / 15, 10 / 15, 1.0])
    save_profile(Profile(model="other", model_id="0", **facts), tmp_path / "p.json")
    with pytest.raises(ConfigurationError, match="is of other 0, expected"):
        CliRunner().invoke(verb, [*arguments, "--profile", str(tmp_path / "p.json")], catch_exceptions=False)


def test_images_of_unknown_classes_and_folders_with_other_files_are_refused(
    tiny_archive: Path, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "train" / "zebra").mkdir(parents=True)
    (tmp_path / "train" / "zebra" / "1.jpg").write_bytes(pictures["train/cat/0.jpg"])
    with pytest.raises(DataError, match="the images have 'zebra'"):
        CliRunner().invoke(verb, ["--data", str(tmp_path), "--split", "train"], catch_exceptions=False)
    arguments = ["--data", str(tiny_archive), "--split", "train", "--out", str(tmp_path)]
    with pytest.raises(ConfigurationError, match="has other files in it"):
        CliRunner().invoke(verb, arguments, catch_exceptions=False)
