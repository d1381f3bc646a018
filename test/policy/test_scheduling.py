# SPDX-License-Identifier: Apache-2.0
"""Into which queue a task goes, and in which order tasks come out."""

from __future__ import annotations

import pytest
from literals import task

from mdi_exit_ros.policy.scheduling import TaskQueue, goes_to_input

T_O = 16


@pytest.mark.parametrize(
    ("held", "input_length", "output_length", "expected"),
    [
        (True, 0, 0, True),
        (True, 0, T_O, True),
        (True, 1, 0, False),
        (True, 1, T_O, False),
        (True, 1, T_O + 1, True),
        (True, 100, T_O + 1, True),
        (False, 0, 0, False),
        (False, 0, T_O + 1, False),
        (False, 5, T_O + 1, False),
    ],
)
def test_task_goes_to_input_when_it_is_empty_or_output_is_longer_than_its_threshold(
    held: bool, input_length: int, output_length: int, expected: bool
) -> None:
    assert (
        goes_to_input(held=held, input_length=input_length, output_length=output_length, output_threshold=T_O)
        is expected
    )


def queue_of(*tasks_in: tuple[int, int]) -> TaskQueue:
    queue = TaskQueue()
    for now, (sequence, segment) in enumerate(tasks_in):
        queue.append(task(sequence, segment), float(now))
    return queue


def test_segment_with_the_oldest_task_comes_first() -> None:
    assert queue_of((0, 3), (1, 1), (2, 3)).segments() == [3, 1]


def test_higher_priority_goes_before_all_that_wait_and_behind_its_equals() -> None:
    queue = TaskQueue()
    for now, priority in enumerate((0, 5, 0, 5, 9)):
        queue.append(task(now, 2)._replace(priority=priority), float(now))
    queue.append(task(9, 1), 0.5)
    assert queue.segments() == [2, 1]
    assert [each.frame.sequence for each in queue.take(2, 9)] == [4, 1, 3, 0, 2]
    assert len(queue) == 1


def test_next_segment_is_the_one_whose_remaining_task_is_oldest() -> None:
    queue = queue_of((0, 3), (1, 1), (2, 3))
    assert queue.pop(3) == task(0, 3)
    assert queue.segments() == [1, 3]


def test_batch_is_the_oldest_tasks_of_one_segment() -> None:
    queue = queue_of((0, 1), (1, 2), (2, 1), (3, 1))
    assert queue.take(1, 2) == [task(0, 1), task(2, 1)]
    assert len(queue) == 2
    assert list(queue) == [task(3, 1), task(1, 2)]


def test_taking_more_than_there_is_takes_all() -> None:
    queue = queue_of((0, 1))
    assert queue.take(1, 16) == [task(0, 1)]
    assert queue.take(1, 16) == []
    assert queue.take(2, 16) == []
    assert queue.take(1, 0) == []
    assert len(queue) == 0


def test_head_says_since_when_it_waits_and_stays() -> None:
    queue = queue_of((0, 2), (1, 1))
    head = queue.head(1)
    assert head is not None and head.task == task(1, 1) and head.since == 1.0
    assert len(queue) == 2
    assert queue.head(3) is None


def test_removed_frame_leaves_the_others_in_order() -> None:
    queue = queue_of((0, 1), (1, 1), (2, 2))
    queue.remove(task(1, 1).frame)
    assert list(queue) == [task(0, 1), task(2, 2)]
    assert len(queue) == 2


def test_removing_an_unknown_frame_changes_nothing() -> None:
    queue = queue_of((0, 1))
    queue.remove(task(9).frame)
    assert len(queue) == 1
