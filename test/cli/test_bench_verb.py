# SPDX-License-Identifier: Apache-2.0
"""What `mdi-exit bench` refuses before it measures, and what it leaves out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mdi_exit_ros.benchmark import peers, programs
from mdi_exit_ros.benchmark.bare import BareRun, Layout
from mdi_exit_ros.cli import bench as verb
from mdi_exit_ros.errors import MdiExitError

LATENCY = {"p50": 1.0, "p95": 2.0, "p99": 3.0}
NOTHING = ["--graph", "none", "--camera-topic", "none"]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Stands in for the bare loop and for peers, and tells which of them were run; ray fails in its second turn."""
    runs: list[tuple[str, ...]] = []

    def peer_result(name: str, mode: str, frames: int, **options: Any) -> dict[str, Any]:
        runs.append((name, mode, options["precision"], options["workers"]))
        if name == "ray_actors" and len(runs) > 3:
            raise MdiExitError("ray_actors ended with 1: [/a] crash")
        return {"fps": 1.0, "latency_ms": LATENCY, "accuracy": None}

    def best_layout(*_: Any, **__: Any) -> tuple[Layout, dict[str, float]]:
        runs.append(("bare",))
        return Layout(1, 1, 1), {}

    monkeypatch.setattr(verb, "best_layout", best_layout)
    monkeypatch.setattr(verb, "bare_run", lambda *_, **__: BareRun(2.0, LATENCY, 1.0, 1.0))
    monkeypatch.setattr(verb, "peer_result", peer_result)
    monkeypatch.setattr(verb, "missing_for", lambda name: None)
    monkeypatch.setattr(verb.os, "sched_getaffinity", lambda _: set(range(6)))
    return runs


def bench(*options: str) -> Result:
    return CliRunner().invoke(verb.bench, list(options))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--backend", "onnxruntime", "--precision", "bf16"], "'onnxruntime' computes in fp32, not in 'bf16'"),
        (["--precision", "fp17"], "computes in fp32, not in 'fp17'"),
        (["--backend", "onnx"], "unknown backend 'onnx'"),
        (["--param", "worker1:backend=torch"], "--param: every row has one backend: expected --backend instead of"),
        (["--param", "worker1:precision=bf16"], "--param: every row has one precision"),
    ],
)
def test_what_cannot_be_measured_is_told_before_anything_is(
    options: list[str], said: str, measured: list[tuple[str, ...]]
) -> None:
    result = bench(*NOTHING, "--peer", "zeromq_pipeline:farm", *options)
    assert isinstance(result.exception, MdiExitError)
    assert said in str(result.exception)
    assert measured == []


def test_a_peer_that_fails_costs_its_own_row_alone(measured: list[tuple[str, ...]], tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    chosen = ["--peer", "zeromq_pipeline:farm", "--peer", "ray_actors:farm"]
    result = bench(*NOTHING, *chosen, "--repeats", "3", "--json", str(path))
    assert result.exit_code == 0, result.output
    assert "left out: ray_actors ended with 1: [/a] crash" in result.output
    names = [row["name"] for row in json.loads(path.read_text())["results"]]
    assert names == ["bare loop with exits", "zeromq_pipeline farm"]
    assert [name for name, *_ in measured].count("ray_actors") == 2
    assert ("zeromq_pipeline", "farm", "fp32", 6) in measured


def test_rows_whose_program_is_not_here_are_left_out_with_a_word(
    measured: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(programs, "share_directory", lambda: tmp_path)
    monkeypatch.setattr(verb, "missing_for", peers.missing_for)
    result = bench("--graph", "none")
    assert "nothing to measure" in str(result.exception)
    missing = f"{tmp_path / 'benchmark' / 'camera_topic.py'} is missing: it comes with a checkout, run this from one"
    assert f"left out: camera topics, {missing}" in result.output
    assert f"left out: {tmp_path / 'benchmark' / 'peers' / 'plain_rclpy_pipeline.py'} is missing" in result.output
    assert measured == []
