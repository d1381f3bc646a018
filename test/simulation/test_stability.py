# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest

from mdi_exit_ros.policy.controller import ClusterSummary
from mdi_exit_ros.policy.events import AppliedPolicy
from mdi_exit_ros.simulation.stability import adapted, after_step, worst_after
from mdi_exit_ros.task import Mode, PeerId


def points(*values: float, begin_s: float = 0.0) -> list[tuple[float, float]]:
    """One value a second."""
    return [(begin_s + second, value) for second, value in enumerate(values)]


def seen(mode: Mode, *, thresholds: tuple[float, ...] = (0.9, 0.5), rate_hz: float = 80.0) -> ClusterSummary:
    policy = AppliedPolicy(PeerId("controller", 1), 0, 1, mode, thresholds, 0.0, (), 32, 0.2)
    fields = dict.fromkeys(ClusterSummary._fields, 0) | {"policy": policy, "admission_rate_hz": rate_hz}
    return ClusterSummary(**fields)  # type: ignore[arg-type]


def test_a_value_that_climbs_and_stays_settles_when_it_enters_the_band() -> None:
    found = after_step(points(10, 10, 40, 80, 95, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 100), at_s=1.0)
    assert found is not None
    assert found.reach_s == found.settling_s == 3.0
    assert found.overshoot == found.swing == found.reversals_hz == 0.0


def test_a_value_that_climbs_too_far_overshoots_by_its_share_of_the_level() -> None:
    found = after_step(points(10, 100, 150, 120, *[100] * 12), at_s=0.0)
    assert found is not None
    assert (found.reach_s, found.settling_s, found.overshoot) == (1.0, 4.0, 0.5)


def test_a_value_that_falls_too_far_overshoots_too() -> None:
    found = after_step(points(200, 120, 70, *[100] * 12), at_s=0.0)
    assert found is not None
    assert found.overshoot == pytest.approx(0.3)


def test_a_value_that_leaves_the_band_at_rest_never_settles() -> None:
    found = after_step(points(100, *[80, 120] * 10), at_s=0.0)
    assert found is not None
    assert found.reach_s == found.settling_s == math.inf
    assert found.swing == pytest.approx(0.2, abs=0.01)


def test_every_turn_at_rest_is_counted() -> None:
    found = after_step(points(100, *[95, 105] * 15), at_s=0.0)
    assert found is not None
    assert found.settling_s == 1.0
    assert found.reversals_hz == 0.9  # the last third: eleven values, nine turns, ten seconds


def test_a_tremble_below_one_percent_of_the_level_is_no_turn() -> None:
    found = after_step(points(100, *[99.8, 100.2] * 15), at_s=0.0)
    assert found is not None
    assert found.reversals_hz == 0.0


def test_what_happens_after_the_next_step_does_not_count() -> None:
    steps = points(*[100] * 16, *[300] * 5)
    found = after_step(steps, at_s=0.0, until_s=15.0)
    assert found is not None
    assert found.settling_s == 1.0


def test_the_worst_after_any_step_is_told() -> None:
    calm, late = [100.0] * 16, [*[200.0] * 4, *[300.0] * 12]
    found = worst_after(points(*calm, *late), [0.0, 15.0])
    assert found is not None
    assert found.settling_s == 5.0


def test_too_little_at_rest_says_nothing() -> None:
    assert after_step(points(100, 100, 100, 100, 100), at_s=0.0) is None
    assert after_step([], at_s=0.0) is None
    assert worst_after(points(100, 100), [0.0]) is None


def test_mode_decides_what_is_looked_at() -> None:
    assert adapted([(1.0, seen(Mode.THRESHOLD))]) == [(1.0, pytest.approx(0.7))]
    assert adapted([(1.0, seen(Mode.RATE))]) == [(1.0, 80.0)]
    assert adapted([(1.0, seen(Mode.MANUAL))]) == []
