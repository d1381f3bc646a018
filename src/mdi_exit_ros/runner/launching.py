# SPDX-License-Identifier: Apache-2.0
"""A planned node as a command line with its parameter file, and the environment that node processes get."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from mdi_exit_ros.plan import PlannedNode
from mdi_exit_ros.transport import ALLOCATION_VARIABLES, RANGE, default_transport, transport_variables

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def ros_arguments(
    nodes: Sequence[PlannedNode], folder: Path, params_files: tuple[Path, ...], image_topic: str = ""
) -> list[str]:
    """What `nodes`, all in one process, are told by ROS arguments, of which the first is `--ros-args`.

    Later parameter files win, the plan's last of all. No two of the nodes may run the same program, by which they are
    told apart until they have their names.
    """
    path = folder / f"{nodes[0].name}.yaml"
    parameters = {node.full_name: {"ros__parameters": dict(node.parameters)} for node in nodes}
    path.write_text(yaml.safe_dump(parameters), encoding="utf-8")
    arguments = ["--ros-args"]
    for node in nodes:
        program, name = (f"{node.executable}:", f"{node.name}:") if len(nodes) > 1 else ("", "")
        arguments += ["-r", f"{program}__node:={node.name}", "-r", f"{name}__ns:={node.namespace}"]
    if image_topic:
        arguments += ["-r", f"image:={image_topic}"]
    for file in (*params_files, path):
        arguments += ["--params-file", str(file)]
    return arguments


def command_of(nodes: Sequence[PlannedNode], arguments: Sequence[str]) -> list[str]:
    """The command that runs `nodes` in one process of this Python."""
    return [sys.executable, "-m", "mdi_exit_ros.nodes.entry", *(node.executable for node in nodes), *arguments]


def node_environment(
    *, here_only: bool, domain_id: int | None, log_folder: Path, transport: str | None = None
) -> Mapping[str, str]:
    """The environment of node processes. Numerical libraries get one thread, unless the user says otherwise.

    Args:
        here_only: keep DDS discovery on this machine, unless the user has set its range.
        domain_id: ROS domain; None: as the user has set it.
        transport: name or file of the transport's profile; None: what suits `here_only` and what the user has set.

    Raises:
        ConfigurationError: the transport is unknown, or the user's environment says the contrary.
    """
    environment = dict(os.environ)
    environment["PYTHONUNBUFFERED"] = "1"
    environment.setdefault("ROS_LOG_DIR", str(log_folder / "ros"))
    for name in THREAD_VARIABLES:
        environment.setdefault(name, "1")
    for name, value in ALLOCATION_VARIABLES.items():
        environment.setdefault(name, value)
    transport = transport or default_transport(environment, here_only=here_only)
    environment.update(transport_variables(transport, environment))
    if here_only:
        environment.setdefault(RANGE, "LOCALHOST")
    if domain_id is not None:
        environment["ROS_DOMAIN_ID"] = str(domain_id)
    return environment
