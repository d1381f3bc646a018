# SPDX-License-Identifier: Apache-2.0
"""How fast frames are admitted, or how sure exits must be, from the backlog of the home worker."""

from __future__ import annotations

import dataclasses
import functools
import math

from mdi_exit_ros.parameter import ParameterInfo, parameter

THRESHOLD_INFO = ParameterInfo("confidence from which a frame leaves at this exit", low=0.0, high=1.0, live=True)


@dataclasses.dataclass(frozen=True)
class AdaptationSettings:
    """Constants of adaptation, all changeable while running. Doubles start at 0 so that rqt's sliders are right."""

    queue_low: int = parameter(8, "T_Q1: below this backlog load rises fast", unit="frames", low=0, high=500, live=True)
    queue_high: int = parameter(32, "T_Q2: from this backlog on load falls", unit="frames", low=0, high=500, live=True)
    output_threshold: int = parameter(
        24, "T_O: output queue length above which new tasks stay here", unit="frames", low=0, high=500, live=True
    )
    alpha: float = parameter(0.4, "step of a fast rise", low=0.0, high=1.0, live=True)
    beta: float = parameter(0.05, "step of a slow rise", low=0.0, high=1.0, live=True)
    zeta: float = parameter(0.15, "step of a fall", low=0.0, high=1.0, live=True)
    period_s: float = parameter(0.1, "s: time between two adaptations", unit="s", low=0.0, high=5.0, live=True)
    interval_max_s: float = parameter(1.0, "largest admission interval mu", unit="s", low=0.0, high=10.0, live=True)
    threshold_floor: float = parameter(0.2, "lowest threshold that adaptation may apply", low=0.0, high=1.0, live=True)
    smoothing: float = parameter(
        0.2, "weight of a new measurement in service times and delays", low=0.0, high=1.0, live=True
    )
    adaptive_allocation: bool = parameter(
        False, "strategy mdi: spread segments anew when workers leave or their rates change", live=True
    )
    allocation_gain: float = parameter(
        0.2, "share by which the slowest worker must get faster for a new allocation", low=0.0, high=1.0, live=True
    )
    allocation_period_s: float = parameter(
        2.0, "s: time between two looks at the allocation", unit="s", low=0.0, high=10.0, live=True
    )


def next_interval(
    interval: float, backlog: float, settings: AdaptationSettings, *, low: float, high: float, share: float = 1.0
) -> float:
    """The interval (s) after one period: shorter while the backlog is small, longer once it is large.

    backlog < T_Q1: factor 1 - alpha; T_Q1 <= backlog < T_Q2: 1 - beta; else 1 + zeta (MDI-Exit, Colocrese et al.
    2024, admission rules). The result stays within low..high.

    Args:
        interval: mu (s), or any positive quantity that load is the inverse of.
        backlog: Q = I + O of the home worker in frames, frames waiting for credit included.
        share: of the step that is taken, 0..1; ours, the framework takes whole steps.
    """
    if backlog < settings.queue_low:
        factor = 1.0 - settings.alpha
    elif backlog < settings.queue_high:
        factor = 1.0 - settings.beta
    else:
        factor = 1.0 + settings.zeta
    return min(max(interval * math.pow(factor, share), low), max(low, high))


Curve = tuple[tuple[float, tuple[float, ...]], ...]


def thresholds_on_curve(position: float, curve: Curve) -> tuple[float, ...]:
    """Thresholds at `position` 0 (cheap) .. 1 (accurate) of a calibrated curve with at least one point.

    Between two points each threshold is interpolated.
    """
    place = min(max(position, 0.0), 1.0) * (len(curve) - 1)
    below = min(int(place), len(curve) - 1)
    above = min(below + 1, len(curve) - 1)
    share = place - below
    pairs = zip(curve[below][1], curve[above][1], strict=True)
    return tuple(a + share * (b - a) for a, b in pairs)


@functools.lru_cache(maxsize=8)
def way_down(wanted: tuple[float, ...], curve: Curve, floor: float) -> Curve:
    """The way from the cheapest thresholds not below `floor` to `wanted`, along the curve where it lies between.

    None is above its `wanted`; a curve without points between gives the straight way. The accuracies are left at 0.
    """
    points = [wanted]
    for _, thresholds in reversed(curve):
        within = tuple(min(top, max(floor, value)) for top, value in zip(wanted, thresholds, strict=True))
        if within != points[-1]:
            points.append(within)
    if len(points) == 1:
        points.append(tuple(min(top, floor) for top in wanted))
    return tuple((0.0, point) for point in reversed(points))


def thresholds_for_accuracy(target: float, curve: Curve) -> tuple[tuple[float, ...], bool]:
    """The cheapest calibrated thresholds that reach `target` (0..1), and whether any does; else the most accurate."""
    for accuracy, thresholds in curve:
        if accuracy >= target:
            return thresholds, True
    return max(curve)[1], False
