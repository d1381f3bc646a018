# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit doctor`: what is installed, what works, and what to do about the rest."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import click

from mdi_exit_ros.cli.output import json_option, write_json
from mdi_exit_ros.errors import MdiExitError

SUPPORTED_PYTHONS = ((3, 11), (3, 12), (3, 13))
TESTED_DISTRIBUTION = "kilted"
# "domain IDs 0-101 and 215-232 can be safely used without colliding with ephemeral ports": ROS 2's page on the domain
# ID, for Linux as it comes (net.ipv4.ip_local_port_range of 32768 to 60999).
DOMAIN_IDS = (range(102), range(215, 233))
DISCOVERY_RANGES = ("SUBNET", "LOCALHOST", "OFF", "SYSTEM_DEFAULT")
GET_ROS = "source ROS 2 (source /opt/ros/kilted/setup.bash), or run `make setup` in a checkout"
BUILD_MESSAGES = "run `make setup` in a checkout, or colcon build and source install/setup.bash"


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        name: What was looked at.
        ok: Whether it is as it has to be.
        detail: What was found.
        advice: What to do where it is not ok; empty otherwise.
        essential: Whether nothing works without it.
    """

    name: str
    ok: bool
    detail: str
    advice: str = ""
    essential: bool = True

    @property
    def status(self) -> str:
        """`ok`, `missing` (works without it) or `FAILED`."""
        return "ok" if self.ok else "FAILED" if self.essential else "missing"


def _python() -> Check:
    supported = sys.version_info[:2] in SUPPORTED_PYTHONS
    names = ", ".join(".".join(map(str, known)) for known in SUPPORTED_PYTHONS)
    advice = "" if supported else f"use one of {names}: PYTHON=python3.12 make setup"
    return Check("Python", supported, f"{platform.python_version()}, {sys.executable}", advice)


def _machine() -> Check:
    from mdi_exit_ros.machine import machine

    found = machine()
    return Check("machine", True, f"{found['system']}, {found['architecture']}, {found['cores']} cores")


def _ros() -> Check:
    distribution = os.environ.get("ROS_DISTRO", "")
    if distribution:
        known = distribution == TESTED_DISTRIBUTION
        return Check(
            "ROS 2",
            known,
            f"{distribution} (sourced)",
            "" if known else f"tested with {TESTED_DISTRIBUTION} only; others may work",
            essential=False,
        )
    if find_spec("ros_wheels_bootstrapper"):
        return Check("ROS 2", True, f"{TESTED_DISTRIBUTION} (wheels in {sys.prefix})")
    return Check("ROS 2", False, "neither sourced nor installed as wheels", GET_ROS)


def _rclpy() -> Check:
    try:
        from mdi_exit_ros.monitoring.exchange import middleware

        rmw = middleware()
    except Exception as error:
        return Check("rclpy", False, f"does not start: {error}", GET_ROS)
    return Check("rclpy", True, f"{_version('rclpy')} on {rmw}")


def _discovery() -> Check:
    domain = os.environ.get("ROS_DOMAIN_ID", "0") or "0"
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET") or "SUBNET"
    detail = f"domain {domain}, range {reach}"
    if not (domain.isdigit() and any(int(domain) in ids for ids in DOMAIN_IDS)):
        ids = " or ".join(f"{ids[0]} to {ids[-1]}" for ids in DOMAIN_IDS)
        return Check("discovery", False, detail, f"set ROS_DOMAIN_ID to a whole number from {ids}")
    if reach not in DISCOVERY_RANGES:
        advice = f"set ROS_AUTOMATIC_DISCOVERY_RANGE to one of {', '.join(DISCOVERY_RANGES)}"
        return Check("discovery", False, detail, advice)
    if reach == "OFF":
        return Check("discovery", False, detail, "no node will find another: unset ROS_AUTOMATIC_DISCOVERY_RANGE")
    return Check("discovery", True, detail)


def _messages() -> Check:
    try:
        # Not built, the sources beside this package would still import, as an empty namespace.
        messages = importlib.import_module("mdi_exit_msgs.msg")
        names = sorted(name for name in vars(messages) if name[0].isupper())
        messages.TaskBatch.__class__.__import_type_support__()
    except Exception as error:
        return Check("mdi_exit_msgs", False, f"not usable: {error}", BUILD_MESSAGES)
    return Check("mdi_exit_msgs", True, f"{len(names)} messages")


def _cv_bridge() -> Check:
    try:
        importlib.import_module("cv_bridge")
    except Exception as error:
        advice = "image topics need it: install ros-kilted-cv-bridge, with numpy < 2.3 and OpenCV < 5"
        return Check("cv_bridge", False, f"not usable: {error}", advice, essential=False)
    return Check("cv_bridge", True, _version("cv-bridge", "cv_bridge"))


def _backends() -> Check:
    from mdi_exit_ros.model.backends.registry import available_backends

    found = available_backends()
    if not found:
        return Check("backends", False, "none", f"{sys.executable} -m pip install onnxruntime (or openvino, or torch)")
    return Check("backends", True, ", ".join(f"{name} {number}" for name, number in found.items()))


def _model() -> Check:
    from mdi_exit_ros.model.card import load_card, shipped_models

    try:
        cards = [load_card(name) for name in shipped_models()]
    except MdiExitError as error:
        return Check("model", False, str(error), "restore models/ (git checkout models), or build the package again")
    if not cards:
        return Check("model", False, "no model is shipped", "train one: mdi-exit train", essential=False)
    return Check("model", True, ", ".join(f"{card.name} ({card.model_id})" for card in cards))


def _decisions() -> Check:
    from mdi_exit_ros.policy.compiled import check_checkout, is_compiled

    try:
        check_checkout()
    except MdiExitError as error:
        return Check("decisions", False, str(error), "run `make compiled` again, or `make interpreted`")
    if is_compiled():
        return Check("decisions", True, "compiled")
    return Check("decisions", True, "Python (`make compiled` in a checkout turns them into C extensions)")


def _launch() -> Check:
    if find_spec("launch") and find_spec("launch_ros"):
        return Check("launch", True, f"launch {_version('launch')}, launch_ros {_version('launch-ros', 'launch_ros')}")
    advice = "only `ros2 launch` needs it, `mdi-exit run` does not; it comes with ROS 2's packages, not as a wheel"
    return Check("launch", False, "not installed", advice, essential=False)


def _exchange() -> Check:
    name = "message exchange"
    try:
        from mdi_exit_ros.monitoring.exchange import exchange
    except ImportError as error:
        return Check(name, False, f"not tried: {error}", GET_ROS)
    try:
        seconds = exchange()
    except MdiExitError as error:
        advice = (
            "check discovery above, a firewall on UDP 7400 and up, HOME (or ROS_LOG_DIR) writable, and in a "
            "container a shared /dev/shm (--ipc=host)"
        )
        return Check(name, False, str(error), advice)
    return Check(name, True, f"two processes, first answer after {seconds:.1f} s")


def _version(*distributions: str) -> str:
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "(version unknown)"


CHECKS: tuple[Callable[[], Check], ...] = (
    _python,
    _machine,
    _ros,
    _rclpy,
    _discovery,
    _messages,
    _cv_bridge,
    _backends,
    _model,
    _decisions,
    _launch,
    _exchange,
)


@click.command(short_help="Say what is installed, what works and what to do about the rest.")
@json_option("Also write the result here.")
@click.pass_context
def doctor(context: click.Context, json_path: Path | None) -> None:
    """Say what is installed, what works and what to do about the rest.

    Exits 0 where everything essential works, 1 otherwise.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    colours = {"ok": "green", "missing": "yellow", "FAILED": "red"}
    checks = [check() for check in CHECKS]
    table = Table("check", "status", "found")
    for check in checks:
        advice = f"\n[bold]{escape(check.advice)}[/bold]" if check.advice else ""
        colour = colours[check.status]
        table.add_row(check.name, f"[{colour}]{check.status}[/{colour}]", escape(check.detail) + advice)
    Console().print(table)
    healthy = all(check.ok for check in checks if check.essential)
    if json_path:
        rows = [asdict(check) | {"status": check.status} for check in checks]
        write_json({"ok": healthy, "checks": rows}, json_path)
    context.exit(0 if healthy else 1)
