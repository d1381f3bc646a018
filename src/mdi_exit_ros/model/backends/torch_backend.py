# SPDX-License-Identifier: Apache-2.0
"""Segments run by torch: eagerly, the reference for all backends, or with batch normalisation folded away."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mdi_exit_ros.model.backends.interface import LoadOptions, SegmentOutput, check_batch, check_options
from mdi_exit_ros.model.card import ModelCard
from mdi_exit_ros.model.checkpoint import load_network
from mdi_exit_ros.model.segment import Segment


class ClassifiedSegment(nn.Module):
    """A segment that answers with features (B, C, H, W), class (B,) and calibrated confidence (B,)."""

    def __init__(self, segment: Segment) -> None:
        super().__init__()
        self.segment = segment

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the segment says about `batch`."""
        features, logits = self.segment(batch)
        class_id, confidence = self.segment.classify(logits)
        return features, class_id, confidence


class _Tracing:
    """Lets nothing run while a module is traced: torch.fx patches what calling any module means, in all threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._traces = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """While a segment runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._traces)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """While a module is traced."""
        with self._changed:
            self._changed.wait_for(lambda: not self._traces)
            self._traces = True
            self._changed.wait_for(lambda: not self._running)
        try:
            yield
        finally:
            with self._changed:
                self._traces = False
                self._changed.notify_all()


_tracing = _Tracing()


class TorchRunner:
    """`SegmentRunner` on torch; its number of threads is that of the whole process."""

    def __init__(self, card: ModelCard, segments: dict[int, nn.Module], device: str) -> None:
        self._card = card
        self.modules = segments
        self._device = device

    def run(self, segment: int, batch: NDArray[Any]) -> SegmentOutput:
        """See `SegmentRunner.run`."""
        check_batch(self._card, tuple(self.modules), segment, batch)
        if not batch.flags.writeable:
            batch = batch.copy()  # torch warns of arrays that it could change by mistake
        with _tracing.running(), torch.inference_mode():
            features, class_id, confidence = self.modules[segment](torch.from_numpy(batch).to(self._device))
        return SegmentOutput(
            features=None if segment == self._card.num_segments else features.contiguous().cpu().numpy(),
            class_id=class_id.cpu().numpy().astype(np.uint16),
            confidence=confidence.cpu().numpy(),
        )


def load_eager(card: ModelCard, segments: tuple[int, ...], options: LoadOptions) -> TorchRunner:
    """A runner for `segments` of `card` as they were trained, for any number of lanes; see `registry.load_segments`."""
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    check_options("torch", options, precisions=("fp32",), devices=devices)
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False  # fp32 is meant; convolutions would be rounded to TF32 unasked
    with _tracing.running():  # modules are called, and a load beside may trace, which patches all of them
        network = load_network(card)
        chosen: dict[int, nn.Module] = {
            number: ClassifiedSegment(network[number]).eval().to(options.device) for number in segments
        }
    return TorchRunner(card, chosen, options.device)


def load(card: ModelCard, segments: tuple[int, ...], options: LoadOptions) -> TorchRunner:
    """Like `load_eager`, with every batch normalisation folded into the convolution before it, channels last."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", category=DeprecationWarning
        )  # it imports parts of torch that are on their way out
        from torch.fx.experimental.optimization import fuse
    eager = load_eager(card, segments, options)
    folded = {}
    for number, module in eager.modules.items():
        with _tracing.tracing():
            folded[number] = fuse(torch.fx.symbolic_trace(module))
        folded[number].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TorchRunner(card, folded, options.device)
