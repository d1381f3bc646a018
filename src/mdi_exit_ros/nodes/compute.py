# SPDX-License-Identifier: Apache-2.0
"""The thread on which segments run, so that the executor never waits for them."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence

from mdi_exit_ros.model.backends.interface import SegmentOutput, SegmentRunner
from mdi_exit_ros.nodes.tensors import Row, gather
from mdi_exit_ros.task import Task

Done = Callable[[tuple[Task, ...], SegmentOutput, float], None]
Failed = Callable[[tuple[Task, ...], Exception], None]


class Compute:
    """Runs one batch after the other; `loop` is the body of a thread, and its callbacks run there."""

    def __init__(self, runner: SegmentRunner, done: Done, failed: Failed) -> None:
        self._runner = runner
        self._done = done
        self._failed = failed
        self._batches: queue.SimpleQueue[tuple[int, tuple[Task, ...], Sequence[Row]] | None] = queue.SimpleQueue()

    def submit(self, segment: int, tasks: tuple[Task, ...], rows: Sequence[Row]) -> None:
        """Queues one batch; returns at once."""
        self._batches.put((segment, tasks, rows))

    def stop(self) -> None:
        """Ends the loop after the batch that is running."""
        self._batches.put(None)

    def loop(self) -> None:
        """Runs batches until stopped. An error of a segment, whatever it is, fails its batch and no more."""
        while (batch := self._batches.get()) is not None:
            segment, tasks, rows = batch
            began = time.monotonic()
            try:
                output = self._runner.run(segment, gather(rows))
            except Exception as error:  # a backend may raise anything
                self._failed(tasks, error)
                continue
            self._done(tasks, output, time.monotonic() - began)
