# SPDX-License-Identifier: Apache-2.0
"""The bare loop: the same images, segments and exits in plain processes without messages; what graphs are held to."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdi_exit_ros.benchmark.programs import end_with_benchmark
from mdi_exit_ros.errors import BackendError
from mdi_exit_ros.images import decode, resize
from mdi_exit_ros.model.backends.interface import SegmentRunner
from mdi_exit_ros.model.backends.registry import load_segments
from mdi_exit_ros.model.card import load_card

WARM_UP_BATCHES = 5
WARM_UP_FRAMES = 50
START_TIMEOUT_S = 120.0
PROMISING_LAYOUTS = 4


def archive_files(path: Path) -> list[bytes]:
    """The encoded images of a zip archive, in its order."""
    with zipfile.ZipFile(path) as archive:
        return [archive.read(entry) for entry in archive.infolist() if entry.filename.endswith(".jpg")]


class Layout(NamedTuple):
    """How the bare loop uses the cores: frames per batch, processes, and threads of each."""

    batch: int
    processes: int
    threads: int

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.processes} processes x {self.threads} threads"


class BareRun(NamedTuple):
    """What all processes of a bare loop did together.

    Attributes:
        fps: frames per second.
        latency_ms: p50, p95 and p99 of one batch from its encoded images to its classes.
        cpu_s_per_1000_frames: processor time.
        context_switches_per_frame: voluntary and not.
    """

    fps: float
    latency_ms: dict[str, float]
    cpu_s_per_1000_frames: float
    context_switches_per_frame: float


class Work(NamedTuple):
    """What to compute, apart from the layout. `thresholds` empty: only the last exit answers."""

    model: str
    backend: str
    precision: str
    thresholds: tuple[float, ...]


def classify(
    runner: SegmentRunner, frames: NDArray[np.uint8], num_segments: int, thresholds: Sequence[float]
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Runs frames (B, H, W, 3) through all segments; each leaves at the first exit that is sure enough.

    Returns:
        class ids (B,) and the exit 1..K that answered each frame (B,).
    """
    classes = np.zeros(len(frames), np.uint16)
    exits = np.zeros(len(frames), np.uint8)
    rows: NDArray[np.signedinteger[Any]] = np.arange(len(frames))
    batch: NDArray[np.float32] | NDArray[np.uint8] = frames
    for segment in range(1, num_segments + 1):
        output = runner.run(segment, batch)
        if segment == num_segments or output.features is None:
            classes[rows], exits[rows] = output.class_id, segment
            break
        threshold = thresholds[segment - 1] if thresholds else np.inf
        leaving = output.confidence >= threshold
        if leaving.any():
            classes[rows[leaving]], exits[rows[leaving]] = output.class_id[leaving], segment
            staying = ~leaving
            rows, batch = rows[staying], output.features[staying]
            if not len(rows):
                break
        else:
            batch = output.features
    return classes, exits


def _loop(
    work: Work,
    layout: Layout,
    files: list[bytes],
    duration_s: float,
    barrier: Barrier,
    report: multiprocessing.SimpleQueue[tuple[int, float, float, int, list[float]]],
) -> None:
    end_with_benchmark()
    card = load_card(work.model)
    runner = load_segments(
        card,
        range(1, card.num_segments + 1),
        backend=work.backend,
        precision=work.precision,
        threads=layout.threads,
    )
    height, width, _ = card.input_shape
    done, at = 0, 0

    def step() -> None:
        nonlocal at
        chosen = [files[(at + offset) % len(files)] for offset in range(layout.batch)]
        at += layout.batch
        frames = np.stack([resize(decode(data, "image"), height, width) for data in chosen])
        classify(runner, frames, card.num_segments, work.thresholds)

    for _ in range(WARM_UP_BATCHES):
        step()
    barrier.wait(START_TIMEOUT_S)
    durations: list[float] = []
    cpu_s, switches = time.process_time(), _context_switches()
    started = ended = time.perf_counter()
    while ended - started < duration_s:
        step()
        done += layout.batch
        before, ended = ended, time.perf_counter()
        durations.append(ended - before)
    report.put((done, ended - started, time.process_time() - cpu_s, _context_switches() - switches, durations))


def _context_switches() -> int:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nvcsw + usage.ru_nivcsw


