# SPDX-License-Identifier: Apache-2.0
"""Whole simulations: books balance whatever happens, results follow from the seed, figures obey plain bounds."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mdi_exit_ros.simulation import cluster, controller_shell, delivery, shells, source_shell, worker_shell
from mdi_exit_ros.simulation.cluster import Simulation
from mdi_exit_ros.simulation.costs import NO_COSTS, NodeCosts
from mdi_exit_ros.simulation.model import SimulatedModel

FREE = NO_COSTS.model_dump()
# Seconds of computing per frame in the largest batches: all take segment 1, half segment 2, a fifth segment 3.
LEAST_S = 0.0128 / 32 + 0.5 * 0.0256 / 32 + 0.2 * 0.0192 / 32
TOPOLOGIES = ("one_node", "two_nodes", "three_mesh", "three_ring", "five_mesh")
STRATEGIES = ("local", "ddi", "mdi", "mdi_exit")


def event(at_s: float, worker: int, do: str, **rest: Any) -> dict[str, Any]:
    return {"at_s": at_s, "worker": f"worker{worker}", "do": do, **rest}


def served(summary: dict[str, Any]) -> dict[str, int]:
    return {name: worker["served"] for name, worker in summary["workers"].items()}


# ---- every frame ends once -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_frame_is_answered_where_nothing_happens(simulate: Any, topology: str, strategy: str) -> None:
    summary = simulate(topology=topology, strategy=strategy, frames=120)
    assert (summary["ok"], summary["retries"], summary["duplicates"]) == (120, 0, 0)
    assert (summary["strategy"], summary["topology"], summary["simulated"]) == (strategy, topology, True)
    has_exits = strategy != "mdi"
    assert summary["exits"] == pytest.approx([0.5, 0.3, 0.2] if has_exits else [0.0, 0.0, 1.0])
    assert summary["accuracy"] == pytest.approx(0.8 if has_exits else 0.9)
    assert sum(served(summary).values()) == (120 + 60 + 24 if has_exits else 360)
    if strategy in ("ddi", "mdi_exit") and topology in ("two_nodes", "three_mesh"):
        assert all(served(summary).values()), "everybody helps"


EVENTS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.2, 0.35, 0.5, 2.0]),
        st.integers(1, 2),
        st.sampled_from(["kill", "stop", "start", "speed", "model", "link"]),
    ),
    max_size=5,
)


@settings(max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.fixed_dictionaries(
        {
            "topology": st.sampled_from([*TOPOLOGIES[1:], {"workers": 5, "neighbours": 2, "sources": 2}]),
            "strategy": st.sampled_from(["ddi", "mdi_exit"]),
            "frames": st.sampled_from([1, 40, 150]),
            "seed": st.integers(0, 1000),
            "arrivals": st.sampled_from(
                [{"kind": "max"}, {"kind": "poisson", "rate_hz": 400}, {"kind": "periodic", "rate_hz": 3000}]
            ),
            "computer": st.sampled_from([{}, {"cores": 0.25}, {"cores": 4, "all_busy": 0.6}, {"speed": 0.2}]),
            "network": st.sampled_from(
                [{}, {"rate_mbps": 5, "latency_ms": 10, "jitter_ms": 5, "loss": 0.1, "medium": "w"}]
            ),
            "source": st.sampled_from([{}, {"drop": "oldest"}, {"in_flight_max": 3}]),
            "worker": st.sampled_from([{}, {"queue_capacity": 8, "batch_max": 2}]),
            "controller": st.sampled_from([{}, {"mode": "rate"}, {"mode": "threshold"}]),
            "together": st.booleans(),
            "duration_s": st.sampled_from([None, 0.4, 3.0]),
            "costs": st.sampled_from([{}, FREE]),
        }
    ),
    accidents=EVENTS,
)
def test_books_balance_whatever_happens(
    simulate: Any, keys: dict[str, Any], accidents: list[tuple[float, int, str]]
) -> None:
    events = []
    for at_s, worker, do in accidents:
        if do == "model":
            events.append({"at_s": at_s, "do": do, "model": "one"})
        elif do != "link":
            events.append(event(at_s, worker, do, **({"speed": 0.1} if do == "speed" else {})))
        elif isinstance(keys["topology"], str) and not keys["together"]:
            link = {"between": ["robot", "nano2"], "rate_mbps": 0.5 * worker}
            events.append({"at_s": at_s, "do": do, "link": link})
    simulate(**keys, events=events)  # which balances them


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_model_is_changed_and_every_frame_answered_by_the_one_or_the_other(simulate: Any, strategy: str) -> None:
    lines: list[str] = []
    change = {"at_s": 0.5, "do": "model", "model": "one"}
    arrivals = {"kind": "periodic", "rate_hz": 200}
    summary = simulate(strategy=strategy, frames=400, arrivals=arrivals, events=[change], lines=lines)
    assert (summary["ok"], summary["retries"], summary["model"]) == (400, 0, "one")
    first, middle, last = summary["exits"]
    if strategy != "mdi":
        assert first > 0.6, "half of them leave at exit 1 with the first model, all with the second"
        assert middle > 0.0 and last > 0.0
    changes = [line.split()[1] for line in lines if "ChangeModel" in line]
    assert changes[0] == "camera", "first the source has no frame of the old model left"
    assert sorted(changes[1:]) == sorted(summary["workers"])


def test_link_that_becomes_slow_and_fast_again_is_used_accordingly(simulate: Any) -> None:
    between = {"between": ["robot", "nano2"]}
    ways = [{"at_s": 1.0, "do": "link", "link": {**between, "rate_mbps": 1.0}}, {"at_s": 3.0, "do": "link"}]
    keys = {"strategy": "mdi", "frames": None, "duration_s": 2.0, "computer": {"speed": 0.5}}
    fast = simulate(**keys)
    slow = simulate(**keys, events=ways[:1])
    assert slow["ok"] < 0.75 * fast["ok"]
    ways[1]["link"] = between
    again = simulate(**{**keys, "duration_s": 6.0}, events=ways)
    assert again["ok"] > slow["ok"] + fast["ok"]


def test_source_gives_up_when_all_workers_are_dead(simulate: Any) -> None:
    summary = simulate(frames=400, events=[event(0.4, 1, "kill"), event(0.4, 2, "kill")])
    assert 0 < summary["ok"] < 400
    assert set(summary["refused"]) == {"no_worker"}
    assert summary["simulated_s"] < 60.0


def test_cluster_that_never_lived_ends_too(simulate: Any) -> None:
    summary = simulate(topology="one_node", frames=100, events=[event(0.0, 1, "kill")])
    assert summary["refused"] == {"no_worker": 100}
    assert (summary["throughput_fps"], summary["exits"]) == (0.0, [0.0, 0.0, 0.0])


def test_time_that_is_over_closes_what_is_open(simulate: Any) -> None:
    summary = simulate(frames=None, duration_s=1.5)
    assert summary["ok"] > 500
    assert set(summary["refused"]) | set(summary["failed"]) == {"shutdown"}
    assert 1.5 <= summary["simulated_s"] < 2.0


def test_end_of_the_input_comes_before_the_end_of_the_time(simulate: Any) -> None:
    summary = simulate(frames=50, duration_s=100.0)
    assert summary["ok"] == 50
    assert summary["simulated_s"] < 2.0


# ---- who dies, slows and comes back --------------------------------------------------------------------------------


def test_frames_of_a_killed_worker_are_tried_again_and_answered(simulate: Any) -> None:
    keys = {"topology": "three_mesh", "frames": 800, "events": [event(0.5, 2, "kill")]}
    assert 0 < simulate(**keys)["retries"] <= 0.05 * 800 + 8, "the budget"
    summary = simulate(**keys, source={"retry_share": 1.0})
    assert summary["ok"] == 800
    assert summary["retries"] > 10
    assert served(summary)["worker2"] < 0.8 * served(summary)["worker3"]
    assert summary["latency_ms"]["p99"] > 1500.0, "an attempt's timeout"


def test_worker_that_comes_back_helps_again(simulate: Any) -> None:
    gone = [event(0.4, 2, "kill")]
    keys = {"frames": None, "duration_s": 4.0, "arrivals": {"kind": "periodic", "rate_hz": 1000}}
    alone = simulate(**keys, events=gone)
    summary = simulate(**keys, events=[*gone, event(0.8, 2, "start")])
    assert served(summary)["worker2"] > 300, "of its new life"
    assert summary["ok"] > 1.1 * alone["ok"]


def test_stopped_worker_ends_in_order(simulate: Any) -> None:
    summary = simulate(topology="three_mesh", frames=800, events=[event(0.5, 2, "stop")])
    assert summary["ok"] == 800
    assert summary["latency_ms"]["p99"] < 1000.0, "its frames were refused at once, not missed"


def test_others_take_over_from_a_worker_that_slows(simulate: Any) -> None:
    keys = {"frames": 1000, "costs": FREE}
    even = served(simulate(**keys))
    slowed = served(simulate(**keys, events=[event(0.4, 2, "speed", speed=0.1)]))
    assert even["worker2"] > 0.35 * sum(even.values())
    assert slowed["worker2"] < 0.25 * sum(slowed.values())


def test_speed_of_a_worker_under_a_quota_changes_too(simulate: Any) -> None:
    keys = {"topology": "one_node", "frames": 400, "together": True, "quotas": {"worker1": 0.5}, "costs": FREE}
    fast = simulate(**keys)["throughput_fps"]
    assert simulate(**keys, events=[event(0.0, 1, "speed", speed=0.25)])["throughput_fps"] < 0.35 * fast


def test_home_worker_s_neighbours_are_entered_when_it_dies(simulate: Any) -> None:
    keys = {"topology": "three_mesh", "frames": 600, "source": {"retry_share": 1.0}}
    summary = simulate(**keys, events=[event(0.5, 1, "kill")])
    assert summary["ok"] == 600
    assert summary["workers"]["worker2"]["answered"] > 100


# ---- figures obey plain bounds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cores", "speed"), [(1.0, 1.0), (1.0, 4.0), (0.5, 1.0), (4.0, 1.0)])
def test_one_worker_reaches_nearly_what_its_profile_allows_and_never_more(
    simulate: Any, cores: float, speed: float
) -> None:
    summary = simulate(topology="one_node", frames=1500, computer={"cores": cores, "speed": speed}, costs=FREE)
    most_fps = cores * speed / LEAST_S
    assert summary["throughput_fps"] <= most_fps * 1.0001
    assert summary["throughput_fps"] >= most_fps * (0.5 if cores > 1.0 else 0.85)


def test_lone_frames_take_exactly_the_time_of_their_segments(simulate: Any) -> None:
    arrivals = {"kind": "periodic", "rate_hz": 5.0}
    summary = simulate(topology="one_node", frames=30, arrivals=arrivals, costs={**FREE, "transit_us": 1000.0})
    mean_s = 0.001 + 0.5 * 0.002 + 0.2 * 0.0015 + 2 * 0.001
    # What a lone frame waits for the controller's share of the processor and nothing else.
    assert summary["latency_ms"]["mean"] == pytest.approx(1000.0 * mean_s, rel=0.02)


def test_twice_as_fast_a_computer_has_twice_the_throughput(simulate: Any) -> None:
    slow, fast = (simulate(topology="one_node", frames=1500, computer={"speed": speed}) for speed in (1.0, 2.0))
    assert fast["steady_fps"] / slow["steady_fps"] == pytest.approx(2.0, rel=0.1)


def test_more_computers_carry_more_but_less_than_in_proportion(simulate: Any) -> None:
    one, two, three = (
        simulate(topology=name, frames=1500)["steady_fps"] for name in ("one_node", "two_nodes", "three_mesh")
    )
    assert 1.5 * one < two <= 2.0 * one
    assert two < three <= 3.0 * one


def test_workers_that_share_one_computer_carry_no_more_than_one(simulate: Any) -> None:
    one = simulate(topology="one_node", frames=1000, together=True)["steady_fps"]
    assert simulate(topology="three_mesh", frames=1000, together=True)["steady_fps"] <= one


def test_nodes_own_work_costs_throughput(simulate: Any) -> None:
    keys = {"topology": "one_node", "frames": 1000}
    dear = {name: 3.0 * value for name, value in NodeCosts().model_dump(exclude={"quota_share"}).items()}
    free, shipped, thrice = (simulate(**keys, costs=costs)["steady_fps"] for costs in (FREE, {}, dear))
    assert free > 1.1 * shipped > 1.2 * thrice


def test_narrow_link_moves_less_and_latency_shows(simulate: Any) -> None:
    keys = {"frames": 600, "worker": {"encoding": "raw"}}
    wide, narrow = simulate(**keys), simulate(**keys, network={"rate_mbps": 2, "latency_ms": 30})
    assert narrow["workers"]["worker1"]["moved"] < 0.5 * wide["workers"]["worker1"]["moved"]
    assert narrow["ok"] == 600


def test_losses_cost_time_and_no_frame(simulate: Any) -> None:
    network = {"rate_mbps": 50, "latency_ms": 2}
    clean, lossy = (simulate(frames=500, network=network | {"loss": loss}) for loss in (0.0, 0.3))
    assert clean["ok"] == lossy["ok"] == 500
    assert lossy["throughput_fps"] < clean["throughput_fps"]


def test_bytes_per_frame_follow_the_encoding(simulate: Any) -> None:
    keys = {"strategy": "mdi", "frames": 200}
    raw, int8 = (simulate(**keys, worker={"encoding": encoding}) for encoding in ("raw", "int8"))
    assert raw["bytes_per_frame"] == 4.0 * int8["bytes_per_frame"] > 0.0
    assert raw["bytes"]["tasks"] > int8["bytes"]["tasks"]


def test_thresholds_of_the_scenario_are_applied(simulate: Any) -> None:
    keys = {"topology": "one_node", "frames": 100}
    assert simulate(**keys, thresholds=[0.0, 0.0])["exits"] == [1.0, 0.0, 0.0]
    assert simulate(**keys, thresholds=[1.0, 0.9])["exits"] == pytest.approx([0.0, 0.5, 0.5])
    assert simulate(**keys, exits=False)["exits"] == [0.0, 0.0, 1.0]


# ---- arrivals ------------------------------------------------------------------------------------------------------


def test_camera_at_overload_keeps_newest_frames_and_refuses_stale_ones(simulate: Any) -> None:
    arrivals = {"kind": "periodic", "rate_hz": 3000}
    summary = simulate(topology="one_node", frames=6000, arrivals=arrivals, source={"drop": "oldest"}, duration_s=30.0)
    assert summary["offered"] == 6000
    assert summary["duration_s"] == pytest.approx(2.0, abs=0.1)
    assert summary["refused"]["stale"] > 3000
    assert summary["latency_ms"]["p99"] < 1000.0


def test_periodic_frames_come_at_their_rate(simulate: Any) -> None:
    summary = simulate(frames=300, arrivals={"kind": "periodic", "rate_hz": 100})
    assert summary["throughput_fps"] == pytest.approx(100.0, rel=0.02)


def test_poisson_frames_come_at_their_mean_rate(simulate: Any) -> None:
    summary = simulate(frames=2000, arrivals={"kind": "poisson", "rate_hz": 200})
    assert summary["throughput_fps"] == pytest.approx(200.0, rel=0.06)


def test_frames_of_a_trace_come_at_its_times(simulate: Any, tmp_path: Path) -> None:
    path = tmp_path / "times.txt"
    path.write_text("\n".join(str(at) for at in (5.0, 5.1, 5.1, 7.1)))
    lines: list[str] = []
    summary = simulate(topology="one_node", frames=100, arrivals={"kind": "trace", "trace": str(path)}, lines=lines)
    assert summary["offered"] == summary["ok"] == 4
    closed = [float(line.split()[0]) for line in lines if "CloseFrame" in line]
    assert [at - closed[0] for at in closed] == pytest.approx([0.0, 0.1, 0.1, 2.1], abs=0.01)


def test_steps_change_the_rate(simulate: Any) -> None:
    lines: list[str] = []
    steps = [[0.0, 50.0], [1.0, 400.0]]
    simulate(frames=450, arrivals={"kind": "steps", "steps": steps}, lines=lines)
    closed = [float(line.split()[0]) for line in lines if "CloseFrame" in line]
    assert closed[49] - closed[0] == pytest.approx(0.98, abs=0.05)
    assert closed[-1] - closed[50] == pytest.approx(1.0, abs=0.05)


def test_steps_within_a_gap_between_frames_count(simulate: Any) -> None:
    lines: list[str] = []
    steps = [[0.0, 0.1], [2.0, 100.0], [4.0, 0.1]]
    summary = simulate(frames=None, duration_s=8.0, arrivals={"kind": "steps", "steps": steps}, lines=lines)
    assert summary["offered"] == pytest.approx(200, abs=2)
    closed = [float(line.split()[0]) for line in lines if "CloseFrame" in line]
    assert closed[1] > 2.0 and closed[-2] < 4.5


def test_statuses_of_neighbours_on_the_same_computer_do_not_cross_the_network(simulate: Any) -> None:
    keys = {"topology": "one_node", "frames": 300, "arrivals": {"kind": "max"}}
    near, far = (simulate(**keys, network={"latency_ms": latency_ms}) for latency_ms in (0.0, 500.0))
    assert far["throughput_fps"] == pytest.approx(near["throughput_fps"], rel=0.02)


def test_each_source_has_its_own_arrivals_and_part_of_the_summary(simulate: Any) -> None:
    topology = {"workers": 4, "neighbours": 2, "sources": 2}
    rates = {"camera1": {"kind": "periodic", "rate_hz": 50}, "camera2": {"kind": "periodic", "rate_hz": 100}}
    summary = simulate(topology=topology, frames=100, arrivals_of=rates)
    assert summary["offered"] == 200
    assert summary["sources"]["camera1"]["throughput_fps"] == pytest.approx(50.0, rel=0.05)
    assert summary["sources"]["camera2"]["throughput_fps"] == pytest.approx(100.0, rel=0.05)


def test_admission_rate_of_the_controller_holds(simulate: Any) -> None:
    summary = simulate(frames=300, controller={"admission_rate": 100})
    assert summary["throughput_fps"] == pytest.approx(100.0, rel=0.1)


def test_reach_of_statuses_changes_what_is_said_not_what_is_done(simulate: Any) -> None:
    topology = {"workers": 12, "neighbours": 2, "sources": 1}
    all_hear, near_hear = (simulate(topology=topology, frames=300, reach=reach) for reach in (None, 2))
    assert near_hear["ok"] == all_hear["ok"] == 300
    assert near_hear["messages"]["control"] < 0.7 * all_hear["messages"]["control"]


# ---- the same seed, the same trace ---------------------------------------------------------------------------------

ROUGH = {
    "topology": "three_mesh",
    "frames": 200,
    "network": {"rate_mbps": 20, "latency_ms": 2, "jitter_ms": 2, "loss": 0.05, "medium": "wifi"},
    "events": [event(0.4, 2, "kill"), event(0.5, 2, "start")],
}


def test_same_seed_gives_the_same_trace_and_another_seed_another(simulate: Any) -> None:
    first: list[str] = []
    second: list[str] = []
    other: list[str] = []
    summaries = [simulate(**ROUGH, seed=seed, lines=lines) for seed, lines in ((7, first), (7, second), (8, other))]
    assert first == second
    assert summaries[0] == summaries[1]
    assert first != other


def test_trace_does_not_depend_on_the_seed_of_hashes() -> None:
    code = (
        "import hashlib; from mdi_exit_ros.simulation.cluster import Simulation\n"
        "from mdi_exit_ros.simulation.scenario import make_scenario\n"
        "from mdi_exit_ros.cli.simulated_model import simulated_model\n"
        f"scenario = make_scenario({ROUGH!r}, origin='test')\n"
        "seen = hashlib.sha256()\n"
        "note = lambda *action: seen.update(repr(action).encode())\n"
        "Simulation(scenario, simulated_model(scenario), trace=note).run(); print(seen.hexdigest())"
    )
    traces = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(traces) == 1
    assert len(traces.pop().strip()) == 64


# ---- no decision is written twice ----------------------------------------------------------------------------------


def test_exits_are_decided_by_the_policy_s_own_function(simulate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdi_exit_ros.policy.worker.leaves_here", lambda segment, *rest: segment == 2)
    assert simulate(frames=50)["exits"] == [0.0, 1.0, 0.0]


def test_moves_are_decided_by_the_policy_s_own_function(simulate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdi_exit_ros.policy.offloader.moves", lambda *rest: False)
    assert served(simulate(frames=300))["worker2"] == 0


def test_simulator_has_no_function_or_class_of_the_policy_s_name() -> None:
    def names(folder: Path) -> set[str]:
        trees = [ast.parse(path.read_text(encoding="utf-8")) for path in folder.glob("*.py")]
        kinds = (ast.FunctionDef, ast.ClassDef)
        return {node.name.strip("_") for tree in trees for node in tree.body if isinstance(node, kinds)}

    simulation = Path(cluster.__file__).parent
    assert names(simulation)
    assert names(simulation) & names(simulation.parent / "policy") == set()


def test_simulator_compares_no_confidence_and_reckons_no_delay() -> None:
    words = {"confidence", "exit_threshold", "service_time_s", "queue_length", "input_queue", "transfer_delay_s"}
    for module in (cluster, controller_shell, delivery, shells, source_shell, worker_shell):
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                named = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
                named |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
                assert not named & words, f"{module.__name__}, line {node.lineno}"


# ---- progress ------------------------------------------------------------------------------------------------------


def test_progress_is_told_up_to_the_end(scenario: Any, model: SimulatedModel) -> None:
    told: list[tuple[int, int]] = []
    Simulation(scenario(frames=100), model).run(lambda closed, total: told.append((closed, total)))
    assert told[0] == (0, 100)
    assert told[-1] == (100, 100)
    assert told == sorted(told)


def test_source_of_higher_priority_waits_less_while_both_are_answered(simulate: Any, tmp_path: Path) -> None:
    path = tmp_path / "pair.yaml"
    path.write_text(
        "computers: {robot: }\nworkers: {worker1: {computer: robot}}\n"
        "sources: {plain: {computer: robot, home: worker1}, urgent: {computer: robot, home: worker1, priority: 5}}\n"
    )
    keys = {"topology": str(path), "strategy": "local", "frames": 600}
    equal = simulate(**keys, nodes={"urgent": {"priority": 0}})["sources"]
    apart = simulate(**keys)["sources"]
    assert equal["urgent"]["latency_ms"]["mean"] == pytest.approx(equal["plain"]["latency_ms"]["mean"], rel=0.2)
    assert apart["urgent"]["latency_ms"]["mean"] < 0.75 * apart["plain"]["latency_ms"]["mean"]
    assert (apart["urgent"]["ok"], apart["plain"]["ok"]) == (600, 600)
