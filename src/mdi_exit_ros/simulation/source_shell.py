# SPDX-License-Identifier: Apache-2.0
"""The simulated camera source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

from mdi_exit_ros.policy.actions import (
    ChangeModel,
    CloseFrame,
    Finished,
    PublishSourceReport,
    SendTasks,
    SourceAction,
    Warn,
)
from mdi_exit_ros.policy.cadence import LOOK_S, READ_CHUNK, READ_PREFETCH
from mdi_exit_ros.policy.events import (
    AnswersReceived,
    FramesOffered,
    InputEnded,
    WorkerReport,
)
from mdi_exit_ros.policy.source import SourceCore
from mdi_exit_ros.simulation.arrivals import Camera
from mdi_exit_ros.simulation.shells import (
    MESSAGE_NBYTES,
    STATUS_NBYTES,
    STREAM_NBYTES,
    TASK_NBYTES,
    Carrier,
    Node,
)
from mdi_exit_ros.summary import SteadyRate
from mdi_exit_ros.task import Status

READ_AHEAD = READ_CHUNK * (READ_PREFETCH + 1)  # ready, and in the reader's hands


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
                model_id = self.core.setup.model_id if self.core is not None else ""
                work_us = costs.send_us + costs.kilobyte_us * content / 1000.0
                self.publish(work_us, lambda: self._carrier.tasks(self.me, model_id, action, nbytes))
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
            case ChangeModel() | Warn():
                pass
            case _:
                assert_never(action)
