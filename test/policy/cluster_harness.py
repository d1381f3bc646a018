# SPDX-License-Identifier: Apache-2.0
"""Real cores on a made-up network: delays, loss, duplication, death and restart, all from one seed."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from typing import Any

from mdi_exit_ros.policy.actions import (
    ChangeModel,
    CloseFrame,
    Finished,
    Forget,
    LoadModel,
    PublishPolicy,
    PublishSourceReport,
    PublishWorkerReport,
    RunBatch,
    SendAnswers,
    SendTasks,
    ShowModel,
    Warn,
)
from mdi_exit_ros.policy.admission import AdaptationSettings
from mdi_exit_ros.policy.controller import ControllerCore, ControllerSetup
from mdi_exit_ros.policy.events import (
    AnswersReceived,
    AppliedPolicy,
    FramesOffered,
    InputEnded,
    ModelFacts,
    ModelLoaded,
    ModelWanted,
    ServiceDone,
    SetPoints,
    SourceReport,
    TasksReceived,
    Tick,
    WorkerReport,
)
from mdi_exit_ros.policy.source import SourceCore
from mdi_exit_ros.policy.source_setup import SourceSettings, SourceSetup
from mdi_exit_ros.policy.worker import WorkerCore
from mdi_exit_ros.policy.worker_setup import WorkerSettings, WorkerSetup
from mdi_exit_ros.task import Mode, PeerId, Status, Strategy

MODEL, OTHER_MODEL = "model-a", "model-b"
LOAD_S = 0.05
NUM_SEGMENTS = 5
MESH = {"w1": ("w2", "w3"), "w2": ("w1", "w3"), "w3": ("w1", "w2")}
RING = {"w1": ("w2",), "w2": ("w3",), "w3": ("w1",)}
FIVE_MESH = {f"w{i}": tuple(f"w{j}" for j in range(1, 6) if j != i) for i in range(1, 6)}
TOPOLOGIES = {"one": {"w1": ()}, "two": {"w1": ("w2",), "w2": ("w1",)}, "mesh": MESH, "ring": RING, "five": FIVE_MESH}


class Cluster:
    """Cores of workers and one source `cam`, and what became of every frame.

    Args:
        topology: neighbours of each worker.
        segments: held by each worker; all where absent.
        loss: probability (0..1) that a task or answer batch is lost.
        duplication: probability that a task or answer batch arrives twice.
    """

    def __init__(
        self,
        topology: dict[str, tuple[str, ...]],
        *,
        segments: dict[str, set[int]] | None = None,
        strategy: Strategy = Strategy.MDI_EXIT,
        frames: int = 200,
        offer_interval_s: float = 0.002,
        service_s: float = 0.003,
        loss: float = 0.0,
        duplication: float = 0.0,
        seed: int = 0,
        worker_settings: WorkerSettings | None = None,
        source_settings: SourceSettings | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.loss, self.duplication = loss, duplication
        self.service_s = service_s
        self.topology, self.strategy = topology, strategy
        self.segments = segments or {}
        self.worker_settings = worker_settings or WorkerSettings()
        self.source_settings = source_settings or SourceSettings(drop=False, waiting_max=8)
        self.frames, self.offered, self.offer_interval_s = frames, 0, offer_interval_s
        self.ends: dict[int, list[CloseFrame]] = {}
        self.trace: list[str] = []
        self.served_by: dict[str, int] = {}
        self.largest_held = 0
        self.finished = False
        self.compute_hangs: set[str] = set()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._wakes: dict[str, float] = {}
        self._arrivals: dict[str, float] = {}
        self.workers: dict[str, WorkerCore] = {}
        self.controller: ControllerCore | None = None
        self.models: set[str] = set()  # that batches were run with
        entries = ("w1",) if strategy is Strategy.LOCAL else tuple(topology)
        self.source = SourceCore(
            SourceSetup(PeerId("cam", 7), MODEL, NUM_SEGMENTS, entries, total=frames, settings=self.source_settings)
        )
        for name in topology:
            self.start_worker(name)
        self.at(0.0, lambda: self.tell_source(Tick()))
        self.at(0.01, self._offer)

    # ---- driving -----------------------------------------------------------------------------------------

    def at(self, time: float, do: Callable[[], None]) -> None:
        self._order += 1
        # Times are binary fractions: sums and differences are exact, on clocks that are shifted too.
        heapq.heappush(self._agenda, (math.ceil(time * 2**20) / 2**20, self._order, do))

    def run(self, until: float = 60.0) -> Cluster:
        while self._agenda and self._agenda[0][0] <= until and not self.finished:
            self.now, _, do = heapq.heappop(self._agenda)
            do()
        return self

    def start_controller(self) -> None:
        """From now on a controller publishes its policy."""
        setup = ControllerSetup(PeerId("ctl", 1), NUM_SEGMENTS, model=MODEL, model_id=MODEL)
        points = SetPoints(Mode.MANUAL, (0.8,) * (NUM_SEGMENTS - 1), 0.0, 0.0)
        self.controller = ControllerCore(setup, AdaptationSettings(), points)
        self.tell_controller(Tick())

    def want_model(self, model: str) -> None:
        """A user has the cluster change to a model."""
        self.tell_controller(ModelWanted(ModelFacts(model, model, (0.7,) * (NUM_SEGMENTS - 1))))

    def start_worker(self, name: str, model: str = MODEL) -> None:
        """A first or new life of the worker."""
        setup = WorkerSetup(
            me=PeerId(name, self.rng.getrandbits(62)),
            model_id=model,
            num_segments=NUM_SEGMENTS,
            segments=frozenset(self.segments.get(name, set(range(1, NUM_SEGMENTS + 1)))),
            input_nbytes=(3072, 24000, 8000, 6000, 4000),
            neighbours=self.topology[name],
            strategy=self.strategy,
            exits_enabled=self.strategy.has_exits,
            exit_thresholds=(0.8,) * (NUM_SEGMENTS - 1),
            settings=self.worker_settings,
        )
        self.workers[name] = WorkerCore(setup, random.Random(self.rng.random()))

    def kill_worker(self, name: str) -> None:
        self.workers.pop(name, None)

    def policy(self, thresholds: tuple[float, ...], version: int = 1) -> None:
        event = AppliedPolicy(PeerId("ctl", 1), 0, version, Mode.MANUAL, thresholds, 0.0, (), 16, 0.2)
        for name in list(self.workers):
            self.tell_worker(name, event)
        self.tell_source(event)

    # ---- shells --------------------------------------------------------------------------------------------

    def tell_worker(self, name: str, event: Any) -> None:
        core = self.workers.get(name)
        if core is None:
            return
        for action in core.handle(event, self.now):
            self.trace.append(f"{self.now:.6f} {name} {action}")
            self._perform_worker(name, core, action)
        self.largest_held = max(self.largest_held, core.held)
        self._wake(name, core.next_deadline(), lambda: self.tell_worker(name, Tick()))

    def tell_source(self, event: Any) -> None:
        for action in self.source.handle(event, self.now):
            self.trace.append(f"{self.now:.6f} cam {action}")
            self._perform_source(action)
        self._wake("cam", self.source.next_deadline(), lambda: self.tell_source(Tick()))

    def tell_controller(self, event: Any) -> None:
        if self.controller is None:
            return
        for action in self.controller.handle(event, self.now):
            self.trace.append(f"{self.now:.6f} ctl {action}")
            match action:
                case PublishPolicy(policy):
                    for name in self.topology:
                        self.at(self.now + 0.0007, lambda name=name, policy=policy: self.tell_worker(name, policy))
                    self.at(self.now + 0.0007, lambda policy=policy: self.tell_source(policy))
                case ShowModel() | Warn():
                    pass
                case _:
                    raise AssertionError(action)
        self._wake("ctl", self.controller.next_deadline(), lambda: self.tell_controller(Tick()))

    def _wake(self, name: str, deadline: float | None, do: Callable[[], None]) -> None:
        if deadline is None or self._wakes.get(name, -1.0) == deadline:
            return
        self._wakes[name] = deadline

        def ring() -> None:
            if self._wakes.get(name) == deadline:
                del self._wakes[name]
                do()

        self.at(max(self.now + 1e-4, deadline), ring)

    def _perform_worker(self, name: str, core: WorkerCore, action: Any) -> None:
        match action:
            case RunBatch(_, tasks):
                self.models.add(core.setup.model_id)
                self.served_by[name] = self.served_by.get(name, 0) + len(tasks)
                if name in self.compute_hangs:
                    return
                duration = self.service_s * (1.0 + 0.2 * len(tasks))
                confidences = tuple(self.rng.random() for _ in tasks)
                done = ServiceDone(confidences, (0,) * len(tasks), duration)
                self.at(self.now + duration, lambda: self._if_alive(name, core, done))
            case LoadModel(_, model_id):
                loaded = ModelLoaded(model_id)
                self.at(self.now + LOAD_S, lambda: self._if_alive(name, core, loaded))
            case ChangeModel(_, model_id):
                assert not core.held
                self.start_worker(name, model_id)
                self.at(self.now, lambda: self.tell_worker(name, Tick()))
            case SendTasks():
                self._deliver_tasks(core.setup, action)
            case SendAnswers():
                event = AnswersReceived(core.setup.me, *action)
                self._deliver(name, lambda: self.tell_source(event))
            case PublishWorkerReport(report):
                self._broadcast(report, sender=name)
            case Forget() | Finished() | Warn():
                pass
            case _:
                raise AssertionError(action)

    def _perform_source(self, action: Any) -> None:
        match action:
            case SendTasks():
                self._deliver_tasks(self.source.setup, action)
            case CloseFrame():
                self.ends.setdefault(action.sequence, []).append(action)
            case PublishSourceReport(report):
                self._broadcast(report, sender="cam")
            case Finished():
                self.finished = True
            case Warn() | ChangeModel():
                pass
            case _:
                raise AssertionError(action)

    def _if_alive(self, name: str, core: WorkerCore, event: Any) -> None:
        if self.workers.get(name) is core:
            self.tell_worker(name, event)

    def _deliver_tasks(self, setup: WorkerSetup | SourceSetup, action: SendTasks) -> None:
        sender, model = setup.me, setup.model_id
        event = TasksReceived(sender, action.receiver.incarnation, action.sent_total, action.stamp, model, action.tasks)
        self._deliver(sender.name + action.receiver.name, lambda: self.tell_worker(action.receiver.name, event))

    def _deliver(self, stream: str, do: Callable[[], None]) -> None:
        """Like a reliable topic, in order within a stream; loss and late copies are what faults add."""
        if self.rng.random() < self.loss:
            return
        arrival = max(self.now + 0.0005 + 0.001 * self.rng.random(), self._arrivals.get(stream, 0.0))
        self._arrivals[stream] = arrival
        self.at(arrival, do)
        if self.rng.random() < self.duplication:
            self.at(arrival + 0.003 * self.rng.random(), do)

    def _broadcast(self, report: WorkerReport | SourceReport, *, sender: str) -> None:
        for name in self.topology:
            self.at(self.now + 0.0007, lambda name=name: self.tell_worker(name, report))
        if sender != "cam":
            self.at(self.now + 0.0007, lambda: self.tell_source(report))
        self.at(self.now + 0.0007, lambda: self.tell_controller(report))

    def _offer(self) -> None:
        if self.offered >= self.frames:
            self.tell_source(InputEnded())
            return
        if self.source_settings.drop or self.source.room:
            self.offered += 1
            self.tell_source(FramesOffered(self.offered - 1, (0,)))
        self.at(self.now + self.offer_interval_s, self._offer)

    # ---- invariants ------------------------------------------------------------------------------------------

    def check(self) -> dict[str, Any]:
        """Every offered frame ended exactly once, and the ledger says the same."""
        summary = self.source.summary()
        assert self.finished, f"unfinished at {self.now}: {summary}"
        assert sorted(self.ends) == list(range(self.offered))
        assert all(len(ends) == 1 for ends in self.ends.values())
        by_status = {status: sum(ends[0].status is status for ends in self.ends.values()) for status in Status}
        assert summary["unaccounted"] == 0
        assert summary["ok"] == by_status[Status.OK]
        assert sum(summary["refused"].values()) == by_status[Status.REFUSED]
        assert sum(summary["failed"].values()) == by_status[Status.FAILED]
        assert self.largest_held <= self.worker_settings.queue_capacity
        return summary
