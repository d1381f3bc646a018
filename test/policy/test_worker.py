# SPDX-License-Identifier: Apache-2.0
"""What one worker does: literal events in, list of actions out."""

from __future__ import annotations

import dataclasses
import math
import random
from typing import Any

import pytest
from cluster_harness import MESH, Cluster
from literals import (
    CAM,
    MODEL,
    W1,
    W2,
    W3,
    Tosses,
    batch,
    decisions,
    done,
    of,
    policy,
    ready_worker,
    report_of,
    source_report,
    stream,
    task,
    tasks,
    worker,
    worker_report,
)

from mdi_exit_ros.policy.actions import Finished, Forget, PublishWorkerReport, RunBatch, SendAnswers, SendTasks, Warn
from mdi_exit_ros.policy.events import (
    ServiceFailed,
    Shutdown,
    TasksReceived,
    TasksRejected,
    Tick,
)
from mdi_exit_ros.policy.inflow import Inflow
from mdi_exit_ros.policy.peers import FORGET_PEER_S, PEERS_MAX
from mdi_exit_ros.policy.worker import WorkerCore
from mdi_exit_ros.task import Answer, PeerId, Reason, State, Status, Strategy, Task


class Camera:
    """Sends the frames of source `cam`, numbered, as the next of its stream."""

    def __init__(self, core: WorkerCore) -> None:
        self.core = core
        self.sent = 0

    def send(self, count: int, now: float) -> list[Any]:
        items = tasks(count, first=self.sent)
        self.sent += count
        return decisions(self.core.handle(batch(CAM, self.sent, items), now))


def answer(given: Task, exit_number: int, confidence: float) -> Answer:
    return Answer(given.frame, given.attempt, Status.OK, Reason.NONE, exit_number, 6, confidence)


def ok(given: Task, *, exit_number: int, confidence: float) -> SendAnswers:
    return SendAnswers(CAM, (answer(given, exit_number, confidence),))


def refused(*given: Task, reason: Reason) -> SendAnswers:
    return SendAnswers(CAM, tuple(Answer(each.frame, each.attempt, Status.REFUSED, reason) for each in given))


def failed(*given: Task, reason: Reason) -> SendAnswers:
    return SendAnswers(CAM, tuple(Answer(each.frame, each.attempt, Status.FAILED, reason) for each in given))


def busy_worker(*, service_s: float, **changes: Any) -> tuple[WorkerCore, Camera]:
    """Worker w1 at time 1 with Gamma = `service_s`, I = 1 (frame 1 is running) and O empty; batches of one."""
    core = ready_worker(**{"batch_max": 1, "queue_wait_max_s": 600.0, **changes})
    camera = Camera(core)
    assert camera.send(1, 1.0) == [RunBatch(1, tasks(1))]
    assert ok(task(0), exit_number=1, confidence=1.0) in decisions(core.handle(done((1.0,), service_s), 1.0))
    assert camera.send(1, 1.0) == [RunBatch(1, (task(1),))]
    return core, camera


def sent_to(receiver: PeerId, actions: list[Any]) -> list[Task]:
    return [each for action in of(SendTasks, actions) if action.receiver == receiver for each in action.tasks]


# ---- matching and credit -----------------------------------------------------------------------------------


def test_stream_to_a_neighbour_is_opened_when_it_is_heard() -> None:
    core = worker()
    assert core.handle(Tick(), 0.0)[:-1] == []
    assert decisions(core.handle(worker_report(W2), 0.1)) == [SendTasks(W2, 0, 0.1, ())]


def test_stream_is_opened_again_when_the_neighbour_does_not_confirm_it() -> None:
    core = worker()
    core.handle(worker_report(W2), 0.0)
    assert decisions(core.handle(worker_report(W2, stream(opened=False)), 0.19)) == []
    assert decisions(core.handle(worker_report(W2), 0.2)) == [SendTasks(W2, 0, 0.2, ())]
    assert decisions(core.handle(worker_report(W2, stream()), 0.5)) == []


@pytest.mark.parametrize("name", ["w3", "w1"])
def test_stream_is_not_opened_to_a_worker_without_an_edge(name: str) -> None:
    assert decisions(worker(neighbours=("w2",)).handle(worker_report(PeerId(name, 1)), 0.0)) == []


def test_stream_is_not_opened_to_a_stopping_worker() -> None:
    assert decisions(worker().handle(worker_report(W2, state=State.STOPPING), 0.0)) == []


def test_model_mismatch_is_warned_of_under_one_key_and_nothing_is_sent() -> None:
    core = ready_worker()
    assert decisions(core.handle(worker_report(W2, model_id="model-b"), 0.1)) == [], "it may be about to change"
    (first,) = decisions(core.handle(worker_report(W2, model_id="model-b"), 5.2))
    (second,) = decisions(core.handle(worker_report(W2, model_id="model-b"), 5.3))
    assert isinstance(first, Warn) and first == second
    assert "w2 runs model model-b" in first.text and MODEL in first.text


def test_second_worker_of_the_same_name_is_warned_of() -> None:
    (warning,) = decisions(worker().handle(worker_report(PeerId("w1", 99)), 0.0))
    assert isinstance(warning, Warn) and warning.key == "twin:w1"
    assert decisions(worker().handle(worker_report(W1), 0.0)) == []


def credit_for(core: WorkerCore, sender: PeerId, now: float) -> int | None:
    """Credit in the next report; None when the stream is not open."""
    streams = report_of(core.handle(Tick(), now)).streams
    return next((each.credit for each in streams if each.peer == sender and each.open), None)


def test_source_gets_half_the_room_and_other_workers_share_the_rest() -> None:
    core = ready_worker(W2, W3, neighbours=("w2", "w3"), queue_capacity=128)
    assert [credit_for(core, sender, 1.0 + index) for index, sender in enumerate((CAM, W2, W3))] == [64, 32, 32]


def test_slow_worker_gives_credit_for_what_it_can_run_in_time() -> None:
    core = ready_worker(W2, queue_capacity=128, queue_wait_max_s=2.0, batch_max=1)
    camera = Camera(core)
    camera.send(1, 1.0)
    core.handle(done((1.0,), 0.05), 1.05)  # 0.05 s per frame: 40 frames in 2 s
    # Half of that each: an idle stream with more is closed and opened anew, a busy one keeps what it was given.
    assert [credit_for(core, CAM, 1.2), credit_for(core, W2, 1.3)] == [63, None]
    core.handle(batch(W2, 0, ()), 1.3)
    assert credit_for(core, W2, 1.4) == 20
    core.handle(batch(CAM, 41, tasks(40, first=1)), 1.4)
    assert credit_for(core, CAM, 1.5) == 23
    measured = dataclasses.replace(core.setup, service_times=((1, 1, 0.05), (2, 1, 0.05)))
    assert WorkerCore(measured, Tosses())._inflow.room == 40


def test_worker_takes_the_segments_that_a_frame_visits_into_account() -> None:
    core = ready_worker(queue_capacity=128, queue_wait_max_s=2.0, batch_max=1, neighbours=())
    camera = Camera(core)
    camera.send(1, 1.0)
    for segment, confidence in enumerate((0.0, 0.0, 0.0, 1.0), start=1):
        core.handle(done((confidence,), 0.05), 1.0 + 0.05 * segment)
    core.handle(batch(CAM, 64, tasks(63, first=1)), 1.5)  # all that there was credit for
    assert core.held == 63
    assert core._inflow.room == 10  # 2 s of 0.2 s per frame


def test_room_is_never_less_than_lanes_need_and_small_changes_are_left_alone() -> None:
    inflow = Inflow(dataclasses.replace(worker(queue_capacity=100).setup, lanes=3))
    assert inflow.room == 100
    inflow.resize(0.1)
    assert inflow.room == 12
    inflow.resize(14.0)
    assert inflow.room == 12
    inflow.resize(20.0)
    assert inflow.room == 20
    inflow.resize(15.0)
    assert inflow.room == 20
    for frames in (95.0, 1000.0):
        inflow.resize(frames)
        assert inflow.room == min(frames, 100)


def test_source_gets_no_credit_before_it_is_heard() -> None:
    core = worker()
    core.handle(batch(CAM, 0, ()), 0.0)
    assert credit_for(core, CAM, 1.0) is None


def test_source_gets_no_credit_before_it_hears_the_answers_of_this_worker() -> None:
    core = worker()
    assert SendAnswers(CAM, ()) in core.handle(source_report(hears=(W2,)), 0.0)
    core.handle(batch(CAM, 0, ()), 0.0)
    assert credit_for(core, CAM, 1.0) is None
    assert of(SendAnswers, core.handle(source_report(hears=(W1,)), 1.1)) == []
    core.handle(batch(CAM, 0, ()), 1.1)
    assert credit_for(core, CAM, 2.0) == 64


