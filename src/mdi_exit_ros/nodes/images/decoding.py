# SPDX-License-Identifier: Apache-2.0
"""Camera messages to (H, W, 3) uint8 RGB."""

from __future__ import annotations

import numpy as np
from cv_bridge import CvBridge
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image

from mdi_exit_ros.errors import DataError
from mdi_exit_ros.images import decode, to_rgb

PIXELS_MAX = 1 << 28  # of one image; more is taken for a broken header
_DEEP_GRAY = ("mono16", "16UC1")
_BRIDGE = CvBridge()


def from_message(message: Image | CompressedImage, name: str) -> NDArray[np.uint8]:
    """The image of a camera message of any common encoding; 16 bits are scaled to 8.

    Raises:
        DataError: an unknown encoding, or a size that disagrees with the bytes.
    """
    if isinstance(message, CompressedImage):
        return decode(bytes(message.data), name)
    where = f"{name}: {message.width}x{message.height} {message.encoding or 'without encoding'}"
    if not 0 < message.width * message.height <= PIXELS_MAX or message.step * message.height != len(message.data):
        raise DataError(
            f"{where}: expected step * height = {message.step * message.height} bytes, got {len(message.data)}"
        )
    try:
        if message.encoding in _DEEP_GRAY:
            return to_rgb(_BRIDGE.imgmsg_to_cv2(message, "passthrough"), name)
        return np.asarray(_BRIDGE.imgmsg_to_cv2(message, "rgb8"), np.uint8)
    except Exception as error:  # cv_bridge raises whatever its parts raise
        raise DataError(f"{where}: cannot be converted to rgb8: {error}") from error
