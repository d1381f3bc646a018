# SPDX-License-Identifier: Apache-2.0
"""Scenario files: what is wrong is told in one line with file, key, value and what was expected."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from mdi_exit_ros.errors import ConfigurationError, DataError
from mdi_exit_ros.simulation.arrivals import read_arrivals
from mdi_exit_ros.simulation.cluster import Simulation
from mdi_exit_ros.simulation.generated import generated_topology
from mdi_exit_ros.simulation.model import SimulatedModel
from mdi_exit_ros.simulation.scenario import (
    Generated,
    find_scenario,
    known_scenarios,
    load_scenario,
    make_scenario,
    naming,
)

GOOD = {"topology": "three_mesh"}
FILE = "robots/demo.yaml"


def refusal(keys: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        make_scenario(keys, origin=FILE)
    assert "\n" not in str(caught.value)
    return str(caught.value)


KILL = {"at_s": 1.0, "worker": "worker2", "do": "kill"}
BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"topology": "three_mesh", "together": True, "computers": {"robot": {}}},
        "together: everything is on the one computer: expected neither links nor computers",
    ),
    ({"topologie": "three_mesh"}, "topologie: unknown key (did you mean 'topology'?): expected one of description, "),
    ({}, "topology: missing; it has to be given"),
    (
        {"topology": 5},
        ("topology: expected the name or file of a topology, or a mapping with workers, neighbours, sources, got 5"),
    ),
    (
        {"topology": {"workers": 3, "neigbours": 2}},
        ("topology.neigbours: unknown key (did you mean 'neighbours'?): expected one of workers, neighbours, sources"),
    ),
    ({"topology": {"workers": 3}}, "topology.neighbours: missing; it has to be given"),
    ({"topology": {"workers": -1, "neighbours": 2}}, "topology.workers: expected greater than or equal to 1, got -1"),
    ({"strategy": "mdi_exits"}, "strategy: expected one of 'local', 'ddi', 'mdi' or 'mdi_exit', got 'mdi_exits'"),
    ({"frames": "many"}, "frames: expected a valid integer, unable to parse string as an integer, got 'many'"),
    ({"frames": -1}, "frames: expected greater than or equal to 1, got -1"),
    ({"frames": 10.5}, "frames: expected a valid integer, got a number with a fractional part, got 10.5"),
    ({"frames": None}, "frames, duration_s: expected a number in one of them, as it never ends else; got null"),
    ({"duration_s": math.inf, "frames": None}, "duration_s: expected a finite number, got inf"),
    ({"duration_s": -2}, "duration_s: expected greater than 0, got -2"),
    ({"seed": -1}, "seed: expected greater than or equal to 0, got -1"),
    ({"reach": 0}, "reach: expected greater than or equal to 1, got 0"),
    ({"thresholds": [0.5, 7]}, "thresholds.1: expected less than or equal to 1, got 7"),
    ({"thresholds": [math.nan]}, "thresholds.0: expected a finite number, got nan"),
    ({"arrivals": 600}, "arrivals: expected a mapping with kind, rate_hz, steps, trace, got 600"),
    (
        {"arrivals": {"kind": "periodic"}},
        ("arrivals: expected rate_hz with kind periodic or poisson, and with no other, got {'kind': 'periodic'}"),
    ),
    (
        {"arrivals": {"rate_hz": 3}},
        ("arrivals: expected rate_hz with kind periodic or poisson, and with no other, got {'rate_hz': 3}"),
    ),
    ({"arrivals": {"kind": "poisson", "rate_hz": -3}}, "arrivals.rate_hz: expected greater than 0, got -3"),
    (
        {"arrivals": {"kind": "poisson", "rate": 3}},
        ("arrivals.rate: unknown key (did you mean 'rate_hz'?): expected one of kind, rate_hz, steps, trace"),
    ),
    (
        {"arrivals": {"kind": "perodic"}},
        ("arrivals.kind: expected one of 'max', 'periodic', 'poisson', 'steps' or 'trace', got 'perodic'"),
    ),
    (
        {"arrivals": {"kind": "trace"}},
        ("arrivals: expected the path of a file in trace with kind trace, and with no other, got {'kind': 'trace'}"),
    ),
    (
        {"arrivals": {"kind": "steps", "steps": [[1, 5]]}},
        (
            "arrivals: expected steps at times that begin with 0 and rise, got [1.0], got {'kind': "
            "'steps', 'steps': [[1, 5]]}"
        ),
    ),
    (
        {"arrivals_of": {"camera": {"kind": "poisson", "rate_hz": 0}}},
        "arrivals_of.camera.rate_hz: expected greater than 0, got 0",
    ),
    ({"network": {"rate_mbps": 0}}, "network.rate_mbps: expected greater than 0, got 0"),
    ({"network": {"rate_mbps": math.nan}}, "network.rate_mbps: expected a finite number, got nan"),
    (
        {"network": {"rate": "5 Mbit/s"}},
        (
            "network.rate: unknown key (did you mean 'rate_mbps'?): expected one of rate_mbps, "
            "latency_ms, jitter_ms, loss, repair_ms, medium"
        ),
    ),
    (
        {"network": {"latency_ms": "5ms"}},
        ("network.latency_ms: expected a valid number, unable to parse string as a number, got '5ms'"),
    ),
    ({"network": {"loss": 1.0}}, "network.loss: expected less than 1, got 1.0"),
    ({"computer": {"cores": 0}}, "computer.cores: expected greater than 0, got 0"),
    (
        {"computers": {"nano2": {"core": 5}}},
        (
            "computers.nano2.core: unknown key (did you mean 'cores'?): "
            "expected one of cores, speed, all_busy, port_mbps"
        ),
    ),
    ({"computers": {"nano2": 5}}, "computers.nano2: expected a mapping with cores, speed, all_busy, port_mbps, got 5"),
    ({"quotas": {"worker1": 0}}, "quotas.worker1: expected greater than 0, got 0"),
    ({"links": {"a": 1}}, "links: expected a valid list, got {'a': 1}"),
    ({"links": [{"rate_mbps": 3}]}, "links.0.between: missing; it has to be given"),
    (
        {"links": [{"between": ["robot", "robot"]}]},
        ("links.0: expected between with two different computers, got {'between': ['robot', 'robot']}"),
    ),
    (
        {"links": [{"between": ["robot", "nano2"]}, {"between": ["nano2", "robot"]}]},
        "links.1.between: the link of nano2 and robot is there twice: expected once",
    ),
    ({"events": [KILL | {"at_s": -1}]}, "events.0.at_s: expected greater than or equal to 0, got -1"),
    (
        {"events": [KILL, KILL | {"do": "reboot"}]},
        "events.1.do: expected one of 'kill', 'stop', 'start', 'speed', 'model' or 'link', got 'reboot'",
    ),
    (
        {"events": [KILL | {"do": "speed"}]},
        (
            "events.0: expected speed with do: speed, and with nothing else, got {'at_s': 1.0, "
            "'worker': 'worker2', 'do': 'speed'}"
        ),
    ),
    (
        {"events": [KILL | {"speed": 2}]},
        (
            "events.0: expected speed with do: speed, and with nothing else, got {'at_s': 1.0, "
            "'worker': 'worker2', 'do': 'kill', 'speed': 2}"
        ),
    ),
    (
        {"events": [{"at_s": 1.0, "do": "link"}]},
        "events.0: expected link with do: link, and with nothing else, got {'at_s': 1.0, 'do': 'link'}",
    ),
    (
        {"events": [{"at_s": 1.0, "worker": "worker2", "do": "link", "link": {"between": ["robot", "nano2"]}}]},
        "events.0: expected the name of a worker, but none with do: model and do: link, got {'at_s': 1.0, ",
    ),
    (
        {"events": [{"at_s": 1.0, "do": "link", "link": {"between": ["robot"]}}]},
        "events.0.link.between.1: missing; it has to be given",
    ),
    (
        {"events": [{"at_s": 1.0, "do": "link", "link": {"between": ["robot", "nano2"], "rate": 3}}]},
        "events.0.link.rate: unknown key (did you mean 'rate_mbps'?): expected one of rate_mbps, ",
    ),
    (
        {"together": True, "events": [{"at_s": 1.0, "do": "link", "link": {"between": ["robot", "nano2"]}}]},
        "together: everything is on the one computer: expected neither links nor computers",
    ),
    (
        {"costs": {"receive": 1}},
        "costs.receive: unknown key (did you mean 'receive_us'?): expected one of receive_us, ",
    ),
    ({"costs": {"receive_us": -1}}, "costs.receive_us: expected greater than or equal to 0, got -1"),
    ({"worker": 5}, "worker: expected a mapping, got 5"),
    (
        {"worker": {"queue_capacty": 5}},
        ("worker.queue_capacty: unknown key (did you mean 'queue_capacity'?): expected one of queue_capacity, "),
    ),
    ({"worker": {"queue_capacity": "x"}}, "worker.queue_capacity: expected a whole number, got 'x'"),
    ({"worker": {"encoding": "int4"}}, "worker.encoding: expected one of auto, raw, fp16, int8, got 'int4'"),
    ({"worker": {"threads": -1}}, "worker.threads: expected 0..256, got -1"),
    (
        {"worker": {"backend": "openvino"}},
        ("worker.backend: has no effect in a simulation: expected the scenario's backend instead, got 'openvino'"),
    ),
    (
        {"source": {"rate_hz": 30.0}},
        ("source.rate_hz: has no effect in a simulation: expected the scenario's arrivals instead, got 30.0"),
    ),
    ({"source": {"drop": "newest"}}, "source.drop: expected one of auto, oldest, never, got 'newest'"),
    ({"controller": {"mode": "fast"}}, "controller.mode: expected one of manual, rate, threshold, got 'fast'"),
    ({"controller": {"target_accuracy": 5.0}}, "controller.target_accuracy: expected 0.0..1.0, got 5.0"),
    ({1: 2}, "1: expected a word as key, got 1"),
]


@pytest.mark.parametrize(
    ("keys", "text"), BAD, ids=[text.partition(":")[0] + str(i) for i, (_, text) in enumerate(BAD)]
)
def test_bad_value_is_told_with_file_key_value_and_what_was_expected(keys: dict[str, Any], text: str) -> None:
    given = keys if "topology" in keys or "topologie" in keys or not keys else GOOD | keys
    told = refusal(given)
    assert told.startswith(f"{FILE}: {text}")
    assert text.endswith(" ") or told == f"{FILE}: {text}"


def test_long_wrong_value_is_cut() -> None:
    assert len(refusal(GOOD | {"links": "x" * 10_000})) < 400


UNKNOWN: list[tuple[dict[str, Any], str]] = [
    ({"nodes": {"workr2": {"threads": 2}}}, "nodes.workr2: there is no such node (did you mean 'worker2'?)"),
    ({"nodes": {"worker1": {"thread": 2}}}, "nodes.worker1.thread: unknown key (did you mean 'threads'?)"),
    ({"nodes": {"camera": {"rate_hz": 5.0}}}, "nodes.camera.rate_hz: has no effect in a simulation"),
    ({"topology": "thre_mesh"}, "topology: no topology 'thre_mesh' (did you mean 'three_mesh'?)"),
    (
        {"topology": {"workers": 2, "neighbours": 1, "sources": 3}},
        "topology.sources: expected at most one per worker, got 3 for 2 workers",
    ),
    (
        {"topology": {"workers": 2, "neighbours": 0}},
        ("workers.worker2: no frame from the home worker worker1 can reach its segments [1, 2, 3]: add an edge"),
    ),
    ({"thresholds": [0.5]}, "thresholds: expected one for each of exits 1..2 of three, got 1"),
    ({"computers": {"nano9": {}}}, "computers.nano9: 'nano9' is no computer in "),
    ({"links": [{"between": ["robot", "nano9"]}]}, "links.0.between: 'nano9' is no computer in "),
    ({"quotas": {"worker9": 1}}, "quotas.worker9: 'worker9' is no worker of this strategy in "),
    ({"arrivals_of": {"cam": {}}}, "arrivals_of.cam: 'cam' is no source in "),
    ({"events": [KILL, KILL | {"worker": "worker9"}]}, "events.1.worker: 'worker9' is no worker of this strategy in "),
    ({"events": [KILL], "strategy": "local"}, "events.0.worker: 'worker2' is no worker of this strategy in "),
    (
        {"arrivals": {"kind": "trace", "trace": "none.txt"}},
        "arrivals.trace: cannot read none.txt: No such file or directory",
    ),
    (
        {"arrivals_of": {"camera": {"kind": "trace", "trace": "none.txt"}}},
        "arrivals_of.camera.trace: cannot read none.txt: No such file or directory",
    ),
]


@pytest.mark.parametrize(
    ("keys", "text"), UNKNOWN, ids=[text.partition(":")[0] + str(i) for i, (_, text) in enumerate(UNKNOWN)]
)
def test_name_that_refers_to_nothing_is_told(model: SimulatedModel, keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError) as caught, naming(FILE):
        Simulation(make_scenario(GOOD | keys, origin=FILE), model)
    told = str(caught.value)
    assert told.startswith(f"{FILE}: ")
    assert text in told
    assert "\n" not in told


def test_encoding_of_a_topology_that_is_none_is_told(model: SimulatedModel, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "computers: {a: }\nworkers: {w1: {computer: a, encoding: int4}}\nsources: {cam: {computer: a, home: w1}}\n"
    )
    with pytest.raises(
        ConfigurationError, match=r"workers\.w1\.encoding: expected one of auto, raw, fp16, int8, got 'int4'"
    ):
        Simulation(make_scenario({"topology": str(path)}, origin=FILE), model)


def test_error_that_names_the_file_already_is_left_as_it_is() -> None:
    with pytest.raises(DataError, match=r"^a\.yaml: b$"), naming("a.yaml"):
        raise DataError("a.yaml: b")
    with pytest.raises(DataError, match=r"^a\.yaml: b$"), naming("a.yaml"):
        raise DataError("b")


# ---- files ---------------------------------------------------------------------------------------------------------


def test_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("topology: one_node\nframes: 5\nframes: 6\n")
    with pytest.raises(
        ConfigurationError, match=r"s\.yaml: expected YAML with every key once in line 1: 'frames' is there twice"
    ):
        load_scenario(path)


@pytest.mark.parametrize("content", ["- a\n", "5\n", "", "a: [\n"])
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"s\.yaml: expected ") as caught:
        load_scenario(path)
    assert "\n" not in str(caught.value)


def test_unknown_scenario_is_told_with_what_was_meant() -> None:
    with pytest.raises(ConfigurationError, match=r"no scenario 'three_mes' \(did you mean 'three_mesh'\?\)"):
        load_scenario("three_mes")


@pytest.mark.parametrize("name", known_scenarios())
def test_shipped_scenario_can_be_used(name: str) -> None:
    text = find_scenario(name).read_text(encoding="utf-8")
    assert load_scenario(name).description
    assert "# yaml-language-server: $schema=schema.json" in text
    assert isinstance(yaml.safe_load(text), dict)


def test_paths_are_taken_from_the_scenario_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "robots"
    folder.mkdir()
    for name in ("arrivals.txt", "own.yaml", "times.json", "answers.npz"):
        (folder / name).write_text("")
    (folder / "s.yaml").write_text(
        "topology: own.yaml\nprofile: times.json\nrecording: answers.npz\n"
        "arrivals: {kind: trace, trace: arrivals.txt}\narrivals_of: {cam: {kind: trace, trace: arrivals.txt}}\n"
    )
    monkeypatch.chdir(tmp_path)
    found = load_scenario("robots/s.yaml")
    assert found.topology == str(folder / "own.yaml")
    assert (found.profile, found.recording) == (str(folder / "times.json"), str(folder / "answers.npz"))
    assert found.arrivals.trace == found.arrivals_of["cam"].trace == str(folder / "arrivals.txt")


def test_names_of_what_is_shipped_stay_names(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("topology: three_mesh\n")
    found = load_scenario(tmp_path / "s.yaml")
    assert (found.topology, found.model, found.profile) == ("three_mesh", "mobilenetv2", "shipped")


def test_whole_numbers_are_taken_for_numbers_of_nodes() -> None:
    found = make_scenario(GOOD | {"worker": {"batch_wait_s": 1}}, origin=FILE)
    assert found.worker == {"batch_wait_s": 1.0}
    assert isinstance(found.worker["batch_wait_s"], float)


def test_arrivals_are_read_from_lines(tmp_path: Path) -> None:
    path = tmp_path / "times.txt"
    path.write_text("0.5\n0.5\n\n2e0\n")
    assert read_arrivals(path) == [0.5, 0.5, 2.0]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"1\n0.5\n", "line 2 of .*: expected a time in seconds, none earlier than the one before, got '0.5'"),
        (b"1\nnan\n", "line 2 of .*got 'nan'"),
        (b"soon\n", "line 1 of .*got 'soon'"),
        (b"", "is empty: expected one time in seconds per line"),
        (b"\xff\xfe", "not UTF-8 text"),
    ],
)
def test_bad_arrivals_are_told_with_their_line(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "times.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=text):
        read_arrivals(path)


# ---- topologies made on the spot -----------------------------------------------------------------------------------


def test_circle_joins_each_with_its_nearest() -> None:
    topology = generated_topology(Generated(workers=6, neighbours=3))
    assert topology.successors["worker1"] == ("worker2", "worker6", "worker3")
    assert {len(others) for others in topology.successors.values()} == {3}


@pytest.mark.parametrize(("workers", "neighbours"), [(1, 0), (1, 5), (2, 1), (2, 5), (3, 32), (5, 4)])
def test_small_circles_have_no_edge_twice_and_none_to_themselves(workers: int, neighbours: int) -> None:
    topology = generated_topology(Generated(workers=workers, neighbours=neighbours))
    for name, others in topology.successors.items():
        assert len(others) == len(set(others)) == min(neighbours, workers - 1)
        assert name not in others


def test_sources_are_spread_evenly_each_with_a_home_of_its_own() -> None:
    topology = generated_topology(Generated(workers=10, neighbours=2, sources=4))
    assert [source.home for source in topology.sources] == ["worker1", "worker3", "worker6", "worker8"]
    assert [source.computer for source in topology.sources] == ["computer1", "computer3", "computer6", "computer8"]
