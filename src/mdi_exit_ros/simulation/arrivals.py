# SPDX-License-Identifier: Apache-2.0
"""When a camera's frames are there to be offered."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.policy.cadence import INPUT_CATCH_UP_S
from mdi_exit_ros.simulation.scenario import Arrivals


class Camera:
    """When frames are there to be offered.

    Args:
        gaps: seconds between a frame and the next, endless or as many as frames follow the first; none when frames
            are there as soon as they are asked for.
        catches_up: lateness beyond which frames are left out instead of being offered all at once; None for never.
    """

    def __init__(self, gaps: Iterator[float] | None, *, catches_up: float | None = None) -> None:
        self._gaps = gaps
        self._catches_up = catches_up
        self.due_at = float("-inf")
        self.ended = False

    def next(self, now: float) -> None:
        """Counts one frame as given at `now`."""
        if self._gaps is None:
            return
        gap = next(self._gaps, None)
        if gap is None:
            self.ended = True
            return
        begun = now if self.due_at == float("-inf") else self.due_at
        self.due_at = (max(begun, now - self._catches_up) if self._catches_up is not None else begun) + gap


def camera_of(arrivals: Arrivals, rng: random.Random, key: str) -> Camera:
    """The camera whose frames come as `arrivals` says; `key` is where that stands in the scenario.

    Raises:
        ConfigurationError: its file of times cannot be used.
    """
    match arrivals.kind:
        case "max":
            return Camera(None)
        case "periodic":
            assert arrivals.rate_hz is not None
            return Camera(itertools.repeat(1.0 / arrivals.rate_hz), catches_up=INPUT_CATCH_UP_S)
        case "poisson":
            return Camera(_poisson(arrivals.rate_hz or 1.0, rng))
        case "steps":
            assert arrivals.steps is not None
            return Camera(_stepped(arrivals.steps))
        case "trace":
            assert arrivals.trace is not None
            try:
                times = read_arrivals(Path(arrivals.trace))
            except ConfigurationError as error:
                raise ConfigurationError(f"{key}.trace: {error}") from error
            return Camera(iter([later - sooner for sooner, later in itertools.pairwise(times)]))


def _poisson(rate_hz: float, rng: random.Random) -> Iterator[float]:
    while True:
        yield rng.expovariate(rate_hz)


def _stepped(steps: list[tuple[float, float]]) -> Iterator[float]:
    now, following = 0.0, 0
    rate_hz = steps[0][1]
    while True:
        begun, left = now, 1.0  # of a frame, which may come at several rates
        while following < len(steps) and (steps[following][0] - now) * rate_hz < left:
            left -= max(0.0, steps[following][0] - now) * rate_hz
            now = max(now, steps[following][0])
            rate_hz = steps[following][1]
            following += 1
        now += left / rate_hz
        yield now - begun


def read_arrivals(path: Path) -> list[float]:
    """Times (s) of a file with one per line.

    Raises:
        ConfigurationError: it cannot be read, or a line is no time or earlier than the one before.
    """
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigurationError(f"cannot read {path}: {reason}") from error
    times: list[float] = []
    for number, line in enumerate(lines, 1):
        try:
            time = float(line)
        except ValueError:
            time = math.nan
        if not math.isfinite(time) or (times and time < times[-1]):
            raise ConfigurationError(
                f"line {number} of {path}: expected a time in seconds, none earlier than the one before, got {line!r}"
            )
        times.append(time)
    if not times:
        raise ConfigurationError(f"{path} is empty: expected one time in seconds per line")
    return times
