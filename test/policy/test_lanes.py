# SPDX-License-Identifier: Apache-2.0
"""Several threads of a worker, each with a batch of its own."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from literals import CAM, batch, of, report_of, source_report, tasks, worker

from mdi_exit_ros.policy.actions import Finished, RunBatch
from mdi_exit_ros.policy.events import ServiceDone, ServiceFailed, Shutdown, Tick
from mdi_exit_ros.policy.scheduling import lane_share
from mdi_exit_ros.policy.worker import WorkerCore


def with_lanes(lanes: int, **changes: Any) -> WorkerCore:
    """Worker w1 at time 0 that has given credit to `cam`."""
    setup = worker(neighbours=(), **changes).setup
    core = WorkerCore(dataclasses.replace(setup, lanes=lanes), random.Random(0))
    core.handle(source_report(), 0.0)
    core.handle(batch(CAM, 0, ()), 0.0)
    core.handle(Tick(), 0.01)
    return core


def began(actions: list[Any]) -> list[tuple[int, int, int]]:
    """Lane, segment and frames of each batch that begins."""
    return [(run.lane, run.segment, len(run.tasks)) for run in of(RunBatch, actions)]


def ended(core: WorkerCore, lane: int, count: int, now: float, *, confidence: float = 1.0) -> list[Any]:
    return core.handle(ServiceDone((confidence,) * count, (6,) * count, 0.01, lane), now)


@pytest.mark.parametrize(
    ("frames", "lanes", "share"), [(1, 2, 1), (4, 2, 4), (7, 2, 4), (9, 2, 5), (32, 2, 16), (32, 1, 32), (5, 8, 4)]
)
def test_free_lanes_share_what_waits_but_not_in_crumbs(frames: int, lanes: int, share: int) -> None:
    assert lane_share(frames, lanes) == share


def test_free_lanes_begin_together() -> None:
    core = with_lanes(2)
    assert began(core.handle(batch(CAM, 20, tasks(20)), 0.1)) == [(0, 1, 10), (1, 1, 10)]
    assert report_of(core.handle(Tick(), 0.3)).input_queue == 20


def test_lane_that_has_ended_takes_all_that_waits_while_the_other_runs() -> None:
    core = with_lanes(2)
    core.handle(batch(CAM, 8, tasks(8)), 0.1)
    assert began(core.handle(batch(CAM, 18, tasks(10, first=8)), 0.2)) == []
    assert began(ended(core, 1, 4, 0.3)) == [(1, 1, 10)]
    assert began(ended(core, 0, 4, 0.4)) == []


def test_batches_of_different_segments_run_side_by_side() -> None:
    core = with_lanes(2)
    core.handle(batch(CAM, 8, tasks(8)), 0.1)
    assert began(ended(core, 0, 4, 0.2, confidence=0.0)) == [(0, 2, 4)]
    assert began(ended(core, 1, 4, 0.3, confidence=0.0)) == [(1, 2, 4)]


def test_largest_batch_is_for_one_lane() -> None:
    core = with_lanes(2, batch_max=8)
    assert began(core.handle(batch(CAM, 40, tasks(40)), 0.1)) == [(0, 1, 8), (1, 1, 8)]


def test_time_per_task_is_that_of_all_lanes_together() -> None:
    core = with_lanes(2)
    core.handle(batch(CAM, 8, tasks(8)), 0.1)
    ended(core, 0, 4, 0.2)
    report = report_of(core.handle(Tick(), 0.4))
    assert report.service_time_s == pytest.approx(0.01 / 4 / 2)
    assert report.busy_s == pytest.approx(0.3), "of the lane that runs longest"


def test_failed_lane_fails_its_batch_alone() -> None:
    core = with_lanes(2)
    core.handle(batch(CAM, 8, tasks(8)), 0.1)
    core.handle(ServiceFailed(1), 0.2)
    report = report_of(core.handle(Tick(), 0.4))
    assert (report.counters.failed, report.input_queue) == (4, 4)


def test_worker_ends_when_its_last_lane_has_ended() -> None:
    core = with_lanes(2)
    core.handle(batch(CAM, 8, tasks(8)), 0.1)
    assert of(Finished, core.handle(Shutdown(), 0.2)) == []
    assert of(Finished, ended(core, 0, 4, 0.3)) == []
    assert of(Finished, ended(core, 1, 4, 0.4)) == [Finished()]


@settings(max_examples=50)
@given(
    lanes=st.integers(1, 5),
    steps=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4), st.floats(0.0, 1.0)), max_size=40),
)
def test_no_lane_has_two_batches_and_no_task_runs_twice(lanes: int, steps: list[tuple[int, int, float]]) -> None:
    core = with_lanes(lanes)
    running: dict[int, int] = {}
    seen: set[tuple[int, int]] = set()
    sent, now = 0, 0.1

    def note(actions: list[Any]) -> None:
        for run in of(RunBatch, actions):
            assert run.lane not in running and 0 <= run.lane < lanes
            running[run.lane] = len(run.tasks)
            for task in run.tasks:
                assert (task.frame.sequence, task.segment) not in seen
                seen.add((task.frame.sequence, task.segment))

    for count, lane, confidence in steps:
        now += 0.01
        if count and sent + count <= 100:
            note(core.handle(batch(CAM, sent + count, tasks(count, first=sent)), now))
            sent += count
        if lane in running:
            note(ended(core, lane, running.pop(lane), now, confidence=confidence))
    while running:
        now += 0.01
        lane, count = running.popitem()
        note(ended(core, lane, count, now))
    assert core.held == 0
