# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading

import numpy as np
import pytest

from mdi_exit_ros.model.backends.interface import SegmentOutput
from mdi_exit_ros.nodes.compute import Compute
from mdi_exit_ros.nodes.tensors import Row
from mdi_exit_ros.policy.scheduling import LANE_FRAMES_MIN
from mdi_exit_ros.task import FrameId, PeerId, Task

CAMERA = PeerId("camera", 1)


class Doubling:
    """A segment that doubles its input and answers with its first number; notes who ran how many frames."""

    def __init__(self, *, fails_on=None, last=False):
        self.fails_on, self.last = fails_on, last
        self.parts = []

    def run(self, segment, batch):
        self.parts.append((threading.current_thread().name, len(batch)))
        if self.fails_on is not None and self.fails_on in batch:
            raise RuntimeError("out of memory")
        first = batch[:, 0]
        return SegmentOutput(None if self.last else batch * 2.0, first.astype(np.uint16), first / 100.0)


def run(runner, lanes, count):
    """What the callbacks of one batch of `count` frames got."""
    done, failed = [], []
    compute = Compute(
        runner, lanes, lambda *given: done.append(given), lambda tasks, error: failed.append((tasks, error))
    )
    tasks = tuple(Task(FrameId(CAMERA, number), 1, 1, 0.0, 9.0) for number in range(count))
    rows = [Row(np.full((1, 3), number, np.float32), 0) for number in range(count)]
    compute.submit(1, tasks, rows)
    compute.stop()
    compute.loop()
    return tasks, done, failed


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("lanes", "count"), [(1, 9), (2, 9), (2, 7), (3, 12), (4, 5), (8, 1)])
def test_lanes_share_a_batch_and_its_order_is_kept(lanes, count, last):
    runner = Doubling(last=last)
    tasks, [(given, output, duration_s)], failed = run(runner, lanes, count)
    assert (given, failed) == (tasks, [])
    assert output.class_id.tolist() == list(range(count))
    assert output.confidence.tolist() == pytest.approx([number / 100.0 for number in range(count)])
    assert output.features is None if last else output.features[:, 0].tolist() == [2.0 * n for n in range(count)]
    assert duration_s > 0.0
    sizes = [size for _, size in runner.parts]
    assert sum(sizes) == count
    assert len(sizes) == max(1, min(lanes, count // LANE_FRAMES_MIN))
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("fails_on", [0, 8])
def test_error_in_any_lane_fails_the_batch_once(fails_on):
    tasks, done, [(given, error)] = run(Doubling(fails_on=fails_on), 2, 9)
    assert (given, done) == (tasks, [])
    assert "out of memory" in str(error)
