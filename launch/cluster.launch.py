# SPDX-License-Identifier: Apache-2.0
"""Starts the nodes that the deployment plan has for this computer.

On each computer of a cluster: ros2 launch mdi_exit_ros cluster.launch.py computer:=<name>
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, RegisterEventHandler, TimerAction
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from mdi_exit_ros import own_packages

with own_packages.seen_first():  # `ros2 launch` runs in the system's Python
    from mdi_exit_ros.errors import ConfigurationError
    from mdi_exit_ros.model.card import load_card, shipped_models
    from mdi_exit_ros.node_settings import BACKENDS
    from mdi_exit_ros.plan import PlannedNode, PlanOptions, make_plan, processes_of
    from mdi_exit_ros.resources import share_directory
    from mdi_exit_ros.runner.launching import ros_arguments
    from mdi_exit_ros.task import Mode, Strategy
    from mdi_exit_ros.topology import ALL, known_topologies, load_topology
    from mdi_exit_ros.transport import ALLOCATION_VARIABLES, DEFAULT, TRANSPORTS, transport_variables

RESPAWN_DELAY_S = 2.0
NOT_AGAIN = (0, 2)  # exit statuses of a node that is done, and of one that a user has to help
LIVE = ("topic", "device:")  # inputs that begin anew where they are
BOOLEANS = ["true", "false"]


def arguments() -> list[DeclareLaunchArgument]:
    """Every launch argument, with Nav2's names where Nav2 has the same."""
    return [
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace of this robot's topics and sources"
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=str(share_directory() / "config" / "nodes.yaml"),
            description="Parameters of the nodes; what the plan decides (segments, neighbours, entries) wins",
        ),
        DeclareLaunchArgument(
            "autostart", default_value="true", choices=BOOLEANS, description="Configure and activate the nodes at once"
        ),
        DeclareLaunchArgument(
            "use_respawn",
            default_value="false",
            choices=BOOLEANS,
            description=f"Start a node that crashed again after {RESPAWN_DELAY_S:g} s; not one that said what the user "
            "can put right, nor a source with a finite input",
        ),
        DeclareLaunchArgument(
            "use_composition",
            default_value="false",
            choices=BOOLEANS,
            description="A source shares the process of its home worker: less work and delay, one fate",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Log level of the nodes",
        ),
        DeclareLaunchArgument(
            "computer",
            default_value=ALL,
            description=f"Computer whose part to start, as the topology names it, or {ALL}",
        ),
        DeclareLaunchArgument(
            "topology",
            default_value="three_mesh",
            description=f"One of {', '.join(known_topologies())}, or a YAML file",
        ),
        DeclareLaunchArgument(
            "strategy",
            default_value=Strategy.MDI_EXIT.value,
            choices=[strategy.value for strategy in Strategy],
            description="How frames are spread over workers",
        ),
        DeclareLaunchArgument("image_topic", default_value="image", description="Topic that sources take images from"),
        DeclareLaunchArgument(
            "input",
            default_value="",
            description="topic, sample, device:N, or a folder, .zip archive or video file; empty: as topology and "
            "params_file say",
        ),
        DeclareLaunchArgument(
            "model", default_value="mobilenetv2", description=f"Model folder, or one of {', '.join(shipped_models())}"
        ),
        DeclareLaunchArgument(
            "backend",
            default_value="",
            choices=["", "auto", *BACKENDS],
            description="What computes; empty: as topology and params_file say",
        ),
        DeclareLaunchArgument(
            "mode",
            default_value="",
            choices=["", *(mode.name.lower() for mode in Mode)],
            description="What the controller adapts; empty: as topology and params_file say",
        ),
        DeclareLaunchArgument(
            "transport",
            default_value=DEFAULT,
            choices=list(TRANSPORTS),
            description="How messages travel: "
            + "; ".join(f"{name}: {transport.summary}" for name, transport in TRANSPORTS.items()),
        ),
    ]


