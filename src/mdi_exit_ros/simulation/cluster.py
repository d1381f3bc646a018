# SPDX-License-Identifier: Apache-2.0
"""A simulated cluster: the deployment plan's nodes on simulated computers, joined by a simulated network."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.parameter import parameters_of
from mdi_exit_ros.plan import Plan, PlannedNode, PlanOptions, make_plan
from mdi_exit_ros.policy.actions import LoadModel
from mdi_exit_ros.policy.admission import AdaptationSettings
from mdi_exit_ros.policy.bottleneck import AllocationSetup, successors_of
from mdi_exit_ros.policy.cadence import LINGER_S
from mdi_exit_ros.policy.controller import ControllerCore, ControllerSetup
from mdi_exit_ros.policy.events import (
    ModelWanted,
    SetPoints,
    Shutdown,
)
from mdi_exit_ros.policy.scheduling import lanes_used
from mdi_exit_ros.policy.source import SourceCore, SourceSettings, SourceSetup
from mdi_exit_ros.policy.worker import WorkerCore, WorkerSettings, WorkerSetup
from mdi_exit_ros.simulation.arrivals import camera_of
from mdi_exit_ros.simulation.clock import Clock
from mdi_exit_ros.simulation.controller_shell import SimulatedController
from mdi_exit_ros.simulation.delivery import Delivery, who_hears_whom
from mdi_exit_ros.simulation.generated import generated_topology
from mdi_exit_ros.simulation.model import SimulatedModel
from mdi_exit_ros.simulation.network import Link, Network
from mdi_exit_ros.simulation.processor import Processor
from mdi_exit_ros.simulation.recording import Recording
from mdi_exit_ros.simulation.scenario import (
    ComputerEntry,
    EventEntry,
    Generated,
    LinkEntry,
    Scenario,
    simulated_parameters,
)
from mdi_exit_ros.simulation.shells import Trace
from mdi_exit_ros.simulation.source_shell import SimulatedSource
from mdi_exit_ros.simulation.worker_shell import SimulatedWorker
from mdi_exit_ros.summary import merge, summarise, with_workers
from mdi_exit_ros.task import Mode, PeerId, Strategy, Task
from mdi_exit_ros.topology import Topology, load_topology, meant

ALL_HERE = "computer"  # the one that all nodes are on when they are together

Settings = TypeVar("Settings", WorkerSettings, SourceSettings, AdaptationSettings)


def topology_of(scenario: Scenario) -> Topology:
    """The topology that a scenario names or describes.

    Raises:
        ConfigurationError: there is no such file, or it cannot be used.
    """
    if isinstance(scenario.topology, Generated):
        return generated_topology(scenario.topology)
    try:
        return load_topology(scenario.topology)
    except ConfigurationError as error:
        raise ConfigurationError(f"topology: {error}") from error


class Simulation:
    """One simulation, from its scenario to a summary like that of a real run.

    Args:
        scenario: what happens.
        model: the network without its tensors.
        trace: told every action of every core, with time and node.

    Raises:
        ConfigurationError: scenario, topology and model do not fit each other.
    """

    def __init__(self, scenario: Scenario, model: SimulatedModel, *, trace: Trace | None = None) -> None:
        self.scenario = scenario
        self.model = model
        self.clock = Clock()
        self._trace = trace
        self.topology = topology_of(scenario)
        self.plan = self._plan()
        self._check_names()
        self._rng = random.Random(scenario.seed)
        self._processors: dict[str, Processor] = {}
        self._quotas: dict[str, Processor] = {}
        self.network = self._network()
        self._models = {each.model_id: each for each in (model, *model.others.values())}
        self._said = {model_id: _said(each.recording) for model_id, each in self._models.items()}
        self._offsets: dict[str, int] = {}
        self.workers: dict[str, SimulatedWorker] = {}
        self.dead: dict[str, list[SimulatedWorker]] = {}
        self.sources: dict[str, SimulatedSource] = {}
        self._places = {node.name: self._computer_of(node) for node in self.plan.nodes}
        self._planned = {node.name: node for computer in self._computers() for node in self.plan.on(computer)}
        workers, sources = self.plan.named("segment_worker"), self.plan.named("camera_source")
        self._neighbours = {node.name: tuple(node.parameters.get("neighbours", ())) for node in workers}
        homes = {node.name: node.parameters["entries"][0] for node in sources}
        self.delivery = Delivery(
            clock=self.clock,
            network=self.network,
            costs=scenario.costs,
            together=self._is_plain(),
            places=self._places,
            workers=self.workers,
            sources=self.sources,
            hearing=who_hears_whom(self._neighbours, homes, scenario.reach),
        )
        for node in workers:
            self._start_worker(node.name)
        (planned,) = self.plan.named("controller")
        self.controller = self._make_controller(planned)
        for index, node in enumerate(sources):
            self._offsets[node.name] = index * 7919
            self.sources[node.name] = self._make_source(node)
        self.delivery.controller = self.controller
        for event in scenario.events:
            self.clock.after(event.at_s, lambda event=event: self._happen(event))  # type: ignore[misc]

    # ---- running ---------------------------------------------------------------------------------------------

    def run(self, on_progress: Callable[[int, int], None] = lambda closed, total: None) -> dict[str, Any]:
        """Simulates to the end; answers with the summary.

        Args:
            on_progress: called ten times per simulated second with frames closed and frames in all (0: unknown).
        """
        total = (self.scenario.frames or 0) * len(self.sources)

        def look() -> None:
            on_progress(sum(source.closed for source in self.sources.values()), total)
            self.clock.after(0.1, look)

        for node in (*self.workers.values(), self.controller, *self.sources.values()):
            node.begin()
        look()
        until = self.scenario.duration_s if self.scenario.duration_s is not None else math.inf
        self.clock.run(until)
        if not all(source.is_finished for source in self.sources.values()):
            self._shut_down()
        look()
        return self.summary()

    def _shut_down(self) -> None:
        """The time is over: sources end what they hold, as on Ctrl-C."""
        for source in self.sources.values():
            source.feed(Shutdown())
        self.clock.run(self.clock.now + LINGER_S)

    def _on_finished(self) -> None:
        if all(source.is_finished for source in self.sources.values()):
            self.clock.after(LINGER_S, self.clock.stop)

    def _happen(self, event: EventEntry) -> None:
        worker = self.workers.get(event.worker)
        match event.do:
            case "kill":
                if worker is not None:
                    worker.kill()
                    self.dead.setdefault(event.worker, []).append(self.workers.pop(event.worker))
            case "stop":
                if worker is not None:
                    worker.feed(Shutdown())
            case "start":
                if worker is not None:
                    worker.kill()
                    self.dead.setdefault(event.worker, []).append(worker)
                self._start_worker(event.worker).begin()
            case "speed":
                assert event.speed is not None
                for name, computer in self._places.items():
                    if computer == self._places[event.worker]:
                        self._processor_of(name).speed = event.speed
            case "model":
                assert event.model is not None
                self.controller.feed(ModelWanted(self.model.others[event.model].facts))

    # ---- building --------------------------------------------------------------------------------------------

    def _plan(self) -> Plan:
        scenario = self.scenario
        options = PlanOptions(
            strategy=scenario.strategy,
            model=scenario.model,
            exits=scenario.exits,
            worker=scenario.worker,
            source=scenario.source,
            controller=scenario.controller,
        )
        plan = make_plan(self.topology, options, self.model.num_segments, self.model.segment_costs)
        if scenario.thresholds is not None and len(scenario.thresholds) != self.model.num_segments - 1:
            raise ConfigurationError(
                f"thresholds: expected one for each of exits 1..{self.model.num_segments - 1} of {self.model.name}, "
                f"got {len(scenario.thresholds)}"
            )
        return plan.with_parameters(self._own_parameters(plan))

    def _own_parameters(self, plan: Plan) -> dict[str, dict[str, Any]]:
        kinds = {"segment_worker": "worker", "camera_source": "source", "controller": "controller"}
        known = {node.name: kinds[node.executable] for node in plan.nodes}
        found = {}
        for name, given in self.scenario.nodes.items():
            if name not in known:
                raise ConfigurationError(
                    f"nodes.{name}: there is no such node{meant(name, known)}: expected one of {', '.join(known)}"
                )
            found[name] = simulated_parameters(f"the scenario: nodes.{name}", known[name], given)
        return found

    def _check_names(self) -> None:
        computers = self._computers() if not self.scenario.together else (*self.topology.computers, ALL_HERE)
        workers = tuple(node.name for node in self.plan.named("segment_worker"))
        sources = tuple(node.name for node in self.plan.named("camera_source"))
        given = [(f"computers.{name}", name, computers, "computer") for name in self.scenario.computers]
        for index, link in enumerate(self.scenario.links):
            given += [(f"links.{index}.between", name, computers, "computer") for name in link.between]
        given += [(f"quotas.{name}", name, workers, "worker of this strategy") for name in self.scenario.quotas]
        given += [(f"arrivals_of.{name}", name, sources, "source") for name in self.scenario.arrivals_of]
        given += [
            (f"events.{index}.worker", event.worker, workers, "worker of this strategy")
            for index, event in enumerate(self.scenario.events)
            if event.do != "model"
        ]
        for key, name, known, what in given:
            if name not in known:
                raise ConfigurationError(
                    f"{key}: {name!r} is no {what} in {self.topology.origin}{meant(name, known)}: "
                    f"expected one of {', '.join(known[:20])}"
                )

    def _computers(self) -> tuple[str, ...]:
        return ("all",) if self.scenario.together else self.topology.computers

    def _computer_of(self, node: PlannedNode) -> str:
        return ALL_HERE if self.scenario.together else node.computer

    def _network(self) -> Network:
        transit_s = self.scenario.costs.transit_us * 1e-6
        links: dict[tuple[str, str], Link] = {}
        for entry in self.scenario.links:
            one, other = entry.between
            links[one, other] = links[other, one] = _link(entry, transit_s)
        return Network(
            self.clock,
            random.Random(self._rng.random()),
            default=_link(self.scenario.network, transit_s),
            local=Link(latency_s=transit_s),
            links=links,
        )

    def _is_plain(self) -> bool:
        """Whether messages of any size take the same time between any two computers: they can be carried together."""
        link = self.network.link("a", "b")
        return not self.scenario.links and math.isinf(link.rate_bps) and not link.jitter_s and not link.loss

    def _entry(self, computer: str) -> ComputerEntry:
        return self.scenario.computers.get(computer, self.scenario.computer)

    def _processor(self, computer: str) -> Processor:
        if computer not in self._processors:
            entry = self._entry(computer)
            first = next(iter(self.plan.named("camera_source")))
            busy = self.scenario.costs.controller_cores if computer == self._computer_of(first) else 0.0
            self._processors[computer] = Processor(
                self.clock, max(0.05, entry.cores - busy), speed=entry.speed, all_busy=entry.all_busy
            )
        return self._processors[computer]

    def _processor_of(self, name: str) -> Processor:
        quota = self.scenario.quotas.get(name)
        if quota is None:
            return self._processor(self._places[name])
        if name not in self._quotas:
            entry = self._entry(self._places[name])
            cores = min(quota * self.scenario.costs.quota_share, entry.cores)
            self._quotas[name] = Processor(self.clock, cores, speed=entry.speed)
        return self._quotas[name]

    def _common(self, node: PlannedNode) -> dict[str, Any]:
        return {
            "clock": self.clock,
            "processor": self._processor_of(node.name),
            "costs": self.scenario.costs,
            "trace": self._trace,
        }

    def _life(self, name: str) -> PeerId:
        return PeerId(name, self._rng.getrandbits(62) or 1)

    def _change_model(self, name: str, wanted: LoadModel) -> None:
        """Ends the life of a worker and begins one with another model."""
        worker = self.workers[name]
        policy = self.controller.policy
        worker.kill()
        self.dead.setdefault(name, []).append(worker)
        worker = self._start_worker(name, self._models[wanted.model_id], wanted.segments)
        worker.begin()
        if policy is not None:
            worker.take(policy, 0.0)

    def _start_worker(
        self, name: str, other: SimulatedModel | None = None, segments: tuple[int, ...] = ()
    ) -> SimulatedWorker:
        node, model = self._planned[name], other or self.model
        parameters = node.parameters
        entry = self._entry(self._places[name])
        settings = _settings(WorkerSettings, parameters)
        lanes = int(parameters.get("threads", 0)) or max(1, int(entry.cores) // int(parameters["workers_here"]))
        segments = segments or tuple(parameters["segments"])
        encoding = str(parameters["encoding"])
        if encoding not in model.input_nbytes:
            raise ConfigurationError(
                f"{self.topology.origin}: workers.{name}.encoding: expected one of {', '.join(model.input_nbytes)}, "
                f"got {encoding!r}"
            )
        setup = WorkerSetup(
            me=self._life(name),
            model_id=model.model_id,
            num_segments=model.num_segments,
            segments=frozenset(segments),
            input_nbytes=model.input_nbytes[encoding],
            neighbours=self._neighbours[name],
            strategy=Strategy(parameters["strategy"]),
            exits_enabled=parameters["exits"],
            exit_thresholds=self._thresholds() if other is None else other.facts.exit_thresholds,
            settings=settings,
            service_times=tuple(
                (segment, batch, seconds / entry.speed)
                for segment, batch, seconds in model.times.first_estimates(
                    segments, settings.batch_max, partial(lanes_used, lanes)
                )
            ),
        )
        core = WorkerCore(setup, random.Random(self._rng.random()))
        worker = SimulatedWorker(
            core,
            carrier=self.delivery,
            times=model.times,
            lanes=lanes,
            said=self._said[model.model_id],
            image_of=partial(self._image_of, len(model.recording)),
            change=partial(self._change_model, name),
            **self._common(node),
        )
        self.workers[name] = worker
        return worker

    def _thresholds(self) -> tuple[float, ...]:
        given = self.scenario.thresholds
        return tuple(given) if given is not None else self.model.facts.exit_thresholds

    def _image_of(self, images: int, task: Task) -> int:
        return (task.frame.sequence + self._offsets[task.frame.source.name]) % images

    def _make_controller(self, node: PlannedNode) -> SimulatedController:
        parameters = node.parameters
        core = ControllerCore(
            ControllerSetup(
                me=self._life(node.name),
                num_segments=self.model.num_segments,
                priority=int(parameters.get("priority", 0)),
                model=self.model.name,
                model_id=self.model.model_id,
                curve=self.model.curve,
                allocation=AllocationSetup(
                    home=str(parameters.get("home", "")),
                    successors=successors_of(parameters.get("edges", ())),
                    segment_costs=self.model.segment_costs,
                    input_nbytes=self.model.input_nbytes["int8"],
                ),
            ),
            _settings(AdaptationSettings, parameters),
            SetPoints(
                Mode[str(parameters.get("mode", "manual")).upper()],
                self._thresholds(),
                float(parameters.get("admission_rate", 0)),
                float(parameters.get("target_accuracy", 0.0)),
            ),
        )
        return SimulatedController(core, carrier=self.delivery, **self._common(node))

    def _make_source(self, node: PlannedNode) -> SimulatedSource:
        parameters = node.parameters
        scenario = self.scenario
        settings = _settings(SourceSettings, parameters, leave_out=("drop",))
        drop = parameters.get("drop", "never") == "oldest"
        settings = settings.of_input(drop=drop)
        arrivals = scenario.arrivals_of.get(node.name, scenario.arrivals)
        core = SourceCore(
            SourceSetup(
                me=self._life(node.name),
                model_id=self.model.model_id,
                num_segments=self.model.num_segments,
                entries=tuple(parameters["entries"]),
                total=scenario.frames or 0,
                settings=settings,
            )
        )
        rng = random.Random(f"{scenario.seed} {node.name}")
        return SimulatedSource(
            core,
            carrier=self.delivery,
            camera=camera_of(
                arrivals, rng, f"arrivals_of.{node.name}" if node.name in scenario.arrivals_of else "arrivals"
            ),
            asks=not drop or arrivals.kind == "max",
            frames=scenario.frames,
            input_nbytes=self.model.input_nbytes["raw"][0],
            finished=self._on_finished,
            **self._common(node),
        )

    # ---- summary ---------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """The summary of a run, as a real one has it, marked `simulated`."""
        parts = [self._part(source) for source in self.sources.values()]
        return {
            **with_workers(merge(parts), self._statistics()),
            "strategy": self.plan.strategy.value,
            "topology": self.topology.name,
            "backend": self.model.times.backend,
            "precision": self.model.times.precision,
            "machine": {"processor": self.model.machine},
            "simulated": True,
            "seed": self.scenario.seed,
            "simulated_s": self.clock.now,
            "messages": dict(self.network.messages),
            "bytes": dict(self.network.nbytes),
        }

    def _part(self, source: SimulatedSource) -> dict[str, Any]:
        assert source.core is not None
        began = source.began_at if source.began_at is not None else source.closed_at
        model_id = source.core.setup.model_id
        facts = {
            "source": source.name,
            "input": self.model.recording.images,
            "input_hash": self.model.recording.data_hash,
            "model": self._models[model_id].name,
            "model_id": model_id,
        }
        return summarise(source.core.summary(), source.closed_at - began, source.steady.fps, facts)

    def _statistics(self) -> dict[str, dict[str, Any]]:
        """Counters of the newest life of each worker."""
        newest = {name: lives[-1] for name, lives in self.dead.items()} | self.workers
        found = {}
        for name, worker in newest.items():
            if worker.report is not None:
                found[name] = {
                    **worker.report.counters._asdict(),
                    "segments": list(worker.report.segments),
                    "model_id": worker.report.model_id,
                    "rss_bytes": None,
                    "cpu_s": None,
                }
        return found


def _said(recording: Recording) -> list[tuple[list[int], list[float]]]:
    """Class (0 when right) and confidence of each exit, by exit and image."""
    pairs = zip(recording.correct.T.tolist(), recording.confidence.T.tolist(), strict=True)
    return [([0 if right else 1 for right in correct], confidence) for correct, confidence in pairs]


def _link(entry: LinkEntry, transit_s: float) -> Link:
    return Link(
        rate_bps=entry.rate_mbps * 1e6 if entry.rate_mbps is not None else math.inf,
        latency_s=entry.latency_ms * 1e-3 + transit_s,
        jitter_s=entry.jitter_ms * 1e-3,
        loss=entry.loss,
        repair_s=entry.repair_ms * 1e-3,
        medium=entry.medium,
    )


def _settings(kind: type[Settings], parameters: Any, *, leave_out: tuple[str, ...] = ()) -> Settings:
    names = {name for name, _, _ in parameters_of(kind)} - set(leave_out)
    return kind(**{name: value for name, value in parameters.items() if name in names})
