# SPDX-License-Identifier: Apache-2.0
"""What one camera source does: literal events in, list of actions out."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from cluster_harness import MESH, Cluster
from literals import (
    CAM,
    CONTROLLER,
    W1,
    W2,
    W3,
    decisions,
    of,
    policy,
    ready_source,
    report_of,
    source,
    stream,
    worker_report,
)

from mdi_exit_ros.policy.actions import CloseFrame, Finished, PublishSourceReport, SendTasks, Warn
from mdi_exit_ros.policy.entries import FORGET_WORKER_S, HOME_GRACE_S, WORKERS_MAX
from mdi_exit_ros.policy.events import (
    AnswersReceived,
    FramesOffered,
    FrameUnreadable,
    InputEnded,
    Shutdown,
    Tick,
)
from mdi_exit_ros.policy.receiver import OPENING_PATIENCE_S
from mdi_exit_ros.policy.retries import RETRY_PAUSE_S
from mdi_exit_ros.policy.source import BUSY_FRAMES, CATCH_UP_S, ENOUGH_FRAMES, SourceCore
from mdi_exit_ros.task import Answer, FrameId, PeerId, Reason, State, Status, Task

OK, REFUSED, FAILED = Status.OK, Status.REFUSED, Status.FAILED


def entering(sequence: int, admitted_at: float, *, attempt: int = 1, deadline_s: float = 10.0) -> Task:
    return Task(FrameId(CAM, sequence), attempt, 1, admitted_at, admitted_at + deadline_s)


def offer(core: SourceCore, sequence: int, now: float, *, count: int = 1) -> list[Any]:
    return decisions(core.handle(FramesOffered(sequence, (None,) * count), now))


def answer(
    core: SourceCore, sequence: int, now: float, status: Status = OK, reason: Reason = Reason.NONE, attempt: int = 1
) -> list[Any]:
    said = (3, 6, 0.75) if status is OK else ()
    given = Answer(FrameId(CAM, sequence), attempt, status, reason, *said)
    return decisions(core.handle(AnswersReceived(W1, CAM, (given,)), now))


def closed(
    sequence: int, status: Status, reason: Reason = Reason.NONE, *, attempt: int = 1, latency_s: float = 0.0
) -> CloseFrame:
    answered = status is OK
    return CloseFrame(
        *(sequence, status, reason, 3 if answered else 0, 6 if answered else 0, attempt, pytest.approx(latency_s)),
        *(("w1", 0.75) if answered else ()),
    )


def tick(core: SourceCore, now: float) -> list[Any]:
    return decisions(core.handle(Tick(), now))


def hear(
    core: SourceCore, now: float, worker: PeerId = W1, *, received: int = 0, credit: int = 8, **rest: Any
) -> list[Any]:
    return decisions(core.handle(worker_report(worker, stream(CAM, received=received, credit=credit), **rest), now))


def sequences(actions: list[Any], receiver: PeerId = W1) -> list[int]:
    return [
        task.frame.sequence for action in of(SendTasks, actions) if action.receiver == receiver for task in action.tasks
    ]


# ---- matching and credit -----------------------------------------------------------------------------------


def test_stream_to_an_entry_is_opened_when_it_is_heard_and_again_until_confirmed() -> None:
    core = source("w1")
    assert decisions(core.handle(worker_report(W1), 0.0)) == [SendTasks(W1, 0, 0.0, ())]
    assert decisions(core.handle(worker_report(W1), 0.19)) == []
    assert decisions(core.handle(worker_report(W1), 0.2)) == [SendTasks(W1, 0, 0.2, ())]
    assert hear(core, 0.5) == []


def test_worker_that_is_no_entry_is_left_alone() -> None:
    assert decisions(source("w1").handle(worker_report(W2), 0.0)) == []


def test_nothing_is_sent_before_credit_is_given() -> None:
    core = source("w1")
    core.handle(worker_report(W1), 0.0)
    assert offer(core, 0, 0.1) == []
    assert sequences(hear(core, 0.2, credit=1)) == [0]


def test_credit_is_never_exceeded() -> None:
    core = ready_source(credit=3, drop=False, waiting_max=16)
    assert sequences(offer(core, 0, 0.1, count=8)) == [0, 1, 2]
    assert sequences(hear(core, 0.2, received=1, credit=2)) == []
    assert sequences(hear(core, 0.3, received=2, credit=3)) == [3, 4]


def test_what_is_offered_beyond_the_room_is_refused_though_nothing_is_dropped_by_itself() -> None:
    core = ready_source(credit=0, drop=False, waiting_max=4)
    assert offer(core, 0, 0.1, count=6) == [
        closed(number, REFUSED, Reason.STALE, attempt=0, latency_s=0.0) for number in (0, 1)
    ]
    assert core.room == 0


def test_new_life_of_the_home_worker_voids_its_credit() -> None:
    core = ready_source(credit=8, drop=False)
    offer(core, 0, 0.1)
    reborn = PeerId("w1", 11)
    assert decisions(core.handle(worker_report(reborn), 0.2)) == [SendTasks(reborn, 0, 0.2, ())]
    assert offer(core, 1, 0.3) == []
    assert hear(core, 0.4, reborn) == [SendTasks(reborn, 1, 0.4, (entering(1, 0.4),))]


def test_stream_that_the_home_worker_closed_is_opened_again_at_its_count_and_carries_nothing() -> None:
    core = ready_source(credit=8)
    offer(core, 0, 0.1)
    assert decisions(core.handle(worker_report(W1), 0.5)) == [SendTasks(W1, 1, 0.5, ())]
    assert offer(core, 1, 0.6) == []


def test_model_mismatch_is_warned_of_under_one_key_and_nothing_is_sent() -> None:
    core = source("w1")
    assert hear(core, 0.0, model_id="model-b") == [], "it may be about to change"
    for now in (5.0, 5.1):
        (warning,) = hear(core, now, model_id="model-b")
        assert isinstance(warning, Warn) and warning.key == "model:w1"
        assert "w1 runs model model-b" in warning.text
    assert offer(core, 0, 5.2) == []


# ---- admission ---------------------------------------------------------------------------------------------


def test_frame_is_admitted_at_once_when_nothing_holds_it_back() -> None:
    core = ready_source()
    assert offer(core, 0, 0.1) == [SendTasks(W1, 1, 0.1, (entering(0, 0.1),))]


def test_frames_that_come_together_are_sent_together() -> None:
    core = ready_source()
    assert offer(core, 0, 0.1, count=3) == [SendTasks(W1, 3, 0.1, tuple(entering(each, 0.1) for each in range(3)))]


def test_batch_is_no_larger_than_its_maximum() -> None:
    core = ready_source(send_batch_max=2)
    batches = offer(core, 0, 0.1, count=5)
    assert [(len(batch.tasks), batch.sent_total) for batch in batches] == [(2, 2), (2, 4), (1, 5)]


def test_frames_gather_while_others_are_under_way() -> None:
    core = ready_source(credit=100, drop=False, waiting_max=64, send_wait_s=0.01)
    assert sequences(offer(core, 0, 0.1)) == [0], "a lone frame goes at once"
    assert sequences(offer(core, 1, 0.1, count=BUSY_FRAMES - 1)) == list(range(1, BUSY_FRAMES))
    assert offer(core, 8, 0.2) == offer(core, 9, 0.205) == []
    assert core.next_deadline() == pytest.approx(0.21)
    assert sequences(tick(core, 0.2101)) == [8, 9]


def test_frames_that_are_enough_for_a_batch_do_not_wait() -> None:
    core = ready_source(credit=100, drop=False, waiting_max=64, send_wait_s=0.01)
    offer(core, 0, 0.1, count=BUSY_FRAMES)
    assert offer(core, 8, 0.2, count=ENOUGH_FRAMES - 1) == []
    assert len(sequences(offer(core, 8 + ENOUGH_FRAMES - 1, 0.201))) == ENOUGH_FRAMES


def test_frames_that_gather_hold_credit_and_go_when_the_others_are_answered() -> None:
    core = ready_source(credit=BUSY_FRAMES + 2, drop=False, waiting_max=64, send_wait_s=0.01)
    offer(core, 0, 0.1, count=BUSY_FRAMES)
    assert offer(core, 8, 0.2, count=3) == []
    assert sequences(answer(core, 0, 0.201)) == [8, 9]  # one more waits for credit


def test_frames_that_gathered_for_a_worker_that_is_gone_go_to_the_next() -> None:
    core = ready_source("w1", "w2", credit=100, drop=False, waiting_max=64, send_wait_s=0.01, liveness_timeout_s=0.5)
    offer(core, 0, 0.1, count=BUSY_FRAMES)
    hear(core, 0.6, W2, credit=4)
    assert offer(core, 8, 0.605, count=6) == []  # w1 is silent since 0.1, w2 gives credit for four
    assert sequences(tick(core, 0.615), W2) == [8, 9, 10, 11]
    assert sequences(hear(core, 0.62, W2, received=4, credit=4), W2) == []  # these two gather in turn
    assert sequences(tick(core, 0.63), W2) == [12, 13]


def test_frame_that_ends_while_it_gathers_is_not_sent() -> None:
    core = ready_source(credit=100, drop=False, waiting_max=64, send_wait_s=1.0, deadline_s=0.5)
    offer(core, 0, 0.1, count=BUSY_FRAMES)
    offer(core, 8, 0.2)
    assert sequences(tick(core, 0.9)) == []


def test_frames_in_flight_are_bounded() -> None:
    core = ready_source(in_flight_max=2, drop=False, waiting_max=8)
    assert sequences(offer(core, 0, 0.1, count=4)) == [0, 1]
    assert sequences(answer(core, 0, 0.2)) == [2]


def test_frame_waits_for_the_admission_interval() -> None:
    core = ready_source(interval_s=0.5, drop=False, waiting_max=8)
    assert sequences(offer(core, 0, 1.0, count=2)) == [0]
    due = 1.0 - CATCH_UP_S + 0.5
    report_of(core.handle(Tick(), due - 0.05))
    assert core.next_deadline() == due
    assert sequences(tick(core, due - 0.001)) == []
    assert sequences(tick(core, due)) == [1]


def test_interval_sets_the_rate() -> None:
    settings: dict[str, Any] = {"drop": False, "waiting_max": 64, "attempt_timeout_s": 60.0, "send_wait_s": 0.0}
    core = ready_source(interval_s=0.25, credit=100, **settings)
    admitted_at = [0.0] * len(sequences(offer(core, 0, 0.0, count=16)))
    for step in range(1, 200):
        now = step / 100
        admitted_at += [now] * len(sequences(hear(core, now, credit=100)))
    gaps = [after - before for before, after in itertools.pairwise(admitted_at)]
    assert len(gaps) == 8
    assert gaps[1:] == pytest.approx([0.25] * (len(gaps) - 1))


def test_a_little_lateness_is_made_up_for_and_more_is_forgotten() -> None:
    core = ready_source(interval_s=0.1, credit=100, drop=False, waiting_max=64, attempt_timeout_s=60.0)
    offer(core, 0, 1.0, count=30)
    late = 3.0
    assert len(sequences(hear(core, late, credit=100))) == 1  # not the twenty that 2 s would have let in
    due = late - CATCH_UP_S + 0.1
    assert sequences(hear(core, due - 0.001, credit=100)) == []
    assert len(sequences(hear(core, due + 0.001, credit=100))) == 1


def test_shorter_interval_decides_the_next_frame() -> None:
    core = ready_source(interval_s=10.0, drop=False, waiting_max=8, liveness_timeout_s=60.0, attempt_timeout_s=60.0)
    offer(core, 0, 1.0, count=3)
    assert sequences(tick(core, 2.0)) == []
    assert sequences(decisions(core.handle(policy(interval_s=0.5), 2.0))) == [1]
    assert sequences(tick(core, 2.2)) == []
    assert sequences(tick(core, 2.5)) == [2]


def test_longer_interval_decides_the_next_frame() -> None:
    core = ready_source(interval_s=0.5, drop=False, waiting_max=8, liveness_timeout_s=60.0, attempt_timeout_s=60.0)
    offer(core, 0, 1.0, count=2)
    core.handle(policy(interval_s=3.0), 1.1)
    assert sequences(tick(core, 1.6)) == []
    assert sequences(tick(core, 4.0)) == [1]


def test_interval_of_this_source_goes_before_the_common_one() -> None:
    core = ready_source(credit=100, drop=False, waiting_max=8)
    core.handle(policy(interval_s=0.0, source_intervals_s=(("cam", 5.0), ("other", 0.0))), 0.5)
    assert len(sequences(offer(core, 0, 1.0, count=4))) == 1


def test_last_policy_holds_when_the_controller_is_gone() -> None:
    core = ready_source(credit=100, drop=False, waiting_max=8)
    core.handle(policy(interval_s=5.0), 0.5)
    hear(core, 1000.0, credit=100)
    assert len(sequences(offer(core, 0, 1000.0, count=4))) == 1


def test_several_controllers_are_warned_of_and_the_highest_priority_counts() -> None:
    core = ready_source(credit=100, drop=False, waiting_max=8)
    assert decisions(core.handle(policy(interval_s=5.0, priority=3), 0.5)) == []
    (warning,) = decisions(core.handle(policy(PeerId("a", 1), interval_s=0.0), 0.6))
    assert isinstance(warning, Warn) and warning.key == "controllers"
    assert len(sequences(offer(core, 0, 1.0, count=4))) == 1


# ---- live and finite input -----------------------------------------------------------------------------------


def test_live_input_drops_the_oldest_for_its_rate() -> None:
    core = ready_source(interval_s=5.0)
    offer(core, 0, 1.0, count=2)
    assert offer(core, 2, 1.5) == [closed(1, REFUSED, Reason.RATE, attempt=0, latency_s=0.5)]
    assert offer(core, 3, 1.6) == [closed(2, REFUSED, Reason.RATE, attempt=0, latency_s=0.1)]


def test_live_input_drops_the_oldest_as_stale_when_it_was_due_and_no_worker_had_room() -> None:
    core = ready_source(credit=1)
    offer(core, 0, 1.0, count=2)
    assert offer(core, 2, 1.5) == [closed(1, REFUSED, Reason.STALE, attempt=0, latency_s=0.5)]


def test_frame_that_was_due_just_now_is_dropped_as_stale() -> None:
    core = ready_source(credit=1, interval_s=0.5)
    offer(core, 0, 1.0)
    due = 1.0 - CATCH_UP_S + 0.5
    assert [each.reason for each in offer(core, 1, due, count=2)] == [Reason.STALE]


def test_newest_frame_is_the_one_admitted() -> None:
    core = ready_source(credit=0)
    for sequence in range(5):
        offer(core, sequence, 0.1 * sequence)
    assert sequences(hear(core, 0.5, credit=8)) == [4]


def test_live_input_keeps_as_many_as_may_wait() -> None:
    core = ready_source(credit=0, waiting_max=3)
    assert [each.sequence for each in offer(core, 0, 0.1, count=5)] == [0, 1]


def test_finite_input_waits_and_loses_nothing() -> None:
    core = ready_source(credit=0, drop=False, waiting_max=4)
    assert offer(core, 0, 0.1, count=4) == []
    assert core.room == 0
    assert sequences(hear(core, 1.0, credit=3)) == [0, 1, 2]
    assert core.room == 3


def test_finite_input_is_not_asked_for_before_a_worker_gives_credit() -> None:
    core = source("w1", drop=False, waiting_max=4)
    assert core.room == 0
    core.handle(worker_report(W1), 0.0)
    assert core.room == 0
    hear(core, 0.1)
    assert core.room == 4


def test_finite_input_is_asked_for_when_no_worker_came_so_that_it_ends() -> None:
    core = source("w1", drop=False, waiting_max=4, worker_timeout_s=30.0)
    core.handle(Tick(), 0.0)
    core.handle(Tick(), 30.0)
    assert core.room == 0
    core.handle(Tick(), 30.001)
    assert core.room == 4
    assert [each.reason for each in offer(core, 0, 30.002)] == [Reason.NO_WORKER]


def test_live_input_is_taken_from_the_start() -> None:
    assert source("w1", drop=True, waiting_max=4).room == 4


def test_cluster_is_early_until_a_worker_gives_credit() -> None:
    core = source("w1", drop=True, waiting_max=4)
    assert core.is_early
    core.handle(worker_report(W1), 0.0)
    assert core.is_early
    hear(core, 0.1)
    assert not core.is_early


def test_unreadable_frame_is_offered_and_refused_in_one() -> None:
    core = ready_source()
    actions = decisions(core.handle(FrameUnreadable(0), 0.1))
    assert actions == [closed(0, REFUSED, Reason.UNREADABLE, attempt=0)]
    assert sequences(offer(core, 1, 0.2)) == [1]


# ---- which worker ------------------------------------------------------------------------------------------------


def test_frames_wait_a_while_for_a_home_worker_that_was_never_heard() -> None:
    core = source("w1", "w2", drop=False)
    hear(core, 0.0, W2)
    offer(core, 0, 0.1)
    assert hear(core, HOME_GRACE_S - 0.01, W2) == []
    assert sequences(hear(core, HOME_GRACE_S, W2), W2) == [0]
    assert core.home == "w2"


def test_frames_enter_at_home_while_it_lives() -> None:
    core = ready_source("w1", "w2")
    hear(core, 0.0, W2)
    assert sequences(offer(core, 0, 0.1)) == [0]
    assert core.home == "w1"


@pytest.mark.parametrize(
    "trouble",
    [
        {"state": State.STOPPING},
        {"state": State.STARTING},
        {"busy_s": 11.0},
        {"model_id": "model-b"},
    ],
)
def test_frames_enter_the_next_entry_when_home_is_not_fit(trouble: dict[str, Any]) -> None:
    core = ready_source("w1", "w2", stall_timeout_s=10.0)
    hear(core, 1.0, W1, **trouble)
    hear(core, 1.0, W2)
    assert sequences(offer(core, 0, 1.0), W2) == [0]


@pytest.mark.parametrize(("age_s", "receiver"), [(1.5, W1), (1.501, W2)])
def test_frames_enter_the_next_entry_when_home_has_been_silent_for_too_long(age_s: float, receiver: PeerId) -> None:
    core = ready_source("w1", "w2", liveness_timeout_s=1.5)
    hear(core, age_s, W2)
    assert sequences(offer(core, 0, age_s), receiver) == [0]


def test_busy_home_worker_is_not_a_dead_one() -> None:
    core = ready_source("w1", "w2", stall_timeout_s=10.0)
    hear(core, 1.0, W2)
    hear(core, 1.0, W1, busy_s=9.5)
    assert sequences(offer(core, 0, 1.2)) == [0]


def test_frames_enter_at_home_again_when_it_is_back() -> None:
    core = ready_source("w1", "w2")
    hear(core, 5.0, W2)
    assert sequences(offer(core, 0, 5.0), W2) == [0]
    hear(core, 5.1, PeerId("w1", 11))
    assert sequences(offer(core, 1, 5.2), PeerId("w1", 11)) == [1]


def test_frames_enter_the_next_entry_while_home_does_not_open_its_stream() -> None:
    core = source("w1", "w2", drop=False, waiting_max=8)
    core.handle(Tick(), 0.0)
    offer(core, 0, 0.0)
    for step in range(60):
        now = 0.1 * step
        actions = [*core.handle(worker_report(W1), now), *hear(core, now, W2)]
        assert sequences(actions, W2) == ([0] if now == pytest.approx(OPENING_PATIENCE_S) else []), now
    hear(core, 6.1)
    assert sequences(offer(core, 1, 6.2)) == [1], "home has opened it"


def test_waiting_frames_are_refused_when_no_worker_was_heard_for_too_long() -> None:
    core = source("w1", drop=False, waiting_max=8, worker_timeout_s=30.0)
    core.handle(Tick(), 0.0)
    assert offer(core, 0, 1.0, count=2) == []
    assert tick(core, 30.0) == []
    assert tick(core, 30.001) == [
        closed(0, REFUSED, Reason.NO_WORKER, attempt=0, latency_s=29.001),
        closed(1, REFUSED, Reason.NO_WORKER, attempt=0, latency_s=29.001),
    ]
    assert [each.reason for each in offer(core, 2, 31.0)] == [Reason.NO_WORKER]


def test_time_without_a_worker_counts_from_when_one_was_last_there() -> None:
    core = ready_source(drop=False, waiting_max=8, worker_timeout_s=30.0, liveness_timeout_s=1.0)
    hear(core, 10.0)
    offer(core, 0, 12.0)
    assert tick(core, 40.0) == []
    assert [each.reason for each in tick(core, 40.001)] == [Reason.NO_WORKER]


def test_frames_do_not_wait_for_ever_for_a_worker_that_never_gives_credit() -> None:
    core = source("w1", drop=False, waiting_max=8, worker_timeout_s=30.0)
    for second in range(31):
        core.handle(worker_report(W1), float(second))
        if second == 1:
            offer(core, 0, 1.0)
    assert [each.reason for each in of(CloseFrame, core.handle(worker_report(W1), 31.0))] == [Reason.NO_WORKER]


def test_frames_wait_as_long_as_others_are_in_flight() -> None:
    core = ready_source(credit=1, drop=False, waiting_max=8, worker_timeout_s=5.0, deadline_s=100.0)
    offer(core, 0, 0.1, count=2)
    for second in range(1, 20):
        assert of(CloseFrame, hear(core, float(second), received=1, credit=0)) == []


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda core: None, "a first status of w1"),
        (lambda core: core.handle(worker_report(W1), 0.0), "credit from w1"),
        (lambda core: core.handle(worker_report(W1, state=State.STOPPING), 0.0), "w1 to answer again"),
    ],
)
def test_user_is_told_what_is_waited_for(prepare: Any, expected: str) -> None:
    core = source("w1")
    prepare(core)
    offer(core, 0, 0.1)
    assert core.waiting_for(0.1) == expected


def test_nothing_is_waited_for_when_frames_are_admitted() -> None:
    core = ready_source()
    offer(core, 0, 0.1)
    assert core.waiting_for(0.1) is None


# ---- answers and retries -----------------------------------------------------------------------------------------


def test_answer_closes_the_frame() -> None:
    core = ready_source()
    offer(core, 0, 0.1)
    assert answer(core, 0, 0.35) == [closed(0, OK, latency_s=0.25)]


def test_second_answer_is_counted_and_ignored() -> None:
    core = ready_source()
    offer(core, 0, 0.1)
    answer(core, 0, 0.2)
    assert answer(core, 0, 0.3) == []
    assert answer(core, 0, 0.3, REFUSED, Reason.BLOCKED) == []
    assert (core.summary()["duplicates"], core.summary()["ok"]) == (2, 1)


def test_answer_for_another_source_or_life_is_ignored() -> None:
    core = ready_source()
    offer(core, 0, 0.1)
    for other in (PeerId("cam2", 7), PeerId("cam", 8)):
        given = Answer(FrameId(other, 0), 1, OK, Reason.NONE, 3)
        assert decisions(core.handle(AnswersReceived(W1, other, (given,)), 0.2)) == []
    assert core.summary()["duplicates"] == 0


def test_answer_to_a_frame_that_was_never_sent_is_ignored() -> None:
    core = ready_source(credit=0)
    offer(core, 0, 0.1)
    assert answer(core, 0, 0.2) == []
    assert answer(core, 99, 0.2) == []
    assert core.summary()["unaccounted"] == 1


def test_missing_answer_is_asked_for_again_with_a_new_attempt() -> None:
    core = ready_source(attempt_timeout_s=1.0, liveness_timeout_s=60.0)
    offer(core, 0, 0.5)
    assert tick(core, 1.499) == []
    assert tick(core, 1.5) == [SendTasks(W1, 2, 1.5, (entering(0, 0.5, attempt=2),))]


def test_late_answer_of_an_earlier_attempt_closes_the_frame() -> None:
    core = ready_source(attempt_timeout_s=1.0, liveness_timeout_s=60.0)
    offer(core, 0, 0.5)
    tick(core, 1.5)
    assert answer(core, 0, 1.6, attempt=1) == [closed(0, OK, attempt=2, latency_s=1.1)]
    assert answer(core, 0, 1.7, attempt=2) == []
    assert core.summary()["duplicates"] == 1


def test_late_refusal_of_an_earlier_attempt_is_ignored() -> None:
    core = ready_source(attempt_timeout_s=1.0, liveness_timeout_s=60.0)
    offer(core, 0, 0.5)
    tick(core, 1.5)
    assert answer(core, 0, 1.6, FAILED, Reason.NO_HOLDER, attempt=1) == []
    assert core.summary()["failed"] == {}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (REFUSED, Reason.BLOCKED),
        (REFUSED, Reason.NO_CREDIT),
        (REFUSED, Reason.SHUTDOWN),
        (REFUSED, Reason.MODEL_MISMATCH),
        (FAILED, Reason.COMPUTE),
    ],
)
def test_refused_attempt_is_tried_again_after_a_pause(status: Status, reason: Reason) -> None:
    core = ready_source(liveness_timeout_s=60.0)
    offer(core, 0, 0.5)
    assert answer(core, 0, 1.0, status, reason) == []
    assert core.next_deadline() == 1.0 + RETRY_PAUSE_S
    assert tick(core, 1.0 + RETRY_PAUSE_S - 0.001) == []
    (again,) = tick(core, 1.0 + RETRY_PAUSE_S)
    assert again.tasks == (entering(0, 0.5, attempt=2),)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(FAILED, Reason.NO_HOLDER), (FAILED, Reason.EXPIRED), (REFUSED, Reason.BAD_INPUT)],
)
def test_final_reason_closes_the_frame_at_once(status: Status, reason: Reason) -> None:
    core = ready_source()
    offer(core, 0, 0.5)
    assert answer(core, 0, 1.0, status, reason) == [closed(0, FAILED, reason, latency_s=0.5)]


def test_refusal_of_the_last_attempt_closes_the_frame() -> None:
    core = ready_source(attempts_max=2, liveness_timeout_s=60.0)
    offer(core, 0, 0.5)
    answer(core, 0, 1.0, REFUSED, Reason.BLOCKED)
    tick(core, 1.1)
    assert answer(core, 0, 1.2, REFUSED, Reason.NO_CREDIT, attempt=2) == [
        closed(0, FAILED, Reason.NO_CREDIT, attempt=2, latency_s=0.7)
    ]


def run_until(core: SourceCore, end: float, *, credit: int = 100, step_s: float = 0.05) -> list[Any]:
    """Wakes the source with fresh statuses of a home worker that takes everything."""
    actions: list[Any] = []
    now = core._handled_at
    while now < end:
        now += step_s
        sent = core._entries._receivers["w1"].outbound.sent  # type: ignore[union-attr]
        actions += hear(core, now, received=sent if credit else 0, credit=credit)
    return actions


def test_frame_gets_no_more_attempts_than_allowed_and_fails_at_its_deadline() -> None:
    core = ready_source(attempts_max=3, attempt_timeout_s=1.0, deadline_s=10.0)
    offer(core, 0, 0.5)
    actions = run_until(core, 12.0)
    assert [action.tasks[0].attempt for action in of(SendTasks, actions)] == [2, 3]
    assert of(CloseFrame, actions) == [closed(0, FAILED, Reason.NO_ANSWER, attempt=3, latency_s=10.0)]


def test_frame_fails_at_its_deadline_and_not_before() -> None:
    core = ready_source(attempts_max=1, deadline_s=10.0)
    offer(core, 0, 0.5)
    assert tick(core, 10.499) == []
    assert core.next_deadline() == 10.5
    assert tick(core, 10.5) == [closed(0, FAILED, Reason.NO_ANSWER, latency_s=10.0)]


def test_frame_fails_with_the_reason_of_its_last_refusal() -> None:
    core = ready_source(retry_burst=0, retry_share=0.0)
    offer(core, 0, 0.5)
    answer(core, 0, 1.0, REFUSED, Reason.BLOCKED)
    assert tick(core, 10.5) == [closed(0, FAILED, Reason.BLOCKED, latency_s=10.0)]


def test_no_attempt_is_made_without_credit() -> None:
    core = ready_source(credit=1, attempt_timeout_s=1.0, liveness_timeout_s=60.0)
    offer(core, 0, 0.5)
    assert tick(core, 2.0) == []
    assert sequences(hear(core, 3.0, received=1, credit=1)) == [0]


def test_attempt_that_was_answered_while_it_waited_for_credit_is_not_made() -> None:
    core = ready_source(credit=1, attempt_timeout_s=1.0, liveness_timeout_s=60.0)
    offer(core, 0, 0.5)
    tick(core, 2.0)
    answer(core, 0, 2.5)
    assert hear(core, 3.0, received=1, credit=1) == []


def test_attempts_go_before_new_frames() -> None:
    core = ready_source(credit=1, drop=False, waiting_max=8, liveness_timeout_s=60.0)
    offer(core, 0, 0.5, count=2)
    answer(core, 0, 0.6, REFUSED, Reason.BLOCKED)
    tick(core, 0.7)
    assert sequences(hear(core, 0.8, received=1, credit=1)) == [0]


@pytest.mark.parametrize(
    ("share", "burst", "expected"), [(0.0, 0, 0), (0.0, 3, 3), (0.05, 0, 2), (0.05, 3, 5), (0.049, 0, 1)]
)
def test_retries_stay_within_their_budget(share: float, burst: int, expected: int) -> None:
    """Forty frames are admitted and none is answered."""
    core = ready_source(
        credit=100,
        attempts_max=2,
        retry_share=share,
        retry_burst=burst,
        drop=False,
        attempt_timeout_s=0.5,
        deadline_s=4.0,
    )
    offer(core, 0, 0.1, count=40)
    actions = run_until(core, 6.0)
    assert core.summary()["retries"] == expected == len(sequences(actions))
    assert core.summary()["failed"] == {"no_answer": 40}


def test_frame_that_found_no_budget_is_tried_again_when_admissions_made_some() -> None:
    core = ready_source(credit=100, retry_share=0.5, retry_burst=0, drop=False, waiting_max=8, liveness_timeout_s=60.0)
    offer(core, 0, 0.5)
    answer(core, 0, 0.6, REFUSED, Reason.BLOCKED)
    assert tick(core, 0.7) == []
    offer(core, 1, 0.71)
    assert sequences(tick(core, 0.8)) == [0]


def test_attempt_after_the_death_of_home_goes_to_the_next_entry() -> None:
    core = ready_source("w1", "w2", attempt_timeout_s=1.5, liveness_timeout_s=1.0)
    offer(core, 0, 0.5)
    hear(core, 1.9, W2)
    assert sequences(tick(core, 2.0), W2) == [0]


# ---- the end -------------------------------------------------------------------------------------------------


def test_source_finishes_when_its_input_has_ended_and_all_frames_are_closed() -> None:
    core = ready_source(total=1)
    offer(core, 0, 0.1)
    assert decisions(core.handle(InputEnded(), 0.2)) == []
    given = Answer(FrameId(CAM, 0), 1, OK, Reason.NONE, 3)
    actions = core.handle(AnswersReceived(W1, CAM, (given,)), 0.3)
    assert [type(action) for action in actions] == [CloseFrame, PublishSourceReport, Finished]
    report = report_of(actions)
    assert (report.state, report.counts.ok, report.counts.in_flight, report.total) == (State.STOPPING, 1, 0, 1)
    assert core.next_deadline() is None


def test_source_without_frames_finishes_at_once() -> None:
    assert decisions(source().handle(InputEnded(), 0.0)) == [Finished()]


def test_source_finishes_once() -> None:
    core = source()
    core.handle(InputEnded(), 0.0)
    assert tick(core, 1.0) == tick(core, 2.0) == []
    assert decisions(core.handle(worker_report(W1), 3.0)) == []
    assert decisions(core.handle(Shutdown(), 4.0)) == []


def test_stopping_source_closes_every_frame_with_that_reason() -> None:
    core = ready_source(credit=1, drop=False, waiting_max=8)
    offer(core, 0, 0.1, count=2)
    assert decisions(core.handle(Shutdown(), 0.2)) == [
        closed(0, FAILED, Reason.SHUTDOWN, latency_s=0.1),
        closed(1, REFUSED, Reason.SHUTDOWN, attempt=0, latency_s=0.1),
        Finished(),
    ]
    assert core.summary()["unaccounted"] == 0


def test_frames_that_come_after_the_stop_are_refused() -> None:
    core = ready_source()
    core.handle(Shutdown(), 0.2)
    assert offer(core, 0, 0.3) == [closed(0, REFUSED, Reason.SHUTDOWN, attempt=0)]
    assert core.summary()["unaccounted"] == 0


# ---- telling others ------------------------------------------------------------------------------------------


def test_status_goes_out_at_its_interval() -> None:
    core = source(status_interval_s=0.1)
    assert of(PublishSourceReport, core.handle(Tick(), 1.0))
    assert core.next_deadline() == pytest.approx(1.1)
    assert not of(PublishSourceReport, core.handle(Tick(), 1.09))
    assert of(PublishSourceReport, core.handle(Tick(), 1.1))


def test_status_counts_what_waits_for_credit_and_says_what_was_sent() -> None:
    core = ready_source(credit=1, drop=False, waiting_max=8)
    core.handle(policy(version=4), 0.1)
    offer(core, 0, 0.1, count=3)
    report = report_of(core.handle(Tick(), 1.0))
    assert (report.waiting_for_credit, report.counts.waiting, report.counts.in_flight) == (2, 2, 1)
    assert [(each.peer, each.sent) for each in report.streams] == [(W1, 1)]
    assert (report.home, report.policy_version) == ("w1", 4)


def test_frames_held_back_by_the_interval_do_not_wait_for_credit() -> None:
    core = ready_source(interval_s=9.0, drop=False, waiting_max=8)
    offer(core, 0, 0.1, count=3)
    assert report_of(core.handle(Tick(), 1.0)).waiting_for_credit == 0


def test_interval_at_which_frames_are_offered_is_measured() -> None:
    core = ready_source(credit=100)
    for step in range(50):
        core.handle(FramesOffered(2 * step, (None, None)), 0.04 * step)
    assert report_of(core.handle(Tick(), 5.0)).offered_interval_s == pytest.approx(0.02)


@pytest.mark.parametrize("changes", [{"credit": 0}, {"interval_s": 0.37}, {"in_flight_max": 1}])
def test_next_deadline_always_lies_ahead(changes: dict[str, Any]) -> None:
    """A shell that wakes at exactly the deadline neither spins nor stands still."""
    core = ready_source(**{"drop": False, "waiting_max": 8, "worker_timeout_s": 3600.0, **changes})
    offer(core, 0, 0.05, count=8)
    now = 0.05
    for _ in range(300):
        deadline = core.next_deadline()
        assert deadline is not None and deadline > now
        now = deadline
        core.handle(Tick(), now)
    assert now > 20.0


# ---- the whole -------------------------------------------------------------------------------------------------


def test_memory_is_constant_over_a_hundred_thousand_frames() -> None:
    core = ready_source(credit=64, drop=False, waiting_max=64, attempt_timeout_s=0.5)
    now, sequence = 0.0, 0

    def sizes() -> dict[str, int]:
        parts = (core, core._ledger, core._policies, core._entries, core._retries)
        owners = {type(part).__name__: vars(part) for part in parts}
        return {
            f"{owner}.{name}": len(value)
            for owner, values in owners.items()
            for name, value in values.items()
            if hasattr(value, "__len__")
        }

    early: dict[str, int] = {}
    sent = 0
    while sequence < 102_400:
        now += 0.05
        actions = hear(core, now, received=sent, credit=256)
        core.handle(policy(PeerId(CONTROLLER.name, sequence)), now)
        room = core.room
        actions += core.handle(FramesOffered(sequence, (1,) * room), now) if room else []
        sequence += room
        for each in [task for batch in of(SendTasks, actions) for task in batch.tasks]:
            sent += 1
            if each.frame.sequence % 50 or each.attempt > 1:  # two in a hundred get no first answer
                given = Answer(each.frame, each.attempt, OK, Reason.NONE, 1)
                core.handle(AnswersReceived(W1, CAM, (given,)), now)
        if sequence == 6400:
            early = sizes()
    late = sizes()
    assert all(late[name] <= early[name] + 64 for name in late), (early, late)
    assert core.summary()["ok"] > 102_300
    assert core.summary()["retries"] > 2000


def test_replayed_events_give_the_same_actions() -> None:
    cluster = Cluster(MESH, frames=150, loss=0.05, duplication=0.05, seed=6)
    log: list[tuple[Any, float]] = []
    actions: list[Any] = []
    handle = cluster.source.handle

    def logged(event: Any, now: float) -> list[Any]:
        result = handle(event, now)
        log.append((event, now))
        actions.extend(result)
        return result

    cluster.source.handle = logged  # type: ignore[method-assign]
    cluster.run().check()
    again = SourceCore(cluster.source.setup)
    assert [action for event, now in log for action in again.handle(event, now)] == actions
    assert len(of(CloseFrame, actions)) == 150


def test_report_says_which_workers_are_heard_and_at_once_when_one_is_new() -> None:
    core = ready_source("w1", "w2")
    report_of(core.handle(Tick(), 1.0))
    report = report_of(core.handle(AnswersReceived(W2, CAM, ()), 1.01))
    assert {each.peer: each.open for each in report.streams} == {W1: False, W2: True}
    assert of(PublishSourceReport, core.handle(AnswersReceived(W2, CAM, ()), 1.02)) == []


def test_made_up_workers_that_open_answers_take_bounded_memory() -> None:
    core = source("w1")
    for number in range(2 * WORKERS_MAX):
        core.handle(AnswersReceived(PeerId(f"n{number}", number), CAM, ()), 0.0)
    peers = {each.peer for each in report_of(core.handle(AnswersReceived(W1, CAM, ()), 0.1)).streams}
    assert len(peers) == WORKERS_MAX + 1
    assert W1 in peers
    core.handle(Tick(), 0.1 + FORGET_WORKER_S)
    assert W3 in {each.peer for each in report_of(core.handle(AnswersReceived(W3, CAM, ()), 6.0)).streams}


def test_answers_opened_for_another_life_of_the_source_are_not_heard() -> None:
    core = ready_source()
    core.handle(AnswersReceived(W2, PeerId("cam", 99), ()), 1.0)
    assert W2 not in {each.peer for each in report_of(core.handle(Tick(), 2.0)).streams}


def test_worker_is_heard_until_it_was_silent_for_long_or_lives_anew() -> None:
    core = ready_source()
    core.handle(AnswersReceived(W3, CAM, ()), 1.0)
    core.handle(worker_report(W3), 5.0)
    assert W3 in {each.peer for each in report_of(core.handle(Tick(), 5.0 + FORGET_WORKER_S)).streams}
    core.handle(worker_report(PeerId("w3", 99)), 10.1)
    assert W3 not in {each.peer for each in report_of(core.handle(Tick(), 10.2)).streams}


def test_answers_bring_credit_for_the_next_frames() -> None:
    core = ready_source(credit=1, waiting_max=8, drop=False)
    assert of(SendTasks, offer(core, 0, 0.1, count=3))[0].tasks == (entering(0, 0.1),)
    given = Answer(FrameId(CAM, 0), 1, OK, Reason.NONE, 1, 6, 0.9)
    (sent,) = of(SendTasks, core.handle(AnswersReceived(W1, CAM, (given,), received=1, credit=2), 0.2))
    assert [each.frame.sequence for each in sent.tasks] == [1, 2]


def test_credit_of_a_worker_whose_stream_is_not_open_counts_for_nothing() -> None:
    core = ready_source(credit=0, waiting_max=8, drop=False)
    core.handle(worker_report(W1, stream(CAM, opened=False)), 0.05)
    offer(core, 0, 0.1)
    assert of(SendTasks, core.handle(AnswersReceived(W1, CAM, (), received=0, credit=8), 0.2)) == []
