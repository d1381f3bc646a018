# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdi_exit_ros.errors import DataError
from mdi_exit_ros.model.backbones import torchvision_module
from mdi_exit_ros.training.datasets import LabelledImages, load_split, load_splits, split_validation


def archive_of(path: Path, files: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return str(path)


def png(mode: str, size: tuple[int, int] = (32, 32)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format="PNG")
    return buffer.getvalue()


def test_archive_and_folder_give_the_same_images(
    tiny_archive: Path, pictures: dict[str, bytes], tmp_path: Path
) -> None:
    for name, content in pictures.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    archive, folder = load_split(str(tiny_archive), "train"), load_split(str(tmp_path), "train")
    assert archive.images.shape == (120, 32, 32, 3)
    assert len(archive.class_names) == 10
    np.testing.assert_array_equal(archive.images, folder.images)
    np.testing.assert_array_equal(archive.labels, folder.labels)


def test_archive_is_decoded_once(pictures: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = archive_of(tmp_path / "once.zip", pictures)
    first = load_split(source, "test")
    monkeypatch.setattr("mdi_exit_ros.training.datasets._decode_image", None)
    second = load_split(source, "test")
    np.testing.assert_array_equal(first.images, second.images)
    assert (first.class_names, first.data_hash) == (second.class_names, second.data_hash)


def test_folder_of_classes_without_splits_is_one_split(pictures: dict[str, bytes], tmp_path: Path) -> None:
    source = archive_of(tmp_path / "flat.zip", {"cat/1.jpg": pictures["test/cat/0.jpg"]})
    assert load_split(source, "test").class_names == ("cat",)


def test_images_of_any_size_are_stretched_as_camera_frames_are(tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 48), (10, 200, 30))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    data = load_split(archive_of(tmp_path / "large.zip", {"cat/1.png": buffer.getvalue()}), "test", image_size=(24, 40))
    assert data.images.shape == (1, 24, 40, 3)
    assert (data.images == (10, 200, 30)).all()


def test_a_source_without_test_images_gives_some_of_each_class_to_the_test(
    pictures: dict[str, bytes], tmp_path: Path
) -> None:
    flat = {name.removeprefix("train/"): content for name, content in pictures.items() if name.startswith("train/")}
    named = {name: content for name, content in pictures.items() if name.startswith("train/")}
    for number, files in enumerate((flat, named)):
        training, test = load_splits(archive_of(tmp_path / f"{number}.zip", files), seed=3)
        assert (len(training), len(test)) == (108, 12)
        together = {image.tobytes() for image in training.images} & {image.tobytes() for image in test.images}
        assert not together
        assert set(test.labels) == set(range(10))
    whole = load_splits(archive_of(tmp_path / "whole.zip", pictures), seed=3)
    assert [len(part) for part in whole] == [120, 20]
    halves = {name.replace("test/", "train/"): content for name, content in pictures.items() if "test/" in name}
    halves |= {name: content for name, content in pictures.items() if name.startswith("test/")}
    halves["train/cat/0.jpg"] = pictures["train/cat/0.jpg"]
    as_many = load_splits(archive_of(tmp_path / "halves.zip", halves), seed=3)
    assert [len(part) for part in as_many] == [20, 20]
    pictures = {**pictures, "test/zebra/1.jpg": pictures["test/cat/0.jpg"]}
    with pytest.raises(DataError, match="must have the same classes"):
        load_splits(archive_of(tmp_path / "zebra.zip", pictures), seed=3)


def test_grayscale_image_becomes_rgb(tmp_path: Path) -> None:
    assert load_split(archive_of(tmp_path / "gray.zip", {"cat/1.png": png("L")}), "test").images.shape == (1, 32, 32, 3)


def test_broken_images_are_named(pictures: dict[str, bytes], tmp_path: Path) -> None:
    good = pictures["test/cat/0.jpg"]
    cases = {
        "cut.zip": ({"test/cat/7.jpg": good[: len(good) // 2]}, r"test/cat/7.jpg in cut.zip is not a readable image"),
        "text.zip": ({"test/cat/7.jpg": b"no image"}, r"test/cat/7.jpg in text.zip is not a readable image"),
        "deep.zip": ({"test/cat/7.png": png("I;16")}, r"more than 8 bits per channel"),
        "none.zip": ({"readme.txt": b""}, r"no images in none.zip: expected test/<class>/<image>"),
        "other.zip": ({"train/cat/7.jpg": good}, r"no images in other.zip: expected test/<class>/<image>"),
    }
    for name, (files, message) in cases.items():
        with pytest.raises(DataError, match=message):
            load_split(archive_of(tmp_path / name, files), "test")


def test_damaged_and_missing_sources_are_named(tiny_archive: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="no images at .*nowhere.*: expected a zip archive, a folder or torchvision:DIR"
    ):
        load_split(str(tmp_path / "nowhere"), "test")
    content = bytearray(tiny_archive.read_bytes())
    cut = tmp_path / "cut.zip"
    cut.write_bytes(content[:1000])
    with pytest.raises(DataError, match="is not a zip archive"):
        load_split(str(cut), "test")
    content[200] ^= 0xFF
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        load_split(str(damaged), "test")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no images in empty"):
        load_split(str(empty), "test")


def test_torchvisions_cifar10_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = torchvision_module("datasets")
    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *_: True)
    folder = tmp_path / datasets.CIFAR10.base_folder
    folder.mkdir()
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    pixels = np.arange(2 * 3072, dtype=np.uint64).astype(np.uint8).reshape(2, 3072)
    for batch in ["test_batch", *(f"data_batch_{number}" for number in range(1, 6))]:
        (folder / batch).write_bytes(pickle.dumps({"data": pixels, "labels": [3, 9]}))
    assert load_split(f"torchvision:{tmp_path}", "train", image_size=(64, 48)).images.shape == (10, 64, 48, 3)
    with pytest.raises(DataError, match="no images of validation: expected train or test"):
        load_split(f"torchvision:{tmp_path}", "validation")
    data = load_split(f"torchvision:{tmp_path}", "train")
    assert data.images.shape == (10, 32, 32, 3)
    assert data.images[0, 0, 1].tolist() == pixels[0].reshape(3, 32, 32)[:, 0, 1].tolist()
    assert data.labels.tolist() == [3, 9] * 5
    assert data.class_names == tuple(names)


def test_missing_torchvision_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no CIFAR-10 of torchvision at"):
        load_split(f"torchvision:{tmp_path}", "train")


def test_validation_images_are_balanced_disjoint_and_decided_by_the_seed(tiny_archive: Path) -> None:
    data = load_split(str(tiny_archive), "train")
    kept, held_out = split_validation(data, 20, seed=3)
    assert len(kept) == 100
    assert np.bincount(held_out.labels).tolist() == [2] * 10
    np.testing.assert_array_equal(split_validation(data, 20, seed=3)[1].images, held_out.images)
    assert not np.array_equal(split_validation(data, 20, seed=4)[1].images, held_out.images)
    with pytest.raises(DataError, match="too few to hold"):
        split_validation(data, 120, seed=3)


def labelled(*counts: int) -> LabelledImages:
    labels = np.repeat(np.arange(len(counts)), counts)
    names = tuple(f"class{label}" for label in range(len(counts)))
    return LabelledImages(np.arange(len(labels))[:, None, None, None], labels, names, "")


@pytest.mark.parametrize(
    ("counts", "size", "held_out"),
    [
        ((1000,) * 9 + (200,), 920, [100] * 9 + [20]),
        ((1000, 1000, 1000, 120), 312, [100, 100, 100, 12]),
        ((900, 40), 94, [90, 4]),
        ((5, 3), 0, [1, 1]),
        ((2, 2000), 1000, [1, 999]),
        ((7, 2, 2), 8, [6, 1, 1]),
    ],
)
def test_validation_images_have_the_shares_of_the_classes(
    counts: tuple[int, ...], size: int, held_out: list[int]
) -> None:
    data = labelled(*counts)
    kept, chosen = split_validation(data, size, seed=3)
    assert np.bincount(chosen.labels) == pytest.approx(np.array(held_out), abs=2)
    assert len(chosen) == max(size, len(counts))
    assert np.bincount(kept.labels, minlength=len(counts)).min() >= 1
    assert len(kept) + len(chosen) == len(data)
    np.testing.assert_array_equal(split_validation(data, len(chosen), seed=3)[1].images, chosen.images)


def test_a_class_of_one_image_is_named() -> None:
    with pytest.raises(DataError, match="of class 'class1' 1, are too few to hold 2 of them out"):
        split_validation(labelled(50, 1), 2, seed=3)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no archive"])
def test_a_damaged_cache_is_made_anew(
    content: bytes, pictures: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = archive_of(tmp_path / "once.zip", pictures)
    first = load_split(source, "test")
    (cached,) = (tmp_path / "cache").rglob("*.npz")
    cached.write_bytes(content)
    np.testing.assert_array_equal(load_split(source, "test").images, first.images)
    assert cached.stat().st_size > 1000