def test_stream_of_answers_is_opened_until_the_source_says_that_it_hears() -> None:
    core = worker()
    for now in (0.0, 0.1, 0.2):
        assert SendAnswers(CAM, ()) in core.handle(source_report(hears=()), now)


def test_hearing_another_life_of_this_worker_is_not_hearing_it() -> None:
    core = worker()
    assert SendAnswers(CAM, ()) in core.handle(source_report(hears=(PeerId("w1", 99),)), 0.0)
    core.handle(batch(CAM, 0, ()), 0.0)
    assert credit_for(core, CAM, 1.0) is None


def test_source_that_does_not_hear_a_worker_alive_to_which_its_frames_may_move_gets_no_credit() -> None:
    core = worker()
    core.handle(worker_report(W2), 0.0)
    core.handle(source_report(hears=(W1,)), 0.0)
    core.handle(batch(CAM, 0, ()), 0.0)
    assert credit_for(core, CAM, 0.5) is None
    core.handle(source_report(hears=(W1, W2)), 0.6)
    core.handle(batch(CAM, 0, ()), 0.6)
    assert credit_for(core, CAM, 1.0) == 64


def test_source_does_not_wait_to_hear_workers_that_are_dead_or_to_which_nothing_moves() -> None:
    core = worker(liveness_timeout_s=1.5)
    core.handle(worker_report(W2), 0.0)
    core.handle(source_report(hears=(W1,)), 1.6)
    core.handle(batch(CAM, 0, ()), 1.6)
    assert credit_for(core, CAM, 2.0) == 64
    alone = worker(neighbours=(), strategy=Strategy.LOCAL)
    alone.handle(worker_report(W2), 0.0)
    alone.handle(source_report(hears=(W1,)), 0.0)
    alone.handle(batch(CAM, 0, ()), 0.0)
    assert credit_for(alone, CAM, 1.0) == 64


def test_worker_whose_answers_never_arrive_is_not_waited_for_for_ever() -> None:
    core = worker()
    for now in (0.0, FORGET_PEER_S, FORGET_PEER_S + 0.5):
        core.handle(worker_report(W2), now)
        core.handle(source_report(hears=(W1,)), now)
        core.handle(batch(CAM, 0, ()), now)
        assert credit_for(core, CAM, now + 0.2) == (64 if now > FORGET_PEER_S else None)


def test_source_that_joins_an_old_cluster_has_to_hear_its_workers_too() -> None:
    core = worker()
    core.handle(worker_report(W2), 0.0)
    for now in (10.0, 11.0, 15.2):
        core.handle(worker_report(W2), now)
        core.handle(source_report(hears=(W1,)), now)
        core.handle(batch(CAM, 0, ()), now)
        assert credit_for(core, CAM, now + 0.2) == (64 if now > 10.0 + FORGET_PEER_S else None)


def test_sources_whose_frames_enter_elsewhere_get_no_share_of_the_room_here() -> None:
    core = worker()
    for number in range(7):
        core.handle(source_report(PeerId(f"cam{number}", number), hears=(W1, W2, W3), home="w2"), 0.0)
    core.handle(source_report(hears=(W1, W2, W3), home="w1"), 0.0)
    core.handle(batch(CAM, 0, ()), 0.0)
    assert credit_for(core, CAM, 1.0) == 64
    core.handle(source_report(PeerId("cam0", 0), hears=(W1, W2, W3), home="w1"), 1.0)
    core.handle(batch(PeerId("cam0", 0), 0, ()), 1.0)
    credit_for(core, CAM, 2.0)
    core.handle(batch(CAM, 0, ()), 2.0)
    assert [credit_for(core, each, now) for each, now in ((CAM, 2.2), (PeerId("cam0", 0), 2.4))] == [32, 32]


def test_source_that_no_longer_hears_its_answers_loses_its_credit() -> None:
    core = ready_worker()
    core.handle(source_report(hears=()), 1.0)
    assert credit_for(core, CAM, 2.0) is None


def test_worker_gets_no_credit_while_a_known_source_does_not_hear_answers_from_here() -> None:
    core = worker()
    core.handle(worker_report(W2), 0.0)
    for now in (0.0, FORGET_PEER_S, FORGET_PEER_S + 0.5):
        core.handle(worker_report(W2), now)
        core.handle(source_report(hears=()), now)
        core.handle(batch(W2, 0, ()), now)
        assert credit_for(core, W2, now + 0.2) == (64 if now > FORGET_PEER_S else None)


def test_dead_source_does_not_keep_other_streams_shut_for_ever() -> None:
    core = ready_worker()
    core.handle(source_report(PeerId("cam2", 8), hears=()), 0.1)  # hears nothing from here, never heard again
    late = 0.2 + FORGET_PEER_S
    core.handle(source_report(), late)
    core.handle(worker_report(W3), late)
    core.handle(batch(W3, 0, ()), late)
    assert credit_for(core, W3, late + 1.0) == 64


@pytest.mark.parametrize(
    "opening",
    [
        batch(CAM, 0, (), model_id="model-b"),
        batch(CAM, 0, (), receiver=PeerId("w1", 99)),
        batch(PeerId("cam", 8), 0, ()),
        batch(PeerId("nobody", 8), 0, ()),
    ],
)
def test_stream_of_another_model_or_life_is_not_opened(opening: TasksReceived) -> None:
    core = worker()
    core.handle(source_report(), 0.0)
    core.handle(opening, 0.0)
    assert report_of(core.handle(Tick(), 1.0)).streams == ()


def test_frames_beyond_credit_are_refused_and_those_within_are_run() -> None:
    core = ready_worker(queue_capacity=8)
    flood = tasks(6)
    actions = decisions(core.handle(batch(CAM, 6, flood), 1.0))
    assert actions == [
        refused(*flood[4:], reason=Reason.NO_CREDIT),
        Forget(flood[4:]),
        RunBatch(1, flood[:4]),
    ]
    assert core.held == 4


def test_batch_that_counts_fewer_frames_than_it_brings_gets_no_more_than_the_credit() -> None:
    core = ready_worker(queue_capacity=8)
    flood = tasks(100)
    actions = decisions(core.handle(batch(CAM, 1, flood), 1.0))
    assert of(RunBatch, actions) == [RunBatch(1, flood[:4])]
    assert core.held == 4


def test_batch_that_comes_after_it_was_given_up_is_run() -> None:
    core = ready_worker(liveness_timeout_s=1.5)
    core.handle(source_report(CAM, stream(W1, sent=2)), 1.0)
    report = report_of(core.handle(source_report(CAM, stream(W1, sent=2)), 2.6))
    assert report.counters.lost == 2
    actions = decisions(core.handle(batch(CAM, 2, tasks(2)), 2.7))
    assert actions == [RunBatch(1, tasks(2))]
    assert report_of(core.handle(Tick(), 3.0)).counters.lost == 0
    assert decisions(core.handle(batch(CAM, 2, tasks(2)), 3.1)) == []  # once


def test_flooder_that_goes_on_is_refused_everything() -> None:
    core = ready_worker(queue_capacity=8)
    core.handle(batch(CAM, 4, tasks(4)), 0.011)
    for step in range(100):
        more = tasks(2, first=4 + 2 * step)
        actions = decisions(core.handle(batch(CAM, 6 + 2 * step, more), 0.012))
        assert actions == [refused(*more, reason=Reason.NO_CREDIT), Forget(more)]
    assert core.held == 4


def test_frames_without_an_open_stream_are_refused() -> None:
    core = worker()
    assert decisions(core.handle(batch(CAM, 1, tasks(1)), 0.0)) == [
        refused(task(), reason=Reason.NO_CREDIT),
        Forget(tasks(1)),
    ]


def test_frames_meant_for_another_life_are_dropped_unanswered() -> None:
    actions = decisions(ready_worker().handle(batch(CAM, 1, tasks(1), receiver=PeerId("w1", 99)), 1.0))
    assert actions == [Forget(tasks(1))]


def test_frames_of_another_model_are_refused() -> None:
    actions = decisions(ready_worker().handle(batch(CAM, 1, tasks(1), model_id="model-b"), 1.0))
    assert actions == [refused(task(), reason=Reason.MODEL_MISMATCH), Forget(tasks(1))]


def test_unusable_batch_is_refused_with_the_shells_reason_and_counts_as_received() -> None:
    core = ready_worker()
    event = TasksRejected(CAM, W1.incarnation, 2, 0.0, tasks(2), Reason.BAD_INPUT)
    assert decisions(core.handle(event, 1.0)) == [refused(*tasks(2), reason=Reason.BAD_INPUT), Forget(tasks(2))]
    (mine,) = report_of(core.handle(Tick(), 2.0)).streams
    assert (mine.peer, mine.received, mine.credit) == (CAM, 2, 64)


def test_rejected_batch_of_a_sender_without_credit_ends_no_frame() -> None:
    core = ready_worker()
    core.handle(batch(CAM, 1, tasks(1)), 1.0)
    event = TasksRejected(PeerId("stranger", 5), W1.incarnation, 2, 0.0, tasks(2), Reason.BAD_INPUT)
    assert decisions(core.handle(event, 1.1)) == [Forget(tasks(1, first=1))]
    assert core.held == 1


