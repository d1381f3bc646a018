# SPDX-License-Identifier: Apache-2.0
"""Segments spread anew while the cluster runs: what the controller decides, and how a worker follows."""

from __future__ import annotations

import math

import pytest
from literals import (
    CAM,
    W1,
    W2,
    W3,
    batch,
    decisions,
    done,
    of,
    policy,
    ready_worker,
    report_of,
    stream,
    task,
    worker,
    worker_report,
)

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.policy.actions import LoadSegments, PublishPolicy, RunBatch, SendAnswers, SendTasks
from mdi_exit_ros.policy.admission import AdaptationSettings
from mdi_exit_ros.policy.allocation import (
    PREPARE_TIMEOUT_S,
    START_PATIENCE_S,
    AllocationSetup,
    Allocator,
    best_allocation,
    slowest_s,
    speeds,
    successors_of,
)
from mdi_exit_ros.policy.controller import ControllerCore, ControllerSetup
from mdi_exit_ros.policy.events import AppliedPolicy, SegmentsLoaded, SetPoints, Shutdown, Tick, WorkerReport
from mdi_exit_ros.task import Mode, PeerId, Strategy

MESH = {"w1": ("w2", "w3"), "w2": ("w1", "w3"), "w3": ("w1", "w2")}
RING = {"w1": ("w2",), "w2": ("w3",), "w3": ("w1",)}
SETUP = AllocationSetup("w1", MESH, (1.0,) * 5)
ADAPTIVE = AdaptationSettings(adaptive_allocation=True, allocation_gain=0.2, allocation_period_s=2.0)
LIVES = {"w1": W1, "w2": W2, "w3": W3}


def reports(held: dict[str, tuple[int, ...]], service_s: dict[str, float] | None = None) -> dict[str, WorkerReport]:
    times = service_s or {}
    return {
        name: worker_report(LIVES[name], segments=segments, service_s=times.get(name, 0.01))
        for name, segments in held.items()
    }


START = {"w1": (1, 2), "w2": (3, 4), "w3": (5,)}


# ---- what is best ------------------------------------------------------------------------------------------


def test_speed_is_cost_per_measured_second_and_unmeasured_workers_are_average() -> None:
    found = speeds(reports(START, {"w1": 0.01, "w2": 0.02, "w3": 0.0}), (1.0, 3.0, 2.0, 2.0, 9.0))
    assert found == pytest.approx({"w1": 4.0 / 0.02, "w2": 4.0 / 0.04, "w3": 150.0})


def test_slowest_worker_counts_and_holders_share_a_segment() -> None:
    speed = {"w1": 10.0, "w2": 5.0}
    assert slowest_s({"w1": (1, 2), "w2": (2, 3)}, speed, (1.0, 2.0, 1.0)) == pytest.approx((1.0 + 1.0) / 5.0)
    assert slowest_s({"w1": (1,), "w2": (2,)}, speed, (1.0, 1.0, 1.0)) == math.inf


def test_fast_worker_gets_more_segments() -> None:
    assert best_allocation(SETUP, {"w1": 1.0, "w2": 3.0, "w3": 1.0}) == (("w1", (1,)), ("w2", (2, 3, 4)), ("w3", (5,)))


def test_worker_that_does_not_pay_is_left_out() -> None:
    assert best_allocation(SETUP, {"w1": 4.0, "w2": 0.5}) == (("w1", (1, 2, 3, 4, 5)),)


def test_segments_follow_the_edges() -> None:
    ring = AllocationSetup("w1", RING, (1.0,) * 3)
    assert best_allocation(ring, {"w1": 1.0, "w2": 1.0, "w3": 1.0}) == (("w1", (1,)), ("w2", (2,)), ("w3", (3,)))
    assert best_allocation(ring, {"w1": 1.0, "w3": 1.0}) == (("w1", (1, 2, 3)),), "no edge from w1 to w3"


def test_edges_are_written_with_an_arrow() -> None:
    assert successors_of(["a>b", "a>c", "b>a"]) == {"a": ("b", "c"), "b": ("a",)}
    with pytest.raises(ConfigurationError, match="edges: expected FROM>TO .* got 'a-b'"):
        successors_of(["a-b"])


