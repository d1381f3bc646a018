# SPDX-License-Identifier: Apache-2.0
"""Measures how long every segment takes, by backend and batch size, all of them in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.machine import machine
from mdi_exit_ros.model.backends.export import check_frames
from mdi_exit_ros.model.backends.interface import SegmentRunner
from mdi_exit_ros.model.backends.registry import available_backends, load_segments
from mdi_exit_ros.model.card import ModelCard
from mdi_exit_ros.model.inference import run_exits
from mdi_exit_ros.profile import BackendProfile, Profile, ServiceTime

RUN_S = 0.05  # each measurement repeats a run for at least this long
WARM_UP_RUNS = 2


class Candidate(NamedTuple):
    """A backend to measure."""

    backend: str
    precision: str = "fp32"
    device: str = "cpu"


class Agreement(NamedTuple):
    """How the answers of one backend differ from those of eager torch.

    Attributes:
        last: Share of frames whose last exit names the same class, in [0, 1].
        every: The same over all exits.
        confidence: Largest difference of a confidence of any exit.
    """

    last: float
    every: float
    confidence: float


def candidates(precisions: Sequence[str] = ("fp32", "bf16")) -> list[Candidate]:
    """Every installed backend in every one of `precisions` that it computes in, on the CPU."""
    return [
        Candidate(backend, precision)
        for precision in precisions
        for backend in available_backends()
        if precision == "fp32" or backend == "openvino"
    ]


def measure(
    card: ModelCard,
    chosen: Sequence[Candidate],
    *,
    batches: Sequence[int],
    turns: int,
    threads: int = 1,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Profile:
    """Runs every segment at every batch size with every backend, in turn, `turns` times.

    Args:
        card: The model.
        chosen: Backends.
        batches: Batch sizes, at least 1.
        turns: How often all of them are measured; each counts as one value of the medians.
        threads: CPU threads of one run.
        on_step: Called with the measurements done and their number.

    Raises:
        BackendError: One of them is not installed, or does not compute in that precision.
        ConfigurationError: A batch size below 1, or no turn.
    """
    if min(batches, default=0) < 1 or turns < 1 or not chosen:
        raise ConfigurationError(
            f"expected backends, batch sizes of at least 1 and one turn or more: got {len(chosen)} backends, "
            f"batch sizes {list(batches)} and {turns} turns"
        )
    numbers = range(1, card.num_segments + 1)
    runners = {candidate: _load(card, candidate, threads) for candidate in chosen}
    inputs = _inputs(card, runners[chosen[0]], max(batches))
    keys = [
        (candidate, segment, batch) for candidate in chosen for segment in numbers for batch in sorted(set(batches))
    ]
    seconds: dict[tuple[Candidate, int, int], list[float]] = {key: [] for key in keys}
    for turn in range(turns):
        for index, (candidate, segment, batch) in enumerate(keys):
            run_s = _run_s(runners[candidate], segment, np.ascontiguousarray(inputs[segment][:batch]))
            seconds[candidate, segment, batch].append(run_s)
            on_step(turn * len(keys) + index + 1, turns * len(keys))
    versions = available_backends()
    return Profile(
        model=card.name,
        model_id=card.model_id,
        machine=machine(),
        measured_on=date.today().isoformat(),
        method=f"medians of {turns} turns through all backends, segments and batch sizes; each turn the median of the "
        f"runs in {RUN_S} s after {WARM_UP_RUNS} to warm up, on shipped images",
        backends=tuple(
            BackendProfile(
                **candidate._asdict(),
                threads=threads,
                version=versions[candidate.backend],
                times=tuple(
                    ServiceTime(
                        segment=segment,
                        batch=batch,
                        seconds=statistics.median(found),
                        low=min(found),
                        high=max(found),
                    )
                    for (which, segment, batch), found in seconds.items()
                    if which == candidate
                ),
            )
            for candidate in chosen
        ),
    )


def agreement(card: ModelCard, candidate: Candidate, frames: NDArray[np.uint8], *, batch: int = 50) -> Agreement:
    """How `candidate` differs from eager torch on frames (N, H, W, 3), each running its own features through."""
    reference, answers = (
        run_exits(_load(card, each, 1), card.num_segments, frames, batch_size=batch)
        for each in (Candidate("torch-eager"), candidate)
    )
    equal = answers[0] == reference[0]
    return Agreement(float(equal[-1].mean()), float(equal.mean()), float(np.abs(answers[1] - reference[1]).max()))


def _load(card: ModelCard, candidate: Candidate, threads: int) -> SegmentRunner:
    return load_segments(card, range(1, card.num_segments + 1), threads=threads, **candidate._asdict())


def _inputs(card: ModelCard, runner: SegmentRunner, count: int) -> dict[int, NDArray[Any]]:
    """Input of every segment for `count` real frames."""
    frames = check_frames(card, count)
    batch: NDArray[Any] = np.concatenate([frames] * -(-count // len(frames)))[:count]
    found = {}
    for segment in range(1, card.num_segments + 1):
        found[segment] = batch
        output = runner.run(segment, batch)
        if output.features is not None:
            batch = output.features
    return found


def _run_s(runner: SegmentRunner, segment: int, batch: NDArray[Any]) -> float:
    for _ in range(WARM_UP_RUNS):
        runner.run(segment, batch)
    durations: list[float] = []
    ends_at = time.perf_counter() + RUN_S
    while (began := time.perf_counter()) < ends_at or not durations:
        runner.run(segment, batch)
        durations.append(time.perf_counter() - began)
    return statistics.median(durations)
