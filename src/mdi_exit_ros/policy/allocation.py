# SPDX-License-Identifier: Apache-2.0
"""Which worker holds which segments of a pipeline, by the rates that are measured, while the cluster runs.

The idea of adapting the allocation to measured rates is AR-MDI's (adaptive and resilient model-distributed inference).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from mdi_exit_ros.partition import EQUAL
from mdi_exit_ros.policy.admission import AdaptationSettings
from mdi_exit_ros.policy.bottleneck import AllocationSetup, Measured, Rates, slowest_s
from mdi_exit_ros.policy.events import Allocation, WorkerReport

START_PATIENCE_S = 15.0  # for all workers to be heard once, before those that were not count as lost
PREPARE_TIMEOUT_S = 30.0  # for workers to load what they shall hold, before the change is given up


def best_allocation(setup: AllocationSetup, rates: Rates, limit_s: float = math.inf) -> Allocation:
    """Contiguous segments along a path of workers from home, its slowest worker or link as fast as possible.

    Among equals the one with the shortest latency. The other workers are not named. Exact: all paths are looked at, but
    for those that cannot become better than the best one so far.

    Args:
        setup: home, edges, costs and sizes.
        rates: of the workers that are alive; home is one of them.
        limit_s: time of the slowest from which on a path is of no interest; empty where there is no better one.
    """
    return _Search(setup, rates, limit_s).best


class _Search:
    """Depth first, the fastest successor and the longest stage first."""

    def __init__(self, setup: AllocationSetup, rates: Rates, limit_s: float) -> None:
        self.best: Allocation = ()
        self._setup = setup
        self._rates = rates
        self._slowest_s, self._latency_s = limit_s, math.inf
        self._size = len(setup.segment_costs)
        self._left_s = [sum(setup.segment_costs[done:]) / max(rates.speed.values()) for done in range(self._size + 1)]
        self._extend(setup.home, 0.0, 0.0, 0.0, ())

    def _extend(self, name: str, crossing_s: float, slowest_s: float, latency_s: float, path: Allocation) -> None:
        """Looks at all paths that go on from `path` to the worker `name`, over a link that takes `crossing_s`."""
        done = path[-1][1][-1] if path else 0
        for end in range(self._size, done, -1):
            compute_s = sum(self._setup.segment_costs[done:end]) / self._rates.speed[name]
            slowest, latency = max(slowest_s, compute_s, crossing_s), latency_s + compute_s + crossing_s
            if not self._is_better(slowest, latency + self._left_s[end]):
                continue
            longer = (*path, (name, tuple(range(done + 1, end + 1))))
            if end == self._size:
                self.best, self._slowest_s, self._latency_s = longer, slowest, latency
                continue
            visited = {worker for worker, _ in longer}
            near = [other for other in self._setup.successors.get(name, ()) if other not in visited]
            for other in sorted((each for each in near if each in self._rates.speed), key=self._slowness):
                following_s = self._setup.input_size(end + 1) * self._rates.crossing_s(name, other)
                self._extend(other, following_s, slowest, latency, longer)

    def _slowness(self, name: str) -> float:
        return -self._rates.speed[name]

    def _is_better(self, slowest_s: float, latency_s: float) -> bool:
        if slowest_s * EQUAL < self._slowest_s:
            return True
        return bool(self.best) and slowest_s <= self._slowest_s * EQUAL and latency_s * EQUAL < self._latency_s


def without_slow_links(
    setup: AllocationSetup, path: Allocation, held: Mapping[str, Sequence[int]], rates: Rates
) -> Allocation:
    """The path, and that workers beside it hold nothing where their links would be slower than all of it.

    Those that are not named keep what they hold, and get a part of the tasks.
    """
    on_path = dict(path)
    links = dataclasses.replace(rates, speed=dict.fromkeys(rates.speed, math.inf))
    limit_s = slowest_s(setup, on_path, rates)
    beside = (name for name in held if name not in on_path)
    return (
        *path,
        *((name, ()) for name in beside if slowest_s(setup, {**on_path, name: held[name]}, links) > limit_s * EQUAL),
    )


class Allocator:
    """Changes the allocation in two phases: workers load what they shall hold beside what they do, then drop the rest.

    So every segment is held at every time, and no frame is lost to a change.

    Attributes:
        target: what each worker shall hold; empty as long as nothing was changed.
        final: whether workers may drop what they shall not hold.
    """

    def __init__(self, setup: AllocationSetup) -> None:
        self._setup = setup
        self._measured = Measured(setup)
        self.target: Allocation = ()
        self.final = True
        self._changed_at = float("-inf")
        self._began_at: float | None = None
        self._unheard = {setup.home, *setup.successors}
        self._before: Allocation = ()

    def weigh(self, segment_costs: tuple[float, ...], input_nbytes: tuple[int, ...]) -> None:
        """Reckons with the costs of another model, in the same units, from now on."""
        self._setup = dataclasses.replace(self._setup, segment_costs=segment_costs, input_nbytes=input_nbytes)
        self._measured.carry_over(self._setup)

    def step(self, reports: Mapping[str, WorkerReport], settings: AdaptationSettings, now: float) -> None:
        """Looks at the reports of the workers that are alive and run this model; `now` is in seconds."""
        setup = self._setup
        self._began_at = now if self._began_at is None else self._began_at
        self._unheard -= reports.keys()
        if self._unheard and now < self._began_at + START_PATIENCE_S:
            return
        lost = any(segments and name not in reports for name, segments in self.target)
        if not settings.adaptive_allocation or setup.home not in reports:
            if not self.final:  # a change that is begun is not left hanging
                self.target, self.final = () if lost else self._before, True
            return
        if not self.final and not lost:
            if all(set(segments) <= set(reports[name].segments) for name, segments in self.target if segments):
                self.final = True
                # What it brings is measured for half a period at least, however long loading took.
                self._changed_at = max(self._changed_at, now - 0.5 * settings.allocation_period_s)
            elif now > self._changed_at + PREPARE_TIMEOUT_S:
                self.target, self.final = self._before, True
            return
        if now < self._changed_at + settings.allocation_period_s and not lost:
            return
        self._measured.hear(reports, now)
        rates = self._measured.rates(reports)
        held = {name: report.segments for name, report in reports.items()}
        limit_s = slowest_s(setup, held, rates) / (1.0 + settings.allocation_gain)
        wanted = without_slow_links(setup, best_allocation(setup, rates, limit_s), held, rates)
        if wanted and slowest_s(setup, {**held, **dict(wanted)}, rates) < limit_s:
            self._before, self.target, self.final = self.target if not lost else (), wanted, False
        elif lost:
            self.target, self.final = (), True
        self._changed_at = now
