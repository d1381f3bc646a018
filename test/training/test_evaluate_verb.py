# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mdi_exit_ros.cli.evaluate import evaluate
from mdi_exit_ros.errors import ConfigurationError, DataError, ModelError
from mdi_exit_ros.model.card import load_card
from mdi_exit_ros.simulation.recording import load_recording


def report(tmp_path: Path, *arguments: str) -> dict[str, object]:
    path = tmp_path / "report.json"
    result = CliRunner().invoke(evaluate, [*arguments, "--json", str(path)], catch_exceptions=False)
    assert result.exit_code == 0
    return dict(json.loads(path.read_text()))


def test_shipped_model_is_measured_on_the_shipped_sample(tmp_path: Path) -> None:
    card = load_card("mobilenetv2")
    figures = report(tmp_path)
    assert figures["images"] == 1200
    assert figures["model_id"] == card.model_id
    assert figures["thresholds"] == list(card.default_thresholds)
    assert figures["accuracy_exits"] == pytest.approx(card.accuracy_test, abs=0.04)
    assert sum(figures["exits"]) == pytest.approx(1.0)  # type: ignore[call-overload]
    low, high = figures["accuracy_interval"]  # type: ignore[misc]
    assert low < figures["accuracy"] < high
    assert 0.0 < figures["mac_fraction"] < 1.1  # type: ignore[operator]
    assert 0.0 <= figures["ece"] < 0.1  # type: ignore[operator]
    for share, (low, high) in zip(figures["exits"], figures["exits_interval"], strict=True):  # type: ignore[call-overload]
        assert low <= share <= high
    assert [tuple(point["thresholds"]) for point in figures["curve"]] == [  # type: ignore[attr-defined]
        point.thresholds for point in card.threshold_curve
    ]
    for point in figures["curve"]:  # type: ignore[attr-defined]
        assert point["accuracy_interval"][0] < point["accuracy"] < point["accuracy_interval"][1]


def test_target_accuracy_trades_cost_for_accuracy(tmp_path: Path, tiny_archive: Path) -> None:
    card = load_card("mobilenetv2")
    target = (card.curve[0][0] + card.curve[-1][0]) / 2
    figures = report(tmp_path, "--data", str(tiny_archive), "--target-accuracy", str(target))
    assert figures["thresholds"] == list(card.point_for(target).thresholds)
    cheapest = report(tmp_path, "--data", str(tiny_archive), "--thresholds", "0,0,0,0", "--backend", "torch")
    assert cheapest["exits"] == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert cheapest["accuracy"] == cheapest["accuracy_exits"][0]  # type: ignore[index]


def test_what_every_exit_said_is_recorded(tmp_path: Path, tiny_archive: Path) -> None:
    path = tmp_path / "new" / "recording.npz"
    figures = report(tmp_path, "--data", str(tiny_archive), "--record", str(path))
    recording = load_recording(path)
    assert (len(recording), recording.model_id) == (figures["images"], figures["model_id"])
    assert recording.correct.mean(axis=0).tolist() == pytest.approx(figures["accuracy_exits"])
    thresholds = [*figures["thresholds"], 0.0]  # type: ignore[misc]
    taken = (recording.confidence >= thresholds).argmax(axis=1)
    assert [(taken == number).mean() for number in range(5)] == pytest.approx(figures["exits"], abs=0.01)


def test_encodings_are_compared_at_every_cut(tmp_path: Path, tiny_archive: Path) -> None:
    card = load_card("mobilenetv2")
    rows = report(tmp_path, "--data", str(tiny_archive), "--split", "train", "--encodings")["encodings"]
    assert [(row["encoding"], row["cut"]) for row in rows] == [  # type: ignore[attr-defined]
        (encoding, cut) for encoding in ("raw", "fp16", "int8") for cut in (1, 2, 3, 4, 0)
    ]
    for row in rows:  # type: ignore[attr-defined]
        assert row["agreement"] > (0.99 if row["encoding"] == "raw" else 0.9)
        if row["cut"]:
            channels, height, width = card.feature_shapes[row["cut"] - 1]
            elements = channels * height * width
            expected = {"raw": 4 * elements, "fp16": 2 * elements, "int8": elements + 2 * channels}
            assert row["nbytes"] == expected[row["encoding"]]
    coarse = report(tmp_path, "--data", str(tiny_archive), "--encoding", "int8")
    assert coarse["encoding"] == "int8"


def test_backends_answer_as_eager_torch_does(tmp_path: Path) -> None:
    rows = {(row["backend"], row["precision"]): row for row in report(tmp_path, "--backends")["backends"]}  # type: ignore[attr-defined]
    assert next(iter(rows)) == ("torch-eager", "fp32")
    assert ("onnxruntime", "fp32") in rows
    assert ("onnxruntime", "bf16") not in rows
    for (_, precision), row in rows.items():
        assert row["agreement"] >= (0.999 if precision == "fp32" else 0.98)
        assert row["confidence_difference"] <= (0.001 if precision == "fp32" else 0.25)
        low, high = row["agreement_interval"]
        assert low <= row["agreement"] <= high


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--thresholds", "a,b"], ConfigurationError, "must be numbers"),
        (["--thresholds", "0.5"], ConfigurationError, "expected 4 thresholds, came 1"),
        (["--thresholds", "0,0,0,0", "--target-accuracy", "0.8"], ConfigurationError, "exclude each other"),
        (["--target-accuracy", "1.0"], ModelError, "ask for no more than that"),
        (["--model", "nothing"], ModelError, "no model 'nothing'"),
        (["--data", "/nowhere"], DataError, "no images at"),
    ],
)
def test_wrong_arguments_get_one_clear_message(arguments: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CliRunner().invoke(evaluate, arguments, catch_exceptions=False)
