# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.partition import Computer, Work, best_cut
from mdi_exit_ros.planner.arrangement import Arrangement
from mdi_exit_ros.planner.demand import Candidate, Demand
from mdi_exit_ros.planner.search import cheapest
from mdi_exit_ros.simulation.costs import NO_COSTS, NodeCosts
from mdi_exit_ros.task import Strategy

MBIT = 1e6


def frame(*milliseconds: float, nbytes: tuple[float, ...] = (), reach: tuple[float, ...] = ()) -> Demand:
    """A frame that takes so long in each segment, with nodes that cost nothing."""
    count = len(milliseconds)
    seconds = tuple(each / 1000.0 for each in milliseconds)
    return Demand(seconds, nbytes or (1000.0,) * count, reach or (1.0,) * count, costs=NO_COSTS)


def names(arrangement: Arrangement | None) -> tuple[str, ...]:
    assert arrangement is not None
    return arrangement.names


def kinds(arrangement: Arrangement) -> set[tuple[str, str]]:
    return {(use.kind, use.computer) for use in arrangement.limits}


def test_the_robot_alone_is_enough_for_little() -> None:
    answer = cheapest([Candidate("robot"), Candidate("nano2")], frame(1.0), 799.0)
    assert names(answer.chosen) == ("robot",)
    assert answer.chosen is not None
    assert answer.chosen.rate_hz == pytest.approx(800.0)
    assert (answer.chosen.strategy, answer.fewer) == (Strategy.LOCAL, None)


def test_two_equal_computers_do_twice_as_much_half_of_it_each() -> None:
    answer = cheapest([Candidate("robot"), Candidate("nano2"), Candidate("nano3")], frame(1.0), 1599.0)
    chosen = answer.chosen
    assert names(chosen) == ("robot", "nano2")
    assert chosen is not None
    assert chosen.rate_hz == pytest.approx(1600.0)
    assert chosen.duties[1].taken == pytest.approx(0.5)
    assert [duty.busy(800.0) for duty in chosen.duties] == pytest.approx([0.4, 0.4])
    assert chosen.strategy is Strategy.DDI
    assert answer.fewer is not None
    assert (answer.fewer.names, answer.fewer.rate_hz) == (("robot",), pytest.approx(800.0))
    assert kinds(answer.fewer) == {("compute", "robot")}


def test_the_cheapest_set_is_chosen_even_if_it_is_larger() -> None:
    candidates = [Candidate("robot"), Candidate("server", speed=2.0, cost=5.0), Candidate("a"), Candidate("b")]
    assert names(cheapest(candidates, frame(1.0), 2000.0).chosen) == ("robot", "a", "b")
    candidates[1] = Candidate("server", speed=2.0, cost=1.5)
    assert names(cheapest(candidates, frame(1.0), 2000.0).chosen) == ("robot", "server")


def test_of_equally_cheap_sets_the_smaller_one_and_then_the_fastest_is_chosen() -> None:
    candidates = [Candidate("robot"), Candidate("a"), Candidate("b", speed=1.1), Candidate("c", speed=0.5, cost=0.0)]
    assert names(cheapest(candidates, frame(1.0), 1500.0).chosen) == ("robot", "b")


def test_every_core_counts() -> None:
    four = cheapest([Candidate("robot", cores=4)], frame(1.0), 1.0).chosen
    eight = cheapest([Candidate("robot", cores=8)], frame(1.0), 1.0).chosen
    assert four is not None and eight is not None
    assert four.rate_hz == pytest.approx(3200.0)
    assert eight.rate_hz == pytest.approx(6400.0)


def test_a_robot_that_is_too_slow_only_has_the_camera() -> None:
    chosen = cheapest([Candidate("robot", speed=0.01), Candidate("server")], frame(1.0), 700.0).chosen
    assert chosen is not None
    assert [duty.segments for duty in chosen.duties] == [(), (1,)]
    assert chosen.rate_hz == pytest.approx(800.0)
    assert chosen.strategy is Strategy.LOCAL


def test_a_narrow_link_lets_frames_move_where_they_are_small() -> None:
    demand = frame(1.0, 1.0, nbytes=(100_000.0, 100.0))
    candidates = [Candidate("robot"), Candidate("nano2", link_bps=10 * MBIT)]
    chosen = cheapest(candidates, demand, 500.0).chosen
    assert chosen is not None
    assert (chosen.place, chosen.strategy) == (2, Strategy.MDI_EXIT)
    assert chosen.duties[1].segments == (2,)
    whole = cheapest([Candidate("robot"), Candidate("nano2")], demand, 500.0).chosen
    assert whole is not None
    assert whole.place == 1


