# SPDX-License-Identifier: Apache-2.0
"""Camera messages to (H, W, 3) uint8 RGB."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from cv_bridge import CvBridge
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from mdi_exit_ros.errors import DataError
from mdi_exit_ros.images import decode

PIXELS_MAX = 1 << 28  # of one image; more is taken for a broken header


class _Encoding(NamedTuple):
    """How one ROS encoding is laid out, and OpenCV's conversion of it to RGB."""

    channels: int
    nbytes: int
    conversion: int | None


_COLOURS = {
    "mono": (1, cv2.COLOR_GRAY2RGB),
    "rgb": (3, None),
    "bgr": (3, cv2.COLOR_BGR2RGB),
    "rgba": (4, cv2.COLOR_RGBA2RGB),
    "bgra": (4, cv2.COLOR_BGRA2RGB),
    # OpenCV names a Bayer pattern by its second row
    "bayer_rggb": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg": (1, cv2.COLOR_BayerGB2RGB),
}
_ENCODINGS = {
    **{f"{name}{8 * nbytes}": _Encoding(n, nbytes, code) for name, (n, code) in _COLOURS.items() for nbytes in (1, 2)},
    **{f"{8 * nbytes}UC1": _Encoding(1, nbytes, cv2.COLOR_GRAY2RGB) for nbytes in (1, 2)},
    **{f"{8 * nbytes}UC3": _Encoding(3, nbytes, cv2.COLOR_BGR2RGB) for nbytes in (1, 2)},
    **{f"{8 * nbytes}UC4": _Encoding(4, nbytes, cv2.COLOR_BGRA2RGB) for nbytes in (1, 2)},
    **dict.fromkeys(("yuv422", "uyvy"), _Encoding(2, 1, cv2.COLOR_YUV2RGB_UYVY)),
    **dict.fromkeys(("yuv422_yuy2", "yuyv"), _Encoding(2, 1, cv2.COLOR_YUV2RGB_YUY2)),
}


def from_message(message: Image | CompressedImage, name: str) -> NDArray[np.uint8]:
    """The image of a camera message of any common encoding; 16 bits are scaled to 8, padded rows are cut.

    Raises:
        DataError: an unknown encoding, or a size that disagrees with the bytes.
    """
    if isinstance(message, CompressedImage):
        pixels = decode(bytes(message.data), name)
        mosaic = _mosaic_in(message.format)
        return pixels if mosaic is None else np.asarray(cv2.cvtColor(pixels[:, :, 0], mosaic), np.uint8)
    where = f"{name}: {message.width}x{message.height} {message.encoding or 'without encoding'}"
    if not 0 < message.width * message.height <= PIXELS_MAX:
        raise DataError(f"{where}: expected 1 to {PIXELS_MAX} pixels")
    if message.step * message.height != len(message.data):
        raise DataError(
            f"{where}: expected step * height = {message.step * message.height} bytes, got {len(message.data)}"
        )
    encoding = _ENCODINGS.get(message.encoding)
    try:
        if encoding is None:  # cv_bridge of newer distributions may know more
            return np.asarray(CvBridge().imgmsg_to_cv2(message, "rgb8"), np.uint8)
        return _converted(message, encoding)
    except Exception as error:  # OpenCV and cv_bridge raise whatever their parts raise
        raise DataError(f"{where}: cannot be converted to RGB: {error}") from error


def _mosaic_in(compressed_format: str) -> int | None:
    """OpenCV's conversion of the Bayer mosaic that image_transport packed as gray; None where it packed a picture.

    Its format is `<encoding of the raw image>; <codec> compressed <encoding of what was packed>`, the last part empty
    in older versions, which packed mosaics as they were.
    """
    raw, _, how = map(str.strip, compressed_format.partition(";"))
    packed = how.partition("compressed")[2].strip()
    if not raw.startswith("bayer_") or packed not in ("", raw):
        return None
    encoding = _ENCODINGS.get(raw)
    return encoding.conversion if encoding is not None else None


def _converted(message: Image, encoding: _Encoding) -> NDArray[np.uint8]:
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    row_nbytes = message.width * encoding.channels * encoding.nbytes
    if row_nbytes > message.step:
        raise ValueError(f"expected a step of at least {row_nbytes} bytes, got {message.step}")
    pixels = np.ascontiguousarray(rows[:, :row_nbytes])
    if encoding.nbytes == 2:
        high = 0 if message.is_bigendian else 1
        pixels = np.ascontiguousarray(pixels[:, high::2])
    if encoding.channels > 1:
        pixels = pixels.reshape(message.height, message.width, encoding.channels)
    return pixels if encoding.conversion is None else np.asarray(cv2.cvtColor(pixels, encoding.conversion), np.uint8)
