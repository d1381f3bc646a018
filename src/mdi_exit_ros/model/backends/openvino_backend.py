# SPDX-License-Identifier: Apache-2.0
"""Segments run by OpenVINO on the CPU; torch is not needed once they are exported."""

from __future__ import annotations

import queue
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from mdi_exit_ros.model.backends.export import segment_path
from mdi_exit_ros.model.backends.interface import LoadOptions, SegmentOutput, check_batch, check_options
from mdi_exit_ros.model.card import ModelCard

PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoRunner:
    """`SegmentRunner` on OpenVINO; `requests` are as many of each segment as there are lanes."""

    def __init__(self, card: ModelCard, requests: dict[int, list[Any]]) -> None:
        self._card = card
        self._free: dict[int, queue.SimpleQueue[Any]] = {number: queue.SimpleQueue() for number in requests}
        for number, each in requests.items():
            for request in each:
                self._free[number].put(request)

    def run(self, segment: int, batch: NDArray[Any]) -> SegmentOutput:
        """See `SegmentRunner.run`."""
        check_batch(self._card, tuple(self._free), segment, batch)
        request = self._free[segment].get()
        try:
            request.infer({0: np.ascontiguousarray(batch)}, share_inputs=True)
            features = None
            if segment != self._card.num_segments:
                features = request.get_tensor("features").data.copy()  # the next run overwrites its memory
            return SegmentOutput(
                features,
                request.get_tensor("class_id").data.astype(np.uint16),
                request.get_tensor("confidence").data.copy(),
            )
        finally:
            self._free[segment].put(request)


def load(card: ModelCard, segments: tuple[int, ...], chosen: LoadOptions) -> OpenVinoRunner:
    """A runner for `segments` of `card`; see `registry.load_segments`."""
    check_options("openvino", chosen, precisions=PRECISION_HINTS, devices=("cpu",))
    lanes = chosen.lanes
    core = openvino.Core()
    settings = {
        # without it OpenVINO computes in bfloat16 on processors that can
        "INFERENCE_PRECISION_HINT": PRECISION_HINTS[chosen.precision],
        "INFERENCE_NUM_THREADS": chosen.threads * lanes,
        "NUM_STREAMS": lanes,
        # several workers of one computer would all pin themselves to the same first cores
        "ENABLE_CPU_PINNING": False,
    }
    compiled = {number: core.compile_model(str(segment_path(card, number)), "CPU", settings) for number in segments}
    return OpenVinoRunner(
        card, {number: [model.create_infer_request() for _ in range(lanes)] for number, model in compiled.items()}
    )
