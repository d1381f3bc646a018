# SPDX-License-Identifier: Apache-2.0
"""How the admission interval and the thresholds follow the backlog."""

from __future__ import annotations

import dataclasses

import pytest

from mdi_exit_ros import parameter
from mdi_exit_ros.policy.admission import (
    AdaptationSettings,
    Curve,
    next_interval,
    thresholds_for_accuracy,
    thresholds_on_curve,
    way_down,
)

SETTINGS = AdaptationSettings(queue_low=8, queue_high=24, alpha=0.5, beta=0.25, zeta=1.0)
CURVE = ((0.6, (0.2, 0.0)), (0.8, (0.6, 0.5)), (0.9, (1.0, 1.0)))


@pytest.mark.parametrize(
    ("backlog", "expected"), [(0, 0.05), (7, 0.05), (8, 0.075), (23, 0.075), (24, 0.2), (1000, 0.2)]
)
def test_interval_shrinks_fast_then_slowly_then_grows_with_the_backlog(backlog: int, expected: float) -> None:
    assert next_interval(0.1, backlog, SETTINGS, low=0.0, high=1.0) == pytest.approx(expected)


@pytest.mark.parametrize(("backlog", "whole"), [(0, 0.5), (8, 0.75), (24, 2.0)])
def test_steps_of_half_the_share_are_one_whole_step_together(backlog: int, whole: float) -> None:
    half = next_interval(0.1, backlog, SETTINGS, low=0.0, high=1.0, share=0.5)
    assert half == pytest.approx(0.1 * whole**0.5)


def test_interval_stops_at_its_floor() -> None:
    assert next_interval(0.1, 0, SETTINGS, low=0.08, high=1.0) == 0.08


def test_interval_stops_at_its_maximum() -> None:
    assert next_interval(0.9, 24, SETTINGS, low=0.0, high=1.0) == 1.0


def test_interval_outside_its_range_is_brought_back() -> None:
    assert next_interval(50.0, 0, SETTINGS, low=0.0, high=1.0) == 1.0
    assert next_interval(1e-9, 24, SETTINGS, low=0.01, high=1.0) == 0.01


def test_floor_counts_when_it_is_above_the_maximum() -> None:
    """Frames that are really offered more slowly than the maximum."""
    assert next_interval(1.0, 24, SETTINGS, low=3.0, high=1.0) == 3.0


def test_equal_thresholds_of_the_backlog_leave_no_slow_step() -> None:
    settings = dataclasses.replace(SETTINGS, queue_low=8, queue_high=8)
    assert next_interval(0.1, 7, settings, low=0.0, high=1.0) == pytest.approx(0.05)
    assert next_interval(0.1, 8, settings, low=0.0, high=1.0) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (0.0, (0.2, 0.0)),
        (0.25, (0.4, 0.25)),
        (0.5, (0.6, 0.5)),
        (0.75, (0.8, 0.75)),
        (1.0, (1.0, 1.0)),
        (-1.0, (0.2, 0.0)),
        (2.0, (1.0, 1.0)),
    ],
)
def test_thresholds_move_along_the_curve(position: float, expected: tuple[float, ...]) -> None:
    assert thresholds_on_curve(position, CURVE) == pytest.approx(expected)


def test_curve_of_one_point_is_that_point() -> None:
    assert thresholds_on_curve(0.3, CURVE[:1]) == CURVE[0][1]


def test_way_down_follows_the_curve_from_the_floor_to_what_is_wanted() -> None:
    way = way_down((0.7, 0.9), CURVE, 0.3)
    assert [thresholds for _, thresholds in way] == [(0.3, 0.3), (0.6, 0.5), (0.7, 0.9)]


def test_way_down_has_no_stretch_on_which_nothing_moves() -> None:
    """Points of the curve above what is wanted, or below the floor, are all the same point."""
    curve = ((0.1, (0.1, 0.1)), (0.2, (0.2, 0.2)), (0.5, (0.4, 0.4)), (0.8, (0.8, 0.8)), (0.9, (0.9, 0.9)))
    assert [thresholds for _, thresholds in way_down((0.5, 0.5), curve, 0.3)] == [(0.3, 0.3), (0.4, 0.4), (0.5, 0.5)]


@pytest.mark.parametrize("curve", [(), ((0.9, (1.0, 1.0)),)])
def test_way_down_is_straight_where_the_curve_says_nothing(curve: Curve) -> None:
    assert way_down((0.7, 0.1), curve, 0.3) == ((0.0, (0.3, 0.1)), (0.0, (0.7, 0.1)))


@pytest.mark.parametrize(("target", "point"), [(0.0, 0), (0.6, 0), (0.61, 1), (0.8, 1), (0.9, 2)])
def test_target_accuracy_gives_the_cheapest_thresholds_that_reach_it(target: float, point: int) -> None:
    assert thresholds_for_accuracy(target, CURVE) == (CURVE[point][1], True)


def test_target_out_of_reach_gives_the_most_accurate_thresholds() -> None:
    assert thresholds_for_accuracy(0.95, CURVE) == (CURVE[2][1], False)
    assert thresholds_for_accuracy(0.95, tuple(reversed(CURVE))) == (CURVE[2][1], False)


def test_every_constant_has_bounds_that_hold_its_default() -> None:
    parameter.check(AdaptationSettings())
    for _, default, info in parameter.parameters_of(AdaptationSettings):
        if not isinstance(default, bool):
            assert info.low == 0
            assert info.high is not None
        assert info.live