# ---- in two phases -----------------------------------------------------------------------------------------


def test_slow_worker_gives_segments_away_only_after_they_are_loaded_elsewhere() -> None:
    allocator = Allocator(SETUP)
    slow = {"w1": 0.01, "w2": 0.04, "w3": 0.015}
    allocator.step(reports(START, slow), ADAPTIVE, 10.0)
    wanted = (("w1", (1, 2, 3)), ("w2", (4,)), ("w3", (5,)))
    assert (allocator.target, allocator.final) == (wanted, False)
    allocator.step(reports(START, slow), ADAPTIVE, 10.1)
    assert not allocator.final
    allocator.step(reports({**START, "w1": (1, 2, 3)}, slow), ADAPTIVE, 10.2)
    assert (allocator.target, allocator.final) == (wanted, True)


def test_workers_that_have_not_started_yet_are_waited_for() -> None:
    allocator = Allocator(SETUP)
    allocator.step(reports({"w1": (1, 2)}), ADAPTIVE, 10.0)
    allocator.step(reports({"w1": (1, 2)}), ADAPTIVE, 10.0 + START_PATIENCE_S - 0.1)
    assert allocator.target == ()
    allocator.step(reports({"w1": (1, 2)}), ADAPTIVE, 10.0 + START_PATIENCE_S)
    assert allocator.target == (("w1", (1, 2, 3, 4, 5)),)


def test_small_gain_changes_nothing() -> None:
    allocator = Allocator(SETUP)
    allocator.step(reports(START, {"w1": 0.01, "w2": 0.0105, "w3": 0.01}), ADAPTIVE, 10.0)
    assert (allocator.target, allocator.final) == ((), True)


def test_nothing_is_looked_at_between_periods() -> None:
    allocator = Allocator(SETUP)
    allocator.step(reports(START), ADAPTIVE, 10.0)
    allocator.step(reports(START, {"w2": 0.04}), ADAPTIVE, 11.9)
    assert allocator.target == ()
    allocator.step(reports(START, {"w2": 0.04}), ADAPTIVE, 12.0)
    assert allocator.target != ()


def test_lost_worker_is_replaced_at_once() -> None:
    allocator = Allocator(SETUP)
    allocator.step(reports(START, {"w2": 0.04}), ADAPTIVE, 10.0)
    allocator.step(reports({"w1": (1, 2), "w2": (3, 4)}, {"w2": 0.04}), ADAPTIVE, 10.1)
    assert (allocator.target, allocator.final) == ((("w1", (1, 2, 3, 4)), ("w2", (5,))), False)


def test_change_that_nobody_carries_out_is_given_up() -> None:
    allocator = Allocator(SETUP)
    slow = reports(START, {"w2": 0.04})
    allocator.step(slow, ADAPTIVE, 10.0)
    allocator.step(slow, ADAPTIVE, 10.0 + PREPARE_TIMEOUT_S + 0.1)
    assert (allocator.target, allocator.final) == ((), True)


@pytest.mark.parametrize("settings", [AdaptationSettings(), ADAPTIVE])
def test_without_home_or_wish_nothing_changes(settings: AdaptationSettings) -> None:
    allocator = Allocator(SETUP)
    allocator.step(reports(START), settings, 1.0)
    held = {"w2": (3, 4), "w3": (5,)} if settings is ADAPTIVE else START
    allocator.step(reports(held, {"w2": 1.0}), settings, 10.0)
    assert allocator.target == ()


def test_controller_publishes_both_phases() -> None:
    core = ControllerCore(
        ControllerSetup(PeerId("ctl", 9), 5, allocation=SETUP), ADAPTIVE, SetPoints(Mode.MANUAL, (0.8,) * 4, 0.0, 0.0)
    )

    def hear(held: dict[str, tuple[int, ...]], now: float) -> list[AppliedPolicy]:
        actions = [core.handle(report, now) for report in reports(held, {"w2": 0.04, "w3": 0.015}).values()]
        actions.append(core.handle(Tick(), now + 0.1))
        return [action.policy for each in actions for action in of(PublishPolicy, each)]

    hear({}, 0.0)
    preparing = hear(START, 5.0)[-1]
    assert (preparing.allocation[1], preparing.allocation_final) == (("w2", (4,)), False)
    assert core.handle(Tick(), 5.2) == []
    settled = hear({**START, "w1": (1, 2, 3)}, 5.3)[-1]
    assert (settled.allocation, settled.allocation_final) == (preparing.allocation, True)
    assert settled.version == preparing.version + 1


