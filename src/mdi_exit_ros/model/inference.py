# SPDX-License-Identifier: Apache-2.0
"""All exits of a model on many images, as workers would run them one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdi_exit_ros import codec
from mdi_exit_ros.model.backends.interface import SegmentRunner

NOTHING_ENCODED: Mapping[int, str] = MappingProxyType({})


def run_exits(
    runner: SegmentRunner,
    segments: int,
    images: NDArray[Any],
    *,
    batch_size: int = 64,
    encodings: Mapping[int, str] = NOTHING_ENCODED,
    on_batch: Callable[[int], None] = lambda count: None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Class (K, N) and confidence (K, N) of every exit for images (N, H, W, 3).

    Features go through the codec as if they crossed the network: `encodings` names the encoding behind segment 1..K-1.
    """
    class_ids = np.empty((segments, len(images)), dtype=np.uint16)
    confidence = np.empty((segments, len(images)), dtype=np.float32)
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        span = slice(start, start + len(batch))
        for segment in range(1, segments + 1):
            output = runner.run(segment, batch)
            class_ids[segment - 1, span], confidence[segment - 1, span] = output.class_id, output.confidence
            if output.features is not None:
                batch = _crossed(output.features, encodings[segment]) if segment in encodings else output.features
        on_batch(span.stop - span.start)
    return class_ids, confidence


def _crossed(features: NDArray[Any], encoding: str) -> NDArray[Any]:
    """Features as they come out of the network on the other side."""
    sent = codec.encode([features], encoding)
    return codec.decode(sent.dtype, sent.shape, sent.encoding, b"".join(sent.data))