def test_unusable_batch_for_another_life_is_dropped_unanswered() -> None:
    event = TasksRejected(CAM, 99, 2, 0.0, tasks(2), Reason.BAD_INPUT)
    assert decisions(ready_worker().handle(event, 1.0)) == [Forget(tasks(2))]


def test_batch_that_comes_twice_is_run_once() -> None:
    core = ready_worker()
    core.handle(batch(CAM, 1, tasks(1)), 1.0)
    assert decisions(core.handle(batch(CAM, 1, tasks(1)), 1.1)) == []
    assert core.held == 1


def test_late_copy_of_an_answered_task_is_forgotten() -> None:
    core = ready_worker()
    core.handle(batch(CAM, 1, tasks(1)), 1.0)
    core.handle(done((1.0,), 0.1), 1.1)
    assert decisions(core.handle(batch(CAM, 1, tasks(1)), 1.2)) == [Forget(tasks(1))]


def test_gap_in_a_stream_is_counted_and_returned_as_credit() -> None:
    core = ready_worker()
    core.handle(batch(CAM, 5, (task(4),)), 1.0)
    report = report_of(core.handle(Tick(), 2.0))
    assert report.counters.lost == 4
    assert (report.streams[0].received, report.streams[0].credit) == (5, 63)


def test_announced_loss_is_adopted_after_patience() -> None:
    core = ready_worker(liveness_timeout_s=1.0)
    announcement = source_report(CAM, stream(W1, sent=3))
    core.handle(announcement, 1.0)
    early = report_of(core.handle(announcement, 1.9))
    assert (early.streams[0].received, early.counters.lost) == (0, 0)
    late = report_of(core.handle(announcement, 2.0))
    assert (late.streams[0].received, late.counters.lost, late.streams[0].credit) == (3, 3, 64)


def test_count_that_a_sender_made_up_does_not_spoil_the_counters() -> None:
    core = ready_worker(queue_capacity=8)
    for life in range(3):
        made_up = PeerId("cam", 100 + life)
        core.handle(source_report(made_up), 1.0 + life)
        core.handle(batch(made_up, 0, ()), 1.0 + life)
        core.handle(batch(made_up, 1 << 48, ()), 1.1 + life)
        core.handle(batch(made_up, 1 << 48, tasks(1)), 1.2 + life)
    assert report_of(core.handle(Tick(), 5.0)).counters.lost <= 3 * 8


def sizes_of(*owners: object) -> dict[str, int]:
    """How much everything holds that can grow."""
    owned = {f"{type(owner).__name__}.{name}": value for owner in owners for name, value in vars(owner).items()}
    return {name: len(value) for name, value in owned.items() if isinstance(value, dict | list | set | tuple)}


def test_made_up_names_take_bounded_memory_and_no_room_and_are_forgotten() -> None:
    core = ready_worker(neighbours=(), queue_capacity=8)
    for number in range(2 * PEERS_MAX):
        core.handle(source_report(PeerId(f"s{number}", number), hears=()), 1.0)
        core.handle(worker_report(PeerId(f"n{number}", number)), 1.0)
    sizes = sizes_of(core, core._inflow.peers)
    assert max(sizes.values()) == PEERS_MAX, sizes
    camera = Camera(core)
    assert camera.send(4, 1.1) == [RunBatch(1, tasks(4))]
    core.handle(done((1.0,) * 4, 0.001), 1.2)
    (mine,) = report_of(core.handle(Tick(), 1.4)).streams
    assert (mine.peer, mine.received, mine.credit) == (CAM, 4, 4)
    report_of(core.handle(source_report(), 1.1 + FORGET_PEER_S))
    late = PeerId("late", 5)
    core.handle(source_report(late), 6.2)
    core.handle(batch(late, 0, ()), 6.2)
    assert late in {each.peer for each in report_of(core.handle(Tick(), 6.4)).streams}


def test_neighbour_is_heard_however_many_names_were_made_up() -> None:
    core = worker()
    for number in range(PEERS_MAX):
        core.handle(worker_report(PeerId(f"n{number}", number)), 0.0)
    core.handle(source_report(), 0.0)
    core.handle(batch(CAM, 0, ()), 0.0)
    core.handle(worker_report(W2, stream(opened=False)), 0.0)
    core.handle(batch(W2, 0, ()), 0.0)
    assert W2 in {each.peer for each in report_of(core.handle(Tick(), 1.0)).streams if each.open}


def test_new_life_of_a_source_voids_its_credit() -> None:
    core = ready_worker(queue_capacity=8)
    core.handle(batch(CAM, 3, tasks(3)), 1.0)
    reborn = PeerId("cam", 8)
    core.handle(source_report(reborn), 1.1)
    actions = decisions(core.handle(batch(CAM, 4, (task(3),)), 1.1))
    assert refused(task(3), reason=Reason.NO_CREDIT) in decisions(actions)
    core.handle(batch(reborn, 0, ()), 1.2)
    streams = report_of(core.handle(Tick(), 2.0)).streams
    assert [(each.peer, each.received, each.credit) for each in streams] == [(reborn, 0, 1)]


def test_silent_sender_loses_its_credit() -> None:
    core = ready_worker()
    assert credit_for(core, CAM, FORGET_PEER_S) == 64
    assert credit_for(core, CAM, FORGET_PEER_S + 0.2) is None


def test_stopped_source_loses_its_credit() -> None:
    core = ready_worker()
    core.handle(source_report(state=State.STOPPING), 1.0)
    assert credit_for(core, CAM, 2.0) is None


# ---- inference and exit -------------------------------------------------------------------------------------


def test_idle_worker_runs_a_frame_at_once() -> None:
    assert Camera(ready_worker()).send(1, 1.0) == [RunBatch(1, tasks(1))]


def test_frames_that_came_together_run_in_one_batch() -> None:
    assert Camera(ready_worker()).send(5, 1.0) == [RunBatch(1, tasks(5))]


def test_batch_is_no_larger_than_its_maximum() -> None:
    assert Camera(ready_worker(batch_max=4)).send(5, 1.0) == [RunBatch(1, tasks(4))]


def test_one_batch_runs_at_a_time() -> None:
    camera = Camera(ready_worker())
    camera.send(1, 1.0)
    assert camera.send(1, 1.0) == []


def test_sure_frame_leaves_and_unsure_one_goes_on() -> None:
    core = ready_worker()
    Camera(core).send(2, 1.0)
    actions = decisions(core.handle(done((0.8, 0.79), 0.1), 1.1))
    assert actions == [ok(task(0), exit_number=1, confidence=0.8), Forget((task(0),)), RunBatch(2, (task(1, 2),))]


def run_to_end(core: WorkerCore, confidence: float) -> list[Any]:
    """Runs one frame until it is answered; the segments it was run through are in the actions."""
    every = Camera(core).send(1, 1.0)
    for step in range(5):
        if not of(SendAnswers, every):
            every += decisions(core.handle(done((confidence,), 0.01), 1.1 + step))
    return every


@pytest.mark.parametrize(
    ("changes", "segments"),
    [
        ({}, [1]),
        ({"exits_enabled": False}, [1, 2, 3, 4, 5]),
        ({"strategy": Strategy.LOCAL}, [1]),
        ({"strategy": Strategy.DDI}, [1]),
    ],
)
def test_sure_frame_runs_the_segments_up_to_its_exit(changes: dict[str, Any], segments: list[int]) -> None:
    assert [each.segment for each in of(RunBatch, run_to_end(ready_worker(**changes), 1.0))] == segments


def test_last_exit_answers_an_unsure_frame() -> None:
    assert ok(task(segment=5), exit_number=5, confidence=0.0) in decisions(run_to_end(ready_worker(), 0.0))


def test_thresholds_of_a_controller_decide_the_next_frame() -> None:
    core = ready_worker()
    Camera(core).send(1, 1.0)
    core.handle(policy(thresholds=(0.5, 1.0, 1.0, 1.0)), 1.05)
    assert ok(task(), exit_number=1, confidence=0.5) in decisions(core.handle(done((0.5,), 0.1), 1.1))


def test_last_policy_holds_when_the_controller_is_gone() -> None:
    core = ready_worker()
    core.handle(policy(thresholds=(0.5,) * 4), 0.1)
    core.handle(source_report(), 3000.0)
    core.handle(batch(CAM, 0, ()), 3000.0)
    core.handle(Tick(), 3001.0)
    core.handle(batch(CAM, 1, (task(expires_at=9999.0),)), 3001.0)
    assert of(SendAnswers, core.handle(done((0.5,), 0.1), 3001.1))


def test_several_controllers_are_warned_of() -> None:
    core = ready_worker()
    assert decisions(core.handle(policy(), 0.1)) == []
    (warning,) = decisions(core.handle(policy(PeerId("other", 1)), 0.2))
    assert isinstance(warning, Warn) and warning.key == "controllers"


