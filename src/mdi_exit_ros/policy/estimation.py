# SPDX-License-Identifier: Apache-2.0
"""Service times and transfer delays, measured and smoothed."""

from __future__ import annotations

import math
from collections import deque

ROUND_TRIP_MAX_S = 60.0  # longer is no measurement
STALE_S = 30.0  # what was measured longer ago than this before the next measurement is no longer counted in
SURPRISE = 10.0  # a batch counts as at most so many times slower than expected: a peer that stood still is no slow link


def smooth(old: float, new: float, weight: float) -> float:
    """Exponentially weighted mean: `weight` (0..1) is the share of the new value; a negative old value means none."""
    return new if old < 0.0 else old + weight * (new - old)


class ServiceTimes:
    """Gamma: seconds per task, overall and by segment and batch size (powers of two), all lanes together."""

    def __init__(self) -> None:
        self._mean_s = -1.0
        self._segment_s: dict[int, float] = {}
        self._batch_s: dict[tuple[int, int], float] = {}

    def observe(self, segment: int, batch: int, duration_s: float, weight: float, *, lanes: int = 1) -> None:
        """Takes in one service run of `batch` tasks that took `duration_s` in all on one of the lanes."""
        per_task = duration_s / batch / lanes
        self._mean_s = smooth(self._mean_s, per_task, weight)
        self._segment_s[segment] = smooth(self._segment_s.get(segment, -1.0), per_task, weight)
        key = (segment, batch.bit_length())
        self._batch_s[key] = smooth(self._batch_s.get(key, -1.0), per_task, weight)

    def forget(self, segment: int) -> None:
        """What was measured of a segment counts no longer: it was not run for a while."""
        self._segment_s.pop(segment, None)
        self._batch_s = {key: seconds for key, seconds in self._batch_s.items() if key[0] != segment}

    def expect(self, segment: int, batch: int, duration_s: float, *, lanes: int = 1) -> None:
        """Takes in a time measured before this life, to start with; call it from the smallest batch to the largest.

        The largest batch stands for the segment, as a loaded worker runs large ones.
        """
        per_task = duration_s / batch / lanes
        self._batch_s[segment, batch.bit_length()] = per_task
        self._segment_s[segment] = per_task
        self._mean_s = sum(self._segment_s.values()) / len(self._segment_s)

    @property
    def mean_s(self) -> float:
        """Smoothed seconds per task over all segments; 0 while unknown."""
        return max(0.0, self._mean_s)

    def segment_s(self, segment: int) -> float:
        """Smoothed seconds per task of one segment; 0 while unknown."""
        return self._segment_s.get(segment, 0.0)

    def batch_s(self, segment: int, batch: int) -> float:
        """Smoothed seconds per task of one segment in batches of about this size; 0 while unknown."""
        return self._batch_s.get((segment, batch.bit_length()), 0.0)


class TransferDelay:
    """D_nm: smoothed latency plus bytes / bandwidth, from echoed stamps less the peer's holding time.

    A stamp of this computer's clock goes out and comes back; the peer says how long it kept it. So
    neither clock is ever compared with the other.
    """

    def __init__(self) -> None:
        self._latency_s = -1.0
        self._seconds_per_byte = -1.0
        self._measured_stamp = math.inf
        self._sent: deque[tuple[float, int]] = deque(maxlen=256)

    def batch_sent(self, stamp: float, nbytes: int) -> None:
        """Remembers the size of a batch until its stamp is echoed; batches of one stamp go one after the other."""
        if self._sent and self._sent[-1][0] == stamp:
            nbytes += self._sent.pop()[1]
        self._sent.append((stamp, nbytes))

    def status_echoed(self, round_trip_s: float, weight: float) -> None:
        """A status of ours came back after `round_trip_s`, holding time taken off."""
        self._latency_s = smooth(self._latency_s, min(max(0.0, round_trip_s), ROUND_TRIP_MAX_S) / 2.0, weight)

    def batch_echoed(self, stamp: float, round_trip_s: float, weight: float) -> None:
        """The batch stamped `stamp` was acknowledged after `round_trip_s`, holding time taken off."""
        while self._sent and self._sent[0][0] < stamp:
            self._sent.popleft()
        if not self._sent or self._sent[0][0] != stamp or self._latency_s < 0.0:
            return
        _, nbytes = self._sent.popleft()
        if nbytes > 0:
            if stamp > self._measured_stamp + STALE_S:
                self._seconds_per_byte = -1.0
            self._measured_stamp = stamp
            longest_s = ROUND_TRIP_MAX_S
            if self._seconds_per_byte > 0.0:
                longest_s = min(longest_s, SURPRISE * (2.0 * self._latency_s + self._seconds_per_byte * nbytes))
            moving_s = max(0.0, min(round_trip_s, longest_s) - 2.0 * self._latency_s)
            self._seconds_per_byte = smooth(self._seconds_per_byte, moving_s / nbytes, weight)

    def seconds(self, nbytes: int) -> float:
        """Expected delay of one task of `nbytes`; 0 while nothing is known."""
        return max(0.0, self._latency_s) + max(0.0, self.moving_s(nbytes))

    def moving_s(self, nbytes: int) -> float:
        """The part of `seconds` that bandwidth takes, without the latency; negative while unknown."""
        return self._seconds_per_byte * nbytes if self._seconds_per_byte >= 0.0 else -1.0

    @property
    def known(self) -> bool:
        """Whether any echo has been measured."""
        return self._latency_s >= 0.0
