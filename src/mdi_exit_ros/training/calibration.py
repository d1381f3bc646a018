# SPDX-License-Identifier: Apache-2.0
"""What is chosen on the validation images after training: temperatures and exit thresholds (numpy only)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLD_LEVELS = (
    0.0, *(round(0.20 + 0.01 * step, 2) for step in range(75)), 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999, 1.0,
)  # fmt: skip
POINT_STEP = 0.001  # of accuracy, between two points of a curve


@dataclass(frozen=True)
class ExitOutcome:
    """What early exits bring on labelled images; shares and accuracies in [0, 1], `cost` relative to the last exit."""

    thresholds: tuple[float, ...]
    accuracy: float
    mac_fraction: float
    cost: float
    exit_shares: tuple[float, ...]


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def fit_temperature(logits: NDArray[Any], labels: NDArray[Any]) -> float:
    """The temperature in [0.2, 10] with the smallest negative log-likelihood (Guo et al. 2017, arXiv 1706.04599).

    Args:
        logits: (N, classes).
        labels: (N,).
    """

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        top = scaled.max(axis=1)
        log_sum = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((log_sum - scaled[np.arange(len(labels)), labels]).mean())

    low, high = np.log(0.2), np.log(10.0)
    ratio = (np.sqrt(5.0) - 1.0) / 2.0
    while high - low > 1e-4:  # golden section: the loss has one minimum in the temperature
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return round(float(np.exp((low + high) / 2.0)), 5)


def exit_costs(segment_macs: Sequence[int], exit_macs: Sequence[int]) -> NDArray[Any]:
    """Cost (K,) of leaving at each exit, all exits before it tried, relative to the last exit alone."""
    run = np.cumsum(np.asarray(segment_macs, dtype=np.float64) + np.asarray(exit_macs, dtype=np.float64))
    return np.asarray(run / (sum(segment_macs) + exit_macs[-1]))


def time_costs(segment_s: Sequence[float]) -> NDArray[Any]:
    """Cost (K,) of leaving at each exit, from times of the segments with their exits, relative to running them all."""
    run = np.cumsum(np.asarray(segment_s, dtype=np.float64))
    return np.asarray(run / run[-1])


def exits_taken(confidence: NDArray[Any], thresholds: Sequence[float]) -> NDArray[Any]:
    """Index 0..K-1 of the exit that each image takes; confidence (K, N), thresholds of exits 1..K-1."""
    sure = confidence >= np.asarray((*thresholds, -np.inf))[:, None]
    return np.asarray(sure.argmax(axis=0))


def outcome(
    confidence: NDArray[Any],
    correct: NDArray[Any],
    macs: NDArray[Any],
    thresholds: Sequence[float],
    costs: NDArray[Any] | None = None,
) -> ExitOutcome:
    """What `thresholds` bring.

    Args:
        confidence: (K, N) calibrated confidence of each exit.
        correct: (K, N) whether each exit would be right.
        macs: (K,) of `exit_costs`.
        thresholds: Of exits 1..K-1.
        costs: (K,) of `time_costs`; `macs` where left out.
    """
    taken = exits_taken(confidence, thresholds)
    shares = np.bincount(taken, minlength=len(macs)) / len(taken)
    return ExitOutcome(
        thresholds=tuple(float(value) for value in thresholds),
        accuracy=float(correct[taken, np.arange(len(taken))].mean()),
        mac_fraction=float(shares @ macs),
        cost=float(shares @ (macs if costs is None else costs)),
        exit_shares=tuple(float(share) for share in shares),
    )


def threshold_curve(
    confidence: NDArray[Any], correct: NDArray[Any], macs: NDArray[Any], costs: NDArray[Any] | None = None
) -> list[ExitOutcome]:
    """Settings from cheap to accurate, every threshold rising along the way.

    Starts with every image leaving at the first exit and raises, again and again, that one threshold, by as much,
    that brings the most accuracy per cost; the levels on the way are settings too. Settings that a cheaper one beats
    are left out.

    Args:
        confidence: (K, N) calibrated confidence of each exit.
        correct: (K, N) whether each exit would be right.
        macs: (K,) of `exit_costs`.
        costs: (K,) of `time_costs`; `macs` where left out.
    """
    position = [0] * (len(macs) - 1)

    def at(exit_index: int, level: int) -> ExitOutcome:
        chosen = [*position[:exit_index], level, *position[exit_index + 1 :]]
        return outcome(confidence, correct, macs, [THRESHOLD_LEVELS[index] for index in chosen], costs)

    path = [outcome(confidence, correct, macs, [THRESHOLD_LEVELS[0]] * len(position), costs)]
    while True:
        best: tuple[float, int, list[ExitOutcome]] | None = None
        for exit_index, level in enumerate(position):
            raised = [at(exit_index, higher) for higher in range(level + 1, len(THRESHOLD_LEVELS))]
            for count, candidate in enumerate(raised, start=1):
                cost = candidate.cost - path[-1].cost
                if cost <= 0.0:
                    continue  # no image is affected: raising it now would only bind later steps
                gain = (candidate.accuracy - path[-1].accuracy) / cost
                if best is None or gain > best[0]:
                    best = (gain, exit_index, raised[:count])
        if best is None:
            break
        _, exit_index, reached = best
        position[exit_index] += len(reached)
        path.extend(reached)
    best_accuracy = max(point.accuracy for point in path)
    curve = path[:1]
    for point in path[1:]:
        if (
            point.accuracy >= min(best_accuracy, curve[-1].accuracy + POINT_STEP)
            and point.accuracy > curve[-1].accuracy
        ):
            curve.append(point)
    return curve


def cheapest_within(curve: Sequence[ExitOutcome], accuracy: float) -> ExitOutcome:
    """The cheapest setting with at least `accuracy`, or the most accurate one where none has it."""
    fitting = [point for point in curve if point.accuracy >= accuracy]
    if not fitting:
        return max(curve, key=lambda point: point.accuracy)
    return min(fitting, key=lambda point: point.cost)


def expected_calibration_error(confidence: NDArray[Any], correct: NDArray[Any], *, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equally wide bins; both (N,)."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(index, weights=correct.astype(np.float64) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """95 % interval of a share, after Wilson."""
    z = 1.959964
    share = successes / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return float(centre - half), float(centre + half)
