# SPDX-License-Identifier: Apache-2.0
"""The simulated worker: computing takes its measured time, on threads of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_never

from mdi_exit_ros.policy.actions import (
    ChangeModel,
    Finished,
    Forget,
    LoadModel,
    LoadSegments,
    PublishWorkerReport,
    RunBatch,
    SendAnswers,
    SendTasks,
    Warn,
    WorkerAction,
)
from mdi_exit_ros.policy.events import (
    ModelLoaded,
    SegmentsLoaded,
    ServiceDone,
    TasksReceived,
    WorkerReport,
)
from mdi_exit_ros.policy.worker import WorkerCore
from mdi_exit_ros.profile import BackendProfile
from mdi_exit_ros.simulation.shells import (
    ANSWER_NBYTES,
    LOAD_S,
    MESSAGE_NBYTES,
    STATUS_NBYTES,
    STREAM_NBYTES,
    TASK_NBYTES,
    Carrier,
    Node,
)
from mdi_exit_ros.task import Task


class SimulatedWorker(Node):
    """A worker: computing takes its measured time, on threads of its own.

    Args:
        times: of segments on a core of speed 1.
        said: class (0 when right) and confidence of each exit, by exit and image.
        image_of: the image that a frame shows.
        change: begins a new life of this worker with the segments of another model.
    """

    core: WorkerCore | None

    def __init__(
        self,
        core: WorkerCore,
        *,
        carrier: Carrier,
        times: BackendProfile,
        said: list[tuple[list[int], list[float]]],
        image_of: Callable[[Task], int],
        change: Callable[[LoadModel], None],
        **node: Any,
    ) -> None:
        super().__init__(core.setup.me.name, core, **node)
        self.me = core.setup.me
        self.report: WorkerReport | None = None
        self._input_nbytes = core.setup.input_nbytes
        self._model_id = core.setup.model_id
        self._carrier = carrier
        self._times = times
        self._said = said
        self._image_of = image_of
        self._change = change
        self._next: LoadModel | None = None

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
            case LoadModel():
                self._next = action
                prepared = ModelLoaded(action.model_id)
                self.clock.after(LOAD_S, lambda: self.take(prepared, 0.0))
            case ChangeModel():
                assert self._next is not None
                self._change(self._next)
            case SendTasks():
                content = sum(self._input_nbytes[task.segment - 1] for task in action.tasks)
                nbytes = MESSAGE_NBYTES + content + TASK_NBYTES * len(action.tasks)
                work_us = costs.send_us + costs.kilobyte_us * content / 1000.0
                self.publish(work_us, lambda: self._carrier.tasks(self.me, self._model_id, action, nbytes))
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
                batch.lane,
            )
            self.thread.run((self.costs.batch_us + self.costs.task_us * count) * 1e-6, lambda: self.feed(event))

        self.processor.run(self._times.seconds(batch.segment, count), done, owner=self.thread)
