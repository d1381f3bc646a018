# SPDX-License-Identifier: Apache-2.0
"""The sources and workers that a worker has heard lately: who hears whom, and whose frames can be answered."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from mdi_exit_ros.task import PeerId

FORGET_PEER_S = 5.0  # silence after which a peer is forgotten and its credit taken back
PEERS_MAX = 1024  # sources and workers remembered; who comes later is heard when others have been forgotten


@dataclasses.dataclass
class Peer:
    """A node heard lately: its life, since when, and its newest status.

    Where it is a source, `hears` are the workers whose answers it hears, `home` the one that its frames enter, and
    `model_id` its model.
    """

    life: PeerId
    since: float
    stamp: float = -1.0
    heard_at: float = 0.0
    hears: frozenset[PeerId] = frozenset()
    home: str = ""
    model_id: str = ""


class Peers:
    """What the worker `me` has heard of others.

    Args:
        neighbours: workers that share an edge with it, of which there is always room for one more.
        liveness_timeout_s: age of a peer's newest status beyond which it counts as dead.
    """

    def __init__(self, me: PeerId, neighbours: Collection[str], liveness_timeout_s: float) -> None:
        self.sources: dict[str, Peer] = {}
        self.workers: dict[str, Peer] = {}
        self._me = me
        self._neighbours = frozenset(neighbours)
        self._liveness_timeout_s = liveness_timeout_s

    def hear_source(self, life: PeerId, stamp: float, now: float) -> Peer | None:
        """Takes in a source's status; None where there is no room for it."""
        return self._hear(self.sources, life, stamp, now)

    def hear_worker(self, life: PeerId, stamp: float, now: float) -> Peer | None:
        """Takes in a worker's status; None where there is no room for it."""
        return self._hear(self.workers, life, stamp, now)

    def _hear(self, known: dict[str, Peer], life: PeerId, stamp: float, now: float) -> Peer | None:
        peer = known.get(life.name)
        if peer is None and len(known) >= PEERS_MAX and life.name not in self._neighbours:
            return None
        if peer is None or peer.life != life:
            peer = known[life.name] = Peer(life, since=now)
        peer.stamp, peer.heard_at = stamp, now
        return peer

    def forget(self, now: float) -> None:
        """Forgets who has been silent."""
        for heard in (self.sources, self.workers):
            for name in [name for name, peer in heard.items() if now - peer.heard_at > FORGET_PEER_S]:
                del heard[name]

    def is_source(self, sender: PeerId) -> bool:
        """Whether this life is that of a source."""
        source = self.sources.get(sender.name)
        return source is not None and source.life == sender

    def is_answerable(self, sender: PeerId, now: float) -> bool:
        """Whether the frames that `sender` would send can be answered wherever they end: else answers would be lost.

        A source must hear this worker and all workers alive, for its frames may move to any of them; a worker may
        send the frames of any source, so every source must hear this worker. What others do not achieve within
        `FORGET_PEER_S`, from when both were there, is not waited for.
        """
        if self.is_source(sender):
            hears, since = self.sources[sender.name].hears, self.sources[sender.name].since
            alive = (each for each in self.workers.values() if self._is_alive(each, now))
            missing = (each for each in alive if self._neighbours and each.life not in hears)
            return self._me in hears and all(now - max(each.since, since) > FORGET_PEER_S for each in missing)
        worker = self.workers.get(sender.name)
        if worker is None or worker.life != sender or not self.sources:
            return False
        deaf = (each for each in self.sources.values() if self._me not in each.hears)
        return all(now - each.since > FORGET_PEER_S for each in deaf)

    def need_model(self, model_id: str, now: float) -> tuple[str, ...]:
        """Sources that are alive and may still have frames of this model."""
        return tuple(
            name for name, each in self.sources.items() if each.model_id == model_id and self._is_alive(each, now)
        )

    @property
    def sources_expected(self) -> int:
        """Sources that may have a stream before long: those whose frames enter here, and that hear the answers."""
        return sum(each.home == self._me.name and self._me in each.hears for each in self.sources.values())

    @property
    def neighbours_expected(self) -> int:
        """Workers that may have a stream before long."""
        return sum(name in self._neighbours for name in self.workers)

    def _is_alive(self, peer: Peer, now: float) -> bool:
        return now - peer.heard_at <= self._liveness_timeout_s
