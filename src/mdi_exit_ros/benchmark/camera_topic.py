# SPDX-License-Identifier: Apache-2.0
"""One run of the real graph behind an image topic, and what a camera process of its own saw of it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mdi_exit_ros.benchmark.graph import GraphWork
from mdi_exit_ros.benchmark.programs import missing_program, program
from mdi_exit_ros.errors import MdiExitError
from mdi_exit_ros.lifetime import ending_with_parent
from mdi_exit_ros.runner.launching import node_environment

PROGRAM = "camera_topic.py"
NAMESPACE = "/camera_topic"
# Of a camera whose images shall all be answered: nothing is overwritten on the way, nothing refused for a newer one.
PARAMETERS = """/**:
  ros__parameters:
    waiting_max: {depth}
    qos_overrides:
      {namespace}/image:
        subscription: {{reliability: reliable, depth: {depth}}}
"""
LOW_RATE_HZ = 20.0
TIMEOUT_S = 150.0  # beyond the time to measure: start of the cluster, warm-up and end
STOP_TIMEOUT_S = 30.0
POLL_S = 0.1


class CameraRun(NamedTuple):
    """What the camera saw and, at the end, what the graph said.

    Attributes:
        full_rate, low_rate: `published`, `answered`, `refused`, `failed`, `lost` (images that nothing answered, as a
            newer one overwrote them on their way), `fps` (answered per second) and `latency_ms` (p50, p95, p99).
        summary: the JSON summary of `mdi-exit run`, warm-up included.
    """

    full_rate: dict[str, Any]
    low_rate: dict[str, Any]
    summary: dict[str, Any]


def camera_run(
    work: GraphWork, archive: Path, *, in_flight: int, full_s: float, low_s: float, extra: Sequence[str] = ()
) -> CameraRun:
    """Runs `mdi-exit run --input topic` and, beside it, a process that publishes images and takes classifications.

    Args:
        archive: zip archive of the images to publish.
        in_flight: images under way at full rate.
        full_s: time to measure at full rate (s).
        low_s: time to measure at `LOW_RATE_HZ` with one image under way (s).
        extra: further options of `mdi-exit run`.

    Raises:
        MdiExitError: the graph or the camera failed; the message carries the last lines that it printed.
    """
    if (missing := missing_program(PROGRAM)) is not None:
        raise MdiExitError(missing)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parameters = folder / "parameters.yaml"
        parameters.write_text(PARAMETERS.format(namespace=NAMESPACE, depth=2 * in_flight), encoding="utf-8")
        environment = dict(node_environment(here_only=True, domain_id=None, log_folder=folder))
        graph_arguments = [
            *("-m", "mdi_exit_ros.cli.main", "run", "--input", "topic", "--namespace", NAMESPACE),
            *("--params-file", str(parameters)),
            *("--topology", work.topology, "--strategy", work.strategy, "--model", work.model),
            *("--backend", work.backend, "--precision", work.precision, *extra),
        ]
        camera_arguments = [
            *(str(program(PROGRAM)), "--namespace", NAMESPACE, "--archive", str(archive)),
            *("--in-flight", str(in_flight), "--seconds", str(full_s)),
            *("--low-rate", str(LOW_RATE_HZ), "--low-seconds", str(low_s)),
        ]
        environment["PYTHONPATH"] = ":".join(path for path in sys.path if path)
        with (
            _Process("graph", folder, graph_arguments) as graph,
            _Process("camera", folder, camera_arguments, environment) as camera,
        ):
            deadline = time.monotonic() + TIMEOUT_S + full_s + low_s
            while camera.running and graph.running:
                if time.monotonic() > deadline:
                    raise MdiExitError(f"no result of the camera within {TIMEOUT_S + full_s + low_s:.0f} s")
                time.sleep(POLL_S)
            if not graph.running:
                raise MdiExitError(f"the graph ended before the camera: {graph.last_lines()}")
            found = camera.result()
            graph.stop()
            return CameraRun(found["full_rate"], found["low_rate"], graph.result())


class _Process:
    """A Python program that writes its result to the file behind `--json`; stopped when it is left."""

    def __init__(
        self, name: str, folder: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self._name = name
        self._result = folder / f"{name}.json"
        self._log = folder / f"{name}.log"
        command = [sys.executable, *arguments, "--json", str(self._result)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, preexec_fn=ending_with_parent()
            )

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def last_lines(self) -> str:
        return " | ".join(self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:])

    def stop(self) -> None:
        """Asks it to end; kills it when it does not."""
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def result(self) -> dict[str, Any]:
        if self._process.returncode != 0 or not self._result.is_file():
            raise MdiExitError(f"the {self._name} ended with {self._process.returncode}: {self.last_lines()}")
        result: dict[str, Any] = json.loads(self._result.read_text())
        return result
