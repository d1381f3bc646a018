# SPDX-License-Identifier: Apache-2.0
"""What every exit of a model said about real images: exits in the simulator are drawn from nothing else."""

from __future__ import annotations

import dataclasses
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdi_exit_ros.errors import DataError

RECORDING_NAME = "recording.npz"
# What numpy and zipfile say of files that are something else, cut off or damaged.
_FOREIGN = (
    *(ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, DataError),
)
_STEPS = 65535  # confidence is kept to 16 bits


@dataclasses.dataclass(frozen=True)
class Recording:
    """Answers of all exits on N images, in their order.

    Attributes:
        confidence: (N, K) in [0, 1], calibrated.
        correct: (N, K), whether the answer was the label.
        model_id: of the model that answered.
        images: which images these are, in words.
        data_hash: of the data they are from.
    """

    confidence: NDArray[np.float64]
    correct: NDArray[np.bool_]
    model_id: str
    images: str
    data_hash: str

    def __post_init__(self) -> None:
        if self.confidence.ndim != 2 or self.confidence.shape != self.correct.shape or not len(self.confidence):
            raise DataError(
                f"a recording has (N, K) confidences and as many answers, N at least 1: got {self.confidence.shape} "
                f"and {self.correct.shape}"
            )

    def __len__(self) -> int:
        return len(self.confidence)


def save_recording(recording: Recording, path: Path) -> None:
    """Writes a recording, some 14 bytes per image and five exits."""
    facts = {"model_id": recording.model_id, "images": recording.images, "data_hash": recording.data_hash}
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            confidence=np.round(recording.confidence * _STEPS).astype(np.uint16),
            correct=np.packbits(recording.correct, axis=1),
            facts=np.array(json.dumps(facts)),
        )


def load_recording(path: Path) -> Recording:
    """Reads what `save_recording` wrote.

    Raises:
        DataError: no such file, or not a recording.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            confidence, correct = found["confidence"], found["correct"]
            facts: dict[str, Any] = json.loads(str(found["facts"]))
        if (confidence.dtype, correct.dtype) != (np.uint16, np.uint8):
            raise TypeError(f"expected 16-bit confidences and packed bits, got {confidence.dtype} and {correct.dtype}")
        return Recording(
            confidence / _STEPS,
            np.unpackbits(correct, axis=1, count=confidence.shape[1]).astype(bool),
            facts["model_id"],
            facts["images"],
            facts["data_hash"],
        )
    except OSError as error:
        raise DataError(
            f"cannot read the recording {path}: {error.strerror or error}; make one with mdi-exit evaluate --record"
        ) from error
    except _FOREIGN as error:
        raise DataError(f"{path} is not a recording of mdi-exit evaluate --record: {error}") from error
