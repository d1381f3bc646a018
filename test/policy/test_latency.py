# SPDX-License-Identifier: Apache-2.0
"""Percentiles in constant memory."""

from __future__ import annotations

import random

import pytest

from mdi_exit_ros.policy.latency import LatencyHistogram


def histogram(*durations_s: float) -> LatencyHistogram:
    result = LatencyHistogram()
    for duration_s in durations_s:
        result.add(duration_s)
    return result


def test_percentile_of_nothing_is_zero() -> None:
    assert histogram().percentile(0.5) == 0.0


@pytest.mark.parametrize("duration_s", [2e-6, 1e-3, 0.0423, 1.0, 77.7, 9000.0])
def test_percentile_is_right_within_one_percent(duration_s: float) -> None:
    assert histogram(duration_s).percentile(0.5) == pytest.approx(duration_s, rel=0.0101)


def test_percentiles_of_many_durations_are_right_within_one_percent() -> None:
    rng = random.Random(1)
    durations = sorted(rng.lognormvariate(-3.0, 1.0) for _ in range(2000))
    result = histogram(*durations)
    for share in (0.5, 0.95, 0.99):
        assert result.percentile(share) == pytest.approx(durations[int(share * 2000) - 1], rel=0.0101)


def test_percentile_is_the_duration_that_the_share_stays_within() -> None:
    result = histogram(1.0, 1.0, 1.0, 10.0)
    assert result.percentile(0.75) == pytest.approx(1.0, rel=0.0101)
    assert result.percentile(0.76) == pytest.approx(10.0, rel=0.0101)
    assert result.percentile(1.0) == pytest.approx(10.0, rel=0.0101)
    assert result.percentile(0.0) == pytest.approx(1.0, rel=0.0101)


def test_durations_outside_the_range_fall_into_its_ends() -> None:
    result = histogram(0.0, -1.0, 1e9)
    assert result.percentile(0.5) == pytest.approx(1e-6, rel=0.0101)
    assert result.percentile(1.0) == pytest.approx(1e4, rel=0.03)


def test_memory_does_not_grow_with_durations() -> None:
    result = histogram()
    before = len(result._bins)
    for index in range(10_000):
        result.add(index * 1e-3)
    assert len(result._bins) == before