def test_a_link_that_is_full_is_named_as_the_limit() -> None:
    demand = frame(1.0, nbytes=(10_000.0,))
    answer = cheapest([Candidate("robot"), Candidate("nano2", link_bps=20 * MBIT)], demand, 5000.0)
    assert answer.chosen is None
    assert kinds(answer.best) == {("link", "nano2"), ("compute", "robot")}
    assert answer.best.limit() == "link: 80 % of the link of nano2 is used; compute: robot is 80 % busy"
    assert 800.0 < answer.best.rate_hz < 1000.0  # 16 of 20 Mbit/s are less than 200 frames of 80 kbit and statuses
    carried = answer.best.duties[1].carried_bps(answer.best.rate_hz)
    assert carried == pytest.approx(16 * MBIT)


def test_the_robots_link_is_shared_by_all() -> None:
    demand = frame(1.0, nbytes=(10_000.0,))
    others = [Candidate(name, link_bps=1000 * MBIT) for name in ("nano2", "nano3")]
    best = cheapest([Candidate("robot", link_bps=20 * MBIT), *others], demand, 1e6).best
    assert ("link", "robot") in kinds(best)
    assert best.rate_hz < 1000.0


def test_a_home_worker_keeps_a_quarter_of_what_it_holds() -> None:
    # Over its link the robot could send all frames whole at some 600 frames/s only.
    robot = Candidate("robot", speed=0.2, link_bps=6.5 * MBIT)
    best = cheapest([robot, Candidate("server", speed=10.0)], frame(1.0), 1e6).best
    assert best.duties[0].segments == (1,)
    assert best.duties[1].taken == pytest.approx(0.75)
    assert best.rate_hz == pytest.approx(0.8 * 0.2 / 0.25e-3)


def test_work_of_the_nodes_counts() -> None:
    costs = NodeCosts(
        receive_us=150.0,
        send_us=120.0,
        status_in_us=80.0,
        status_out_us=120.0,
        kilobyte_us=0.3,
        task_us=15.0,
        batch_us=100.0,
        read_us=60.0,
        frame_us=40.0,
        controller_cores=0.06,
    )
    demand = Demand((0.001,), (1000.0,), (1.0,), costs=costs)
    alone = cheapest([Candidate("robot")], demand, 1.0, margin=1.0).best
    # Per frame 1 ms of the network, 100 us of the camera, 36.25 us of the task and its part of a batch, 0.6 us of its
    # kilobyte on both sides, and two messages of 16 frames from end to end.
    per_frame_s = 0.001 + 100e-6 + 36.25e-6 + 0.6e-6 + 2 * 270e-6 / 16
    # Always: 0.06 cores of controller and view, statuses, and a message and an answer each 10 ms that may not be full.
    statuses = (120.0 + 80.0) / 0.06 + (80.0 + 120.0) / 0.1
    always = 0.06 + 1e-6 * (statuses + 100.0 * 2 * (120.0 + 150.0))
    assert alone.rate_hz == pytest.approx((1.0 - always) / per_frame_s)


@pytest.mark.parametrize("seed", range(10))
def test_no_other_shares_of_the_work_do_more(seed: int) -> None:
    rng = random.Random(seed)
    first, second = rng.uniform(0.2, 1.0), rng.uniform(0.2, 1.0)
    reach = rng.uniform(0.2, 1.0)
    speeds = [1.0, rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.5)]
    found = cheapest(
        [Candidate(name, speed) for name, speed in zip("abc", speeds, strict=True)],
        frame(first, second, reach=(1.0, reach)),
        1e9,
    ).best
    most = 0.0
    for place_reach, moved_ms in ((1.0, first + reach * second), (reach, second)):
        for one in range(51):
            for other in range(51 - one):
                shares = [place_reach * one / 50.0, place_reach * other / 50.0]
                if sum(shares) <= 0.75 * place_reach:
                    loads = [first + reach * second - sum(shares) * moved_ms, *(share * moved_ms for share in shares)]
                    most = max(most, min(800.0 * v / load for v, load in zip(speeds, loads, strict=True) if load))
    assert most <= found.rate_hz * (1.0 + 1e-9)
    assert found.rate_hz <= 1.05 * most


def test_later_exits_cost_only_the_frames_that_come_there() -> None:
    demand = frame(1.0, 10.0, reach=(1.0, 0.1))
    chosen = cheapest([Candidate("robot")], demand, 1.0).chosen
    assert chosen is not None
    assert chosen.rate_hz == pytest.approx(400.0)


@pytest.mark.parametrize("spans", [False, True])
def test_where_few_frames_come_messages_are_no_more_than_they(spans: bool) -> None:
    demand = replace(frame(5.0), costs=NO_COSTS.model_copy(update={"send_us": 200.0, "receive_us": 200.0}))
    slow, fast = (cheapest([Candidate("robot", speed)], demand, 1.0, spans=spans).chosen for speed in (0.05, 1.0))
    assert slow is not None and fast is not None
    # A frame takes 5 ms, its two messages twice 0.4 ms: 5.8 ms of a core that is a twentieth as fast.
    assert slow.rate_hz == pytest.approx(0.8 * 0.05 / 0.0058)
    # Beyond them, messages hold 16 frames, and 100 of either kind go out before: 0.08 of the core.
    assert fast.rate_hz == pytest.approx((0.8 - 0.08) / (0.005 + 0.0008 / 16))


