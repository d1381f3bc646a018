# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import threading
import zipfile

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from mdi_exit_ros.errors import DataError
from mdi_exit_ros.images import decode, resize
from mdi_exit_ros.nodes.images import inputs
from mdi_exit_ros.nodes.images.decoding import from_message
from mdi_exit_ros.nodes.images.inputs import SAMPLE, CameraFrame, is_live, open_input
from mdi_exit_ros.nodes.images.reader import Arrivals, Reader

CLASSES = ("cat", "dog")
RED = np.zeros((6, 4, 3), np.uint8)
RED[..., 2] = 255  # OpenCV's order
GRAY16 = np.full((6, 4), 0x8000, np.uint16)


def encoded(image, suffix=".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def frames(name, classes=CLASSES):
    return list(open_input(str(name), classes).frames(threading.Event()))


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (RED, (255, 0, 0)),
        (np.dstack([RED, np.full((6, 4), 9, np.uint8)]), (255, 0, 0)),
        (np.full((6, 4), 7, np.uint8), (7, 7, 7)),
        (GRAY16, (128, 128, 128)),
        (RED.astype(np.uint16) << 8, (255, 0, 0)),
    ],
    ids=["bgr", "bgra", "gray", "gray 16", "bgr 16"],
)
def test_files_of_any_depth_become_rgb(image, colour):
    found = decode(encoded(image), "x")
    assert found.shape == (6, 4, 3)
    assert found.dtype == np.uint8
    assert tuple(found[0, 0]) == colour


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("cut", [1, 20, 0.5, 1.0])
def test_truncated_file_is_refused_by_name(suffix, cut):
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    data = encoded(noise, suffix)
    kept = data[: len(data) - (int(cut * len(data)) if isinstance(cut, float) else cut)]
    with pytest.raises(DataError, match="front.png"):
        decode(kept, "front.png")


