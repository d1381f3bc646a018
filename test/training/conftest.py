# SPDX-License-Identifier: Apache-2.0
"""Small data sets made of real images."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mdi_exit_ros.resources import share_directory

IMAGES_PER_CLASS = {"train": 12, "test": 2}


@pytest.fixture(scope="session")
def pictures() -> dict[str, bytes]:
    """Real JPEG files by `<split>/<class>/<name>`, a few of each class."""
    with zipfile.ZipFile(share_directory() / "data/cifar10_sample.zip") as sample:
        by_class: dict[str, list[str]] = {}
        for name in sorted(sample.namelist()):
            by_class.setdefault(name.split("/")[1], []).append(name)
        chosen = {}
        for label, names in by_class.items():
            remaining = iter(names)
            for split, count in IMAGES_PER_CLASS.items():
                for index in range(count):
                    chosen[f"{split}/{label}/{index}.jpg"] = sample.read(next(remaining))
    return chosen


ArchiveWriter = Callable[[Path, dict[str, bytes]], Path]


@pytest.fixture(scope="session")
def write_archive() -> ArchiveWriter:
    def write(path: Path, pictures: dict[str, bytes]) -> Path:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in pictures.items():
                archive.writestr(name, content)
        return path

    return write


@pytest.fixture(scope="session")
def tiny_archive(
    tmp_path_factory: pytest.TempPathFactory, pictures: dict[str, bytes], write_archive: ArchiveWriter
) -> Path:
    return write_archive(tmp_path_factory.mktemp("data") / "tiny.zip", pictures)
