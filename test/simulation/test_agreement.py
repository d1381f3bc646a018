# SPDX-License-Identifier: Apache-2.0
"""A real run's summary becomes the scenario that repeats it, and figure by figure a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mdi_exit_ros.errors import ConfigurationError, DataError
from mdi_exit_ros.simulation.agreement import Agreement, compare, repeat
from mdi_exit_ros.simulation.costs import NodeCosts

RUN: dict[str, Any] = {
    "offered": 2000,
    "steady_fps": 1000.0,
    "throughput_fps": 900.0,
    "latency_ms": {"mean": 50.0},
    "exits": [0.5, 0.3, 0.2],
    "strategy": "mdi_exit",
    "topology": "two_nodes",
    "model": "mobilenetv2",
    "backend": "onnxruntime",
    "precision": "fp32",
    "machine": {"processor": "p", "cores": 2},
    "options": {
        "topology": "two_nodes",
        "exits": None,
        "worker": {"batch_max": 16, "backend": "onnxruntime", "device": "cpu"},
        "source": {"input": "sample", "frames": 2000, "rate_hz": 300.0, "in_flight_max": 128},
        "controller": {"mode": "rate", "exit_threshold.2": 0.6, "exit_threshold.1": 0.7},
    },
}
PATH = Path("run.json")


def simulated(fps: float = 1000.0, mean_ms: float = 50.0, exits: tuple[float, ...] = (0.5, 0.3, 0.2)) -> dict[str, Any]:
    return {"steady_fps": fps, "throughput_fps": fps, "latency_ms": {"mean": mean_ms}, "exits": list(exits)}


def held(found: list[Agreement]) -> list[bool]:
    return [each.holds for each in found]


# ---- comparing -----------------------------------------------------------------------------------------------------


def test_equal_figures_agree() -> None:
    found = compare(RUN, simulated())
    assert held(found) == [True] * 5
    assert [each.figure for each in found] == [
        *("throughput, frames/s", "mean latency, ms"),
        *("share of exit 1", "share of exit 2", "share of exit 3"),
    ]
    assert [each.difference for each in found] == [0.0] * 5


@pytest.mark.parametrize(
    ("fps", "mean_ms", "exits", "expected"),
    [
        (1149.0, 64.9, (0.519, 0.3, 0.181), [True, True, True, True, True]),
        (851.0, 35.1, (0.481, 0.319, 0.2), [True, True, True, True, True]),
        (1151.0, 50.0, (0.5, 0.3, 0.2), [False, True, True, True, True]),
        (849.0, 50.0, (0.5, 0.3, 0.2), [False, True, True, True, True]),
        (1000.0, 65.1, (0.5, 0.3, 0.2), [True, False, True, True, True]),
        (1000.0, 34.9, (0.5, 0.3, 0.2), [True, False, True, True, True]),
        (1000.0, 50.0, (0.521, 0.3, 0.179), [True, True, False, True, False]),
    ],
)
def test_agreement_is_15_percent_30_percent_and_2_points(
    fps: float, mean_ms: float, exits: tuple[float, ...], expected: list[bool]
) -> None:
    assert held(compare(RUN, simulated(fps, mean_ms, exits))) == expected


def test_steady_rate_counts_only_where_both_have_one() -> None:
    short = RUN | {"steady_fps": None}
    assert compare(short, simulated())[0][:3] == ("throughput, frames/s", 900.0, 1000.0)
    assert compare(RUN, simulated() | {"steady_fps": None, "throughput_fps": 910.0})[0][1:3] == (900.0, 910.0)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"exits": [0.5, 0.5]}, "it has 2 exits, the simulation 3"),
        ({"latency_ms": {}}, "lacks a figure: 'mean'"),
        ({"latency_ms": {"mean": None}}, "mean latency, ms: expected a number above 0, got None"),
        ({"latency_ms": None}, "lacks a figure"),
        ({"steady_fps": None, "throughput_fps": 0.0}, "throughput, frames/s: expected a number above 0, got 0.0"),
        ({"exits": ["a", "b", "c"]}, "lacks a figure"),
    ],
)
def test_run_without_a_figure_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match="mdi-exit run --json") as caught:
        compare(RUN | changes, simulated())
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- repeating -----------------------------------------------------------------------------------------------------


def test_scenario_repeats_what_the_run_was_asked_for() -> None:
    scenario = repeat(RUN, PATH)
    assert (scenario.topology, scenario.strategy, scenario.model) == ("two_nodes", "mdi_exit", "mobilenetv2")
    assert (scenario.backend, scenario.precision, scenario.profile) == ("onnxruntime", "fp32", "measured")
    assert (scenario.frames, scenario.together, scenario.computer.cores) == (2000, True, 2.0)
    assert (scenario.arrivals.kind, scenario.arrivals.rate_hz) == ("periodic", 300.0)
    assert (scenario.worker, scenario.source) == ({"batch_max": 16}, {"in_flight_max": 128})
    assert (scenario.controller, scenario.thresholds) == ({"mode": "rate"}, [0.7, 0.6])
    assert scenario.costs == NodeCosts()


def test_run_as_fast_as_admitted_is_repeated_so() -> None:
    options = RUN["options"] | {"source": {"input": "sample"}, "controller": {}}
    scenario = repeat(RUN | {"options": options}, PATH)
    assert (scenario.arrivals.kind, scenario.thresholds) == ("max", None)


def test_parameters_of_single_nodes_are_repeated_too() -> None:
    nodes = {"worker1": {"queue_capacity": 64, "device": "cpu"}, "controller": {"zeta": 0.2, "exit_threshold.1": 0.5}}
    scenario = repeat(RUN | {"options": RUN["options"] | {"nodes": nodes}}, PATH)
    assert scenario.nodes == {"worker1": {"queue_capacity": 64}}
    assert (scenario.controller, scenario.thresholds) == ({"mode": "rate", "zeta": 0.2}, [0.5, 0.6])


def test_changes_see_the_run_s_own_keys() -> None:
    def change(keys: dict[str, Any]) -> dict[str, Any]:
        return keys | {"computer": keys["computer"] | {"all_busy": 0.5}}

    scenario = repeat(RUN, PATH, change)
    assert (scenario.computer.cores, scenario.computer.all_busy) == (2.0, 0.5)


def test_frames_of_several_sources_are_those_of_each() -> None:
    parts = {"camera1": {"offered": 1000}, "camera2": {"offered": 1000}}
    assert repeat({**RUN, "sources": parts}, Path("run.json")).frames == 1000


def test_thresholds_are_in_the_order_of_their_exits() -> None:
    given = {f"exit_threshold.{number}": number / 100 for number in (10, 2, 1, 11, *range(3, 10))}
    run = {**RUN, "options": {**RUN["options"], "controller": given}}
    assert repeat(run, Path("run.json")).thresholds == [number / 100 for number in range(1, 12)]


def test_thresholds_that_the_run_left_as_they_are_are_the_models() -> None:
    nodes = {"controller": {"exit_threshold.3": 0.5}}
    run = {**RUN, "options": {**RUN["options"], "controller": {}, "nodes": nodes}}
    asked: list[str] = []

    def thresholds_of(model: str) -> tuple[float, ...]:
        asked.append(model)
        return (0.9, 0.8, 0.7, 0.6)

    assert repeat(run, PATH, thresholds_of=thresholds_of).thresholds == [0.9, 0.8, 0.5, 0.6]
    assert asked == ["mobilenetv2"]
    nodes["controller"].clear()
    assert repeat(run, PATH, thresholds_of=thresholds_of).thresholds is None


@pytest.mark.parametrize(
    ("changes", "options", "text"),
    [
        ({}, {"composed": True}, "--compare: run.json is of a run with --use-composition"),
        ({}, {"params_files": ["a.yaml", "b.yaml"]}, "of a run with parameter files (a.yaml, b.yaml)"),
        ({"backend": "mixed"}, {}, "of a run with workers of several backends"),
        ({"precision": "mixed"}, {}, "of a run with workers of several precisions"),
    ],
)
def test_what_no_simulation_repeats_is_refused_in_one_line(
    changes: dict[str, Any], options: dict[str, Any], text: str
) -> None:
    assert repeat(RUN | {"options": RUN["options"] | {"composed": False, "params_files": []}}, PATH).frames == 2000
    with pytest.raises(DataError) as caught:
        repeat(RUN | changes | {"options": RUN["options"] | options}, PATH)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_simulated_summary_is_refused() -> None:
    with pytest.raises(DataError, match=r"run\.json is of a simulation: expected the summary of mdi-exit run --json"):
        repeat(RUN | {"simulated": True}, PATH)


@pytest.mark.parametrize("key", ["options", "strategy", "model", "offered", "backend", "precision", "machine"])
def test_what_is_no_summary_is_refused(key: str) -> None:
    with pytest.raises(DataError, match=rf"run\.json is no summary of mdi-exit run --json: it has no '{key}'"):
        repeat({name: value for name, value in RUN.items() if name != key}, PATH)
    with pytest.raises((DataError, ConfigurationError), match=r"run\.json"):
        repeat(RUN | {key: []}, PATH)
