# SPDX-License-Identifier: Apache-2.0
"""The launch file against the plan; needs ROS 2's own `launch`, which is not among the wheels."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.plan import PlanOptions, make_plan
from mdi_exit_ros.topology import load_topology
from mdi_exit_ros.transport import ALLOCATION_VARIABLES, TRANSPORTS, transport_variables

pytestmark = [pytest.mark.launch, pytest.mark.usefixtures("exported")]
launch = pytest.importorskip("launch", reason="ROS 2's launch is not installed")
ros_actions = pytest.importorskip("launch_ros.actions", reason="ROS 2's launch_ros is not installed")

LAUNCH_FILE = Path(__file__).resolve().parent.parent / "launch" / "cluster.launch.py"
NAV2_NAMES = {"namespace", "params_file", "autostart", "use_respawn", "log_level"}
OUR_NAMES = {"computer", "topology", "strategy", "image_topic", "transport"}


@pytest.fixture(scope="module")
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cluster_launch", LAUNCH_FILE)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def started(module: ModuleType, **chosen: str) -> list[Any]:
    """The actions for these arguments, the others at their defaults."""
    context = launch.LaunchContext()
    for argument in module.arguments():
        argument.execute(context)
    context.launch_configurations.update(chosen)
    return list(module.planned_nodes(context))


def test_every_argument_is_described(module: ModuleType) -> None:
    arguments = {argument.name: argument for argument in module.arguments()}
    assert set(arguments) >= NAV2_NAMES | OUR_NAMES
    assert all(argument.description for argument in arguments.values())


def test_all_nodes_of_the_plan_are_started(module: ModuleType) -> None:
    executables = sorted(node.node_executable for node in started(module))
    assert executables == ["camera_source", "controller", *["segment_worker"] * 3]


@pytest.mark.parametrize("strategy", ["ddi", "mdi", "mdi_exit"])
def test_actions_are_the_nodes_of_the_plan(module: ModuleType, strategy: str) -> None:
    plan = make_plan(load_topology("five_mesh"), PlanOptions(strategy=strategy), 5)
    actions = started(module, topology="five_mesh", strategy=strategy)
    for action, node in zip(actions, plan.nodes, strict=True):
        action._perform_substitutions(launch.LaunchContext())
        assert (action.node_name, action.node_executable) == (node.full_name, node.executable)


def test_a_computer_starts_its_own_part(module: ModuleType) -> None:
    (node,) = started(module, computer="nano2")
    assert node.node_executable == "segment_worker"


def test_local_strategy_starts_the_home_worker_alone(module: ModuleType) -> None:
    executables = sorted(node.node_executable for node in started(module, strategy="local"))
    assert executables == ["camera_source", "controller", "segment_worker"]


def test_transports_are_those_that_have_a_profile(module: ModuleType) -> None:
    (argument,) = (each for each in module.arguments() if each.name == "transport")
    assert argument.choices == list(TRANSPORTS)
    assert all(name in argument.description for name in TRANSPORTS)


def test_a_composed_source_shares_the_process_of_its_home_worker(module: ModuleType) -> None:
    actions = started(module, topology="two_nodes", use_composition="true")
    executables = sorted(node.node_executable for node in actions)
    assert executables == ["controller", "segment_worker", "worker_and_source"]


def test_a_transport_is_set_for_every_node(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROS_AUTOMATIC_DISCOVERY_RANGE", raising=False)
    expected = {**ALLOCATION_VARIABLES, **transport_variables("wifi", {})}
    actions = started(module, transport="wifi")
    assert actions
    for action in actions:
        context = launch.LaunchContext()
        pairs = action.additional_env
        perform = launch.utilities.perform_substitutions
        assert {perform(context, name): perform(context, value) for name, value in pairs} == expected


def test_an_unknown_computer_is_one_clear_error(module: ModuleType) -> None:
    with pytest.raises(Exception, match="expected all or one of robot"):
        started(module, computer="nano9")


BRING_UP = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
path, *pairs = sys.argv[1:]
chosen = [tuple(pair.split(":=")) for pair in pairs]
service = LaunchService()
source = PythonLaunchDescriptionSource(path)
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=chosen)])
)
sys.exit(service.run())
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment in which the package's programs lie where an installed package has them."""
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    programs = tmp_path / "lib" / "mdi_exit_ros"
    for folder in (index, programs):
        folder.mkdir(parents=True)
    (index / "mdi_exit_ros").touch()
    for name in ("camera_source", "segment_worker", "controller", "worker_and_source"):
        program = programs / name
        program.write_text(f"#!{sys.executable}\nfrom mdi_exit_ros.nodes.entry import {name}\n{name}()\n")
        program.chmod(0o755)
    prefixes = [str(tmp_path), os.environ.get("AMENT_PREFIX_PATH", sys.prefix)]
    return {**os.environ, "AMENT_PREFIX_PATH": os.pathsep.join(prefixes), "ROS_LOG_DIR": str(tmp_path / "log")}


