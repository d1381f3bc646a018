# SPDX-License-Identifier: Apache-2.0
"""What the shells of all simulated nodes share: a core, a thread of Python, ticks, and what carries messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from mdi_exit_ros.policy.actions import (
    SendAnswers,
    SendTasks,
)
from mdi_exit_ros.policy.cadence import SHORTEST_TICK_S
from mdi_exit_ros.policy.events import (
    AppliedPolicy,
    SourceReport,
    Tick,
    WorkerReport,
)
from mdi_exit_ros.simulation.clock import Clock
from mdi_exit_ros.simulation.costs import NodeCosts
from mdi_exit_ros.simulation.processor import Processor, Thread
from mdi_exit_ros.task import PeerId

LOAD_S = 0.5  # for a worker to load segments beside what it runs

MESSAGE_NBYTES = 200  # of a message of tasks or answers, without them
TASK_NBYTES = 60  # per task besides its tensor
ANSWER_NBYTES = 40
STATUS_NBYTES = 300
STREAM_NBYTES = 90  # per stream that a status speaks of

Trace = Callable[[float, str, Any], None]


class Carrier(Protocol):
    """What carries a shell's messages to others."""

    def tasks(self, sender: PeerId, model_id: str, action: SendTasks, nbytes: int) -> None:
        """Carries a batch of tasks of `nbytes`, for a model, to its receiver."""

    def answers(self, sender: PeerId, action: SendAnswers, nbytes: int) -> None:
        """Carries answers to a source."""

    def worker_report(self, report: WorkerReport, nbytes: int) -> None:
        """Carries a worker's status to everybody."""

    def source_report(self, report: SourceReport, nbytes: int) -> None:
        """Carries a source's status to everybody."""

    def policy(self, policy: AppliedPolicy) -> None:
        """Carries a policy to everybody."""


class Node:
    """What all simulated nodes have: a core, a thread of Python, and ticks.

    Args:
        name: of the node.
        core: what decides.
        processor: of its computer.
        costs: of the node's own work.
        trace: told every action with time and node.
    """

    def __init__(
        self, name: str, core: Any, *, clock: Clock, processor: Processor, costs: NodeCosts, trace: Trace | None
    ) -> None:
        self.name = name
        self.core: Any = core
        self.clock = clock
        self.processor = processor
        self.costs = costs
        self.thread = Thread(processor)
        self._trace = trace
        self._ticked_at = self._wakes_at = float("-inf")

    def begin(self) -> None:
        """Starts the life of the node."""
        self._wakes_at = float("inf")
        self.thread.run(0.0, lambda: self.feed(Tick()))

    def kill(self) -> None:
        """Ends it without a word."""
        self.core = None
        self.thread.end()

    def take(self, event: Any, work_us: float) -> None:
        """A message has arrived: the core gets it when the thread has read it."""
        if self.core is not None:
            self.thread.run(work_us * 1e-6, lambda: self.feed(event))

    def feed(self, event: Any) -> None:
        """Gives the core an event, performs what it answers, and sets the alarm for its deadline."""
        if self.core is not None:
            self._step(event)
        if self.core is not None:  # its life may have ended with that
            self.settle()

    def _step(self, event: Any) -> None:
        for action in self.core.handle(event, self.clock.now):
            if self._trace is not None:
                self._trace(self.clock.now, self.name, action)
            self.perform(action)

    def settle(self) -> None:
        """Sets the alarm for the next thing that is due."""
        due = self.due()
        if due == math.inf:
            return
        due = max(due, self._ticked_at + SHORTEST_TICK_S)
        if due < self._wakes_at:
            self._wakes_at = due
            self.clock.after(max(0.0, due - self.clock.now), lambda: self._wake(due))

    def due(self) -> float:
        """When the core's next tick is due (s)."""
        deadline = self.core.next_deadline()
        return math.inf if deadline is None else float(deadline)

    def _wake(self, due: float) -> None:
        if self.core is not None and due == self._wakes_at:
            self.thread.run(0.0, self._tick)

    def _tick(self) -> None:
        if self.core is None:
            return
        self._wakes_at = math.inf
        self._ticked_at = self.clock.now
        deadline = self.core.next_deadline()
        if deadline is not None and deadline <= self.clock.now:
            self.feed(Tick())
        else:
            self.settle()

    def publish(self, work_us: float, send: Callable[[], None]) -> None:
        """Has the thread publish a message, which leaves when that is done."""
        self.thread.run(work_us * 1e-6, send)

    def perform(self, action: Any) -> None:
        """Does what the core asks."""
        raise NotImplementedError
