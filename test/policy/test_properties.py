# SPDX-License-Identifier: Apache-2.0
"""What must hold whatever happens: one end per frame, something always moves, bounded memory, same seed same trace."""

from __future__ import annotations

import dataclasses

import pytest
from cluster_harness import FIVE_MESH, MESH, NUM_SEGMENTS, TOPOLOGIES, Cluster
from hypothesis import given, settings
from hypothesis import strategies as st

from mdi_exit_ros.policy.events import InputEnded, Shutdown
from mdi_exit_ros.policy.source_setup import SourceSettings
from mdi_exit_ros.policy.worker_setup import WorkerSettings
from mdi_exit_ros.task import Status, Strategy

PATIENT = SourceSettings(drop=False, waiting_max=8, deadline_s=4.0, attempt_timeout_s=0.5)
FRAMES, OFFER_INTERVAL_S = 250, 0.002  # a run takes at least the product: longer than all troubles
LAST_TROUBLE_S, DEAD_S = 0.3, 0.2
Trouble = tuple[float, str, str]


@st.composite
def troubled_topologies(draw: st.DrawFn) -> tuple[str, list[Trouble]]:
    """A topology and what befalls its workers (when, whom, what): deaths, restarts and stuck computations."""
    topology = draw(st.sampled_from(sorted(TOPOLOGIES)))
    names = st.sampled_from(sorted(TOPOLOGIES[topology]))
    what = st.sampled_from(["kill", "restart", "kill_and_restart", "hang", "shutdown"])
    return topology, draw(st.lists(st.tuples(st.floats(0.02, LAST_TROUBLE_S), names, what), max_size=6))


def cause(cluster: Cluster, time: float, name: str, what: str) -> None:
    match what:
        case "kill":
            cluster.at(time, lambda: cluster.kill_worker(name))
        case "restart":
            cluster.at(time, lambda: cluster.start_worker(name))
        case "kill_and_restart":
            cluster.at(time, lambda: cluster.kill_worker(name))
            cluster.at(time + DEAD_S, lambda: cluster.start_worker(name))
        case "hang":
            cluster.at(time, lambda: cluster.compute_hangs.add(name))
        case "shutdown":
            cluster.at(time, lambda: cluster.tell_worker(name, Shutdown()))


@settings(max_examples=60)
@given(
    troubled=troubled_topologies(),
    strategy=st.sampled_from(list(Strategy)),
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.0, 0.02, 0.2]),
    duplication=st.sampled_from([0.0, 0.1]),
    drop=st.booleans(),
)
def test_every_offered_frame_ends_exactly_once(
    troubled: tuple[str, list[Trouble]],
    strategy: Strategy,
    seed: int,
    loss: float,
    duplication: float,
    drop: bool,
) -> None:
    topology, happenings = troubled
    cluster = Cluster(
        TOPOLOGIES[topology],
        strategy=strategy,
        frames=FRAMES,
        offer_interval_s=OFFER_INTERVAL_S,
        loss=loss,
        duplication=duplication,
        seed=seed,
        source_settings=dataclasses.replace(PATIENT, drop=drop, worker_timeout_s=2.0),
    )
    for time, name, what in happenings:
        cause(cluster, time, name, what)
    summary = cluster.run(until=120.0).check()
    assert all(time < cluster.now for time, _, _ in happenings), "what befell nobody proves nothing"
    assert summary["retries"] <= PATIENT.retry_share * summary["admitted"] + PATIENT.retry_burst


@settings(max_examples=25)
@given(
    topology=st.sampled_from(sorted(TOPOLOGIES)),
    strategy=st.sampled_from(list(Strategy)),
    seed=st.integers(0, 2**32),
    spread=st.booleans(),
)
def test_full_queues_still_move(topology: str, strategy: Strategy, seed: int, spread: bool) -> None:
    """Frames come far faster than they can be run; segments may be spread so that tasks go in circles."""
    neighbours = TOPOLOGIES[topology]
    names = sorted(neighbours)
    segments: dict[str, set[int]] | None = None
    if spread and strategy in (Strategy.MDI, Strategy.MDI_EXIT):
        segments = {name: set() for name in names}
        for segment in range(1, NUM_SEGMENTS + 1):
            segments[names[(segment - 1) % len(names)]].add(segment)
    cluster = Cluster(
        neighbours,
        segments=segments,
        strategy=strategy,
        frames=150,
        offer_interval_s=0.001,
        service_s=0.01,
        seed=seed,
        worker_settings=WorkerSettings(queue_capacity=8, batch_max=4, move_timeout_s=0.2),
        source_settings=dataclasses.replace(PATIENT, deadline_s=60.0, attempt_timeout_s=30.0),
    )
    summary = cluster.run(until=90.0).check()
    assert summary["ok"] == 150, summary


