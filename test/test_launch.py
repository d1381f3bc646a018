# SPDX-License-Identifier: Apache-2.0
"""The launch file against the plan; needs ROS 2's own `launch`, which is not among the wheels."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.launch
launch = pytest.importorskip("launch", reason="ROS 2's launch is not installed")
pytest.importorskip("launch_ros.actions", reason="ROS 2's launch_ros is not installed")

LAUNCH_FILE = Path(__file__).resolve().parent.parent / "launch" / "cluster.launch.py"
NAV2_NAMES = {"namespace", "params_file", "autostart", "use_respawn", "log_level"}
OUR_NAMES = {"computer", "topology", "strategy", "image_topic"}


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


def test_a_computer_starts_its_own_part(module: ModuleType) -> None:
    (node,) = started(module, computer="nano2")
    assert node.node_executable == "segment_worker"


def test_local_strategy_starts_the_home_worker_alone(module: ModuleType) -> None:
    executables = sorted(node.node_executable for node in started(module, strategy="local"))
    assert executables == ["camera_source", "controller", "segment_worker"]


def test_an_unknown_computer_is_one_clear_error(module: ModuleType) -> None:
    with pytest.raises(Exception, match="expected all or one of robot"):
        started(module, computer="nano9")
