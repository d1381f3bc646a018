# SPDX-License-Identifier: Apache-2.0
"""What a controller decides: which policy applies, from set-points and the load of the home workers."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple, assert_never

from mdi_exit_ros.policy.actions import ControllerAction, PublishPolicy, ShowModel, Warn
from mdi_exit_ros.policy.adaptation import AdaptationMemory
from mdi_exit_ros.policy.admission import (
    AdaptationSettings,
    Curve,
    thresholds_for_accuracy,
    thresholds_on_curve,
    way_down,
)
from mdi_exit_ros.policy.allocation import Allocator
from mdi_exit_ros.policy.bottleneck import AllocationSetup
from mdi_exit_ros.policy.events import (
    AppliedPolicy,
    ControllerEvent,
    ModelFacts,
    ModelWanted,
    SetPoints,
    SetPointsChanged,
    SourceReport,
    Tick,
    WorkerReport,
)
from mdi_exit_ros.policy.model_change import PREPARE_TIMEOUT_S, ModelChange
from mdi_exit_ros.task import Mode, PeerId, State

REPEAT_S = 1.0  # the policy is published again as a sign of life
FORGET_S = 60.0  # silence after which a node leaves the picture
NODES_MAX = 1024  # workers and sources in the picture; beyond that, who has been silent longest leaves it
SHORTEST_INTERVAL_S = 1e-4
SHORTEST_PERIOD_S = 0.01
FIRST_INTERVAL_S = 0.01
TIGHTEST, LOOSEST = 1.0, 8.0  # looseness of the thresholds that users set, and of the cheapest


@dataclasses.dataclass(frozen=True)
class ControllerSetup:
    """What a controller is.

    Attributes:
        me: name and incarnation of this life.
        num_segments: K.
        priority: of several controllers the highest counts, then the lowest name.
        model, model_id: name or folder, and content hash, of the model that it was started with.
        is_named: a user has asked for that model before, in another life of this node.
        curve: calibrated points (promised accuracy 0..1, thresholds T_e^1..T_e^(K-1)), cheap to accurate;
            empty when the model has none.
        allocation: what segments may be spread over, for `adaptive_allocation`.
    """

    me: PeerId
    num_segments: int
    priority: int = 0
    model: str = ""
    model_id: str = ""
    is_named: bool = False
    curve: Curve = ()
    allocation: AllocationSetup = AllocationSetup()
    liveness_timeout_s: float = 1.5


class WorkerRow(NamedTuple):
    """One worker in the picture of the cluster."""

    name: str
    alive: bool
    input_queue: int
    output_queue: int
    service_time_s: float
    served: int


class ClusterSummary(NamedTuple):
    """One ClusterStatus: sums over sources, the applied policy and one row per worker.

    `accuracy` is nan when no frame is labelled; latencies are the worst source's; `fps` and `offered_fps` count
    frames since the summary before.
    """

    controller: str
    policy: AppliedPolicy
    uptime_s: float
    sources_alive: int
    fps: float
    offered_fps: float
    accuracy: float
    latency_ms: tuple[float, float, float]
    offered: int
    admitted: int
    refused: int
    ok: int
    failed: int
    retries: int
    total: int
    waiting: int
    in_flight: int
    exits: tuple[int, ...]
    admission_rate_hz: float
    workers: tuple[WorkerRow, ...]


class ControllerCore:
    """What one controller decides: the applied policy.

    manual: the set-points. rate: thresholds held, every source's admission interval follows the
    backlog of its home worker. threshold: intervals held, thresholds follow the largest backlog.
    """

    def __init__(self, setup: ControllerSetup, settings: AdaptationSettings, set_points: SetPoints) -> None:
        self.setup = setup
        self._settings = settings
        self._set_points = set_points
        self._workers: dict[str, tuple[WorkerReport, float]] = {}
        self._sources: dict[str, tuple[SourceReport, float]] = {}
        self._intervals: dict[str, float] = {}
        self._looseness = TIGHTEST
        self._memory = AdaptationMemory()
        self._allocator = Allocator(setup.allocation)
        thresholds, allocation = set_points.exit_thresholds, setup.allocation
        self._model = ModelChange(
            ModelFacts(
                *(setup.model, setup.model_id, thresholds, setup.curve),
                *(allocation.segment_costs, allocation.input_nbytes),
            ),
            is_named=setup.is_named,
        )
        self._wish: ModelFacts | None = None  # waits for a change of allocation to end
        self._version = 0
        self._published: AppliedPolicy | None = None
        self._published_at = float("-inf")
        self._adapted_at = float("-inf")
        self._started_at: float | None = None
        self._summed: tuple[float, int, int] = (float("-inf"), 0, 0)  # at, ok, offered
        self._news: list[ControllerAction] = []

    def handle(self, event: ControllerEvent, now: float) -> list[ControllerAction]:
        """Takes in one event at time `now` (s, never decreasing) and says what to publish."""
        if self._started_at is None:
            self._started_at = now
        match event:
            case SetPointsChanged():
                if event.set_points.mode is not self._set_points.mode:
                    self._intervals.clear()
                    self._looseness = TIGHTEST
                    self._memory.start_again()
                self._set_points = event.set_points
                self._settings = event.settings
            case ModelWanted():
                self._wish = event.facts
                self._grant_wish(now)
            case WorkerReport():
                self._workers.pop(event.worker.name, None)
                self._workers[event.worker.name] = (event, now)
                self._memory.hear_worker(event)
                if len(self._workers) > NODES_MAX:
                    silent = next(iter(self._workers))
                    del self._workers[silent]
                    self._memory.forget_worker(silent)
            case SourceReport():
                self._sources.pop(event.source.name, None)
                self._sources[event.source.name] = (event, now)
                if self._model.is_left(event):
                    self._memory.forget_source(event.source.name)  # what it refuses while it waits is no overload
                else:
                    self._memory.hear_source(event)
                if len(self._sources) > NODES_MAX:
                    silent = next(iter(self._sources))
                    del self._sources[silent]
                    self._intervals.pop(silent, None)
                    self._memory.forget_source(silent)
            case AppliedPolicy():
                if event.controller != self.setup.me:
                    self._warn("controllers", f"controller {event.controller.name} is alive too: one of them leads")
            case Tick():
                pass
            case _:
                assert_never(event)
        if now >= self._adapt_at:
            self._adapted_at = now
            self._adapt(now)
        return self._publish(now)

    def next_deadline(self) -> float:
        """When the next Tick is due (s), if nothing happens before."""
        return min(self._adapt_at, self._published_at + REPEAT_S)

    @property
    def _adapt_at(self) -> float:
        return self._adapted_at + max(self._settings.period_s, SHORTEST_PERIOD_S)

    @property
    def applied(self) -> AppliedPolicy:
        """The policy as it would be published now; its version is that of the last change."""
        points = self._set_points
        held = 1.0 / points.admission_rate_hz if points.admission_rate_hz > 0.0 else 0.0
        own = tuple(sorted(self._intervals.items())) if points.mode is Mode.RATE else ()
        model, model_id, model_final = self._model.named
        return AppliedPolicy(
            controller=self.setup.me,
            priority=self.setup.priority,
            version=self._version,
            mode=points.mode,
            exit_thresholds=self._thresholds(),
            admission_interval_s=max(held, FIRST_INTERVAL_S) if points.mode is Mode.RATE else held,
            source_intervals_s=own,
            output_threshold=self._settings.output_threshold,
            smoothing=self._settings.smoothing,
            allocation=self._allocator.target,
            allocation_final=self._allocator.final,
            thresholds_model_id=self._model.agreed.model_id,
            model=model,
            model_id=model_id,
            model_final=model_final,
        )

    def cluster(self, now: float) -> ClusterSummary:
        """The whole cluster in numbers; `fps` counts since the call before."""
        self._forget(now)
        counts = [report.counts for report, _ in self._sources.values()]
        ok, offered = sum(each.ok for each in counts), sum(each.offered for each in counts)
        before, ok_before, offered_before = self._summed
        self._summed = (now, ok, offered)
        period = now - before
        labelled = sum(each.labelled for each in counts)
        # A source of another model may have other exits: its answers are not counted among these.
        own = self.setup.num_segments
        exits = [report.exits for report, _ in self._sources.values() if len(report.exits) == own]
        latencies = [report.latency_ms for report, _ in self._sources.values()]
        policy = self.applied
        alive = [report for report, at in self._sources.values() if now - at <= self.setup.liveness_timeout_s]
        intervals = [policy.interval_for(report.source.name) for report in alive]
        return ClusterSummary(
            controller=self.setup.me.name,
            policy=policy,
            uptime_s=now - (self._started_at if self._started_at is not None else now),
            sources_alive=len(alive),
            fps=max(0, ok - ok_before) / period if math.isfinite(period) and period > 0.0 else 0.0,
            offered_fps=max(0, offered - offered_before) / period if math.isfinite(period) and period > 0.0 else 0.0,
            accuracy=sum(each.correct for each in counts) / labelled if labelled else math.nan,
            latency_ms=max(latencies, default=(0.0, 0.0, 0.0)),
            offered=offered,
            admitted=sum(each.admitted for each in counts),
            refused=sum(each.refused for each in counts),
            ok=ok,
            failed=sum(each.failed for each in counts),
            retries=sum(each.retries for each in counts),
            total=sum(report.total for report, _ in self._sources.values()),
            waiting=sum(each.waiting for each in counts),
            in_flight=sum(each.in_flight for each in counts),
            exits=tuple(map(sum, zip(*exits, strict=True))) if exits else (0,) * own,
            admission_rate_hz=math.fsum(1.0 / interval for interval in intervals)
            if intervals and all(intervals)
            else 0.0,
            workers=tuple(self._row(name, now) for name in sorted(self._workers)),
        )

    # ---- adaptation --------------------------------------------------------------------------------------

    def _backlog(self, source: SourceReport, now: float) -> float | None:
        """Q of the source's home worker (frames); None while it is not heard, or the source changes its model."""
        report, at = self._workers.get(source.home, (None, 0.0))
        if report is None or now - at > self.setup.liveness_timeout_s or self._model.is_left(source):
            return None
        return self._memory.backlog(report, source)

    def _adapt(self, now: float) -> None:
        backlogs: list[float] = []
        for name, (source, at) in self._sources.items():
            backlog = self._backlog(source, now)
            if now - at > self.setup.liveness_timeout_s or source.state is not State.RUNNING or backlog is None:
                continue
            backlogs.append(backlog)
            if self._set_points.mode is Mode.RATE:
                self._intervals[name] = self._next_interval(name, source, backlog, now)
        running = {
            name: report
            for name, (report, at) in self._workers.items()
            if now - at <= self.setup.liveness_timeout_s and report.state is State.RUNNING
        }
        if strangers := self._model.strangers(running):
            self._warn(
                f"strangers:{strangers}",
                f"this controller was started with model {self._model.agreed.model}, and {', '.join(strangers)} with "
                "another, which keeps its own thresholds: set its parameter `model` to the one that all shall run",
            )
        # One change after the other: what is loaded for one must still be right when it is made.
        self._grant_wish(now)
        if self._model.wanted is not None:
            self._change_model(running, now)
        elif not self._model.is_left_by(running, now):
            own = self._model.agreed.model_id
            ours = {name: report for name, report in running.items() if not own or report.model_id == own}
            self._allocator.step(ours, self._settings, now)
        if self._set_points.mode is Mode.THRESHOLD and backlogs:
            self._looseness = self._memory.thresholds.next(
                self._looseness, max(backlogs), self._settings, now, low=TIGHTEST, high=LOOSEST
            )

    def _grant_wish(self, now: float) -> None:
        if self._wish is not None and self._allocator.final:
            self._model.want(self._wish, now)
            self._wish = None

    def _change_model(self, running: dict[str, WorkerReport], now: float) -> None:
        wanted, missing = self._model.wanted, self._model.missing(running)
        if wanted is None or not self._model.settle(running, now):
            return
        if self._model.agreed is wanted:
            self._set_points = self._set_points._replace(exit_thresholds=wanted.exit_thresholds)
            self._looseness = TIGHTEST
            self._memory.start_again()
            self._allocator.weigh(wanted.segment_costs, wanted.input_nbytes)
        else:
            why = f"{', '.join(missing)} did not load {wanted.model} within {PREPARE_TIMEOUT_S:.0f} s, its log says why"
            if not missing:
                why = f"no worker is there to load {wanted.model}"
            self._warn(f"model:{wanted.model_id}:{now}", f"the model stays {self._model.agreed.model}: {why}")
        self._news.append(ShowModel(self._model.agreed.model, self._set_points.exit_thresholds))

    def _next_interval(self, name: str, source: SourceReport, backlog: float, now: float) -> float:
        low = SHORTEST_INTERVAL_S
        if self._set_points.admission_rate_hz > 0.0:
            low = max(low, 1.0 / self._set_points.admission_rate_hz)
        interval = self._intervals.get(name, self.applied.interval_for(name))
        high = self._settings.interval_max_s
        return self._memory.next_interval(interval, source, backlog, self._settings, now, low=low, high=high)

    def _thresholds(self) -> tuple[float, ...]:
        points, curve = self._set_points, self._model.agreed.curve
        wanted = points.exit_thresholds
        if points.target_accuracy > 0.0 and curve:
            wanted, reached = thresholds_for_accuracy(points.target_accuracy, curve)
            if not reached:
                self._warn(
                    f"accuracy:{points.target_accuracy}",
                    f"target_accuracy {points.target_accuracy:.3f} is above what the model promises "
                    f"({max(curve)[0]:.3f}): its most accurate thresholds are applied",
                )
        elif points.target_accuracy > 0.0:
            self._warn(
                "accuracy:uncalibrated",
                "target_accuracy needs a calibrated model, and this one has no curve: exit_thresholds are applied",
            )
        if points.mode is not Mode.THRESHOLD or self._looseness <= TIGHTEST:
            return wanted
        position = (1.0 / self._looseness - 1.0 / LOOSEST) / (1.0 / TIGHTEST - 1.0 / LOOSEST)
        return thresholds_on_curve(position, way_down(wanted, curve, self._settings.threshold_floor))

    # ---- publishing --------------------------------------------------------------------------------------

    def _publish(self, now: float) -> list[ControllerAction]:
        applied = self.applied
        changed = self._published is None or applied != self._published
        actions, self._news = self._news, []
        if changed:
            self._version += 1
            applied = self._published = applied._replace(version=self._version)
        if changed or now >= self._published_at + REPEAT_S:
            self._published_at = now
            actions.append(PublishPolicy(applied))
        return actions

    def _forget(self, now: float) -> None:
        self._workers = {name: entry for name, entry in self._workers.items() if now - entry[1] <= FORGET_S}
        silent = [name for name, entry in self._sources.items() if now - entry[1] > FORGET_S]
        for name in silent:
            self._intervals.pop(name, None)
            if self._sources[name][0].state is State.RUNNING:
                del self._sources[name]
        self._memory.keep(self._workers, self._sources)

    def _row(self, name: str, now: float) -> WorkerRow:
        report, at = self._workers[name]
        alive = now - at <= self.setup.liveness_timeout_s and report.state is State.RUNNING
        return WorkerRow(
            name, alive, report.input_queue, report.output_queue, report.service_time_s, report.counters.served
        )

    def _warn(self, key: str, text: str) -> None:
        self._news.append(Warn(key, text))