def test_a_crossed_pipeline_with_full_queues_answers_every_frame() -> None:
    """w1 holds 1, 3, 5 and w2 holds 2, 4: each waits for the other's room."""
    cluster = Cluster(
        TOPOLOGIES["two"],
        segments={"w1": {1, 3, 5}, "w2": {2, 4}},
        strategy=Strategy.MDI,
        frames=400,
        offer_interval_s=0.001,
        worker_settings=WorkerSettings(queue_capacity=16, batch_max=4),
        source_settings=dataclasses.replace(PATIENT, deadline_s=60.0, attempt_timeout_s=10.0),
    )
    summary = cluster.run(until=90.0).check()
    assert (summary["ok"], summary["retries"]) == (400, 0), summary


@pytest.mark.parametrize("victim", ["w1", "w3"])
def test_one_worker_of_five_dies_and_99_percent_are_answered(victim: str) -> None:
    cluster = Cluster(
        FIVE_MESH, frames=4000, offer_interval_s=0.005, source_settings=SourceSettings(drop=False, waiting_max=8)
    )
    cluster.at(10.0, lambda: cluster.kill_worker(victim))
    summary = cluster.run(until=60.0).check()
    assert summary["ok"] >= 0.99 * 4000, summary
    late = [end for ends in cluster.ends.values() for end in ends if end.status is Status.OK and end.latency_s > 4.0]
    assert not late


def test_same_seed_gives_the_same_trace() -> None:
    def trace() -> list[str]:
        return Cluster(MESH, frames=150, loss=0.05, duplication=0.05, seed=11).run().trace

    assert trace() == trace()


def test_a_worker_that_stops_gives_everything_back() -> None:
    generous = dataclasses.replace(PATIENT, retry_burst=64)
    cluster = Cluster(MESH, frames=400, offer_interval_s=0.001, source_settings=generous)
    cluster.at(0.3, lambda: cluster.tell_worker("w2", Shutdown()))
    summary = cluster.run().check()
    assert summary["ok"] == 400
    assert cluster.workers["w2"].held == 0
    assert cluster.workers["w2"].next_deadline() is None


def test_a_source_that_stops_closes_what_is_in_flight() -> None:
    cluster = Cluster(MESH, frames=10_000, offer_interval_s=0.001)
    cluster.at(0.5, lambda: cluster.tell_source(Shutdown()))
    summary = cluster.run().check()
    assert set(summary["failed"]) == {"shutdown"}
    assert summary["ok"] > 100


def test_no_decision_depends_on_another_computers_clock() -> None:
    """Every stamp is made and read by its owner alone: shifting one worker's clock by 5 s changes nothing."""
    plain = Cluster(MESH, frames=200, seed=3)
    shifted = Cluster(MESH, frames=200, seed=3)
    for name in shifted.workers:
        core = shifted.workers[name]
        offset = {"w1": 4.0, "w2": 4096.0, "w3": 65536.0}[name]
        shifted.workers[name] = _Shifted(core, offset)  # type: ignore[assignment]
    outcome = [
        {s: (end[0].status, end[0].exit, round(end[0].latency_s, 6)) for s, end in cluster.run().ends.items()}
        for cluster in (plain, shifted)
    ]
    plain.check()
    shifted.check()
    assert outcome[0] == outcome[1]


class _Shifted:
    """A worker core whose clock differs; tasks that it sends carry durations, as on the wire."""

    def __init__(self, core: object, offset: float) -> None:
        self.core, self.offset = core, offset

    def __getattr__(self, name: str) -> object:
        return getattr(self.core, name)

    def handle(self, event: object, now: float) -> list[object]:
        local = now + self.offset
        event = self._tasks(event, self.offset)
        return [self._tasks(action, -self.offset) for action in self.core.handle(event, local)]  # type: ignore[attr-defined]

    def next_deadline(self) -> float | None:
        deadline = self.core.next_deadline()  # type: ignore[attr-defined]
        return None if deadline is None else deadline - self.offset

    @staticmethod
    def _tasks(item: object, offset: float) -> object:
        tasks = getattr(item, "tasks", None)
        if not tasks:
            return item
        moved = tuple(
            task._replace(admitted_at=task.admitted_at + offset, expires_at=task.expires_at + offset) for task in tasks
        )
        return item._replace(tasks=moved)  # type: ignore[attr-defined]


def test_input_that_ends_at_once_finishes() -> None:
    cluster = Cluster(MESH, frames=0)
    cluster.run().check()
    assert cluster.offered == 0
    assert cluster.source.handle(InputEnded(), cluster.now) == []


def test_under_overload_no_frame_waits_much_longer_than_the_others() -> None:
    """Newcomers keep I filled; tasks of rare late segments in O must get their turn all the same."""
    cluster = Cluster(TOPOLOGIES["one"], frames=3000, offer_interval_s=0.0007)
    summary = cluster.run(until=60.0).check()
    slowest = max(ends[0].latency_s for ends in cluster.ends.values())
    assert slowest < 3.0 * summary["latency_ms"]["p50"] / 1000.0
