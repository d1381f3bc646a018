# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import array
import math

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from mdi_exit_msgs.msg import ResultBatch, TaskBatch
from mdi_exit_ros.codec import CodecError
from mdi_exit_ros.nodes import conversions as convert
from mdi_exit_ros.policy.actions import CloseFrame, SendAnswers, SendTasks
from mdi_exit_ros.policy.controller import ClusterSummary, WorkerRow
from mdi_exit_ros.policy.events import (
    AnswersReceived,
    AppliedPolicy,
    LedgerCounts,
    SourceReport,
    StreamReport,
    WorkerCounters,
    WorkerReport,
)
from mdi_exit_ros.task import Answer, FrameId, Mode, PeerId, Reason, State, Status, Task

BIG = 2**64 - 1
MOST = convert.COUNT_MAX
SOURCE = PeerId("camera", BIG)
WORKER = PeerId("worker1", 2**63 - 1)
TASKS = (
    Task(FrameId(SOURCE, 7), 1, 2, 99.5, 110.0, 4),
    Task(FrameId(SOURCE, BIG), 3, 2, 98.0, 99.0, 4),
)
FEATURES = np.arange(2 * 4 * 2 * 2, dtype=np.float32).reshape(2, 4, 2, 2)


def over_the_wire(message):
    """What the other side gets."""
    return deserialize_message(serialize_message(message), type(message))


def task_batch() -> TaskBatch:
    action = SendTasks(WORKER, 12, 100.0, TASKS)
    data = convert.tasks_to_message(action, PeerId("worker2", 5), "abc", 100.0, [FEATURES[:1], FEATURES[1:]])
    return deserialize_message(data, TaskBatch)


def test_tasks_keep_what_they_are_and_get_times_of_the_receiver_clock():
    message = convert.TASK_BATCH.read(serialize_message(task_batch()))
    event = convert.tasks_from_message(message, 5000.0, 5)
    assert event.sender == PeerId("worker2", 5)
    assert (event.receiver_incarnation, event.sent_total, event.stamp) == (WORKER.incarnation, 12, 100.0)
    assert event.model_id == "abc"
    assert [(task.frame, task.attempt, task.segment, task.priority) for task in event.tasks] == [
        (task.frame, task.attempt, task.segment, task.priority) for task in TASKS
    ]
    assert [task.admitted_at for task in event.tasks] == [4999.5, 4998.0]
    assert [task.expires_at for task in event.tasks] == [5010.0, 4999.0]
    values = convert.tensor_from_message(message, (4, 2, 2), "float32")
    np.testing.assert_array_equal(values, FEATURES)
    assert np.shares_memory(values, message.data), "the tensor is not copied"


def test_batch_without_tasks_opens_the_stream():
    data = convert.tasks_to_message(SendTasks(WORKER, 0, 1.0, ()), SOURCE, "abc", 1.0, [])
    message = convert.TASK_BATCH.read(data)
    assert convert.tasks_from_message(message, 5.0, 5).tasks == ()
    assert not message.data


@pytest.mark.parametrize(
    "damage",
    [
        lambda message: message.attempt.pop(),
        lambda message: message.elapsed_s.append(0.0),
        lambda message: setattr(message, "next_segment", 0),
        lambda message: setattr(message, "next_segment", 6),
        lambda message: message.remaining_s.__setitem__(0, math.nan),
        lambda message: message.elapsed_s.__setitem__(0, math.inf),
        lambda message: message.sequence.__setitem__(0, BIG),
    ],
)
def test_batch_whose_fields_disagree_is_refused_with_every_frame_named(damage):
    message = task_batch()
    damage(message)
    with pytest.raises(convert.MessageError, match="TaskBatch of worker2"):
        convert.tasks_from_message(message, 0.0, 5)
    rejected = convert.rejection_of(message, 0.0, Reason.BAD_INPUT)
    assert [task.frame.sequence for task in rejected.tasks] == list(message.sequence)
    assert rejected.sent_total == 12


@pytest.mark.parametrize(
    "damage",
    [
        lambda message: message.data.pop(),
        lambda message: setattr(message, "dtype", "float16"),
        lambda message: setattr(message, "dtype", "object"),
        lambda message: setattr(message, "encoding", "zip"),
        lambda message: message.shape.__setitem__(0, 3),
        lambda message: setattr(message, "shape", array.array("I", [2, 16])),
        lambda message: setattr(message, "shape", array.array("I")),
        lambda message: setattr(message, "data", array.array("B")),
    ],
)
def test_tensor_that_disagrees_with_the_model_or_its_bytes_is_refused(damage):
    message = task_batch()
    damage(message)
    with pytest.raises(CodecError):
        convert.tensor_from_message(message, (4, 2, 2), "float32")


def answers():
    return (
        Answer(FrameId(SOURCE, 1), 1, Status.OK, Reason.NONE, 3, 9, 0.5),
        Answer(FrameId(SOURCE, BIG), 65535, Status.REFUSED, Reason.MODEL_MISMATCH),
        Answer(FrameId(SOURCE, 2), 2, Status.FAILED, Reason.SHUTDOWN),
    )


