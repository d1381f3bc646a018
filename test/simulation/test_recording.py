# SPDX-License-Identifier: Apache-2.0
"""Recordings come back as they were written, and other files are refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdi_exit_ros.errors import DataError
from mdi_exit_ros.simulation.recording import Recording, load_recording, save_recording


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_recording(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("exits", [1, 3, 5, 8, 9])
def test_recording_comes_back_as_it_was(tmp_path: Path, exits: int) -> None:
    rng = np.random.default_rng(exits)
    confidence = rng.random((50, exits))
    confidence[0], confidence[1] = 0.0, 1.0
    recording = Recording(confidence, rng.random((50, exits)) < 0.7, "model-a", "50 images, in order", "data-a")
    save_recording(recording, tmp_path / "r.npz")
    found = load_recording(tmp_path / "r.npz")
    assert len(found) == 50
    assert np.abs(found.confidence - confidence).max() <= 0.5 / 65535 + 1e-12
    assert (found.confidence[0] == 0.0).all() and (found.confidence[1] == 1.0).all()
    assert (found.correct == recording.correct).all()
    assert (found.model_id, found.images, found.data_hash) == ("model-a", "50 images, in order", "data-a")
    save_recording(found, tmp_path / "again.npz")
    assert (load_recording(tmp_path / "again.npz").confidence == found.confidence).all()


def test_missing_file_and_folder_are_told(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "r.npz")
    assert "mdi-exit evaluate --record" in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a recording\n", b"PK\x03\x04 and then nothing", bytes(200)])
def test_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.npz"
    path.write_bytes(content)
    assert "is not a recording of mdi-exit evaluate --record" in refused(path)


def test_lone_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros((3, 3)))
    assert "is not a recording" in refused(path)


def test_truncated_file_is_refused_wherever_it_is_cut(tmp_path: Path, recording: Recording) -> None:
    path = tmp_path / "r.npz"
    save_recording(recording, path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 13):
        path.write_bytes(whole[:size])
        assert "is not a recording" in refused(path)


def test_file_with_a_damaged_byte_is_refused_or_read_in_full(tmp_path: Path, recording: Recording) -> None:
    path = tmp_path / "r.npz"
    save_recording(recording, path)
    whole = path.read_bytes()
    refusals = []
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            found = load_recording(path)
        except DataError as error:
            refusals.append(str(error))
        else:
            assert (found.correct == recording.correct).all()
    assert len(refusals) > 10
    assert all(str(path) in text for text in refusals)


FACTS = '{"model_id": "m", "images": "i", "data_hash": "h"}'


@pytest.mark.parametrize(
    "arrays",
    [
        {"confidence": np.zeros((2, 3), np.uint16)},
        {"confidence": np.zeros((2, 3), np.uint16), "correct": np.zeros((2, 1), np.uint8), "facts": "[]"},
        {"confidence": np.zeros((2, 3), np.uint16), "correct": np.zeros((2, 1), np.uint8), "facts": "no JSON"},
        {"confidence": np.zeros((2, 3)), "correct": np.zeros((2, 1), np.uint8), "facts": FACTS},
        {"confidence": np.zeros((2, 3), np.uint16), "correct": np.zeros((2, 3), bool), "facts": FACTS},
        {"confidence": np.zeros((2, 3), np.uint16), "correct": np.zeros((3, 1), np.uint8), "facts": FACTS},
        {"confidence": np.zeros(3, np.uint16), "correct": np.zeros((3, 1), np.uint8), "facts": FACTS},
        {"confidence": np.zeros((0, 3), np.uint16), "correct": np.zeros((0, 1), np.uint8), "facts": FACTS},
    ],
    ids=["arrays missing", "facts a list", "facts no JSON", "floats", "not packed", "other length", "flat", "empty"],
)
def test_archive_of_something_else_is_refused(tmp_path: Path, arrays: dict[str, Any]) -> None:
    path = tmp_path / "r.npz"
    np.savez(path, **arrays)
    assert "is not a recording" in refused(path)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('unpickled')",)


def test_pickle_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    np.savez(path, confidence=np.array([Trap()], dtype=object), correct=np.zeros((1, 1), np.uint8), facts=FACTS)
    assert "is not a recording" in refused(path)


def test_confidences_without_as_many_answers_are_refused() -> None:
    with pytest.raises(DataError, match=r"got \(2, 3\) and \(2, 2\)"):
        Recording(np.zeros((2, 3)), np.zeros((2, 2), bool), "m", "i", "h")
