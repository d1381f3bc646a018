# SPDX-License-Identifier: Apache-2.0
"""Temperatures and thresholds fitted on validation images, and how well they hold on others (numpy only)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdi_exit_ros.model.card import promised_accuracy
from mdi_exit_ros.training import calibration
from mdi_exit_ros.training.calibration import ExitOutcome

ACCURACY_GIVEN_UP = 0.002  # by the default thresholds, against the last exit alone
TARGET_STEP = 0.005
BINS = 15


@dataclass(frozen=True)
class Calibration:
    """What the validation images decided.

    Attributes:
        temperatures: One per exit.
        curve: Settings of the exits from cheap to accurate.
        default: The cheapest one that gives up at most ACCURACY_GIVEN_UP against the last exit alone, among those in
            hundredths, as a controller's parameters have them.
        images: How many images decided.
        macs: (K,) multiply-accumulates when leaving at each exit, relative to the last exit alone.
        costs: (K,) what `curve` minimises: relative time, or `macs`.
    """

    temperatures: tuple[float, ...]
    curve: tuple[ExitOutcome, ...]
    default: ExitOutcome
    macs: NDArray[Any]
    costs: NDArray[Any]
    images: int

    def confidence(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Calibrated confidence (K, N) of logits (K, N, classes)."""
        heat = np.asarray(self.temperatures, dtype=np.float32)[:, None, None]
        return np.asarray(calibration.softmax(logits / heat).max(axis=2))


def calibrate(
    logits: NDArray[Any], labels: NDArray[Any], macs: NDArray[Any], costs: NDArray[Any] | None = None
) -> Calibration:
    """Fits a temperature per exit and the settings of the exits that cost least for what they reach.

    Args:
        logits: (K, N, classes) of the validation images.
        labels: (N,).
        macs: (K,) of `exit_costs`.
        costs: (K,) of `time_costs`; `macs` where left out.
    """
    costs = macs if costs is None else costs
    temperatures = tuple(calibration.fit_temperature(answer, labels) for answer in logits)
    fitted = Calibration(temperatures, (), ExitOutcome((), 0.0, 0.0, 0.0, ()), macs, costs, len(labels))
    correct = logits.argmax(axis=2) == labels
    curve = calibration.threshold_curve(fitted.confidence(logits), correct, macs, costs)
    settable = [point for point in curve if all(round(each, 2) == each for each in point.thresholds)]
    default = calibration.cheapest_within(settable, float(correct[-1].mean()) - ACCURACY_GIVEN_UP)
    return replace(fitted, curve=tuple(curve), default=default)


def report(fitted: Calibration, logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, Any]:
    """How `fitted` does on labelled images, for JSON: exits alone, every point of the curve, and targets.

    Accuracies, shares and errors in [0, 1]; intervals at 95 % (Wilson). `reliability` has, per exit, before and after
    calibration, equally wide bins of confidence that are not empty: images, mean confidence and accuracy. A target is
    `held` where it lies inside the interval of the accuracy that its thresholds reach here.
    """
    total = len(labels)
    correct = logits.argmax(axis=2) == labels
    before, after = calibration.softmax(logits).max(axis=2), fitted.confidence(logits)
    points = [
        calibration.outcome(after, correct, fitted.macs, point.thresholds, fitted.costs) for point in fitted.curve
    ]
    default = calibration.outcome(after, correct, fitted.macs, fitted.default.thresholds, fitted.costs)
    return {
        "images": total,
        "accuracy_exits": [float(value) for value in correct.mean(axis=1)],
        "accuracy_exits_interval": [calibration.wilson_interval(int(right), total) for right in correct.sum(axis=1)],
        "ece_before": [calibration.expected_calibration_error(c, r) for c, r in zip(before, correct, strict=True)],
        "ece_after": [calibration.expected_calibration_error(c, r) for c, r in zip(after, correct, strict=True)],
        "reliability": [
            {"before": reliability(b, right), "after": reliability(a, right)}
            for b, a, right in zip(before, after, correct, strict=True)
        ],
        "curve": [_with_interval(point, total) for point in points],
        "default": _with_interval(default, total),
        "targets": [
            _held(target, calibration.outcome(after, correct, fitted.macs, chosen.thresholds, fitted.costs), total)
            for target, chosen in targets(fitted)
        ],
    }


def targets(fitted: Calibration) -> list[tuple[float, ExitOutcome]]:
    """Target accuracies in steps of half a point over what can be promised, each with its cheapest setting."""
    promised = [promised_accuracy(point.accuracy, fitted.images) for point in fitted.curve]
    steps = range(int(np.ceil(promised[0] / TARGET_STEP)), int(promised[-1] / TARGET_STEP) + 1)
    return [
        (
            step * TARGET_STEP,
            next(point for point, sure in zip(fitted.curve, promised, strict=True) if sure >= step * TARGET_STEP),
        )
        for step in steps
    ]


def reliability(confidence: NDArray[Any], correct: NDArray[Any]) -> list[dict[str, float]]:
    """Images, mean confidence and accuracy of each bin of confidence that has images; both (N,)."""
    index = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        {
            "images": int((index == number).sum()),
            "confidence": float(confidence[index == number].mean()),
            "accuracy": float(correct[index == number].mean()),
        }
        for number in np.unique(index)
    ]


def _with_interval(point: ExitOutcome, total: int) -> dict[str, Any]:
    interval = calibration.wilson_interval(round(point.accuracy * total), total)
    return {**asdict(point), "accuracy_interval": interval}


def _held(target: float, reached: ExitOutcome, total: int) -> dict[str, Any]:
    described = _with_interval(reached, total)
    low, high = described["accuracy_interval"]
    return {"target": round(target, 4), **described, "held": low <= target <= high}
