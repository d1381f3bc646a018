# SPDX-License-Identifier: Apache-2.0
"""A real graph behind an image topic, with the benchmark's camera in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mdi_exit_ros.benchmark.bare import Work, archive_files, frame_latency_ms
from mdi_exit_ros.benchmark.camera_topic import camera_run
from mdi_exit_ros.benchmark.graph import GraphWork
from mdi_exit_ros.cli.bench import bench
from mdi_exit_ros.errors import ConfigurationError, MdiExitError

WORK = GraphWork("one_node", "local", "mobilenetv2", "onnxruntime", "fp32")


@pytest.mark.graph
@pytest.mark.parametrize("options", [(), ("--use-composition",)], ids=["processes", "composed"])
def test_every_published_image_is_answered_or_counted_as_something_else(
    repository: Path, options: tuple[str, ...]
) -> None:
    archive = repository / "data" / "cifar10_sample.zip"
    run = camera_run(WORK, archive, in_flight=8, full_s=0.5, low_s=0.5, extra=options)
    for seen in (run.full_rate, run.low_rate):
        assert seen["answered"] > 0
        assert seen["published"] == sum(seen[end] for end in ("answered", "refused", "failed", "lost"))
        assert min(seen[end] for end in ("refused", "failed", "lost")) >= 0
        latency_ms = seen["latency_ms"]
        assert 0.0 < latency_ms["p50"] <= latency_ms["p95"] <= latency_ms["p99"]
    assert run.low_rate["published"] == 10
    assert run.summary["unaccounted"] == 0
    assert run.summary["ok"] >= run.full_rate["answered"] + run.low_rate["answered"]


@pytest.mark.graph
def test_graph_that_does_not_start_ends_the_run_with_its_own_words(repository: Path) -> None:
    work = WORK._replace(topology="nowhere")
    with pytest.raises(MdiExitError, match="the graph ended before the camera: .*nowhere"):
        camera_run(work, repository / "data" / "cifar10_sample.zip", in_flight=1, full_s=0.1, low_s=0.1)


def test_bare_loop_tells_the_time_of_one_frame(repository: Path) -> None:
    files = archive_files(repository / "data" / "cifar10_sample.zip")[:8]
    work = Work("mobilenetv2", "onnxruntime", "fp32", ())
    for rate_hz in (0.0, 500.0):
        latency_ms = frame_latency_ms(work, files, frames=20, rate_hz=rate_hz)
        assert 0.0 < latency_ms["p50"] <= latency_ms["p95"] <= latency_ms["p99"]


def test_bench_of_nothing_is_refused() -> None:
    result = CliRunner().invoke(bench, ["--graph", "none", "--peer", "none", "--camera-topic", "none"])
    assert isinstance(result.exception, ConfigurationError)


@pytest.mark.parametrize("value", ["one_node", "one_node:fast", "one_node:composed"])
def test_camera_topic_that_is_no_graph_is_refused_with_an_example(value: str) -> None:
    result = CliRunner().invoke(bench, ["--graph", "none", "--peer", "none", "--camera-topic", value])
    assert isinstance(result.exception, ConfigurationError)
    assert f"--camera-topic: expected TOPOLOGY:STRATEGY such as three_mesh:mdi_exit, or none, got {value!r}" in str(
        result.exception
    )
