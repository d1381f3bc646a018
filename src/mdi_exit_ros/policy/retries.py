# SPDX-License-Identifier: Apache-2.0
"""When the attempts at a source's frames are looked at again, and which of them are made anew."""

from __future__ import annotations

import heapq
import math
from collections import deque

from mdi_exit_ros.policy.ledger import FrameLedger, OpenFrame
from mdi_exit_ros.policy.source_setup import SourceSettings

SPARE_LOOKS = 64  # of frames that are closed, beyond as many as are open
RETRY_PAUSE_S = 0.05  # between a refusal or a look at the budget and the next attempt


class Retries:
    """The attempts at open frames. Retries are a share of admissions and a small allowance (`retry_burst`)."""

    def __init__(self, settings: SourceSettings, ledger: FrameLedger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._looks: list[tuple[float, int, int]] = []  # due, sequence, attempt; of each frame one counts
        self._wanted: deque[OpenFrame] = deque()

    def next_deadline(self) -> float:
        """When the next attempt is due to be looked at (s); infinite when there is none."""
        return self._looks[0][0] if self._looks else math.inf

    def look_again(self, frame: OpenFrame, due: float) -> None:
        """Has the frame's newest attempt looked at by then, or at the frame's deadline."""
        due = min(due, frame.expires_at)
        if frame.look_at <= due:
            return
        frame.look_at = due
        heapq.heappush(self._looks, (due, frame.sequence, frame.attempt))
        if len(self._looks) > 2 * len(self._ledger.open) + SPARE_LOOKS:
            self._looks = sorted({look for look in self._looks if self._frame_of(look) is not None})

    def look(self, now: float) -> list[OpenFrame]:
        """Looks at every attempt that is due: it is made anew within the budget. Answers frames past their deadline."""
        ended: list[OpenFrame] = []
        while self._looks and self._looks[0][0] <= now:
            frame = self._frame_of(heapq.heappop(self._looks))
            if frame is None:
                continue
            frame.look_at = math.inf
            if now >= frame.expires_at:
                ended.append(frame)
                continue
            wanted = frame.attempt < self._settings.attempts_max and not frame.retry_due
            if wanted and self._budget >= len(self._wanted) + 1:
                frame.retry_due = True
                self._wanted.append(frame)
                wanted = False
            self.look_again(frame, now + (RETRY_PAUSE_S if wanted else self._settings.attempt_timeout_s))
        return ended

    def _frame_of(self, look: tuple[float, int, int]) -> OpenFrame | None:
        """The frame that is looked at then; None where it is closed, or looked at at another time."""
        due, sequence, attempt = look
        frame = self._ledger.open.get(sequence)
        return frame if frame is not None and (frame.look_at, frame.attempt) == (due, attempt) else None

    def take(self) -> OpenFrame | None:
        """The next frame that is tried again, its attempt counted; None when there is none."""
        while self._wanted:
            frame = self._wanted.popleft()
            frame.retry_due = False
            if frame.sequence in self._ledger.open and self._budget >= 1:
                frame.attempt += 1
                frame.look_at = math.inf
                self._ledger.retries += 1
                return frame
        return None

    @property
    def _budget(self) -> float:
        allowed = self._settings.retry_share * self._ledger.admitted + self._settings.retry_burst
        return allowed - self._ledger.retries
