# SPDX-License-Identifier: Apache-2.0
"""Short ways to write events, and cores that have got past their first handshakes."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from mdi_exit_ros.policy.actions import PublishSourceReport, PublishWorkerReport, SendAnswers
from mdi_exit_ros.policy.events import (
    AppliedPolicy,
    LedgerCounts,
    ServiceDone,
    SourceReport,
    StreamReport,
    TasksReceived,
    Tick,
    WorkerCounters,
    WorkerReport,
)
from mdi_exit_ros.policy.source import SourceCore
from mdi_exit_ros.policy.source_setup import SourceSettings, SourceSetup
from mdi_exit_ros.policy.worker import WorkerCore
from mdi_exit_ros.policy.worker_setup import WorkerSettings, WorkerSetup
from mdi_exit_ros.task import FrameId, Mode, PeerId, Reason, State, Strategy, Task

MODEL = "model-a"
W1, W2, W3 = PeerId("w1", 1), PeerId("w2", 2), PeerId("w3", 3)
CAM = PeerId("cam", 7)
CONTROLLER = PeerId("ctl", 9)
ALL_SEGMENTS = (1, 2, 3, 4, 5)


class Tosses(random.Random):
    """Chance with a known outcome; more tosses than were foreseen raise StopIteration."""

    def __init__(self, *values: float) -> None:
        super().__init__(0)
        self.values = list(values)

    def random(self) -> float:
        if not self.values:
            raise StopIteration("a toss that was not foreseen")
        return self.values.pop(0)


def task(sequence: int = 0, segment: int = 1, attempt: int = 1, *, expires_at: float = 1000.0) -> Task:
    return Task(FrameId(CAM, sequence), attempt, segment, 0.0, expires_at)


def tasks(count: int, segment: int = 1, *, first: int = 0) -> tuple[Task, ...]:
    return tuple(task(first + index, segment) for index in range(count))


def stream(peer: PeerId = W1, *, received: int = 0, credit: int = 8, opened: bool = True, **rest: Any) -> StreamReport:
    return StreamReport(peer, open=opened, received=received, credit=credit, **rest)


def worker_report(
    worker: PeerId = W2,
    *streams: StreamReport,
    queue: int = 0,
    output: int = 0,
    service_s: float = 0.001,
    segments: tuple[int, ...] = ALL_SEGMENTS,
    model_id: str = MODEL,
    state: State = State.RUNNING,
    busy_s: float = 0.0,
    stamp: float = 0.0,
    served: int = 0,
    backlog_s: float = 0.0,
) -> WorkerReport:
    return WorkerReport(
        worker=worker,
        model_id=model_id,
        state=state,
        segments=segments,
        stamp=stamp,
        input_queue=queue,
        output_queue=output,
        service_time_s=service_s,
        segment_service_time_s=(service_s,) * len(segments),
        busy_s=busy_s,
        policy_version=0,
        counters=WorkerCounters(served=served),
        streams=streams,
        backlog_s=backlog_s,
    )


def source_report(
    source: PeerId = CAM,
    *streams: StreamReport,
    hears: tuple[PeerId, ...] = (W1, W2, W3),
    state: State = State.RUNNING,
    home: str = "w1",
    counts: LedgerCounts | None = None,
    waiting_for_credit: int = 0,
    offered_interval_s: float = 0.0,
    stamp: float = 0.0,
    exits: tuple[int, ...] = (0,) * 5,
    latency_ms: tuple[float, float, float] = (0.0, 0.0, 0.0),
    total: int = 0,
    stale: int = 0,
) -> SourceReport:
    return SourceReport(
        source=source,
        model_id=MODEL,
        state=state,
        stamp=stamp,
        home=home,
        counts=counts or LedgerCounts(),
        exits=exits,
        refused_reasons=((Reason.STALE.label, stale),) if stale else (),
        failed_reasons=(),
        total=total,
        waiting_for_credit=waiting_for_credit,
        offered_interval_s=offered_interval_s,
        latency_ms=latency_ms,
        policy_version=0,
        streams=(*streams, *(StreamReport(peer, open=True) for peer in hears if peer not in {s.peer for s in streams})),
    )


def policy(
    controller: PeerId = CONTROLLER,
    *,
    priority: int = 0,
    version: int = 1,
    thresholds: tuple[float, ...] = (0.8,) * 4,
    interval_s: float = 0.0,
    source_intervals_s: tuple[tuple[str, float], ...] = (),
    output_threshold: int = 16,
    mode: Mode = Mode.MANUAL,
) -> AppliedPolicy:
    return AppliedPolicy(
        controller, priority, version, mode, thresholds, interval_s, source_intervals_s, output_threshold, 0.2
    )


def batch(
    sender: PeerId,
    sent_total: int,
    items: Iterable[Task],
    *,
    receiver: PeerId = W1,
    model_id: str = MODEL,
    stamp: float = 0.0,
) -> TasksReceived:
    return TasksReceived(sender, receiver.incarnation, sent_total, stamp, model_id, tuple(items))


def done(confidences: tuple[float, ...], duration_s: float) -> ServiceDone:
    """The running batch is done, each frame of class 6."""
    return ServiceDone(confidences, (6,) * len(confidences), duration_s)


def worker(
    *,
    neighbours: tuple[str, ...] = ("w2",),
    segments: tuple[int, ...] = ALL_SEGMENTS,
    strategy: Strategy = Strategy.MDI_EXIT,
    exits_enabled: bool = True,
    rng: random.Random | None = None,
    **settings: Any,
) -> WorkerCore:
    """Worker w1 at birth."""
    setup = WorkerSetup(
        me=W1,
        model_id=MODEL,
        num_segments=5,
        segments=frozenset(segments),
        input_nbytes=(1000, 2000, 3000, 4000, 5000),
        neighbours=neighbours,
        strategy=strategy,
        exits_enabled=exits_enabled,
        exit_thresholds=(0.8,) * 4,
        settings=WorkerSettings(
            **{"queue_capacity": 128, "answer_wait_s": 0.0, "status_interval_min_s": 0.01, **settings}
        ),
    )
    return WorkerCore(setup, rng or Tosses())


def ready_worker(*senders: PeerId, **changes: Any) -> WorkerCore:
    """Worker w1 at time 0 that has given credit to `cam` and to the other senders."""
    core = worker(**changes)
    core.handle(source_report(), 0.0)
    core.handle(batch(CAM, 0, ()), 0.0)
    for sender in senders:
        core.handle(worker_report(sender, stream(opened=False)), 0.0)
        core.handle(batch(sender, 0, ()), 0.0)
    report_of(core.handle(Tick(), 0.01))
    return core


def source(*entries: str, total: int = 0, interval_s: float = 0.0, **settings: Any) -> SourceCore:
    """Source cam at birth."""
    setup = SourceSetup(CAM, MODEL, 5, entries or ("w1",), total, interval_s, SourceSettings(**settings))
    return SourceCore(setup)


def ready_source(*entries: str, credit: int = 8, **changes: Any) -> SourceCore:
    """Source cam at time 0 that has credit of w1."""
    core = source(*entries, **changes)
    core.handle(worker_report(W1, stream(CAM, credit=credit)), 0.0)
    return core


def of(kind: type, actions: Iterable[Any]) -> list[Any]:
    return [action for action in actions if isinstance(action, kind)]


def decisions(actions: Iterable[Any]) -> list[Any]:
    """What was done, reports and the credit that answers take along left out."""
    return [
        action._replace(received=0, credit=0) if isinstance(action, SendAnswers) else action
        for action in actions
        if not isinstance(action, PublishWorkerReport | PublishSourceReport)
    ]


def report_of(actions: Iterable[Any]) -> Any:
    """The one report published."""
    (action,) = of(PublishWorkerReport, actions) + of(PublishSourceReport, actions)
    return action.report
