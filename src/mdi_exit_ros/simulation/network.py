# SPDX-License-Identifier: Apache-2.0
"""Links between computers: rate, latency, jitter and loss, of their own or of a medium that several share."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping

from mdi_exit_ros.simulation.clock import Clock

PACKET_NBYTES = 1472  # what one UDP packet carries on Ethernet and Wi-Fi
ROUNDS_MAX = 50


@dataclasses.dataclass(frozen=True)
class Link:
    """What one computer's messages to another go through.

    Attributes:
        rate_bps: bits per second; infinite where no rate limits it.
        latency_s: time on the way besides the time to send the bits.
        jitter_s: mean of what is added to that, exponentially distributed.
        loss: share of packets (0..1) that are lost; a reliable topic sends them again.
        repair_s: time after which the loss of a packet is noticed, beyond a round trip.
        medium: name of what several links share, such as a Wi-Fi channel; empty for a link of its own.
    """

    rate_bps: float = float("inf")
    latency_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    repair_s: float = 0.01
    medium: str = ""


@dataclasses.dataclass
class _NewestOnly:
    """A control message that waits for its link; a newer one takes its place."""

    begins_at: float
    then: Callable[[], None]

    def arrive(self) -> None:
        """Delivers what is newest."""
        self.then()


_Channel = str | tuple[str, str]  # a medium, sender and receiver, or a direction and whose port


class Network:
    """Carries messages, those of one sender to one receiver in order, as reliable topics do.

    Args:
        links: by the names of two computers, sender first.
        default: of all others.
        local: between nodes of one computer.
        ports: bits per second that a computer's port carries in each direction, by its name; no limit for others.
    """

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        default: Link,
        local: Link,
        links: Mapping[tuple[str, str], Link] | None = None,
        ports: Mapping[str, float] | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._links = dict(links or {})
        self._default = default
        self._local = local
        self._ports = dict(ports or {})
        self._free_at: dict[_Channel, float] = {}
        self._arrivals: dict[tuple[str, str], float] = {}
        self._waiting: dict[tuple[str, str], _NewestOnly] = {}
        self.messages: Counter[str] = Counter()
        self.nbytes: Counter[str] = Counter()

    def link(self, sender: str, receiver: str) -> Link:
        """What messages from one computer to another go through."""
        return self._local if sender == receiver else self._links.get((sender, receiver), self._default)

    def set_link(self, computers: tuple[str, str], link: Link) -> None:
        """From now on messages between two computers go through `link`; those before arrive as they would."""
        for pair in (computers, computers[::-1]):
            self._links[pair] = link
            self._free_at.pop(pair, None)

    def send(
        self,
        route: tuple[str, str],
        computers: tuple[str, str],
        nbytes: int,
        then: Callable[[], None],
        *,
        kind: str,
    ) -> None:
        """Carries one message and calls `then` when it has arrived.

        Args:
            route: names of sender and receiver; what they exchange stays in order.
            computers: where they are.
            nbytes: size of the message.
            kind: `tasks`, `answers` or `control`, counted apart. Of a sender's control messages that wait for the
                link only the newest goes, as topics that keep the last do.
        """
        now, before = self._clock.now, self._arrivals.get(route, 0.0)
        if kind == "control":
            waiting = self._waiting.get(route)
            if waiting is not None and waiting.begins_at > now:
                waiting.then = then
                return
        self.messages[kind] += 1
        self.nbytes[kind] += nbytes
        begins_at, arrival = self._times(computers, nbytes)
        if kind == "control" and begins_at > now:
            self._waiting[route] = newest = _NewestOnly(begins_at, then)
            then = newest.arrive
        delay = max(arrival, before) - now
        if now + delay < before:  # by rounding
            delay += math.ulp(before)
        self._arrivals[route] = now + delay
        self._clock.after(delay, then)

    def _times(self, computers: tuple[str, str], nbytes: int) -> tuple[float, float]:
        """When a message of now gets the link, and when it has arrived."""
        link = self.link(*computers)
        sizes, repaired = [nbytes], 0.0
        if link.loss > 0.0:
            lost = self._lost(-(-nbytes // PACKET_NBYTES), link.loss)
            while lost and len(sizes) <= ROUNDS_MAX:
                sizes.append(lost * PACKET_NBYTES)
                repaired += 2.0 * link.latency_s + link.repair_s
                lost = self._lost(lost, link.loss)
        begun = sent = self._clock.now
        for channel, rate_bps in self._path(computers, link):
            begun = max(begun, self._free_at.get(channel, 0.0))
            free_at = begun
            for size in sizes:
                free_at += 8.0 * size / rate_bps
            self._free_at[channel] = free_at
            sent = max(sent, free_at)
        jitter = self._rng.expovariate(1.0 / link.jitter_s) if link.jitter_s > 0.0 else 0.0
        return begun, sent + repaired + link.latency_s + jitter

    def _path(self, computers: tuple[str, str], link: Link) -> list[tuple[_Channel, float]]:
        """What a message passes on its way that carries one after the other, with its bits per second."""
        path: list[tuple[_Channel, float]] = []
        if link.rate_bps < float("inf"):
            path.append((link.medium or computers, link.rate_bps))
        if self._ports and link is not self._local:
            sender, receiver = computers
            if sender in self._ports:
                path.insert(0, (("out", sender), self._ports[sender]))
            if receiver in self._ports:
                path.append((("in", receiver), self._ports[receiver]))
        return path

    def _lost(self, packets: int, loss: float) -> int:
        return sum(self._rng.random() < loss for _ in range(packets))
