# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from mdi_exit_ros.summary import STEADY_MIN, SteadyRate


def steady_fps(total, *, slow=0, refused=0):
    """The rate of a run at 100 closed frames/s whose first `slow` frames take a second each."""
    rate, now = SteadyRate(total), 0.0
    for frame in range(total):
        now += 1.0 if frame < slow else 0.01
        rate.note(answered=frame % 100 >= refused, now=now)
    return rate.fps


def test_slow_beginning_does_not_count():
    assert steady_fps(2000, slow=300) == pytest.approx(100.0)


def test_only_answered_frames_count():
    assert steady_fps(2000, refused=25) == pytest.approx(75.0)


@pytest.mark.parametrize("total", [0, STEADY_MIN - 1])
def test_short_or_endless_run_has_no_middle(total):
    assert steady_fps(total) is None
