# SPDX-License-Identifier: Apache-2.0
"""A workspace built in a virtual environment, imported from by a Python outside of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mdi_exit_ros.own_packages import interpreter_of, site_packages_of

SOURCE = Path(__file__).resolve().parent.parent / "src"
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.parametrize(
    ("text", "interpreter"),
    [
        ("#!/ws/.venv/bin/python3\nimport re\n", "/ws/.venv/bin/python3"),
        ("#!/bin/sh\n'''exec' \"/my ws/.venv/bin/python3\" \"$0\" \"$@\"\n' '''\n", "/my ws/.venv/bin/python3"),
        ("#!/bin/sh\n'''exec' /long/.venv/bin/python3 \"$0\" \"$@\"\n' '''\n", "/long/.venv/bin/python3"),
        ("import re\n", None),
    ],
)
def test_interpreter_is_read_from_a_program(tmp_path: Path, text: str, interpreter: str | None) -> None:
    program = tmp_path / "mdi-exit"
    assert interpreter_of(program) is None
    program.write_text(text)
    assert interpreter_of(program) == (Path(interpreter) if interpreter else None)


def test_only_an_environment_of_this_python_has_packages(tmp_path: Path) -> None:
    packages = tmp_path / "lib" / VERSION / "site-packages"
    packages.mkdir(parents=True)
    assert site_packages_of(tmp_path / "bin" / "python") is None
    (tmp_path / "pyvenv.cfg").touch()
    assert site_packages_of(tmp_path / "bin" / "python") == packages
    assert site_packages_of(Path("/usr/bin/python3")) is None


def test_system_python_with_an_old_pydantic_reads_a_topology(tmp_path: Path) -> None:
    # An installed workspace: the package without its checkout, and a program that names the environment.
    prefix, system = tmp_path / "install", tmp_path / "system"
    installed = prefix / "lib" / VERSION / "site-packages"
    installed.mkdir(parents=True)
    (installed / "mdi_exit_ros").symlink_to(SOURCE / "mdi_exit_ros")
    marker = prefix / "share" / "ament_index" / "resource_index" / "packages" / "mdi_exit_ros"
    marker.parent.mkdir(parents=True)
    marker.touch()
    (prefix / "share" / "mdi_exit_ros").symlink_to(SOURCE.parent)
    program = prefix / "lib" / "mdi_exit_ros" / "mdi-exit"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!{sys.executable}\n")
    (system / "pydantic").mkdir(parents=True)
    (system / "yaml").symlink_to(Path(yaml.__file__).parent)
    (system / "pydantic" / "__init__.py").write_text("VERSION = '1.10.14'\n")
    code = """
import sys
from pathlib import Path
from mdi_exit_ros import own_packages, resources
resources.share_directory = own_packages.share_directory = lambda: Path(sys.argv[1], "share", "mdi_exit_ros")
with own_packages.seen_first():
    from mdi_exit_ros.topology import load_topology
import pydantic
print(pydantic.VERSION, [each.name for each in load_topology("two_nodes").workers])
"""
    command = [sys.executable, "-S", "-c", code, str(prefix)]
    environment = {"PYTHONPATH": f"{system}:{installed}"}
    without = subprocess.run(
        [*command[:2], "-c", "import mdi_exit_ros.topology"], env=environment, capture_output=True, text=True
    )
    assert "ImportError: cannot import name" in without.stderr
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    version, _, workers = done.stdout.strip().partition(" ")
    assert (int(version.split(".")[0]) >= 2, workers) == (True, "['worker1', 'worker2']"), done.stderr
