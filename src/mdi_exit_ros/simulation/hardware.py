# SPDX-License-Identifier: Apache-2.0
"""The computers and the network of a scenario."""

from __future__ import annotations

import math
import random

from mdi_exit_ros.simulation.clock import Clock
from mdi_exit_ros.simulation.deployment import Deployment
from mdi_exit_ros.simulation.network import Link, Network
from mdi_exit_ros.simulation.processor import Processor
from mdi_exit_ros.simulation.scenario import ComputerEntry, LinkEntry, PairEntry, Scenario


class Hardware:
    """What nodes run on and send through.

    Args:
        rng: decides what jitter and loss do.

    Attributes:
        network: what messages go through.
        is_plain: messages of any size take the same time between any two computers, so they can be carried together.
    """

    def __init__(self, scenario: Scenario, deployment: Deployment, clock: Clock, rng: random.Random) -> None:
        self._scenario = scenario
        self._places = deployment.places
        self._controllers_place = deployment.places[deployment.sources[0]]
        self._clock = clock
        self._processors: dict[str, Processor] = {}
        self._quotas: dict[str, Processor] = {}
        self.network = _network(scenario, set(deployment.places.values()), clock, rng)
        link = self.network.link("a", "b")
        others = (
            scenario.links
            or any(event.link for event in scenario.events)
            or any(each.port_mbps is not None for each in (scenario.computer, *scenario.computers.values()))
        )
        self.is_plain = not others and math.isinf(link.rate_bps) and not link.jitter_s and not link.loss

    def computer_of(self, node: str) -> ComputerEntry:
        """What the computer of a node is like."""
        return self._scenario.computers.get(self._places[node], self._scenario.computer)

    def processor_of(self, node: str) -> Processor:
        """What a node computes on: its computer's processor, or its own where it has a quota."""
        quota, entry, costs = self._scenario.quotas.get(node), self.computer_of(node), self._scenario.costs
        if quota is not None:
            if node not in self._quotas:
                cores = min(quota * costs.quota_share, entry.cores)
                self._quotas[node] = Processor(self._clock, cores, speed=entry.speed)
            return self._quotas[node]
        place = self._places[node]
        if place not in self._processors:
            busy = costs.controller_cores if place == self._controllers_place else 0.0
            self._processors[place] = Processor(
                self._clock, max(0.05, entry.cores - busy), speed=entry.speed, all_busy=entry.all_busy
            )
        return self._processors[place]

    def set_speed(self, node: str, speed: float) -> None:
        """From now on the computer of a node has this speed."""
        for other, place in self._places.items():
            if place == self._places[node]:
                self.processor_of(other).speed = speed

    def set_link(self, entry: PairEntry) -> None:
        """From now on messages between two computers go through this link; those that are on their way are not."""
        self.network.set_link(entry.between, _link(entry, self._scenario.costs.transit_us * 1e-6))


def _network(scenario: Scenario, computers: set[str], clock: Clock, rng: random.Random) -> Network:
    transit_s = scenario.costs.transit_us * 1e-6
    links: dict[tuple[str, str], Link] = {}
    for entry in scenario.links:
        one, other = entry.between
        links[one, other] = links[other, one] = _link(entry, transit_s)
    rates = {name: scenario.computers.get(name, scenario.computer).port_mbps for name in computers}
    return Network(
        clock,
        rng,
        default=_link(scenario.network, transit_s),
        local=Link(latency_s=transit_s),
        links=links,
        ports={name: rate * 1e6 for name, rate in rates.items() if rate is not None},
    )


def _link(entry: LinkEntry, transit_s: float) -> Link:
    return Link(
        rate_bps=entry.rate_mbps * 1e6 if entry.rate_mbps is not None else math.inf,
        latency_s=entry.latency_ms * 1e-3 + transit_s,
        jitter_s=entry.jitter_ms * 1e-3,
        loss=entry.loss,
        repair_s=entry.repair_ms * 1e-3,
        medium=entry.medium,
    )
