# SPDX-License-Identifier: Apache-2.0
"""Flow control without loss: who may send how many frames, and what has arrived."""

from __future__ import annotations

import dataclasses
import enum

from mdi_exit_ros.task import PeerId


@dataclasses.dataclass
class Outbound:
    """This node's stream to one life of a receiver. Nothing is sent beyond `limit`, a count of frames in all."""

    receiver: PeerId
    sent: int = 0
    acked: int = 0
    limit: int = 0
    opened_at: float = float("-inf")

    @property
    def unacknowledged(self) -> int:
        """Frames sent that the receiver has not reported: they count into its queue."""
        return self.sent - self.acked

    @property
    def available(self) -> int:
        """Frames that may be sent now."""
        return max(0, self.limit - self.sent)

    def acknowledge(self, received: int, credit: int) -> None:
        """Takes in what the receiver says: `received` in all, and `credit` frames beyond.

        Both only grow, so the order in which it is heard does not matter. One that counts more than was sent speaks of
        a stream that this node has forgotten, as when a late status of the receiver's life before came in between: the
        stream goes on from there, or all that follows would be taken for duplicates.
        """
        self.sent = max(self.sent, received)
        self.acked = max(self.acked, received)
        self.limit = max(self.limit, received + credit)

    def void(self) -> None:
        """The receiver no longer knows the stream: nothing more may be sent on it."""
        self.limit = 0


class Arrival(enum.Enum):
    """What a batch is, by its place in the stream; one that is LATE had been given up as lost."""

    NEXT = enum.auto()
    LATE = enum.auto()
    DUPLICATE = enum.auto()


GIVEN_UP_MAX = 16  # gaps of a stream that are remembered, as what they lack may still come
HOARDING_S = 0.5  # silence of a stream after which credit beyond its share is taken back


@dataclasses.dataclass
class Inbound:
    """One sender's stream to this node.

    Attributes:
        limit: frames that the sender may send in all.
        held: frames of the stream that have not left this node.
        reserved: share that the stream has however full the pool is, so that tasks which only this node can run
            are never kept out by others.
        share: frames that the stream may hold and have outstanding, as of the last grant.
        stamp, stamp_at: the sender's stamp of the newest batch (negative before the first), and when it came.
    """

    sender: PeerId
    heard_at: float
    received: int = 0
    limit: int = 0
    lost: int = 0
    held: int = 0
    reserved: int = 1
    share: int = 1
    stamp: float = -1.0
    stamp_at: float = 0.0
    _announced: int = 0
    _announced_at: float = 0.0
    _given_up: list[tuple[int, int]] = dataclasses.field(default_factory=list)

    @property
    def outstanding(self) -> int:
        """Frames that the sender may still send: they occupy room."""
        return max(0, self.limit - self.received)

    @property
    def is_low(self) -> bool:
        """Whether the next grant can double what the sender may send: it may be waiting for that."""
        return 2 * (self.held + self.outstanding) <= self.share

    def arrive(self, sent_total: int, count: int) -> Arrival:
        """Takes in a batch of `count` frames that ends at `sent_total`; a gap in front of it is counted as lost."""
        if sent_total <= self.received:
            return Arrival.LATE if self._find(sent_total - count, sent_total) else Arrival.DUPLICATE
        self._lose_up_to(sent_total - count)
        self.received = sent_total
        return Arrival.NEXT

    def announced(self, sent: int, now: float, patience_s: float) -> None:
        """The sender says how much it has sent: what has not come `patience_s` later is lost.

        Without this a lost last batch would hold its credit for ever. A stream that is always a batch behind, as
        statuses overtake tensors, loses nothing: each announcement is held against its own time.
        """
        if self._announced > self.received:
            if now - self._announced_at < patience_s:
                return
            self._lose_up_to(self._announced)
            self.received = self._announced
        self._announced, self._announced_at = sent, now

    def _lose_up_to(self, sent: int) -> None:
        # Frames beyond the credit cannot be lost: who counts them has made them up.
        end = min(sent, self.limit)
        if end > self.received:
            self.lost += end - self.received
            self._given_up = [*self._given_up[1 - GIVEN_UP_MAX :], (self.received, end)]

    def _find(self, start: int, end: int) -> bool:
        """Whether the frames from `start` up to `end` are among those given up; they no longer are."""
        for index, (first, last) in enumerate(self._given_up):
            if first <= start < end <= last:
                parts = [(first, start), (end, last)]
                self._given_up[index : index + 1] = [part for part in parts if part[0] < part[1]]
                self.lost -= end - start
                return True
        return False


class CreditPool:
    """Room of `size` frames, given out as credit to the streams of one kind of sender.

    A stream's frames held here and its outstanding credit together stay within its share of the pool, all of them
    within the pool; only a stream's `reserved` share may go beyond that.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.streams: dict[str, Inbound] = {}
        self._closed: list[Inbound] = []

    def open(self, sender: PeerId, sent: int, now: float) -> Inbound:
        """The sender's stream, which has sent `sent` frames before; a new life of the sender voids the old credit."""
        stream = self.streams.get(sender.name)
        if stream is None or stream.sender != sender:
            self.close(sender.name)
            stream = self.streams[sender.name] = Inbound(sender, now, received=sent, limit=sent, stamp_at=now)
        stream.heard_at = now
        return stream

    def close(self, name: str) -> None:
        """Takes the stream's credit back; what it sent still takes up room until it has left."""
        stream = self.streams.pop(name, None)
        if stream is not None:
            self._closed.append(stream)

    def grant(self, now: float, expected: int = 1) -> bool:
        """Gives free room to streams below their share, the neediest first; answers whether one was closed.

        A stream that sends nothing while it holds more than its share, as one does that opened before the others,
        is closed: its sender opens it again and gets its share.

        Args:
            now: local monotonic time (s).
            expected: streams that will be open before long; each gets its share kept.
        """
        share = self.size // max(1, len(self.streams), expected)
        closed = False
        for name, stream in list(self.streams.items()):
            beyond = stream.held + stream.outstanding > max(share, stream.reserved)
            if beyond and not stream.held and now - stream.stamp_at >= HOARDING_S:
                self.close(name)
                closed = True
        self._closed = [stream for stream in self._closed if stream.held]
        used = self.used
        for stream in sorted(self.streams.values(), key=lambda each: (each.outstanding, each.sender)):
            stream.share = share
            mine = stream.held + stream.outstanding
            more = max(min(share - mine, self.size - used), stream.reserved - mine)
            if more > 0:
                stream.limit = stream.received + stream.outstanding + more
                used += more
        return closed

    @property
    def used(self) -> int:
        """Frames that take up room, or may come at any time."""
        return sum(stream.held for stream in self._closed) + sum(
            stream.held + stream.outstanding for stream in self.streams.values()
        )
