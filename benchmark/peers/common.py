# SPDX-License-Identifier: Apache-2.0
"""What is the same in every peer program: arguments, images, segments with exits, bounded offering, the result."""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import platform
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import psutil
from numpy.typing import NDArray

from mdi_exit_ros.benchmark.programs import end_with_benchmark
from mdi_exit_ros.errors import MdiExitError
from mdi_exit_ros.images import decode, resize
from mdi_exit_ros.model.backends.export import ensure_exported
from mdi_exit_ros.model.backends.registry import load_segments, resolve_backend
from mdi_exit_ros.model.card import ModelCard, load_card
from mdi_exit_ros.resources import share_directory

PIPELINE, FARM = "pipeline", "farm"
WARM_UP_FRAMES = 320
COST_FRAMES = 320
ANSWER_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0


class Job(NamedTuple):
    """What one run computes and how.

    Attributes:
        mode: `pipeline` (each worker holds some segments) or `farm` (each holds all).
        batch: frames that travel together.
        in_flight: frames that may be offered and not yet answered.
        spans: first and last segment of each worker.
    """

    name: str
    mode: str
    batch: int
    in_flight: int
    frames: int
    model: str
    backend: str
    precision: str
    spans: tuple[tuple[int, int], ...]
    json: Path


class StageOutput(NamedTuple):
    """What a worker makes of a batch.

    Attributes:
        answers: (A, 3) int64: frame number, class id and exit 1..K of the frames that are answered.
        ids: (R,) int64: numbers of the frames that go on.
        features: (R, C, H, W) float32: their input of the next segment.
    """

    answers: NDArray[np.int64]
    ids: NDArray[np.int64]
    features: NDArray[np.float32]


