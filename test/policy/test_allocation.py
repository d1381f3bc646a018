# SPDX-License-Identifier: Apache-2.0
"""Segments spread anew while the cluster runs: what the controller decides, and how a worker follows."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import time

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
    Allocator,
    best_allocation,
    without_slow_links,
)
from mdi_exit_ros.policy.bottleneck import (
    FIRST_PATIENCE_S,
    LONGEST_PATIENCE_S,
    AllocationSetup,
    Measured,
    Rates,
    slowest_s,
    successors_of,
)
from mdi_exit_ros.policy.controller import ControllerCore, ControllerSetup
from mdi_exit_ros.policy.events import (
    AppliedPolicy,
    SegmentsLoaded,
    SetPoints,
    Shutdown,
    StreamReport,
    Tick,
    WorkerReport,
)
from mdi_exit_ros.task import Mode, PeerId, Strategy

MESH = {"w1": ("w2", "w3"), "w2": ("w1", "w3"), "w3": ("w1", "w2")}
RING = {"w1": ("w2",), "w2": ("w3",), "w3": ("w1",)}
NBYTES = (300, 4000, 1000, 2000, 1000)
SETUP = AllocationSetup("w1", MESH, (1.0,) * 5, NBYTES)
ADAPTIVE = AdaptationSettings(adaptive_allocation=True, allocation_gain=0.2, allocation_period_s=2.0)
LIVES = {"w1": W1, "w2": W2, "w3": W3}


def reports(
    held: dict[str, tuple[int, ...]],
    service_s: dict[str, float] | None = None,
    moving_s: dict[str, float] | None = None,
    sent: int = 0,
    served: int = 0,
) -> dict[str, WorkerReport]:
    """Reports of workers; `moving_s` by links as `w1>w2`, times of one last segment input; each has carried `sent`."""
    times = service_s or {}
    links: dict[str, list[StreamReport]] = {}
    for link, seconds in (moving_s or {}).items():
        one, _, other = link.partition(">")
        links.setdefault(one, []).append(StreamReport(LIVES[other], sent=sent, moving_s=seconds))
    return {
        name: worker_report(
            *(LIVES[name], *links.get(name, ())), segments=segments, service_s=times.get(name, 0.01), served=served
        )
        for name, segments in held.items()
    }


START = {"w1": (1, 2), "w2": (3, 4), "w3": (5,)}


# ---- what is best ------------------------------------------------------------------------------------------


def test_speed_is_cost_per_measured_second_and_unmeasured_workers_are_average() -> None:
    measured = Measured(AllocationSetup("w1", MESH, (1.0, 3.0, 2.0, 2.0, 9.0), NBYTES))
    measured.hear(reports(START, {"w1": 0.01, "w2": 0.02, "w3": 0.0}), 10.0)
    assert measured.rates(LIVES).speed == pytest.approx({"w1": 4.0 / 0.02, "w2": 4.0 / 0.04, "w3": 150.0})


class Listener:
    """What is measured while one link is used or not, and frames are served or not."""

    def __init__(self, moving_s: float = 0.5) -> None:
        self.measured = Measured(SETUP)
        self.now, self.served, self.sent, self.moving_s = 10.0, 0, 0, moving_s
        self.pass_time(0.0)

    def pass_time(self, seconds: float, *, idle: bool = False, link_used: bool = False, w2_s: float = 0.0) -> None:
        """Reports after `seconds`; w2 holds segments only if it has a service time."""
        self.now += seconds
        self.served += not idle
        self.sent += link_used
        held = {**START, "w2": START["w2"] if w2_s else ()}
        heard = reports(held, {"w2": w2_s}, {"w1>w2": self.moving_s}, sent=self.sent, served=self.served)
        self.measured.hear(heard, self.now)

    @property
    def link_s(self) -> float:
        return self.measured.rates(LIVES).link_s["w1", "w2"]

    @property
    def speed(self) -> float:
        return self.measured.rates(LIVES).speed["w2"]


def test_link_and_worker_that_are_no_longer_used_stay_known_for_a_while() -> None:
    listener = Listener()
    listener.pass_time(1.0, link_used=True, w2_s=0.02)
    listener.pass_time(FIRST_PATIENCE_S)
    assert (listener.link_s, listener.speed) == (0.5, pytest.approx(50.0))
    listener.pass_time(0.1)
    assert (listener.link_s, listener.speed) == (0.0, pytest.approx(100.0)), "a free link, and an average worker"


def test_what_was_measured_does_not_age_while_nobody_has_anything_to_do() -> None:
    listener = Listener()
    listener.pass_time(1.0, link_used=True, w2_s=0.02)
    for _ in range(10):
        listener.pass_time(FIRST_PATIENCE_S, idle=True)
    assert (listener.link_s, listener.speed) == (0.5, pytest.approx(50.0))


def test_fast_worker_that_was_not_used_for_long_is_still_taken_for_fast() -> None:
    listener = Listener()
    listener.pass_time(1.0, w2_s=0.001)
    listener.pass_time(FIRST_PATIENCE_S + 1.0)
    assert listener.speed == pytest.approx(1000.0)


def test_link_that_carries_tasks_stays_known_though_always_as_fast() -> None:
    listener = Listener()
    for _ in range(3):
        listener.pass_time(1000.0, link_used=True)
        assert listener.link_s == 0.5


@pytest.mark.parametrize(
    ("trial_s", "factor"),
    [pytest.param(4.0, 2.0, id="left again"), pytest.param(FIRST_PATIENCE_S, 1.0, id="proved itself")],
)
def test_link_is_tried_again_after_twice_the_time_unless_it_proved_itself(trial_s: float, factor: float) -> None:
    listener = Listener()
    listener.pass_time(FIRST_PATIENCE_S + 1.0)
    assert listener.link_s == 0.0
    listener.pass_time(0.5 * trial_s, link_used=True)
    listener.pass_time(0.5 * trial_s, link_used=True)
    assert listener.link_s == 0.5
    listener.pass_time(factor * FIRST_PATIENCE_S)
    assert listener.link_s == 0.5
    listener.pass_time(0.1)
    assert listener.link_s == 0.0


def test_patience_with_a_slow_link_has_an_end() -> None:
    listener = Listener()
    for _ in range(20):
        listener.pass_time(LONGEST_PATIENCE_S + 0.1)
        assert listener.link_s == 0.0
        listener.pass_time(2.0, link_used=True)


def test_only_links_that_there_are_can_be_measured() -> None:
    measured = Measured(AllocationSetup("w1", RING, (1.0,) * 5, NBYTES))
    measured.hear(reports(START, {}, {"w1>w2": 0.5, "w1>w3": 0.1}), 10.0)
    assert measured.rates(LIVES).link_s == {("w1", "w2"): 0.5}


def test_link_without_measurement_is_as_the_other_way_or_the_median_or_free() -> None:
    links = {("w1", "w2"): 0.5, ("w2", "w3"): 0.1}
    rates = Rates({}, links)
    assert (rates.crossing_s("w1", "w2"), rates.crossing_s("w2", "w1")) == (0.5, 0.5)
    assert rates.crossing_s("w1", "w3") == 0.1, "of two the better one, so that it is tried"
    assert Rates({}, {**links, ("w3", "w4"): 0.3}).crossing_s("w1", "w3") == 0.3
    assert Rates({}).crossing_s("w1", "w3") == 0.0


def test_slowest_worker_counts_and_holders_share_a_segment() -> None:
    rates = Rates({"w1": 10.0, "w2": 5.0})
    setup = AllocationSetup("w1", MESH, (1.0, 2.0, 1.0), (1, 1, 1))
    assert slowest_s(setup, {"w1": (1, 2), "w2": (2, 3)}, rates) == pytest.approx((1.0 + 1.0) / 5.0)
    assert slowest_s(setup, {"w1": (1,), "w2": (2,)}, rates) == math.inf


def test_segment_that_no_edge_leads_to_is_held_by_nobody() -> None:
    ring = AllocationSetup("w1", RING, (1.0, 1.0), (1, 1))
    assert slowest_s(ring, {"w1": (1,), "w3": (2,)}, Rates({"w1": 1.0, "w3": 1.0})) == math.inf


def test_slowest_link_counts_by_the_bytes_that_cross_it() -> None:
    rates = Rates(dict.fromkeys(LIVES, 100.0), {("w1", "w2"): 0.5, ("w1", "w3"): 0.125})
    # Twice the size of the last segment's input crosses in front of segment 4, all of it or half to each.
    assert slowest_s(SETUP, {"w1": (1, 2, 3), "w2": (4, 5)}, rates) == 1.0
    assert slowest_s(SETUP, {"w1": (1, 2, 3), "w2": (4, 5), "w3": (4, 5)}, rates) == 0.5


def test_fast_worker_gets_more_segments() -> None:
    found = best_allocation(SETUP, Rates({"w1": 1.0, "w2": 3.0, "w3": 1.0}))
    assert found == (("w1", (1,)), ("w2", (2, 3, 4)), ("w3", (5,)))


def test_worker_that_does_not_pay_is_left_out() -> None:
    assert best_allocation(SETUP, Rates({"w1": 4.0, "w2": 0.5})) == (("w1", (1, 2, 3, 4, 5)),)
    assert best_allocation(SETUP, Rates({"w1": 4.0, "w2": 0.5, "w3": 4.0})) == (("w1", (1, 2, 3)), ("w3", (4, 5)))


def test_segments_follow_the_edges() -> None:
    ring = AllocationSetup("w1", RING, (1.0,) * 3, (1, 1, 1))
    found = best_allocation(ring, Rates({"w1": 1.0, "w2": 1.0, "w3": 1.0}))
    assert found == (("w1", (1,)), ("w2", (2,)), ("w3", (3,)))
    assert best_allocation(ring, Rates({"w1": 1.0, "w3": 1.0})) == (("w1", (1, 2, 3)),), "no edge from w1 to w3"


def test_path_that_is_not_faster_than_the_limit_is_not_looked_for() -> None:
    rates = Rates({"w1": 1.0, "w2": 1.0, "w3": 1.0})
    assert best_allocation(SETUP, rates, limit_s=2.0) == ()
    assert len(best_allocation(SETUP, rates, limit_s=2.1)) == 3


def test_cut_over_a_slow_link_is_where_little_crosses_it() -> None:
    pair = AllocationSetup("w1", {"w1": ("w2",)}, (1.0,) * 5, (300, 4000, 1000, 2000, 500))
    speed = {"w1": 1.0, "w2": 1.0}
    for crossing_s, first in ((0.1, (1, 2)), (1.0, (1, 2)), (3.0, (1, 2, 3, 4)), (9.0, (1, 2, 3, 4, 5))):
        assert best_allocation(pair, Rates(speed, {("w1", "w2"): crossing_s}))[0] == ("w1", first), crossing_s


def test_path_goes_round_a_slow_link() -> None:
    rates = Rates(dict.fromkeys(LIVES, 1.0), {("w1", "w2"): 9.0, ("w2", "w3"): 0.1, ("w1", "w3"): 0.1})
    assert [name for name, _ in best_allocation(SETUP, rates)] == ["w1", "w3", "w2"]


@pytest.mark.parametrize("seed", range(8))
def test_no_other_path_and_cut_is_faster(seed: int) -> None:
    rng = random.Random(seed)
    names = ("w1", "w2", "w3", "w4")
    edges = {name: tuple(each for each in names if each != name and rng.random() < 0.7) for name in names}
    setup = AllocationSetup("w1", edges, tuple(rng.uniform(1, 4) for _ in NBYTES), NBYTES)
    links = {(one, other): rng.choice((0.01, 0.1, 1.0)) for one in names for other in edges[one]}
    rates = Rates({name: rng.uniform(1, 4) for name in names}, links)
    found = slowest_s(setup, dict(best_allocation(setup, rates)), rates)
    everything = [
        {
            name: tuple(range(a + 1, b + 1))
            for name, (a, b) in zip(order, itertools.pairwise((0, *cuts, 5)), strict=True)
        }
        for size in (1, 2, 3, 4)
        for order in itertools.permutations(names, size)
        if order[0] == "w1"
        for cuts in itertools.combinations(range(1, 5), size - 1)
    ]
    assert found == pytest.approx(min(slowest_s(setup, held, rates) for held in everything))


def test_ten_workers_and_eight_segments_are_looked_through_at_once() -> None:
    names = [f"w{number}" for number in range(1, 11)]
    edges = {name: tuple(each for each in names if each != name) for name in names}
    setup = AllocationSetup("w1", edges, (1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0), (1,) * 8)
    began = time.process_time()
    assert (
        slowest_s(
            setup, dict(best_allocation(setup, Rates(dict.fromkeys(names, 1.0)))), Rates(dict.fromkeys(names, 1.0))
        )
        == 3.0
    )
    assert time.process_time() - began < 1.0


def test_worker_beside_the_path_holds_nothing_where_its_link_would_be_the_slowest() -> None:
    path = (("w1", (1, 2, 3)), ("w3", (4, 5)))
    speed = dict.fromkeys(LIVES, 1.0)
    slow = Rates(speed, {("w1", "w2"): 4.0, ("w1", "w3"): 0.1})
    assert without_slow_links(SETUP, path, START, slow) == (*path, ("w2", ()))
    assert without_slow_links(SETUP, path, START, Rates({**speed, "w2": 0.01}, {("w1", "w2"): 0.1})) == path


def test_edges_are_written_with_an_arrow() -> None:
    assert successors_of(["a>b", "a>c", "b>a"]) == {"a": ("b", "c"), "b": ("a",)}
    with pytest.raises(ConfigurationError, match="edges: expected FROM>TO .* got 'a-b'"):
        successors_of(["a-b"])


# ---- in two phases -----------------------------------------------------------------------------------------


def test_slow_worker_gives_segments_away_only_after_they_are_loaded_elsewhere() -> None:
    allocator = Allocator(SETUP)
    slow = {"w1": 0.01, "w2": 0.04, "w3": 0.015}
    allocator.step(reports(START, slow), ADAPTIVE, 10.0)
    wanted = (("w1", (1, 2, 3)), ("w3", (4, 5)))
    assert (allocator.target, allocator.final) == (wanted, False)
    allocator.step(reports(START, slow), ADAPTIVE, 10.1)
    assert not allocator.final
    allocator.step(reports({**START, "w1": (1, 2, 3), "w3": (4, 5)}, slow), ADAPTIVE, 10.2)
    assert (allocator.target, allocator.final) == (wanted, True)


def test_slow_link_is_left_when_it_has_been_measured_and_not_come_back_to_soon() -> None:
    allocator = Allocator(SETUP)
    allocator.step(reports(START), ADAPTIVE, 10.0)
    assert allocator.target == (), "nothing is known of the links yet"
    allocator.step(reports(START, {}, {"w1>w2": 0.1, "w2>w3": 0.001}), ADAPTIVE, 12.0)
    wanted = (("w1", (1, 2)), ("w3", (3, 4)), ("w2", (5,)))
    assert (allocator.target, allocator.final) == (wanted, False)
    now = 12.1
    held = dict(wanted)
    allocator.step(reports({name: (*held[name], *START[name]) for name in held}), ADAPTIVE, now)
    assert allocator.final
    for measured in ({"w1>w2": 0.1, "w1>w3": 0.004, "w3>w2": 0.001}, {"w1>w3": 0.006}, {"w1>w2": -1.0}, {}):
        now += 2.0
        allocator.step(reports(held, {}, measured), ADAPTIVE, now)
        assert (allocator.target, allocator.final) == (wanted, True), measured


def test_link_that_was_tried_and_is_slow_too_is_left_and_what_is_held_ends_the_search() -> None:
    allocator = Allocator(SETUP)
    allocator.step(reports(START, {}, {"w1>w2": 9.0, "w2>w3": 0.001}), ADAPTIVE, 10.0)
    held = {"w1": (1, 2), "w3": (3, 4), "w2": (5,)}
    assert dict(allocator.target) == held
    allocator.step(reports(held), ADAPTIVE, 10.1)
    allocator.step(reports(held, {}, {"w1>w3": 9.0}), ADAPTIVE, 12.1)
    alone = (("w1", (1, 2, 3, 4, 5)), ("w3", ()), ("w2", ()))
    assert (allocator.target, allocator.final) == (alone, False)
    allocator.step(reports({**held, "w1": (1, 2, 3, 4, 5)}), ADAPTIVE, 12.2)
    for now in (14.2, 16.2, 18.2):
        allocator.step(reports(dict(alone)), ADAPTIVE, now)
        assert (allocator.target, allocator.final) == (alone, True)


def test_link_that_has_become_fast_again_is_found_out() -> None:
    allocator = Allocator(SETUP)
    allocator.step(reports(START, {}, {"w1>w2": 9.0, "w2>w3": 9.0, "w1>w3": 9.0}), ADAPTIVE, 10.0)
    alone = {"w1": (1, 2, 3, 4, 5), "w2": (), "w3": ()}
    assert dict(allocator.target) == alone
    now = 10.1
    allocator.step(reports({**START, "w1": (1, 2, 3, 4, 5)}), ADAPTIVE, now)
    assert allocator.final
    served = 0
    while dict(allocator.target) == alone and now < 500.0:
        now, served = now + 2.0, served + 1
        allocator.step(reports(alone, {"w2": 0.0, "w3": 0.0}, served=served), ADAPTIVE, now)
    assert now == pytest.approx(10.0 + FIRST_PATIENCE_S, abs=5.0)
    trial = dict(allocator.target)
    assert trial != alone
    both = {name: tuple(sorted({*trial.get(name, ()), *alone[name]})) for name in LIVES}
    allocator.step(reports(both, served=served), ADAPTIVE, now + 3.0)
    assert allocator.final
    slow = {"w1>w2": 9.0, "w2>w3": 9.0, "w1>w3": 9.0}
    allocator.step(reports(trial, {}, slow, sent=1, served=served + 1), ADAPTIVE, now + 3.1)
    assert dict(allocator.target) == trial, "it is given time to be measured"
    crossing = dict.fromkeys(("w1>w2", "w2>w3", "w3>w2", "w1>w3"), 1e-4)
    for step in range(3, 200):
        heard = reports(trial, {}, crossing, sent=step, served=served + step)
        allocator.step(heard, ADAPTIVE, now + 2.0 * step)
        assert dict(allocator.target) == trial


def test_worker_that_shall_hold_nothing_may_be_lost() -> None:
    allocator = Allocator(SETUP)
    allocator.step(reports(START, {}, {"w1>w2": 9.0, "w2>w3": 9.0}), ADAPTIVE, 10.0)
    alone = (("w1", (1, 2, 3, 4, 5)), ("w2", ()), ("w3", ()))
    assert (allocator.target, allocator.final) == (alone, False)
    allocator.step(reports({"w1": (1, 2, 3, 4, 5)}), ADAPTIVE, 10.1)
    allocator.step(reports({"w1": (1, 2, 3, 4, 5)}), ADAPTIVE, 10.2)
    assert (allocator.target, allocator.final) == (alone, True)


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


@pytest.mark.parametrize("why", ["switched off", "home lost"])
def test_change_that_is_no_longer_wanted_is_taken_back(why: str) -> None:
    allocator = Allocator(SETUP)
    allocator.step(reports(START, {"w2": 0.04}), ADAPTIVE, 10.0)
    assert not allocator.final
    heard = reports(START, {"w2": 0.04})
    if why == "home lost":
        del heard["w1"]
    adaptive = dataclasses.replace(ADAPTIVE, adaptive_allocation=why != "switched off")
    allocator.step(heard, adaptive, 10.1)
    assert (allocator.target, allocator.final) == ((), True)


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
    assert (preparing.allocation[1], preparing.allocation_final) == (("w3", (4, 5)), False)
    assert core.handle(Tick(), 5.2) == []
    settled = hear({**START, "w1": (1, 2, 3), "w3": (4, 5)}, 5.3)[-1]
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


def test_worker_that_shall_hold_nothing_drops_everything_when_the_change_is_final() -> None:
    core = ready_worker(W2, segments=(1, 2), strategy=Strategy.MDI)
    core.handle(shall_hold((), final=False), 1.0)
    assert report_of(core.handle(Tick(), 1.2)).segments == (1, 2)
    assert report_of(core.handle(shall_hold((), final=True, version=2), 1.3)).segments == ()


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
