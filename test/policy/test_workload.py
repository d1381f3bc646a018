# SPDX-License-Identifier: Apache-2.0
"""What a worker runs next, of all that waits, on which lane."""

from __future__ import annotations

from literals import ALL_SEGMENTS, task, tasks

from mdi_exit_ros.policy.scheduling import TaskQueue
from mdi_exit_ros.policy.workload import Workload
from mdi_exit_ros.task import Task

HELD = frozenset(ALL_SEGMENTS)


def workload(*, lanes: int = 1, batch_max: int = 4) -> Workload:
    return Workload(lanes=lanes, batch_max=batch_max, batch_wait_s=1.0)


def put(queue: TaskQueue, *waiting: Task, now: float = 0.0) -> None:
    for each in waiting:
        queue.append(each, now)


def test_fullest_batch_is_taken_from_both_queues() -> None:
    load = workload()
    put(load.input, task(0, 1), *tasks(2, 2, first=1))
    put(load.output, task(3, 2), now=0.1)
    assert load.next_batch(HELD, 0.5) == ([task(1, 2), task(2, 2), task(3, 2)], [])
    assert load.total == 1


def test_segment_whose_task_has_waited_long_goes_before_a_fuller_batch() -> None:
    load = workload()
    put(load.input, task(0, 1))
    put(load.input, *tasks(3, 2, first=1), now=0.5)
    assert load.next_batch(HELD, 1.0) == ([task(0, 1)], [])


def test_segments_that_are_not_held_stay() -> None:
    load = workload()
    put(load.output, *tasks(3, 2))
    assert load.next_batch(frozenset({1}), 5.0) == ([], [])
    assert load.total == 3


def test_tasks_whose_deadline_has_passed_come_out_apart_and_another_segment_is_tried() -> None:
    load = workload()
    late = [task(number, 1, expires_at=1.0) for number in range(3)]
    put(load.input, *late, task(9, 2))
    assert load.next_batch(HELD, 1.0) == ([task(9, 2)], late)
    assert load.total == 0


def test_free_lanes_share_what_waits() -> None:
    load = workload(lanes=2, batch_max=32)
    put(load.input, *tasks(12))
    first, _ = load.next_batch(HELD, 0.0)
    assert (len(first), load.begin(first, 0.0)) == (6, 0)
    second, _ = load.next_batch(HELD, 0.0)
    assert (len(second), load.begin(second, 0.0)) == (6, 1)
    assert not load.has_free_lane
    assert load.load == 12
    assert load.end(0) == tuple(first)
    assert (load.has_free_lane, load.load) == (True, 6)


def test_task_in_service_is_not_gone_when_it_is_removed() -> None:
    load = workload()
    put(load.input, task(1))
    load.begin([task(0)], 2.0)
    assert load.remove(task(1))
    assert not load.remove(task(0))
    assert (load.load, load.busy_s(5.0)) == (1, 3.0)


def test_drain_takes_all_that_waits() -> None:
    load = workload()
    put(load.input, task(0, 2), task(1, 1))
    put(load.output, task(2, 3))
    load.begin([task(3)], 0.0)
    assert load.drain() == [task(0, 2), task(1, 1), task(2, 3)]
    assert load.total == 1
