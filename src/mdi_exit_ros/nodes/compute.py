# SPDX-License-Identifier: Apache-2.0
"""The threads on which segments run, so that the executor never waits for them."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from mdi_exit_ros.model.backends.interface import SegmentOutput, SegmentRunner
from mdi_exit_ros.nodes.tensors import Row, gather
from mdi_exit_ros.policy.scheduling import lanes_used
from mdi_exit_ros.task import Task

Done = Callable[[tuple[Task, ...], SegmentOutput, float], None]
Failed = Callable[[tuple[Task, ...], Exception], None]


class Compute:
    """Runs one batch after the other; `loop` is the body of a thread, and its callbacks run there.

    Args:
        lanes: threads that share a batch, each running a part of its frames. On small networks this wastes less than
            several threads inside every layer.

    Attributes:
        runner: what runs the segments; it may be exchanged for one that holds more of them.
    """

    def __init__(self, runner: SegmentRunner, lanes: int, done: Done, failed: Failed) -> None:
        self.runner = runner
        self._lanes = lanes
        self._helpers = ThreadPoolExecutor(lanes - 1, thread_name_prefix="lane") if lanes > 1 else None
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
                output = self._run(segment, rows)
            except Exception as error:  # a backend may raise anything
                self._failed(tasks, error)
                continue
            self._done(tasks, output, time.monotonic() - began)
        if self._helpers is not None:
            self._helpers.shutdown()

    def _run(self, segment: int, rows: Sequence[Row]) -> SegmentOutput:
        count = lanes_used(self._lanes, len(rows))
        if self._helpers is None or count == 1:
            return self.runner.run(segment, gather(rows))
        bounds = [len(rows) * part // count for part in range(count + 1)]
        parts = [gather(rows[start:end]) for start, end in pairwise(bounds)]
        others = [self._helpers.submit(self.runner.run, segment, part) for part in parts[1:]]
        return _joined([self.runner.run(segment, parts[0]), *(other.result() for other in others)])


def _joined(parts: Sequence[SegmentOutput]) -> SegmentOutput:
    features = [part.features for part in parts if part.features is not None]
    return SegmentOutput(
        np.concatenate(features) if features else None,
        np.concatenate([part.class_id for part in parts]),
        np.concatenate([part.confidence for part in parts]),
    )
