# SPDX-License-Identifier: Apache-2.0
"""Runs of the real graph, as a user would start it: its summary, what its processes used, and its peak rate."""

from __future__ import annotations

import contextlib
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from mdi_exit_ros.errors import MdiExitError
from mdi_exit_ros.lifetime import ending_with_parent

RUN_TIMEOUT_S = 300.0
SAMPLE_S = 0.5
PEAK_REFUSED_SHARE = 0.05  # ros2_benchmark: the peak is the highest rate at which fewer frames are dropped
PEAK_STEPS = 5
PEAK_DURATION_S = 6.0


class GraphWork(NamedTuple):
    """One graph to run, apart from how many frames and how fast."""

    topology: str
    strategy: str
    model: str
    backend: str
    precision: str


def graph_summary(work: GraphWork, *, frames: int, extra: Sequence[str] = ()) -> dict[str, Any]:
    """Runs `mdi-exit run` in processes of its own; returns its JSON summary and what all its processes used.

    `cpu_s_per_1000_frames` and `context_switches_per_frame` are those of the middle of the time in which frames ran,
    the live view and the supervision of the processes included; None where that was too short.

    Raises:
        MdiExitError: the run failed; the message carries the last lines that it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "summary.json"
        command = [
            *(sys.executable, "-m", "mdi_exit_ros.cli.main", "run"),
            *("--topology", work.topology, "--strategy", work.strategy, "--model", work.model),
            *("--backend", work.backend, "--precision", work.precision, "--frames", str(frames)),
            *("--json", str(path), *extra),
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=ending_with_parent()
        )
        usage = _Usage(process.pid)
        sampling = threading.Thread(target=usage.sample, daemon=True)
        sampling.start()
        try:
            output, _ = process.communicate(timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            process.terminate()
            process.communicate()
            raise MdiExitError(f"{' '.join(command[1:])} did not finish within {RUN_TIMEOUT_S:.0f} s") from error
        finally:
            usage.stop.set()
            sampling.join()
        if not path.is_file() or process.returncode != 0:
            tail = " | ".join(output.strip().splitlines()[-5:])
            raise MdiExitError(f"{' '.join(command[1:])} ended with {process.returncode}: {tail}")
        summary: dict[str, Any] = json.loads(path.read_text())
    return {**summary, **usage.per_frame(summary["steady_fps"] or summary["throughput_fps"], summary["duration_s"])}


def peak_rate(work: GraphWork, *, around_fps: float, extra: Sequence[str] = ()) -> float | None:
    """The highest offered rate (Hz) with fewer than 5 % of the frames refused or failed, by bisection.

    None where it lies outside of what is searched.

    Args:
        around_fps: the search covers half of it to one and a half.
        extra: further options of `mdi-exit run`.
    """
    lowest, highest = low, high = 0.5 * around_fps, 1.5 * around_fps
    for _ in range(PEAK_STEPS):
        rate = (low + high) / 2.0
        offered = ("--rate", f"{rate:.1f}", "--drop")
        summary = graph_summary(work, frames=int(rate * PEAK_DURATION_S), extra=(*offered, *extra))
        if summary["ok"] > (1.0 - PEAK_REFUSED_SHARE) * summary["offered"]:
            low = rate
        else:
            high = rate
    return low if lowest < low and high < highest else None


class _Usage:
    """Processor time and context switches of a process and all below it, while the process of a camera source lives."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._samples: list[tuple[float, float, int]] = []
        self.stop = threading.Event()

    def sample(self) -> None:
        """Looks again and again until stopped; the body of a thread."""
        while not self.stop.wait(SAMPLE_S):
            with contextlib.suppress(psutil.Error):
                family = [self._root, *self._root.children(recursive=True)]
                if any("camera_source" in part for each in family for part in each.cmdline()):
                    self._samples.append((time.monotonic(), *_used(family)))

    def per_frame(self, fps: float, duration_s: float) -> dict[str, float | None]:
        """What the middle of the run used for each frame; frames ran for the last `duration_s`.

        A source that shares its worker's process lives on after its last frame: the idle end does not count.
        """
        end = _busy_until(self._samples)
        middle = [each for each in self._samples if end - 0.8 * duration_s <= each[0] <= end - 0.2 * duration_s]
        if len(middle) < 4 or fps <= 0.0:
            return {"cpu_s_per_1000_frames": None, "context_switches_per_frame": None}
        (began, cpu_before, switches_before), (ended, cpu_after, switches_after) = middle[0], middle[-1]
        frames = fps * (ended - began)
        return {
            "cpu_s_per_1000_frames": 1000.0 * (cpu_after - cpu_before) / frames,
            "context_switches_per_frame": (switches_after - switches_before) / frames,
        }


def _busy_until(samples: Sequence[tuple[float, float, int]]) -> float:
    """The end of the last stretch between two samples in which half of the usual processor time was used; 0: none."""
    used = [(later[0], later[1] - earlier[1]) for earlier, later in itertools.pairwise(samples)]
    usual = statistics.median(cpu_s for _, cpu_s in used) if used else 0.0
    return max((at for at, cpu_s in used if cpu_s >= 0.5 * usual), default=0.0)


def _used(family: Sequence[psutil.Process]) -> tuple[float, int]:
    cpu_s, switches = 0.0, 0
    for process in family:
        times, counts = process.cpu_times(), process.num_ctx_switches()
        cpu_s += times.user + times.system
        switches += counts.voluntary + counts.involuntary
    return cpu_s, switches
