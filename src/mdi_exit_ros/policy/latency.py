# SPDX-License-Identifier: Apache-2.0
"""Percentiles in constant memory."""

from __future__ import annotations

import math

_LOWEST_S = 1e-6
_GROWTH = 1.02
_LOG_GROWTH = math.log(_GROWTH)
_BINS = int(math.log(1e4 / _LOWEST_S) / _LOG_GROWTH) + 2


class LatencyHistogram:
    """Durations of 1 microsecond to 10,000 s in bins that grow by 2 %: a percentile is right within 1 %."""

    def __init__(self) -> None:
        self._bins = [0] * _BINS
        self._count = 0
        self._sum_s = 0.0

    def add(self, duration_s: float) -> None:
        """Takes in one duration (s)."""
        index = int(math.log(max(duration_s, _LOWEST_S) / _LOWEST_S) / _LOG_GROWTH)
        self._bins[min(index, _BINS - 1)] += 1
        self._count += 1
        self._sum_s += duration_s

    @property
    def mean_s(self) -> float:
        """Mean (s); 0 when there are none."""
        return self._sum_s / self._count if self._count else 0.0

    def percentile(self, share: float) -> float:
        """Duration (s) that `share` (0..1) of all stay within; 0 when there are none."""
        rank = max(1, math.ceil(share * self._count))
        seen = 0
        for index, count in enumerate(self._bins):
            seen += count
            if seen >= rank and count:
                return _LOWEST_S * math.exp((index + 0.5) * _LOG_GROWTH)
        return 0.0
