# SPDX-License-Identifier: Apache-2.0
"""ONNX files of a model's segments, made once per model and kept (torch is imported only to make them)."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from pathlib import Path

from filelock import FileLock

from mdi_exit_ros.cache import cache_directory
from mdi_exit_ros.errors import ModelError
from mdi_exit_ros.model.card import ModelCard

FORMAT = 1  # part of the folder's name: raise it when the exported graphs change
OPSET = 17


def ensure_exported(card: ModelCard) -> Path:
    """The folder with `segment_<k>.onnx` for every segment of `card`; exports them the first time.

    Each graph takes `batch` and gives `class_id`, `confidence` and, except the last, `features`; the batch size is
    free. Safe to call from many processes at once: one exports, the others wait.

    Raises:
        ModelError: The weights cannot be read, card and weights disagree, or torch is not installed.
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


def _export(card: ModelCard, directory: Path) -> None:
    try:
        import torch

        from mdi_exit_ros.model.checkpoint import load_network
        from mdi_exit_ros.model.segment import Segment
    except ModuleNotFoundError as error:
        raise ModelError(
            f"model {card.name!r} has to be exported once, and that needs {error.name}: install it, or copy the "
            f"folder {directory.parent} from a computer that has exported it"
        ) from error

    class Exported(torch.nn.Module):
        def __init__(self, segment: Segment, *, last: bool) -> None:
            super().__init__()
            self.segment, self.last = segment, last

        def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
            features, logits = self.segment(batch)
            answer: tuple[torch.Tensor, torch.Tensor] = self.segment.classify(logits)
            return answer if self.last else (*answer, features)

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
