# SPDX-License-Identifier: Apache-2.0
"""How good a model is on labelled images, by the same segments and backends that workers run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from mdi_exit_ros import codec
from mdi_exit_ros.errors import BackendError, ConfigurationError, DataError
from mdi_exit_ros.model.backends.interface import SegmentRunner
from mdi_exit_ros.model.backends.registry import available_backends, load_segments
from mdi_exit_ros.model.card import ModelCard
from mdi_exit_ros.model.inference import run_exits
from mdi_exit_ros.training.calibration import (
    exit_costs,
    exits_taken,
    expected_calibration_error,
    outcome,
    wilson_interval,
)
from mdi_exit_ros.training.datasets import LabelledImages

REFERENCE = "torch-eager"  # backend that the others are held against
PRECISIONS = ("fp32", "bf16")


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
    encoding: str
    accuracy_exits: list[float]
    accuracy_exits_interval: list[tuple[float, float]]
    ece_exits: list[float]
    thresholds: list[float]
    accuracy: float
    accuracy_interval: tuple[float, float]
    exits: list[float]
    exits_interval: list[tuple[float, float]]
    mac_fraction: float
    ece: float
    curve: list[CurvePoint]


class CurvePoint(TypedDict):
    """What one point of the model's threshold curve brings on these images."""

    thresholds: list[float]
    accuracy: float
    accuracy_interval: tuple[float, float]
    mac_fraction: float
    exits: list[float]


class EncodingReport(TypedDict):
    """What an encoding costs at one cut: bytes per frame there, and accuracies in [0, 1] when only it is encoded.

    `cut` is the segment in front of it; 0 stands for all cuts at once, with the bytes of the dearest.
    `agreement` is the share of images that the last exit answers as without encoding.
    """

    encoding: str
    cut: int
    nbytes: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    accuracy_last: float
    agreement: float


class BackendReport(TypedDict):
    """How a backend answers compared with eager torch in fp32, on the same images.

    `agreement` is the share of images that an exit answers with the same class, of the exit where it is smallest;
    `confidence_difference` the largest difference of confidences, of all exits and images.
    """

    backend: str
    precision: str
    accuracy_exits: list[float]
    agreement: float
    agreement_interval: tuple[float, float]
    confidence_difference: float


def compare_backends(
    card: ModelCard,
    data: LabelledImages,
    *,
    threads: int = 1,
    on_run: Callable[[int, int], None] = lambda done, total: None,
) -> list[BackendReport]:
    """Runs all images through all exits in every installed backend and precision, eager torch first.

    Raises:
        BackendError: torch, which the others are held against, is not installed.
    """
    labels = labels_for(card, data)
    others = [name for name in available_backends() if name != REFERENCE]
    runs = [(REFERENCE, "fp32"), *((name, precision) for name in others for precision in PRECISIONS)]
    segments = range(1, card.num_segments + 1)
    reports: list[BackendReport] = []
    reference: tuple[NDArray[Any], NDArray[Any]] | None = None
    for done, (backend, precision) in enumerate(runs):
        on_run(done, len(runs))
        try:
            runner = load_segments(card, segments, backend=backend, precision=precision, threads=threads)
        except BackendError:
            if reference is None:
                raise
            continue  # it does not compute in that precision
        class_ids, confidence = run_exits(runner, card.num_segments, data.images)
        reference = reference or (class_ids, confidence)
        equal = int((class_ids == reference[0]).sum(axis=1).min())
        reports.append(
            BackendReport(
                backend=backend,
                precision=precision,
                accuracy_exits=[float(value) for value in (class_ids == labels).mean(axis=1)],
                agreement=equal / len(labels),
                agreement_interval=wilson_interval(equal, len(labels)),
                confidence_difference=float(np.abs(confidence - reference[1]).max()),
            )
        )
    on_run(len(runs), len(runs))
    return reports


