# SPDX-License-Identifier: Apache-2.0
"""What can happen to a core. Times inside are durations (s) or stamps of the clock named beside them."""

from __future__ import annotations

from typing import NamedTuple

from mdi_exit_ros.policy.admission import AdaptationSettings, Curve
from mdi_exit_ros.task import Answer, Mode, PeerId, Reason, State, Task


class StreamReport(NamedTuple):
    """What one node says of its streams from and to one peer.

    Attributes:
        peer: the life of the peer that this speaks of.
        open: its stream to this node is open; until then it sends empty batches to open it. A source's stream to a
            worker carries tasks, a worker's to a source carries answers.
        received: cumulative frames received from it.
        credit: frames it may send beyond `received`.
        sent: cumulative frames sent to it.
        echo_stamp: newest status stamp heard from it (its clock, s); negative when none.
        echo_hold_s: time between hearing that and sending this report.
        batch_echo_stamp: stamp of the newest batch received from it; negative when none.
        batch_echo_hold_s: time between receiving that and sending this report.
        transfer_delay_s: measured delay of one task to it (s); negative while unknown.
        moving_s: the part of that which grows with the size of a task (s); negative while unknown.
    """

    peer: PeerId
    open: bool = False
    received: int = 0
    credit: int = 0
    sent: int = 0
    echo_stamp: float = -1.0
    echo_hold_s: float = 0.0
    batch_echo_stamp: float = -1.0
    batch_echo_hold_s: float = 0.0
    transfer_delay_s: float = -1.0
    moving_s: float = -1.0


class WorkerCounters(NamedTuple):
    """Counts since the worker's life began, in frames unless the name says otherwise."""

    received_total: int = 0
    served: int = 0
    batches: int = 0
    answered: int = 0
    moved: int = 0
    moved_bytes: int = 0
    refused: int = 0
    failed: int = 0
    superseded: int = 0
    lost: int = 0


class WorkerReport(NamedTuple):
    """One WorkerStatus: load, acknowledgements and credit of a worker.

    Attributes:
        backlog_s: integral of I + O over the life of the worker (frames x s).
        prepared_model_id: model that is loaded beside `model_id`; empty when none is.
    """

    worker: PeerId
    model_id: str
    state: State
    segments: tuple[int, ...]
    stamp: float
    input_queue: int
    output_queue: int
    service_time_s: float
    segment_service_time_s: tuple[float, ...]
    busy_s: float
    policy_version: int
    counters: WorkerCounters
    streams: tuple[StreamReport, ...]
    backlog_s: float = 0.0
    prepared_model_id: str = ""


class LedgerCounts(NamedTuple):
    """Where a source's frames are: offered = refused + ok + failed + waiting + in_flight, always."""

    offered: int = 0
    admitted: int = 0
    refused: int = 0
    ok: int = 0
    failed: int = 0
    waiting: int = 0
    in_flight: int = 0
    retries: int = 0
    duplicates: int = 0
    labelled: int = 0
    correct: int = 0


class SourceReport(NamedTuple):
    """One SourceStatus: ledger and streams of a camera source.

    `streams` says what was sent to each entry worker, and for every worker whether its answers can be heard (`open`).
    """

    source: PeerId
    model_id: str
    state: State
    stamp: float
    home: str
    counts: LedgerCounts
    exits: tuple[int, ...]
    refused_reasons: tuple[tuple[str, int], ...]
    failed_reasons: tuple[tuple[str, int], ...]
    total: int
    waiting_for_credit: int
    offered_interval_s: float
    latency_ms: tuple[float, float, float]  # p50, p95, p99
    policy_version: int
    streams: tuple[StreamReport, ...]


Allocation = tuple[tuple[str, tuple[int, ...]], ...]  # workers, and the segments 1..K that each shall hold


class AppliedPolicy(NamedTuple):
    """One Policy: what a controller applies. Thresholds are T_e^1..T_e^(K-1); intervals in s, 0 admits at once.

    Workers named in `allocation` load what they shall hold; once it is final they drop everything else. Workers load
    `model` beside what they run; once it is final sources and workers change to it. An empty `model` asks for none.
    Thresholds are for `thresholds_model_id` alone, or for any model where that is empty.
    """

    controller: PeerId
    priority: int
    version: int
    mode: Mode
    exit_thresholds: tuple[float, ...]
    admission_interval_s: float
    source_intervals_s: tuple[tuple[str, float], ...]
    output_threshold: int
    smoothing: float
    allocation: Allocation = ()
    allocation_final: bool = True
    thresholds_model_id: str = ""
    model: str = ""
    model_id: str = ""
    model_final: bool = True

    def interval_for(self, source: str) -> float:
        """Admission interval mu (s) of the named source."""
        return dict(self.source_intervals_s).get(source, self.admission_interval_s)


