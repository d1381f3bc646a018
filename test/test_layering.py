# SPDX-License-Identifier: Apache-2.0
"""Arrows between the rooms of the source tree point one way, seen in a fresh interpreter and in the text."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "mdi_exit_ros"
ANYTHING_BUT_ROS_AND_TORCH = None


@dataclass(frozen=True)
class Room:
    """What importing a room may bring along.

    Attributes:
        rooms: Other rooms of this package.
        packages: Packages that are not in the standard library; None for any but rclpy and torch.
        heavy: Those of rclpy and torch that it is there for.
    """

    rooms: set[str]
    packages: set[str] | None = ANYTHING_BUT_ROS_AND_TORCH
    heavy: frozenset[str] = frozenset()


STANDARD_LIBRARY: set[str] = set()
VOCABULARY = {"errors", "task", "parameter", "node_settings"}
SHARED = VOCABULARY | {
    "cache",
    "lifetime",
    "machine",
    "partition",
    "plan",
    "profile",
    "resources",
    "summary",
    "topology",
}
ROS = frozenset({"rclpy"})
TORCH = frozenset({"torch"})
ROOMS = {
    "errors": Room(set(), STANDARD_LIBRARY),
    "task": Room({"errors"}, STANDARD_LIBRARY),
    "parameter": Room({"errors"}, STANDARD_LIBRARY),
    "node_settings": Room({"errors", "parameter"}, STANDARD_LIBRARY),
    "resources": Room({"errors"}, STANDARD_LIBRARY),
    "own_packages": Room({"errors", "resources"}, STANDARD_LIBRARY),
    "cache": Room({"errors"}, STANDARD_LIBRARY),
    "machine": Room({"errors"}, STANDARD_LIBRARY),
    "lifetime": Room(set(), STANDARD_LIBRARY),
    "summary": Room(set(), STANDARD_LIBRARY),
    "partition": Room({"errors"}, STANDARD_LIBRARY),
    "policy": Room(VOCABULARY | {"partition"}, STANDARD_LIBRARY),
    "codec": Room({"errors"}, {"numpy"}),
    "images": Room(SHARED | {"codec"}),
    "topology": Room(SHARED | {"policy"}),
    "plan": Room(SHARED | {"policy"}),
    "transport": Room(SHARED | {"policy"}),
    "simulation": Room(SHARED | {"policy"}),
    "profile": Room({"errors", "cache", "machine"}),
    "planner": Room(SHARED | {"policy", "simulation"}),
    "model": Room(SHARED | {"codec", "images"}, heavy=TORCH),
    "training": Room(SHARED | {"codec", "images", "model"}, heavy=TORCH),
    "nodes": Room(SHARED | {"codec", "images", "model", "policy"}, heavy=ROS),
    "monitoring": Room(SHARED | {"codec", "nodes", "images", "model", "policy"}, heavy=ROS),
    "runner": Room(SHARED | {"transport", "monitoring", "nodes", "codec", "images", "model", "policy"}, heavy=ROS),
    "benchmark": Room(
        SHARED | {"codec", "images", "model", "monitoring", "nodes", "policy", "runner", "simulation", "transport"},
        heavy=ROS | TORCH,
    ),
}
ROOMS_OF_ROS = {"nodes", "monitoring"}
LIGHT_VERBS = ("train", "calibrate", "evaluate", "plan", "profile", "simulate", "sweep", "paper", "doctor")
LIGHT_MODULES = (
    "cli.plan_rate",
    *(f"cli.{verb}" for verb in ("main", *LIGHT_VERBS)),
    "model.card",
    "plan",
    "profile",
    "nodes.entry",
)

IMPORT = """
import importlib, json, sys
before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded_by(*modules: str) -> set[str]:
    """Names that a fresh interpreter has imported after these modules of the package."""
    names = [f"mdi_exit_ros.{module}" for module in modules]
    done = subprocess.run([sys.executable, "-c", IMPORT, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def packages(loaded: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"mdi_exit_ros"}


def rooms(loaded: set[str]) -> set[str]:
    return {name.split(".")[1] for name in loaded if name.startswith("mdi_exit_ros.")}


def modules_of(room: str) -> list[str]:
    files = sorted((SOURCE / room).rglob("*.py")) or [SOURCE / f"{room}.py"]
    parts = [file.relative_to(SOURCE).with_suffix("").parts for file in files]
    return [".".join(part).removesuffix(".__init__") for part in parts]


def rooms_on_disk() -> list[str]:
    files = [path for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    return sorted(path.stem for path in files if path.stem != "__init__")


def test_every_room_has_a_place() -> None:
    assert set(rooms_on_disk()) - set(ROOMS) == {"cli"}


@pytest.mark.parametrize("room", [room for room in rooms_on_disk() if room in ROOMS])
def test_room_imports_only_what_it_may(room: str) -> None:
    loaded = loaded_by(*modules_of(room))
    expected = ROOMS[room]
    assert rooms(loaded) - {room} <= expected.rooms
    if expected.packages is not None:
        assert packages(loaded) - {"_cython_3_1_4"} <= expected.packages
    assert not packages(loaded) & {"rclpy", "torch"} - expected.heavy


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_module_is_read_without_ros_and_torch(module: str) -> None:
    assert (SOURCE / f"{module.replace('.', '/')}.py").is_file()
    assert not packages(loaded_by(module)) & {"rclpy", "torch", "mdi_exit_msgs"}


def test_help_of_the_command_loads_no_verb() -> None:
    code = (
        "import sys; from mdi_exit_ros.cli.main import run; run(['--help']); "
        "sys.exit(any(name in sys.modules for name in ('rclpy', 'torch', 'mdi_exit_ros.cli.bench')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_only_nodes_and_monitoring_name_ros() -> None:
    pattern = re.compile(r"^\s*(?:from|import) (rclpy|\w+_msgs|cv_bridge)\b", re.MULTILINE)
    users = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if path.relative_to(SOURCE).parts[0] not in ROOMS_OF_ROS and pattern.search(path.read_text())
    }
    assert users == set()


def test_package_files_are_empty() -> None:
    assert [path for path in SOURCE.rglob("__init__.py") if path.read_text().strip()] == []


def test_every_source_file_names_its_licence() -> None:
    root = SOURCE.parent.parent
    folders = ("src", "test", "launch", "scripts", "benchmark", "examples")
    files = [path for folder in folders for path in (root / folder).rglob("*.py")]
    without = [
        path
        for path in files
        if path.read_text() and "SPDX-License-Identifier: Apache-2.0" not in path.read_text()[:99]
    ]
    assert without == []