def compare_encodings(
    card: ModelCard,
    runner: SegmentRunner,
    data: LabelledImages,
    thresholds: Sequence[float],
    *,
    on_run: Callable[[int, int], None] = lambda done, total: None,
) -> list[EncodingReport]:
    """Runs all images once per encoding and cut; `thresholds` are those of exits 1..K-1."""
    labels = labels_for(card, data)
    cuts = range(1, card.num_segments)
    macs = exit_costs(card.segment_macs, card.exit_macs)
    everything = [(encoding, cut) for encoding in codec.ENCODINGS for cut in (*cuts, 0)]
    reports: list[EncodingReport] = []
    reference: NDArray[Any] | None = None
    for done, (encoding, cut) in enumerate(everything, start=1):
        if encoding != codec.RAW or reference is None:
            encodings = {each: encoding for each in cuts if cut in (0, each)}
            class_ids, confidence = run_exits(runner, card.num_segments, data.images, encodings=encodings)
            reference = class_ids[-1] if reference is None else reference
        point = outcome(confidence, class_ids == labels, macs, thresholds)
        sizes = [card.input_nbytes_of(each + 1, encoding) for each in cuts if cut in (0, each)]
        reports.append(
            EncodingReport(
                encoding=encoding,
                cut=cut,
                nbytes=max(sizes, default=0),
                accuracy=point.accuracy,
                accuracy_interval=wilson_interval(round(point.accuracy * len(labels)), len(labels)),
                accuracy_last=float((class_ids[-1] == labels).mean()),
                agreement=float((class_ids[-1] == reference).mean()),
            )
        )
        on_run(done, len(everything))
    return reports


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
    encoding: str = codec.RAW,
    on_batch: Callable[[int], None] = lambda count: None,
    on_answers: Callable[[NDArray[Any], NDArray[Any]], None] = lambda confidence, correct: None,
) -> EvaluationReport:
    """Runs all images through all exits and says how good each is, and what leaving early brings.

    `on_answers` gets confidence and correctness (K, N) of all exits.

    Raises:
        DataError: The classes of `data` are not those of the model.
        ConfigurationError: Not one threshold for each exit but the last.
    """
    labels = labels_for(card, data)
    if len(thresholds) != card.num_segments - 1:
        raise ConfigurationError(f"expected {card.num_segments - 1} thresholds, came {len(thresholds)}")
    encodings = {} if encoding == codec.RAW else dict.fromkeys(range(1, card.num_segments), encoding)
    class_ids, confidence = run_exits(runner, card.num_segments, data.images, encodings=encodings, on_batch=on_batch)
    correct = class_ids == labels
    on_answers(confidence, correct)
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
        encoding=encoding,
        accuracy_exits=[float(value) for value in correct.mean(axis=1)],
        accuracy_exits_interval=[wilson_interval(int(right), len(labels)) for right in correct.sum(axis=1)],
        ece_exits=[expected_calibration_error(c, r) for c, r in zip(confidence, correct, strict=True)],
        thresholds=[float(value) for value in thresholds],
        accuracy=with_exits.accuracy,
        accuracy_interval=wilson_interval(int(correct[taken, everyone].sum()), len(labels)),
        exits=list(with_exits.exit_shares),
        exits_interval=[wilson_interval(round(share * len(labels)), len(labels)) for share in with_exits.exit_shares],
        mac_fraction=with_exits.mac_fraction,
        ece=expected_calibration_error(confidence[taken, everyone], correct[taken, everyone]),
        curve=[
            CurvePoint(
                thresholds=list(point.thresholds),
                accuracy=point.accuracy,
                accuracy_interval=wilson_interval(round(point.accuracy * len(labels)), len(labels)),
                mac_fraction=point.mac_fraction,
                exits=list(point.exit_shares),
            )
            for point in (outcome(confidence, correct, costs, each.thresholds) for each in card.threshold_curve)
        ],
    )
