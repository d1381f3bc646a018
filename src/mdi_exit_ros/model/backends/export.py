# SPDX-License-Identifier: Apache-2.0
"""ONNX files of a model's segments, made once per model and kept (torch is imported only to make them)."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from mdi_exit_ros.cache import cache_directory
from mdi_exit_ros.errors import ModelError
from mdi_exit_ros.images import decode, resize
from mdi_exit_ros.model.backends.interface import LoadOptions
from mdi_exit_ros.model.card import ModelCard
from mdi_exit_ros.resources import sample_archive

FORMAT = 2  # part of the folder's name: raise it when the exported graphs change
OPSET = 17
CHECK_FRAMES = 32
CONFIDENCE_TOLERANCE = 0.005


def ensure_exported(card: ModelCard) -> Path:
    """The folder with `segment_<k>.onnx` for every segment of `card`; exports them the first time.

    Each graph takes `batch` and gives `class_id`, `confidence` and, except the last, `features`; the batch size is
    free. Safe to call from many processes at once: one exports, the others wait.

    Raises:
        ModelError: The weights cannot be read, card and weights disagree, torch is not installed, or the graphs
            answer differently from torch.
    """
    parent = cache_directory("onnx")
    directory = parent / f"{card.model_id}-v{FORMAT}"
    if directory.is_dir():
        return directory
    with FileLock(f"{directory}.lock"):
        if not directory.is_dir():
            partial = Path(tempfile.mkdtemp(prefix=f"{card.model_id}-", dir=parent))
            try:
                _export(card, partial)
                os.replace(partial, directory)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return directory


def segment_path(card: ModelCard, segment: int) -> Path:
    """The ONNX file of `segment` 1..K."""
    return ensure_exported(card) / f"segment_{segment}.onnx"


def check_frames(card: ModelCard, count: int) -> NDArray[np.uint8]:
    """Up to `count` of the shipped images, stretched to what `card` takes: (B, H, W, 3)."""
    height, width, _ = card.input_shape
    with zipfile.ZipFile(sample_archive()) as archive:
        names = sorted(name for name in archive.namelist() if not name.endswith("/"))
        chosen = names[:: max(1, len(names) // count)][:count]
        return np.stack([resize(decode(archive.read(name), name), height, width) for name in chosen])


def _check(card: ModelCard, directory: Path) -> None:
    """Holds the exported graphs against torch, where onnxruntime is there to run them.

    Raises:
        ModelError: They differ by more than rounding.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return
    from mdi_exit_ros.model.backends import torch_backend

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    batch: NDArray[Any] = check_frames(card, CHECK_FRAMES)
    reference = torch_backend.load_eager(card, tuple(range(1, card.num_segments + 1)), LoadOptions())
    for number in range(1, card.num_segments + 1):
        session = onnxruntime.InferenceSession(str(directory / f"segment_{number}.onnx"), options)
        expected = reference.run(number, batch)
        confidence = session.run(["confidence"], {"batch": batch})[0]
        difference = float(np.abs(confidence - expected.confidence).max())
        if difference > CONFIDENCE_TOLERANCE:
            raise ModelError(
                f"segment {number} of {card.name!r} answers differently once exported: confidences differ by "
                f"{difference:.3g}, expected at most {CONFIDENCE_TOLERANCE}; use the backend torch, and report this"
            )
        if expected.features is not None:
            batch = expected.features


def _export(card: ModelCard, directory: Path) -> None:
    try:
        import torch

        from mdi_exit_ros.model.backends.torch_backend import ClassifiedSegment
        from mdi_exit_ros.model.checkpoint import load_network
        from mdi_exit_ros.model.segment import Segment
    except ModuleNotFoundError as error:
        raise ModelError(
            f"model {card.name!r} has to be exported once, and that needs {error.name}: install it, or copy the "
            f"folder {directory.parent} from a computer that has exported it"
        ) from error

    class Exported(ClassifiedSegment):
        def __init__(self, segment: Segment, *, last: bool) -> None:
            super().__init__(segment)
            self.last = last

        def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
            features, *answer = super().forward(batch)
            return tuple(answer) if self.last else (*answer, features)

    network = load_network(card)
    for number in range(1, card.num_segments + 1):
        last = number == card.num_segments
        shape = card.input_shape_of(number)
        example = torch.zeros(2, *shape, dtype=torch.uint8 if number == 1 else torch.float32)
        outputs = ["class_id", "confidence"] + ([] if last else ["features"])
        with warnings.catch_warnings():
            # the exporter without dynamo is deprecated, but its graphs keep a free batch size and need no onnxscript
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            torch.onnx.export(
                Exported(network[number], last=last).eval(),
                (example,),
                str(directory / f"segment_{number}.onnx"),
                input_names=["batch"],
                output_names=outputs,
                dynamic_axes={name: {0: "frames"} for name in ("batch", *outputs)},
                opset_version=OPSET,
                dynamo=False,
            )
    _check(card, directory)
