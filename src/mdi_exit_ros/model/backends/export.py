# SPDX-License-Identifier: Apache-2.0
"""ONNX files of a model's segments, made once per model and kept (torch is imported only to make them)."""

from __future__ import annotations

import json
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
from mdi_exit_ros.errors import ConfigurationError, MdiExitError, ModelError
from mdi_exit_ros.images import decode, resize
from mdi_exit_ros.model.backends.interface import LoadOptions
from mdi_exit_ros.model.card import ModelCard, weights_digest
from mdi_exit_ros.resources import sample_archive

FORMAT = 3  # part of the folder's name: raise it when the exported graphs change
OPSET = 17
MANIFEST = "sha256.json"  # of every file of an export
_WHOLE: set[Path] = set()
CHECK_FRAMES = 32
CONFIDENCE_TOLERANCE = 0.005


def ensure_exported(card: ModelCard) -> Path:
    """The folder with `segment_<k>.onnx` for every segment of `card`; exports them the first time.

    Each graph takes `batch` and gives `class_id`, `confidence` and, except the last, `features`; the batch size is
    free. Safe to call from many processes at once: one exports, the others wait.

    Raises:
        ModelError: The weights cannot be read, card and weights disagree, torch is not installed, a layer cannot be
            exported, or the graphs answer differently from torch.
        ConfigurationError: The cache cannot be written.
    """
    parent = cache_directory("onnx")
    directory = parent / f"{card.model_id}-v{FORMAT}"
    if _is_whole(directory):
        return directory
    try:
        _export_into(directory, card)
    except OSError as error:
        raise ConfigurationError(
            f"model {card.name!r} cannot be exported to {parent} ({error.strerror or error}): make room there, or set "
            "XDG_CACHE_HOME to a writable folder"
        ) from error
    return directory


def _export_into(directory: Path, card: ModelCard) -> None:
    parent = directory.parent
    with FileLock(f"{directory}.lock"):
        if not _is_whole(directory):
            partial = Path(tempfile.mkdtemp(prefix=f"{card.model_id}-", dir=parent))
            try:
                _export_checked(card, partial)
                sums = {path.name: weights_digest([path]) for path in sorted(partial.iterdir())}
                (partial / MANIFEST).write_text(json.dumps(sums), encoding="utf-8")
                shutil.rmtree(directory, ignore_errors=True)  # one that a crash or a full disk has damaged
                os.replace(partial, directory)
            finally:
                shutil.rmtree(partial, ignore_errors=True)


def _is_whole(directory: Path) -> bool:
    """Whether the folder holds what was exported; looked at once per process."""
    if directory not in _WHOLE:
        try:
            sums = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
            if any(weights_digest([directory / name]) != digest for name, digest in sums.items()):
                return False
        except (OSError, ValueError):
            return False
        _WHOLE.add(directory)
    return True


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
    import torch

    from mdi_exit_ros.model.backends import torch_backend

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    batch: NDArray[Any] = check_frames(card, CHECK_FRAMES)
    threads = torch.get_num_threads()
    reference = torch_backend.load_eager(card, tuple(range(1, card.num_segments + 1)), LoadOptions())
    for number in range(1, card.num_segments + 1):
        session = onnxruntime.InferenceSession(str(directory / f"segment_{number}.onnx"), options)
        expected = reference.run(number, batch)
        _, confidence, *features = session.run(None, {"batch": batch})
        difference = float(np.abs(confidence - expected.confidence).max())
        if expected.features is not None:
            largest = max(1.0, float(np.abs(expected.features).max()))
            difference = max(difference, float(np.abs(features[0] - expected.features).max()) / largest)
        if not difference <= CONFIDENCE_TOLERANCE:  # nor where it is no number
            raise ModelError(
                f"segment {number} of {card.name!r} answers differently once exported: confidences or features differ "
                f"by {difference:.3g}, expected at most {CONFIDENCE_TOLERANCE}; use the backend torch, and report this"
            )
        if expected.features is not None:
            batch = expected.features
    torch.set_num_threads(threads)  # which loading the reference has set


def _export_checked(card: ModelCard, directory: Path) -> None:
    """Exports to `directory` and checks the graphs."""
    try:
        _export(card, directory)
        _check(card, directory)
    except (MdiExitError, OSError):
        raise
    except Exception as error:  # torch's exporter and onnxruntime have errors of their own
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise ModelError(f"model {card.name!r} cannot be exported: {reason}; use the backend torch") from error


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
