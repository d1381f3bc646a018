# SPDX-License-Identifier: Apache-2.0
"""What comes to a worker: the streams of sources and other workers, and the room that each gets."""

from __future__ import annotations

from mdi_exit_ros.policy.credits import Arrival, CreditPool, Inbound
from mdi_exit_ros.policy.events import SourceReport, StreamReport, WorkerReport
from mdi_exit_ros.policy.peers import FORGET_PEER_S, Peer, Peers
from mdi_exit_ros.policy.worker_setup import WorkerSetup
from mdi_exit_ros.task import PeerId

ROOM_PER_LANE_MIN = 2  # frames of sources, and of workers: one is run, one waits
SAME_ROOM = 0.7  # share of the room that is kept where no less would do


class Inflow:
    """The streams to one worker. Half of its room is for sources, the rest for tasks that continue.

    Attributes:
        peers: who has been heard lately.
        awaited: a sender is likely to wait for the next report, as its credit is low.
        lost: frames that were sent and did not come.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self._room_max = setup.settings.queue_capacity
        self._room_min = min(self._room_max, 2 * ROOM_PER_LANE_MIN * setup.lanes)
        self._me = setup.me
        self._liveness_timeout_s = setup.settings.liveness_timeout_s
        self._from_sources = CreditPool(self._room_max // 2)
        self._from_workers = CreditPool(self._room_max - self._room_max // 2)
        self._touched: list[Inbound] = []  # streams whose room has changed in this step
        self.peers = Peers(setup.me, setup.neighbours, setup.settings.liveness_timeout_s)
        self.awaited = True
        self.lost = 0

    @property
    def room(self) -> int:
        """Tasks that may be held at once."""
        return self._from_sources.size + self._from_workers.size

    def resize(self, frames: float) -> None:
        """Gives room for so many frames, within what the settings and the lanes ask for.

        Small changes are left alone: credit beyond a share that shrinks is taken back, which costs a stream a while.
        """
        room = round(min(max(frames, self._room_min), self._room_max))
        if room == self.room or (SAME_ROOM < room / self.room < 1.0 / SAME_ROOM and room < self._room_max):
            return
        self._from_sources.size = room // 2
        self._from_workers.size = room - room // 2
        self.awaited = True

    # ---- streams -----------------------------------------------------------------------------------------

    def open(self, sender: PeerId, sent_total: int, now: float) -> None:
        """The sender begins a stream; it gets none before its frames can be answered wherever they end."""
        if self.peers.is_answerable(sender, now):
            self._pool(sender).open(sender, sent_total, now)
            self.awaited = True

    def stream(self, sender: PeerId) -> Inbound | None:
        """The open stream of that very life."""
        stream = self._pool(sender).streams.get(sender.name)
        return stream if stream is not None and stream.sender == sender else None

    def arrive(self, stream: Inbound, sent_total: int, count: int, *, stamp: float, now: float) -> int | None:
        """Takes in a batch of `count` frames that ends at `sent_total`.

        Answers how many of them were within the stream's credit; of a batch that had been given up, how many find room
        in as much again as there is. None where the batch had come before.
        """
        lost_before = stream.lost
        within = max(0, min(count - max(0, sent_total - stream.limit), stream.outstanding))
        arrival = stream.arrive(sent_total, count)
        if arrival is Arrival.DUPLICATE:
            return None
        if arrival is Arrival.LATE:
            pool = self._pool(stream.sender)
            within = max(0, min(count, 2 * pool.size - pool.used))  # its room has been given out again
        stream.heard_at = now
        if stamp > stream.stamp:
            stream.stamp, stream.stamp_at = stamp, now
        self.lost += stream.lost - lost_before
        self._touched.append(stream)
        return within

    def release(self, stream: Inbound) -> None:
        """A frame of the stream has left: its room can be given again."""
        stream.held -= 1
        self._touched.append(stream)

    def settle(self) -> None:
        """At the end of a step: works out whether a sender is likely to wait for more credit."""
        self.awaited |= any(stream.is_low for stream in self._touched)
        self._touched.clear()

    # ---- what others say ---------------------------------------------------------------------------------

    def hear_worker(self, report: WorkerReport, own: frozenset[int], now: float) -> bool:
        """Takes in another worker's status; answers whether there is room to remember that one.

        A stream has room of its own for each segment that only this worker (which holds `own`) can run.
        """
        if self.peers.hear_worker(report.worker, report.stamp, now) is None:
            return False
        stream = self._from_workers.streams.get(report.worker.name)
        if stream is not None:
            stream.reserved = max(1, len(own.difference(report.segments)))
        self._hear(stream, report.worker, report.streams, now)
        return True

    def hear_source(self, report: SourceReport, now: float) -> bool:
        """Takes in a source's status; answers whether it has to be told that this worker would answer it."""
        source = self.peers.hear_source(report.source, report.stamp, now)
        if source is None:
            return False
        source.model_id, source.home = report.model_id, report.home
        heard_before, source.hears = source.hears, frozenset(each.peer for each in report.streams if each.open)
        is_deaf = self._me not in source.hears
        if is_deaf and self._me in heard_before:
            self._from_sources.close(report.source.name)
            self.awaited = True
        self._hear(self._from_sources.streams.get(report.source.name), report.source, report.streams, now)
        return is_deaf

    def forget_source(self, name: str) -> None:
        """The source has ended."""
        self._from_sources.close(name)
        self.peers.sources.pop(name, None)

    def _hear(self, stream: Inbound | None, sender: PeerId, said: tuple[StreamReport, ...], now: float) -> None:
        if stream is None or stream.sender != sender:
            return
        stream.heard_at = now
        mine = next((each for each in said if each.peer == self._me), None)
        if mine is not None:
            lost_before = stream.lost
            stream.announced(mine.sent, now, self._liveness_timeout_s)
            self.lost += stream.lost - lost_before

    # ---- what others are told ----------------------------------------------------------------------------

    def grant_to_sources(self, now: float) -> None:
        """Gives the room that is free to sources; one whose stream that closes is told soon."""
        self.awaited |= self._from_sources.grant(now, self.peers.sources_expected)

    def credit(self, source: PeerId) -> tuple[int, int]:
        """Frames that have come from the source in all, and what it may send beyond; zeros where it has no stream."""
        stream = self._from_sources.streams.get(source.name)
        return (stream.received, stream.outstanding) if stream is not None and stream.sender == source else (0, 0)

    def grant(self, now: float) -> None:
        """Forgets who has been silent and gives the room that is free."""
        self.awaited = False
        self.peers.forget(now)
        for pool, expected in (
            (self._from_sources, self.peers.sources_expected),
            (self._from_workers, self.peers.neighbours_expected),
        ):
            for name in [name for name, stream in pool.streams.items() if now - stream.heard_at > FORGET_PEER_S]:
                pool.close(name)
            pool.grant(now, expected)

    def reports(self, now: float) -> dict[PeerId, StreamReport]:
        """What is said of each stream: what has come, its credit, the newest stamps and how long they were kept."""
        reports: dict[PeerId, StreamReport] = {}
        for pool, known in ((self._from_sources, self.peers.sources), (self._from_workers, self.peers.workers)):
            for name, stream in pool.streams.items():
                peer = known.get(name)
                if peer is None or peer.life != stream.sender:
                    peer = Peer(stream.sender, since=now, heard_at=now)
                reports[stream.sender] = StreamReport(
                    peer=stream.sender,
                    open=True,
                    received=stream.received,
                    credit=stream.outstanding,
                    echo_stamp=peer.stamp,
                    echo_hold_s=now - peer.heard_at,
                    batch_echo_stamp=stream.stamp,
                    batch_echo_hold_s=now - stream.stamp_at if stream.stamp >= 0.0 else 0.0,
                )
        return reports

    def _pool(self, sender: PeerId) -> CreditPool:
        return self._from_sources if self.peers.is_source(sender) else self._from_workers
