# SPDX-License-Identifier: Apache-2.0
"""Which waiting tasks of a worker move, to which neighbour, and in which groups."""

from __future__ import annotations

import math
import random
from typing import NamedTuple

from mdi_exit_ros.policy.actions import SendTasks
from mdi_exit_ros.policy.estimation import ServiceTimes
from mdi_exit_ros.policy.inflow import Inflow
from mdi_exit_ros.policy.neighbourhood import Neighbour, Neighbourhood
from mdi_exit_ros.policy.offloading import moves
from mdi_exit_ros.policy.receiver import OPENING_PATIENCE_S
from mdi_exit_ros.policy.scheduling import Waiting
from mdi_exit_ros.policy.worker_setup import WorkerSetup
from mdi_exit_ros.policy.workload import Workload
from mdi_exit_ros.task import PeerId, Reason, Task

GROUP_FACTOR = 3.0  # O_n to I_m from which a group of tasks moves
GROUP_WORTH = 0.4  # own time for a small group, as a share of D_nm, from which it moves
STRANDED = 10.0  # wait of the oldest task, in times of D_nm, from which any group moves
DEFAULT_OUTPUT_THRESHOLD = 24


class Left(NamedTuple):
    """A task that has left the output queue: moved (reason NONE), or why it can go nowhere."""

    task: Task
    reason: Reason


