# SPDX-License-Identifier: Apache-2.0
"""Image files and OpenCV arrays to (H, W, 3) uint8 RGB."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mdi_exit_ros.errors import DataError


def decode(data: bytes, name: str) -> NDArray[np.uint8]:
    """The image in the bytes of a JPEG, PNG or other file.

    Raises:
        DataError: not an image, truncated, or of a kind that has no colours.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    except cv2.error as error:
        raise DataError(f"{name}: cannot be decoded: {error}") from error
    if image is None:
        raise DataError(f"{name}: expected a whole image file, its {len(data)} bytes are unreadable or truncated")
    return to_rgb(image, name)


def to_rgb(image: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """OpenCV's gray, BGR or BGRA array of 8 or 16 bits as RGB of 8 bits.

    Raises:
        DataError: another number of channels or element type.
    """
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    conversion = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}.get(channels)
    if image.dtype != np.uint8 or conversion is None or not image.size:
        raise DataError(
            f"{name}: expected 1, 3 or 4 channels of 8 or 16 bits, got {image.dtype} of shape {image.shape}"
        )
    return np.asarray(cv2.cvtColor(image, conversion), np.uint8)


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The whole image, stretched to (height, width, 3)."""
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] > height or image.shape[1] > width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)
