# SPDX-License-Identifier: Apache-2.0
"""Where a source's frames come from: a folder, an archive, a video file, a camera device or an image topic."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mdi_exit_ros.errors import DataError
from mdi_exit_ros.images import decode, to_rgb
from mdi_exit_ros.nodes.images.decoding import from_message
from mdi_exit_ros.resources import SAMPLE, sample_archive

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".mjpeg")
KEPT_NBYTES_MAX = 64 * 2**20  # of an archive that is played in a circle
REOPEN_S = 1.0  # after which a camera device that gives no image is opened again
TOPIC = "topic"
_DEVICE = re.compile(r"device:(\d+)")


class CameraFrame(NamedTuple):
    """One frame of a camera.

    Attributes:
        image: (H, W, 3) uint8 RGB of any size; None when it could not be read.
        problem: why not.
        label: true class, where known.
        header: of the camera message, where there was one.
    """

    image: NDArray[np.uint8] | None
    problem: str = ""
    label: int | None = None
    header: Any = None


class ImageInput(Protocol):
    """A camera that is read.

    Attributes:
        live: frames come when they come; a finite input waits until it is asked.
        total: frames of one pass; 0 when unknown.
        content_hash: names the frames of a finite input.
    """

    live: bool
    total: int
    content_hash: str

    def frames(self, stop: threading.Event) -> Iterator[CameraFrame]:
        """One pass over the frames; ends early when `stop` is set."""
        ...


def is_live(name: str) -> bool:
    """Whether the input of that name cannot wait."""
    return name == TOPIC or _DEVICE.fullmatch(name) is not None


def open_input(name: str, class_names: Sequence[str]) -> ImageInput | TopicInput:
    """The input that `name` stands for.

    Raises:
        DataError: nothing there, or nothing that can be played.
    """
    if name == TOPIC:
        return TopicInput()
    if device := _DEVICE.fullmatch(name):
        return DeviceInput(int(device[1]))
    path = sample_archive() if name == SAMPLE else Path(name).expanduser()
    if path.is_dir():
        return FolderInput(path, class_names)
    if not path.is_file():
        raise DataError(
            f"input: no {path}: expected topic, sample, device:N, or the path of a folder, .zip archive or video file"
        )
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return VideoInput(path)
    if not os.access(path, os.R_OK):
        raise DataError(f"input: {path} cannot be read: you lack the permission")
    if zipfile.is_zipfile(path):
        return ArchiveInput(path, class_names)
    raise DataError(f"input: {path} is neither a zip archive nor a video file ({', '.join(VIDEO_SUFFIXES)})")


def _label(path: PurePosixPath, class_names: Sequence[str]) -> int | None:
    """The class that the image's folder is named after."""
    return class_names.index(path.parent.name) if path.parent.name in class_names else None


