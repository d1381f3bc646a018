# SPDX-License-Identifier: Apache-2.0
"""What one controller applies: literal events in, list of actions out."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from literals import CAM, CONTROLLER, W1, W2, of, policy, source_report, worker_report

from mdi_exit_ros.policy.actions import PublishPolicy, Warn
from mdi_exit_ros.policy.admission import AdaptationSettings
from mdi_exit_ros.policy.controller import (
    FIRST_INTERVAL_S,
    FORGET_S,
    NODES_MAX,
    REPEAT_S,
    SHORTEST_INTERVAL_S,
    ControllerCore,
    ControllerSetup,
)
from mdi_exit_ros.policy.events import AppliedPolicy, LedgerCounts, SetPoints, SetPointsChanged, Tick
from mdi_exit_ros.task import Mode, PeerId, State

SETTINGS = AdaptationSettings(
    queue_low=8, queue_high=24, alpha=0.5, beta=0.25, zeta=1.0, period_s=0.1, interval_max_s=1.0, threshold_floor=0.3
)
WANTED = (0.9, 0.8, 0.7, 0.6)
CURVE = ((0.6, (0.1,) * 4), (0.8, (0.5,) * 4), (0.9, (0.9,) * 4))


def points(
    mode: Mode = Mode.MANUAL, *, thresholds: tuple[float, ...] = WANTED, rate_hz: float = 0.0, accuracy: float = 0.0
) -> SetPoints:
    return SetPoints(mode, thresholds, rate_hz, accuracy)


def controller(
    mode: Mode = Mode.MANUAL,
    *,
    curve: Any = (),
    settings: AdaptationSettings = SETTINGS,
    priority: int = 0,
    **wanted: Any,
) -> ControllerCore:
    setup = ControllerSetup(CONTROLLER, 5, priority, curve=curve, liveness_timeout_s=1.0)
    return ControllerCore(setup, settings, points(mode, **wanted))


def periods(core: ControllerCore, backlog: int, count: int = 1, *, start: float = 0.0, **source: Any) -> AppliedPolicy:
    """The applied policy after `count` adaptations at this backlog of the home worker."""
    for step in range(count):
        now = start + 0.1 * step
        # Times before the period ends: the Tick adapts.
        core.handle(worker_report(W1, queue=backlog), now)
        core.handle(source_report(**source), now)
        core.handle(Tick(), now + 0.1)
    return core.applied


def published(actions: list[Any]) -> list[AppliedPolicy]:
    return [action.policy for action in of(PublishPolicy, actions)]


# ---- publishing --------------------------------------------------------------------------------------------


def test_first_policy_is_published_at_once() -> None:
    (applied,) = published(controller(rate_hz=20.0, priority=3).handle(Tick(), 5.0))
    assert applied == AppliedPolicy(CONTROLLER, 3, 1, Mode.MANUAL, WANTED, 0.05, (), 24, 0.2)


def test_manual_set_point_is_applied_at_once() -> None:
    core = controller()
    core.handle(Tick(), 5.0)
    (applied,) = published(core.handle(SetPointsChanged(points(thresholds=(0.5,) * 4, rate_hz=10.0), SETTINGS), 5.001))
    assert (applied.version, applied.exit_thresholds, applied.admission_interval_s) == (2, (0.5,) * 4, 0.1)


def test_changed_constant_is_applied_at_once() -> None:
    core = controller()
    core.handle(Tick(), 5.0)
    changed = AdaptationSettings(output_threshold=3, smoothing=0.7)
    (applied,) = published(core.handle(SetPointsChanged(points(), changed), 5.001))
    assert (applied.output_threshold, applied.smoothing) == (3, 0.7)


def test_unchanged_policy_is_repeated_as_a_sign_of_life_with_its_version() -> None:
    core = controller()
    core.handle(Tick(), 5.0)
    assert published(core.handle(Tick(), 5.0 + REPEAT_S - 0.001)) == []
    (applied,) = published(core.handle(Tick(), 5.0 + REPEAT_S))
    assert applied.version == 1


def test_set_point_that_changes_nothing_makes_no_version() -> None:
    core = controller()
    core.handle(Tick(), 5.0)
    assert published(core.handle(SetPointsChanged(points(), SETTINGS), 5.1)) == []


def test_rate_of_zero_admits_at_once() -> None:
    assert controller(rate_hz=0.0).applied.admission_interval_s == 0.0


@pytest.mark.parametrize("period_s", [0.0, 0.1, 0.3, 5.0])
def test_next_deadline_always_lies_ahead(period_s: float) -> None:
    core = controller(Mode.RATE, settings=AdaptationSettings(period_s=period_s))
    now = 1000.1
    core.handle(Tick(), now)
    for _ in range(100):
        deadline = core.next_deadline()
        assert deadline > now
        now = deadline
        core.handle(Tick(), now)


# ---- several controllers ---------------------------------------------------------------------------------------


def test_another_controller_is_warned_of() -> None:
    (warning,) = of(Warn, controller().handle(policy(PeerId("other", 1)), 1.0))
    assert warning.key == "controllers"
    assert "other" in warning.text


def test_own_policy_that_comes_back_is_no_other_controller() -> None:
    assert of(Warn, controller().handle(policy(CONTROLLER), 1.0)) == []


def test_priority_is_published_for_workers_to_choose() -> None:
    assert controller(priority=-5).applied.priority == -5


# ---- manual and target accuracy ----------------------------------------------------------------------------------


def test_manual_mode_does_not_follow_the_backlog() -> None:
    core = controller(rate_hz=10.0)
    before = core.applied
    assert periods(core, 1000, 20)._replace(version=0) == before


@pytest.mark.parametrize(("target", "expected"), [(0.55, 0.1), (0.6, 0.1), (0.7, 0.5), (0.8, 0.5), (0.81, 0.9)])
def test_target_accuracy_gives_the_cheapest_calibrated_thresholds(target: float, expected: float) -> None:
    assert controller(curve=CURVE, accuracy=target).applied.exit_thresholds == (expected,) * 4


def test_target_accuracy_out_of_reach_is_warned_of_and_the_most_accurate_thresholds_apply() -> None:
    core = controller(curve=CURVE, accuracy=0.95)
    warnings = of(Warn, core.handle(Tick(), 1.0))
    assert len({warning.key for warning in warnings}) == 1
    assert "0.950" in warnings[0].text and "0.900" in warnings[0].text
    assert core.applied.exit_thresholds == (0.9,) * 4


def test_target_accuracy_without_calibration_is_warned_of_and_the_thresholds_apply() -> None:
    core = controller(accuracy=0.8)
    assert of(Warn, core.handle(Tick(), 1.0))
    assert core.applied.exit_thresholds == WANTED


def test_without_a_target_the_curve_is_not_used() -> None:
    assert controller(curve=CURVE).applied.exit_thresholds == WANTED


# ---- rate ------------------------------------------------------------------------------------------------------


def interval(applied: AppliedPolicy, source: str = "cam") -> float:
    return applied.interval_for(source)


def test_source_that_was_not_heard_yet_starts_slowly() -> None:
    assert interval(controller(Mode.RATE).applied) == FIRST_INTERVAL_S


@pytest.mark.parametrize(("backlog", "factor"), [(0, 0.5), (7, 0.5), (8, 0.75), (23, 0.75), (24, 2.0), (500, 2.0)])
def test_interval_follows_the_backlog_of_the_home_worker(backlog: int, factor: float) -> None:
    assert interval(periods(controller(Mode.RATE), backlog)) == pytest.approx(FIRST_INTERVAL_S * factor)


def test_backlog_is_input_and_output_and_what_waits_for_credit() -> None:
    core = controller(Mode.RATE)
    core.handle(worker_report(W1, queue=8, output=8), 0.0)
    core.handle(source_report(waiting_for_credit=8), 0.0)
    core.handle(Tick(), 0.1)
    assert interval(core.applied) == FIRST_INTERVAL_S * 2.0


def test_backlog_is_the_mean_since_the_reports_before_and_not_what_is_there_just_now() -> None:
    core = controller(Mode.RATE)
    core.handle(source_report(), 0.0)
    core.handle(worker_report(W1, queue=100, stamp=7.0, backlog_s=50.0), 0.0)
    core.handle(worker_report(W1, queue=100, stamp=7.1, backlog_s=51.0), 0.05)  # 10 frames for 0.1 s
    core.handle(Tick(), 0.1)
    assert interval(core.applied) == FIRST_INTERVAL_S * 0.75


def test_interval_adapts_once_per_period() -> None:
    core = controller(Mode.RATE)
    periods(core, 0)
    before = interval(core.applied)
    core.handle(Tick(), 0.19)
    assert interval(core.applied) == before
    core.handle(Tick(), 0.2)
    assert interval(core.applied) == pytest.approx(before / 2)


def test_interval_does_not_fall_below_its_floor() -> None:
    assert interval(periods(controller(Mode.RATE), 0, 50)) == SHORTEST_INTERVAL_S


def test_interval_does_not_fall_far_below_the_one_at_which_frames_are_offered() -> None:
    core = controller(Mode.RATE)
    for step in range(50):
        now = 0.1 * step
        core.handle(worker_report(W1), now)
        core.handle(source_report(stamp=now, counts=LedgerCounts(offered=round(25 * now))), now)
        core.handle(Tick(), now + 0.1)
    assert interval(core.applied) == pytest.approx(0.02, rel=0.3)  # one that offers on demand could not rise from 0.04


def test_interval_does_not_fall_below_the_admission_rate_that_users_set() -> None:
    assert interval(periods(controller(Mode.RATE, rate_hz=20.0), 0, 50)) == 0.05


def test_admission_does_not_fall_far_below_what_is_answered() -> None:
    core = controller(Mode.RATE)
    for step in range(50):
        now = 0.1 * step
        core.handle(worker_report(W1, queue=10 if step < 5 else 100), now)
        core.handle(source_report(stamp=now, counts=LedgerCounts(offered=1000 * step, ok=10 * step)), now)
        core.handle(Tick(), now + 0.1)
    assert interval(core.applied) == pytest.approx(0.01 / 0.75)  # 100 a second, less beta


def test_interval_does_not_rise_above_its_maximum() -> None:
    assert interval(periods(controller(Mode.RATE), 100, 50)) == 1.0


def test_interval_falls_again_when_the_backlog_is_gone() -> None:
    core = controller(Mode.RATE)
    high = interval(periods(core, 100, 5))
    assert interval(periods(core, 0, 3, start=0.5)) < high


def test_thresholds_hold_while_the_rate_adapts() -> None:
    assert periods(controller(Mode.RATE), 100, 50).exit_thresholds == WANTED


def test_each_source_follows_its_own_home_worker() -> None:
    core = controller(Mode.RATE)
    core.handle(worker_report(W1, queue=0), 0.0)
    core.handle(worker_report(W2, queue=100), 0.0)
    core.handle(source_report(PeerId("a", 1), home="w1"), 0.0)
    core.handle(source_report(PeerId("b", 2), home="w2"), 0.0)
    core.handle(Tick(), 0.1)
    assert core.applied.source_intervals_s == (("a", FIRST_INTERVAL_S / 2), ("b", FIRST_INTERVAL_S * 2))


@pytest.mark.parametrize(
    ("worker_at", "source_at", "state", "adapts"),
    [
        (0.0, 0.0, State.RUNNING, True),
        (-0.1, 0.0, State.RUNNING, False),
        (0.0, -0.1, State.RUNNING, False),
        (0.0, 0.0, State.STOPPING, False),
    ],
)
def test_silent_worker_or_source_moves_nothing(worker_at: float, source_at: float, state: State, adapts: bool) -> None:
    core = controller(Mode.RATE, settings=AdaptationSettings(period_s=5.0))
    core.handle(Tick(), 5.0)  # adapts: nobody is there
    for at, event in sorted(
        [(9.0 + worker_at, worker_report(W1)), (9.0 + source_at, source_report(state=state))], key=lambda each: each[0]
    ):
        core.handle(event, at)
    core.handle(Tick(), 10.0)
    assert (core.applied.source_intervals_s != ()) is adapts


def test_changed_mode_forgets_what_adaptation_reached() -> None:
    core = controller(Mode.RATE)
    periods(core, 100, 50)
    core.handle(SetPointsChanged(points(Mode.MANUAL), SETTINGS), 6.0)
    assert (core.applied.admission_interval_s, core.applied.source_intervals_s) == (0.0, ())
    core.handle(SetPointsChanged(points(Mode.RATE), SETTINGS), 6.01)
    assert interval(core.applied) == FIRST_INTERVAL_S


# ---- threshold -----------------------------------------------------------------------------------------------------


def test_thresholds_start_at_the_set_points() -> None:
    assert controller(Mode.THRESHOLD).applied.exit_thresholds == WANTED


def test_thresholds_fall_under_load_and_not_below_their_floor() -> None:
    core = controller(Mode.THRESHOLD)
    first = periods(core, 24).exit_thresholds
    assert all(0.3 < low < top for low, top in zip(first, WANTED, strict=True))
    assert periods(core, 24, 50, start=0.1).exit_thresholds == pytest.approx((0.3,) * 4)


def test_thresholds_rise_back_to_the_set_points_fast_when_idle_and_creep_between() -> None:
    idle, between = controller(Mode.THRESHOLD), controller(Mode.THRESHOLD)
    for core in (idle, between):
        periods(core, 24, 50)
    assert periods(idle, 7, 10, start=5.0).exit_thresholds == WANTED
    crept = [periods(between, 8, 10, start=5.0 + step).exit_thresholds for step in range(3)]
    assert WANTED > crept[2] > crept[1] > crept[0] > (0.3,) * 4
    first, second, third = (sum(each) for each in crept)
    assert third - second < second - first  # ever more slowly


def test_thresholds_hold_between_adaptations() -> None:
    core = controller(Mode.THRESHOLD)
    before = periods(core, 24).exit_thresholds
    core.handle(Tick(), 0.19)
    assert core.applied.exit_thresholds == before


def test_thresholds_move_along_the_calibrated_curve() -> None:
    core = controller(Mode.THRESHOLD, curve=CURVE, thresholds=(1.0, 0.8, 0.9, 0.35))
    seen = [periods(core, 24, start=0.1 * step).exit_thresholds for step in range(6)]
    for earlier, later in itertools.pairwise(seen):
        assert all(after <= before for before, after in zip(earlier, later, strict=True))
    assert seen[-1] == (0.3,) * 4  # the floor, above the cheap end of the curve
    assert all(low <= top for low, top in zip(seen[0], (1.0, 0.8, 0.9, 0.35), strict=True))


def test_set_point_below_the_floor_is_left_where_users_put_it() -> None:
    core = controller(Mode.THRESHOLD, thresholds=(0.1, 0.1, 0.9, 0.9))
    assert periods(core, 24, 50).exit_thresholds == pytest.approx((0.1, 0.1, 0.3, 0.3))


def test_set_point_decides_at_once_while_thresholds_adapt() -> None:
    core = controller(Mode.THRESHOLD)
    periods(core, 24, 2)
    low = points(Mode.THRESHOLD, thresholds=(0.31,) * 4)
    (applied,) = published(core.handle(SetPointsChanged(low, SETTINGS), 0.21))
    assert max(applied.exit_thresholds) <= 0.31


def test_interval_holds_while_thresholds_adapt() -> None:
    applied = periods(controller(Mode.THRESHOLD, rate_hz=20.0), 100, 50)
    assert (applied.admission_interval_s, applied.source_intervals_s) == (0.05, ())


def test_thresholds_follow_the_largest_backlog() -> None:
    core = controller(Mode.THRESHOLD)
    core.handle(worker_report(W1, queue=0), 0.0)
    core.handle(worker_report(W2, queue=100), 0.0)
    core.handle(source_report(PeerId("a", 1), home="w1"), 0.0)
    core.handle(source_report(PeerId("b", 2), home="w2"), 0.0)
    core.handle(Tick(), 0.1)
    assert core.applied.exit_thresholds < WANTED


def test_thresholds_fall_while_frames_are_turned_away_however_few_are_queued() -> None:
    core = controller(Mode.THRESHOLD)
    for step in range(5):
        now = 0.1 * step
        core.handle(worker_report(W1), now)
        counts = LedgerCounts(offered=1 + 10 * step, admitted=1, refused=10 * step, in_flight=1)
        core.handle(source_report(stamp=now, counts=counts, stale=10 * step), now)
        core.handle(Tick(), now + 0.1)
    assert core.applied.exit_thresholds < WANTED  # 30 in 0.3 s


def test_thresholds_hold_when_nobody_is_heard() -> None:
    core = controller(Mode.THRESHOLD)
    before = periods(core, 24, 3).exit_thresholds
    for step in range(50):
        core.handle(Tick(), 2.0 + step)
    assert core.applied.exit_thresholds == before


# ---- the picture of the cluster ------------------------------------------------------------------------------------


def test_cluster_sums_over_sources() -> None:
    core = controller(rate_hz=10.0)
    for name, latency in (("a", (1.0, 2.0, 3.0)), ("b", (2.0, 3.0, 4.0))):
        counts = LedgerCounts(
            offered=10, admitted=8, refused=2, ok=6, failed=1, in_flight=1, retries=3, labelled=6, correct=3
        )
        core.handle(
            source_report(PeerId(name, 1), counts=counts, exits=(1, 2, 3, 0, 0), latency_ms=latency, total=50), 1.0
        )
    summary = core.cluster(1.5)
    assert (summary.offered, summary.admitted, summary.refused, summary.ok, summary.failed) == (20, 16, 4, 12, 2)
    assert (summary.in_flight, summary.retries, summary.total, summary.sources_alive) == (2, 6, 100, 2)
    assert (summary.accuracy, summary.exits, summary.latency_ms) == (0.5, (2, 4, 6, 0, 0), (2.0, 3.0, 4.0))
    assert summary.admission_rate_hz == 20.0
    assert summary.uptime_s == 0.5


def test_answers_of_a_source_with_another_number_of_exits_are_not_counted_among_these() -> None:
    core = controller()
    core.handle(source_report(PeerId("a", 1), exits=(1, 2, 3, 0, 0)), 1.0)
    core.handle(source_report(PeerId("b", 1), exits=(7, 7)), 1.0)
    assert core.cluster(1.5).exits == (1, 2, 3, 0, 0)


def test_rates_count_since_the_summary_before() -> None:
    core = controller()
    assert (core.cluster(1.0).fps, core.cluster(1.0).fps) == (0.0, 0.0)
    core.handle(source_report(counts=LedgerCounts(offered=30, ok=20, in_flight=10)), 2.0)
    summary = core.cluster(3.0)
    assert (summary.fps, summary.offered_fps) == (10.0, 15.0)
    assert core.cluster(4.0).fps == 0.0


def test_restarted_source_makes_no_negative_rate() -> None:
    core = controller()
    core.handle(source_report(counts=LedgerCounts(offered=30, ok=30)), 1.0)
    core.cluster(1.0)
    core.handle(source_report(PeerId("cam", 8), counts=LedgerCounts(offered=2, ok=2)), 2.0)
    assert core.cluster(2.0).fps == 0.0


def test_accuracy_is_not_a_number_without_labels() -> None:
    assert math.isnan(controller().cluster(1.0).accuracy)


def test_workers_are_listed_with_whether_they_live() -> None:
    core = controller()
    core.handle(worker_report(W2, queue=3, served=7), 1.0)
    core.handle(worker_report(W1, state=State.STOPPING), 1.5)
    rows = core.cluster(2.0).workers
    assert [(row.name, row.alive, row.input_queue, row.served) for row in rows] == [
        ("w1", False, 0, 0),
        ("w2", True, 3, 7),
    ]
    assert [row.alive for row in core.cluster(2.001).workers] == [False, False]


def test_nodes_that_come_and_go_leave_nothing_behind() -> None:
    core = controller(Mode.RATE)
    for index in range(500):
        now = index * 10.0
        core.handle(worker_report(PeerId(f"w{index}", 1)), now)
        core.handle(source_report(PeerId(f"s{index}", 1), home=f"w{index}"), now)
        core.handle(policy(PeerId(f"c{index}", 1)), now)
        core.handle(Tick(), now + 0.2)
        core.cluster(now + 0.2)
    most = FORGET_S / 10.0 + 1
    sizes = {name: len(value) for name, value in vars(core).items() if isinstance(value, dict | list | set)}
    assert max(sizes.values()) <= most, sizes


def test_made_up_names_take_bounded_memory_and_hide_nobody_who_goes_on_speaking() -> None:
    core = controller(Mode.RATE)
    for number in range(2 * NODES_MAX):
        now = number * 1e-3
        core.handle(worker_report(PeerId(f"n{number}", number)), now)
        core.handle(source_report(PeerId(f"s{number}", number), home=f"n{number}", state=State.STOPPING), now)
        if number % 100 == 0:
            core.handle(worker_report(W1), now)
            core.handle(source_report(CAM), now)
        core.handle(Tick(), now)
    sizes = {name: len(value) for name, value in vars(core).items() if isinstance(value, dict | list)}
    assert max(sizes.values()) == NODES_MAX, sizes
    assert "w1" in {row.name for row in core.cluster(now).workers}
    assert core.cluster(now).sources_alive > 0
    assert "cam" in core._sources


# ---- the whole -------------------------------------------------------------------------------------------------


def test_replayed_events_give_the_same_actions() -> None:
    events = [
        (worker_report(W1, queue=step % 40) if step % 3 else source_report(offered_interval_s=0.01), step * 0.037)
        for step in range(600)
    ]

    def replay() -> list[Any]:
        core = controller(Mode.RATE)
        return [action for event, now in events for action in core.handle(event, now)]

    assert replay() == replay()
    assert len(of(PublishPolicy, replay())) > 50
