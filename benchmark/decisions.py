# SPDX-License-Identifier: Apache-2.0
"""Time that a worker's decisions take: nothing but `WorkerCore`, fed with what a busy worker gets.

A batch is always under way. Frames come in groups, are offered to all neighbours, which are busy too and 2 ms away, and
move or run here; segment 1 is never sure enough. Their statuses, which acknowledge what has moved, come every 16 frames
and are not in the time.

    python benchmark/decisions.py
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from mdi_exit_ros.policy.actions import RunBatch, SendTasks
from mdi_exit_ros.policy.compiled import check_checkout, is_compiled
from mdi_exit_ros.policy.events import (
    LedgerCounts,
    ServiceDone,
    SourceReport,
    StreamReport,
    TasksReceived,
    WorkerCounters,
    WorkerReport,
)
from mdi_exit_ros.policy.worker import WorkerCore
from mdi_exit_ros.policy.worker_setup import WorkerSetup
from mdi_exit_ros.task import FrameId, PeerId, State, Strategy, Task

ME, CAMERA, MODEL = PeerId("me", 1), PeerId("camera", 1), "model"
SEGMENTS = (1, 2)
SERVICE_S = 0.001
STATUS_S = 0.02
WAY_S = 0.002


class Bench:
    """A worker with so many neighbours, a camera, and a clock that goes on by itself."""

    def __init__(self, neighbours: int) -> None:
        self.peers = [PeerId(f"n{number:02d}", 1) for number in range(neighbours)]
        self.core = WorkerCore(
            WorkerSetup(
                me=ME,
                model_id=MODEL,
                num_segments=len(SEGMENTS),
                segments=frozenset(SEGMENTS),
                input_nbytes=(3072, 6192),
                neighbours=tuple(peer.name for peer in self.peers),
                strategy=Strategy.MDI_EXIT,
                exits_enabled=True,
                exit_thresholds=(0.8,),
            ),
            random.Random(0),
        )
        self.now = 0.0
        self.sent = 0
        self.moved: dict[PeerId, int] = dict.fromkeys(self.peers, 0)
        self.spent_s = 0.0
        self.events = 0
        self.running: list[RunBatch] = []
        self.core.handle(self._source_report(), self.now)
        self.core.handle(TasksReceived(CAMERA, ME.incarnation, 0, self.now, MODEL, ()), self.now)
        self._statuses()

    def _source_report(self) -> SourceReport:
        hears = tuple(StreamReport(peer, open=True) for peer in (ME, *self.peers))
        return SourceReport(
            source=CAMERA,
            model_id=MODEL,
            state=State.RUNNING,
            stamp=self.now,
            home=ME.name,
            counts=LedgerCounts(),
            exits=(0,) * len(SEGMENTS),
            refused_reasons=(),
            failed_reasons=(),
            total=0,
            waiting_for_credit=0,
            offered_interval_s=0.0,
            latency_ms=(0.0,) * 3,
            policy_version=0,
            streams=hears,
        )

    def _statuses(self) -> None:
        """All statuses that a worker hears in `STATUS_S`; untimed."""
        self.now += STATUS_S
        self.core.handle(self._source_report(), self.now)
        for peer in self.peers:
            mine = StreamReport(ME, open=True, received=self.moved[peer], credit=64, echo_stamp=self.now - 2 * WAY_S)
            self.core.handle(
                WorkerReport(
                    worker=peer,
                    model_id=MODEL,
                    state=State.RUNNING,
                    segments=SEGMENTS,
                    stamp=self.now,
                    input_queue=4,
                    output_queue=2,
                    service_time_s=SERVICE_S,
                    segment_service_time_s=(SERVICE_S,) * len(SEGMENTS),
                    busy_s=0.0,
                    policy_version=0,
                    counters=WorkerCounters(),
                    streams=(mine,),
                    backlog_s=0.0,
                ),
                self.now,
            )

    def _timed(self, event: object) -> list[RunBatch]:
        self.now += 1e-6
        began = time.perf_counter()
        actions = self.core.handle(event, self.now)  # type: ignore[arg-type]
        self.spent_s += time.perf_counter() - began
        self.events += 1
        for action in actions:
            if isinstance(action, SendTasks):
                self.moved[action.receiver] += len(action.tasks)
        return [action for action in actions if isinstance(action, RunBatch)]

    def frames(self, group: int) -> None:
        """One group of frames comes; then batches end until no more is held than came."""
        tasks = tuple(
            Task(FrameId(CAMERA, self.sent + index), 1, 1, self.now, self.now + 10.0) for index in range(group)
        )
        self.sent += group
        self.running += self._timed(TasksReceived(CAMERA, ME.incarnation, self.sent, self.now, MODEL, tasks))
        while self.core.held > group:
            batch = self.running.pop(0)
            sure = 0.5 if batch.segment == 1 else 0.9
            count = len(batch.tasks)
            self.running += self._timed(ServiceDone((sure,) * count, (0,) * count, SERVICE_S * count, batch.lane))
        if self.sent % 16 == 0:
            self._statuses()


def measure(neighbours: int, group: int, frames: int) -> tuple[float, float, float]:
    """Microseconds per event and per frame, and moves per frame."""
    bench = Bench(neighbours)
    for _ in range(200):
        bench.frames(group)
    bench.spent_s, bench.events, before, moved = 0.0, 0, bench.sent, sum(bench.moved.values())
    while bench.sent < before + frames:
        bench.frames(group)
    done = bench.sent - before
    moves = (sum(bench.moved.values()) - moved) / done
    return 1e6 * bench.spent_s / bench.events, 1e6 * bench.spent_s / done, moves


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=8000)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    check_checkout()
    print(f"decisions as {'C extensions' if is_compiled() else 'Python'}; medians, min..max of {arguments.turns} turns")
    print("neighbours  group  us per event (decision)  us per frame           moves per frame")
    cases = [(neighbours, group) for neighbours in (1, 8, 64) for group in (1, 16)]
    found: dict[tuple[int, int], list[tuple[float, float, float]]] = {case: [] for case in cases}
    for _ in range(arguments.turns):
        for case in cases:
            found[case].append(measure(*case, arguments.frames))
    for (neighbours, group), turns in found.items():
        each, frame, moves = zip(*turns, strict=True)
        print(
            f"{neighbours:10d}  {group:5d}  {statistics.median(each):6.2f} ({min(each):.2f}..{max(each):.2f})"
            f"       {statistics.median(frame):6.2f} ({min(frame):.2f}..{max(frame):.2f})"
            f"   {statistics.median(moves):.2f}"
        )


if __name__ == "__main__":
    main()