def test_batch_that_could_not_be_computed_fails_its_frames() -> None:
    core = ready_worker()
    Camera(core).send(2, 1.0)
    assert decisions(core.handle(ServiceFailed(), 1.1)) == [
        failed(*tasks(2), reason=Reason.COMPUTE),
        Forget(tasks(2)),
    ]
    assert core.held == 0


def test_expired_frame_is_not_run() -> None:
    core = ready_worker()
    late = task(0, expires_at=1.0)
    assert decisions(core.handle(batch(CAM, 1, (late,)), 1.0)) == [
        failed(late, reason=Reason.EXPIRED),
        Forget((late,)),
    ]
    assert core.held == 0


def test_frame_runs_until_just_before_it_expires() -> None:
    core = ready_worker()
    assert of(RunBatch, core.handle(batch(CAM, 1, (task(0, expires_at=1.001),)), 1.0))


def test_expired_frame_in_the_output_queue_fails() -> None:
    core, _ = busy_worker(service_s=0.1)
    late = task(2, expires_at=1.5)
    core.handle(batch(CAM, 3, (late,)), 1.2)
    assert decisions(core.handle(Tick(), 1.5)) == [failed(late, reason=Reason.EXPIRED), Forget((late,))]


# ---- which queue -----------------------------------------------------------------------------------------------


def queues(core: WorkerCore, now: float) -> tuple[int, int]:
    report = report_of(core.handle(Tick(), now))
    return report.input_queue, report.output_queue


def test_running_frames_count_into_the_input_queue() -> None:
    core = ready_worker()
    Camera(core).send(3, 1.0)
    assert queues(core, 2.0) == (3, 0)


def test_frame_for_a_busy_worker_goes_to_the_output_queue() -> None:
    core, camera = busy_worker(service_s=0.1)
    camera.send(1, 1.0)
    assert queues(core, 2.0) == (1, 1)


@pytest.mark.parametrize(("waiting", "expected"), [(24, (1, 24)), (25, (1, 25)), (26, (2, 25)), (28, (4, 25))])
def test_frames_stay_when_the_output_queue_is_longer_than_its_threshold(
    waiting: int, expected: tuple[int, int]
) -> None:
    core, camera = busy_worker(service_s=0.1)
    camera.send(waiting, 1.0)
    assert queues(core, 2.0) == expected


def test_output_threshold_of_a_controller_applies() -> None:
    core, camera = busy_worker(service_s=0.1)
    core.handle(policy(output_threshold=0), 1.0)
    camera.send(3, 1.0)
    assert queues(core, 2.0) == (3, 1)


def test_frame_that_a_neighbour_moved_here_is_run_here() -> None:
    core = ready_worker(W2)
    Camera(core).send(1, 1.0)
    core.handle(batch(W2, 2, tasks(2, segment=2, first=50)), 1.0)
    assert queues(core, 2.0) == (3, 0)


def test_frames_of_a_worker_that_works_alone_stay() -> None:
    core, camera = busy_worker(service_s=0.1, strategy=Strategy.LOCAL, neighbours=())
    camera.send(3, 1.0)
    assert queues(core, 2.0) == (4, 0)


def test_whole_frames_move_and_begun_ones_stay_under_ddi() -> None:
    core = ready_worker(strategy=Strategy.DDI, exits_enabled=False)
    Camera(core).send(2, 1.0)
    core.handle(batch(CAM, 3, (task(2),)), 1.0)
    core.handle(worker_report(W2, stream(credit=1)), 1.0)
    core.handle(done((0.0, 0.0), 0.1), 1.1)
    assert queues(core, 2.0) == (2, 0)  # frame 2 has moved; 0 and 1 go on here


def test_output_queue_is_run_when_the_input_queue_is_empty() -> None:
    core, camera = busy_worker(service_s=0.1)
    camera.send(2, 1.0)
    actions = decisions(core.handle(done((1.0,), 0.1), 1.1))
    assert actions[-1] == RunBatch(1, (task(2),))
    assert queues(core, 2.0) == (1, 1)


def test_segment_that_has_waited_longest_is_run_whichever_queue_it_waits_in() -> None:
    core = ready_worker(W2, batch_max=1)
    camera = Camera(core)
    camera.send(2, 1.0)  # frame 0 runs, frame 1 waits in O
    core.handle(batch(W2, 1, (task(50, 3),)), 1.5)  # into I: a neighbour moved it here
    first = decisions(core.handle(done((1.0,), 0.1), 2.0))
    second = decisions(core.handle(done((1.0,), 0.1), 2.1))
    assert (first[-1], second[-1]) == (RunBatch(1, (task(1),)), RunBatch(3, (task(50, 3),)))


def test_input_queue_goes_first_of_tasks_that_came_together() -> None:
    core, camera = busy_worker(service_s=0.1)
    core.handle(policy(output_threshold=0), 1.0)
    camera.send(2, 1.2)  # frame 2 into O, frame 3 into I
    assert decisions(core.handle(done((1.0,), 0.1), 1.3))[-1] == RunBatch(1, (task(3),))


def test_expired_tasks_make_room_in_a_batch() -> None:
    core = ready_worker(batch_max=2)
    camera = Camera(core)
    camera.send(1, 1.0)
    late = task(1, expires_at=1.5)
    core.handle(batch(CAM, 4, (late, task(2), task(3))), 1.1)
    actions = decisions(core.handle(done((1.0,), 0.1), 1.6))
    assert of(RunBatch, actions) == [RunBatch(1, (task(2), task(3)))]
    (back,) = of(SendAnswers, actions)
    assert Answer(late.frame, 1, Status.FAILED, Reason.EXPIRED, 0) in back.answers


def test_batch_is_filled_up_from_the_output_queue() -> None:
    core, camera = busy_worker(service_s=0.1, batch_max=4)
    core.handle(policy(output_threshold=1), 1.0)
    camera.send(5, 1.0)
    assert queues(core, 1.2) == (4, 2)
    actions = decisions(core.handle(done((1.0,), 0.1), 1.3))
    assert [each.frame.sequence for each in of(RunBatch, actions)[0].tasks] == [4, 5, 6, 2]


# ---- offloading ----------------------------------------------------------------------------------------------------


def test_task_is_offloaded_when_neighbour_is_idle() -> None:
    core, camera = busy_worker(service_s=0.1)
    core.handle(worker_report(W2, stream()), 1.0)
    assert camera.send(1, 1.0) == [SendTasks(W2, 1, 1.0, (task(2),)), Forget((task(2),))]


def test_tasks_that_move_together_go_in_one_batch_per_segment() -> None:
    core, camera = busy_worker(service_s=0.1)
    core.handle(worker_report(W2, stream(credit=8), service_s=0.0), 1.0)
    assert camera.send(6, 1.0)[0] == SendTasks(W2, 3, 1.0, tasks(3, first=2))  # until O = 3 = I_m


def test_credit_of_a_neighbour_is_never_exceeded() -> None:
    core, camera = busy_worker(service_s=0.1)
    core.handle(worker_report(W2, stream(credit=2), service_s=0.0), 1.0)
    assert len(sent_to(W2, camera.send(6, 1.0))) == 2
    assert sent_to(W2, core.handle(worker_report(W2, stream(received=1, credit=1), service_s=0.0), 1.01)) == []
    assert len(sent_to(W2, core.handle(worker_report(W2, stream(received=1, credit=3), service_s=0.0), 1.02))) == 2


def test_nothing_is_sent_before_the_neighbour_gave_credit() -> None:
    core, camera = busy_worker(service_s=0.1)
    core.handle(worker_report(W2), 1.0)
    assert sent_to(W2, camera.send(3, 1.0)) == []


def test_new_life_of_a_neighbour_voids_credit_and_outstanding_frames() -> None:
    core, camera = busy_worker(service_s=0.1)
    core.handle(worker_report(W2, stream(credit=3), service_s=0.0), 1.0)
    assert len(sent_to(W2, camera.send(3, 1.0))) == 2
    reborn = PeerId("w2", 22)
    opening = core.handle(worker_report(reborn), 1.1)
    assert SendTasks(reborn, 0, 1.1, ()) in opening
    assert of(SendTasks, camera.send(1, 1.15)) == []
    core.handle(source_report(hears=(W1, reborn, W3)), 1.18)
    actions = core.handle(worker_report(reborn, stream(credit=8)), 1.2)
    assert SendTasks(reborn, 1, 1.2, (task(4),)) in actions


def test_stream_that_the_neighbour_closed_is_not_sent_on() -> None:
    core, camera = busy_worker(service_s=0.1)
    core.handle(worker_report(W2, stream(credit=8)), 1.0)
    core.handle(worker_report(W2), 1.1)
    assert sent_to(W2, camera.send(2, 1.1)) == []


