# SPDX-License-Identifier: Apache-2.0
"""What one worker has to do: the tasks that wait to be run or to be moved, and the batches that its lanes run."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from mdi_exit_ros.policy.scheduling import Service, TaskQueue, lane_share
from mdi_exit_ros.task import Task


class Workload:
    """The queues I and O of a worker, and its lanes.

    Attributes:
        input: I_n without the batches in service: tasks that wait to be run here.
        output: O_n: tasks that wait to be moved, and are run here when no better place is found.
        running: the batch in service on each busy lane.
    """

    def __init__(self, *, lanes: int, batch_max: int, batch_wait_s: float) -> None:
        self.input = TaskQueue()
        self.output = TaskQueue()
        self.running: dict[int, Service] = {}
        self._lanes = lanes
        self._batch_max = batch_max
        self._batch_wait_s = batch_wait_s
        self._in_service = 0

    @property
    def load(self) -> int:
        """I_n: tasks to run, those in service included."""
        return len(self.input) + self._in_service

    @property
    def total(self) -> int:
        """I_n + O_n."""
        return self.load + len(self.output)

    @property
    def has_free_lane(self) -> bool:
        """Whether a batch can be begun."""
        return len(self.running) < self._lanes

    def begin(self, batch: list[Task], now: float) -> int:
        """Puts a batch in service on a free lane, and answers which."""
        lane = next(lane for lane in range(self._lanes) if lane not in self.running)
        self.running[lane] = Service(tuple(batch), now)
        self._in_service += len(batch)
        return lane

    def end(self, lane: int) -> tuple[Task, ...]:
        """Ends the lane's service; answers its tasks."""
        tasks = self.running.pop(lane).tasks
        self._in_service -= len(tasks)
        return tasks

    def busy_s(self, now: float) -> float:
        """For how long the longest service has been going on (s); 0 when idle."""
        return max((max(now - service.since, 1e-9) for service in self.running.values()), default=0.0)

    def remove(self, task: Task) -> bool:
        """Drops a task that waits. Answers whether it is gone: one in service is not."""
        self.input.remove(task.frame)
        self.output.remove(task.frame)
        return not any(task in service.tasks for service in self.running.values())

    def drain(self) -> list[Task]:
        """Takes all tasks that wait."""
        return [
            task
            for queue in (self.input, self.output)
            for segment in queue.segments()
            for task in queue.take(segment, len(queue))
        ]

    def next_batch(self, held: AbstractSet[int], now: float) -> tuple[list[Task], list[Task]]:
        """Takes the next batch for a free lane; answers it, and tasks that were taken but whose deadline has passed.

        It is of the segment that makes the fullest batch, of tasks in I and, without a better place, in O. A task that
        has waited for `batch_wait_s` has its segment run first, the oldest of such before all others. While tasks of a
        higher priority wait, only their segments count.

        Args:
            held: segments that can be run here.
            now: local monotonic time (s).
        """
        batch: list[Task] = []
        expired: list[Task] = []
        while not batch:
            segment = self._next_segment(held, now)
            if segment is None:
                break
            free = self._lanes - len(self.running)
            most = min(self._batch_max, lane_share(self._waiting(segment), free))
            while len(batch) < most and (task := self._take_first(segment)) is not None:
                (expired if task.expires_at <= now else batch).append(task)
        return batch, expired

    def _next_segment(self, held: AbstractSet[int], now: float) -> int | None:
        heads = [
            (*head.turn, queue is self.output, segment)
            for queue in (self.input, self.output)
            for segment in queue.segments()
            if segment in held and (head := queue.head(segment)) is not None
        ]
        if not heads:
            return None
        turn, since, _, segment = min(heads)
        if now >= since + self._batch_wait_s:
            return segment
        sizes = {
            each: min(self._batch_max, self._waiting(each)) for other, _, _, each in sorted(heads) if other == turn
        }
        return max(sizes, key=sizes.__getitem__)  # of equals the oldest

    def _waiting(self, segment: int) -> int:
        return self.input.count(segment) + self.output.count(segment)

    def _take_first(self, segment: int) -> Task | None:
        here, there = self.input.head(segment), self.output.head(segment)
        if here is not None and (there is None or here.turn <= there.turn):
            return self.input.pop(segment)
        return self.output.pop(segment) if there is not None else None