def test_a_segment_that_no_frame_comes_to_is_held_and_costs_nothing() -> None:
    chosen = cheapest([Candidate("robot"), Candidate("a")], frame(1.0, 50.0, reach=(1.0, 0.0)), 1500.0).chosen
    assert chosen is not None
    assert [duty.segments for duty in chosen.duties] == [(1, 2), (1, 2)]


def test_a_latency_that_no_set_keeps_is_refused_with_the_shortest() -> None:
    candidates = [Candidate("robot"), Candidate("server", speed=10.0)]
    assert names(cheapest(candidates, frame(10.0), 10.0).chosen) == ("robot",)
    quick = cheapest(candidates, frame(10.0), 10.0, latency_s=0.006)
    assert names(quick.chosen) == ("robot", "server")
    refused = cheapest(candidates, frame(10.0), 10.0, latency_s=0.0001)
    assert refused.chosen is None
    assert names(refused.quickest) == ("robot", "server")
    assert refused.best.rate_hz > 10.0


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_used_beyond_the_margin_and_something_up_to_it(seed: int) -> None:
    rng = random.Random(seed)
    demand = Demand(
        tuple(rng.uniform(0.0001, 0.001) for _ in range(4)),
        tuple(rng.uniform(500.0, 30_000.0) for _ in range(4)),
        (1.0, *sorted((rng.random() for _ in range(3)), reverse=True)),
    )
    candidates = [
        Candidate(f"c{number}", rng.uniform(0.1, 2.0), rng.choice((1, 2, 4)), rng.choice((math.inf, 1e7, 1e8)))
        for number in range(4)
    ]
    for spans in (False, True):
        best = cheapest(candidates, demand, 1e9, margin=0.7, spans=spans).best
        uses = [use.at(best.rate_hz) for duty in best.duties for use in duty.uses]
        assert max(uses) == pytest.approx(0.7)
        assert min(uses) >= 0.0
        assert best.names[0] == "c0"
        assert sorted({segment for duty in best.duties for segment in duty.segments}) == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(20))
def test_spans_are_cut_as_the_pipeline_is(seed: int) -> None:
    rng = random.Random(seed)
    milliseconds = [rng.uniform(0.1, 1.0) for _ in range(5)]
    reach = (1.0, *sorted((rng.random() for _ in range(4)), reverse=True))
    best = cheapest([Candidate(name) for name in "abc"], frame(*milliseconds, reach=reach), 1e9, spans=True).best
    work = Work([each / 1000.0 for each in milliseconds], [0.0] * 5, reach)
    cut = best_cut([Computer(name) for name in "abc"], work)
    assert best.rate_hz == pytest.approx(0.8 * cut.frames_per_s)
    assert best.kind == "spans"


def test_spans_are_not_shared_so_one_more_computer_may_not_help() -> None:
    candidates = [Candidate(name) for name in "abc"]
    answer = cheapest(candidates, frame(1.0, 1.0), 700.0, spans=True)
    assert answer.chosen is not None
    assert sorted(duty.segments for duty in answer.chosen.duties) == [(1,), (2,)]
    assert answer.chosen.rate_hz == pytest.approx(800.0)
    assert answer.fewer is not None
    assert answer.fewer.rate_hz == pytest.approx(400.0)
    assert cheapest(candidates, frame(1.0, 1.0), 801.0, spans=True).chosen is None


def test_room_grows_with_the_frames_under_way() -> None:
    chosen = cheapest([Candidate(name) for name in "abcd"], frame(1.0), 3000.0).chosen
    assert chosen is not None
    assert chosen.queue_capacity(10.0) == 192
    assert chosen.queue_capacity(3000.0) == 512


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([], "expected 1 to 12 computers"),
        ([Candidate(f"c{number}") for number in range(13)], "expected 1 to 12 computers to choose from, got 13"),
        ([Candidate("a"), Candidate("a")], "different names"),
        ([Candidate("")], "different names"),
        ([Candidate("all")], "expected another name"),
        ([Candidate("a", speed=0.0)], "computer a: expected a speed above 0, got 0"),
        ([Candidate("a", speed=math.nan)], "expected a speed above 0, got nan"),
        ([Candidate("a", cores=-1.0)], "computer a: expected a number of cores above 0, got -1"),
        ([Candidate("a", link_bps=0.0)], "computer a: expected a link rate above 0"),
        ([Candidate("a", cost=-2.0)], "computer a: expected a cost of at least 0, got -2"),
    ],
)
def test_computers_that_cannot_be_are_refused(candidates: list[Candidate], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        cheapest(candidates, frame(1.0), 1.0)
