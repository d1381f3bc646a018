# SPDX-License-Identifier: Apache-2.0
"""Who hears whom, and how what nodes send to each other gets there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from mdi_exit_ros.policy.actions import SendAnswers, SendTasks
from mdi_exit_ros.policy.events import AnswersReceived, AppliedPolicy, SourceReport, TasksReceived, WorkerReport
from mdi_exit_ros.simulation.clock import Clock
from mdi_exit_ros.simulation.controller_shell import SimulatedController
from mdi_exit_ros.simulation.costs import NodeCosts
from mdi_exit_ros.simulation.network import Network
from mdi_exit_ros.simulation.source_shell import SimulatedSource
from mdi_exit_ros.simulation.worker_shell import SimulatedWorker
from mdi_exit_ros.task import PeerId

POLICY_NBYTES = 300


class Hearing(NamedTuple):
    """Who hears whom.

    Attributes:
        of_worker: workers and sources that hear each worker.
        of_source: workers that hear each source.
    """

    of_worker: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    of_source: Mapping[str, tuple[str, ...]]


def who_hears_whom(neighbours: Mapping[str, tuple[str, ...]], homes: Mapping[str, str], reach: int | None) -> Hearing:
    """Who hears whom: everybody, or with `reach` workers their neighbours, and sources what is so many hops from home.

    Args:
        neighbours: of each worker.
        homes: the home worker of each source.
        reach: in hops; None for no limit.
    """
    names = tuple(neighbours)
    if reach is None:
        everybody = {name: (tuple(each for each in names if each != name), tuple(homes)) for name in names}
        return Hearing(everybody, dict.fromkeys(homes, names))
    beside: dict[str, dict[str, None]] = {name: dict.fromkeys(neighbours[name]) for name in names}
    for name in names:
        for other in neighbours[name]:
            beside[other][name] = None
    audience: dict[str, tuple[str, ...]] = {}
    known: dict[str, list[str]] = {name: [] for name in names}
    for source, home in homes.items():
        near, edge = {home: None}, [home]
        for _ in range(reach):
            edge = list(dict.fromkeys(other for name in edge for other in beside[name] if other not in near))
            near.update(dict.fromkeys(edge))
        audience[source] = tuple(near)
        for name in near:
            known[name].append(source)
    return Hearing({name: (tuple(beside[name]), tuple(known[name])) for name in names}, audience)


class Delivery:
    """Carries everything that nodes send: see Carrier. What is for a node that is dead gets lost.

    Args:
        together: messages of any size take the same time everywhere, and so arrive at all who hear them in one.
        places: the computer of each node.
        workers, sources: the nodes that live, by name; others may come and go.
        hearing: who hears whom.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        network: Network,
        costs: NodeCosts,
        together: bool,
        places: Mapping[str, str],
        workers: Mapping[str, SimulatedWorker],
        sources: Mapping[str, SimulatedSource],
        hearing: Hearing,
    ) -> None:
        self.network = network
        self._clock = clock
        self._costs = costs
        self._plain = together
        self._places = places
        self._workers = workers
        self._sources = sources
        self._hearing = hearing
        self._everybody = tuple(hearing.of_worker)
        self.controller: SimulatedController | None = None

    def tasks(self, sender: PeerId, model_id: str, action: SendTasks, nbytes: int) -> None:
        """See Carrier."""
        receiver = action.receiver.name
        event = TasksReceived(
            sender, action.receiver.incarnation, action.sent_total, action.stamp, model_id, action.tasks
        )

        def arrive() -> None:
            worker = self._workers.get(receiver)
            if worker is not None:
                worker.take_tasks(event, nbytes)

        self._send(sender.name, receiver, nbytes, arrive, "tasks")

    def answers(self, sender: PeerId, action: SendAnswers, nbytes: int) -> None:
        """See Carrier."""
        event = AnswersReceived(sender, action.source, action.answers, action.received, action.credit)
        source = self._sources.get(action.source.name)
        if source is not None:
            self._send(sender.name, action.source.name, nbytes, lambda: source.take_answers(event), "answers")

    def worker_report(self, report: WorkerReport, nbytes: int) -> None:
        """See Carrier."""
        workers, sources = self._hearing.of_worker[report.worker.name]
        self._broadcast(report.worker.name, workers, sources, report, nbytes)
        if self.controller is not None:
            self.controller.take_report(report)

    def source_report(self, report: SourceReport, nbytes: int) -> None:
        """See Carrier."""
        self._broadcast(report.source.name, self._hearing.of_source[report.source.name], (), report, nbytes)
        if self.controller is not None:
            self.controller.take_report(report)

    def policy(self, policy: AppliedPolicy) -> None:
        """See Carrier."""
        assert self.controller is not None
        self._broadcast(self.controller.name, self._everybody, tuple(self._sources), policy, POLICY_NBYTES)

    def _broadcast(
        self, sender: str, workers: tuple[str, ...], sources: tuple[str, ...], message: Any, nbytes: int
    ) -> None:
        work_us = self._costs.status_in_us

        def to_worker(name: str) -> None:
            worker = self._workers.get(name)
            if worker is not None:
                worker.take(message, work_us)

        def to_source(name: str) -> None:
            source = self._sources[name]
            if isinstance(message, WorkerReport):
                source.take_report(message)
            else:
                source.take(message, work_us)

        if self._plain:
            count = len(workers) + len(sources)
            self.network.messages["control"] += count
            self.network.nbytes["control"] += count * nbytes

            place, far_s = self._places[sender], self.network.link("a", "b").latency_s
            near_s = self.network.link(place, place).latency_s

            def arrive(near: bool) -> None:
                for names, deliver in ((workers, to_worker), (sources, to_source)):
                    for name in names:
                        if near is (near_s == far_s or self._places[name] == place):
                            deliver(name)

            self._clock.after(near_s, lambda: arrive(True))
            if near_s != far_s:
                self._clock.after(far_s, lambda: arrive(False))
            return
        for names, deliver in ((workers, to_worker), (sources, to_source)):
            for name in names:
                then = partial(deliver, name)
                self._send(sender, name, nbytes, then, "control")

    def _send(self, sender: str, receiver: str, nbytes: int, then: Callable[[], None], kind: str) -> None:
        computers = self._places[sender], self._places[receiver]
        self.network.send((sender, receiver), computers, nbytes, then, kind=kind)
