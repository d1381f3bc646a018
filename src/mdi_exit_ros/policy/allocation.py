# SPDX-License-Identifier: Apache-2.0
"""Which worker holds which segments of a pipeline, by the rates that are measured, while the cluster runs.

The idea of adapting the allocation to measured rates is AR-MDI's (adaptive and resilient model-distributed inference).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.partition import Computer, Work, best_cut, longest_path
from mdi_exit_ros.policy.admission import AdaptationSettings
from mdi_exit_ros.policy.events import Allocation, WorkerReport

START_PATIENCE_S = 15.0  # for all workers to be heard once, before those that were not count as lost
PREPARE_TIMEOUT_S = 30.0  # for workers to load what they shall hold, before the change is given up


@dataclasses.dataclass(frozen=True)
class AllocationSetup:
    """What segments may be spread over.

    Attributes:
        home: worker that frames enter.
        successors: workers that each worker may send tasks to.
        segment_costs: K costs in any unit.
    """

    home: str = ""
    successors: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    segment_costs: tuple[float, ...] = ()


def successors_of(edges: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Workers that each worker may send tasks to, from edges written `FROM>TO`.

    Raises:
        ConfigurationError: something else among them.
    """
    found: dict[str, tuple[str, ...]] = {}
    for edge in edges:
        one, arrow, other = edge.partition(">")
        if not (one and arrow and other):
            raise ConfigurationError(f"edges: expected FROM>TO with the names of two workers, got {edge!r}")
        found[one] = (*found.get(one, ()), other)
    return found


def speeds(reports: Mapping[str, WorkerReport], segment_costs: Sequence[float]) -> dict[str, float]:
    """Cost per second that each worker gets through, from the service times that it reports.

    A worker without a measurement is taken for an average one.
    """
    found: dict[str, float] = {}
    for name, report in reports.items():
        pairs = zip(report.segments, report.segment_service_time_s, strict=True)
        measured = [(segment_costs[segment - 1], seconds) for segment, seconds in pairs if seconds > 0.0]
        if measured:
            found[name] = sum(cost for cost, _ in measured) / sum(seconds for _, seconds in measured)
    average = sum(found.values()) / len(found) if found else 1.0
    return {name: found.get(name, average) for name in reports}


def slowest_s(held: Mapping[str, Sequence[int]], speed: Mapping[str, float], segment_costs: Sequence[float]) -> float:
    """Time per frame (s) of the worker that has most to do, holders of a segment sharing it equally.

    Infinite where nobody holds a segment.
    """
    holders = [sum(segment in segments for segments in held.values()) for segment in range(1, len(segment_costs) + 1)]
    if not all(holders):
        return math.inf
    return max(
        sum(segment_costs[segment - 1] / holders[segment - 1] for segment in segments) / speed[name]
        for name, segments in held.items()
    )


def best_allocation(setup: AllocationSetup, speed: Mapping[str, float]) -> Allocation:
    """Contiguous segments along a path of workers from home, the slowest worker as fast as possible.

    Of the longest path as many workers are used as do not make it slower; the others keep what they hold and are not
    named.

    Args:
        setup: home, edges and costs.
        speed: of the workers that are alive; home is one of them.
    """
    alive = {
        name: tuple(other for other in setup.successors.get(name, ()) if other in speed)
        for name in (setup.home, *speed)
    }
    path = longest_path([setup.home], alive, len(setup.segment_costs))
    size = len(setup.segment_costs)
    work = Work(setup.segment_costs, [0.0] * size, [1.0] * size)
    cuts = [
        best_cut([Computer(name, speed[name]) for name in path[:length]], work, in_order=True, all_used=True)
        for length in range(1, len(path) + 1)
    ]
    best = min(cuts, key=lambda cut: (round(cut.slowest_s, 9), -len(cut.stages)))
    return tuple((stage.computer, stage.segments) for stage in best.stages)


class Allocator:
    """Changes the allocation in two phases: workers load what they shall hold beside what they do, then drop the rest.

    So every segment is held at every time, and no frame is lost to a change.

    Attributes:
        target: what each worker shall hold; empty as long as nothing was changed.
        final: whether workers may drop what they shall not hold.
    """

    def __init__(self, setup: AllocationSetup) -> None:
        self._setup = setup
        self.target: Allocation = ()
        self.final = True
        self._changed_at = float("-inf")
        self._began_at: float | None = None
        self._unheard = {setup.home, *setup.successors}
        self._before: Allocation = ()

    def weigh(self, segment_costs: tuple[float, ...]) -> None:
        """Reckons with these costs from now on."""
        self._setup = dataclasses.replace(self._setup, segment_costs=segment_costs)

    def step(self, reports: Mapping[str, WorkerReport], settings: AdaptationSettings, now: float) -> None:
        """Looks at the reports of the workers that are alive and run this model; `now` is in seconds."""
        setup = self._setup
        self._began_at = now if self._began_at is None else self._began_at
        self._unheard -= reports.keys()
        if self._unheard and now < self._began_at + START_PATIENCE_S:
            return
        if not settings.adaptive_allocation or setup.home not in reports:
            return
        lost = any(name not in reports for name, _ in self.target)
        if not self.final and not lost:
            if all(set(segments).issubset(reports[name].segments) for name, segments in self.target):
                self.final = True
            elif now > self._changed_at + PREPARE_TIMEOUT_S:
                self.target, self.final = self._before, True
            return
        if now < self._changed_at + settings.allocation_period_s and not lost:
            return
        speed = speeds(reports, setup.segment_costs)
        held = {name: report.segments for name, report in reports.items()}
        wanted = best_allocation(setup, speed)
        reached_s = slowest_s({**held, **dict(wanted)}, speed, setup.segment_costs)
        if slowest_s(held, speed, setup.segment_costs) > (1.0 + settings.allocation_gain) * reached_s:
            self._before, self.target, self.final = self.target if not lost else (), wanted, False
        elif lost:
            self.target, self.final = (), True
        self._changed_at = now
