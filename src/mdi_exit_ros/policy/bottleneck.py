# SPDX-License-Identifier: Apache-2.0
"""How fast workers and links are by what was measured, and which of them is the slowest of a spread of segments."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.policy.events import WorkerReport

FIRST_PATIENCE_S = 120.0  # for what was measured of a worker or link that is no longer used
LONGEST_PATIENCE_S = 3600.0
WORTHWHILE = 2.0  # how much faster it must have become for the first patience to do again


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


@dataclasses.dataclass
class _Remembered:
    """What was measured of a worker or link: `seconds` per unit, when it was last used, and how long it then counts.

    Attributes:
        sent: frames that had crossed a link by then.
        patience_s: time without use after which it may be tried again.
    """

    seconds: float
    used_at: float
    sent: int = 0
    patience_s: float = FIRST_PATIENCE_S
    counts: bool = True

    def renew(self, seconds: float, now: float, sent: int = 0) -> None:
        """It is in use. If it had to be tried again and was hardly better, the next trial is in twice the time."""
        if not self.counts:
            is_better = seconds < self.seconds / WORTHWHILE
            self.patience_s = FIRST_PATIENCE_S if is_better else min(2.0 * self.patience_s, LONGEST_PATIENCE_S)
        self.seconds, self.used_at, self.sent, self.counts = seconds, now, sent, True


class Measured:
    """What workers have said of their speeds and links.

    What is no longer used stays known for a while, then counts as never measured, so that it is tried again: a link may
    have been slow for a moment only.
    """

    def __init__(self, setup: AllocationSetup) -> None:
        self._setup = setup
        self._workers: dict[str, _Remembered] = {}
        self._links: dict[tuple[str, str], _Remembered] = {}

    def hear(self, reports: Mapping[str, WorkerReport], now: float) -> None:
        """Takes in the newest reports; `now` is in seconds."""
        for name, report in reports.items():
            speed = speed_of(report, self._setup.segment_costs)
            if speed > 0.0:
                self._workers.setdefault(name, _Remembered(1.0 / speed, now)).renew(1.0 / speed, now)
            for stream in report.streams:
                link = name, stream.peer.name
                if stream.moving_s < 0.0 or link[1] not in self._setup.successors.get(name, ()):
                    continue
                known = self._links.get(link)
                if known is None:
                    self._links[link] = _Remembered(stream.moving_s, now, stream.sent)
                elif known.sent != stream.sent:
                    known.renew(stream.moving_s, now, stream.sent)
        for known in (*self._workers.values(), *self._links.values()):
            known.counts = now <= known.used_at + known.patience_s

    def carry_over(self, setup: AllocationSetup) -> None:
        """Goes on with another model: computers are as fast as before, and links for the inputs of its last segment."""
        if self._setup.input_nbytes and setup.input_nbytes:
            for link in self._links.values():
                link.seconds *= setup.input_nbytes[-1] / self._setup.input_nbytes[-1]
        self._setup = setup

    def rates(self, alive: Collection[str]) -> Rates:
        """The rates for these workers; one whose speed is unknown is taken for an average one."""
        speed = {name: 1.0 / known.seconds for name, known in self._workers.items() if known.counts}
        average = statistics.fmean([speed[name] for name in alive if name in speed] or [1.0])
        links = {link: known.seconds for link, known in self._links.items() if known.counts}
        return Rates({name: speed.get(name, average) for name in alive}, links)


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
