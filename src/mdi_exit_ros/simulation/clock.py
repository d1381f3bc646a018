# SPDX-License-Identifier: Apache-2.0
"""Simulated time: SimPy's, with plain callbacks, as the parts of the simulator are state machines and no processes."""

from __future__ import annotations

import math
from collections.abc import Callable

import simpy


class Clock:
    """What time it is, and what happens when."""

    def __init__(self) -> None:
        self._environment = simpy.Environment()
        self._stopped = False

    @property
    def now(self) -> float:
        """Simulated time (s) since the beginning."""
        return float(self._environment.now)

    def after(self, delay_s: float, do: Callable[[], None]) -> None:
        """Has `do` called `delay_s` (at least 0) from now; of equal times the one asked for first comes first."""
        event = simpy.Timeout(self._environment, delay_s)
        assert event.callbacks is not None
        event.callbacks.append(lambda _: do())

    def stop(self) -> None:
        """Ends `run` after what happens now."""
        self._stopped = True

    def run(self, until: float) -> None:
        """Lets things happen until stopped, until nothing is left to happen, or up to time `until` (s)."""
        environment = self._environment
        while not self._stopped and (due := environment.peek()) <= until and due < math.inf:
            environment.step()