def test_late_report_of_an_earlier_life_does_not_spoil_the_stream() -> None:
    core, camera = busy_worker(service_s=0.1)
    core.handle(worker_report(W2, stream(credit=8)), 1.0)
    camera.send(1, 1.0)
    core.handle(worker_report(PeerId("w2", 0), stream(credit=8)), 1.1)
    core.handle(worker_report(W2, stream(received=1, credit=8)), 1.2)
    (sent,) = of(SendTasks, camera.send(1, 1.2))
    assert (sent.receiver, sent.sent_total) == (W2, 2)


def delayed(transfer_s: float, now: float, **rest: Any) -> Any:
    """A report of w2 over a link with D = `transfer_s`, measured with the first weight."""
    echo = {"echo_stamp": 0.0, "echo_hold_s": now - 2.0 * transfer_s}
    return worker_report(W2, stream(**echo, credit=rest.pop("credit", 8)), **rest)


@pytest.mark.parametrize(
    ("transfer_s", "rng"),
    [
        (0.499, Tosses()),  # D + 0 < 1 * 0.5
        (0.5, Tosses()),  # equal: probability 1
        (1.0, Tosses(0.49)),  # probability 0.5
        (2.0, Tosses(0.24)),  # probability 0.25
    ],
)
def test_task_moves_when_the_neighbour_is_faster_or_by_chance(transfer_s: float, rng: Tosses) -> None:
    core, camera = busy_worker(service_s=0.5, rng=rng, group_min=1)
    core.handle(delayed(transfer_s, 1.0), 1.0)
    assert sent_to(W2, camera.send(1, 1.0)) == [task(2)]
    assert rng.values == []


@pytest.mark.parametrize(("transfer_s", "toss"), [(0.501, 0.999), (1.0, 0.5), (2.0, 0.25), (2.0, 0.9)])
def test_task_stays_when_the_neighbour_is_slower_and_chance_says_so(transfer_s: float, toss: float) -> None:
    rng = Tosses(toss)
    core, camera = busy_worker(service_s=0.5, rng=rng, group_min=1)
    core.handle(delayed(transfer_s, 1.0), 1.0)
    assert sent_to(W2, camera.send(1, 1.0)) == []
    assert rng.values == []


@pytest.mark.parametrize(
    ("waiting", "queue", "moved"), [(3, 0, 2), (3, 1, 0), (4, 1, 2), (6, 2, 0), (7, 2, 3), (5, 5, 0), (5, 6, 0)]
)
def test_tasks_move_in_groups_until_the_output_queue_is_no_longer_than_the_neighbours_input(
    waiting: int, queue: int, moved: int
) -> None:
    """A group is begun where O is more than three times I_m; each that moves makes O shorter and I_m longer by one."""
    core, camera = busy_worker(service_s=10.0)
    camera.send(waiting, 1.0)
    actions = core.handle(worker_report(W2, stream(), queue=queue, service_s=0.001), 1.0)
    assert len(sent_to(W2, actions)) == moved


@pytest.mark.parametrize(
    ("waiting", "transfer_s", "moves"),
    [
        (1, 2.4, True),  # running one here takes 1 s, 0.4 of D and more
        (1, 2.6, False),
        (2, 4.9, True),
        (2, 5.1, False),
        (3, 50.0, True),  # group_min of them always do
    ],
)
def test_small_group_moves_only_where_running_it_here_takes_a_good_part_of_the_way(
    waiting: int, transfer_s: float, *, moves: bool
) -> None:
    core, camera = busy_worker(service_s=1.0, rng=Tosses(*[0.0] * waiting), group_min=3)
    core.handle(delayed(transfer_s, 1.0, credit=0), 1.0)
    assert sent_to(W2, camera.send(waiting, 1.0)) == []
    assert bool(sent_to(W2, core.handle(delayed(transfer_s, 1.1), 1.1))) == moves


def test_group_that_was_begun_moves_on_although_fewer_wait() -> None:
    core, camera = busy_worker(service_s=0.001, rng=Tosses(*[0.0] * 6), group_min=6)
    core.handle(delayed(1.0, 1.0), 1.0)
    assert sent_to(W2, camera.send(5, 1.0)) == []
    assert len(sent_to(W2, camera.send(1, 1.0))) == 3  # until O is no longer than I_m


@pytest.mark.parametrize(
    ("settings", "output_threshold", "group"),
    [({}, 24, 8), ({"queue_capacity": 16}, 24, 2), ({}, 6, 3), ({}, 0, 1), ({"group_min": 2}, 24, 2)],
)
def test_least_group_is_one_that_can_gather(settings: dict[str, int], output_threshold: int, group: int) -> None:
    """Beyond T_O tasks stay here, and sources get half the room."""
    core, camera = busy_worker(service_s=0.001, rng=Tosses(*[0.0] * 8), **settings)
    core.handle(policy(output_threshold=output_threshold), 1.0)
    core.handle(delayed(1.0, 1.0), 1.0)
    sent = [bool(sent_to(W2, camera.send(1, 1.0))) for _ in range(group)]
    assert sent == [False] * (group - 1) + [True]


def test_small_group_behind_a_lane_that_is_stuck_moves_in_the_end() -> None:
    core, camera = busy_worker(service_s=0.001, rng=Tosses(0.0))
    core.handle(delayed(0.05, 1.0), 1.0)
    assert sent_to(W2, camera.send(1, 1.0)) == []
    assert sent_to(W2, core.handle(delayed(0.05, 1.4), 1.4)) == []
    assert sent_to(W2, core.handle(delayed(0.05, 1.6), 1.6)) == [task(2)]  # ten times D


def test_task_that_cannot_run_here_moves_alone() -> None:
    core, _ = busy_worker(service_s=0.001, segments=frozenset({1}), group_min=8, batch_max=8)
    core.handle(worker_report(W2, stream(echo_stamp=0.0)), 1.0)  # D is 0.5 s
    assert [each.segment for each in sent_to(W2, core.handle(done((0.0,), 0.001), 1.001))] == [2]


def test_what_was_sent_and_not_acknowledged_counts_into_the_neighbours_queue() -> None:
    core, camera = busy_worker(service_s=10.0)
    core.handle(worker_report(W2, stream()), 1.0)
    assert len(sent_to(W2, camera.send(1, 1.0))) == 1
    assert sent_to(W2, camera.send(1, 1.0)) == []  # O = 1 is not longer than I_m = 0 + 1 unacknowledged
    acknowledged = worker_report(W2, stream(received=1), queue=0)
    assert sent_to(W2, core.handle(acknowledged, 1.1)) == [task(3)]


def test_task_goes_to_the_neighbour_with_the_smallest_expected_delay() -> None:
    core, camera = busy_worker(service_s=1.0, neighbours=("w2", "w3"))
    core.handle(worker_report(W2, stream(), queue=1, service_s=0.5), 1.0)
    core.handle(worker_report(W3, stream(), queue=1, service_s=0.4), 1.0)
    actions = camera.send(4, 1.0)
    assert sent_to(W3, actions) == [task(2), task(3)]
    assert sent_to(W2, actions) == []


def test_fastest_neighbour_with_a_long_queue_does_not_hide_another() -> None:
    core, camera = busy_worker(service_s=1.0, neighbours=("w2", "w3"), rng=Tosses())
    core.handle(worker_report(W2, stream(), queue=5, service_s=0.001), 1.0)
    core.handle(worker_report(W3, stream(), queue=0, service_s=0.5), 1.0)
    assert sent_to(W3, camera.send(1, 1.0)) == [task(2)]


def test_neighbour_without_credit_does_not_hide_another() -> None:
    core, camera = busy_worker(service_s=1.0, neighbours=("w2", "w3"))
    core.handle(worker_report(W2, stream(credit=0)), 1.0)
    core.handle(worker_report(W3, stream(), service_s=0.5), 1.0)
    assert sent_to(W3, camera.send(1, 1.0)) == [task(2)]


def test_silence_of_a_neighbour_is_not_taken_for_a_slow_link() -> None:
    core = worker(liveness_timeout_s=1.0)

    def delay_s(now: float, echo_stamp: float) -> float:
        core.handle(worker_report(W2, stream(echo_stamp=echo_stamp)), now)
        return core._neighbours[0].delay.seconds(0)

    assert delay_s(0.3, 0.298) == pytest.approx(0.001)
    assert delay_s(5.0, 0.31) == pytest.approx(0.001)  # it stood still, and so did the stamps that it had got
    assert delay_s(5.3, 4.99) == pytest.approx(0.001)
    assert delay_s(5.6, 5.596) == pytest.approx(0.8 * 0.001 + 0.2 * 0.002)


def test_task_is_tossed_for_once_per_new_information() -> None:
    rng = Tosses(0.9)
    core, camera = busy_worker(service_s=0.5, rng=rng)
    core.handle(delayed(1.0, 1.0), 1.0)
    assert sent_to(W2, camera.send(1, 1.0)) == []
    for step in range(5):
        assert sent_to(W2, core.handle(Tick(), 1.1 + step / 10)) == []  # wakes up, knows nothing new
    rng.values = [0.1]
    assert sent_to(W2, core.handle(delayed(1.0, 1.9), 1.9)) == [task(2)]


