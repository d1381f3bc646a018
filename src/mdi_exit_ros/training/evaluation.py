# SPDX-License-Identifier: Apache-2.0
"""How good a model is on labelled images, by the same segments and backends that workers run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from mdi_exit_ros.errors import ConfigurationError, DataError
from mdi_exit_ros.model.backends.interface import SegmentRunner
from mdi_exit_ros.model.card import ModelCard
from mdi_exit_ros.training.calibration import (
    exit_costs,
    exits_taken,
    expected_calibration_error,
    outcome,
    wilson_interval,
)
from mdi_exit_ros.training.datasets import LabelledImages


class EvaluationReport(TypedDict):
    """Figures of one evaluation; accuracies, shares and fractions in [0, 1], one entry per exit in lists.

    `accuracy` and what follows it hold with early exits at `thresholds`; `accuracy_exits` is each exit alone on all
    images. Intervals are at 95 % (Wilson). `mac_fraction` is relative to the last exit alone, `ece` the expected
    calibration error of the answers given.
    """

    model: str
    model_id: str
    images: int
    data_hash: str
    backend: str
    precision: str
    accuracy_exits: list[float]
    accuracy_exits_interval: list[tuple[float, float]]
    ece_exits: list[float]
    thresholds: list[float]
    accuracy: float
    accuracy_interval: tuple[float, float]
    exits: list[float]
    mac_fraction: float
    ece: float


def run_exits(
    runner: SegmentRunner,
    segments: int,
    images: NDArray[Any],
    *,
    batch_size: int = 64,
    on_batch: Callable[[int], None] = lambda count: None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Class (K, N) and confidence (K, N) of every exit for images (N, H, W, 3)."""
    class_ids = np.empty((segments, len(images)), dtype=np.uint16)
    confidence = np.empty((segments, len(images)), dtype=np.float32)
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        span = slice(start, start + len(batch))
        for segment in range(1, segments + 1):
            output = runner.run(segment, batch)
            class_ids[segment - 1, span], confidence[segment - 1, span] = output.class_id, output.confidence
            if output.features is not None:
                batch = output.features
        on_batch(span.stop - span.start)
    return class_ids, confidence


def labels_for(card: ModelCard, data: LabelledImages) -> NDArray[Any]:
    """Labels (N,) of `data` as class ids of the model.

    Raises:
        DataError: The model does not know one of the classes.
    """
    unknown = sorted(set(data.class_names) - set(card.class_names))
    if unknown:
        raise DataError(
            f"model {card.name!r} knows the classes {', '.join(card.class_names)}, but the images have {unknown[0]!r}"
        )
    return np.asarray(np.array([card.class_names.index(name) for name in data.class_names])[data.labels])


def evaluate(
    card: ModelCard,
    runner: SegmentRunner,
    data: LabelledImages,
    thresholds: Sequence[float],
    *,
    backend: str,
    precision: str,
    on_batch: Callable[[int], None] = lambda count: None,
) -> EvaluationReport:
    """Runs all images through all exits and says how good each is, and what leaving early brings.

    Raises:
        DataError: The classes of `data` are not those of the model.
        ConfigurationError: Not one threshold for each exit but the last.
    """
    labels = labels_for(card, data)
    if len(thresholds) != card.num_segments - 1:
        raise ConfigurationError(f"expected {card.num_segments - 1} thresholds, came {len(thresholds)}")
    class_ids, confidence = run_exits(runner, card.num_segments, data.images, on_batch=on_batch)
    correct = class_ids == labels
    costs = exit_costs(card.segment_macs, card.exit_macs)
    with_exits = outcome(confidence, correct, costs, thresholds)
    taken = exits_taken(confidence, thresholds)
    everyone = np.arange(len(labels))
    return EvaluationReport(
        model=card.name,
        model_id=card.model_id,
        images=len(labels),
        data_hash=data.data_hash,
        backend=backend,
        precision=precision,
        accuracy_exits=[float(value) for value in correct.mean(axis=1)],
        accuracy_exits_interval=[wilson_interval(int(right), len(labels)) for right in correct.sum(axis=1)],
        ece_exits=[expected_calibration_error(c, r) for c, r in zip(confidence, correct, strict=True)],
        thresholds=[float(value) for value in thresholds],
        accuracy=with_exits.accuracy,
        accuracy_interval=wilson_interval(int(correct[taken, everyone].sum()), len(labels)),
        exits=list(with_exits.exit_shares),
        mac_fraction=with_exits.mac_fraction,
        ece=expected_calibration_error(confidence[taken, everyone], correct[taken, everyone]),
    )
