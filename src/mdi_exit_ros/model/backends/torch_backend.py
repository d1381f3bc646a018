# SPDX-License-Identifier: Apache-2.0
"""Segments run eagerly by torch: the reference that the other backends are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mdi_exit_ros.model.backends.interface import SegmentOutput, check_batch, check_precision
from mdi_exit_ros.model.card import ModelCard
from mdi_exit_ros.model.checkpoint import load_network
from mdi_exit_ros.model.segment import Segment


class TorchRunner:
    """`SegmentRunner` on torch; its number of threads is that of the whole process."""

    def __init__(self, card: ModelCard, segments: dict[int, Segment]) -> None:
        self._card = card
        self._segments = segments

    def run(self, segment: int, batch: NDArray[Any]) -> SegmentOutput:
        """See `SegmentRunner.run`."""
        check_batch(self._card, tuple(self._segments), segment, batch)
        module = self._segments[segment]
        if not batch.flags.writeable:
            batch = batch.copy()  # torch warns of arrays that it could change by mistake
        with torch.inference_mode():
            features, logits = module(torch.from_numpy(batch))
            class_id, confidence = module.classify(logits)
        return SegmentOutput(
            features=None if segment == self._card.num_segments else features.contiguous().numpy(),
            class_id=class_id.numpy().astype(np.uint16),
            confidence=confidence.numpy(),
        )


def load(card: ModelCard, segments: tuple[int, ...], precision: str, threads: int, lanes: int) -> TorchRunner:
    """A runner for `segments` of `card`, for any number of lanes; see `registry.load_segments`."""
    check_precision("torch", precision, ("fp32",))
    torch.set_num_threads(threads)
    network = load_network(card)
    return TorchRunner(card, {number: network[number] for number in segments})