def test_last_exit_that_says_no_number_fails_that_frame_alone() -> None:
    core = ready_worker()
    Camera(core).send(2, 1.0)
    for segment in range(1, 5):
        core.handle(done((0.0, math.nan), 0.01), 1.0 + segment / 10)
    actions = core.handle(done((0.5, math.nan), 0.01), 1.5)
    answers = [each for sent in of(SendAnswers, actions) for each in sent.answers]
    assert [(each.status, each.reason) for each in answers] == [
        (Status.OK, Reason.NONE),
        (Status.FAILED, Reason.COMPUTE),
    ]
    assert len(of(Warn, actions)) == 1


def test_service_end_is_new_information() -> None:
    rng = Tosses(0.9, 0.9)
    core, camera = busy_worker(service_s=0.5, rng=rng, group_min=1)
    core.handle(policy(output_threshold=0), 1.0)
    core.handle(delayed(2.0, 1.0), 1.0)
    camera.send(2, 1.0)
    assert len(rng.values) == 1
    core.handle(done((1.0,), 0.5), 1.5)
    assert rng.values == []


def test_task_that_was_not_considered_is_considered_when_the_output_queue_grows() -> None:
    core, camera = busy_worker(service_s=10.0)
    core.handle(worker_report(W2, stream(), queue=1), 1.0)
    assert sent_to(W2, camera.send(3, 1.0)) == []
    assert sent_to(W2, camera.send(1, 1.1)) == [task(2), task(3)]


# ---- who is usable -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "now", "moved"),
    [
        (worker_report(W2, stream()), 2.0, 1),  # as old as allowed
        (worker_report(W2, stream()), 2.001, 0),  # dead
        (worker_report(W2, stream(), busy_s=9.0), 1.5, 1),  # busy but fresh
        (worker_report(W2, stream(), busy_s=10.0), 1.0, 1),  # as long as allowed
        (worker_report(W2, stream(), busy_s=9.0), 2.0, 1),
        (worker_report(W2, stream(), busy_s=9.001), 2.0, 0),  # stuck by now
        (worker_report(W2, stream(), busy_s=11.0), 1.0, 0),  # stuck
        (worker_report(W2, stream(), segments=(2, 3, 4, 5)), 1.0, 0),  # does not hold the segment
        (worker_report(W2, stream(), model_id="model-b"), 1.0, 0),
        (worker_report(W2, stream(), state=State.STOPPING), 1.0, 0),
        (worker_report(W2, stream(), state=State.STARTING), 1.0, 0),
    ],
)
def test_task_moves_only_to_a_neighbour_that_is_alive_and_not_stuck(report: Any, now: float, moved: int) -> None:
    core, camera = busy_worker(service_s=100.0, liveness_timeout_s=1.0, stall_timeout_s=10.0)
    core.handle(report, 1.0)
    assert len(sent_to(W2, camera.send(1, now))) == moved


# ---- tasks that cannot run here ------------------------------------------------------------------------------------


def first_segment_worker(**changes: Any) -> tuple[WorkerCore, Camera]:
    core = ready_worker(**{"segments": (1,), "exits_enabled": False, **changes})
    return core, Camera(core)


def test_task_that_cannot_run_here_moves_whatever_the_queues_say() -> None:
    core, camera = first_segment_worker()
    core.handle(worker_report(W2, stream(), queue=500, service_s=9.0, segments=(2, 3, 4, 5)), 1.0)
    camera.send(1, 1.0)
    assert sent_to(W2, core.handle(done((0.0,), 0.001), 1.1)) == [task(0, 2)]


def test_task_that_cannot_run_here_goes_to_the_best_holder_with_credit() -> None:
    core, camera = first_segment_worker(neighbours=("w2", "w3", "w4"))
    core.handle(worker_report(W2, stream(credit=0), segments=(2, 3, 4, 5)), 1.0)
    core.handle(worker_report(W3, stream(), queue=3, service_s=1.0, segments=(2, 3, 4, 5)), 1.0)
    core.handle(worker_report(PeerId("w4", 4), stream(), queue=2, service_s=1.0, segments=(3,)), 1.0)
    camera.send(1, 1.0)
    assert sent_to(W3, core.handle(done((0.0,), 0.001), 1.1)) == [task(0, 2)]


def test_credit_is_kept_for_later_segments_that_only_the_neighbour_holds() -> None:
    core, camera = first_segment_worker()
    core.handle(worker_report(W2, stream(credit=4), segments=(2, 3, 4, 5)), 1.0)
    camera.send(3, 1.0)
    actions = core.handle(done((0.0,) * 3, 0.001), 1.1)
    assert len(sent_to(W2, actions)) == 1  # one frame each is kept for segments 3, 4 and 5


def test_task_waits_for_a_holder_and_fails_when_none_came() -> None:
    core, camera = first_segment_worker(move_timeout_s=1.0)
    camera.send(1, 1.0)
    core.handle(done((0.0,), 0.001), 1.5)
    report_of(core.handle(Tick(), 2.45))
    assert core.next_deadline() == 2.5
    assert decisions(core.handle(Tick(), 2.499)) == []
    assert decisions(core.handle(Tick(), 2.5)) == [failed(task(0, 2), reason=Reason.NO_HOLDER), Forget((task(0, 2),))]


def test_task_moves_when_a_holder_comes_in_time() -> None:
    core, camera = first_segment_worker(move_timeout_s=1.0)
    camera.send(1, 1.0)
    core.handle(done((0.0,), 0.001), 1.5)
    assert sent_to(W2, core.handle(worker_report(W2, stream()), 2.4)) == [task(0, 2)]


def test_task_is_refused_as_blocked_when_holders_gave_no_credit_in_time() -> None:
    core, camera = first_segment_worker(move_timeout_s=1.0)
    camera.send(1, 1.0)
    core.handle(done((0.0,), 0.001), 1.5)
    assert decisions(core.handle(worker_report(W2, stream(credit=0)), 2.4)) == []
    assert decisions(core.handle(Tick(), 2.5)) == [refused(task(0, 2), reason=Reason.BLOCKED), Forget((task(0, 2),))]


@pytest.mark.parametrize("exits", [True, False])
def test_task_does_not_go_where_its_source_would_not_hear_the_answer(exits: bool) -> None:
    core, camera = first_segment_worker(neighbours=("w2", "w3"), exits_enabled=exits)
    core.handle(source_report(hears=(W1, W3)), 1.0)
    core.handle(worker_report(W2, stream(), segments=(2, 3)), 1.0)
    core.handle(worker_report(W3, stream(), queue=9, service_s=1.0, segments=(2, 3, 4, 5)), 1.0)
    camera.send(1, 1.0)
    moved = core.handle(done((0.0,), 0.001), 1.1)
    assert sent_to(W3 if exits else W2, moved) == [task(0, 2)], "w2 gives no answer where frames cannot exit"


def test_task_waits_until_its_source_hears_the_holder() -> None:
    core, camera = first_segment_worker()
    core.handle(source_report(hears=(W1,)), 1.0)
    core.handle(worker_report(W2, stream()), 1.0)
    camera.send(1, 1.0)
    assert sent_to(W2, core.handle(done((0.0,), 0.001), 1.1)) == []
    assert sent_to(W2, core.handle(source_report(hears=(W1, W2)), 1.2)) == [task(0, 2)]


def test_task_waits_longer_for_a_holder_that_is_still_being_reached() -> None:
    core, camera = first_segment_worker(move_timeout_s=1.0)
    camera.send(1, 1.0)
    core.handle(done((0.0,), 0.001), 1.5)
    for step in range(20):  # alive, and no batch of this worker's has come there yet
        core.handle(worker_report(W2), 2.0 + 0.1 * step)
    assert core.held == 1
    assert sent_to(W2, core.handle(worker_report(W2, stream()), 4.0)) == [task(0, 2)]


def test_task_is_given_up_when_the_holder_that_was_being_reached_stays_away_or_falls_silent() -> None:
    refusal = [refused(task(0, 2), reason=Reason.BLOCKED), Forget((task(0, 2),))]
    away, camera = first_segment_worker(move_timeout_s=1.0, status_interval_max_s=9.0)
    camera.send(1, 1.0)
    away.handle(done((0.0,), 0.001), 1.5)
    for step in range(45):
        away.handle(worker_report(W2), 2.0 + 0.1 * step)
    assert decisions(away.handle(Tick(), 6.499)) == []
    assert away.next_deadline() == 6.5
    assert decisions(away.handle(Tick(), 6.5)) == refusal
    silent, camera = first_segment_worker(move_timeout_s=1.0)
    camera.send(1, 1.0)
    silent.handle(done((0.0,), 0.001), 1.5)
    silent.handle(worker_report(W2), 2.4)
    assert decisions(silent.handle(Tick(), 3.89)) == []
    assert decisions(silent.handle(Tick(), 3.9)) == refusal