# ---- events of the worker ---------------------------------------------------------------------------------


class TasksReceived(NamedTuple):
    """A batch arrived: `sent_total` counts all frames of the stream, this batch included. No tasks: the stream opens.

    `receiver_incarnation` is the life of this worker that the sender meant, `stamp` is the sender's clock.
    """

    sender: PeerId
    receiver_incarnation: int
    sent_total: int
    stamp: float
    model_id: str
    tasks: tuple[Task, ...]


class TasksRejected(NamedTuple):
    """A batch arrived whose tensor the shell cannot use; the tasks go back to their source with `reason`.

    The other fields are those of TasksReceived.
    """

    sender: PeerId
    receiver_incarnation: int
    sent_total: int
    stamp: float
    tasks: tuple[Task, ...]
    reason: Reason


class ServiceDone(NamedTuple):
    """The batch of a lane is done: class and its calibrated confidence (0..1) per task of RunBatch, in its order."""

    confidences: tuple[float, ...]
    class_ids: tuple[int, ...]
    duration_s: float
    lane: int = 0


class ServiceFailed(NamedTuple):
    """The batch of a lane raised an error; every task of it fails."""

    lane: int = 0


class SegmentsLoaded(NamedTuple):
    """What LoadSegments asked for can be run from now on; `loaded` false: it cannot, and the shell has said why."""

    segments: tuple[int, ...]
    loaded: bool = True


class ModelLoaded(NamedTuple):
    """What LoadModel asked for can be run from now on; `loaded` false: it cannot, and the shell has said why."""

    model_id: str
    loaded: bool = True


class Shutdown(NamedTuple):
    """The node is about to stop: everything held goes back with that reason."""


class Tick(NamedTuple):
    """Time has passed; `next_deadline` says when one is due."""


# ---- events of the source ---------------------------------------------------------------------------------


class FramesOffered(NamedTuple):
    """The camera gave frames `sequence`, `sequence` + 1, ... (0, 1, 2, ... without gaps), one per label.

    A label is the frame's true class, None where unknown.
    """

    sequence: int
    labels: tuple[int | None, ...]


class FrameUnreadable(NamedTuple):
    """The camera's frame `sequence` could not be decoded; it is offered and refused in one."""

    sequence: int


class AnswersReceived(NamedTuple):
    """A worker answered the life `source`. No answers: the stream opens, from now on this source hears the worker.

    `received` and `credit` are those of the source's own stream to that worker, as in StreamReport.
    """

    worker: PeerId
    source: PeerId
    answers: tuple[Answer, ...]
    received: int = 0
    credit: int = 0


class InputEnded(NamedTuple):
    """No more frames will be offered; when all are closed the source is finished."""


# ---- events of the controller -------------------------------------------------------------------------------


class SetPoints(NamedTuple):
    """What users ask for: thresholds T_e^1..T_e^(K-1) in 0..1, frames/s (0: unlimited), accuracy 0..1 (0: unused)."""

    mode: Mode
    exit_thresholds: tuple[float, ...]
    admission_rate_hz: float
    target_accuracy: float


class SetPointsChanged(NamedTuple):
    """A user changed parameters: the new set-points and constants."""

    set_points: SetPoints
    settings: AdaptationSettings


class ModelFacts(NamedTuple):
    """What a controller knows of a model.

    Attributes:
        model: name or folder, as nodes find it.
        model_id: content hash of partition and weights.
        exit_thresholds: T_e^1..T_e^(K-1) to start with.
        curve: calibrated points, see ControllerSetup.
        segment_costs: K costs in any unit.
        input_nbytes: bytes per frame of the input of segment 1..K, in proportion.
    """

    model: str
    model_id: str
    exit_thresholds: tuple[float, ...]
    curve: Curve = ()
    segment_costs: tuple[float, ...] = ()
    input_nbytes: tuple[int, ...] = ()


class ModelWanted(NamedTuple):
    """A user wants the cluster to run another model, of the same input, classes and number of segments."""

    facts: ModelFacts


WorkerEvent = (
    TasksReceived
    | TasksRejected
    | ServiceDone
    | ServiceFailed
    | SegmentsLoaded
    | ModelLoaded
    | WorkerReport
    | SourceReport
    | AppliedPolicy
    | Shutdown
    | Tick
)
SourceEvent = (
    FramesOffered | FrameUnreadable | AnswersReceived | InputEnded | WorkerReport | AppliedPolicy | Shutdown | Tick
)
ControllerEvent = SetPointsChanged | ModelWanted | WorkerReport | SourceReport | AppliedPolicy | Tick
