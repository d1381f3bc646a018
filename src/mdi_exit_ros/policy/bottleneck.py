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
    """What was measured of a worker or link.

    Attributes:
        seconds: per unit of cost, or per input of the last segment.
        sent: frames that had crossed a link by then.
        unused_s: time since it was used, as far as others were.
        used_s: the same in use, since it was last tried again.
        trials: how often it was tried again without proving itself.
    """

    seconds: float
    sent: int = 0
    unused_s: float = 0.0
    used_s: float = 0.0
    trials: int = 0

    @property
    def is_due(self) -> bool:
        """Whether what was measured is so old that it is tried again, each time after twice the patience."""
        return self.unused_s > min(FIRST_PATIENCE_S * 2.0**self.trials, LONGEST_PATIENCE_S)

    def use(self, seconds: float, time_s: float, sent: int = 0) -> None:
        """It has been in use for `time_s`."""
        if self.is_due:
            self.trials, self.used_s = self.trials + 1, 0.0
        self.seconds, self.sent, self.unused_s = seconds, sent, 0.0
        self.used_s += time_s
        if self.used_s >= FIRST_PATIENCE_S:
            self.trials = 0

    def rest(self, time_s: float) -> None:
        """Others have been in use for `time_s`."""
        self.unused_s += time_s


class Measured:
    """What workers have said of their speeds and links.

    What is no longer used stays known for a while, then counts as good, so that it is tried again: a link may have been
    slow for a moment only.
    """

    def __init__(self, setup: AllocationSetup) -> None:
        self._setup = setup
        self._workers: dict[str, _Remembered] = {}
        self._links: dict[tuple[str, str], _Remembered] = {}
        self._heard_at = -math.inf
        self._served = 0

    def hear(self, reports: Mapping[str, WorkerReport], now: float) -> None:
        """Takes in the newest reports; `now` is in seconds. Time in which no frame is served ages nothing."""
        served = sum(report.counters.served for report in reports.values())
        time_s = now - self._heard_at if served != self._served and self._heard_at > -math.inf else 0.0
        self._heard_at, self._served = now, served
        used: set[str | tuple[str, str]] = set()
        for name, report in reports.items():
            speed = speed_of(report, self._setup.segment_costs)
            if speed > 0.0:
                self._workers.setdefault(name, _Remembered(1.0 / speed)).use(1.0 / speed, time_s)
                used.add(name)
            for stream in report.streams:
                link = name, stream.peer.name
                if stream.moving_s < 0.0 or link[1] not in self._setup.successors.get(name, ()):
                    continue
                known = self._links.get(link)
                if known is None or known.sent != stream.sent:
                    known = self._links.setdefault(link, _Remembered(stream.moving_s))
                    known.use(stream.moving_s, time_s, stream.sent)
                    used.add(link)
        for key, each in (*self._workers.items(), *self._links.items()):
            if key not in used:
                each.rest(time_s)

    def carry_over(self, setup: AllocationSetup) -> None:
        """Goes on with another model: computers are as fast as before, and links for the inputs of its last segment."""
        if self._setup.input_nbytes and setup.input_nbytes:
            for link in self._links.values():
                link.seconds *= setup.input_nbytes[-1] / self._setup.input_nbytes[-1]
        self._setup = setup

    def rates(self, alive: Collection[str]) -> Rates:
        """The rates for these workers.

        A worker whose speed is unknown is taken for an average one, one that is due at least for that, and a link that
        is due for free.
        """
        speed = {name: 1.0 / known.seconds for name, known in self._workers.items() if name in alive}
        fresh = [speed[name] for name in speed if not self._workers[name].is_due]
        average = statistics.fmean(fresh or [1.0])
        for name in speed:
            if self._workers[name].is_due:
                speed[name] = max(speed[name], average)
        links = {link: 0.0 if known.is_due else known.seconds for link, known in self._links.items()}
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