def test_frame_that_enters_where_its_segment_is_not_held_moves_on() -> None:
    core = ready_worker(segments=(2,))
    core.handle(worker_report(W2, stream(), queue=99), 1.0)
    assert sent_to(W2, Camera(core).send(1, 1.0)) == [task(0)]


# ---- attempts ----------------------------------------------------------------------------------------------------


def test_newer_attempt_replaces_a_waiting_one() -> None:
    core, camera = busy_worker(service_s=0.1)
    camera.send(1, 1.0)
    again = task(2, attempt=2)
    assert decisions(core.handle(batch(CAM, 4, (again,)), 1.1)) == [Forget((task(2),))]
    assert core.held == 2
    assert decisions(core.handle(done((1.0,), 0.1), 1.2))[-1] == RunBatch(1, (again,))


def test_result_of_a_superseded_running_attempt_is_dropped() -> None:
    core = ready_worker()
    Camera(core).send(1, 1.0)
    again = task(0, attempt=2)
    assert decisions(core.handle(batch(CAM, 2, (again,)), 1.1)) == []
    assert decisions(core.handle(done((1.0,), 0.1), 1.2)) == [Forget((task(0),)), RunBatch(1, (again,))]


def test_tensor_of_a_waiting_attempt_is_freed_while_an_earlier_one_runs() -> None:
    core = ready_worker()
    Camera(core).send(1, 1.0)
    second, third = task(0, attempt=2), task(0, attempt=3)
    core.handle(batch(CAM, 2, (second,)), 2.5)
    assert decisions(core.handle(batch(CAM, 3, (third,)), 4.0)) == [Forget((second,))]
    assert decisions(core.handle(done((1.0,), 3.1), 4.1)) == [Forget((task(0),)), RunBatch(1, (third,))]


def test_older_attempt_that_comes_late_is_dropped() -> None:
    core = ready_worker()
    core.handle(batch(CAM, 1, (task(0, attempt=2),)), 1.0)
    assert decisions(core.handle(batch(CAM, 2, (task(0, attempt=1),)), 1.1)) == [Forget((task(0, attempt=1),))]
    assert core.held == 1


def test_superseded_attempts_are_counted_and_free_their_room() -> None:
    core = ready_worker(queue_capacity=8)
    for attempt in (1, 2, 3):
        core.handle(batch(CAM, attempt, (task(0, attempt=attempt),)), float(attempt))
    report = report_of(core.handle(Tick(), 4.0))
    assert report.counters.superseded == 2
    assert report.streams[0].credit == 3


def test_busy_worker_gathers_answers_for_one_message() -> None:
    core = ready_worker(strategy=Strategy.LOCAL, batch_max=1, answer_wait_s=0.01, status_interval_max_s=10.0)
    core.handle(batch(CAM, 4, tasks(4)), 1.0)
    assert of(SendAnswers, core.handle(done((0.9,), 0.002), 1.002)) == []
    assert of(SendAnswers, core.handle(done((0.8,), 0.002), 1.004)) == []
    core.handle(Tick(), 1.011)  # a status was due: the load has halved
    assert core.next_deadline() == pytest.approx(1.012)
    assert of(SendAnswers, core.handle(Tick(), 1.0119)) == []
    both = SendAnswers(CAM, (answer(task(0), 1, 0.9), answer(task(1), 1, 0.8)))
    assert of(SendAnswers, decisions(core.handle(Tick(), 1.012))) == [both]
    assert of(SendAnswers, core.handle(Tick(), 1.1)) == []


def test_answers_take_along_the_credit_of_their_source() -> None:
    core = ready_worker(strategy=Strategy.LOCAL, queue_capacity=16)
    core.handle(batch(CAM, 4, tasks(4)), 1.0)
    (sent,) = of(SendAnswers, core.handle(done((0.9, 0.9, 0.9, 0.1), 0.002), 1.002))
    assert (len(sent.answers), sent.received, sent.credit) == (3, 4, 7)  # one of the 8 is still held
    (opening,) = of(SendAnswers, core.handle(source_report(PeerId("cam2", 5), hears=()), 1.1))
    assert (opening.answers, opening.received, opening.credit) == ((), 0, 0)


def test_worker_that_has_nothing_left_to_run_answers_at_once() -> None:
    core = ready_worker(strategy=Strategy.LOCAL, batch_max=1, answer_wait_s=0.01)
    core.handle(batch(CAM, 2, tasks(2)), 1.0)
    core.handle(done((0.9,), 0.002), 1.002)
    both = SendAnswers(CAM, (answer(task(0), 1, 0.9), answer(task(1), 1, 0.8)))
    assert of(SendAnswers, decisions(core.handle(done((0.8,), 0.002), 1.004))) == [both]


def test_refusal_does_not_wait_and_takes_gathered_answers_along() -> None:
    core = ready_worker(strategy=Strategy.LOCAL, batch_max=1, answer_wait_s=0.01)
    core.handle(batch(CAM, 2, tasks(2)), 1.0)
    core.handle(done((0.9,), 0.002), 1.002)
    back = Answer(task(2).frame, 1, Status.REFUSED, Reason.MODEL_MISMATCH)
    actions = core.handle(batch(CAM, 3, tasks(1, first=2), model_id="model-b"), 1.003)
    assert of(SendAnswers, decisions(actions)) == [SendAnswers(CAM, (answer(task(0), 1, 0.9), back))]


# ---- telling others ------------------------------------------------------------------------------------------


def reported(core: WorkerCore, event: Any, now: float) -> bool:
    return bool(of(PublishWorkerReport, core.handle(event, now)))


def test_load_that_no_other_worker_shares_is_told_at_leisure() -> None:
    core = ready_worker(W2, status_interval_min_s=0.01, status_interval_max_s=0.1, batch_max=1)
    core.handle(batch(CAM, 2, tasks(2)), 0.02)
    assert not reported(core, done((0.9,), 0.002), 0.03)
    assert not reported(core, done((0.9,), 0.002), 0.05)
    assert core.next_deadline() == pytest.approx(0.11)


def test_status_goes_out_when_a_sender_has_used_half_of_its_share() -> None:
    core = ready_worker(
        W2, segments=(2, 3, 4, 5), status_interval_max_s=9.0, queue_capacity=16
    )  # each one's share is 8
    core.handle(worker_report(W2, stream(credit=8)), 0.02)
    first = core.handle(batch(CAM, 3, tasks(3)), 0.03)
    assert sent_to(W2, first) == [*tasks(3)]
    assert of(PublishWorkerReport, first) == []  # 5 of 8 may still come
    second = core.handle(batch(CAM, 4, tasks(1, first=3)), 0.04)
    assert [each.credit for each in report_of(second).streams if each.peer == CAM] == [8]


def test_status_goes_out_as_a_sign_of_life_without_change() -> None:
    core = ready_worker(status_interval_min_s=0.01, status_interval_max_s=0.1)
    assert core.next_deadline() == pytest.approx(0.11)
    assert of(PublishWorkerReport, core.handle(Tick(), 0.1)) == []
    assert len(of(PublishWorkerReport, core.handle(Tick(), 0.11))) == 1


def test_status_tells_load_and_work_done() -> None:
    core, camera = busy_worker(service_s=0.5)
    core.handle(policy(version=4), 1.0)
    camera.send(2, 1.0)
    report = report_of(core.handle(Tick(), 3.0))
    assert (report.input_queue, report.output_queue, report.busy_s) == (1, 2, 2.0)
    assert report.service_time_s == 0.5
    assert report.segment_service_time_s == (0.5, 0.0, 0.0, 0.0, 0.0)
    assert report.policy_version == 4
    assert (report.counters.received_total, report.counters.served, report.counters.answered) == (4, 1, 1)


def test_status_tells_the_integral_of_the_backlog() -> None:
    core, camera = busy_worker(service_s=0.5)
    before = report_of(core.handle(Tick(), 2.0)).backlog_s
    camera.send(2, 2.0)
    held = core.held
    assert report_of(core.handle(Tick(), 4.0)).backlog_s - before == pytest.approx(2.0 * held) and held


def test_idle_worker_says_so() -> None:
    assert report_of(ready_worker().handle(Tick(), 1.0)).busy_s == 0.0


def test_status_echoes_the_newest_stamp_of_each_sender() -> None:
    core = ready_worker()
    core.handle(source_report(stamp=77.0), 1.0)
    core.handle(batch(CAM, 1, tasks(1), stamp=88.0), 1.5)
    (mine,) = report_of(core.handle(Tick(), 2.0)).streams
    assert (mine.echo_stamp, mine.echo_hold_s) == (77.0, 1.0)
    assert (mine.batch_echo_stamp, mine.batch_echo_hold_s) == (88.0, 0.5)


