# SPDX-License-Identifier: Apache-2.0
"""Whether a task moves, and to whom."""

from __future__ import annotations

import math
import random

import pytest
from literals import Tosses

from mdi_exit_ros.policy.offloading import expected_delay_s, moves, send_probability


def test_expected_delay_is_transfer_plus_queue_times_service() -> None:
    assert expected_delay_s(0.25, 4, 0.5) == 2.25


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
    assert moves(1.0, 0.75, Tosses())


@pytest.mark.parametrize(("toss", "expected"), [(0.0, True), (0.49, True), (0.5, False), (0.51, False), (0.999, False)])
def test_slower_neighbour_gets_the_task_by_chance(toss: float, expected: bool) -> None:
    assert moves(0.5, 1.0, Tosses(toss)) is expected


def test_share_of_moves_is_the_probability() -> None:
    rng = random.Random(5)
    moved = sum(moves(0.5, 2.0, rng) for _ in range(4000))
    assert abs(moved / 4000 - 0.25) < 0.02


def test_idle_worker_keeps_its_task_from_a_slower_neighbour() -> None:
    assert not moves(0.0, 0.01, Tosses(0.0))


def test_neighbour_of_which_nothing_is_known_yet_gets_the_task() -> None:
    assert moves(0.0, 0.0, Tosses())
