# SPDX-License-Identifier: Apache-2.0
"""The processors of one computer, shared by all threads that run on it."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from functools import partial

from mdi_exit_ros.simulation.clock import Clock


class Processor:
    """Cores shared equally by the threads that can run: egalitarian processor sharing, as a fair scheduler does.

    Every thread runs at the same rate, so that jobs end in the order of their remaining work, and one number (the work
    that each thread has done since the beginning) says how far all of them are.

    Args:
        cores: processors, in part where a quota leaves less; a thread uses at most one of them.
        speed: of one core, as a multiple of the computer on which work was measured.
        all_busy: speed of a core while all are busy, as a share of that of one alone.
    """

    def __init__(self, clock: Clock, cores: float, *, speed: float = 1.0, all_busy: float = 1.0) -> None:
        self._clock = clock
        self._cores = cores
        self._speed = speed
        self._all_busy = all_busy
        self._done_s = 0.0  # work that a thread has done that has run since the beginning
        self._at = 0.0
        self._jobs: list[tuple[float, int, object, Callable[[], None]]] = []  # one per thread that runs
        self._order = 0
        self._alarm = 0
        self.busy_s = 0.0

    @property
    def speed(self) -> float:
        """Of one core, as a multiple of the computer on which work was measured."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._advance()
        self._speed = speed
        self._ring()

    def run(self, work_s: float, then: Callable[[], None], *, owner: object = None) -> None:
        """Runs a thread that needs `work_s` (s, alone on a core of speed 1), and calls `then`.

        What has an `owner` can be dropped with all that is its own.
        """
        self._advance()
        self._order += 1
        heapq.heappush(self._jobs, (self._done_s + work_s, self._order, owner, then))
        self._ring()

    def drop(self, owner: object) -> None:
        """Ends the jobs of an owner that has died."""
        self._advance()
        self._jobs = [job for job in self._jobs if job[2] is not owner]
        heapq.heapify(self._jobs)
        self._ring()

    def _rate(self) -> float:
        """Work per second of each running thread."""
        threads = len(self._jobs)
        if not threads:
            return 0.0
        busy = min(1.0, (threads - 1) / (self._cores - 1)) if self._cores > 1.0 else 0.0
        share = min(1.0, self._cores / threads)
        return self._speed * share * (1.0 - busy * (1.0 - self._all_busy))

    def _advance(self) -> None:
        now = self._clock.now
        if now > self._at:
            self._done_s += (now - self._at) * self._rate()
            self.busy_s += (now - self._at) * min(self._cores, len(self._jobs))
            self._at = now

    def _ring(self) -> None:
        """Sets the alarm for the end of the next job; an alarm set before is void."""
        self._alarm += 1
        if self._jobs:
            alarm = self._alarm
            left_s = max(0.0, self._jobs[0][0] - self._done_s)
            self._clock.after(left_s / self._rate(), lambda: self._on_alarm(alarm))

    def _on_alarm(self, alarm: int) -> None:
        if alarm != self._alarm:
            return
        self._advance()
        end, _, _, then = heapq.heappop(self._jobs)
        self._done_s = max(self._done_s, end)
        self._ring()
        then()


class Thread:
    """One thread of a node, which does one thing after the other: Python's, as its lock lets only one run."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self._jobs: deque[tuple[float, Callable[[], None]]] = deque()
        self._running = False
        self._ended = False
        self._inserted: int | None = None

    def run(self, work_s: float, then: Callable[[], None]) -> None:
        """Does `work_s` (s) of work when what came before is done, and then calls `then`.

        What `then` asks for itself is done at once, in that order, in front of all that waits.
        """
        if self._inserted is not None:
            self._jobs.insert(self._inserted, (work_s, then))
            self._inserted += 1
        else:
            self._jobs.append((work_s, then))
        if not self._running:
            self._go_on()

    def end(self) -> None:
        """Drops everything: the process is dead."""
        self._ended = True
        self._jobs.clear()
        self._processor.drop(self)

    def _go_on(self) -> None:
        while self._jobs and not self._ended:
            work_s, then = self._jobs.popleft()
            self._running = True
            if work_s > 0.0:
                self._processor.run(work_s, partial(self._finish, then), owner=self)
                return
            self._do(then)
        self._running = False

    def _finish(self, then: Callable[[], None]) -> None:
        if not self._ended:
            self._do(then)
            self._go_on()

    def _do(self, then: Callable[[], None]) -> None:
        self._inserted = 0
        then()
        self._inserted = None
