# SPDX-License-Identifier: Apache-2.0
"""Reads a camera ahead on a thread of its own, and says when its next frame is due."""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from mdi_exit_ros.images import resize
from mdi_exit_ros.nodes.images.inputs import CameraFrame, ImageInput
from mdi_exit_ros.policy.cadence import INPUT_CATCH_UP_S, READ_CHUNK, READ_PREFETCH


class Reader:
    """Frames of an input, decoded and resized ahead; `loop` is the body of a thread.

    Args:
        size: (H, W) of the network's input.
        limit: frames to read in all; 0 for all there are.
        loop: begin anew after a pass.
        ready: called on the thread when frames or the end can be taken.
    """

    def __init__(
        self, source: ImageInput, size: tuple[int, int], *, limit: int, loop: bool, ready: Callable[[], None]
    ) -> None:
        self._source = source
        self._size = size
        self._limit = limit
        self._passes: Final = itertools.count() if loop and not source.live else range(1)
        self._ready = ready
        self._stop = threading.Event()
        self._chunks: queue.Queue[list[CameraFrame] | None] = queue.Queue(READ_PREFETCH)
        self._chunk: list[CameraFrame] = []
        self._ahead: deque[CameraFrame] = deque()
        self._read = 0
        self._hungry = True
        self.ended = False

    @property
    def excess(self) -> int:
        """None: what is ahead can wait."""
        return 0

    @property
    def total(self) -> int:
        """Frames that will come in all; 0 when unknown."""
        if isinstance(self._passes, range) and self._source.total:
            return min(self._limit, self._source.total) if self._limit else self._source.total
        return self._limit

    def peek(self) -> CameraFrame | None:
        """The next frame without taking it; None when none is ready. After the last one, `ended` is true."""
        if not self._ahead and not self.ended:
            try:
                chunk = self._chunks.get_nowait()
            except queue.Empty:
                self._hungry = True
                return None
            self.ended = chunk is None
            self._ahead.extend(chunk or ())
        return self._ahead[0] if self._ahead else None

    def take(self) -> CameraFrame:
        """Takes the frame that `peek` showed."""
        return self._ahead.popleft()

    def stop(self) -> None:
        """Ends the loop soon."""
        self._stop.set()

    def loop(self) -> None:
        """Reads until the end or until stopped."""
        for frame in itertools.islice(self._all(), self._limit or None):
            if frame.image is not None:
                frame = frame._replace(image=resize(frame.image, *self._size))
            self._chunk.append(frame)
            if self._source.live or self._hungry or len(self._chunk) >= READ_CHUNK:
                self._hand_over(self._chunk)
                self._chunk = []
        if self._chunk:
            self._hand_over(self._chunk)
        self._hand_over(None)

    def _all(self) -> Iterator[CameraFrame]:
        for _ in self._passes:
            before = self._read
            for frame in self._source.frames(self._stop):
                self._read += 1
                yield frame
            if self._stop.is_set() or self._read == before:
                return

    def _hand_over(self, chunk: list[CameraFrame] | None) -> None:
        while not self._stop.is_set():
            try:
                self._chunks.put(chunk, timeout=0.1)
            except queue.Full:
                continue
            break
        if self._hungry:
            self._hungry = False
            self._ready()


class Arrivals:
    """Frames that come by themselves, resized, in the place of a Reader.

    Args:
        size: (H, W) of the network's input.
        limit: frames to take in all; 0 for all that come.
        ahead_max: frames that may wait here for the source.
    """

    def __init__(self, size: tuple[int, int], *, limit: int, ahead_max: int) -> None:
        self.total = limit
        self._size = size
        self._ahead: deque[CameraFrame] = deque()
        self._ahead_max = ahead_max
        self._taken = 0

    @property
    def ended(self) -> bool:
        """Whether the last frame has been taken."""
        return 0 < self.total == self._taken

    def put(self, frame: CameraFrame) -> None:
        """Takes in a frame; beyond the limit it is dropped."""
        if not self.total or self._taken + len(self._ahead) < self.total:
            if frame.image is not None:
                frame = frame._replace(image=resize(frame.image, *self._size))
            self._ahead.append(frame)

    @property
    def excess(self) -> int:
        """Frames that cannot wait here any longer, whether the source has room for them or not."""
        return max(0, len(self._ahead) - self._ahead_max)

    def peek(self) -> CameraFrame | None:
        """The next frame without taking it; None when none is there."""
        return self._ahead[0] if self._ahead else None

    def take(self) -> CameraFrame:
        """Takes the frame that `peek` showed."""
        self._taken += 1
        return self._ahead.popleft()

    def stop(self) -> None:
        """Nothing to end."""


class Pace:
    """When frames are due: at a constant rate (Hz), or always when it is 0."""

    def __init__(self, rate_hz: float) -> None:
        self._interval_s = 1.0 / rate_hz if rate_hz > 0.0 else 0.0
        self.due_at = float("-inf")

    def next(self, now: float) -> None:
        """Counts one frame as given at `now`."""
        self.due_at = max(self.due_at, now - INPUT_CATCH_UP_S) + self._interval_s