def _hash(entries: Iterator[str]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(entry.encode("utf-8", "surrogateescape"))
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def _readable(data: bytes, name: str, label: int | None) -> CameraFrame:
    try:
        return CameraFrame(decode(data, name), label=label)
    except DataError as error:
        return CameraFrame(None, str(error), label)


class FolderInput:
    """Image files below a folder; with class folders, the classes take turns."""

    live = False

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        found = [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
        if not found:
            raise DataError(f"input: no images in {folder}: expected files such as {', '.join(IMAGE_SUFFIXES[:3])}")
        relative = [PurePosixPath(path.relative_to(folder)) for path in found]
        labelled = any(_label(path, class_names) is not None for path in relative)
        self._folder = folder
        self._paths = sorted(relative, key=_turn_key if labelled else _natural_key)
        self._labels = [_label(path, class_names) for path in self._paths]
        self.total = len(found)
        self.content_hash = _hash(f"{path} {(folder / path).stat().st_size}" for path in self._paths)

    def frames(self, stop: threading.Event) -> Iterator[CameraFrame]:
        """One pass over the files."""
        for path, label in zip(self._paths, self._labels, strict=True):
            if stop.is_set():
                return
            full = self._folder / path
            try:
                data = full.read_bytes()
            except OSError as error:
                yield CameraFrame(None, f"{full}: {error.strerror}", label)
                continue
            yield _readable(data, str(full), label)


def _natural_key(path: PurePosixPath) -> tuple[Any, ...]:
    """Sorts 2.jpg before 10.jpg."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", str(path)))


def _turn_key(path: PurePosixPath) -> tuple[Any, ...]:
    return (_natural_key(PurePosixPath(path.name)), str(path.parent))


class ArchiveInput:
    """Image files of a zip archive, in its order."""

    live = False

    def __init__(self, path: Path, class_names: Sequence[str]) -> None:
        self._path = path
        with self._open() as archive:
            entries = [
                entry
                for entry in archive.infolist()
                if not entry.is_dir() and PurePosixPath(entry.filename).suffix.lower() in IMAGE_SUFFIXES
            ]
        if not entries:
            raise DataError(f"input: no images in {path}: expected files such as {', '.join(IMAGE_SUFFIXES[:3])}")
        self._entries = entries
        self._labels = [_label(PurePosixPath(entry.filename), class_names) for entry in entries]
        self._passes = 0
        self._kept: list[bytes] = []
        self.total = len(entries)
        self.content_hash = _hash(f"{entry.filename} {entry.CRC:08x}" for entry in entries)

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._path)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"input: {self._path} is not a whole zip archive: {error}") from error

    def frames(self, stop: threading.Event) -> Iterator[CameraFrame]:
        """One pass over the archive. What was read twice is kept, so that playing it in a circle costs no more."""
        self._passes += 1
        keeps = self._passes == 2 and sum(entry.file_size for entry in self._entries) <= KEPT_NBYTES_MAX
        kept: list[bytes] = []
        archive = None if self._kept else self._open()
        with archive or contextlib.nullcontext():
            for index, (entry, label) in enumerate(zip(self._entries, self._labels, strict=True)):
                if stop.is_set():
                    return
                name = f"{self._path}:{entry.filename}"
                try:
                    data = archive.read(entry) if archive else self._kept[index]
                except Exception as error:  # whatever a decompressor raises
                    keeps = False
                    yield CameraFrame(None, f"{name}: {error}", label)
                    continue
                if keeps:
                    kept.append(data)
                yield _readable(data, name, label)
        if keeps:
            self._kept = kept


class VideoInput:
    """A video file, played frame by frame."""

    live = False
    total = 0

    def __init__(self, path: Path) -> None:
        self._path = path
        capture = cv2.VideoCapture(str(path))
        playable = capture.isOpened() and capture.grab()
        capture.release()
        if not playable:
            raise DataError(f"input: {path} cannot be played: expected a video that OpenCV's FFmpeg can decode")
        self.content_hash = _hash(iter([f"{path.name} {path.stat().st_size}"]))

    def frames(self, stop: threading.Event) -> Iterator[CameraFrame]:
        """One pass over the video."""
        capture = cv2.VideoCapture(str(self._path))
        yield from _captured(capture, stop, str(self._path))


class DeviceInput:
    """A camera of this computer, by OpenCV."""

    live = True
    total = 0
    content_hash = ""

    def __init__(self, number: int) -> None:
        self._number = number
        capture = cv2.VideoCapture(number)
        is_there = capture.isOpened()
        capture.release()
        if not is_there:
            raise DataError(f"input: camera device {number} cannot be opened: is it plugged in and permitted?")

    def frames(self, stop: threading.Event) -> Iterator[CameraFrame]:
        """Frames until `stop` is set; a device that gives none is opened again every second."""
        while not stop.is_set():
            yield from _captured(cv2.VideoCapture(self._number), stop, f"device:{self._number}")
            if not stop.wait(REOPEN_S):
                yield CameraFrame(None, f"camera device {self._number} gives no image: is it plugged in?")


def _captured(capture: cv2.VideoCapture, stop: threading.Event, name: str) -> Iterator[CameraFrame]:
    try:
        while not stop.is_set():
            there, image = capture.read()
            if not there:
                return
            try:
                yield CameraFrame(to_rgb(image, name))
            except DataError as error:
                yield CameraFrame(None, str(error))
    finally:
        capture.release()


class TopicInput:
    """Camera messages, turned into frames as they come."""

    live = True
    total = 0
    content_hash = ""

    def frame(self, message: Any) -> CameraFrame:
        """The frame of an Image or CompressedImage."""
        name = f"image of {message.header.frame_id or 'an unnamed camera'}"
        try:
            return CameraFrame(from_message(message, name), header=message.header)
        except DataError as error:
            return CameraFrame(None, str(error), header=message.header)
