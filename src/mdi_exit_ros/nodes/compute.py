# SPDX-License-Identifier: Apache-2.0
"""The threads on which segments run, so that the executor never waits for them."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mdi_exit_ros.model.backends.interface import SegmentOutput, SegmentRunner
from mdi_exit_ros.nodes.tensors import Row, gather
from mdi_exit_ros.policy.actions import RunBatch

Done = Callable[[RunBatch, SegmentOutput, float], None]
Failed = Callable[[RunBatch, Exception], None]


class _Order(NamedTuple):
    batch: RunBatch
    rows: Sequence[Row]


class Compute:
    """Runs batches; `loop` is the body of a thread per lane, and its callbacks run there.

    Attributes:
        runner: what runs the segments; it may be exchanged for one that holds more of them.
        failures: batches that have failed since the last that did not.
    """

    def __init__(self, runner: SegmentRunner, done: Done, failed: Failed) -> None:
        self.runner = runner
        self.failures = 0
        self._done = done
        self._failed = failed
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()

    def submit(self, batch: RunBatch, rows: Sequence[Row]) -> None:
        """Queues one batch; returns at once."""
        self._orders.put(_Order(batch, rows))

    def stop(self) -> None:
        """Ends one loop after what is queued."""
        self._orders.put(None)

    def loop(self) -> None:
        """Runs batches until stopped. An error of a segment, whatever it is, fails its batch and no more."""
        while (order := self._orders.get()) is not None:
            batch, rows = order
            began = time.monotonic()
            try:
                output = self.runner.run(batch.segment, gather(rows))
            except Exception as error:  # a backend may raise anything
                self.failures += 1
                self._failed(batch, error)
                continue
            self.failures = 0
            self._done(batch, output, time.monotonic() - began)