def test_answers_come_back_as_they_were():
    message = over_the_wire(convert.answers_to_message(WORKER, SendAnswers(SOURCE, answers(), MOST, 7)))
    assert convert.answers_from_message(message, 5, 10) == AnswersReceived(WORKER, SOURCE, answers(), MOST, 7)


def test_answers_with_a_count_that_is_none_are_refused():
    message = convert.answers_to_message(WORKER, SendAnswers(SOURCE, answers(), MOST + 1, 7))
    with pytest.raises(convert.MessageError, match="received of at most"):
        convert.answers_from_message(message, 5, 10)


def test_answers_that_open_a_stream_come_back_as_they_were():
    message = over_the_wire(convert.answers_to_message(WORKER, SendAnswers(SOURCE, ())))
    assert convert.answers_from_message(message, 5, 10) == AnswersReceived(WORKER, SOURCE, ())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("exit", 0), ("exit", 6), ("class_id", 10), ("confidence", 1.5)),
        *(("confidence", math.nan), ("status", 3), ("reason", 99)),
    ],
)
def test_answer_out_of_range_is_refused(field, value):
    message = convert.answers_to_message(WORKER, SendAnswers(SOURCE, answers(), MOST, 7))
    getattr(message, field)[0] = value
    with pytest.raises(convert.MessageError, match="ResultBatch of worker1"):
        convert.answers_from_message(message, 5, 10)


def test_reasons_that_travel_have_the_numbers_of_the_message():
    named = {name.removeprefix("REASON_"): getattr(ResultBatch, name) for name in dir(ResultBatch) if "REASON_" in name}
    assert named == {reason.name: int(reason) for reason in Reason if reason < 20}


def test_worker_report_comes_back_as_it_was():
    report = WorkerReport(
        worker=WORKER,
        model_id="abc",
        state=State.STOPPING,
        segments=(1, 3),
        stamp=123456.789,
        input_queue=4,
        output_queue=5,
        service_time_s=0.5,
        segment_service_time_s=(0.25, 0.0),
        busy_s=2.0,
        policy_version=BIG,
        counters=WorkerCounters(*range(1, len(WorkerCounters._fields) + 1)),
        streams=(
            StreamReport(SOURCE, True, MOST, 3, 0, 1.0, 0.5, 2.0, 0.25, -1.0, 0.125),
            StreamReport(PeerId("worker2", 1), False, 0, 0, 9),
        ),
        backlog_s=1234.5,
        prepared_model_id="def",
    )
    message = over_the_wire(convert.worker_report_to_message(report, 1 << 33, 1.5))
    assert convert.worker_report_from_message(message) == report
    assert (message.rss_bytes, message.cpu_s) == (1 << 33, 1.5)
    message.credit.pop()
    with pytest.raises(convert.MessageError, match="WorkerStatus of worker1"):
        convert.worker_report_from_message(message)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("served", MOST + 1, "served of at most"),
        ("received", [MOST + 1], "received of at most"),
        ("sent", [BIG], "sent of at most"),
        ("stamp", math.nan, "finite stamp"),
        ("busy_s", math.inf, "finite busy_s"),
        ("backlog_s", math.nan, "finite backlog_s"),
        ("service_time_s", math.nan, "finite service_time_s"),
        ("echo_hold_s", [math.inf], "finite echo_hold_s"),
        ("transfer_delay_s", [math.nan], "finite transfer_delay_s"),
        ("moving_s", [math.inf], "finite moving_s"),
    ],
)
def test_worker_status_with_numbers_that_are_none_is_refused(field, value, told):
    report = WorkerReport(
        *(WORKER, "abc", State.RUNNING, (1,), 1.0, 0, 0, 0.5, (0.5,), 0.0, 0, WorkerCounters()),
        streams=(StreamReport(SOURCE),),
    )
    message = convert.worker_report_to_message(report, 0, 0.0)
    setattr(message, field, value)
    with pytest.raises(convert.MessageError, match=told):
        convert.worker_report_from_message(message)


def source_status():
    report = SourceReport(
        *(SOURCE, "abc", State.RUNNING, 1.5, "worker1", LedgerCounts(), (0, 0), (("rate", 3),), ()),
        *(0, 0, 0.5, (1.0, 2.0, 4.0), 7, (StreamReport(WORKER, sent=5),)),
    )
    return convert.source_report_to_message(report)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("ok", MOST + 1, "ok of at most"),
        ("exits", [0, BIG], "exits of at most"),
        ("sent", [MOST + 1], "sent of at most"),
        ("refused_count", [BIG], "refused_count of at most"),
        ("total", BIG, "total of at most"),
        ("stamp", math.inf, "finite stamp"),
        ("offered_interval_s", math.nan, "finite offered_interval_s"),
        ("latency_p99_ms", math.nan, "finite latency_ms"),
    ],
)
def test_source_status_with_numbers_that_are_none_is_refused(field, value, told):
    message = source_status()
    setattr(message, field, value)
    with pytest.raises(convert.MessageError, match=told):
        convert.source_report_from_message(message)


