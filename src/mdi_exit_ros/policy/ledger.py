# SPDX-License-Identifier: Apache-2.0
"""The frame ledger: every offered frame gets exactly one end."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from mdi_exit_ros.policy.events import LedgerCounts
from mdi_exit_ros.policy.latency import LatencyHistogram
from mdi_exit_ros.task import Reason


@dataclasses.dataclass(slots=True)
class OpenFrame:
    """A frame without an end yet.

    `attempt` is 0 while it waits for admission, `began_at` when that attempt began (minus infinity once it has failed),
    `look_at` when it is looked at next.
    """

    sequence: int
    label: int | None
    offered_at: float
    admitted_at: float = 0.0
    expires_at: float = float("inf")
    attempt: int = 0
    began_at: float = 0.0
    reason: Reason = Reason.NO_ANSWER
    retry_due: bool = False
    look_at: float = float("inf")


class FrameLedger:
    """Counts frames from offer to end. A frame below `offered` that is not open is closed: memory is that of open ones.

    At all times: offered = refused + ok + failed + waiting + in_flight.
    """

    def __init__(self, num_exits: int) -> None:
        self.open: dict[int, OpenFrame] = {}
        self.exits = [0] * num_exits
        self.refused: Counter[Reason] = Counter()
        self.failed: Counter[Reason] = Counter()
        self.latency = LatencyHistogram()
        self.duplicates = 0
        self.retries = 0
        self._offered = self._admitted = self._waiting = 0
        self._ok = self._labelled = self._correct = 0

    @property
    def next_sequence(self) -> int:
        """Number that the next offered frame must have."""
        return self._offered

    @property
    def admitted(self) -> int:
        """Frames admitted so far."""
        return self._admitted

    @property
    def in_flight(self) -> int:
        """Frames admitted and not closed."""
        return len(self.open) - self._waiting

    def offer(self, sequence: int, label: int | None, now: float) -> OpenFrame:
        """Opens a frame.

        Raises:
            ValueError: `sequence` is not the next one: the shell misuses the ledger.
        """
        if sequence != self._offered:
            raise ValueError(f"expected frame {self._offered}, got {sequence}: frames are offered without gaps")
        self._offered += 1
        self._waiting += 1
        frame = self.open[sequence] = OpenFrame(sequence, label, now)
        return frame

    def admit(self, frame: OpenFrame, now: float, deadline_s: float) -> None:
        """Moves a waiting frame into flight as attempt 1."""
        self._waiting -= 1
        self._admitted += 1
        frame.attempt = 1
        frame.admitted_at = now
        frame.expires_at = now + deadline_s

    def refuse(self, frame: OpenFrame, reason: Reason) -> None:
        """Ends a frame that was never admitted."""
        del self.open[frame.sequence]
        self._waiting -= 1
        self.refused[reason] += 1

    def answer(self, frame: OpenFrame, exit_number: int, class_id: int, now: float) -> None:
        """Ends an admitted frame with the answer of `exit_number` (1..K)."""
        del self.open[frame.sequence]
        self._ok += 1
        self.exits[exit_number - 1] += 1
        self.latency.add(now - frame.offered_at)
        if frame.label is not None:
            self._labelled += 1
            self._correct += class_id == frame.label

    def fail(self, frame: OpenFrame, reason: Reason) -> None:
        """Ends an admitted frame without an answer."""
        del self.open[frame.sequence]
        self.failed[reason] += 1

    @property
    def counts(self) -> LedgerCounts:
        """Where all frames are."""
        return LedgerCounts(
            offered=self._offered,
            admitted=self._admitted,
            refused=self.refused.total(),
            ok=self._ok,
            failed=self.failed.total(),
            waiting=self._waiting,
            in_flight=self.in_flight,
            retries=self.retries,
            duplicates=self.duplicates,
            labelled=self._labelled,
            correct=self._correct,
        )

    def latency_ms(self) -> tuple[float, float, float]:
        """50th, 95th and 99th percentile from offered to answered (ms)."""
        p50, p95, p99 = (1000.0 * self.latency.percentile(share) for share in (0.5, 0.95, 0.99))
        return p50, p95, p99

    def summary(self) -> dict[str, Any]:
        """The ledger's part of the JSON summary; `unaccounted` is what has no end, 0 when finished."""
        counts = self.counts
        p50, p95, p99 = self.latency_ms()
        return {
            "offered": counts.offered,
            "admitted": counts.admitted,
            "refused": {reason.label: count for reason, count in sorted(self.refused.items())},
            "ok": counts.ok,
            "failed": {reason.label: count for reason, count in sorted(self.failed.items())},
            "unaccounted": counts.offered - counts.refused - counts.ok - counts.failed,
            "retries": counts.retries,
            "duplicates": counts.duplicates,
            "accuracy": counts.correct / counts.labelled if counts.labelled else None,
            "labelled": counts.labelled,
            "latency_ms": {"p50": p50, "p95": p95, "p99": p99, "mean": 1000.0 * self.latency.mean_s},
            "exits": [count / counts.ok if counts.ok else 0.0 for count in self.exits],
        }
