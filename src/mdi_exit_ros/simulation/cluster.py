# SPDX-License-Identifier: Apache-2.0
"""A simulated cluster: the deployment plan's nodes on simulated computers, joined by a simulated network."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from mdi_exit_ros.policy.actions import LoadModel
from mdi_exit_ros.policy.cadence import LINGER_S
from mdi_exit_ros.policy.events import ModelWanted, Shutdown
from mdi_exit_ros.simulation import cores
from mdi_exit_ros.simulation.arrivals import camera_of
from mdi_exit_ros.simulation.clock import Clock
from mdi_exit_ros.simulation.controller_shell import SimulatedController
from mdi_exit_ros.simulation.delivery import Delivery, who_hears_whom
from mdi_exit_ros.simulation.deployment import deploy
from mdi_exit_ros.simulation.hardware import Hardware
from mdi_exit_ros.simulation.model import SimulatedModel
from mdi_exit_ros.simulation.recording import Recording
from mdi_exit_ros.simulation.scenario import EventEntry, Scenario
from mdi_exit_ros.simulation.shells import Trace
from mdi_exit_ros.simulation.source_shell import SimulatedSource
from mdi_exit_ros.simulation.worker_shell import SimulatedWorker
from mdi_exit_ros.summary import merge, summarise, with_workers
from mdi_exit_ros.task import PeerId, Task

OFFSET = 7919  # between the images that one source begins with and the next


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
        self.deployment = deploy(scenario, model)
        self._rng = random.Random(scenario.seed)
        self._hardware = Hardware(scenario, self.deployment, self.clock, random.Random(self._rng.random()))
        self.network = self._hardware.network
        self._models = {each.model_id: each for each in (model, *model.others.values())}
        self._said = {model_id: _said(each.recording) for model_id, each in self._models.items()}
        self._offsets = {name: index * OFFSET for index, name in enumerate(self.deployment.sources)}
        self.workers: dict[str, SimulatedWorker] = {}
        self.dead: dict[str, list[SimulatedWorker]] = {}
        self.sources: dict[str, SimulatedSource] = {}
        self.delivery = Delivery(
            clock=self.clock,
            network=self.network,
            costs=scenario.costs,
            together=self._hardware.is_plain,
            places=self.deployment.places,
            workers=self.workers,
            sources=self.sources,
            hearing=who_hears_whom(self.deployment.neighbours, self.deployment.homes, scenario.reach),
        )
        given = scenario.thresholds
        self._thresholds = tuple(given) if given is not None else model.facts.exit_thresholds
        for name in self.deployment.workers:
            self._start_worker(name)
        self.controller = self.delivery.controller = self._make_controller(self.deployment.controller)
        for name in self.deployment.sources:
            self.sources[name] = self._make_source(name)
        for event in scenario.events:
            self.clock.after(event.at_s, partial(self._happen, event))

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
                self._end_worker(event.worker)
            case "stop":
                if worker is not None:
                    worker.feed(Shutdown())
            case "start":
                self._end_worker(event.worker)
                self._start_worker(event.worker).begin()
            case "speed":
                assert event.speed is not None
                self._hardware.set_speed(event.worker, event.speed)
            case "model":
                assert event.model is not None
                self.controller.feed(ModelWanted(self.model.others[event.model].facts))
            case "link":
                assert event.link is not None
                self._hardware.set_link(event.link)

    def _change_model(self, name: str, wanted: LoadModel) -> None:
        """Ends the life of a worker and begins one with another model."""
        self._end_worker(name)
        worker = self._start_worker(name, self._models[wanted.model_id], wanted.segments)
        worker.begin()
        if self.controller.policy is not None:
            worker.take(self.controller.policy, 0.0)

    # ---- nodes -----------------------------------------------------------------------------------------------

    def _end_worker(self, name: str) -> None:
        worker = self.workers.pop(name, None)
        if worker is not None:
            worker.kill()
            self.dead.setdefault(name, []).append(worker)

    def _start_worker(
        self, name: str, other: SimulatedModel | None = None, segments: tuple[int, ...] = ()
    ) -> SimulatedWorker:
        """A life of a worker; with another model than it was started with it holds `segments`."""
        parameters, computer = self.deployment.parameters(name), self._hardware.computer_of(name)
        model = other or self.model
        core = cores.worker_core(
            self._life(name),
            parameters,
            model,
            computer,
            segments=segments or tuple(parameters["segments"]),
            thresholds=self._thresholds if other is None else other.facts.exit_thresholds,
            origin=self.deployment.topology.origin,
            rng=random.Random(self._rng.random()),
        )
        worker = SimulatedWorker(
            core,
            carrier=self.delivery,
            times=model.times,
            said=self._said[model.model_id],
            image_of=partial(self._image_of, len(model.recording)),
            change=partial(self._change_model, name),
            **self._common(name),
        )
        self.workers[name] = worker
        return worker

    def _make_controller(self, name: str) -> SimulatedController:
        core = cores.controller_core(self._life(name), self.deployment.parameters(name), self.model, self._thresholds)
        return SimulatedController(core, carrier=self.delivery, **self._common(name))

    def _make_source(self, name: str) -> SimulatedSource:
        parameters, scenario = self.deployment.parameters(name), self.scenario
        own = name in scenario.arrivals_of
        arrivals = scenario.arrivals_of[name] if own else scenario.arrivals
        rng = random.Random(f"{scenario.seed} {name}")
        return SimulatedSource(
            cores.source_core(self._life(name), parameters, self.model, scenario.frames),
            carrier=self.delivery,
            camera=camera_of(arrivals, rng, f"arrivals_of.{name}" if own else "arrivals"),
            asks=not cores.drops(parameters) or arrivals.kind == "max",
            frames=scenario.frames,
            input_nbytes=self.model.input_nbytes["raw"][0],
            finished=self._on_finished,
            **self._common(name),
        )

    def _common(self, name: str) -> dict[str, Any]:
        return {
            "clock": self.clock,
            "processor": self._hardware.processor_of(name),
            "costs": self.scenario.costs,
            "trace": self._trace,
        }

    def _life(self, name: str) -> PeerId:
        return PeerId(name, self._rng.getrandbits(62) or 1)

    def _image_of(self, images: int, task: Task) -> int:
        return (task.frame.sequence + self._offsets[task.frame.source.name]) % images

    # ---- summary ---------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """The summary of a run, as a real one has it, marked `simulated`."""
        parts = [self._part(source) for source in self.sources.values()]
        return {
            **with_workers(merge(parts), self._statistics()),
            "strategy": self.deployment.plan.strategy.value,
            "topology": self.deployment.topology.name,
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