class Offloader:
    """The offloading rule of one worker, applied to the oldest tasks of each segment in O.

    Attributes:
        segments: those held here.
        output_threshold: T_O in frames.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        workload: Workload,
        neighbours: Neighbourhood,
        inflow: Inflow,
        service: ServiceTimes,
        rng: random.Random,
    ) -> None:
        self.segments = setup.segments
        self.output_threshold = DEFAULT_OUTPUT_THRESHOLD
        self._input_nbytes = setup.input_nbytes
        self._settings = setup.settings
        self._movable = frozenset(filter(setup.strategy.may_move, range(1, setup.num_segments + 1)))
        self._workload = workload
        self._output = workload.output
        self._neighbours = neighbours
        self._inflow = inflow
        self._last_segment = setup.num_segments
        self._exits_enabled = setup.exits_enabled
        self._service = service
        self._rng = rng
        self._moved_at = -math.inf
        self._information = 0  # grows with every status heard and service ended
        self._tossed: dict[int, int] = {}  # segment -> information at which its head lost the toss
        self._too_few: dict[int, tuple[int, int]] = {}  # segment -> information and tasks that were no group
        self._outgoing: dict[str, dict[tuple[int, PeerId], list[Task]]] = {}

    def may_move(self, segment: int) -> bool:
        """Whether the strategy lets tasks of the segment move that could be run here."""
        return segment in self._movable

    def learn(self) -> None:
        """A status was heard or a service has ended: what was tossed for may be tossed for again."""
        self._information += 1

    def next_deadline(self) -> float:
        """When a task that cannot be run here is given up (s); infinite when none waits."""
        heads = ((segment, self._output.head(segment)) for segment in self._output.segments())
        return min(
            (
                self._given_up_at(segment, head.since)
                for segment, head in heads
                if head is not None and segment not in self.segments
            ),
            default=math.inf,
        )

    def _given_up_at(self, segment: int, since: float) -> float:
        """When a task that waits `since` then and cannot be run here is given up, or looked at again (s).

        A holder whose statuses arrive while this worker's first batch does not is still being discovered, which between
        computers may take seconds longer one way than the other.
        """
        usual = since + self._settings.move_timeout_s
        if usual > self._moved_at:
            return usual
        alive_until = (each.ready_until for each in self._neighbours if each.holds(segment) and not each.is_open)
        return max(usual, min(since + OPENING_PATIENCE_S, max(alive_until, default=-math.inf)))

    def move(self, now: float) -> list[Left]:
        """Takes from O, per segment the oldest tasks, until one may not or does not move."""
        self._moved_at = now
        left: list[Left] = []
        for segment in self._output.segments():
            if self._is_due(segment, now):
                self._move_segment(segment, now, left)
        return left

    def batches(self, now: float) -> list[SendTasks]:
        """What has been moved since the last call, one message per receiver, segment and source."""
        actions: list[SendTasks] = []
        for name, groups in self._outgoing.items():
            neighbour = self._neighbours.get(name)
            assert neighbour is not None and neighbour.outbound is not None
            total = neighbour.outbound.sent - sum(map(len, groups.values()))
            for (segment, _), tasks in groups.items():
                total += len(tasks)
                neighbour.delay.batch_sent(now, len(tasks) * self._input_nbytes[segment - 1])
                actions.append(SendTasks(neighbour.outbound.receiver, total, now, tuple(tasks)))
        self._outgoing = {}
        return actions

    def _move_segment(self, segment: int, now: float, left: list[Left]) -> None:
        held = segment in self.segments
        delays: list[float] | None = None
        while (head := self._output.head(segment)) is not None:
            if head.task.expires_at <= now:
                left.append(Left(self._output.pop(segment), Reason.EXPIRED))
                continue
            if held and not self._tosses(segment):
                return
            if delays is None:
                longest = self._longest(held=held, begun=bool(self._outgoing))
                delays = self._neighbours.delays_s(segment, now, longest)
            index = self._soonest(delays, head.task, held=held)
            if index is not None:
                neighbour = self._neighbours[index]
                if held and not self._pays(head, neighbour, now):
                    self._too_few[segment] = (self._information, self._output.count(segment))
                    return
                if held and not moves(self._workload.load * self._service.mean_s, delays[index], self._rng):
                    self._tossed[segment] = self._information
                    return
                left.append(Left(self._send(neighbour, self._output.pop(segment), now), Reason.NONE))
                delays[index] = neighbour.delay_s(segment)
            elif not held and now >= self._given_up_at(segment, head.since):
                is_held = any(each.holds(segment) and each.ready(now) for each in self._neighbours)
                reason = Reason.BLOCKED if is_held else Reason.NO_HOLDER
                left.append(Left(self._output.pop(segment), reason))
            else:
                return

    def _soonest(self, delays: list[float], task: Task, *, held: bool) -> int | None:
        """Index of the neighbour that the oldest task of its segment may go to with the smallest of the delays.

        Who may not take it is struck out: O only gets shorter and queues longer, so that holds for this step.
        """
        segment = task.segment
        while (least := min(delays, default=math.inf)) < math.inf:
            index = delays.index(least)
            neighbour = self._neighbours[index]
            longest = self._longest(held=held, begun=neighbour.name in self._outgoing)
            if neighbour.queued < longest and neighbour.may_take(segment) and self._is_heard(neighbour, task):
                return index
            delays[index] = math.inf
        return None

    def _is_heard(self, neighbour: Neighbour, task: Task) -> bool:
        """Whether the task's source hears the neighbour's answers, where it would give any and the source is known."""
        source = self._inflow.peers.sources.get(task.frame.source.name)
        answers = self._exits_enabled or neighbour.holds(self._last_segment)
        if source is None or source.life != task.frame.source or not answers:
            return True
        assert neighbour.outbound is not None
        return neighbour.outbound.receiver in source.hears

    def _longest(self, *, held: bool, begun: bool) -> float:
        """Length of a neighbour's queue I_m from which it gets no task: that of O_n, if the task could run here.

        Messages cost, so such tasks move in groups: one is begun only where it can at least double what the neighbour
        has to run, which is when O_n is three times I_m.
        """
        if not held:
            return math.inf
        return len(self._output) if begun else len(self._output) / GROUP_FACTOR

    def _pays(self, head: Waiting, neighbour: Neighbour, now: float) -> bool:
        """Whether as many tasks as the head, which could run here, may go to the neighbour as are worth a message.

        A message costs both sides much the same however many tasks it brings. Fewer than `group_min` (or than a good
        part of what T_O and the room here let wait) are worth it where running them here would take a good part of the
        time that the way there takes, or where that time has gone by several times.
        """
        segment = head.task.segment
        if (segment, head.task.frame.source) in self._outgoing.get(neighbour.name, ()):
            return True
        way_s = neighbour.transfer_s[segment - 1]
        group = self._output.count(segment)
        most = max(1, min(self.output_threshold // 2, self._inflow.room // 8))
        return (
            group >= min(self._settings.group_min, most)
            or group * self._service.mean_s >= GROUP_WORTH * way_s
            or now - head.since >= STRANDED * way_s
        )

    def _is_due(self, segment: int, now: float) -> bool:
        """Whether anything can become of the oldest task of `segment` in O now."""
        head = self._output.head(segment)
        assert head is not None
        if segment not in self.segments or head.task.expires_at <= now:
            return True
        return self._tosses(segment) and self._too_few.get(segment) != (self._information, self._output.count(segment))

    def _tosses(self, segment: int) -> bool:
        """Whether a task that can run here may be tossed for: once per new information."""
        return self.may_move(segment) and self._tossed.get(segment) != self._information

    def _send(self, neighbour: Neighbour, task: Task, now: float) -> Task:
        neighbour.send(now)
        groups = self._outgoing.setdefault(neighbour.name, {})
        groups.setdefault((task.segment, task.frame.source), []).append(task)
        return task