@pytest.mark.graph
@pytest.mark.parametrize(("composed", "processes"), [("false", 4), ("true", 3)])
def test_launched_nodes_answer_frames_and_end_cleanly(
    installed: dict[str, str], composed: str, processes: int, tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    installed["TMPDIR"] = str(tmp_path / "tmp")
    command = [sys.executable, "-c", BRING_UP, str(LAUNCH_FILE), "topology:=two_nodes", "input:=sample"]
    command.append(f"use_composition:={composed}")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=installed, start_new_session=True
    )
    assert process.stdout is not None
    watchdog = threading.Timer(60.0, process.kill)
    watchdog.start()
    lines = []
    for line in process.stdout:
        lines.append(line)
        ended = "[camera_source" in line and "process has finished cleanly" in line
        if ended or (composed == "true" and "finished: 1200 frames offered" in line):
            time.sleep(1.0)  # launch takes a moment to note what it has printed
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    watchdog.cancel()
    process.stdout.close()
    output = "".join(lines)
    assert process.wait() in (0, 1), output  # 1: launch's word for an interruption
    assert "finished: 1200 frames offered, 1200 answered" in output
    assert output.count("process has finished cleanly") == processes
    assert "Traceback" not in output
    assert not list((tmp_path / "tmp").glob("mdi-exit-*"))


@pytest.mark.parametrize("section", ["/**", "/**/camera", "camera", "/camera"])
def test_source_with_a_finite_input_in_the_parameter_file_is_not_started_again(
    module: ModuleType, tmp_path: Path, section: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"{section}:\n  ros__parameters:\n    input: sample\n")
    before = [None, *started(module, params_file=str(path), use_respawn="true")]
    again = {
        action.node_executable: isinstance(one, launch.actions.RegisterEventHandler)
        for one, action in pairwise(before)
        if isinstance(action, ros_actions.Node)
    }
    assert again == {"camera_source": False, "controller": True, "segment_worker": True}


@pytest.mark.graph
def test_a_node_that_crashed_is_started_again_and_one_that_a_user_has_to_help_is_not(
    installed: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "mistake.yaml"
    path.write_text("/**/camera:\n  ros__parameters:\n    priority: 99\n")
    command = [sys.executable, "-c", BRING_UP, str(LAUNCH_FILE), "topology:=one_node", "strategy:=local"]
    command += ["use_respawn:=true", f"params_file:={path}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=installed, start_new_session=True
    )
    assert process.stdout is not None
    watchdog = threading.Timer(60.0, process.kill)
    watchdog.start()
    workers: list[int] = []
    lines = []
    for line in process.stdout:
        lines.append(line)
        if found := re.search(r"segment_worker-\d+\]: process started with pid \[(\d+)\]", line):
            workers.append(int(found[1]))
            if len(workers) == 1:
                threading.Timer(5.0, os.kill, (workers[0], signal.SIGKILL)).start()
            else:
                threading.Timer(4.0, os.killpg, (process.pid, signal.SIGINT)).start()
    watchdog.cancel()
    process.stdout.close()
    process.wait()
    output = "".join(lines)
    assert len(workers) == 2, output
    assert len(re.findall(r"camera_source-\d+\]: process started", output)) == 1, output
    assert output.count("expected int") == 1, output


def test_parameter_file_that_is_none_is_refused(module: ModuleType) -> None:
    with pytest.raises(ConfigurationError, match="params_file: expected the path of a YAML file, got '/no/such"):
        started(module, params_file="/no/such.yaml")
