# SPDX-License-Identifier: Apache-2.0
"""What a core asks its shell to do. The shell performs actions in the order given."""

from __future__ import annotations

from typing import NamedTuple

from mdi_exit_ros.policy.events import AppliedPolicy, SourceReport, WorkerReport
from mdi_exit_ros.task import Answer, PeerId, Reason, Status, Task


class RunBatch(NamedTuple):
    """Run one segment on these tasks; the end comes back as ServiceDone or ServiceFailed. One batch per lane."""

    segment: int
    tasks: tuple[Task, ...]
    lane: int = 0


class LoadSegments(NamedTuple):
    """Load these segments beside what is loaded, without holding up the work; the end comes back as SegmentsLoaded."""

    segments: tuple[int, ...]


class LoadModel(NamedTuple):
    """Load segments of another model beside what runs, without holding up the work; the end comes as ModelLoaded.

    `model` is a name or folder, `model_id` the content hash that it must have.
    """

    model: str
    model_id: str
    segments: tuple[int, ...]


class ChangeModel(NamedTuple):
    """Go on with another model. A worker's life ends with this: a new one begins with what LoadModel has loaded."""

    model: str
    model_id: str


class SendTasks(NamedTuple):
    """Send one batch: all tasks are of one source and wait for one segment. No tasks: open the stream.

    `sent_total` includes this batch; `stamp` is this node's clock (s).
    """

    receiver: PeerId
    sent_total: int
    stamp: float
    tasks: tuple[Task, ...]


class SendAnswers(NamedTuple):
    """Send answers to one source, and what its stream to here may carry. No answers: open the stream of answers."""

    source: PeerId
    answers: tuple[Answer, ...]
    received: int = 0
    credit: int = 0


class Forget(NamedTuple):
    """The core no longer holds these tasks: free the tensors of their (frame, attempt), after this step's sends."""

    tasks: tuple[Task, ...]


class PublishWorkerReport(NamedTuple):
    """Publish a WorkerStatus."""

    report: WorkerReport


class PublishSourceReport(NamedTuple):
    """Publish a SourceStatus."""

    report: SourceReport


class CloseFrame(NamedTuple):
    """The frame got its one end: publish its Classification and free its image.

    `exit` is 1..K and `class_id`, `worker` and `confidence` are valid when OK; `reason` says why otherwise.
    `latency_s` is from offered to closed.
    """

    sequence: int
    status: Status
    reason: Reason
    exit: int
    class_id: int
    attempt: int
    latency_s: float
    worker: str = ""
    confidence: float = 0.0


class Finished(NamedTuple):
    """Nothing is left to do: the worker holds nothing, or every offered frame of the source is closed."""


class PublishPolicy(NamedTuple):
    """Publish the applied policy and mirror it in `applied.*`."""

    policy: AppliedPolicy


class ShowModel(NamedTuple):
    """A change of model has ended: from now on these are the set-points, whatever was wanted."""

    model: str
    exit_thresholds: tuple[float, ...]


class Warn(NamedTuple):
    """Tell the user once; `key` names the condition, so that the shell can say it once per key."""

    key: str
    text: str


WorkerAction = (
    RunBatch
    | LoadSegments
    | LoadModel
    | ChangeModel
    | SendTasks
    | SendAnswers
    | Forget
    | PublishWorkerReport
    | Finished
    | Warn
)
SourceAction = SendTasks | ChangeModel | CloseFrame | PublishSourceReport | Finished | Warn
ControllerAction = PublishPolicy | ShowModel | Warn
