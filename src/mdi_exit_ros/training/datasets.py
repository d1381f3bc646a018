# SPDX-License-Identifier: Apache-2.0
"""Labelled images in memory: from an archive or a folder of class folders, or from torchvision's CIFAR-10."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mdi_exit_ros.cache import cache_directory
from mdi_exit_ros.errors import DataError
from mdi_exit_ros.images import resize

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
TORCHVISION_PREFIX = "torchvision:"
HELD_OUT = 10  # one in so many images is held out where nobody says otherwise


class MissingSplitError(DataError):
    """There are images, but none of the split that was asked for."""


@dataclass(frozen=True)
class LabelledImages:
    """Images of one split, decoded.

    Attributes:
        images: (N, H, W, 3) uint8 RGB.
        labels: (N,) int64, index into `class_names`.
        class_names: Sorted names of the classes.
        data_hash: SHA-256 of what was read, so that a model card can name its data.
    """

    images: NDArray[Any]
    labels: NDArray[Any]
    class_names: tuple[str, ...]
    data_hash: str

    def __len__(self) -> int:
        return len(self.labels)

    def has_same_images(self, other: LabelledImages) -> bool:
        """Whether both are the same images, in the same order."""
        return np.array_equal(self.images, other.images)

    def take(self, indices: NDArray[Any]) -> LabelledImages:
        """The images at `indices` (M,), in that order."""
        return LabelledImages(self.images[indices], self.labels[indices], self.class_names, self.data_hash)


def load_split(source: str, split: str, *, image_size: tuple[int, int] = (32, 32)) -> LabelledImages:
    """Reads the images of one split.

    Args:
        source: `torchvision:DIR`, a zip archive, or a folder. The latter two hold `<split>/<class>/<image>`, or
            `<class>/<image>` directly, which then is the only split.
        split: `train` or `test`.
        image_size: Height and width that every image is stretched to, as camera frames are.

    Raises:
        DataError: Nothing there, no images, or an image that cannot be read.
        MissingSplitError: No images of that split.
    """
    if source.startswith(TORCHVISION_PREFIX):
        return _load_torchvision(Path(source.removeprefix(TORCHVISION_PREFIX)).expanduser(), split, image_size)
    path = Path(source).expanduser()
    if path.is_dir():
        return _decode(path.name, list(_folder_files(path)), split, image_size)
    if not path.is_file():
        raise DataError(f"no images at {path}: expected a zip archive, a folder or {TORCHVISION_PREFIX}DIR")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not a zip archive: expected one with <split>/<class>/<image> inside")
    return _load_archive(path, split, image_size)


def load_splits(
    source: str, *, image_size: tuple[int, int] = (32, 32), seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """Training and test images of `source`; a tenth of each class is for the test where it has no `test` of its own.

    Raises:
        DataError: See `load_split`; or the two have different classes.
    """
    training = load_split(source, "train", image_size=image_size)
    try:
        test = load_split(source, "test", image_size=image_size)
    except MissingSplitError:
        test = None
    if test is None or test.has_same_images(training):
        return split_validation(training, len(training) // HELD_OUT, seed=seed)
    if training.class_names != test.class_names:
        raise DataError(
            f"training and test images must have the same classes: came {', '.join(training.class_names)} "
            f"and {', '.join(test.class_names)}"
        )
    return training, test


def split_validation(data: LabelledImages, size: int, *, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Training and validation parts of `data`, the latter of `size` images with the shares that the classes have.

    Of each class at least one image is in either part. The same `data`, `seed` and size of the validation part give
    the same parts.

    Raises:
        DataError: `data` has too few images of a class.
    """
    rng = np.random.default_rng(seed)
    counts = np.bincount(data.labels, minlength=len(data.class_names))
    size = max(size, len(counts))
    if counts.min() < 2 or size > len(data) - len(counts):
        scarce = int(counts.argmin())
        raise DataError(
            f"{len(data)} images, of class {data.class_names[scarce]!r} {counts[scarce]}, are too few to hold {size} "
            "of them out and train on the others: expected three or more of each class, or a smaller --validation-size"
        )
    chosen = []
    for label, wanted in enumerate(_shares(counts, size)):
        chosen.append(rng.permutation(np.flatnonzero(data.labels == label))[:wanted])
    held_out = np.sort(np.concatenate(chosen))
    kept = np.setdiff1d(np.arange(len(data)), held_out)
    return data.take(kept), data.take(held_out)


