# SPDX-License-Identifier: Apache-2.0
"""Answers that a worker gathers for its sources, so that one message brings many."""

from __future__ import annotations

import math

from mdi_exit_ros.task import Answer, PeerId


class GatheredAnswers:
    """Answers by source, and when they go out.

    Attributes:
        due_at: local monotonic time (s) at which they go out at the latest; infinite when there are none.
    """

    def __init__(self) -> None:
        self.due_at = math.inf
        self._openings: set[PeerId] = set()
        self._by_source: dict[PeerId, list[Answer]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_source or self._openings)

    def add(self, source: PeerId, answer: Answer | None, due_at: float) -> None:
        """Puts an answer among those that go out at `due_at` at the latest; without one the stream is opened."""
        if answer is None:
            self._openings.add(source)
        else:
            self._by_source.setdefault(source, []).append(answer)
        self.due_at = min(self.due_at, due_at)

    def take(self) -> list[tuple[PeerId, list[Answer]]]:
        """All that have gathered; a stream is opened by a message of its own, without answers."""
        taken: list[tuple[PeerId, list[Answer]]] = [(source, []) for source in sorted(self._openings)]
        taken += self._by_source.items()
        self._openings, self._by_source, self.due_at = set(), {}, math.inf
        return taken