@pytest.mark.parametrize(("field", "value"), [("sent_total", MOST + 1), ("stamp", math.nan)])
def test_batch_with_a_count_or_stamp_that_is_none_is_refused_and_moves_no_stream(field, value):
    message = task_batch()
    setattr(message, field, value)
    with pytest.raises(convert.MessageError, match=field):
        convert.tasks_from_message(message, 5000.0, 5)
    rejected = convert.rejection_of(message, 5000.0, Reason.BAD_INPUT)
    assert (rejected.sent_total, rejected.stamp) == (0, -1.0)
    assert [task.frame for task in rejected.tasks] == [task.frame for task in TASKS]


def test_source_report_comes_back_as_it_was():
    report = SourceReport(
        source=SOURCE,
        model_id="abc",
        state=State.RUNNING,
        stamp=1.5,
        home="worker1",
        counts=LedgerCounts(*range(1, len(LedgerCounts._fields) + 1)),
        exits=(1, 2, MOST),
        refused_reasons=(("rate", 3),),
        failed_reasons=(("expired", 1), ("no_holder", 2)),
        total=99,
        waiting_for_credit=2,
        offered_interval_s=0.5,
        latency_ms=(1.0, 2.0, 4.0),
        policy_version=7,
        streams=(StreamReport(WORKER, True, sent=5), StreamReport(SOURCE, False, sent=6)),
    )
    message = over_the_wire(convert.source_report_to_message(report))
    assert convert.source_report_from_message(message) == report
    message.state = 9
    with pytest.raises(convert.MessageError):
        convert.source_report_from_message(message)


def policy(**changes) -> AppliedPolicy:
    return AppliedPolicy(
        controller=PeerId("controller", 3),
        priority=-2,
        version=8,
        mode=Mode.RATE,
        exit_thresholds=(0.5, 0.75, 1.0, 0.0),
        admission_interval_s=0.01,
        source_intervals_s=(("camera", 0.02),),
        output_threshold=16,
        smoothing=0.25,
        allocation=(("w1", (1, 2)), ("w2", ()), ("w3", (3, 4, 5))),
        allocation_final=False,
        thresholds_model_id="abc",
        model="mobilenetv2_fast",
        model_id="def",
        model_final=False,
    )._replace(**changes)


def test_policy_comes_back_as_it_was():
    assert convert.policy_from_message(over_the_wire(convert.policy_to_message(policy())), 5) == policy()


@pytest.mark.parametrize(
    "changes",
    [
        {"exit_thresholds": (0.5,)},
        {"exit_thresholds": (0.5, 0.5, 0.5, math.nan)},
        {"admission_interval_s": math.inf},
        {"admission_interval_s": -1.0},
        {"smoothing": 2.0},
        {"allocation": (("w1", (1, 6)),)},
        {"allocation": (("w1", (0,)),)},
    ],
)
def test_policy_that_cannot_be_applied_is_refused(changes):
    with pytest.raises(convert.MessageError, match="Policy of controller"):
        convert.policy_from_message(convert.policy_to_message(policy(**changes)), 5)


def test_cluster_shows_shares_and_rows():
    summary = ClusterSummary(
        controller="controller",
        policy=policy(),
        uptime_s=3.0,
        sources_alive=1,
        fps=10.0,
        offered_fps=11.0,
        accuracy=math.nan,
        latency_ms=(1.0, 2.0, 3.0),
        offered=20,
        admitted=19,
        refused=1,
        ok=10,
        failed=2,
        retries=3,
        total=100,
        waiting=4,
        in_flight=3,
        exits=(6, 2, 1, 1, 0),
        admission_rate_hz=50.0,
        workers=(WorkerRow("worker1", True, 1, 2, 0.5, 7), WorkerRow("worker2", False, 0, 0, 0.0, 0)),
    )
    message = over_the_wire(convert.cluster_to_message(summary))
    assert (message.workers_alive, message.workers_known, message.sources_alive) == (1, 2, 1)
    assert list(message.exit_share) == pytest.approx([0.6, 0.2, 0.1, 0.1, 0.0])
    assert list(message.service_time_ms) == [500.0, 0.0]
    assert (message.offered, message.ok, message.in_flight, message.total) == (20, 10, 3, 100)
    assert math.isnan(message.accuracy)
    assert message.policy_version == 8


def test_classification_names_the_class_or_the_reason():
    header = Header(frame_id="front")
    closed = CloseFrame(5, Status.OK, Reason.NONE, 2, 1, 1, 0.25, "worker1", 0.75)
    message = convert.classification_to_message(closed, header, "camera", ["cat", "dog"])
    message = over_the_wire(message)
    assert (message.header.frame_id, message.class_name, message.worker) == ("front", "dog", "worker1")
    assert (message.exit, message.confidence, message.latency_s, message.reason) == (2, 0.75, 0.25, "")
    failed = CloseFrame(6, Status.FAILED, Reason.NO_HOLDER, 0, 0, 4, 9.0)
    message = convert.classification_to_message(failed, header, "camera", ["cat", "dog"])
    assert (message.status, message.reason, message.class_name, message.worker) == (2, "no_holder", "", "")
