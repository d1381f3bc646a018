# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import itertools
import math
import random

import pytest

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.partition import Computer, Cut, Work, best_cut


def spans(cut: Cut) -> list[tuple[str, tuple[int, ...]]]:
    return [(stage.computer, stage.segments) for stage in cut.stages]


def even(*seconds: float, nbytes: float = 0.0) -> Work:
    return Work(seconds, [nbytes] * len(seconds), [1.0] * len(seconds))


def test_one_computer_does_everything() -> None:
    cut = best_cut([Computer("a")], even(1.0, 2.0, 3.0))
    assert spans(cut) == [("a", (1, 2, 3))]
    assert (cut.slowest_s, cut.latency_s) == (6.0, 6.0)
    assert cut.frames_per_s == pytest.approx(1 / 6)


def test_a_faster_computer_gets_more() -> None:
    cut = best_cut([Computer("a"), Computer("b", speed=3.0)], even(1.0, 1.0, 1.0, 1.0))
    assert spans(cut) == [("a", (1,)), ("b", (2, 3, 4))]
    assert cut.slowest_s == pytest.approx(1.0)


def test_a_slow_link_keeps_frames_at_home() -> None:
    work = Work([1.0, 1.0], [1000.0, 1000.0], [1.0, 1.0])
    assert len(best_cut([Computer("a"), Computer("b", link_bps=8_000.0)], work).stages) == 2
    cut = best_cut([Computer("a"), Computer("b", link_bps=1_000.0)], work)
    assert spans(cut) == [("a", (1, 2))]


def test_a_narrow_place_is_chosen_for_the_cut() -> None:
    work = Work([1.0, 1.0, 1.0], [100.0, 9000.0, 100.0], [1.0] * 3)
    cut = best_cut([Computer("a"), Computer("b", link_bps=8_000.0)], work)
    assert spans(cut) == [("a", (1, 2)), ("b", (3,))]
    assert cut.stages[1].transfer_s == pytest.approx(0.1)


def test_exits_move_the_cut() -> None:
    computers = [Computer("a"), Computer("b")]
    assert spans(best_cut(computers, even(1.0, 1.0, 1.0, 1.0)))[0] == ("a", (1, 2))
    work = Work([1.0, 1.0, 1.0, 1.0], [0.0] * 4, [1.0, 0.4, 0.3, 0.2])
    cut = best_cut(computers, work)
    assert spans(cut) == [("a", (1,)), ("b", (2, 3, 4))]
    assert cut.slowest_s == pytest.approx(1.0)


def test_a_camera_computer_that_is_too_slow_only_sends() -> None:
    cut = best_cut([Computer("robot", speed=0.01, link_bps=1e6), Computer("server", link_bps=1e6)], even(1.0, 1.0))
    assert spans(cut) == [("server", (1, 2))]


def test_equally_fast_cuts_take_the_shorter_way_with_fewer_computers() -> None:
    cut = best_cut([Computer(name) for name in "abcd"], even(2.0, 1.0, 1.0))
    assert len(cut.stages) == 2
    forced = best_cut([Computer(name) for name in "abc"], even(2.0, 1.0, 1.0), all_used=True)
    assert len(forced.stages) == 3


def every_cut(computers: list[Computer], work: Work, *, in_order: bool) -> float:
    """Slowest stage of the best cut, by trying all of them."""
    count, best = len(work.segment_s), math.inf
    for size in range(1, min(len(computers), count) + 1):
        orders = (
            itertools.combinations(range(len(computers)), size)
            if in_order
            else itertools.permutations(range(len(computers)), size)
        )
        for order in orders:
            for cuts in itertools.combinations(range(1, count), size - 1):
                slowest, before = 0.0, 0
                for index, (start, end) in zip(order, itertools.pairwise((0, *cuts, count)), strict=True):
                    busy = sum(work.reach[k] * work.segment_s[k] for k in range(start, end)) / computers[index].speed
                    rate = min(computers[before].link_bps, computers[index].link_bps)
                    moving = 0.0 if before == index else work.reach[start] * 8 * work.input_nbytes[start] / rate
                    slowest, before = max(slowest, busy, moving), index
                best = min(best, slowest)
    return best


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("in_order", [False, True])
def test_no_other_cut_is_faster(seed: int, in_order: bool) -> None:
    rng = random.Random(seed)
    count = rng.randint(1, 6)
    work = Work(
        [rng.uniform(0.1, 3.0) for _ in range(count)],
        [rng.uniform(10.0, 9e4) for _ in range(count)],
        sorted((rng.random() for _ in range(count)), reverse=True),
    )
    size = rng.randint(1, 4)
    computers = [Computer(f"c{n}", rng.uniform(0.2, 3.0), rng.choice([1e4, 1e5, 1e6])) for n in range(size)]
    cut = best_cut(computers, work, in_order=in_order)
    assert cut.slowest_s == pytest.approx(every_cut(computers, work, in_order=in_order))
    assert [k for stage in cut.stages for k in stage.segments] == list(range(1, count + 1))


def test_ten_computers_and_twenty_segments_are_no_matter() -> None:
    rng = random.Random(1)
    computers = [Computer(f"c{n}", rng.uniform(0.5, 2.0), 1e8) for n in range(10)]
    cut = best_cut(computers, even(*(rng.uniform(0.5, 1.0) for _ in range(12)), nbytes=1000.0))
    assert cut.slowest_s < 2.0
    line = [Computer(f"c{n}") for n in range(40)]
    assert best_cut(line, even(*[1.0] * 40), in_order=True, all_used=True).slowest_s == 1.0
    with pytest.raises(ConfigurationError, match="or more in a given order, got 40"):
        best_cut(line, even(*[1.0] * 40))


@pytest.mark.parametrize(
    ("computers", "message"),
    [
        ([], "expected 1 to 12 computers, .*got 0"),
        ([Computer("a"), Computer("a")], "of different names, got a, a"),
        ([Computer("a", speed=0.0)], "computer a: expected a speed and a link rate above 0"),
        ([Computer("a", link_bps=-1.0)], "above 0, got 1.0 and -1.0 bit/s"),
        ([Computer("a", speed=math.nan)], "above 0"),
    ],
)
def test_impossible_computers_are_named(computers: list[Computer], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        best_cut(computers, even(1.0))


def test_more_computers_than_segments_cannot_all_be_used() -> None:
    with pytest.raises(ConfigurationError, match="at most 1 computers for 1 segments, got 2"):
        best_cut([Computer("a"), Computer("b")], even(1.0), all_used=True)
    with pytest.raises(ConfigurationError, match="a time, a size and a share for every segment, got 1, 2 and 1"):
        Work([1.0], [1.0, 2.0], [1.0])
