# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from mdi_exit_ros.cli import simulated_model, sweep
from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.simulation.cluster import Simulation
from mdi_exit_ros.simulation.model import SimulatedModel
from mdi_exit_ros.simulation.scenario import Scenario, load_scenario, make_scenario
from mdi_exit_ros.simulation.sweeping import (
    FIGURES,
    Combination,
    Variation,
    changed,
    combine,
    load_steps,
    own_value,
    read_variation,
    run_once,
)
from mdi_exit_ros.simulation.sweeping import sweep as sweep_all

MakeScenario = Callable[..., Scenario]
Sweep = Callable[..., tuple[int, str]]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("frames=10,20", (10, 20)),
        ("controller.alpha=0.1,1e-3", (0.1, 0.001)),
        ("controller.mode=rate,threshold", ("rate", "threshold")),
        ("thresholds=[0.9, 0.8],null", ([0.9, 0.8], None)),
        ("controller.alpha=0:1:5", (0, 0.25, 0.5, 0.75, 1)),
        ("worker.batch_max=1:32:6:log", (1, 2, 4, 8, 16, 32)),
    ],
)
def test_variation_takes_lists_and_ranges(text: str, values: tuple[Any, ...]) -> None:
    assert read_variation(text) == Variation(text.partition("=")[0], values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("frames", "expected KEY=V1,V2"),
        ("frames=", "expected KEY=V1,V2"),
        ("a..b=1", "expected KEY=V1,V2"),
        ("frames=[1", "expected YAML values"),
        ("frames=5:5:3", "LOW below HIGH"),
        ("frames=1:5:1", "2..100000 values"),
        ("controller.alpha=0:1:3:log", "both above 0"),
        ("seed=1,2", "--seeds"),
    ],
)
def test_what_is_no_variation_is_told(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said.replace(".", r"\.")):
        read_variation(text)


def test_a_key_leads_into_mappings_and_lists_and_the_original_stays() -> None:
    content = {"arrivals": {"steps": [[0, 1], [4, 2]]}}
    assert changed(content, "arrivals.steps.1.1", 9) == {"arrivals": {"steps": [[0, 1], [4, 9]]}}
    assert changed(content, "worker.batch_max", 4) == {**content, "worker": {"batch_max": 4}}
    assert content == {"arrivals": {"steps": [[0, 1], [4, 2]]}}
    with pytest.raises(ConfigurationError, match="below 2"):
        changed(content, "arrivals.steps.2", 9)


def combinations_of(model: SimulatedModel, *texts: str, **keys: Any) -> list[Combination]:
    content = {"topology": "two_nodes", "frames": 60, **keys}
    variations = [read_variation(text) for text in texts]
    return combine(content, variations, lambda keys: make_scenario(keys, origin="here"), lambda scenario: model)


def test_all_combinations_come_with_the_last_key_fastest(model: SimulatedModel) -> None:
    found = combinations_of(model, "worker.batch_max=1,8", "controller.alpha=0.1,0.2")
    assert [each.values for each in found] == [(1, 0.1), (1, 0.2), (8, 0.1), (8, 0.2)]
    assert [each.scenario.worker["batch_max"] for each in found] == [1, 1, 8, 8]


def test_the_network_is_asked_for_once_per_kind(model: SimulatedModel) -> None:
    asked: list[str] = []

    def model_of(scenario: Scenario) -> SimulatedModel:
        asked.append(scenario.precision)
        return model

    variations = [read_variation("precision=fp32,bf16"), read_variation("frames=1,2,3")]
    combine({"topology": "two_nodes"}, variations, lambda keys: make_scenario(keys, origin="here"), model_of)
    assert asked == ["fp32", "bf16"]


