# SPDX-License-Identifier: Apache-2.0
"""Every message <-> domain object. What a peer sent and nobody can use raises MessageError."""

from __future__ import annotations

import array
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Header

from mdi_exit_msgs.msg import (
    Classification,
    ClusterStatus,
    Policy,
    ResultBatch,
    SourceStatus,
    TaskBatch,
    WorkerStatus,
)
from mdi_exit_ros import codec
from mdi_exit_ros.errors import MessageError
from mdi_exit_ros.nodes.wire import Wire
from mdi_exit_ros.policy.actions import CloseFrame, SendAnswers, SendTasks
from mdi_exit_ros.policy.controller import ClusterSummary
from mdi_exit_ros.policy.events import (
    Allocation,
    AnswersReceived,
    AppliedPolicy,
    LedgerCounts,
    SourceReport,
    StreamReport,
    TasksReceived,
    TasksRejected,
    WorkerCounters,
    WorkerReport,
)
from mdi_exit_ros.task import Answer, FrameId, Mode, PeerId, Reason, State, Status, Task


@contextmanager
def _fields_of(kind: str, sender: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError) as error:
        raise MessageError(f"{kind} of {sender or 'an unnamed sender'} cannot be used: {error}") from error


COUNT_MAX = 1 << 48  # of frames; more is no count, and sums of such would not fit a message


def _check_counts(**counts: int) -> None:
    for field, count in counts.items():
        if count > COUNT_MAX:
            raise ValueError(f"expected {field} of at most {COUNT_MAX}, got {count}")


def _check_numbers(**numbers: float | Sequence[float]) -> None:
    # A sum is finite where all its terms are: one look at all of them, and a second to name the culprit.
    if math.isfinite(sum(value if isinstance(value, float) else sum(value) for value in numbers.values())):
        return
    for field, values in numbers.items():
        if not np.isfinite(values).all():
            raise ValueError(f"expected finite {field}, got {values}")


# ---- tasks ------------------------------------------------------------------------------------------------


TASK_BATCH = Wire(TaskBatch, blobs=("data",))


def tasks_to_message(
    action: SendTasks,
    me: PeerId,
    model_id: str,
    now: float,
    values: Sequence[NDArray[Any]],
    encoding: str = codec.RAW,
) -> bytes:
    """The TaskBatch of `action`, serialized.

    Args:
        encoding: of features, one of `codec.ENCODINGS`.
        values: arrays [b, ...] that together hold one row per task; none for a batch that opens the stream.
    """
    stream = {
        "sender": me.name,
        "sender_incarnation": me.incarnation,
        "receiver_incarnation": action.receiver.incarnation,
        "sent_total": action.sent_total,
        "stamp": action.stamp,
        "model_id": model_id,
    }
    if not values:
        return TASK_BATCH.write(**stream)
    source = action.tasks[0].frame.source
    return TASK_BATCH.write(
        **stream,
        source=source.name,
        source_incarnation=source.incarnation,
        next_segment=action.tasks[0].segment,
        priority=action.tasks[0].priority,
        sequence=[task.frame.sequence for task in action.tasks],
        attempt=[task.attempt for task in action.tasks],
        elapsed_s=[now - task.admitted_at for task in action.tasks],
        remaining_s=[task.expires_at - now for task in action.tasks],
        **codec.encode(values, encoding)._asdict(),
    )


def tasks_received(action: SendTasks, me: PeerId, model_id: str) -> TasksReceived:
    """What the receiver of `action` learns where it lives in the sender's process."""
    return TasksReceived(
        me, action.receiver.incarnation, action.sent_total, action.stamp, model_id, tuple(action.tasks)
    )


