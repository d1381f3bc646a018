# SPDX-License-Identifier: Apache-2.0
"""The workers that a source's frames may enter, and those whose answers it hears."""

from __future__ import annotations

from mdi_exit_ros.policy.credits import Outbound
from mdi_exit_ros.policy.events import AnswersReceived, StreamReport, WorkerReport
from mdi_exit_ros.policy.receiver import Receiver
from mdi_exit_ros.policy.source_setup import SourceSetup
from mdi_exit_ros.task import PeerId

HOME_GRACE_S = 5.0  # how long frames wait for a home worker that was never heard before another one is used
FORGET_WORKER_S = 5.0  # silence after which a worker has to open its stream of answers anew
WORKERS_MAX = 1024  # whose answers are heard; others are heard when some have been forgotten


class Entries:
    """What a source knows of workers.

    Attributes:
        home: name of the worker that admitted frames enter, as of the last `target`.
    """

    def __init__(self, setup: SourceSetup) -> None:
        self._receivers = {
            name: Receiver(
                setup.me,
                setup.model_id,
                liveness_timeout_s=setup.settings.liveness_timeout_s,
                stall_timeout_s=setup.settings.stall_timeout_s,
            )
            for name in setup.entries
        }
        self._heard: dict[str, tuple[PeerId, float]] = {}  # workers whose answers arrive, and their newest status
        self._started_at: float | None = None
        self.home = setup.entries[0]

    def begin(self, now: float) -> None:
        """The source starts: from now on the home worker is waited for."""
        self._started_at = now

    def target(self, now: float) -> Outbound | None:
        """The stream that frames enter: the home worker's, or the next entry's.

        The home worker has to be gone for that, or not to know this source's stream for long.
        """
        if self._started_at is None:
            return None
        first = next(iter(self._receivers.values()))
        if first.report is None and now - self._started_at < HOME_GRACE_S:
            return None
        found = None
        for name, receiver in self._receivers.items():
            if receiver.ready(now) and not receiver.refuses(now):
                found = name
                break
            if receiver.ready(now) and found is None:
                found = name
        if found is None:
            return None
        self.home = found
        return self._receivers[found].outbound

    def is_heard(self, name: str) -> bool:
        """Whether the entry has ever said anything."""
        return self._receivers[name].report is not None

    def hear(self, report: WorkerReport, now: float) -> Receiver | None:
        """Takes in a worker's status; answers the entry that it is."""
        name = report.worker.name
        if self._heard.get(name, (None, 0.0))[0] == report.worker:
            self._heard[name] = (report.worker, now)
        receiver = self._receivers.get(name)
        if receiver is not None:
            receiver.hear(report, now)
        return receiver

    def hears(self, worker: PeerId, now: float) -> bool:
        """The worker has opened its stream of answers. Answers whether that is news."""
        name = worker.name
        if len(self._heard) >= WORKERS_MAX and name not in self._heard and name not in self._receivers:
            return False
        is_new = self._heard.get(name, (None, 0.0))[0] != worker
        self._heard[name] = (worker, now)
        return is_new

    def acknowledged(self, event: AnswersReceived) -> None:
        """Takes in the credit that answers have brought along."""
        receiver = self._receivers.get(event.worker.name)
        outbound = receiver.outbound if receiver is not None and receiver.is_open else None
        if outbound is not None and outbound.receiver == event.worker:
            outbound.acknowledge(event.received, event.credit)

    def expect(self, model_id: str) -> None:
        """From now on frames need this model."""
        for receiver in self._receivers.values():
            receiver.expect(model_id)

    def streams(self, now: float) -> tuple[StreamReport, ...]:
        """What is said of each worker: whether its answers arrive, and how many frames were sent to it."""
        self._heard = {name: heard for name, heard in self._heard.items() if now - heard[1] <= FORGET_WORKER_S}
        streams = {worker: StreamReport(worker, open=True) for worker, _ in self._heard.values()}
        for receiver in self._receivers.values():
            if receiver.outbound is not None:
                worker = receiver.outbound.receiver
                streams[worker] = streams.get(worker, StreamReport(worker))._replace(sent=receiver.outbound.sent)
        return tuple(streams.values())