def bare_run(work: Work, layout: Layout, files: list[bytes], *, duration_s: float) -> BareRun:
    """What all processes do together, decoding included, after each has warmed up.

    Args:
        files: encoded images, taken in a circle.
        duration_s: time to measure (s).

    Raises:
        BackendError: a process did not get as far as measuring.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(layout.processes)
    report: multiprocessing.SimpleQueue[tuple[int, float, float, int, list[float]]] = context.SimpleQueue()
    arguments = (work, layout, files, duration_s, barrier, report)
    processes = [context.Process(target=_loop, args=arguments, daemon=True) for _ in range(layout.processes)]
    for process in processes:
        process.start()
    parts: list[tuple[int, float, float, int, list[float]]] = []
    deadline = time.monotonic() + START_TIMEOUT_S + 2.0 * duration_s
    while len(parts) < len(processes):
        if not report.empty():
            parts.append(report.get())
        elif time.monotonic() > deadline or any(process.exitcode for process in processes):
            raise BackendError(f"the bare loop did not run with {layout}: see the messages above")
        else:
            time.sleep(0.01)
    for process in processes:
        process.join()
    frames = sum(part[0] for part in parts)
    return BareRun(
        fps=sum(part[0] / part[1] for part in parts),
        latency_ms=_percentiles_ms([duration for part in parts for duration in part[4]]),
        cpu_s_per_1000_frames=1000.0 * sum(part[2] for part in parts) / frames,
        context_switches_per_frame=sum(part[3] for part in parts) / frames,
    )


def frame_latency_ms(work: Work, files: list[bytes], *, frames: int, rate_hz: float = 0.0) -> dict[str, float]:
    """p50, p95 and p99 (ms) of one decoded frame through `classify`, alone in a process with one thread.

    Args:
        files: encoded images, taken in a circle and decoded before.
        frames: frames to measure.
        rate_hz: when they come; 0: one right after the other. Between rare frames caches get cold.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_benchmark) as process:
        return process.submit(_one_by_one, work, files, frames, rate_hz).result()


def _one_by_one(work: Work, files: list[bytes], frames: int, rate_hz: float) -> dict[str, float]:
    card = load_card(work.model)
    segments = range(1, card.num_segments + 1)
    runner = load_segments(card, segments, backend=work.backend, precision=work.precision, threads=1)
    height, width, _ = card.input_shape
    images = [resize(decode(data, "image"), height, width)[np.newaxis] for data in files]
    durations_s = []
    for number in range(-WARM_UP_FRAMES, frames):
        if rate_hz and number >= 0:
            time.sleep(1.0 / rate_hz)
        began = time.perf_counter()
        classify(runner, images[number % len(images)], card.num_segments, work.thresholds)
        durations_s.append(time.perf_counter() - began)
    return _percentiles_ms(durations_s[WARM_UP_FRAMES:])


def _percentiles_ms(durations_s: Sequence[float]) -> dict[str, float]:
    return {f"p{share}": 1000.0 * float(np.percentile(durations_s, share)) for share in (50, 95, 99)}


def layouts(cores: int) -> list[Layout]:
    """Layouts worth trying on a computer with that many cores: every core used, once as processes, once as threads."""
    splits = {(cores, 1), (1, cores)}
    return [Layout(batch, processes, threads) for batch in (1, 4, 16, 32, 64) for processes, threads in sorted(splits)]


def best_layout(work: Work, files: list[bytes], *, cores: int, duration_s: float) -> tuple[Layout, dict[str, float]]:
    """The fastest layout, and frames per second of each that was tried.

    The fastest few of a first look are tried twice more in turn, and the median of each counts, as one moment of a
    shared computer says little.
    """
    tries = {layout: [bare_run(work, layout, files, duration_s=duration_s).fps] for layout in layouts(cores)}
    promising = sorted(tries, key=lambda layout: tries[layout], reverse=True)[:PROMISING_LAYOUTS]
    for layout in (*promising, *promising):
        tries[layout].append(bare_run(work, layout, files, duration_s=duration_s).fps)
    found = {layout: statistics.median(fps) for layout, fps in tries.items()}
    return max(promising, key=lambda layout: found[layout]), {str(layout): fps for layout, fps in found.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum of repeated measurements."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