def test_status_tells_a_receiver_what_was_sent_to_it() -> None:
    core, camera = busy_worker(service_s=0.1)
    core.handle(worker_report(W2, stream(credit=8)), 1.0)
    camera.send(1, 1.0)
    streams = {each.peer: each for each in report_of(core.handle(Tick(), 2.0)).streams}
    assert (streams[W2].sent, streams[W2].open) == (1, False)


@pytest.mark.parametrize("wait_s", [0.1, 0.3, 0.7, 1.1])
def test_tick_at_the_deadline_is_never_too_early(wait_s: float) -> None:
    """A shell that wakes at exactly the deadline gets on, whatever rounding does."""
    core, camera = first_segment_worker(move_timeout_s=wait_s)
    camera.send(1, 1.0)
    now = 1.0 + 1e-9
    core.handle(done((0.0,), 0.001), now)
    for _ in range(200):
        deadline = core.next_deadline()
        assert deadline is not None and deadline > now
        now = deadline
        core.handle(Tick(), now)
    assert core.held == 0


# ---- stopping ----------------------------------------------------------------------------------------------------


def test_stopping_worker_sends_everything_back_and_finishes() -> None:
    core, camera = busy_worker(service_s=0.1)
    camera.send(2, 1.0)
    actions = core.handle(Shutdown(), 1.05)
    assert decisions(actions) == [refused(task(2), task(3), reason=Reason.SHUTDOWN), Forget((task(2), task(3)))]
    assert report_of(actions).state is State.STOPPING
    assert decisions(core.handle(done((0.5,), 0.1), 1.1)) == [
        refused(task(1), reason=Reason.SHUTDOWN),
        Forget((task(1),)),
        Finished(),
    ]
    assert core.held == 0
    assert core.next_deadline() is None


def test_idle_worker_that_stops_finishes_at_once() -> None:
    core = ready_worker()
    assert decisions(core.handle(Shutdown(), 1.0)) == [Finished()]
    assert decisions(core.handle(Shutdown(), 1.1)) == []


def test_result_that_comes_while_stopping_is_still_sent() -> None:
    core = ready_worker()
    Camera(core).send(1, 1.0)
    core.handle(Shutdown(), 1.05)
    assert ok(task(), exit_number=1, confidence=1.0) in decisions(core.handle(done((1.0,), 0.1), 1.1))


def test_failed_batch_while_stopping_finishes_too() -> None:
    core = ready_worker()
    Camera(core).send(1, 1.0)
    core.handle(Shutdown(), 1.05)
    assert decisions(core.handle(ServiceFailed(), 1.1))[-1] == Finished()


def test_frames_that_come_while_stopping_are_refused() -> None:
    core = ready_worker()
    core.handle(Shutdown(), 1.0)
    assert decisions(core.handle(batch(CAM, 1, tasks(1)), 1.1)) == [
        refused(task(), reason=Reason.SHUTDOWN),
        Forget(tasks(1)),
    ]


# ---- the whole -------------------------------------------------------------------------------------------------


def test_replayed_events_give_the_same_actions() -> None:
    cluster = Cluster(MESH, frames=120, loss=0.02, duplication=0.05, seed=4)
    log: list[tuple[Any, float]] = []
    actions: list[Any] = []
    core = cluster.workers["w1"]
    state = core._offloader._rng.getstate()
    handle = core.handle

    def logged(event: Any, now: float) -> list[Any]:
        result = handle(event, now)
        log.append((event, now))
        actions.extend(result)
        return result

    core.handle = logged  # type: ignore[method-assign]
    cluster.run().check()
    rng = random.Random()
    rng.setstate(state)
    again = WorkerCore(core.setup, rng)
    assert [action for event, now in log for action in again.handle(event, now)] == actions
    assert len(of(RunBatch, actions)) > 10


def test_books_agree_whatever_happens() -> None:
    """Thousands of events in no sensible order: nothing raises, and room, queues and held tasks stay in step."""
    for seed in range(12):
        rng = random.Random(seed)
        segments = (1, 2, 3, 4, 5) if seed % 2 else (1, 3)
        core = ready_worker(W2, neighbours=("w2", "w3"), segments=segments, rng=rng, queue_capacity=16, batch_max=4)
        now, sent = 0.1, {CAM: 0, W2: 0}
        expected: list[Task] = []
        for _ in range(600):
            now += rng.choice((0.0, 0.001, 0.02, 0.3))
            sender = rng.choice((CAM, W2))
            match rng.randrange(9):
                case 0 | 1 | 2:
                    sent[sender] += rng.choice((0, 1, 1, 1, 3))
                    items = [
                        task(number, rng.randint(1, 5), rng.randint(1, 3), expires_at=now + rng.random())
                        for number in rng.sample(range(30), rng.randint(0, 3))
                    ]
                    event: Any = batch(sender, sent[sender], items)
                case 3 | 4 if expected:
                    event = done(tuple(rng.random() for _ in expected), 0.01)
                    expected = []
                case 5 if expected:
                    event = ServiceFailed()
                    expected = []
                case 6:
                    life = PeerId("w2", rng.choice((2, 2, 2, 22)))
                    credit = rng.randrange(4)
                    event = worker_report(life, stream(received=rng.randrange(9), credit=credit, sent=sent[W2]))
                case 7:
                    event = source_report(CAM, stream(W1, sent=sent[CAM]))
                case _:
                    event = Tick()
            for action in core.handle(event, now):
                if isinstance(action, RunBatch):
                    assert not expected, "one batch at a time"
                    expected = list(action.tasks)
            pools = (core._inflow._from_sources, core._inflow._from_workers)
            streams = [each for pool in pools for each in (*pool.streams.values(), *pool._closed)]
            queued = [*core._workload.input, *core._workload.output]
            held = {held for held, _ in core._held.values()}
            assert sum(each.held for each in streams) == core.held
            assert held == set(queued) | (set(expected) & held)
            assert len(queued) == len(set(queued)) == core._workload.total - len(expected)
            deadline = core.next_deadline()
            assert deadline is not None and deadline > now
        core.handle(Shutdown(), now)
        if expected:
            core.handle(ServiceFailed(), now)
        assert core.held == 0


def test_worker_keeps_nothing_of_frames_that_have_left() -> None:
    core = ready_worker(W2, W3, neighbours=("w2", "w3"))
    sequence, now = 0, 1.0
    for step in range(1, 4001):
        now += 0.01
        core.handle(source_report(), now)
        core.handle(worker_report(W2, stream(received=step), queue=100), now)
        core.handle(batch(CAM, 4 * step, tasks(4, first=sequence)), now)
        sequence += 4
        while core._workload.running:
            core.handle(done((1.0,) * core._workload.load, 0.001), now)
    assert core.held == 0
    sizes = sizes_of(core, core._workload, core._offloader, core._inflow, core._inflow.peers, core._answers)
    assert max(sizes.values()) <= 20, sizes  # one of them names the counters
    assert core._workload.total == 0
    assert report_of(core.handle(Tick(), now + 1.0)).counters.answered == sequence


def test_times_measured_before_are_reported_from_the_start() -> None:
    setup = dataclasses.replace(worker().setup, service_times=((1, 8, 0.08), (2, 8, 0.24)))
    report = report_of(WorkerCore(setup, Tosses()).handle(Tick(), 0.01))
    assert report.service_time_s == pytest.approx(0.02)
    assert report.segment_service_time_s[:3] == pytest.approx((0.01, 0.03, 0.0))


# ---- priority ----------------------------------------------------------------------------------------------------


def test_urgent_task_is_run_before_a_fuller_batch_of_others() -> None:
    core = ready_worker(neighbours=(), queue_capacity=64)
    (running,) = of(RunBatch, core.handle(batch(CAM, 1, [task(0)]), 1.0))
    urgent = task(1, 1)._replace(priority=3)
    core.handle(batch(CAM, 5, [*tasks(3, first=5), urgent]), 1.0)
    # One frame goes on to segment 2, three plain ones and the urgent one wait for segment 1.
    (following,) = of(RunBatch, core.handle(done((0.1,), 0.01), 1.01))
    assert running.tasks == (task(0),)
    assert [each.frame.sequence for each in following.tasks] == [1, 5, 6, 7]
    # The urgent one reaches segment 2, where it goes before the older one.
    (last,) = of(RunBatch, core.handle(done((0.1, 0.99, 0.99, 0.99), 0.01), 1.02))
    assert (last.segment, [each.frame.sequence for each in last.tasks]) == (2, [1, 0])


def test_urgent_task_decides_the_segment_however_many_others_wait() -> None:
    core = ready_worker(neighbours=(), queue_capacity=64)
    core.handle(batch(CAM, 1, [task(0)._replace(priority=3)]), 1.0)
    core.handle(batch(CAM, 9, tasks(8, first=5)), 1.0)
    (following,) = of(RunBatch, core.handle(done((0.1,), 0.01), 1.01))
    assert (following.segment, [each.frame.sequence for each in following.tasks]) == (2, [0])
