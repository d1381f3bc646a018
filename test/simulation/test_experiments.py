# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdi_exit_ros.cli import paper as paper_verb
from mdi_exit_ros.cli.simulated_model import simulated_model
from mdi_exit_ros.errors import ConfigurationError, DataError
from mdi_exit_ros.profile import BackendProfile, ServiceTime
from mdi_exit_ros.simulation import experiments
from mdi_exit_ros.simulation.experiment_rows import measure, real_run, stops_paying, with_shares
from mdi_exit_ros.simulation.experiments import (
    TOPOLOGIES,
    Extent,
    Point,
    Request,
    one_computer_fps,
    rate_points,
    scale_points,
    shuffled,
    spread,
    threshold_points,
)
from mdi_exit_ros.simulation.model import SimulatedModel
from mdi_exit_ros.simulation.recording import Recording
from mdi_exit_ros.simulation.scenario import make_scenario, read_scenario_keys

IMAGES = 200
TINY = Extent(
    threshold_points=2,
    frames=300,
    rates=(0.5, 20.0),
    warm_up_s=2.0,
    window_s=1.0,
    passes=0.5,
    workers=(1, 2, 4),
    scale_warm_up_s=0.3,
    scale_window_s=0.2,
)


def made_up_model() -> SimulatedModel:
    """Two segments of 10 ms per frame; exit 1 is right on the 150 of 200 images that it is sure of, exit 2 always."""
    sure = np.arange(IMAGES) % 4 != 0
    recording = Recording(
        confidence=np.stack([np.where(sure, 0.9, 0.4), np.ones(IMAGES)], axis=1),
        correct=np.stack([sure, np.ones(IMAGES, dtype=bool)], axis=1),
        model_id="made up",
        images="made-up images",
        data_hash="none",
    )
    times = BackendProfile(
        backend="onnxruntime",
        precision="fp32",
        device="cpu",
        threads=1,
        version="1",
        times=tuple(
            ServiceTime(segment=segment, batch=batch, seconds=0.01 * batch, low=0.01 * batch, high=0.01 * batch)
            for segment in (1, 2)
            for batch in (1, 8)
        ),
    )
    return SimulatedModel(
        name="made_up",
        model_id="made up",
        num_segments=2,
        input_nbytes={"raw": (3072, 8192), "fp16": (3072, 4096), "int8": (3072, 2048)},
        segment_costs=(1.0, 1.0),
        default_thresholds=(0.5,),
        curve=((0.75, (0.2,)), (1.0, (0.5,))),
        times=times,
        recording=recording,
        machine="a computer",
    )


@pytest.fixture
def model() -> SimulatedModel:
    return made_up_model()


def request_for(scenario: str, model: SimulatedModel, seed: int = 1, **extent: Any) -> Request:
    return Request(read_scenario_keys(scenario), model, "mobilenetv2", dataclasses.replace(TINY, **extent), seed)


def find(points: list[Point], **facts: Any) -> Point:
    (found,) = [point for point in points if facts.items() <= point.facts.items()]
    return found


def test_points_of_a_curve_are_evenly_spaced_in_accuracy() -> None:
    curve = tuple((accuracy, (accuracy,)) for accuracy in (0.5, 0.51, 0.52, 0.7, 0.88, 0.9))
    assert spread(curve, 3) == [(0.5,), (0.7,), (0.9,)]
    assert spread(curve, 1) == [(0.5,)]
    assert spread((), 3) == []


def test_rate_experiment_has_every_topology_and_one_point_where_nothing_leaves_early(model: SimulatedModel) -> None:
    points = rate_points(request_for("paper_rate", model))
    of = [(point.facts["topology"], point.facts["series"]) for point in points]
    assert list(dict.fromkeys(topology for topology, _ in of)) == list(TOPOLOGIES)
    assert of.count(("five_mesh", "mdi_exit")) == 2
    assert of.count(("five_mesh", "mdi_exit, no exits")) == 1
    assert {series for topology, series in of if topology == "one_node"} == {"local", "local, no exits"}
    assert {point.scenario.frames for point in points} == {400}  # 300 rounded up to whole passes over 200 images


