# SPDX-License-Identifier: Apache-2.0
"""Rows of a benchmark and their comparison with a recorded run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mdi_exit_ros.benchmark.results import latency_row, recorded_efficiency, regressions, row
from mdi_exit_ros.errors import ConfigurationError

LATENCY = {"p50": 10.0, "p95": 20.0, "p99": 30.0}


def run(fps: float, **more: float | None) -> dict[str, object]:
    return {"fps": fps, "latency_ms": LATENCY, **more}


def test_efficiency_is_the_median_of_the_ratios_of_each_turn() -> None:
    runs = [run(500.0), run(900.0), run(400.0)]
    result = row("two_nodes mdi_exit", "graph", runs, [1000.0, 1000.0, 500.0], topology="two_nodes")
    assert (result["fps"], result["fps_spread"]) == (500.0, {"median": 500.0, "min": 400.0, "max": 900.0})
    assert (result["efficiency"], result["efficiency_spread"]["min"]) == (0.8, 0.5)
    assert (result["latency_ms"], result["topology"]) == (LATENCY, "two_nodes")


def test_what_was_not_measured_is_none_and_what_was_in_some_turns_counts() -> None:
    runs = [run(1.0, cpu_s_per_1000_frames=None), run(1.0, cpu_s_per_1000_frames=2.0)]
    result = row("x", "peer", runs, [1.0, 1.0])
    assert (result["cpu_s_per_1000_frames"], result["bytes_per_frame"]) == (2.0, None)


def test_added_latency_is_paired_with_the_bare_loop_of_each_turn() -> None:
    runs = [{"latency_ms": {"p50": each, "p95": 20.0, "p99": 30.0}} for each in (4.0, 9.0, 6.0)]
    bare = {"bare_p50_ms": [1.0, 2.0, 4.0], "bare_same_rate_p50_ms": [2.0, 3.0, 4.0]}
    result = latency_row("x", "latency", runs, **bare, topology="one_node")
    assert (result["added_latency_ms"], result["latency_ms"]["p50"], result["topology"]) == (3.0, 6.0, "one_node")
    assert result["added_latency_ms_spread"] == {"median": 3.0, "min": 2.0, "max": 7.0}
    assert result["added_same_rate_ms_spread"] == {"median": 2.0, "min": 2.0, "max": 6.0}
    assert (result["fps"], result["efficiency"]) == (None, None)


def test_without_an_answer_there_is_no_added_latency() -> None:
    runs = [{"latency_ms": dict.fromkeys(LATENCY)}]
    result = latency_row("x", "latency", runs, bare_p50_ms=[1.0], bare_same_rate_p50_ms=[1.0])
    assert [result[field] for field in ("added_latency_ms", "added_same_rate_ms")] == [None, None]
    assert result["latency_ms"]["p99"] is None


def record(path: Path, *, decisions: str = "Python") -> Path:
    kinds = {"a": "graph", "a topic": "camera", "b": "peer", "bare": "bare", "a topic 20 Hz": "latency"}
    rows = [{"name": name, "kind": kind, "efficiency": 0.6} for name, kind in kinds.items()]
    rows[-1]["efficiency"] = None
    path.write_text(json.dumps({"decisions": decisions, "model_id": "m", "results": rows}))
    return path


@pytest.mark.parametrize(("efficiency", "slower"), [(0.60, False), (0.52, False), (0.50, True)])
def test_check_tells_what_has_become_slower(efficiency: float, slower: bool) -> None:
    found = regressions([{"name": "a", "kind": "graph", "efficiency": efficiency}], {"a": 0.6})
    assert found == (["a: efficiency 0.50, was 0.60"] if slower else [])


def test_only_graphs_of_a_record_are_compared(tmp_path: Path) -> None:
    assert recorded_efficiency(record(tmp_path / "b.json"), ["a"], model_id="m") == {"a": 0.6, "a topic": 0.6}


def test_record_of_other_conditions_is_refused(tmp_path: Path) -> None:
    path = record(tmp_path / "b.json", decisions="compiled")
    with pytest.raises(ConfigurationError, match="recorded with decisions compiled, this run has Python: record anew"):
        recorded_efficiency(path, ["a"], model_id="m", decisions="Python")
    with pytest.raises(ConfigurationError, match="recorded with model_id m, this run has other"):
        recorded_efficiency(path, ["a"], model_id="other")


def test_check_against_what_is_no_record_is_one_clear_message(tmp_path: Path) -> None:
    for content in ("no json", "{}", "[]", '{"results": []}', '{"results": [{}], "decisions": "Python"}'):
        path = tmp_path / "b.json"
        path.write_text(content)
        with pytest.raises(ConfigurationError, match="--check: expected results that `mdi-exit bench --json` wrote"):
            recorded_efficiency(path, ["a"], decisions="Python")


def test_record_without_any_graph_of_this_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has none of c, d: expected one of a, a topic"):
        recorded_efficiency(record(tmp_path / "b.json"), ["c", "d"], model_id="m")
