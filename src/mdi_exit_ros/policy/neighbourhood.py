# SPDX-License-Identifier: Apache-2.0
"""The workers that share an edge with this one: what each has to do, and which would begin a task soonest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from mdi_exit_ros.policy.estimation import TransferDelay
from mdi_exit_ros.policy.events import StreamReport, WorkerReport
from mdi_exit_ros.policy.offloading import expected_delay_s
from mdi_exit_ros.policy.receiver import Receiver
from mdi_exit_ros.task import PeerId


class Neighbour(Receiver):
    """A receiver that shares an edge with this worker: besides, what reaching it costs.

    Attributes:
        delay: D_nm, as measured.
        measured_from: stamps from before say how long the neighbour was silent, not how fast the link is.
        queued: I_m, with what was sent and is not acknowledged, as of the last `settle`.
        room: frames that it has given credit for.
        kept: per segment the part of that which is kept for later segments; infinite where it does not hold one.
        transfer_s: D_nm of a task of each segment (s).
        service_time_s: Gamma_m, per task (s).
    """

    def __init__(
        self,
        name: str,
        me: PeerId,
        model_id: str,
        input_nbytes: tuple[int, ...],
        *,
        liveness_timeout_s: float,
        stall_timeout_s: float,
    ) -> None:
        super().__init__(me, model_id, liveness_timeout_s=liveness_timeout_s, stall_timeout_s=stall_timeout_s)
        self.name = name
        self.delay = TransferDelay()
        self.measured_from = 0.0
        self.queued = 0.0
        self.room = 0
        self.service_time_s = 0.0
        self._input_nbytes = input_nbytes
        self.transfer_s = [0.0] * len(input_nbytes)
        self.kept = [math.inf] * len(input_nbytes)
        self._backlog = 0.0  # I_m and O_m, from which I_m is filled up
        self._settled_at = 0.0

    def settle(self, now: float) -> None:
        """Takes off what it has run, at its own pace, since it was last known."""
        if self.service_time_s > 0.0:
            self._backlog = max(0.0, self._backlog - (now - self._settled_at) / self.service_time_s)
            self.queued = min(self.queued, self._backlog)
        self._settled_at = now

    def holds(self, segment: int) -> bool:
        """Whether it can run the segment."""
        return self.kept[segment - 1] < math.inf

    def may_take(self, segment: int) -> bool:
        """Whether it has given credit for one more task of the segment."""
        return self.room > self.kept[segment - 1]

    def delay_s(self, segment: int) -> float:
        """Time until it would begin a task of the segment that is sent now, as of the last `settle` (s)."""
        return expected_delay_s(self.transfer_s[segment - 1], self.queued, self.service_time_s)

    def send(self, now: float) -> None:
        """Counts in a task that is sent."""
        assert self.outbound is not None
        self.settle(now)
        self.outbound.sent += 1
        self.room -= 1
        self.queued += 1.0
        self._backlog += 1.0

    def measure(self, mine: StreamReport, now: float, weight: float) -> None:
        """Works out D_nm per segment from the stamps that it sends back; `weight` (0..1) is that of the new ones."""
        if mine.echo_stamp >= self.measured_from:
            self.delay.status_echoed(now - mine.echo_stamp - mine.echo_hold_s, weight)
        if mine.batch_echo_stamp >= self.measured_from:
            trip_s = now - mine.batch_echo_stamp - mine.batch_echo_hold_s
            self.delay.batch_echoed(mine.batch_echo_stamp, trip_s, weight)
        self.transfer_s = [self.delay.seconds(nbytes) for nbytes in self._input_nbytes]

    def described(self, report: StreamReport) -> StreamReport:
        """What is said of its stream, with what was sent to it and how long a task of the last segment takes there."""
        assert self.outbound is not None
        nbytes = self._input_nbytes[-1]
        return report._replace(
            sent=self.outbound.sent,
            transfer_delay_s=self.delay.seconds(nbytes) if self.delay.known else -1.0,
            moving_s=self.delay.moving_s(nbytes),
        )

    def hear(self, report: WorkerReport, now: float) -> StreamReport | None:
        """See Receiver.hear."""
        if self.report is not None and not self.ready(now):
            self.measured_from = now
        mine = super().hear(report, now)
        assert self.outbound is not None
        self.queued = float(report.input_queue + self.outbound.unacknowledged)
        self.service_time_s = report.service_time_s
        self._backlog = self.queued + float(report.output_queue)
        self._settled_at = now
        self.room = self.outbound.available
        return mine

    def keep(self, segments: tuple[int, ...], own: frozenset[int]) -> None:
        """Works out what credit is kept, from the segments that it holds and those of this worker.

        One frame is kept for each later segment that the neighbour holds and this worker does not: such tasks must
        be able to move however many earlier ones are stuck, so a circle of full queues empties from its last segment.
        """
        self.kept = [math.inf] * len(self._input_nbytes)
        for segment in segments:
            if segment <= len(self.kept):
                self.kept[segment - 1] = sum(later > segment and later not in own for later in segments)


class Neighbourhood:
    """All neighbours, in the order of their names."""

    def __init__(self, neighbours: Iterable[Neighbour]) -> None:
        self._all = sorted(neighbours, key=lambda each: each.name)
        self._by_name = {each.name: each for each in self._all}

    def __iter__(self) -> Iterator[Neighbour]:
        return iter(self._all)

    def __getitem__(self, index: int) -> Neighbour:
        return self._all[index]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def get(self, name: str) -> Neighbour | None:
        """The neighbour of that name."""
        return self._by_name.get(name)

    def delays_s(self, segment: int, now: float, longest: float) -> list[float]:
        """For each neighbour the expected delay of a task that is sent now (s).

        Infinite where it cannot take the task: not ready, no credit, or `longest` frames or more to run. The loop is
        the cost of a decision among many neighbours, so it calls nothing where it need not.
        """
        index = segment - 1
        delays = []
        for each in self._all:
            if each.room <= each.kept[index] or now > each.ready_until:
                delays.append(math.inf)
                continue
            if each.queued:
                each.settle(now)
            if each.queued >= longest:
                delays.append(math.inf)
            else:
                delays.append(each.transfer_s[index] + each.queued * each.service_time_s)
        return delays
