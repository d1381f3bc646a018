# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdi_exit_ros.benchmark import peers
from mdi_exit_ros.benchmark.bare import archive_files, classify
from mdi_exit_ros.benchmark.peers import PEERS, missing_for, peer_result
from mdi_exit_ros.errors import MdiExitError
from mdi_exit_ros.images import decode, resize
from mdi_exit_ros.model.backends.registry import load_segments
from mdi_exit_ros.model.card import load_card

FRAMES = 200
BATCHES = {"plain_rclpy_pipeline": 1}
RUNS = [(name, mode) for name, peer in PEERS.items() for mode in peer.modes]
FIELDS = {
    *("name", "mode", "batch", "in_flight", "model_id", "backend", "precision", "segments", "frames", "answered"),
    *("accuracy", "exits", "fps", "latency_ms", "cpu_s_per_1000_frames", "bytes_per_frame", "versions"),
}

pytestmark = pytest.mark.timeout(300)


def bare_answers(repository: Path, batch: int) -> tuple[float, list[float]]:
    """Accuracy and exit shares of the bare loop on the first frames of the shipped archive."""
    card = load_card("mobilenetv2")
    path = repository / "data" / "cifar10_sample.zip"
    with zipfile.ZipFile(path) as archive:
        labels = [card.class_names.index(Path(name).parent.name) for name in archive.namelist()][:FRAMES]
    height, width, _ = card.input_shape
    frames = np.stack([resize(decode(data, "image"), height, width) for data in archive_files(path)[:FRAMES]])
    runner = load_segments(card, range(1, card.num_segments + 1), backend="onnxruntime")
    parts = [
        classify(runner, frames[start : start + batch], card.num_segments, card.default_thresholds)
        for start in range(0, FRAMES, batch)
    ]
    classes, exits = (np.concatenate(each) for each in zip(*parts, strict=True))
    shares = [float((exits == number).mean()) for number in range(1, card.num_segments + 1)]
    return float((classes == np.array(labels)).mean()), shares


@pytest.mark.parametrize(("name", "mode"), RUNS)
def test_peer_computes_what_the_bare_loop_computes(name: str, mode: str, repository: Path) -> None:
    if (missing := missing_for(name)) is not None:
        pytest.skip(missing)
    result = peer_result(name, mode, FRAMES)
    card = load_card("mobilenetv2")
    accuracy, shares = bare_answers(repository, BATCHES.get(name, 32))
    assert set(result) == FIELDS
    assert (result["name"], result["mode"], result["batch"]) == (name, mode, BATCHES.get(name, 32))
    assert result["answered"] == result["frames"] == FRAMES
    assert result["exits"] == pytest.approx(shares, abs=1e-12)
    assert result["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert result["model_id"] == card.model_id
    assert result["fps"] > 0.0 and result["cpu_s_per_1000_frames"] > 0.0
    latency_ms = result["latency_ms"]
    assert 0.0 < latency_ms["p50"] <= latency_ms["p95"] <= latency_ms["p99"]
    assert {"python", "numpy", "onnxruntime"} < set(result["versions"])
    held = [set(segments) for segments in result["segments"]]
    everything = set(range(1, card.num_segments + 1))
    if mode == "farm":
        assert held == [everything, everything] and result["bytes_per_frame"] == 0.0
    else:
        cut = max(held[0])
        nbytes = 4.0 * float(np.prod(card.feature_shapes[cut - 1]))
        assert held[0] | held[1] == everything and not held[0] & held[1]
        assert result["bytes_per_frame"] == pytest.approx(sum(shares[cut:]) * nbytes)


def test_peer_whose_library_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = PEERS["zeromq_pipeline"]._replace(module="no_such_library")
    monkeypatch.setitem(peers.PEERS, "zeromq_pipeline", peer)
    with pytest.raises(MdiExitError, match="no_such_library, which is not installed: .* -m pip install .*-bench"):
        peer_result("zeromq_pipeline", "farm", 1)


def test_a_program_is_told_what_computes_and_on_how_many_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []

    def run(command: list[str]) -> tuple[int, str]:
        told.append(command)
        Path(command[command.index("--json") + 1]).write_text("{}")
        return 0, ""

    monkeypatch.setattr(peers, "_run", run)
    monkeypatch.setattr(peers, "missing_for", lambda name: None)
    assert peer_result("zeromq_pipeline", "farm", 1, backend="openvino", precision="bf16", workers=6) == {}
    peer_result("zeromq_pipeline", "farm", 1)
    options = [dict(itertools.pairwise(command)) for command in told]
    assert [each["--precision"] for each in options] == ["bf16", "fp32"]
    assert [each.get("--workers") for each in options] == ["6", None]


class AtOnce:
    """Answers every frame with class 3 at the first exit."""

    def __init__(self) -> None:
        self._came: list[np.ndarray[Any, Any]] = []

    def offer(self, ids: np.ndarray[Any, Any], frames: np.ndarray[Any, Any]) -> None:
        self._came.append(np.stack([ids, np.full_like(ids, 3), np.ones_like(ids)], axis=1))

    def answers(self, timeout_s: float) -> list[np.ndarray[Any, Any]]:
        came, self._came = self._came, []
        return came


@pytest.mark.parametrize("known", [True, False])
def test_a_model_without_the_classes_of_the_images_has_no_accuracy(
    known: bool, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmark" / "peers"))
    common = importlib.import_module("common")
    card = load_card("mobilenetv2")
    if not known:
        card = card.model_copy(update={"class_names": tuple(f"mine{number}" for number in range(10))})
    monkeypatch.setattr(common, "load_card", lambda name: card)
    job = common.Job("n", "farm", 32, 64, 320, "m", "onnxruntime", "fp32", ((1, 5),), tmp_path / "result.json")
    common.measure(job, AtOnce(), [])
    result = json.loads(job.json.read_text())
    assert result["precision"] == "fp32"
    assert (result["accuracy"] is not None) == known


@pytest.mark.parametrize(("name", "mode"), [("nothing", "farm"), ("torch_distributed_pipeline", "farm")])
def test_unknown_peer_or_mode_is_refused(name: str, mode: str) -> None:
    with pytest.raises(MdiExitError, match="expected"):
        peer_result(name, mode, 1)


def test_failure_carries_the_last_lines() -> None:
    if (missing := missing_for("zeromq_pipeline")) is not None:
        pytest.skip(missing)
    with pytest.raises(MdiExitError, match="ended with 2: error: no model 'nowhere'"):
        peer_result("zeromq_pipeline", "farm", 1, model="nowhere")


def test_program_without_its_library_fails_in_one_line(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "zmq.py").write_text("raise ModuleNotFoundError(\"No module named 'zmq'\", name='zmq')\n")
    program = repository / "benchmark" / "peers" / "zeromq_pipeline.py"
    code = (
        f"import runpy, sys; sys.path[:0] = [{str(tmp_path)!r}, {str(program.parent)!r}]; "
        f"sys.argv = [{str(program)!r}, '--mode', 'farm', '--json', {str(tmp_path / 'result.json')!r}]; "
        f"runpy.run_path({str(program)!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    expected = (
        f"error: zmq is not installed: {sys.executable} -m pip install -c constraints.txt -r requirements-bench.txt"
    )
    assert (done.returncode, done.stderr) == (2, f"{expected}\n")
