# SPDX-License-Identifier: Apache-2.0
"""Whether a task moves, and to whom."""

from __future__ import annotations

import math
import random

import pytest
from literals import Tosses

from mdi_exit_ros.policy.offloading import Candidate, best, moves, send_probability


def test_expected_delay_is_transfer_plus_queue_times_service() -> None:
    assert Candidate("m", 4, 0.5, 0.25).expected_delay_s == 2.25


def test_smallest_expected_delay_is_best() -> None:
    slow_link = Candidate("a", 0, 0.1, 2.0)
    long_queue = Candidate("b", 10, 0.1, 0.0)
    chosen = Candidate("c", 2, 0.1, 0.1)
    assert best([slow_link, long_queue, chosen]) is chosen


def test_first_named_of_equals_is_best() -> None:
    assert best([Candidate("b", 1, 0.5, 0.0), Candidate("a", 0, 9.0, 0.5)]) == Candidate("a", 0, 9.0, 0.5)


def test_nobody_is_best_of_none() -> None:
    assert best([]) is None


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (2.0, 1.0, 1.0),
        (1.0, math.nextafter(1.0, 0.0), 1.0),
        (1.0, 1.0, 1.0),
        (1.0, 2.0, 0.5),
        (1.0, 4.0, 0.25),
        (0.0, 1.0, 0.0),
        (0.0, 0.0, 1.0),
        (5.0, 0.0, 1.0),
    ],
)
def test_probability_is_the_ratio_of_delays_and_one_where_the_other_is_not_slower(
    own: float, other: float, expected: float
) -> None:
    assert send_probability(own, other) == expected


def test_probability_is_just_below_one_when_the_other_is_just_slower() -> None:
    assert 0.999 < send_probability(1.0, math.nextafter(1.0, 2.0)) < 1.0


def test_faster_neighbour_gets_the_task_without_a_toss() -> None:
    assert moves(Candidate("m", 1, 0.5, 0.25), input_length=2, service_time_s=0.5, rng=Tosses())


@pytest.mark.parametrize(("toss", "expected"), [(0.0, True), (0.49, True), (0.5, False), (0.51, False), (0.999, False)])
def test_slower_neighbour_gets_the_task_by_chance(toss: float, expected: bool) -> None:
    candidate = Candidate("m", 2, 0.5, 0.0)  # 1 s against 0.5 s here
    assert moves(candidate, input_length=1, service_time_s=0.5, rng=Tosses(toss)) is expected


def test_share_of_moves_is_the_probability() -> None:
    rng = random.Random(5)
    candidate = Candidate("m", 4, 0.5, 0.0)
    moved = sum(moves(candidate, input_length=1, service_time_s=0.5, rng=rng) for _ in range(4000))
    assert abs(moved / 4000 - 0.25) < 0.02


def test_idle_worker_keeps_its_task_from_a_slower_neighbour() -> None:
    candidate = Candidate("m", 0, 0.5, 0.01)
    assert not moves(candidate, input_length=0, service_time_s=0.5, rng=Tosses(0.0))


def test_neighbour_of_which_nothing_is_known_yet_gets_the_task() -> None:
    assert moves(Candidate("m", 0, 0.0, 0.0), input_length=0, service_time_s=0.0, rng=Tosses())