def tasks_from_message(message: Any, now: float, num_segments: int) -> TasksReceived:
    """The tasks of a TaskBatch, with times of this computer's clock; the tensor is read by `tensor_from_message`.

    Args:
        message: as TASK_BATCH reads it.
        now: local monotonic time (s).
        num_segments: K.

    Raises:
        MessageError: the per-frame arrays disagree, the segment is not in 1..K, or a number is none.
    """
    with _fields_of("TaskBatch", message.sender):
        source = PeerId(message.source, message.source_incarnation)
        if len(message.sequence) > codec.ROWS_MAX:
            raise ValueError(f"expected at most {codec.ROWS_MAX} frames in a batch, got {len(message.sequence)}")
        _check_counts(sent_total=message.sent_total)
        _check_numbers(stamp=message.stamp)
        if len(message.sequence) and not 1 <= message.next_segment <= num_segments:
            raise ValueError(f"expected next_segment in 1..{num_segments}, got {message.next_segment}")
        tasks = tuple(
            Task(
                FrameId(source, sequence),
                attempt,
                message.next_segment,
                now - elapsed_s,
                now + remaining_s,
                message.priority,
            )
            for sequence, attempt, elapsed_s, remaining_s in zip(
                message.sequence, message.attempt, message.elapsed_s, message.remaining_s, strict=True
            )
        )
        if not all(math.isfinite(task.admitted_at) and math.isfinite(task.expires_at) for task in tasks):
            raise ValueError("expected finite elapsed_s and remaining_s")
        if len({task.frame for task in tasks}) < len(tasks):
            raise ValueError("a frame came twice in one batch")
    return TasksReceived(
        PeerId(message.sender, message.sender_incarnation),
        message.receiver_incarnation,
        message.sent_total,
        message.stamp,
        message.model_id,
        tasks,
    )


def tensor_from_message(message: Any, row_shape: Sequence[int], dtype: str) -> NDArray[Any]:
    """The tensor [B, *row_shape] of a TaskBatch; shares the message's memory where it came raw.

    Raises:
        CodecError: shape, element type or byte count are not those of B such rows.
    """
    expected = (len(message.sequence), *row_shape)
    if tuple(message.shape) != expected or message.dtype != dtype:
        raise codec.CodecError(
            f"TaskBatch of {message.sender}: expected {dtype} of shape {expected} for segment {message.next_segment}, "
            f"got {message.dtype or 'nothing'} of shape {tuple(message.shape)}"
        )
    try:
        return codec.decode(message.dtype, message.shape, message.encoding, message.data)
    except codec.CodecError as error:
        raise codec.CodecError(f"TaskBatch of {message.sender}: {error}") from error


def rejection_of(message: Any, now: float, reason: Reason) -> TasksRejected:
    """A TaskBatch that cannot be used, as far as it can be read: its frames go back to their source."""
    source = PeerId(message.source, message.source_incarnation)
    usable = message.sent_total <= COUNT_MAX and math.isfinite(message.stamp)  # else it moves no stream on
    sequences = message.sequence[: codec.ROWS_MAX]
    attempts = message.attempt if len(message.attempt) == len(message.sequence) else [1] * len(sequences)
    return TasksRejected(
        PeerId(message.sender, message.sender_incarnation),
        message.receiver_incarnation,
        message.sent_total if usable else 0,
        message.stamp if usable else -1.0,
        tuple(
            Task(FrameId(source, sequence), attempt, 1, now, now)
            for sequence, attempt in zip(sequences, attempts, strict=False)
        ),
        reason,
    )


# ---- answers ----------------------------------------------------------------------------------------------


def answers_to_message(worker: PeerId, action: SendAnswers) -> ResultBatch:
    """The ResultBatch by which `worker` answers a source."""
    answers = action.answers
    return ResultBatch(
        worker=worker.name,
        worker_incarnation=worker.incarnation,
        source=action.source.name,
        source_incarnation=action.source.incarnation,
        received=action.received,
        credit=action.credit,
        sequence=array.array("Q", [answer.frame.sequence for answer in answers]),
        attempt=array.array("H", [answer.attempt for answer in answers]),
        status=array.array("B", [answer.status for answer in answers]),
        reason=array.array("B", [answer.reason for answer in answers]),
        exit=array.array("B", [answer.exit for answer in answers]),
        class_id=array.array("H", [answer.class_id for answer in answers]),
        confidence=array.array("f", [answer.confidence for answer in answers]),
    )


def answers_received(worker: PeerId, action: SendAnswers) -> AnswersReceived:
    """What the source learns where it lives in the process of `worker`."""
    return AnswersReceived(worker, action.source, tuple(action.answers), action.received, action.credit)