# ---- the worker --------------------------------------------------------------------------------------------


def shall_hold(segments: tuple[int, ...], *, final: bool, version: int = 1) -> AppliedPolicy:
    return policy(version=version)._replace(allocation=(("w1", segments), ("w2", (1,))), allocation_final=final)


def test_worker_loads_what_it_lacks_once_and_then_says_so() -> None:
    core = worker(segments=(1, 2), strategy=Strategy.MDI)
    assert of(LoadSegments, core.handle(shall_hold((2, 3), final=False), 0.0)) == [LoadSegments((3,))]
    assert of(LoadSegments, core.handle(shall_hold((2, 3), final=False), 0.1)) == []
    assert report_of(core.handle(SegmentsLoaded((3,)), 0.1)).segments == (1, 2, 3)


def test_worker_drops_the_rest_when_the_change_is_final() -> None:
    core = worker(segments=(1, 2), strategy=Strategy.MDI)
    core.handle(shall_hold((2, 3), final=False), 0.0)
    core.handle(SegmentsLoaded((3,)), 0.1)
    assert report_of(core.handle(shall_hold((2, 3), final=True, version=2), 0.2)).segments == (2, 3)


def test_worker_drops_nothing_before_it_has_loaded_what_it_lacks() -> None:
    core = worker(segments=(1, 2), strategy=Strategy.MDI)
    core.handle(shall_hold((2, 3), final=True), 0.0)
    assert report_of(core.handle(Tick(), 0.2)).segments == (1, 2)
    assert report_of(core.handle(SegmentsLoaded((3,)), 0.3)).segments == (2, 3)


def test_failed_loading_leaves_things_as_they_are_and_is_tried_again_with_the_next_policy() -> None:
    core = worker(segments=(1, 2), strategy=Strategy.MDI)
    core.handle(shall_hold((2, 3), final=False), 0.0)
    core.handle(SegmentsLoaded((3,), loaded=False), 0.1)
    assert report_of(core.handle(Tick(), 0.2)).segments == (1, 2)
    assert of(LoadSegments, core.handle(shall_hold((2, 3), final=False), 1.0)) == [LoadSegments((3,))]


def test_worker_that_is_not_named_changes_nothing() -> None:
    core = worker(segments=(1, 2), strategy=Strategy.MDI)
    others = policy()._replace(allocation=(("w2", (1, 2, 3)),), allocation_final=True)
    assert decisions(core.handle(others, 0.0)) == []
    assert of(LoadSegments, core.handle(Shutdown(), 0.1)) == []
    assert of(LoadSegments, core.handle(shall_hold((3,), final=False, version=2), 0.2)) == [], "it is about to stop"


def test_waiting_tasks_of_a_dropped_segment_move_to_who_holds_it() -> None:
    core = ready_worker(W2, segments=(1, 2), strategy=Strategy.MDI)
    (running,) = of(RunBatch, core.handle(batch(CAM, 1, [task(0, 1)]), 1.0))
    assert core.handle(batch(CAM, 2, [task(1, 1)]), 1.0) == []
    core.handle(worker_report(W2, stream(W1), segments=(1, 3, 4, 5), queue=50, stamp=1.0), 1.0)
    actions = core.handle(shall_hold((2,), final=True), 1.01)
    assert [(send.receiver, [each.frame.sequence for each in send.tasks]) for send in of(SendTasks, actions)] == [
        (W2, [1])
    ]
    # What runs is finished here.
    assert running.tasks == (task(0, 1),)
    ended = core.handle(done((0.99,), 0.01), 1.02)
    assert of(SendAnswers, ended)[0].answers[0].exit == 1
