# SPDX-License-Identifier: Apache-2.0
"""Segments run by ONNX Runtime; torch is not needed once they are exported."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from mdi_exit_ros.errors import BackendError
from mdi_exit_ros.model.backends.export import segment_path
from mdi_exit_ros.model.backends.interface import LoadOptions, SegmentOutput, check_batch, check_options
from mdi_exit_ros.model.card import ModelCard

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


class OnnxRuntimeRunner:
    """`SegmentRunner` on ONNX Runtime."""

    def __init__(self, card: ModelCard, sessions: dict[int, Any]) -> None:
        self._card = card
        self._sessions = sessions

    def run(self, segment: int, batch: NDArray[Any]) -> SegmentOutput:
        """See `SegmentRunner.run`."""
        check_batch(self._card, tuple(self._sessions), segment, batch)
        class_id, confidence, *features = self._sessions[segment].run(None, {"batch": batch})
        return SegmentOutput(features[0] if features else None, class_id.astype(np.uint16), confidence)


def load(card: ModelCard, segments: tuple[int, ...], chosen: LoadOptions) -> OnnxRuntimeRunner:
    """A runner for `segments` of `card`, for any number of lanes; see `registry.load_segments`."""
    present = onnxruntime.get_available_providers()
    devices = [device for device, provider in PROVIDERS.items() if provider in present]
    check_options("onnxruntime", chosen, precisions=("fp32",), devices=devices)
    # What a device lacks runs on the CPU.
    wanted = PROVIDERS[chosen.device]
    on_gpu = (PROVIDERS["cuda"],) if PROVIDERS["cuda"] in present and chosen.device != "cpu" else ()
    providers = list(dict.fromkeys((wanted, *on_gpu, PROVIDERS["cpu"])))
    if chosen.device != "cpu":
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # fp32 is meant; libraries would round to TF32 unasked
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = chosen.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # spinning threads would take the cores from the other workers of this computer
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    sessions = {
        number: onnxruntime.InferenceSession(str(segment_path(card, number)), options, providers=providers)
        for number in segments
    }
    for session in sessions.values():
        if wanted not in session.get_providers():  # it would compute on the CPU, and be measured as if it did not
            raise BackendError(
                f"onnxruntime has {wanted} and cannot use it here: expected a driver, CUDA and cuDNN that it was built "
                "for; see what onnxruntime warns of, or choose device: cpu"
            )
    return OnnxRuntimeRunner(card, sessions)
