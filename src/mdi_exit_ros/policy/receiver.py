# SPDX-License-Identifier: Apache-2.0
"""A worker that this node may send tasks to: whether it is fit for them, and the stream to it."""

from __future__ import annotations

from mdi_exit_ros.policy.credits import Outbound
from mdi_exit_ros.policy.events import StreamReport, WorkerReport
from mdi_exit_ros.task import PeerId, State

UNFIT_S = 5.0  # of another model, after which it is told: it may be about to change
OPEN_INTERVAL_S = 0.2  # between two attempts to open a stream
OPENING_PATIENCE_S = 5.0  # how long a node that is alive is waited for until it knows this one's stream


class Receiver:
    """What the node `me` knows of one worker.

    Args:
        model_id: content hash of the model that tasks need.
        liveness_timeout_s: age of the newest report beyond which the worker counts as dead.
        stall_timeout_s: time in one batch beyond which it counts as stuck.
    """

    def __init__(self, me: PeerId, model_id: str, *, liveness_timeout_s: float, stall_timeout_s: float) -> None:
        self.report: WorkerReport | None = None
        self.outbound: Outbound | None = None
        self.fits = False  # runs the model that tasks need
        self._unfit_since: float | None = None
        self.is_open = False  # it knows this node's stream
        self._closed_since: float | None = None  # while it is ready
        self._me = me
        self._model_id = model_id
        self._liveness_timeout_s = liveness_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self.ready_until = float("-inf")

    def hear(self, report: WorkerReport, now: float) -> StreamReport | None:
        """Takes in a report; returns what it says of this node's stream, None where that is not open.

        A new life of the worker, or a stream that it does not know, voids the credit.
        """
        if self.outbound is None or self.outbound.receiver != report.worker:
            self.outbound = Outbound(report.worker)
        self.report = report
        self.fits = report.model_id == self._model_id
        if self.fits:
            self._unfit_since = None
        elif self._unfit_since is None:
            self._unfit_since = now
        self.ready_until = float("-inf")
        if self.fits and report.state is State.RUNNING:
            self.ready_until = now + self._liveness_timeout_s
            if report.busy_s > 0.0:
                self.ready_until = min(self.ready_until, now + self._stall_timeout_s - report.busy_s)
        mine = next((stream for stream in report.streams if stream.peer == self._me), None)
        self.is_open = mine is not None and mine.open
        if self.is_open or not self.ready(now):
            self._closed_since = None
        elif self._closed_since is None:
            self._closed_since = now
        if mine is None or not mine.open:
            self.outbound.void()
            return None
        if self.fits:
            self.outbound.acknowledge(mine.received, mine.credit)
        return mine

    def refuses(self, now: float) -> bool:
        """Whether it is ready and has not known this node's stream for so long that it is not about to."""
        return self._closed_since is not None and now - self._closed_since >= OPENING_PATIENCE_S

    def is_foreign(self, now: float) -> bool:
        """Whether it has run another model than tasks need for so long that it is not about to change."""
        return self._unfit_since is not None and now - self._unfit_since >= UNFIT_S

    def expect(self, model_id: str) -> None:
        """From now on tasks need this model: until the worker reports that it runs it, it gets none."""
        self._model_id = model_id
        self.fits = self.is_open = False
        self._closed_since = None
        self.ready_until = float("-inf")
        if self.outbound is not None:
            self.outbound.void()

    def ready(self, now: float) -> bool:
        """Alive, not stuck, and of the same model; credit and segments are another matter."""
        return now <= self.ready_until

    def opens(self, now: float) -> Outbound | None:
        """The stream, when it is time to send the empty batch that opens it."""
        outbound, report = self.outbound, self.report
        if outbound is None or report is None or report.state is not State.RUNNING:
            return None
        if now - outbound.opened_at < OPEN_INTERVAL_S:
            return None
        outbound.opened_at = now
        return outbound
