# SPDX-License-Identifier: Apache-2.0
"""How fast workers and links are by what was measured, and which of them is the slowest of a spread of segments."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.policy.events import WorkerReport


@dataclasses.dataclass(frozen=True)
class AllocationSetup:
    """What segments may be spread over.

    Attributes:
        home: worker that frames enter.
        successors: workers that each worker may send tasks to.
        segment_costs: K costs in any unit.
        input_nbytes: bytes per frame of the input of segments 1..K as it travels; only their proportions count.
    """

    home: str = ""
    successors: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    segment_costs: tuple[float, ...] = ()
    input_nbytes: tuple[int, ...] = ()

    def input_size(self, segment: int) -> float:
        """Size of the input of a segment, as a multiple of that of the last one, for which links are measured."""
        return self.input_nbytes[segment - 1] / self.input_nbytes[-1]


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


@dataclasses.dataclass(frozen=True)
class Rates:
    """How fast workers and links are.

    Attributes:
        speed: cost per second that each worker alive gets through.
        link_s: time in which an input of the last segment crosses each link that was measured (s), without latency;
            by the names of sender and receiver.
    """

    speed: Mapping[str, float]
    link_s: Mapping[tuple[str, str], float] = dataclasses.field(default_factory=dict)

    def crossing_s(self, sender: str, receiver: str) -> float:
        """Time in which an input of the last segment crosses a link (s).

        One that has never carried tasks is as good as the other way, else as the median of all that have (the better
        one of two, so that it is tried), else free.
        """
        for link in ((sender, receiver), (receiver, sender)):
            if link in self.link_s:
                return self.link_s[link]
        return statistics.median_low(self.link_s.values()) if self.link_s else 0.0


class Measured:
    """What workers have said of their speeds and links; what is no longer used stays known as it was."""

    def __init__(self, setup: AllocationSetup) -> None:
        self._setup = setup
        self._speed: dict[str, float] = {}
        self._link_s: dict[tuple[str, str], float] = {}

    def hear(self, reports: Mapping[str, WorkerReport]) -> None:
        """Takes in the newest reports."""
        for name, report in reports.items():
            speed = speed_of(report, self._setup.segment_costs)
            if speed > 0.0:
                self._speed[name] = speed
            for stream in report.streams:
                if stream.moving_s >= 0.0 and stream.peer.name in self._setup.successors.get(name, ()):
                    self._link_s[name, stream.peer.name] = stream.moving_s

    def carry_over(self, setup: AllocationSetup) -> None:
        """Goes on with another model: computers are as fast as before, and links for the inputs of its last segment."""
        if self._setup.input_nbytes and setup.input_nbytes:
            factor = setup.input_nbytes[-1] / self._setup.input_nbytes[-1]
            self._link_s = {link: seconds * factor for link, seconds in self._link_s.items()}
        self._setup = setup

    def rates(self, alive: Iterable[str]) -> Rates:
        """The rates for these workers; one whose speed is unknown is taken for an average one."""
        known = {name: self._speed.get(name, 0.0) for name in alive}
        average = statistics.fmean([speed for speed in known.values() if speed > 0.0] or [1.0])
        return Rates({name: speed or average for name, speed in known.items()}, self._link_s)


def speed_of(report: WorkerReport, segment_costs: Sequence[float]) -> float:
    """Cost per second that a worker gets through, from the service times that it reports; 0 while unknown."""
    pairs = zip(report.segments, report.segment_service_time_s, strict=True)
    measured = [(segment_costs[segment - 1], seconds) for segment, seconds in pairs if seconds > 0.0]
    return math.fsum(cost for cost, _ in measured) / math.fsum(seconds for _, seconds in measured) if measured else 0.0


def slowest_s(setup: AllocationSetup, held: Mapping[str, Sequence[int]], rates: Rates) -> float:
    """Time per frame (s) of the worker or link that has most to do.

    Frames go on evenly to all that hold their next segment and can be reached, the worker that has them included.
    Infinite where there is none.
    """
    busy_s: defaultdict[tuple[str, ...], float] = defaultdict(float)
    shares = {setup.home: 1.0}
    for segment, cost in enumerate(setup.segment_costs, 1):
        following: defaultdict[str, float] = defaultdict(float)
        for name, share in shares.items():
            near = (name, *setup.successors.get(name, ()))
            holders = [other for other in near if segment in held.get(other, ())]
            if not holders:
                return math.inf
            for other in holders:
                following[other] += share / len(holders)
                if other != name:
                    crossing_s = setup.input_size(segment) * rates.crossing_s(name, other)
                    busy_s[name, other] += crossing_s * share / len(holders)
        for name, share in following.items():
            busy_s[name,] += share * cost / rates.speed[name]
        shares = following
    return max(busy_s.values())
