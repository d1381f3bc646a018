# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import numpy as np
import pytest

from mdi_exit_ros.model.backends.interface import SegmentOutput
from mdi_exit_ros.nodes.compute import Compute
from mdi_exit_ros.nodes.tensors import Row
from mdi_exit_ros.policy.actions import RunBatch
from mdi_exit_ros.task import FrameId, PeerId, Task

CAMERA = PeerId("camera", 1)


class Doubling:
    """A segment that doubles its input and answers with its first number."""

    def __init__(self, *, fails_on=None, together=None):
        self.fails_on, self.together = fails_on, together

    def run(self, segment, batch):
        if self.together is not None:
            self.together.wait(5.0)
        if self.fails_on is not None and self.fails_on in batch:
            raise RuntimeError("out of memory")
        first = batch[:, 0]
        return SegmentOutput(batch * 2.0, first.astype(np.uint16), first / 100.0)


def test_failures_are_counted_up_to_the_next_batch_that_runs():
    runner, counts = Doubling(fails_on=1.0), []
    compute = Compute(runner, lambda *_: counts.append(compute.failures), lambda *_: counts.append(compute.failures))
    task = Task(FrameId(CAMERA, 0), 1, 1, 0.0, 9.0)
    for number in (1.0, 1.0, 1.0, 2.0, 1.0):
        compute.submit(RunBatch(1, (task,), 0), [Row(np.full((1, 3), number, np.float32), 0)])
    compute.stop()
    compute.loop()
    assert counts == [1, 2, 3, 0, 1]


def run(runner, *counts):
    """What the callbacks of batches of so many frames, one per lane, got."""
    done, failed = [], []
    compute = Compute(runner, lambda *given: done.append(given), lambda *given: failed.append(given))
    batches = []
    for lane, count in enumerate(counts):
        tasks = tuple(Task(FrameId(CAMERA, 100 * lane + number), 1, 1, 0.0, 9.0) for number in range(count))
        rows = [Row(np.full((1, 3), number, np.float32), 0) for number in range(count)]
        batches.append(RunBatch(1, tasks, lane))
        compute.submit(batches[-1], rows)
    lanes = [threading.Thread(target=compute.loop) for _ in counts]
    for thread in lanes:
        compute.stop()
        thread.start()
    for thread in lanes:
        thread.join(10.0)
        assert not thread.is_alive()
    return batches, done, failed


def test_batch_is_run_in_its_order_and_timed():
    [batch], [(given, output, duration_s)], failed = run(Doubling(), 9)
    assert (given, failed) == (batch, [])
    assert output.class_id.tolist() == list(range(9))
    assert output.confidence.tolist() == pytest.approx([number / 100.0 for number in range(9)])
    assert output.features[:, 0].tolist() == [2.0 * number for number in range(9)]
    assert duration_s > 0.0


def test_lanes_run_their_batches_at_the_same_time():
    batches, done, failed = run(Doubling(together=threading.Barrier(3)), 4, 5, 6)
    assert (sorted(batch.lane for batch, _, _ in done), failed) == ([0, 1, 2], [])
    assert {batch.lane: len(output.class_id) for batch, output, _ in done} == {0: 4, 1: 5, 2: 6}
    assert {batch for batch, _, _ in done} == set(batches)


def test_error_fails_its_batch_alone():
    batches, [(fine, _, _)], [(given, error)] = run(Doubling(fails_on=8), 9, 4)
    assert (given, fine) == tuple(batches)
    assert "out of memory" in str(error)
