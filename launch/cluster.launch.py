# SPDX-License-Identifier: Apache-2.0
"""Starts one computer's part of a cluster, or all of it on this machine: the deployment plan as launch actions."""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from mdi_exit_ros.errors import ConfigurationError, MdiExitError
from mdi_exit_ros.model.card import load_card
from mdi_exit_ros.plan import PlanOptions, make_plan
from mdi_exit_ros.task import Mode, Strategy
from mdi_exit_ros.topology import ALL, known_topologies, load_topology

RESPAWN_DELAY_S = 2.0
BOOLEANS = ("true", "false")

ARGUMENTS = (
    DeclareLaunchArgument("namespace", default_value="", description="Namespace below which the robots' nodes lie."),
    DeclareLaunchArgument("params_file", default_value="", description="ROS parameter file, read before the plan's."),
    DeclareLaunchArgument(
        "autostart", default_value="true", choices=BOOLEANS, description="Nodes configure and activate by themselves."
    ),
    DeclareLaunchArgument(
        "use_respawn", default_value="false", choices=BOOLEANS, description="Start nodes again when they end."
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=("debug", "info", "warn", "error", "fatal"),
        description="Least severe messages that nodes print.",
    ),
    DeclareLaunchArgument("computer", default_value=ALL, description=f"Computer whose nodes to start, or {ALL}."),
    DeclareLaunchArgument(
        "topology",
        default_value="three_mesh",
        description=f"Topology file, or one of {', '.join(known_topologies())}.",
    ),
    DeclareLaunchArgument(
        "strategy",
        default_value=Strategy.MDI_EXIT.value,
        choices=[strategy.value for strategy in Strategy],
        description="How frames are spread over workers.",
    ),
    DeclareLaunchArgument(
        "mode",
        default_value="manual",
        choices=[mode.name.lower() for mode in Mode],
        description="Who moves the applied policy: nobody, the admission interval, or the thresholds.",
    ),
    DeclareLaunchArgument("model", default_value="mobilenetv2", description="Shipped model, or folder of one."),
    DeclareLaunchArgument(
        "backend",
        default_value="auto",
        choices=("auto", "onnxruntime", "openvino", "torch"),
        description="What computes; auto: the fastest that is installed.",
    ),
    DeclareLaunchArgument(
        "input",
        default_value="topic",
        description="Frames: topic, sample (shipped images), device:N, or a folder, .zip archive or video file.",
    ),
    DeclareLaunchArgument(
        "image_topic", default_value="image", description="sensor_msgs/Image topic that the source subscribes."
    ),
)


def start_nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The nodes of the chosen computer."""

    def chosen(name: str) -> str:
        return str(LaunchConfiguration(name).perform(context))

    card = load_card(chosen("model"))
    options = PlanOptions(
        strategy=chosen("strategy"),
        model=chosen("model"),
        namespace=chosen("namespace"),
        worker={"backend": chosen("backend")},
        source={"input": chosen("input")},
        controller={"mode": chosen("mode")},
    )
    plan = make_plan(load_topology(chosen("topology")), options, card.num_segments, card.segment_macs)
    nodes = plan.on(chosen("computer"))
    if not nodes:
        raise ConfigurationError(f"computer {chosen('computer')!r} has no node with strategy {plan.strategy}")
    params_file = [chosen("params_file")] if chosen("params_file") else []
    respawn = chosen("use_respawn") == "true"
    return [
        Node(
            package="mdi_exit_ros",
            executable=node.executable,
            name=node.name,
            namespace=node.namespace,
            parameters=[*params_file, {**node.parameters, "autostart": chosen("autostart") == "true"}],
            remappings=[("image", chosen("image_topic"))] if node.executable == "camera_source" else [],
            ros_arguments=["--log-level", chosen("log_level")],
            respawn=respawn,
            respawn_delay=RESPAWN_DELAY_S,
            output="screen",
        )
        for node in nodes
    ]


def start_nodes_or_say_why_not(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The nodes, or one line about the user's mistake and nothing started."""
    try:
        return start_nodes(context)
    except MdiExitError as error:
        raise SystemExit(f"error: {error}") from None


def generate_launch_description() -> LaunchDescription:
    """What `ros2 launch mdi_exit_ros cluster.launch.py` runs."""
    return LaunchDescription(
        [
            *ARGUMENTS,
            OpaqueFunction(function=start_nodes_or_say_why_not),
        ]
    )
