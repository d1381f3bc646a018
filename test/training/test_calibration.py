# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from mdi_exit_ros.training.calibration import (
    cheapest_within,
    exit_costs,
    exits_taken,
    expected_calibration_error,
    fit_temperature,
    outcome,
    softmax,
    threshold_curve,
    wilson_interval,
)


def test_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(1)
    honest = rng.normal(size=(20_000, 10)) * 2.0
    labels = np.array([rng.choice(10, p=p) for p in softmax(honest)])
    assert fit_temperature(honest * 3.0, labels) == pytest.approx(3.0, rel=0.05)
    calibrated = softmax(honest)
    assert expected_calibration_error(calibrated.max(axis=1), calibrated.argmax(axis=1) == labels) < 0.02


def test_cost_counts_every_exit_that_was_tried() -> None:
    costs = exit_costs([10, 20, 70], [2, 3, 5])
    np.testing.assert_allclose(costs, np.array([12, 35, 110]) / 105)


def test_first_sure_exit_is_taken_and_the_last_always_answers() -> None:
    confidence = np.array([[0.9, 0.8, 0.1], [1.0, 0.7, 0.2], [0.3, 0.3, 0.3]])
    assert exits_taken(confidence, (0.9, 0.7)).tolist() == [0, 1, 2]


def test_curve_goes_from_cheap_to_accurate() -> None:
    rng = np.random.default_rng(2)
    easy = rng.random(3000)
    correct = np.stack([rng.random(3000) < np.clip(easy + gain, 0, 1) for gain in (0.1, 0.3, 0.45)])
    confidence = np.stack([np.clip(easy + gain, 0, 0.999) for gain in (0.1, 0.3, 0.45)])
    costs = exit_costs([10, 20, 70], [1, 1, 1])
    curve = threshold_curve(confidence, correct, costs)
    assert curve[0].exit_shares == (1.0, 0.0, 0.0)
    assert len(curve) > 5
    for cheaper, dearer in pairwise(curve):
        assert dearer.accuracy > cheaper.accuracy
        assert dearer.mac_fraction >= cheaper.mac_fraction
        assert all(low <= high for low, high in zip(cheaper.thresholds, dearer.thresholds, strict=True))
    wanted = float(correct[-1].mean()) - 0.02
    chosen = cheapest_within(curve, wanted)
    assert chosen.accuracy >= wanted
    assert chosen.mac_fraction < 1.0
    assert cheapest_within(curve, 2.0) == curve[-1]
    assert outcome(confidence, correct, costs, chosen.thresholds) == chosen


def test_curve_of_one_exit_is_that_exit() -> None:
    curve = threshold_curve(np.full((1, 8), 0.5), np.arange(8)[None] < 6, np.ones(1))
    assert [(point.thresholds, point.accuracy, point.exit_shares) for point in curve] == [((), 0.75, (1.0,))]


def test_wilson_interval_is_the_published_one() -> None:
    low, high = wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