def message_of(image, encoding, *, padding=0, bigendian=False) -> Image:
    height, width = image.shape[:2]
    values = image.astype(image.dtype.newbyteorder(">")) if bigendian else image
    rows = np.frombuffer(values.tobytes(), np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    step = rows.shape[1]
    return Image(height=height, width=width, step=step, encoding=encoding, is_bigendian=bigendian, data=rows.tobytes())


RGB = RED[..., ::-1].copy()
OPAQUE = np.full((6, 4), 255, np.uint8)
ENCODINGS = {
    "bgr8": RED,
    "8UC3": RED,
    "rgb8": RGB,
    "bgra8": np.dstack([RED, OPAQUE]),
    "rgba8": np.dstack([RGB, OPAQUE]),
    "bgr16": RED.astype(np.uint16) * 257,
    "rgba16": np.dstack([RGB, OPAQUE]).astype(np.uint16) * 257,
}


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_colour_messages_become_rgb(encoding, bigendian, padding):
    found = from_message(message_of(ENCODINGS[encoding], encoding, padding=padding, bigendian=bigendian), "front")
    assert found.shape == (6, 4, 3)
    assert (found == (255, 0, 0)).all()


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize(
    ("encoding", "image", "expected"),
    [
        ("mono8", np.full((6, 4), 7, np.uint8), 7),
        ("8UC1", np.full((6, 4), 7, np.uint8), 7),
        ("mono16", GRAY16, 128),
        ("16UC1", GRAY16, 128),
        ("yuv422", np.full((6, 4, 2), 128, np.uint8), 130),
        ("yuv422_yuy2", np.full((6, 4, 2), 128, np.uint8), 130),
    ],
)
def test_gray_messages_become_rgb(encoding, image, expected, bigendian):
    found = from_message(message_of(image, encoding, bigendian=bigendian), "front")
    assert found.shape == (6, 4, 3)
    assert (found == expected).all()


@pytest.mark.parametrize(
    ("pattern", "red_at"), [("rggb", (0, 0)), ("bggr", (1, 1)), ("gbrg", (1, 0)), ("grbg", (0, 1))]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_bayer_messages_become_rgb(pattern, red_at, dtype):
    mosaic = np.zeros((8, 8), dtype)
    mosaic[red_at[0] :: 2, red_at[1] :: 2] = np.iinfo(dtype).max
    found = from_message(message_of(mosaic, f"bayer_{pattern}{8 * mosaic.itemsize}"), "front")
    assert tuple(found[4, 4]) == (255, 0, 0)


def test_compressed_message_becomes_rgb():
    found = from_message(CompressedImage(format="png", data=encoded(RED)), "front")
    assert (found == (255, 0, 0)).all()


@pytest.mark.parametrize(("packed", "colour"), [("", (255, 0, 0)), ("bayer_rggb8", (255, 0, 0)), ("mono8", (255,) * 3)])
def test_compressed_mosaic_gets_its_colours_and_a_picture_of_one_stays(packed, colour):
    mosaic = np.zeros((8, 8), np.uint8)
    mosaic[::2, ::2] = 255
    message = CompressedImage(format=f"bayer_rggb8; png compressed {packed}", data=encoded(mosaic))
    assert tuple(from_message(message, "front")[4, 4]) == colour


@pytest.mark.parametrize(
    "message",
    [
        Image(height=6, width=4, step=12, encoding="bgr8", data=bytes(71)),
        Image(height=0, width=0, step=0, encoding="bgr8"),
        Image(height=6, width=4, step=12, encoding="purple", data=bytes(72)),
        Image(height=6, width=4, step=4, encoding="bgr8", data=bytes(24)),
        Image(height=2**31, width=2**31, step=1, encoding="mono8", data=b"a"),
        CompressedImage(format="jpeg", data=b"no image"),
        CompressedImage(format="jpeg"),
    ],
)
def test_message_that_is_no_image_is_refused(message):
    with pytest.raises(DataError, match="front"):
        from_message(message, "front")


def test_image_without_pixels_says_so():
    with pytest.raises(DataError, match="front: 0x0 bgr8: expected 1 to [0-9]+ pixels"):
        from_message(Image(height=0, width=0, step=0, encoding="bgr8"), "front")


def test_images_are_stretched_to_the_network():
    assert resize(RED, 6, 4) is RED
    assert resize(RED, 3, 8).shape == (3, 8, 3)


def test_folder_labels_by_class_folder_and_lets_classes_take_turns(tmp_path):
    for name in ("cat/2.png", "cat/10.png", "dog/2.png", "other/3.PNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(RED))
    (tmp_path / "notes.txt").write_text("not an image", encoding="utf-8")
    assert [frame.label for frame in frames(tmp_path)] == [0, 1, None, 0]


def test_pictures_in_a_row_keep_their_numbers_order(tmp_path):
    for number in (10, 9, 1):
        (tmp_path / f"frame_{number}.png").write_bytes(encoded(np.full((2, 2), number, np.uint8)))
    (tmp_path / "frame_1²3.png").write_bytes(encoded(np.full((2, 2), 77, np.uint8)))  # no decimal digit
    assert [int(frame.image[0, 0, 0]) for frame in frames(tmp_path)] == [1, 77, 9, 10]


def test_unreadable_file_is_a_frame_with_a_problem(tmp_path):
    (tmp_path / "1.png").write_bytes(encoded(RED)[:-9])
    (tmp_path / "2.png").write_bytes(b"")
    (tmp_path / "3.png").write_bytes(encoded(RED))
    found = frames(tmp_path)
    assert [frame.image is None for frame in found] == [True, True, False]
    assert str(tmp_path / "1.png") in found[0].problem


def test_damaged_entry_of_an_archive_is_a_frame_with_a_problem(tmp_path):
    archive = tmp_path / "a.zip"
    noise = np.random.default_rng(0).integers(0, 4, (64, 64, 3), np.uint8)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        for name in ("1.bmp", "2.bmp", "3.bmp"):
            writer.writestr(name, encoded(noise, ".bmp"))
        second = writer.getinfo("2.bmp").header_offset + 30 + len("2.bmp")
    data = bytearray(archive.read_bytes())
    data[second : second + 8] = bytes([0xFF] * 8)  # no block that deflate knows
    archive.write_bytes(data)
    found = frames(archive)
    assert [frame.image is None for frame in found] == [False, True, False]
    assert f"{archive}:2.bmp" in found[1].problem


def test_archive_that_was_taken_away_is_one_clear_message(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("1.png", encoded(RED))
    opened = open_input(str(archive), CLASSES)
    archive.unlink()
    with pytest.raises(DataError, match="is not a whole zip archive"):
        list(opened.frames(threading.Event()))


class Captures:
    """Stands in for OpenCV's capture of a device, which no test machine has: gives one image each time it is opened."""

    def __init__(self, number):
        self.images = [RED]

    def isOpened(self):  # noqa: N802 - as OpenCV has it
        return True

    def read(self):
        return (True, self.images.pop()) if self.images else (False, None)

    def release(self):
        pass


def test_camera_device_that_gives_no_image_is_opened_again(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Captures)
    monkeypatch.setattr(inputs, "REOPEN_S", 0.01)
    stop = threading.Event()
    camera = open_input("device:3", CLASSES).frames(stop)
    found = [next(camera) for _ in range(4)]
    assert [frame.image is None for frame in found] == [False, True, False, True]
    assert found[1].problem == "camera device 3 gives no image: is it plugged in?"
    stop.set()
    assert list(camera) == []


def test_file_names_that_are_no_text_are_played(tmp_path):
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(encoded(RED))
    assert len(frames(tmp_path)) == 1


def test_archive_is_played_in_its_order_and_named_by_its_contents(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        for name in ("dog/b.png", "cat/a.png", "readme.txt"):
            writer.writestr(name, encoded(RED))
    assert [frame.label for frame in frames(archive)] == [1, 0]
    assert open_input(str(archive), CLASSES).content_hash == open_input(str(archive), ()).content_hash


def test_archive_that_is_played_in_a_circle_gives_the_same_frames_in_every_pass(tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as writer:
        for name, colour in (("dog/b.png", RED), ("cat/a.png", RED // 2), ("cat/c.png", None)):
            writer.writestr(name, encoded(colour) if colour is not None else b"broken")
    source = open_input(str(archive), CLASSES)
    passes = [list(source.frames(threading.Event())) for _ in range(4)]
    for found in passes:
        assert [frame.label for frame in found] == [1, 0, 0]
        assert found[2].image is None
        for frame, first in zip(found[:2], passes[0][:2], strict=True):
            np.testing.assert_array_equal(frame.image, first.image)


def test_reader_hands_over_in_chunks_and_loses_none(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(encoded(RED))
    reader = Reader(open_input(str(tmp_path), CLASSES), (3, 2), limit=0, loop=False, ready=lambda: None)
    reader.loop()
    count = 0
    while reader.peek() is not None:
        reader.take()
        count += 1
    assert (count, reader.ended) == (40, True)


def test_video_file_is_played(tmp_path):
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (16, 16))
    for _ in range(3):
        writer.write(np.full((16, 16, 3), 200, np.uint8))
    writer.release()
    assert [frame.image.shape for frame in frames(path)] == [(16, 16, 3)] * 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "missing", "expected topic, sample, device:N"),
        (lambda path: path, "no images in"),
        (lambda path: (path / "a.zip", (path / "a.zip").write_bytes(b"PK"))[0], "neither a zip archive nor a video"),
        (lambda path: (path / "a.mp4", (path / "a.mp4").write_bytes(b"no video"))[0], "cannot be played"),
    ],
)
def test_input_that_cannot_be_played_is_one_clear_message(tmp_path, make, message):
    with pytest.raises(DataError, match=message):
        open_input(str(make(tmp_path)), CLASSES)


def test_only_topics_and_devices_are_live():
    assert is_live("topic")
    assert is_live("device:0")
    assert not is_live("device.zip")
    assert not open_input(SAMPLE, CLASSES).live


def test_reader_loops_up_to_its_limit_and_resizes(tmp_path):
    (tmp_path / "1.png").write_bytes(encoded(RED))
    (tmp_path / "2.png").write_bytes(b"broken")
    ready = threading.Semaphore(0)
    source = open_input(str(tmp_path), CLASSES)
    reader = Reader(source, (3, 2), limit=5, loop=True, ready=ready.release)
    assert reader.total == 5
    assert Reader(source, (3, 2), limit=5, loop=False, ready=ready.release).total == 2
    reader.loop()
    assert ready.acquire(timeout=1.0)
    found = []
    while reader.peek() is not None:
        found.append(reader.take())
    assert reader.ended
    assert [frame.image is not None for frame in found] == [True, False, True, False, True]
    assert found[0].image.shape == (3, 2, 3)


def test_reader_stops_although_nobody_takes_its_frames(tmp_path):
    (tmp_path / "1.png").write_bytes(encoded(RED))
    reader = Reader(open_input(str(tmp_path), CLASSES), (3, 2), limit=0, loop=True, ready=lambda: None)
    thread = threading.Thread(target=reader.loop)
    thread.start()
    reader.stop()
    thread.join(5.0)
    assert not thread.is_alive()


def test_arrivals_that_can_no_longer_wait_are_counted():
    arrivals = Arrivals((6, 4), limit=0, ahead_max=2)
    for _ in range(5):
        arrivals.put(CameraFrame(RGB))
    assert arrivals.excess == 3
    arrivals.take()
    assert arrivals.excess == 2