class Stage:
    """Segments `span` of the job's model with their exits, on one thread."""

    def __init__(self, job: Job, span: tuple[int, int]) -> None:
        self._card = load_card(job.model)
        self._first, self._last = span
        numbers = range(span[0], span[1] + 1)
        self._runner = load_segments(self._card, numbers, backend=job.backend, precision=job.precision, threads=1)

    @property
    def row_shape(self) -> tuple[int, int, int]:
        """Shape of one frame's input."""
        return self._card.input_shape_of(self._first)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the input."""
        return np.dtype(np.uint8 if self._first == 1 else np.float32)

    def run(self, ids: NDArray[np.int64], batch: NDArray[Any]) -> StageOutput:
        """Runs the segments; each frame leaves at the first exit that is sure enough."""
        answers = []
        for segment in range(self._first, self._last + 1):
            if not len(ids):
                break
            output = self._runner.run(segment, batch)
            if segment == self._card.num_segments:
                leaving = np.ones(len(ids), bool)
            else:
                leaving = output.confidence >= self._card.default_thresholds[segment - 1]
            if leaving.any():
                exits = np.full(int(leaving.sum()), segment)
                answers.append(np.stack([ids[leaving], output.class_id[leaving].astype(np.int64), exits], axis=1))
            if output.features is None:
                ids, batch = ids[:0], np.zeros((0, 0, 0, 0), np.float32)
            elif leaving.any():
                ids, batch = ids[~leaving], output.features[~leaving]
            else:
                batch = output.features
        return StageOutput(np.concatenate(answers) if answers else np.zeros((0, 3), np.int64), ids, batch)


class Camera:
    """The shipped images, in the archive's order and in a circle."""

    def __init__(self, card: ModelCard) -> None:
        with zipfile.ZipFile(share_directory() / "data" / "cifar10_sample.zip") as archive:
            names = [entry.filename for entry in archive.infolist() if entry.filename.endswith(".jpg")]
            self._files = [archive.read(name) for name in names]
        class_ids = {name: number for number, name in enumerate(card.class_names)}
        self._labels = np.array([class_ids.get(Path(name).parent.name, -1) for name in names])
        self._height, self._width, _ = card.input_shape

    def take(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Frames (B, H, W, 3), decoded now."""
        files = [self._files[number % len(self._files)] for number in ids]
        return np.stack([resize(decode(data, "image"), self._height, self._width) for data in files])

    def labels(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Class ids that are right; -1 where the model has no such class."""
        return np.asarray(self._labels[ids % len(self._labels)])


class Link(Protocol):
    """How frames leave the source and answers come back to it."""

    def offer(self, ids: NDArray[np.int64], frames: NDArray[np.uint8]) -> None:
        """Sends frames to a worker."""

    def answers(self, timeout_s: float) -> list[NDArray[np.int64]]:
        """Answers (A, 3) that have come, at most waiting for `timeout_s` until there are any."""


class Outcome(NamedTuple):
    """Per frame: when it was offered and answered (s), with which class and at which exit; and the time of it all."""

    offered_at: NDArray[np.float64]
    answered_at: NDArray[np.float64]
    class_id: NDArray[np.int64]
    exit: NDArray[np.int64]
    elapsed_s: float
    cpu_s: float


def drive(job: Job, camera: Camera, link: Link, frames: int) -> Outcome:
    """Offers frames as fast as the bound on frames in flight allows, until all are answered.

    Raises:
        MdiExitError: an answer did not come, or came twice.
    """
    offered_at, answered_at = np.zeros(frames), np.zeros(frames)
    class_id, exits = np.zeros(frames, np.int64), np.zeros(frames, np.int64)
    taken = answered = 0
    cpu_before = cpu_of_tree_s()
    started = time.perf_counter()
    while answered < frames:
        ids = np.arange(taken, min(taken + job.batch, frames))
        room = 0 < len(ids) <= job.in_flight - (taken - answered)
        if room:
            images = camera.take(ids)
            offered_at[ids] = time.perf_counter()
            link.offer(ids, images)
            taken += len(ids)
        came = link.answers(0.0 if room else ANSWER_TIMEOUT_S)
        if not came and not room:
            raise MdiExitError(f"{taken - answered} frames were not answered within {ANSWER_TIMEOUT_S:.0f} s")
        now = time.perf_counter()
        for rows in came:
            numbers = rows[:, 0]
            if exits[numbers].any():
                raise MdiExitError(f"frames were answered twice, the first of {numbers.tolist()}")
            answered_at[numbers], class_id[numbers], exits[numbers] = now, rows[:, 1], rows[:, 2]
            answered += len(rows)
    elapsed_s = time.perf_counter() - started
    return Outcome(offered_at, answered_at, class_id, exits, elapsed_s, cpu_of_tree_s() - cpu_before)


def cpu_of_tree_s() -> float:
    """Processor time used so far by this process and all below it (s)."""
    total = 0.0
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def measure(job: Job, link: Link, libraries: Sequence[str]) -> None:
    """Warms up, measures and writes the result."""
    card = load_card(job.model)
    camera = Camera(card)
    drive(job, camera, link, WARM_UP_FRAMES)
    outcome = drive(job, camera, link, job.frames)
    latency_ms = 1000.0 * (outcome.answered_at - outcome.offered_at)
    labels = camera.labels(np.arange(job.frames))
    right = (outcome.class_id == labels)[labels >= 0]
    result = {
        "name": job.name,
        "mode": job.mode,
        "batch": job.batch,
        "in_flight": job.in_flight,
        "model_id": card.model_id,
        "backend": job.backend,
        "precision": job.precision,
        "segments": [list(range(first, last + 1)) for first, last in job.spans],
        "frames": job.frames,
        "answered": int(np.count_nonzero(outcome.exit)),
        "accuracy": float(right.mean()) if len(right) else None,
        "exits": [float((outcome.exit == number).mean()) for number in range(1, card.num_segments + 1)],
        "fps": job.frames / outcome.elapsed_s,
        "latency_ms": {f"p{share}": float(np.percentile(latency_ms, share)) for share in (50, 95, 99)},
        "cpu_s_per_1000_frames": 1000.0 * outcome.cpu_s / job.frames,
        "bytes_per_frame": _crossing_bytes(job, card, outcome.exit) / job.frames,
        "versions": {"python": platform.python_version(), **_versions((job.backend, "numpy", *libraries))},
    }
    job.json.parent.mkdir(parents=True, exist_ok=True)
    job.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{job.name} {job.mode}: {result['fps']:.0f} frames/s, {len(job.spans)} workers, batch {job.batch}")


def _crossing_bytes(job: Job, card: ModelCard, exits: NDArray[np.int64]) -> int:
    """Bytes of features that crossed between workers: those of every frame that left after a pipeline's cut."""
    if job.mode == FARM:
        return 0
    cuts = [last for _, last in job.spans[:-1]]
    return sum(int((exits > cut).sum()) * 4 * int(np.prod(card.feature_shapes[cut - 1])) for cut in cuts)


def _versions(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def balanced_cut(card: ModelCard, backend: str, precision: str, batch: int) -> int:
    """The segment after which to cut in two, so that the slower half takes least time.

    The time of each segment is measured on frames that leave at the exits, so it is weighted by how many get there.
    """
    camera = Camera(card)
    thresholds = (*card.default_thresholds, 0.0)
    runner = load_segments(card, range(1, card.num_segments + 1), backend=backend, precision=precision, threads=1)
    cost = np.zeros(card.num_segments)
    for turn in range(2):
        cost[:] = 0.0  # the first turn warms up
        for start in range(0, COST_FRAMES if turn else batch, batch):
            rows: NDArray[Any] = camera.take(np.arange(start, start + batch))
            for segment in range(1, card.num_segments + 1):
                started = time.perf_counter()
                output = runner.run(segment, rows)
                cost[segment - 1] += time.perf_counter() - started
                staying = output.confidence < thresholds[segment - 1]
                if output.features is None or not staying.any():
                    break
                rows = output.features[staying]
    return min(range(1, card.num_segments), key=lambda cut: max(cost[:cut].sum(), cost[cut:].sum()))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def run(
    serve: Callable[[Job], None], *, name: str, needs: str, modes: Sequence[str], batch: int, in_flight: int
) -> None:
    """Reads the command line and runs `serve`; what a user can put right ends in one line and exit status 2.

    Args:
        needs: how to get the library that `serve` imports.
        batch: frames that travel together by default.
        in_flight: batches in flight by default.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--frames", type=_positive, default=4000, help="frames to measure")
    parser.add_argument("--mode", choices=modes, default=modes[0])
    parser.add_argument("--batch", type=_positive, default=batch, help="frames that travel together")
    parser.add_argument("--in-flight", type=_positive, default=in_flight, help="batches in flight")
    parser.add_argument("--model", default="mobilenetv2", help="shipped model or model folder")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--workers", type=_positive, default=2, help="workers of a farm")
    parser.add_argument("--cut", type=_positive, help="last segment of a pipeline's first worker; balanced by default")
    parser.add_argument("--json", type=Path, required=True, help="where the result goes")
    chosen = parser.parse_args()
    try:
        card = load_card(chosen.model)
        backend = resolve_backend(chosen.backend)
        if backend != "torch":
            ensure_exported(card)
        count = card.num_segments
        if chosen.mode == FARM:
            spans: tuple[tuple[int, int], ...] = ((1, count),) * chosen.workers
        else:
            cut = chosen.cut or balanced_cut(card, backend, chosen.precision, chosen.batch)
            if not 1 <= cut < count:
                raise MdiExitError(f"--cut: expected 1 to {count - 1}, got {cut}")
            spans = ((1, cut), (cut + 1, count))
        serve(
            Job(
                name=name,
                mode=chosen.mode,
                batch=chosen.batch,
                in_flight=chosen.batch * chosen.in_flight,
                frames=chosen.frames,
                model=chosen.model,
                backend=backend,
                precision=chosen.precision,
                spans=spans,
                json=chosen.json,
            )
        )
    except ModuleNotFoundError as error:
        sys.exit(_fail(f"{error.name} is not installed: {needs}"))
    except MdiExitError as error:
        sys.exit(_fail(str(error)))


def _fail(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return 2


@contextlib.contextmanager
def processes(target: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> Iterator[None]:
    """One fresh process per entry of `arguments`; those that have not ended afterwards, or with this, are stopped."""
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=_until_the_end, args=(target, *each), daemon=True) for each in arguments]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.join(STOP_TIMEOUT_S)


def _until_the_end(target: Callable[..., None], *arguments: Any) -> None:
    end_with_benchmark()
    target(*arguments)