def answers_from_message(message: ResultBatch, num_segments: int, num_classes: int) -> AnswersReceived:
    """The answers of a ResultBatch.

    Raises:
        MessageError: the arrays disagree, or a status, reason, exit, class or confidence is out of range.
    """
    source = PeerId(message.source, message.source_incarnation)
    worker = PeerId(message.worker, message.worker_incarnation)
    answers = []
    with _fields_of("ResultBatch", message.worker):
        _check_counts(received=message.received)
        for sequence, attempt, status, reason, exit_number, class_id, confidence in zip(
            message.sequence,
            message.attempt,
            message.status,
            message.reason,
            message.exit,
            message.class_id,
            message.confidence,
            strict=True,
        ):
            ended = Status(status)
            if ended is Status.OK and not (
                1 <= exit_number <= num_segments and class_id < num_classes and 0.0 <= confidence <= 1.001
            ):
                raise ValueError(
                    f"expected exit 1..{num_segments}, class below {num_classes} and confidence in 0..1, "
                    f"got {exit_number}, {class_id} and {confidence}"
                )
            frame = FrameId(source, sequence)
            answers.append(Answer(frame, attempt, ended, Reason(reason), exit_number, class_id, confidence))
    return AnswersReceived(worker, source, tuple(answers), message.received, message.credit)


def classification_to_message(
    closed: CloseFrame, header: Header, source: str, class_names: Sequence[str]
) -> Classification:
    """The Classification of a frame that got its end."""
    ok = closed.status is Status.OK
    return Classification(
        header=header,
        source=source,
        sequence=closed.sequence,
        status=int(closed.status),
        reason="" if ok else closed.reason.label,
        class_id=closed.class_id,
        class_name=class_names[closed.class_id] if ok else "",
        confidence=closed.confidence,
        exit=closed.exit,
        attempt=closed.attempt,
        worker=closed.worker,
        latency_s=closed.latency_s,
    )


# ---- reports ----------------------------------------------------------------------------------------------


def worker_report_to_message(report: WorkerReport, rss_bytes: int, cpu_s: float) -> WorkerStatus:
    """The WorkerStatus of a report, with the memory (bytes) and processor time (s) of its process."""
    streams = report.streams
    message = WorkerStatus(
        name=report.worker.name,
        incarnation=report.worker.incarnation,
        model_id=report.model_id,
        state=int(report.state),
        segments=array.array("B", report.segments),
        stamp=report.stamp,
        input_queue=report.input_queue,
        output_queue=report.output_queue,
        backlog_s=report.backlog_s,
        prepared_model_id=report.prepared_model_id,
        service_time_s=report.service_time_s,
        segment_service_time_s=array.array("f", report.segment_service_time_s),
        busy_s=report.busy_s,
        policy_version=report.policy_version,
        rss_bytes=rss_bytes,
        cpu_s=cpu_s,
        peers=[stream.peer.name for stream in streams],
        peer_incarnation=array.array("Q", [stream.peer.incarnation for stream in streams]),
        open=[stream.open for stream in streams],
        received=array.array("Q", [stream.received for stream in streams]),
        credit=array.array("I", [stream.credit for stream in streams]),
        sent=array.array("Q", [stream.sent for stream in streams]),
        echo_stamp=array.array("d", [stream.echo_stamp for stream in streams]),
        echo_hold_s=array.array("f", [stream.echo_hold_s for stream in streams]),
        batch_echo_stamp=array.array("d", [stream.batch_echo_stamp for stream in streams]),
        batch_echo_hold_s=array.array("f", [stream.batch_echo_hold_s for stream in streams]),
        transfer_delay_s=array.array("f", [stream.transfer_delay_s for stream in streams]),
        moving_s=array.array("f", [stream.moving_s for stream in streams]),
    )
    for counter, value in report.counters._asdict().items():
        setattr(message, counter, value)
    return message