def test_equal_thresholds_have_equal_accuracy_whatever_the_topology(model: SimulatedModel) -> None:
    points = rate_points(request_for("paper_rate", model, frames=2400))  # beyond the start, which is the same for all
    for topology in ("two_nodes", "five_mesh"):
        cheap = measure(find(points, topology=topology, series="mdi_exit", thresholds="0.2"), model)
        dear = measure(find(points, topology=topology, series="mdi_exit", thresholds="0.5"), model)
        assert (cheap["accuracy"], dear["accuracy"]) == (0.75, 1.0)
        assert (cheap["exit_1"], dear["exit_1"]) == (1.0, 0.75)
        assert cheap["rate_fps"] > dear["rate_fps"]
        assert cheap["simulated"] is dear["simulated"] is True


def test_same_seed_gives_the_same_row(model: SimulatedModel) -> None:
    rows = []
    for seed in (1, 1, 2):
        points = threshold_points(request_for("paper_threshold", model, seed))
        rows.append(measure(find(points, topology="two_nodes", series="mdi_exit", arrival_rate_hz=1000.0), model))
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_arrival_rates_are_multiples_of_what_one_computer_runs(model: SimulatedModel) -> None:
    points = threshold_points(request_for("paper_threshold", model))
    # 4 cores of a quarter speed, 20 ms per frame.
    assert one_computer_fps(points[0].scenario, model) == pytest.approx(50.0)
    assert {point.facts["arrival_rate_hz"] for point in points} == {25.0, 1000.0}
    assert find(points, topology="one_node", series="local", arrival_rate_hz=25.0).scenario.duration_s == 6.0
    assert find(points, topology="one_node", series="local", arrival_rate_hz=1000.0).scenario.duration_s == 3.0


def test_overload_costs_accuracy_with_exits_and_answers_without(model: SimulatedModel) -> None:
    points = threshold_points(request_for("paper_threshold", model, window_s=6.0))
    rows = {
        series: measure(find(points, topology="three_mesh", series=series, arrival_rate_hz=1000.0), model)
        for series in ("mdi_exit", "mdi_exit, no exits")
    }
    assert rows["mdi_exit"]["accuracy"] < 0.9
    assert rows["mdi_exit, no exits"]["accuracy"] == 1.0
    assert rows["mdi_exit"]["answered_share"] > 1.3 * rows["mdi_exit, no exits"]["answered_share"]


def test_shuffled_recording_has_the_same_answers_in_another_order(model: SimulatedModel) -> None:
    other = shuffled(model, 1)
    assert not np.array_equal(other.recording.correct, model.recording.correct)
    assert other.recording.correct[:, 0].sum() == 150
    assert np.array_equal(other.recording.correct[:, 0], other.recording.confidence[:, 0] == 0.9)


def test_decisions_are_timed_without_being_changed(model: SimulatedModel) -> None:
    point = find(scale_points(request_for("scale", model)), workers=4, series="nodes' own work costs time")
    timed, untimed = measure(point, model), measure(point._replace(experiment="threshold"), model)
    assert {key: value for key, value in timed.items() if not key.startswith("decision")} == untimed
    assert all(timed[f"decision_us_per_frame_{kind}"] > 0.0 for kind in ("workers", "sources", "controller"))


def test_number_of_sources_follows_the_number_of_workers(model: SimulatedModel) -> None:
    request = request_for("scale", model)
    points = scale_points(request._replace(extent=dataclasses.replace(TINY, workers=(1, 63, 128, 1000))))
    assert [point.facts["sources"] for point in points[:4]] == [1, 1, 2, 15]


def test_offloading_stops_paying_where_the_share_stays_below() -> None:
    throughput = {1: 100.0, 2: 90.0, 4: 300.0, 8: 320.0, 16: 330.0}
    rows = [{"series": "one", "workers": workers, "rate_fps": fps} for workers, fps in throughput.items()]
    rows += [{"series": "other", "workers": workers, "rate_fps": 10.0 * workers} for workers in (1, 2)]
    shared = with_shares(rows)
    assert [row["share_of_one_worker"] for row in shared[:5]] == [1.0, 0.45, 0.75, 0.4, 0.20625]
    assert stops_paying(shared) == {"one": 8, "other": None}


# ---- the verb ----------------------------------------------------------------------------------------------------


def real_summary(**changes: Any) -> dict[str, Any]:
    return {
        "model": "mobilenetv2",
        "topology": "two_nodes",
        "strategy": "mdi_exit",
        "workers": {"worker1": {}, "worker2": {}},
        "machine": {"processor": "a real one"},
        "options": {"source": {"rate_hz": 0}},
        "steady_fps": 1234.5,
        "throughput_fps": 1000.0,
        "accuracy": 0.87,
        "ok": 900,
        "refused": {"stale": 100},
        "failed": {},
        **changes,
    }


