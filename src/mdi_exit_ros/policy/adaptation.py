# SPDX-License-Identifier: Apache-2.0
"""What adaptation remembers between two looks, so that it settles: means instead of samples, and smaller steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Container

from mdi_exit_ros.policy.admission import AdaptationSettings, next_interval
from mdi_exit_ros.policy.events import SourceReport, WorkerReport
from mdi_exit_ros.task import Reason

WINDOW_S = 0.3  # over which backlogs are averaged, and frames offered, answered and turned away counted: some batches
BEST_S = 2.0  # for which the best of such rates counts
SHARE_MIN = 1.0 / 32.0  # of a step, below which it does not shrink
SHRINKS = 0.5  # the share, by this factor with every change of direction
CALMS = 0.8  # the share, by this factor per step while the backlog is between its thresholds
GROWS = 1.5  # the share, by this factor per step outside of them, once this has taken longer than
GROWS_AFTER_S = 0.5  # what a step needs to show in the means
POINTS_MAX = 256  # remembered per count, however often a node reports


class Growth:
    """How fast a count that a node reports has grown over the last WINDOW_S of the node's own clock."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque(maxlen=POINTS_MAX)

    def note(self, stamp: float, count: float) -> None:
        """The count was so much at `stamp` (s). Where either falls, a new life has begun."""
        if self._points and (stamp < self._points[-1][0] or count < self._points[-1][1]):
            self._points.clear()
        self._points.append((stamp, count))
        while len(self._points) > 2 and self._points[1][0] <= stamp - WINDOW_S:
            self._points.popleft()

    def per_second(self, over_s: float = 0.0) -> float | None:
        """Mean growth per second; None while less than `over_s` or no time at all has been seen."""
        if not self._points:
            return None
        (first, low), (last, high) = self._points[0], self._points[-1]
        return (high - low) / (last - first) if last > first and last - first >= over_s else None


class BestRate:
    """The best rate of the last seconds at which a count that a node reports grew (1/s).

    The best says what is possible; the newest also says that less was asked for.
    """

    def __init__(self) -> None:
        self._growth = Growth()
        self._rates: deque[tuple[float, float]] = deque(maxlen=POINTS_MAX)

    def note(self, stamp: float, count: float) -> None:
        """The count was so much at `stamp` (s)."""
        self._growth.note(stamp, count)
        if self._rates and stamp < self._rates[-1][0]:
            self._rates.clear()
        rate = self._growth.per_second(over_s=WINDOW_S / 2.0)
        if rate is not None:
            self._rates.append((stamp, rate))
        while self._rates and self._rates[0][0] < stamp - BEST_S:
            self._rates.popleft()

    @property
    def per_second(self) -> float:
        """0 while nothing is known."""
        return max((rate for _, rate in self._rates), default=0.0)


class DampedSteps:
    """MDI-Exit's steps, of which a smaller share is taken once they have gone too far.

    The share halves when the direction changes, shrinks on while the backlog is between its thresholds, and grows
    again when it has been outside for longer than a step needs to show. All of this is ours.
    """

    def __init__(self) -> None:
        self._share = 1.0
        self._rises: bool | None = None
        self._turned_at = 0.0

    def next(
        self, interval: float, backlog: float, settings: AdaptationSettings, now: float, *, low: float, high: float
    ) -> float:
        """The interval after the step that is due at `now` (s), as next_interval says."""
        rises = backlog < settings.queue_high
        if self._rises is not None and rises is not self._rises:
            self._share *= SHRINKS
            self._turned_at = now
        elif settings.queue_low <= backlog < settings.queue_high:
            self._share *= CALMS if self._share < 1.0 else 1.0  # whole steps go on until they have gone too far
        elif now - self._turned_at > GROWS_AFTER_S:
            self._share *= GROWS
        self._share = min(max(self._share, SHARE_MIN), 1.0)
        self._rises = rises
        return next_interval(interval, backlog, settings, low=low, high=high, share=self._share)


class _SourceMemory:
    """The same of one source."""

    def __init__(self) -> None:
        self.offered = BestRate()
        self.answered = BestRate()
        self.turned_away = Growth()
        self.steps = DampedSteps()


class AdaptationMemory:
    """What was heard of workers and sources over the last seconds, and how large their next steps are."""

    def __init__(self) -> None:
        self._queued: dict[str, Growth] = {}
        self._sources: dict[str, _SourceMemory] = {}
        self.thresholds = DampedSteps()

    def hear_worker(self, report: WorkerReport) -> None:
        """Takes in a worker's status."""
        self._queued.setdefault(report.worker.name, Growth()).note(report.stamp, report.backlog_s)

    def hear_source(self, report: SourceReport) -> None:
        """Takes in a source's status."""
        memory = self._of(report)
        counts = report.counts
        memory.offered.note(report.stamp, counts.offered)
        memory.answered.note(report.stamp, counts.ok + counts.failed)
        if counts.admitted:  # before, the cluster was starting
            memory.turned_away.note(report.stamp, dict(report.refused_reasons).get(Reason.STALE.label, 0))

    def _of(self, report: SourceReport) -> _SourceMemory:
        return self._sources.setdefault(report.source.name, _SourceMemory())

    def forget_worker(self, name: str) -> None:
        """It is no longer in the picture."""
        self._queued.pop(name, None)

    def forget_source(self, name: str) -> None:
        """It is no longer in the picture."""
        self._sources.pop(name, None)

    def keep(self, workers: Container[str], sources: Container[str]) -> None:
        """Forgets all others."""
        self._queued = {name: growth for name, growth in self._queued.items() if name in workers}
        self._sources = {name: memory for name, memory in self._sources.items() if name in sources}

    def start_again(self) -> None:
        """Forgets how large the steps were."""
        self.thresholds = DampedSteps()
        for memory in self._sources.values():
            memory.steps = DampedSteps()

    def backlog(self, home: WorkerReport, source: SourceReport) -> float:
        """Q (frames): the mean of I + O at the home worker, what waits for credit, and what was lately turned away.

        Credit keeps a full home worker from getting fuller: then frames wait at their source, or are refused there
        for lack of room. Those would have queued, and count as if they had.
        """
        queued = self._queued[home.worker.name].per_second()
        if queued is None:
            queued = float(home.input_queue + home.output_queue)
        turned_away = self._of(source).turned_away.per_second() or 0.0
        return queued + source.waiting_for_credit + turned_away * WINDOW_S

    def next_interval(
        self,
        interval: float,
        source: SourceReport,
        backlog: float,
        settings: AdaptationSettings,
        now: float,
        *,
        low: float,
        high: float,
    ) -> float:
        """The admission interval (s) of a source after the step that is due at `now`.

        A source that offers on demand offers as slowly as it is admitted: half the interval at which it offers leaves
        room to rise. What is answered is what can be done: admission stays within beta of it, however large the
        backlog is, for that will be gone soon.
        """
        memory = self._of(source)
        if memory.offered.per_second > 0.0:
            low = max(low, 0.5 / memory.offered.per_second)
        answered = memory.answered.per_second * (1.0 - settings.beta)
        if answered > 0.0:
            high = min(high, max(interval, 1.0 / answered))
        return memory.steps.next(interval, backlog, settings, now, low=low, high=high)