def planned_nodes(context: LaunchContext) -> list[Any]:
    """The actions that start this computer's part of the plan."""
    value = {name: LaunchConfiguration(name).perform(context) for name in (each.name for each in arguments())}
    common = {"autostart": value["autostart"] == "true"}
    if not Path(value["params_file"]).is_file():
        raise ConfigurationError(f"params_file: expected the path of a YAML file, got {value['params_file']!r}")
    card = load_card(value["model"])
    options = PlanOptions(
        strategy=value["strategy"],
        model=value["model"],
        namespace=value["namespace"],
        worker={**common, **_given(value, "backend")},
        source={**common, **_given(value, "input")},
        controller={**common, **_given(value, "mode")},
    )
    plan = make_plan(load_topology(value["topology"]), options, card.num_segments, card.segment_costs)
    nodes = plan.on(value["computer"])
    if not nodes:
        return [LogInfo(msg=f"{value['computer']} has no node in {plan.topology} with strategy {plan.strategy}")]
    variables = {name: text for name, text in ALLOCATION_VARIABLES.items() if name not in os.environ}
    variables |= transport_variables(value["transport"], os.environ)
    processes = processes_of(nodes, composed=value["use_composition"] == "true")
    actions: list[Action] = []
    for nodes in processes:
        make = partial(_action, nodes[0]) if len(nodes) == 1 else partial(_composed, nodes)
        # a source would offer its frames anew
        finite = any(_is_finite(node, value["params_file"]) for node in nodes)
        if value["use_respawn"] == "true" and not finite:
            actions += _respawned(partial(make, value, variables))
        else:
            actions.append(make(value, variables))
    return actions


def _respawned(make: Callable[[], Node]) -> list[Action]:
    """A node that is started again when it has crashed; launch's own `respawn` does not look at the exit status."""
    node = make()

    def begin_again(event: ProcessExited, context: LaunchContext) -> list[Action]:
        if context.is_shutdown or event.returncode in NOT_AGAIN:
            return []
        return [TimerAction(period=RESPAWN_DELAY_S, actions=_respawned(make))]

    return [RegisterEventHandler(OnProcessExit(target_action=node, on_exit=begin_again)), node]


def _given(value: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value[name] for name in names if value[name]}


def _input_of(node: PlannedNode, params_file: str) -> str:
    """What a source plays: as the plan says, else as the parameter file does for all nodes or for this one."""
    sections = yaml.safe_load(Path(params_file).read_text(encoding="utf-8")) or {}
    full_name = f"{node.namespace.rstrip('/')}/{node.name}"
    found = "topic"
    for section in ("/**", f"/**/{node.name}", node.name, full_name, "/" + full_name.lstrip("/")):
        found = ((sections.get(section) or {}).get("ros__parameters") or {}).get("input", found)
    return str(node.parameters.get("input", found))


def _is_finite(node: PlannedNode, params_file: str) -> bool:
    """Whether it is a source whose input has an end."""
    return node.executable == "camera_source" and not _input_of(node, params_file).startswith(LIVE)


def _action(node: PlannedNode, value: dict[str, str], variables: dict[str, str]) -> Node:
    typed = {
        name: ParameterValue(given, value_type=str) if isinstance(given, str) else given
        for name, given in node.parameters.items()
    }
    return Node(
        package="mdi_exit_ros",
        executable=node.executable,
        name=node.name,
        namespace=node.namespace,
        parameters=[value["params_file"], typed],
        remappings=[("image", value["image_topic"])] if node.executable == "camera_source" else [],
        arguments=["--ros-args", "--log-level", value["log_level"]],
        additional_env=variables,
        output="screen",
    )


def _composed(nodes: tuple[PlannedNode, ...], value: dict[str, str], variables: dict[str, str]) -> Node:
    """A worker and a source in one process, told apart by the programs that they would be alone."""
    folder = Path(tempfile.mkdtemp(prefix="mdi-exit-"))  # read when the process starts, which may be late, or again
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    given = ros_arguments(nodes, folder, (Path(value["params_file"]),), value["image_topic"])
    return Node(
        package="mdi_exit_ros",
        executable="worker_and_source",
        arguments=[*given, "--log-level", value["log_level"]],
        additional_env=variables,
        output="screen",
    )


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch` reads."""
    return LaunchDescription([*arguments(), OpaqueFunction(function=planned_nodes)])