def run(*arguments: str) -> Any:
    return paper_verb.paper.main(list(arguments), standalone_mode=False)


def test_unknown_experiment_is_told_with_the_known_ones(tmp_path: Path) -> None:
    expected = "--only: no experiment 'rates': expected one of rate, threshold, scale"
    with pytest.raises(ConfigurationError, match=re.escape(expected)):
        run("--out", str(tmp_path), "--only", "rates")


def test_simulated_summary_is_no_real_run(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(real_summary(simulated=True)))
    with pytest.raises(DataError, match="is of a simulation"):
        real_run(path)


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_file_that_is_no_summary_is_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"--real: .*run\.json"):
        real_run(path)


def test_real_runs_stand_in_a_table_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiments, "QUICK", dataclasses.replace(TINY, threshold_points=1))
    real, other = tmp_path / "real.json", tmp_path / "other.json"
    real.write_text(json.dumps(real_summary()))
    other.write_text(json.dumps(real_summary(topology="my_own")))
    out = tmp_path / "out"
    options = ("--quick", "--only", "rate", "--model", "mobilenetv2", "--jobs", "1")
    assert run("--out", str(out), *options, "--real", str(real), "--real", str(other)) == 0
    assert {path.name for path in out.iterdir()} == {
        "rate_mobilenetv2.png",
        "rate_mobilenetv2.json",
        "rate_mobilenetv2.csv",
        "rate_mobilenetv2_measured.csv",
    }
    document = json.loads((out / "rate_mobilenetv2.json").read_text())
    assert document["simulated"] is True
    assert {row["simulated"] for row in document["rows"]} == {True}
    assert [(row["rate_fps"], row["answered_share"], row["simulated"]) for row in document["measured"]] == [
        (1234.5, 0.9, False)
    ]
    with (out / "rate_mobilenetv2.csv").open() as file:
        assert {row["simulated"] for row in csv.DictReader(file)} == {"True"}
    assert f"{other} is in no figure" in capsys.readouterr().out


def test_network_that_cannot_be_simulated_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paper_verb, "MODELS", ("mobilenetv2", "not_yet_trained"))
    assert paper_verb._available(()) == ["mobilenetv2"]
    assert capsys.readouterr().out.startswith("left out: not_yet_trained (no model 'not_yet_trained'")
    monkeypatch.setattr(paper_verb, "NEEDED", ("model.json", "nothing.npz"))
    assert paper_verb._missing("mobilenetv2") == "mobilenetv2 (its folder has no nothing.npz)"
    with pytest.raises(ConfigurationError, match="--model: nowhere"):
        paper_verb._available(("nowhere",))


def test_processes_give_the_rows_of_one() -> None:
    content = read_scenario_keys("paper_rate")
    model = made_up_model()
    extent = dataclasses.replace(TINY, threshold_points=1)
    points = rate_points(Request(content, model, "mobilenetv2", extent, 1))[:2]
    points = [
        point._replace(scenario=point.scenario.model_copy(update={"thresholds": [0.5, 0.5, 0.5, 0.5], "frames": 200}))
        for point in points
    ]
    alone = dict(paper_verb.simulate_all(points, 1))
    together = dict(paper_verb.simulate_all(points, 2))
    assert alone == together
    assert sorted(alone) == [0, 1]


def test_a_model_with_an_autoencoder_is_also_simulated_without_it(model: SimulatedModel) -> None:
    narrow = dataclasses.replace(model, autoencoder=True)
    plain = {point.facts["series"] for point in rate_points(request_for("paper_rate", model))}
    points = rate_points(request_for("paper_rate", narrow))
    more = {point.facts["series"] for point in points} - plain
    assert more == {"mdi_exit, no autoencoder", "mdi_exit, no exits, no autoencoder", "mdi, no autoencoder"}
    assert {point.facts["series"] for point in points if not point.scenario.autoencoder} == more


def test_without_its_autoencoder_features_of_resnet50_travel_at_full_width() -> None:
    def nbytes(model: str, *, autoencoder: bool) -> tuple[int, ...]:
        content = {"topology": "one_node", "model": model, "autoencoder": autoencoder}
        return simulated_model(make_scenario(content, origin="a test")).input_nbytes["raw"]

    assert nbytes("resnet50", autoencoder=True) == (3072, 8192, 131072, 65536)
    assert nbytes("resnet50", autoencoder=False) == (3072, 262144, 131072, 65536)
    assert nbytes("mobilenetv2", autoencoder=False) == nbytes("mobilenetv2", autoencoder=True)
