# SPDX-License-Identifier: Apache-2.0
"""How adaptation behaves after a step in load: how soon it settles, how far it overshoots, how much it swings at rest.

What is looked at is what adapts: the admission rate (frames/s, all sources) in mode rate, the mean of the exit
thresholds in mode threshold, both as the controller saw them five times a second. At rest means the last third of the
time between a step and the next one (or the end); its mean is the level, and the band is the level +- 10 %.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from mdi_exit_ros.policy.controller import ClusterSummary
from mdi_exit_ros.task import Mode

BAND = 0.10  # of the level, either way
REST = 1.0 / 3.0  # of the time after a step
NOTICED = 0.01  # of the level: smaller changes are no change of direction
SAMPLES_MIN = 5  # at rest, below which nothing is said

Points = Sequence[tuple[float, float]]


class Stability(NamedTuple):
    """What follows a step in load.

    Attributes:
        reach_s: from the step until the band is first entered.
        settling_s: from the step until the band is not left any more; infinite when it is left at rest.
        overshoot: how far it went beyond the level before the rest, relative to the level.
        swing: half the distance between highest and lowest at rest, relative to the level.
        reversals_hz: changes of direction per second at rest, changes of less than 1 % of the level left out.
    """

    reach_s: float
    settling_s: float
    overshoot: float
    swing: float
    reversals_hz: float


def adapted(timeline: Sequence[tuple[float, ClusterSummary]]) -> list[tuple[float, float]]:
    """Time (s) and value of what adapts; empty where nothing does, as in mode manual."""
    found = []
    for time, cluster in timeline:
        match cluster.policy.mode:
            case Mode.RATE:
                value = cluster.admission_rate_hz
            case Mode.THRESHOLD:
                thresholds = cluster.policy.exit_thresholds
                value = sum(thresholds) / len(thresholds) if thresholds else 0.0
            case _:
                continue
        found.append((time, value))
    return found


def after_step(points: Points, at_s: float, until_s: float = math.inf) -> Stability | None:
    """What follows the step at `at_s`, up to `until_s`; None where there is too little to tell.

    Args:
        points: time (s, rising) and value (at least 0).
    """
    window = [(time, value) for time, value in points if at_s < time <= until_s]
    if not window:
        return None
    end = window[-1][0]
    rest_from = end - (end - at_s) * REST
    rest = [(time, value) for time, value in window if time >= rest_from]
    level = sum(value for _, value in rest) / len(rest)
    if len(rest) < SAMPLES_MIN or level <= 0.0:
        return None
    inside = [time for time, value in window if abs(value - level) <= BAND * level]
    outside = [time for time, value in window if abs(value - level) > BAND * level]
    settled = [time for time in inside if not outside or time > outside[-1]]
    before = [value for time, value in points if time <= at_s]
    rises = level >= (before[-1] if before else 0.0)
    beyond = [value - level if rises else level - value for time, value in window if time < rest_from]
    values = [value for _, value in rest]
    return Stability(
        reach_s=inside[0] - at_s if inside else math.inf,
        settling_s=settled[0] - at_s if settled and (not outside or outside[-1] < rest_from) else math.inf,
        overshoot=round(max([0.0, *beyond]) / level, 9),
        swing=(max(values) - min(values)) / 2.0 / level,
        reversals_hz=_reversals(values, NOTICED * level) / (end - rest[0][0]),
    )


def worst_after(points: Points, steps_s: Sequence[float]) -> Stability | None:
    """The worst of each figure after any of the steps at `steps_s` (s, rising); None where nothing can be told."""
    ends = [*steps_s[1:], math.inf]
    found = [after_step(points, at_s, until_s) for at_s, until_s in zip(steps_s, ends, strict=True)]
    told = [each for each in found if each is not None]
    return Stability(*map(max, zip(*told, strict=True))) if told else None


def _reversals(values: Sequence[float], noticed: float) -> int:
    """How often values turn, changes of up to `noticed` left out."""
    turning = values[0]
    directions: list[bool] = []
    for value in values[1:]:
        if abs(value - turning) > noticed:
            directions.append(value > turning)
            turning = value
        elif directions and (value > turning) == directions[-1]:
            turning = value
    return sum(one != other for one, other in itertools.pairwise(directions))
