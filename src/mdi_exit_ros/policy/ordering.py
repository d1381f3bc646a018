# SPDX-License-Identifier: Apache-2.0
"""Numbered things that come in any order, handed on in theirs as far as waiting for it is bounded."""

from __future__ import annotations

import math
from typing import Generic, TypeVar

Item = TypeVar("Item")


class InOrder(Generic[Item]):
    """Hands on items numbered 0, 1, 2, ..., of which each comes once, in the order of their numbers.

    What comes before an earlier one waits for that, at most `wait_s` (0: all are handed on as they come); what comes
    after a later one has been handed on is handed on at once, so nothing is lost.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._next = 0  # all before it have been handed on, or are waited for no longer
        self._waiting: dict[int, tuple[float, Item]] = {}  # until when (s); the first has come first

    def put(self, number: int, item: Item, now: float) -> list[Item]:
        """Takes in item `number` at time `now` (s, never decreasing); answers what can be handed on."""
        if number < self._next:
            return [item]
        self._waiting[number] = (now + self._wait_s, item)
        return self.due(now)

    def due(self, now: float) -> list[Item]:
        """What can be handed on at time `now`, in order."""
        found: list[Item] = []
        while self._waiting:
            while self._next in self._waiting:
                found.append(self._waiting.pop(self._next)[1])
                self._next += 1
            if self.next_deadline() > now:
                break
            first = next(iter(self._waiting))
            found += [self._waiting.pop(number)[1] for number in sorted(self._waiting) if number <= first]
            self._next = first + 1
        return found

    def next_deadline(self) -> float:
        """When something that waits is handed on at the latest (s); infinite when nothing waits."""
        return next(iter(self._waiting.values()))[0] if self._waiting else math.inf
