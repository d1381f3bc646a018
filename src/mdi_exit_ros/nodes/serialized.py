# SPDX-License-Identifier: Apache-2.0
"""Statuses kept as they came, for nodes that look at them less often than they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from rclpy.serialization import deserialize_message

from mdi_exit_ros.errors import MessageError

SENDERS_MAX = 1024


def leading_string(data: bytes) -> str:
    """The first field of a serialized message that begins with a string.

    The layout is that of plain CDR (OMG DDS-RTPS 10): two bytes of which the second is 1 for little endian, two of
    options, then the string's length with its closing zero, and its bytes.

    Raises:
        MessageError: shorter than it says, or not UTF-8.
    """
    length = int.from_bytes(data[4:8], "little" if data[1:2] == b"\x01" else "big")
    if len(data) < 8 + length or length < 1:
        raise MessageError(f"expected a name of {length} bytes in a message of {len(data)}")
    try:
        return data[8 : 7 + length].decode()
    except UnicodeDecodeError as error:
        raise MessageError(f"expected a name in UTF-8: {error}") from error


def deserialized(data: bytes, kind: Any) -> Any:
    """The message of that type.

    Raises:
        MessageError: the bytes are none.
    """
    try:
        return deserialize_message(data, kind)
    except RuntimeError as error:  # what rclpy's RMWError is
        raise MessageError(f"{len(data)} bytes are no {kind.__name__}: {error}") from error


class NewestOfEach:
    """The newest message of each sender, deserialized only when it is taken. Any thread may put, one takes.

    Args:
        kind: message type whose first field is its sender's name.
        senders_max: senders remembered between two takes; more are dropped.
    """

    def __init__(self, kind: Any, senders_max: int = SENDERS_MAX) -> None:
        self._kind = kind
        self._senders_max = senders_max
        self._lock = threading.Lock()
        self._newest: dict[str, tuple[bytes, float]] = {}
        self.unusable = 0  # messages that were none

    def put(self, data: bytes) -> None:
        """Takes in a serialized message."""
        try:
            name = leading_string(data)
        except MessageError:
            self.unusable += 1
            return
        with self._lock:
            if name in self._newest or len(self._newest) < self._senders_max:
                self._newest[name] = (data, time.monotonic())

    def take(self) -> Iterator[tuple[Any, float]]:
        """What has come since the last call: the newest message of each sender, and when it came (monotonic, s)."""
        with self._lock:
            newest, self._newest = self._newest, {}
        for data, at in newest.values():
            try:
                message = deserialized(data, self._kind)
            except MessageError:
                self.unusable += 1
                continue
            yield message, at