def worker_report_from_message(message: WorkerStatus) -> WorkerReport:
    """The report of a WorkerStatus.

    Raises:
        MessageError: the per-peer arrays disagree, the state is unknown, or a number is none.
    """
    with _fields_of("WorkerStatus", message.name):
        counters = WorkerCounters(*(getattr(message, counter) for counter in WorkerCounters._fields))
        frames = {name: count for name, count in counters._asdict().items() if name != "moved_bytes"}
        _check_counts(**frames, received=max(message.received, default=0), sent=max(message.sent, default=0))
        _check_numbers(
            stamp=message.stamp,
            service_time_s=message.service_time_s,
            segment_service_time_s=message.segment_service_time_s,
            busy_s=message.busy_s,
            backlog_s=message.backlog_s,
            cpu_s=message.cpu_s,
            echo_stamp=message.echo_stamp,
            echo_hold_s=message.echo_hold_s,
            batch_echo_stamp=message.batch_echo_stamp,
            batch_echo_hold_s=message.batch_echo_hold_s,
            transfer_delay_s=message.transfer_delay_s,
            moving_s=message.moving_s,
        )
        streams = tuple(
            StreamReport(PeerId(name, incarnation), *values)
            for name, incarnation, *values in zip(
                message.peers,
                message.peer_incarnation,
                message.open,
                message.received,
                message.credit,
                message.sent,
                message.echo_stamp,
                message.echo_hold_s,
                message.batch_echo_stamp,
                message.batch_echo_hold_s,
                message.transfer_delay_s,
                message.moving_s,
                strict=True,
            )
        )
        if len(message.segments) != len(message.segment_service_time_s):
            raise ValueError("segments and segment_service_time_s differ in length")
        return WorkerReport(
            worker=PeerId(message.name, message.incarnation),
            model_id=message.model_id,
            state=State(message.state),
            segments=tuple(message.segments),
            stamp=message.stamp,
            input_queue=message.input_queue,
            output_queue=message.output_queue,
            service_time_s=message.service_time_s,
            segment_service_time_s=tuple(message.segment_service_time_s),
            busy_s=message.busy_s,
            policy_version=message.policy_version,
            counters=counters,
            streams=streams,
            backlog_s=message.backlog_s,
            prepared_model_id=message.prepared_model_id,
        )


def source_report_to_message(report: SourceReport) -> SourceStatus:
    """The SourceStatus of a report."""
    message = SourceStatus(
        name=report.source.name,
        incarnation=report.source.incarnation,
        model_id=report.model_id,
        state=int(report.state),
        stamp=report.stamp,
        home=report.home,
        exits=array.array("Q", report.exits),
        refused_reason=[reason for reason, _ in report.refused_reasons],
        refused_count=array.array("Q", [count for _, count in report.refused_reasons]),
        failed_reason=[reason for reason, _ in report.failed_reasons],
        failed_count=array.array("Q", [count for _, count in report.failed_reasons]),
        total=report.total,
        waiting_for_credit=report.waiting_for_credit,
        offered_interval_s=report.offered_interval_s,
        latency_p50_ms=report.latency_ms[0],
        latency_p95_ms=report.latency_ms[1],
        latency_p99_ms=report.latency_ms[2],
        policy_version=report.policy_version,
        peers=[stream.peer.name for stream in report.streams],
        peer_incarnation=array.array("Q", [stream.peer.incarnation for stream in report.streams]),
        open=[stream.open for stream in report.streams],
        sent=array.array("Q", [stream.sent for stream in report.streams]),
    )
    for count, value in report.counts._asdict().items():
        setattr(message, count, value)
    return message


def source_report_from_message(message: SourceStatus) -> SourceReport:
    """The report of a SourceStatus.

    Raises:
        MessageError: parallel arrays disagree, the state is unknown, or a number is none.
    """
    with _fields_of("SourceStatus", message.name):
        counts = LedgerCounts(*(getattr(message, count) for count in LedgerCounts._fields))
        lists = {field: max(getattr(message, field), default=0) for field in ("exits", "sent", "refused_count")}
        _check_counts(**counts._asdict(), **lists, total=message.total)
        latency_ms = (message.latency_p50_ms, message.latency_p95_ms, message.latency_p99_ms)
        _check_numbers(stamp=message.stamp, offered_interval_s=message.offered_interval_s, latency_ms=latency_ms)
        return SourceReport(
            source=PeerId(message.name, message.incarnation),
            model_id=message.model_id,
            state=State(message.state),
            stamp=message.stamp,
            home=message.home,
            counts=counts,
            exits=tuple(message.exits),
            refused_reasons=tuple(zip(message.refused_reason, message.refused_count, strict=True)),
            failed_reasons=tuple(zip(message.failed_reason, message.failed_count, strict=True)),
            total=message.total,
            waiting_for_credit=message.waiting_for_credit,
            offered_interval_s=message.offered_interval_s,
            latency_ms=latency_ms,
            policy_version=message.policy_version,
            streams=tuple(
                StreamReport(PeerId(name, incarnation), opened, sent=sent)
                for name, incarnation, opened, sent in zip(
                    message.peers, message.peer_incarnation, message.open, message.sent, strict=True
                )
            ),
        )


# ---- policy and cluster -----------------------------------------------------------------------------------