def _shares(counts: NDArray[Any], size: int) -> list[int]:
    """`size` spread over classes of `counts` images each in proportion, from 1 to one less than there are."""
    if len(set(counts.tolist())) == 1:
        return [size // len(counts) + (label < size % len(counts)) for label in range(len(counts))]
    # One is everybody's; the rest goes by largest remainders among what may still be taken.
    exact = (size - len(counts)) * (counts - 2) / max(1, int((counts - 2).sum()))
    shares = np.floor(exact).astype(int)
    for label in np.argsort(shares - exact, kind="stable")[: size - len(counts) - int(shares.sum())]:
        shares[label] += 1
    return [int(share) + 1 for share in shares]


def _load_archive(path: Path, split: str, image_size: tuple[int, int]) -> LabelledImages:
    content_hash = hashlib.sha256(path.read_bytes()).hexdigest()
    directory = cache_directory("datasets")
    cached = directory / f"{content_hash[:16]}-{split}-{image_size[0]}x{image_size[1]}.npz"
    with FileLock(f"{cached}.lock"):
        try:
            with cached.open("rb") as kept, np.load(kept, allow_pickle=False) as arrays:
                return LabelledImages(
                    arrays["images"], arrays["labels"], tuple(arrays["class_names"].tolist()), content_hash
                )
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error):
            pass  # not there yet, or damaged: made anew
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if Path(name).suffix.lower() in IMAGE_SUFFIXES]
                files = [(name, archive.read(name)) for name in names]
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise DataError(
                f"the archive {path} is damaged, encrypted or packed in an unknown way ({error}): copy or pack it again"
            ) from error
        data = _decode(path.name, files, split, image_size)
        data = LabelledImages(data.images, data.labels, data.class_names, content_hash)
        with tempfile.NamedTemporaryFile(dir=directory, suffix=".npz", delete=False) as file:
            try:
                np.savez(file, images=data.images, labels=data.labels, class_names=np.array(data.class_names))
                os.replace(file.name, cached)
            finally:
                Path(file.name).unlink(missing_ok=True)
    return data


def _folder_files(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            yield path.relative_to(root).as_posix(), path.read_bytes()


def _decode(origin: str, files: list[tuple[str, bytes]], split: str, image_size: tuple[int, int]) -> LabelledImages:
    pictures = sorted((name, content) for name, content in files if Path(name).suffix.lower() in IMAGE_SUFFIXES)
    in_splits = [(name, content) for name, content in pictures if len(Path(name).parts) >= 3]
    chosen = [(name, content) for name, content in in_splits if Path(name).parts[-3] == split]
    if not in_splits:
        chosen = [(name, content) for name, content in pictures if len(Path(name).parts) == 2]
    if not chosen:
        raise MissingSplitError(
            f"no images in {origin}: expected {split}/<class>/<image>, or <class>/<image> for one split only"
        )
    class_names = tuple(sorted({Path(name).parts[-2] for name, _ in chosen}))
    images = np.empty((len(chosen), *image_size, 3), dtype=np.uint8)
    labels = np.empty(len(chosen), dtype=np.int64)
    digest = hashlib.sha256()
    for index, (name, content) in enumerate(chosen):
        digest.update(f"{name}\0{len(content)}\0".encode("utf-8", "surrogateescape"))
        digest.update(content)
        images[index] = _decode_image(f"{name} in {origin}", content, image_size)
        labels[index] = class_names.index(Path(name).parts[-2])
    return LabelledImages(images, labels, class_names, digest.hexdigest())


def _decode_image(name: str, content: bytes, image_size: tuple[int, int]) -> NDArray[Any]:
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode in DEEP_MODES:
                raise DataError(
                    f"{name} has more than 8 bits per channel (mode {image.mode}), expected 8: convert it to 8-bit RGB"
                )
            pixels = np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is not a readable image ({error}): replace or remove it") from error
    return resize(pixels, *image_size)


def _load_torchvision(root: Path, split: str, image_size: tuple[int, int]) -> LabelledImages:
    from mdi_exit_ros.model.backbones import torchvision_module

    if split not in ("train", "test"):
        raise MissingSplitError(f"CIFAR-10 of torchvision has no images of {split}: expected train or test")
    try:
        dataset = torchvision_module("datasets").CIFAR10(root, train=split == "train", download=False)
    except RuntimeError as error:
        raise DataError(f"no CIFAR-10 of torchvision at {root} ({error})") from error
    digest = hashlib.sha256(dataset.data.tobytes())
    digest.update(np.asarray(dataset.targets, dtype=np.int64).tobytes())
    return LabelledImages(
        np.stack([resize(image, *image_size) for image in dataset.data]),
        np.asarray(dataset.targets, dtype=np.int64),
        tuple(dataset.classes),
        digest.hexdigest(),
    )