def test_a_combination_that_cannot_be_used_is_named(model: SimulatedModel) -> None:
    with pytest.raises(ConfigurationError, match=r"^with frames=5 controller\.alpha=2: here: .*alpha.*got 2"):
        combinations_of(model, "frames=5", "controller.alpha=0.1,2")
    with pytest.raises(ConfigurationError, match=r"^with topology=nowhere: .*no topology 'nowhere'"):
        combinations_of(model, "topology=two_nodes,nowhere")
    with pytest.raises(ConfigurationError, match="every key once"):
        combinations_of(model, "frames=5", "frames=6")


def test_rows_come_in_order_of_combinations_and_seeds(model: SimulatedModel) -> None:
    rows = sweep_all(combinations_of(model, "frames=20,30", seed=5), seeds=2, jobs=1)
    assert [(row["offered"], row["seed"]) for row in rows] == [(20, 5), (20, 6), (30, 5), (30, 6)]
    assert set(rows[0]) == {"seed", *FIGURES}


def test_processes_give_the_same_rows_as_none(model: SimulatedModel) -> None:
    combinations = combinations_of(model, "worker.batch_max=1,8", network={"jitter_ms": 1.0})
    done: list[None] = []
    beside = sweep_all(combinations, seeds=2, jobs=2, on_done=lambda: done.append(None))
    assert beside == sweep_all(combinations, seeds=2, jobs=1)
    assert len({row["latency_mean_ms"] for row in beside}) == len(done) == 4


def test_stability_is_of_the_steps_in_load(model: SimulatedModel, scenario: MakeScenario) -> None:
    steps = {"kind": "steps", "steps": [[0, 50], [2, 150], [6, 50]]}
    keys = {"frames": None, "duration_s": 10, "controller": {"mode": "rate"}, "source": {"drop": "oldest"}}
    figures = run_once(scenario(arrivals=steps, **keys), model)
    assert figures["offered"] == pytest.approx(2 * 50 + 4 * 150 + 4 * 50, abs=2)
    assert 0.0 < figures["reach_s"] <= figures["settling_s"]


def test_steps_count_from_the_first_frame(model: SimulatedModel, scenario: MakeScenario) -> None:
    steps = {"kind": "steps", "steps": [[0, 50], [1, 150]]}
    simulation = Simulation(scenario(arrivals=steps), model)
    simulation.run()
    began_at = simulation.sources["camera"].began_at
    assert began_at is not None and began_at > 0.0
    assert load_steps(simulation) == [1.0 + began_at]


def test_the_shipped_step_goes_up_and_down() -> None:
    steps = load_scenario("step").arrivals.steps
    assert steps is not None
    first, high, last = (rate_hz for _, rate_hz in steps)
    assert first == last < high


def test_without_steps_the_beginning_is_one(model: SimulatedModel, scenario: MakeScenario) -> None:
    assert load_steps(Simulation(scenario(), model)) == [0.0]


def test_stability_is_left_out_where_nothing_adapts(model: SimulatedModel, scenario: MakeScenario) -> None:
    assert run_once(scenario(), model)["settling_s"] is None


@pytest.fixture
def run_verb(model: SimulatedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """Runs the verb on a small scenario with the made-up network."""
    monkeypatch.setattr(simulated_model, "simulated_model", lambda scenario: model)
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps({"topology": "two_nodes", "frames": 40}))

    def run(*arguments: str) -> tuple[int, str]:
        assert isinstance(sweep.sweep, click.Command)
        done = CliRunner().invoke(
            sweep.sweep, [str(path), "--jobs", "1", *arguments], catch_exceptions=False, standalone_mode=False
        )
        return done.return_value, done.output

    return run