def policy_to_message(policy: AppliedPolicy) -> Policy:
    """The Policy of what a controller applies."""
    return Policy(
        controller=policy.controller.name,
        controller_incarnation=policy.controller.incarnation,
        priority=policy.priority,
        version=policy.version,
        mode=int(policy.mode),
        exit_threshold=array.array("f", policy.exit_thresholds),
        admission_interval_s=policy.admission_interval_s,
        source=[source for source, _ in policy.source_intervals_s],
        source_admission_interval_s=array.array("d", [interval for _, interval in policy.source_intervals_s]),
        output_threshold=policy.output_threshold,
        smoothing=policy.smoothing,
        allocation_worker=[worker for worker, _ in policy.allocation],
        allocation_count=array.array("B", [len(segments) for _, segments in policy.allocation]),
        allocation_segment=array.array("B", [segment for _, segments in policy.allocation for segment in segments]),
        allocation_final=policy.allocation_final,
        thresholds_model_id=policy.thresholds_model_id,
        model=policy.model,
        model_id=policy.model_id,
        model_final=policy.model_final,
    )


def policy_from_message(message: Policy, num_segments: int) -> AppliedPolicy:
    """What a Policy applies.

    Raises:
        MessageError: not K-1 thresholds, a value that is not a number, arrays that disagree, or an unknown mode.
    """
    with _fields_of("Policy", message.controller):
        if len(message.exit_threshold) != num_segments - 1:
            raise ValueError(f"expected {num_segments - 1} exit thresholds, got {len(message.exit_threshold)}")
        numbers = (*message.exit_threshold, message.admission_interval_s, *message.source_admission_interval_s)
        if not np.isfinite(numbers).all() or min(numbers) < 0.0 or not 0.0 <= message.smoothing <= 1.0:
            raise ValueError("expected thresholds and intervals of 0 or more, and smoothing in 0..1")
        return AppliedPolicy(
            controller=PeerId(message.controller, message.controller_incarnation),
            priority=message.priority,
            version=message.version,
            mode=Mode(message.mode),
            exit_thresholds=tuple(message.exit_threshold),
            admission_interval_s=message.admission_interval_s,
            source_intervals_s=tuple(zip(message.source, message.source_admission_interval_s, strict=True)),
            output_threshold=message.output_threshold,
            smoothing=message.smoothing,
            allocation=_allocation(message, num_segments),
            allocation_final=message.allocation_final,
            thresholds_model_id=message.thresholds_model_id,
            model=message.model,
            model_id=message.model_id,
            model_final=message.model_final,
        )


def _allocation(message: Policy, num_segments: int) -> Allocation:
    counts, segments = message.allocation_count, message.allocation_segment
    if sum(counts) != len(segments) or any(not 1 <= segment <= num_segments for segment in segments):
        raise ValueError(f"expected segments 1..{num_segments}, as many as allocation_count says")
    left = iter(segments)
    return tuple(
        (worker, tuple(islice(left, count))) for worker, count in zip(message.allocation_worker, counts, strict=True)
    )


def cluster_to_message(cluster: ClusterSummary) -> ClusterStatus:
    """The ClusterStatus of a summary."""
    answered = sum(cluster.exits)
    rows = cluster.workers
    message = ClusterStatus(
        controller=cluster.controller,
        policy_version=cluster.policy.version,
        mode=int(cluster.policy.mode),
        model_id=cluster.policy.thresholds_model_id,
        uptime_s=cluster.uptime_s,
        workers_alive=sum(row.alive for row in rows),
        workers_known=len(rows),
        latency_p50_ms=cluster.latency_ms[0],
        latency_p95_ms=cluster.latency_ms[1],
        latency_p99_ms=cluster.latency_ms[2],
        exits=array.array("Q", cluster.exits),
        exit_share=array.array("f", [count / answered if answered else 0.0 for count in cluster.exits]),
        exit_threshold=array.array("f", cluster.policy.exit_thresholds),
        worker=[row.name for row in rows],
        alive=[row.alive for row in rows],
        input_queue=array.array("I", [row.input_queue for row in rows]),
        output_queue=array.array("I", [row.output_queue for row in rows]),
        service_time_ms=array.array("f", [1000.0 * row.service_time_s for row in rows]),
        served=array.array("Q", [row.served for row in rows]),
    )
    for plain in (
        *("sources_alive", "fps", "offered_fps", "accuracy", "offered", "admitted", "refused", "ok", "failed"),
        *("retries", "total", "waiting", "in_flight", "admission_rate_hz"),
    ):
        setattr(message, plain, getattr(cluster, plain))
    return message
