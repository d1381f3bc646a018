# SPDX-License-Identifier: Apache-2.0
"""Which of the computers at hand are needed for a frame rate, and what limits them: an estimate, not a simulation.

The model. An average frame is at segment k with a chance that the exits' thresholds decide (`Demand.reach`), and takes
the measured times of the segments there, plus the node's own work per message, task, batch and frame (`NodeCosts`),
where messages and batches hold `Demand.batch` frames. A worker runs one batch on each core, and what its Python does
for it comes in between, for one at a time. Statuses, and messages that go out before they are full, are counted
whatever the rate; a set that does fewer frames than these messages counts one message per frame instead, if that is
less. Of every core and every link, in each direction, at most `margin` is used.

`shared`: frames come in at a home worker, the robot's own or, where the robot is too slow, that of another computer.
It holds the whole network, every other computer the segments from a place k on, the same for all. Frames move at most
once, before segment k, to workers that answer the camera themselves; for k = 1 they move whole and everybody holds
everything. A home worker keeps at least a quarter of what it could run itself. Home and place are those with which the
set does most. All costs being linear in the rate, the best flows follow directly: the others get as much as they and
the links can take, and at most all there is.

`spans`: every computer holds one span of the segments, for computers that cannot hold more, and every frame visits
them until it leaves. All orders and cuts are looked at, by dynamic programming over the set of computers used.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from mdi_exit_ros.planner.arrangement import Arrangement
from mdi_exit_ros.planner.costs import FLUSH_HZ
from mdi_exit_ros.planner.demand import Candidate, Demand, check
from mdi_exit_ros.planner.pipeline import pipelines
from mdi_exit_ros.planner.sharing import shared

LONE_HZ_MAX = 2.0 * FLUSH_HZ  # above it full messages and those sent before are fewer than the frames


@dataclass(frozen=True)
class Answer:
    """What the planner found.

    Attributes:
        chosen: the cheapest set that does it; None where none does.
        fewer: what is left of that does most with one computer less; None where there is only the robot.
        quickest: of the sets looked at that do the rate, the one with the shortest latency; None where none does.
        best: of the sets looked at the one that does most; these are all where none is chosen.
    """

    chosen: Arrangement | None
    fewer: Arrangement | None
    quickest: Arrangement | None
    best: Arrangement


def cheapest(
    candidates: Sequence[Candidate],
    demand: Demand,
    rate_hz: float,
    *,
    margin: float = 0.8,
    latency_s: float = math.inf,
    spans: bool = False,
) -> Answer:
    """The cheapest set of computers that does `rate_hz`; of equals the smallest, and then the one that does most.

    Args:
        candidates: the first is the robot, which has the camera and is in every set.
        demand: what a frame asks for.
        rate_hz: frames/s of the camera.
        margin: share of every core and link that may be used, above 0 and at most 1.
        latency_s: largest estimated mean latency (s).
        spans: every computer holds one span of the segments only.

    Raises:
        ConfigurationError: no computer, too many, names given twice, or a number out of its range.
    """
    check(candidates)
    lone = replace(demand, lone=True)

    @cache
    def pipes(demand: Demand) -> dict[Numbers, Arrangement]:
        return pipelines(candidates, demand, margin)

    def use(chosen: Numbers, demand: Demand) -> Arrangement | None:
        if spans:
            return pipes(demand).get(chosen)
        return shared([candidates[number] for number in chosen], demand, margin)

    def arrangement(chosen: Numbers) -> Arrangement | None:
        """The best use of a set; None where it makes no pipeline."""
        full = use(chosen, demand)
        if full is None or full.rate_hz > LONE_HZ_MAX:
            return full
        return max(full, use(chosen, lone) or full, key=lambda each: each.rate_hz)

    best = quickest = found = None
    for chosen in _sets(candidates):
        if found is not None and _order(chosen, candidates) > _order(found[0], candidates):
            break
        here = arrangement(chosen)
        if here is None:
            continue
        if best is None or here.rate_hz > best.rate_hz:
            best = here
        if here.rate_hz < rate_hz:
            continue
        if quickest is None or here.latency_s(rate_hz) < quickest.latency_s(rate_hz):
            quickest = here
        if here.latency_s(rate_hz) <= latency_s and (found is None or here.rate_hz > found[1].rate_hz):
            found = chosen, here
    assert best is not None  # the robot alone always makes a set
    if found is None:
        return Answer(None, None, quickest, best)
    smaller = [tuple(number for number in found[0] if number != gone) for gone in found[0][1:]]
    fewer = [left for each in smaller if (left := arrangement(each)) is not None]
    return Answer(found[1], max(fewer, key=lambda left: left.rate_hz, default=None), quickest, best)


Numbers = tuple[int, ...]


def _sets(candidates: Sequence[Candidate]) -> list[Numbers]:
    """Every set with the robot, by their numbers, cheapest first; of sets of equal computers one."""
    found: dict[tuple[Candidate, ...], Numbers] = {}
    for size in range(len(candidates)):
        for others in itertools.combinations(range(1, len(candidates)), size):
            alike = tuple(sorted((replace(candidates[number], name="") for number in others), key=repr))
            found.setdefault(alike, (0, *others))
    return sorted(found.values(), key=lambda chosen: _order(chosen, candidates))


def _order(chosen: Numbers, candidates: Sequence[Candidate]) -> tuple[float, int]:
    """What makes a set come before another: its cost, and of equals how small it is."""
    return round(sum(candidates[number].cost for number in chosen), 9), len(chosen)
