# SPDX-License-Identifier: Apache-2.0
"""The simulated nodes: shells of a few lines around the very cores that the ROS nodes run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, assert_never

from mdi_exit_ros.policy.actions import (
    CloseFrame,
    Finished,
    Forget,
    LoadSegments,
    PublishPolicy,
    PublishSourceReport,
    PublishWorkerReport,
    RunBatch,
    SendAnswers,
    SendTasks,
    SourceAction,
    Warn,
    WorkerAction,
)
from mdi_exit_ros.policy.controller import ClusterSummary, ControllerCore
from mdi_exit_ros.policy.events import (
    AnswersReceived,
    AppliedPolicy,
    FramesOffered,
    InputEnded,
    SegmentsLoaded,
    ServiceDone,
    SourceReport,
    TasksReceived,
    Tick,
    WorkerReport,
)
from mdi_exit_ros.policy.scheduling import lanes_used
from mdi_exit_ros.policy.source import SourceCore
from mdi_exit_ros.policy.worker import WorkerCore
from mdi_exit_ros.profile import BackendProfile
from mdi_exit_ros.simulation.arrivals import Camera
from mdi_exit_ros.simulation.clock import Clock
from mdi_exit_ros.simulation.costs import NodeCosts
from mdi_exit_ros.simulation.processor import Processor, Thread
from mdi_exit_ros.summary import SteadyRate
from mdi_exit_ros.task import PeerId, Status, Task

# As the ROS nodes have them.
SHORTEST_TICK_S = 0.005
LOOK_S = 0.05
REPORT_PERIOD_S = 0.05
CLUSTER_PERIOD_S = 0.2
READ_CHUNK = 16
READ_AHEAD = 144
LOAD_S = 0.5  # for a worker to load segments beside what it runs

MESSAGE_NBYTES = 200  # of a message of tasks or answers, without them
TASK_NBYTES = 60  # per task besides its tensor
ANSWER_NBYTES = 40
STATUS_NBYTES = 300
STREAM_NBYTES = 90  # per stream that a status speaks of

Trace = Callable[[float, str, Any], None]


class Carrier(Protocol):
    """What carries a shell's messages to others."""

    def tasks(self, sender: PeerId, action: SendTasks, nbytes: int) -> None:
        """Carries a batch of tasks of `nbytes` to its receiver."""

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


