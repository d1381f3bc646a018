# SPDX-License-Identifier: Apache-2.0
"""Which frames leave at an exit."""

from __future__ import annotations

import math

import pytest

from mdi_exit_ros.policy.early_exit import leaves_here

THRESHOLDS = (0.9, 0.8, 0.7, 0.6)


@pytest.mark.parametrize("segment", [1, 2, 3, 4])
def test_frame_leaves_when_confidence_equals_the_threshold(segment: int) -> None:
    assert leaves_here(segment, 5, THRESHOLDS[segment - 1], THRESHOLDS)


@pytest.mark.parametrize("segment", [1, 2, 3, 4])
def test_frame_stays_when_confidence_is_just_below_the_threshold(segment: int) -> None:
    assert not leaves_here(segment, 5, math.nextafter(THRESHOLDS[segment - 1], 0.0), THRESHOLDS)


@pytest.mark.parametrize("confidence", [0.0, 1.0, math.nan])
def test_last_exit_answers_whatever_the_confidence(confidence: float) -> None:
    assert leaves_here(5, 5, confidence, THRESHOLDS)


def test_only_the_last_exit_answers_without_thresholds() -> None:
    assert not any(leaves_here(segment, 5, 1.0, ()) for segment in (1, 2, 3, 4))
    assert leaves_here(5, 5, 0.0, ())


def test_threshold_zero_lets_every_frame_leave() -> None:
    assert leaves_here(1, 5, 0.0, (0.0, 1.0, 1.0, 1.0))


def test_confidence_that_is_not_a_number_does_not_leave_early() -> None:
    assert not leaves_here(1, 5, math.nan, THRESHOLDS)


def test_network_of_one_segment_always_answers() -> None:
    assert leaves_here(1, 1, 0.0, ())
