# SPDX-License-Identifier: Apache-2.0
"""What set-up says on machines that lack something."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def script(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The set-up script, with an environment of its own that does not exist."""
    specification = importlib.util.spec_from_file_location(
        "setup_environment", repository / "scripts/setup_environment.py"
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    for name in ("VENV", "LOG"):
        monkeypatch.setattr(module, name, tmp_path / name)
    monkeypatch.setattr(module, "PYTHON", tmp_path / "VENV/bin/python")
    return module


def test_unsupported_python_is_named(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SUPPORTED", ((2, 7),))
    with pytest.raises(script.SetupError, match=r"Python 3\.11, 3\.12 or 3\.13 is needed .* PYTHON=python3\.12 make"):
        script.choose_python("", "")


def test_existing_environment_is_kept_whatever_python_starts_set_up(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.PYTHON.parent.mkdir(parents=True)
    script.PYTHON.touch()
    (script.VENV / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.13.1\n")
    monkeypatch.delenv("PYTHON", raising=False)
    made = script.environment_digest((3, 13), "")
    assert script.choose_python(made, "") == (3, 13)
    assert script.choose_python(made, "a distribution sourced since then") == sys.version_info[:2]
    monkeypatch.setenv("PYTHON", sys.executable)
    assert script.choose_python(made, "") == sys.version_info[:2]


def test_missing_compiler_is_named(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(script.SetupError, match=r"C\+\+ compiler is needed .* sudo apt install g\+\+"):
        script.check_machine(sys.version_info[:2], "a sourced distribution")


def test_other_processor_without_ros_is_told_to_install_it(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script.platform, "machine", lambda: "aarch64")
    with pytest.raises(script.SetupError, match=r"wheels are for Linux on x86-64 .* aarch64; install ROS 2 Kilted"):
        script.check_machine(sys.version_info[:2], "")


def test_unreachable_index_is_named(script: ModuleType) -> None:
    code = "import sys; print('NewConnectionError: [Errno 111] Connection refused'); sys.exit(1)"
    with pytest.raises(script.SetupError, match="installing failed because the package index cannot be reached"):
        script.run([sys.executable, "-c", code], "installing")
