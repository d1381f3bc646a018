# SPDX-License-Identifier: Apache-2.0
"""Topology files and the plan that is made of them: each rule, and one clear message for each mistake."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.node_settings import travelling_as
from mdi_exit_ros.plan import Plan, PlanOptions, make_plan, processes_of
from mdi_exit_ros.task import Strategy
from mdi_exit_ros.topology import known_topologies, load_topology

K = 5
ALL_SEGMENTS = [1, 2, 3, 4, 5]


def declaration(**changes: Any) -> dict[str, Any]:
    """A chain a - b - c on two computers, with one camera at a."""
    return {
        "computers": {"robot": None, "nano": None},
        "workers": {"a": {"computer": "robot"}, "b": {"computer": "nano"}, "c": {"computer": "nano"}},
        "edges": [["a", "b"], ["b", "c"]],
        "sources": {"camera": {"computer": "robot", "home": "a"}},
        **changes,
    }


def chain(**segments: Any) -> dict[str, Any]:
    workers = {name: {"computer": "nano", "segments": held} for name, held in segments.items()}
    return declaration(workers=workers, edges=[list(pair) for pair in itertools.pairwise(segments)])


@pytest.fixture
def write(tmp_path: Path):
    def write(content: Any) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


def planned(path: Path | str, strategy: str = "mdi_exit", costs: tuple[float, ...] = (), **options: Any) -> Plan:
    return make_plan(load_topology(path), PlanOptions(strategy=strategy, **options), K, costs)


def held(plan: Plan) -> dict[str, list[int]]:
    return {node.name: list(node.parameters["segments"]) for node in plan.named("segment_worker")}


def entries(plan: Plan) -> list[str]:
    return list(plan.named("camera_source")[0].parameters["entries"])


# ---- what strategies make of a topology ---------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("name", ["one_node", "two_nodes", "three_mesh", "three_ring", "five_mesh"])
def test_every_shipped_topology_can_be_planned(name: str, strategy: Strategy) -> None:
    plan = planned(name, strategy)
    assert {segment for segments in held(plan).values() for segment in segments} == set(ALL_SEGMENTS)
    assert plan.computers[0] == "robot"
    assert sorted(node.name for computer in plan.computers for node in plan.on(computer)) == sorted(
        node.name for node in plan.on("all")
    )


def test_features_are_made_small_where_workers_are_elsewhere(write) -> None:
    def encodings(plan: Plan, computer: str) -> set[str]:
        workers = [node.parameters for node in plan.on(computer) if node.executable == "segment_worker"]
        return {travelling_as(str(each.get("encoding", "auto")), int(each["workers_elsewhere"])) for each in workers}

    plan = planned(write(declaration()))
    assert encodings(plan, "all") == {"raw"}
    assert encodings(plan, "robot") == encodings(plan, "nano") == {"int8"}
    assert encodings(planned(write(declaration()), worker={"encoding": "fp16"}), "nano") == {"fp16"}


def test_encoding_of_a_parameter_file_is_not_overridden_by_the_plan(write) -> None:
    assert not any("encoding" in node.parameters for node in planned(write(declaration())).on("nano"))


def test_shipped_topologies_are_the_known_ones() -> None:
    assert known_topologies() == ["five_mesh", "one_node", "three_mesh", "three_ring", "two_nodes"]


def test_local_starts_the_home_worker_alone() -> None:
    plan = planned("five_mesh", "local")
    assert held(plan) == {"worker1": ALL_SEGMENTS}
    assert entries(plan) == ["worker1"]
    assert "neighbours" not in plan.nodes[0].parameters


@pytest.mark.parametrize("strategy", ["ddi", "mdi_exit"])
def test_whole_model_on_every_worker_unless_the_file_restricts(strategy: str) -> None:
    assert held(planned("three_mesh", strategy)) == {f"worker{n}": ALL_SEGMENTS for n in (1, 2, 3)}


def test_mdi_spreads_segments_along_a_path_from_home(write) -> None:
    edges = [["a", "c"], ["c", "b"]]
    assert held(planned(write(declaration(edges=edges)), "mdi", (2, 1, 1, 1, 1))) == {
        "a": [1],
        "c": [2, 3],
        "b": [4, 5],
    }


def test_mdi_makes_the_dearest_worker_cheapest() -> None:
    assert held(planned("two_nodes", "mdi", (1, 1, 1, 1, 10))) == {"worker1": [1, 2, 3, 4], "worker2": [5]}


def test_only_mdi_has_no_exits_unless_asked() -> None:
    def exits(strategy: str, chosen: bool | None = None) -> bool:
        return bool(planned("two_nodes", strategy, exits=chosen).nodes[0].parameters["exits"])

    assert [exits(strategy) for strategy in ("local", "ddi", "mdi", "mdi_exit")] == [True, True, False, True]
    assert exits("mdi", True)
    assert not exits("mdi_exit", False)


def test_tasks_go_one_way_round_a_directed_ring() -> None:
    plan = planned("three_ring")
    neighbours = {node.name: node.parameters["neighbours"] for node in plan.named("segment_worker")}
    assert neighbours == {"worker1": ["worker2"], "worker2": ["worker3"], "worker3": ["worker1"]}


def test_frames_may_enter_other_holders_of_the_first_segment_nearest_first(write) -> None:
    assert entries(planned(write(declaration()))) == ["a", "b", "c"]
    assert entries(planned(write(chain(a="all", b=[2, 3, 4, 5], c="all")))) == ["a", "c"]


def test_a_worker_from_which_frames_could_not_go_on_is_no_entry(write) -> None:
    file = chain(a="all", b=[2], c=[1, 3, 4, 5]) | {"directed": True}
    assert entries(planned(write(file))) == ["a"]


def test_parameters_of_the_file_reach_their_node_and_options_win(write) -> None:
    file = declaration(controller={"computer": "nano", "mode": "rate", "alpha": 0.5})
    file["workers"]["b"].update(threads=2, batch_max=4)
    file["sources"]["camera"].update(rate_hz=10, deadline_s=2.5)
    nodes = {node.name: node for node in planned(write(file), worker={"threads": 3}).nodes}
    assert nodes["b"].parameters["threads"] == 3
    assert nodes["b"].parameters["batch_max"] == 4
    assert nodes["camera"].parameters["rate_hz"] == 10.0
    assert nodes["controller"].parameters["alpha"] == 0.5
    assert nodes["controller"].computer == "nano"


@pytest.mark.parametrize("namespace", ["robot 1", "/1st", "a//b", "é", 101 * "a"])
def test_namespace_that_ros_would_refuse_is_one_clear_message(write, namespace: str) -> None:
    file = write(declaration(sources={"camera": {"computer": "robot", "home": "a", "namespace": namespace}}))
    with pytest.raises(ConfigurationError, match=r"mine\.yaml: sources\.camera\.namespace: expected words of letters"):
        planned(file)
    for key in ("namespace", "cluster_namespace"):
        with pytest.raises(ConfigurationError, match="namespace: expected words of letters"):
            planned("one_node", **{key: namespace})


def test_name_too_long_for_a_topic_is_one_clear_message(write) -> None:
    name = 101 * "a"
    file = declaration(workers={name: {"computer": "robot"}}, edges=[])
    with pytest.raises(ConfigurationError, match="expected up to 100 letters, digits and _"):
        planned(write(file))


def test_each_robot_has_its_namespace_and_all_share_the_cluster(write) -> None:
    file = declaration()
    file["sources"] = {
        "front": {"computer": "robot", "home": "a", "namespace": "robot1"},
        "rear": {"computer": "nano", "home": "c"},
    }
    nodes = {node.name: node for node in planned(write(file), namespace="fleet").nodes}
    assert nodes["front"].full_name == "/fleet/robot1/front"
    assert nodes["rear"].full_name == "/fleet/rear"
    assert nodes["a"].full_name == "/mdi_exit/a"
    assert nodes["rear"].parameters["entries"][0] == "c"
    assert {node.parameters["cluster_namespace"] for node in nodes.values()} == {"/mdi_exit"}


def test_each_computer_starts_its_own_part() -> None:
    plan = planned("three_mesh")
    assert [node.name for node in plan.on("robot")] == ["worker1", "controller", "camera"]
    assert [node.name for node in plan.on("nano2")] == ["worker2"]


# ---- mistakes -----------------------------------------------------------------------------------------------------


def processes(topology: str | Path, computer: str = "all", **options: Any) -> list[list[str]]:
    nodes = planned(topology, **options).on(computer)
    return [[node.name for node in process] for process in processes_of(nodes, composed=True)]


def test_a_source_shares_the_process_of_its_home_worker() -> None:
    nodes = planned("two_nodes").nodes
    assert processes_of(nodes, composed=False) == [(node,) for node in nodes]
    assert processes("two_nodes") == [["worker1", "camera"], ["worker2"], ["controller"]]


def test_a_source_whose_home_worker_is_elsewhere_has_a_process_of_its_own(write) -> None:
    declared = declaration()
    declared["sources"]["camera"]["computer"] = "nano"
    path = write(declared)
    assert ["camera"] in processes(path)
    assert ["camera"] in processes(path, "nano")


def test_of_two_sources_with_one_home_worker_the_first_shares_its_process(write) -> None:
    declared = declaration()
    declared["sources"]["second"] = dict(declared["sources"]["camera"])
    found = processes(write(declared))
    home = declared["sources"]["camera"]["home"]
    assert [home, "camera"] in found
    assert ["second"] in found


@pytest.mark.parametrize("entries", [[], 5, ["controller"], ["nobody"]])
def test_a_source_with_odd_entries_has_a_process_of_its_own_and_says_so_itself(entries: Any) -> None:
    nodes = [
        node.with_parameters(entries=entries) if node.name == "camera" else node for node in planned("two_nodes").nodes
    ]
    assert [node.name for process in processes_of(nodes, composed=True) for node in process if len(process) > 1] == []


def worker(**parameters: Any) -> dict[str, Any]:
    file = declaration()
    file["workers"]["b"].update(parameters)
    return file


FILE_MISTAKES = {
    "unknown key": (declaration(edegs=[]), r"mine\.yaml: edegs: unknown key \(did you mean 'edges'\?\)"),
    "unknown key of a worker": (worker(batchmax=3), r"workers\.b\.batchmax: unknown .*mean 'batch_max'\?"),
    "unknown key of a computer": (declaration(computers={"robot": {"cpu": 1}, "nano": None}), r"robot\.cpu: unknown"),
    "value out of range": (worker(batch_max=0), r"workers\.b\.batch_max: expected 1\.\.256 frames, got 0"),
    "value of another type": (worker(threads="two"), r"workers\.b\.threads: expected a whole number, got 'two'"),
    "true is no number": (worker(threads=True), r"workers\.b\.threads: expected a whole number, got True"),
    "unknown mode": (declaration(controller={"mode": "fast"}), r"controller\.mode: expected one of manual, rate, thr"),
    "missing key": (declaration(sources={"camera": {"computer": "robot"}}), r"sources\.camera\.home: missing"),
    "edge to an undeclared worker": (
        declaration(edges=[["a", "b"], ["b", "d"]]),
        r"edges\[1\]: 'd' is no declared worker: expected one of a, b, c",
    ),
    "edge to itself": (declaration(edges=[["a", "a"]]), r"edges\[0\]: joins 'a' with itself"),
    "edge of three": (declaration(edges=[["a", "b", "c"]]), r"edges\[0\]: expected two names of workers"),
    "worker out of reach": (
        declaration(edges=[["a", "b"]]),
        r"workers\.c: no path of edges leads to it from the home worker a: add an edge or remove the worker",
    ),
    "worker against the direction": (
        declaration(edges=[["a", "b"], ["c", "b"]], directed=True),
        r"workers\.c: no path of edges",
    ),
    "unknown computer": (worker(computer="nanp"), r"workers\.b\.computer: 'nanp' is no .*did you mean 'nano'"),
    "home is no worker": (
        declaration(sources={"camera": {"computer": "robot", "home": "d"}}),
        r"sources\.camera\.home: 'd' is no declared worker",
    ),
    "name used twice": (
        declaration(sources={"a": {"computer": "robot", "home": "a"}}),
        r"sources\.a: the name belongs to one of the workers",
    ),
    "name of the controller": (
        declaration(sources={"controller": {"computer": "robot", "home": "a"}}),
        r"sources\.controller: the name belongs to the controller",
    ),
    "name that ROS cannot take": (
        declaration(sources={"front-camera": {"computer": "robot", "home": "a"}}),
        r"sources\.front-camera: expected up to 100 letters, digits and _",
    ),
    "reserved computer": (declaration(computers={"robot": None, "nano": None, "all": None}), r"computers\.all: the"),
    "no workers": (declaration(workers={}), r"workers: expected at least one"),
    "segments are no list": (worker(segments="most"), r"workers\.b\.segments: expected `all` or a list of numbers"),
    "not a mapping": ("- a\n- b\n", r"mine\.yaml: expected a mapping with description, computers"),
    "not YAML": ("workers: [a\n", r"mine\.yaml: expected YAML with every key once in line 2"),
    "key given twice": ("computers:\n  robot:\n  robot:\n", r"mine\.yaml: .*line 2.*'robot' is there twice"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", FILE_MISTAKES)
def test_mistake_in_the_file_gets_one_clear_line(mistake: str, write) -> None:
    content, message = FILE_MISTAKES[mistake]
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_topology(write(content))
    assert "\n" not in str(caught.value)


PLAN_MISTAKES = {
    "segment out of range": (chain(a="all", b=[6]), "mdi_exit", r"workers\.b\.segments: there is no segment 6"),
    "no segments": (chain(a="all", b=[]), "mdi_exit", r"workers\.b\.segments: expected at least one"),
    "segment held by nobody": (chain(a=[1, 2, 3], b=[3, 4]), "mdi_exit", r"workers: nobody holds segment 5"),
    "segment out of reach": (
        chain(a=[1, 2], b=[3], c=[4, 5]) | {"edges": [["a", "b"], ["a", "c"]]},
        "mdi_exit",
        r"workers\.b: a frame from the home worker a cannot reach segment 4 from here: .*\(a\) holds it",
    ),
    "home without a way to the first segment": (
        chain(a=[2, 3, 4, 5], b=[3], c=[1]),
        "mdi",
        r"workers\.a: a frame from the home worker a cannot reach segment 1",
    ),
    "worker that no frame reaches": (
        chain(a="all", b=[2, 3], c=[1]) | {"edges": [["a", "b"], ["b", "c"]]},
        "mdi_exit",
        r"workers\.c: no frame from the home worker a can reach its segments \[1\]",
    ),
    "part of a model under ddi": (chain(a="all", b=[2]), "ddi", r"workers\.b\.segments: strategy ddi runs whole"),
    "part of a model under local": (chain(a=[1], b="all"), "local", r"workers\.a\.segments: strategy local runs whole"),
    "half spread": (chain(a=[1, 2, 3, 4, 5], b=None), "mdi", r"workers\.b\.segments: missing; strategy mdi expects"),
    "unknown strategy": (declaration(), "mdi-exit", r"no strategy 'mdi-exit' \(did you mean 'mdi_exit'\?\)"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", PLAN_MISTAKES)
def test_mistake_in_the_plan_gets_one_clear_line(mistake: str, write) -> None:
    content, strategy, message = PLAN_MISTAKES[mistake]
    with pytest.raises(ConfigurationError, match=message) as caught:
        planned(write(content), strategy)
    assert "\n" not in str(caught.value)


def test_unknown_topology_names_those_that_there_are() -> None:
    with pytest.raises(
        ConfigurationError, match=r"no topology 'tree_mesh' \(did you mean 'three_mesh'\?\): .*five_mesh"
    ):
        load_topology("tree_mesh")
    with pytest.raises(ConfigurationError, match=r"no topology '/nowhere/mine\.yaml'"):
        load_topology("/nowhere/mine.yaml")


def test_unknown_computer_names_those_that_there_are() -> None:
    with pytest.raises(
        ConfigurationError, match=r"computer 'nano4' is not in .*expected all or one of robot, nano2, nano3"
    ):
        planned("three_mesh").on("nano4")
