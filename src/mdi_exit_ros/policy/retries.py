# SPDX-License-Identifier: Apache-2.0
"""When the attempts at a source's frames are looked at again, and which of them are made anew."""

from __future__ import annotations

import heapq
import math
from collections import deque

from mdi_exit_ros.policy.estimation import smooth
from mdi_exit_ros.policy.ledger import FrameLedger, OpenFrame
from mdi_exit_ros.policy.source_setup import SourceSettings

SPARE_LOOKS = 64  # of frames that are closed, beyond as many as are open
RETRY_PAUSE_S = 0.05  # between a refusal or a look at the budget and the next attempt


MEAN_WEIGHT, SPREAD_WEIGHT, SPREADS = 1 / 8, 1 / 4, 4.0  # RFC 6298, section 2


class Retries:
    """The attempts at open frames. Retries are a share of admissions and a small allowance (`retry_burst`).

    An answer is waited for `attempt_timeout_s`, or longer where answers take long: what a busy cluster has not answered
    yet is not lost. How much longer is TCP's estimate (RFC 6298): mean and spread of first attempts' times to answer.
    """

    def __init__(self, settings: SourceSettings, ledger: FrameLedger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._looks: list[tuple[float, int, int]] = []  # due, sequence, attempt; of each frame one counts
        self._wanted: deque[OpenFrame] = deque()
        self._mean_s = -1.0
        self._spread_s = 0.0

    @property
    def patience_s(self) -> float:
        """How long an answer is waited for before a frame is tried again (s)."""
        return max(self._settings.attempt_timeout_s, self._mean_s + SPREADS * self._spread_s)

    def begin(self, frame: OpenFrame, now: float) -> None:
        """The frame's newest attempt begins."""
        frame.began_at = now
        self.look_again(frame, now + self.patience_s)

    def answered(self, frame: OpenFrame, now: float) -> None:
        """An answer to the frame has come; which attempt it is to is known of first ones only."""
        if frame.attempt > 1:
            return
        took_s = now - frame.began_at
        if self._mean_s < 0.0:
            self._mean_s, self._spread_s = took_s, took_s / 2.0
            return
        self._spread_s = smooth(self._spread_s, abs(took_s - self._mean_s), SPREAD_WEIGHT)
        self._mean_s = smooth(self._mean_s, took_s, MEAN_WEIGHT)

    def failed(self, frame: OpenFrame, now: float) -> None:
        """The frame's newest attempt has failed: the next is made soon."""
        frame.began_at = -math.inf
        self.look_again(frame, now + RETRY_PAUSE_S)

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
            if (due := frame.began_at + self.patience_s) > now:
                self.look_again(frame, due)
                continue
            wanted = frame.attempt < self._settings.attempts_max and not frame.retry_due
            if wanted and self._budget >= len(self._wanted) + 1:
                frame.retry_due = True
                self._wanted.append(frame)
                wanted = False
            self.look_again(frame, now + (RETRY_PAUSE_S if wanted else self.patience_s))
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