class SimulatedWorker(Node):
    """A worker: computing takes its measured time, on threads of its own.

    Args:
        times: of segments on a core of speed 1.
        lanes: threads that share a batch.
        said: class (0 when right) and confidence of each exit, by exit and image.
        image_of: the image that a frame shows.
    """

    core: WorkerCore | None

    def __init__(
        self,
        core: WorkerCore,
        *,
        carrier: Carrier,
        times: BackendProfile,
        lanes: int,
        said: list[tuple[list[int], list[float]]],
        image_of: Callable[[Task], int],
        **node: Any,
    ) -> None:
        super().__init__(core.setup.me.name, core, **node)
        self.me = core.setup.me
        self.report: WorkerReport | None = None
        self._input_nbytes = core.setup.input_nbytes
        self._carrier = carrier
        self._times = times
        self._lanes = lanes
        self._said = said
        self._image_of = image_of

    def take_tasks(self, event: TasksReceived, nbytes: int) -> None:
        """A batch has arrived."""
        costs = self.costs
        self.take(event, costs.receive_us + costs.kilobyte_us * nbytes / 1000.0 + costs.task_us * len(event.tasks))

    def perform(self, action: WorkerAction) -> None:
        """Does what the core asks."""
        costs = self.costs
        match action:
            case RunBatch():
                self.thread.run(0.0, lambda: self._compute(action))
            case LoadSegments():
                loaded = SegmentsLoaded(action.segments)
                self.clock.after(LOAD_S, lambda: self.take(loaded, 0.0))
            case SendTasks():
                content = sum(self._input_nbytes[task.segment - 1] for task in action.tasks)
                nbytes = MESSAGE_NBYTES + content + TASK_NBYTES * len(action.tasks)
                work_us = costs.send_us + costs.kilobyte_us * content / 1000.0
                self.publish(work_us, lambda: self._carrier.tasks(self.me, action, nbytes))
            case SendAnswers():
                nbytes = MESSAGE_NBYTES + ANSWER_NBYTES * len(action.answers)
                self.publish(costs.send_us, lambda: self._carrier.answers(self.me, action, nbytes))
            case PublishWorkerReport():
                self.report = report = action.report
                nbytes = STATUS_NBYTES + STREAM_NBYTES * len(report.streams)
                self.publish(costs.status_out_us, lambda: self._carrier.worker_report(report, nbytes))
            case Forget() | Finished() | Warn():
                pass
            case _:
                assert_never(action)

    def _compute(self, batch: RunBatch) -> None:
        count = len(batch.tasks)
        lanes = lanes_used(self._lanes, count)
        part = -(-count // lanes)
        began = self.clock.now
        core = self.core

        def done() -> None:
            if self.core is not core:
                return
            class_ids, confidences = self._said[batch.segment - 1]
            images = [self._image_of(task) for task in batch.tasks]
            event = ServiceDone(
                tuple(confidences[image] for image in images),
                tuple(class_ids[image] for image in images),
                self.clock.now - began,
            )
            self.thread.run((self.costs.batch_us + self.costs.task_us * count) * 1e-6, lambda: self.feed(event))

        self.processor.run(self._times.seconds(batch.segment, part), done, threads=lanes, owner=self.thread)


class SimulatedSource(Node):
    """A camera source.

    Args:
        camera: when frames come.
        asks: frames are offered only as there is room for them.
        frames: to offer in all; None for endless.
        finished: called when every frame has its end.
    """

    core: SourceCore | None

    def __init__(
        self,
        core: SourceCore,
        *,
        carrier: Carrier,
        camera: Camera,
        asks: bool,
        frames: int | None,
        input_nbytes: int,
        finished: Callable[[], None],
        **node: Any,
    ) -> None:
        super().__init__(core.setup.me.name, core, **node)
        self.me = core.setup.me
        self._home = core
        self._carrier = carrier
        self._camera = camera
        self._asks = asks
        self._frames = frames
        self._input_nbytes = input_nbytes
        self._on_finished = finished
        self._offered = 0
        self._input_over = False
        self._ready = 0
        self._reading = False
        self._others: dict[str, WorkerReport] = {}
        self._looked_at = float("-inf")
        self.steady = SteadyRate(frames or 0)
        self.began_at: float | None = None
        self.closed_at = 0.0
        self.closed = 0
        self.is_finished = False

    def begin(self) -> None:
        """Starts the life of the node."""
        self._ready = READ_AHEAD
        super().begin()

    def take_answers(self, event: AnswersReceived) -> None:
        """Answers have arrived."""
        self.take(event, self.costs.receive_us)

    def take_report(self, report: WorkerReport) -> None:
        """A worker's status has arrived: the home worker's counts at once, the others' at the next look."""
        if self.core is None:
            return
        if report.worker.name == self.core.home:
            self.take(report, self.costs.status_in_us)
        else:
            self._others[report.worker.name] = report

    def feed(self, event: Any) -> None:
        """Besides, does what is due."""
        super().feed(event)
        self._house()

    def due(self) -> float:
        """When anything is due (s)."""
        due = min(super().due(), self._looked_at + LOOK_S)
        if not self._input_over and self._ready and self._camera.due_at > self.clock.now:
            due = min(due, self._camera.due_at)
        return due

    def settle(self) -> None:
        """Nothing to do for one that has finished."""
        if not self.is_finished:
            super().settle()

    def _tick(self) -> None:
        super()._tick()
        self._house()

    def _house(self) -> None:
        if self.core is None or self.is_finished:
            return
        now = self.clock.now
        if now >= self._looked_at + LOOK_S:
            self._looked_at = now
            others, self._others = self._others, {}
            for report in others.values():
                self._step(report)
        self._offer(now)
        self.settle()

    def _offer(self, now: float) -> None:
        assert self.core is not None
        while not self._input_over and self._ready and self._camera.due_at <= now:
            room = self.core.room if self._asks else self._ready
            first = self._offered
            while room > 0 and self._ready and self._camera.due_at <= now and not self._input_over:
                room -= 1
                self._ready -= 1
                self._offered += 1
                self._camera.next(now)
                self._input_over = self._camera.ended or self._offered == self._frames
            count = self._offered - first
            if not count:
                break
            if self.began_at is None:
                self.began_at = now
            self.thread.run(self.costs.frame_us * count * 1e-6, lambda: None)
            self._step(FramesOffered(first, (0,) * count))
            if self._input_over:
                self._step(InputEnded())
        self._read_on()

    def _read_on(self) -> None:
        """Reads ahead, on a thread of its own."""
        if self._reading or self._ready > READ_AHEAD - READ_CHUNK or self._input_over:
            return
        self._reading = True

        def done() -> None:
            self._reading = False
            was_hungry = not self._ready
            self._ready += READ_CHUNK
            if was_hungry:
                self.thread.run(0.0, self._house)
            else:
                self._read_on()

        if self.costs.read_us:
            self.processor.run(READ_CHUNK * self.costs.read_us * 1e-6, done, owner=self.thread)
        else:
            self.clock.after(0.0, done)

    def perform(self, action: SourceAction) -> None:
        """Does what the core asks."""
        costs = self.costs
        match action:
            case SendTasks():
                content = self._input_nbytes * len(action.tasks)
                nbytes = MESSAGE_NBYTES + content + TASK_NBYTES * len(action.tasks)
                work_us = costs.send_us + costs.kilobyte_us * content / 1000.0
                self.publish(work_us, lambda: self._carrier.tasks(self.me, action, nbytes))
            case CloseFrame():
                self.closed_at = self.clock.now
                self.closed += 1
                self.steady.note(answered=action.status is Status.OK, now=self.closed_at)
            case PublishSourceReport():
                report = action.report
                nbytes = STATUS_NBYTES + STREAM_NBYTES * len(report.streams)
                self.publish(costs.status_out_us, lambda: self._carrier.source_report(report, nbytes))
            case Finished():
                self.is_finished = True
                self._on_finished()
            case Warn():
                pass
            case _:
                assert_never(action)


class SimulatedController(Node):
    """A controller; `timeline` has what it saw of the cluster, five times a second."""

    core: ControllerCore | None

    def __init__(self, core: ControllerCore, *, carrier: Carrier, **node: Any) -> None:
        super().__init__(core.setup.me.name, core, **node)
        self._carrier = carrier
        self._reports: dict[str, WorkerReport | SourceReport] = {}
        self._looked_at = self._cluster_at = float("-inf")
        self.timeline: list[tuple[float, ClusterSummary]] = []

    def take_report(self, report: WorkerReport | SourceReport) -> None:
        """A status has arrived; only the newest of each counts."""
        name = report.worker.name if isinstance(report, WorkerReport) else report.source.name
        self._reports[name] = report

    def due(self) -> float:
        """When anything is due (s)."""
        return min(super().due(), self._looked_at + REPORT_PERIOD_S)

    def _tick(self) -> None:
        now = self.clock.now
        if self.core is not None and now >= self._looked_at + REPORT_PERIOD_S:
            self._looked_at = now
            reports, self._reports = self._reports, {}
            for report in reports.values():
                self._step(report)
            if now >= self._cluster_at + CLUSTER_PERIOD_S:
                self._cluster_at = now
                self.timeline.append((now, self.core.cluster(now)))
        super()._tick()

    def perform(self, action: Any) -> None:
        """Publishes the policy."""
        match action:
            case PublishPolicy():
                self.publish(self.costs.status_out_us, lambda: self._carrier.policy(action.policy))
            case Warn():
                pass
