# SPDX-License-Identifier: Apache-2.0
"""What every compute backend offers: segments of one model, run on batches of numpy arrays."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mdi_exit_ros.errors import BackendError, ModelError
from mdi_exit_ros.model.card import ModelCard

DEVICES = ("cpu", "cuda", "tensorrt")


class SegmentOutput(NamedTuple):
    """What one segment says about a batch of B frames.

    Attributes:
        features: (B, C, H, W) float32 for the next segment; None after the last one.
        class_id: (B,) uint16.
        confidence: (B,) float32, the largest calibrated softmax probability, in [0, 1].
    """

    features: NDArray[np.float32] | None
    class_id: NDArray[np.uint16]
    confidence: NDArray[np.float32]


@dataclass(frozen=True)
class LoadOptions:
    """How segments shall run.

    Attributes:
        precision: `fp32`; some backends also compute in `bf16`.
        threads: CPU threads for one call of `run`, at least 1.
        lanes: Calls of `run` that may be made at once, at least 1.
        device: One of DEVICES.
    """

    precision: str = "fp32"
    threads: int = 1
    lanes: int = 1
    device: str = "cpu"


class SegmentRunner(Protocol):
    """Runs the segments it was loaded with; used by as many threads at once as it was loaded with lanes."""

    def run(self, segment: int, batch: NDArray[Any]) -> SegmentOutput:
        """Runs segment 1..K on `batch`: uint8 (B, H, W, 3) for the first, else float32 (B, C, H, W).

        Raises:
            ModelError: The segment was not loaded, or the batch has another shape or dtype.
        """
        ...


def check_segments(card: ModelCard, segments: tuple[int, ...]) -> None:
    """Raises ModelError where a number in `segments` is not in 1..K."""
    unknown = [number for number in segments if not 1 <= number <= card.num_segments]
    if unknown or not segments:
        raise ModelError(
            f"model {card.name!r} has segments 1 to {card.num_segments}, asked for {list(segments) or 'none'}"
        )


def check_batch(card: ModelCard, loaded: tuple[int, ...], segment: int, batch: NDArray[Any]) -> None:
    """Raises ModelError where `segment` is not in `loaded` or cannot take `batch`."""
    if segment not in loaded:
        raise ModelError(f"segment {segment} of {card.name!r} is not loaded here: this runner holds {list(loaded)}")
    shape = card.input_shape_of(segment)
    dtype = np.dtype(np.uint8 if segment == 1 else np.float32)
    if batch.ndim != 4 or batch.shape[1:] != shape or batch.shape[0] < 1 or batch.dtype != dtype:
        raise ModelError(
            f"segment {segment} of {card.name!r} takes {dtype} of shape (B, {', '.join(map(str, shape))}) with B >= 1, "
            f"came {batch.dtype} of shape {batch.shape}"
        )


def check_options(backend: str, options: LoadOptions, *, precisions: Collection[str], devices: Collection[str]) -> None:
    """Raises BackendError where `backend` cannot compute in that precision or on that device."""
    if options.precision not in precisions:
        raise BackendError(
            f"backend {backend!r} computes in {' or '.join(precisions)}, not in {options.precision!r}: "
            "choose one of them"
        )
    if options.device not in devices:
        raise BackendError(
            f"backend {backend!r} computes on {' or '.join(devices)} here, not on {options.device!r}: "
            "choose one of them"
        )
