# SPDX-License-Identifier: Apache-2.0
"""In which queue a task waits, and in which order tasks of a queue are taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from mdi_exit_ros.task import FrameId, Task

LANE_FRAMES_MIN = 4  # lanes do not share fewer frames than this each


def lane_share(frames: int, lanes: int) -> int:
    """How many of the frames that wait one of the free lanes takes, so that the others get as many."""
    return max(-(-frames // lanes), min(frames, LANE_FRAMES_MIN))


class Service(NamedTuple):
    """A batch that is being run, since when (s, local monotonic)."""

    tasks: tuple[Task, ...]
    since: float


def goes_to_input(*, held: bool, input_length: int, output_length: int, output_threshold: int) -> bool:
    """Whether a new task waits to be run here (I_n) rather than to be moved (O_n).

    Args:
        held: This worker holds the task's segment.
        input_length: I_n in frames.
        output_length: O_n in frames.
        output_threshold: T_O in frames.
    """
    return held and (input_length == 0 or output_length > output_threshold)


class Waiting(NamedTuple):
    """A task in a queue: since when (s, local monotonic) and as which arrival."""

    task: Task
    since: float
    order: int

    @property
    def turn(self) -> tuple[int, float]:
        """The smaller one is run first: the higher priority, then who has waited longer."""
        return -self.task.priority, self.since


class TaskQueue:
    """Tasks in order of priority and arrival, reachable by segment, so that a batch is one segment's first tasks."""

    def __init__(self) -> None:
        self._segments: dict[int, deque[Waiting]] = {}
        self._next = 0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Task]:
        return (waiting.task for queue in self._segments.values() for waiting in queue)

    def append(self, task: Task, now: float) -> None:
        """Adds the newest task, behind all of its priority and higher ones."""
        queue = self._segments.setdefault(task.segment, deque())
        place = len(queue)
        while place and queue[place - 1].task.priority < task.priority:
            place -= 1
        queue.insert(place, Waiting(task, now, self._next))
        self._next += 1
        self._length += 1

    def segments(self) -> list[int]:
        """Segments with waiting tasks, the one with the first head first."""
        if not self._length:
            return []
        heads = [
            (-queue[0].task.priority, queue[0].order, segment) for segment, queue in self._segments.items() if queue
        ]
        return [segment for _, _, segment in sorted(heads)]

    def count(self, segment: int) -> int:
        """Tasks of the segment."""
        return len(self._segments.get(segment, ()))

    def head(self, segment: int) -> Waiting | None:
        """The segment's first task, left in place."""
        queue = self._segments.get(segment)
        return queue[0] if queue else None

    def pop(self, segment: int) -> Task:
        """Takes the segment's first task."""
        self._length -= 1
        return self._segments[segment].popleft().task

    def take(self, segment: int, most: int) -> list[Task]:
        """Takes up to `most` of the segment's first tasks."""
        queue = self._segments.get(segment)
        return [self.pop(segment) for _ in range(min(most, len(queue)))] if queue else []

    def remove(self, frame: FrameId) -> None:
        """Drops the frame's task, if it waits here."""
        for queue in self._segments.values():
            for waiting in queue:
                if waiting.task.frame == frame:
                    queue.remove(waiting)
                    self._length -= 1
                    return