def test_csv_has_a_row_per_run_marked_simulated(run_verb: Sweep, tmp_path: Path) -> None:
    output = tmp_path / "rows.csv"
    run_verb(
        "--vary", "worker.batch_max=1,8", "--vary", "thresholds=[0.5, 0.5]", "--seeds", "2", "--output", str(output)
    )
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["worker.batch_max"], row["thresholds"], row["seed"]) for row in rows] == [
        ("1", "[0.5, 0.5]", "1"),
        ("1", "[0.5, 0.5]", "2"),
        ("8", "[0.5, 0.5]", "1"),
        ("8", "[0.5, 0.5]", "2"),
    ]
    assert {row["simulated"] for row in rows} == {"True"}
    assert {row["ok"] for row in rows} == {"40"}
    assert {row["settling_s"] for row in rows} == {""}


@pytest.mark.parametrize(("best", "line"), [("offered", "30"), ("offered:min", "20")])
def test_the_best_combination_is_marked(run_verb: Sweep, best: str, line: str) -> None:
    _, output = run_verb("--vary", "frames=20,30", "--best", best)
    (marked,) = [text for text in output.splitlines() if text.rstrip().endswith("best")]
    assert marked.split()[0] == line
    assert "simulated" in output


def test_a_picture_is_drawn(run_verb: Sweep, tmp_path: Path) -> None:
    picture = tmp_path / "sweep.png"
    run_verb("--vary", "frames=20,30", "--vary", "worker.batch_max=1,8", "--plot", str(picture), "--figure", "accuracy")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--best", "acuracy"), "did you mean 'accuracy'"),
        (("--best", "accuracy:most"), "FIGURE:min or FIGURE:max"),
        (("--figure", "colour"), "expected one of offered"),
        (("--output", "rows.json"), "ends in .csv or .parquet"),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_runs(
    run_verb: Sweep, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr("mdi_exit_ros.simulation.sweeping.sweep", lambda *_: pytest.fail("it ran"))
    with pytest.raises(ConfigurationError, match=said):
        run_verb("--vary", "frames=20,30", *arguments)


def test_parquet_without_its_package_names_it(run_verb: Sweep, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pip install pyarrow"):
        run_verb("--vary", "frames=20", "--output", str(tmp_path / "rows.parquet"))


def test_parquet_holds_the_same_rows(run_verb: Sweep, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    output = tmp_path / "rows.parquet"
    run_verb("--vary", "thresholds=null,[0.5, 0.5]", "--output", str(output))
    rows = parquet.read_table(output).to_pylist()
    assert [(row["thresholds"], row["ok"], row["settling_s"]) for row in rows] == [
        (None, 40, None),
        ("[0.5, 0.5]", 40, None),
    ]


def test_keys_are_varied_one_at_a_time_beside_the_scenario_as_it_is(run_verb: Sweep, tmp_path: Path) -> None:
    output, picture = tmp_path / "rows.csv", tmp_path / "sweep.png"
    varied = ("--vary", "worker.batch_max=1,8", "--vary", "frames=20,30")
    run_verb(*varied, "--apart", "--output", str(output), "--plot", str(picture))
    with output.open(newline="") as file:
        rows = [(row["key"], row["value"], row["ok"]) for row in csv.DictReader(file)]
    assert rows == [
        ("as it is", "", "40"),
        ("worker.batch_max", "1", "40"),
        ("worker.batch_max", "8", "40"),
        ("frames", "20", "20"),
        ("frames", "30", "30"),
    ]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("key", "own"),
    [
        ("frames", 40),
        ("arrivals.steps.1.0", 4),
        ("worker.batch_max", 32),  # a node's default
        ("controller.zeta", 0.5),
        ("nowhere.at_all", None),
    ],
)
def test_value_of_a_key_that_is_left_as_it_is(key: str, own: Any) -> None:
    content = {"frames": 40, "controller": {"zeta": 0.5}, "arrivals": {"steps": [[0, 1], [4, 2]]}}
    assert own_value(content, key) == own


def test_a_key_that_is_varied_twice_is_told(run_verb: Sweep) -> None:
    with pytest.raises(ConfigurationError, match="every key once, got frames, frames"):
        run_verb("--vary", "frames=20", "--vary", "frames=30", "--apart")
