# SPDX-License-Identifier: Apache-2.0
"""The decision code as C extensions: it decides what the Python does, and is never older than its source."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.policy.compiled import check_checkout, is_compiled

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = (
    ("three_mesh", "--set", "frames=600"),
    ("step", "--set", "duration_s=3", "--set", "topology=five_mesh"),
    ("adaptive_links", "--set", "frames=1500"),
    ("change_model", "--set", "duration_s=3"),
)
SIMULATE = """
import json, sys
from mdi_exit_ros.policy import worker
from mdi_exit_ros.policy.compiled import is_compiled
from mdi_exit_ros.cli.main import main
assert is_compiled() and not worker.__file__.endswith(".py"), worker.__file__
main()
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout whose decisions are compiled, quickly rather than well."""
    folder = tmp_path_factory.mktemp("compiled")
    shutil.copytree(
        ROOT / "src" / "mdi_exit_ros",
        folder / "src" / "mdi_exit_ros",
        ignore=shutil.ignore_patterns("__pycache__", "*.so"),
    )
    for name in ("setup.py", "pyproject.toml", "package.xml", "resource", "config", "data", "launch", "models"):
        (folder / name).symlink_to(ROOT / name)
    environment = {**os.environ, "MDI_EXIT_COMPILED": "1", "CFLAGS": "-O0"}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.timeout(400)
@pytest.mark.parametrize("arguments", SCENARIOS, ids=lambda each: each[0])
def test_compiled_decisions_are_those_of_the_python(compiled: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    def simulate(name: str, *command: str, **environment: str) -> Any:
        path = tmp_path / f"{name}.json"
        everything = [sys.executable, *command, "simulate", *arguments, "--json", str(path)]
        done = subprocess.run(everything, env={**os.environ, **environment}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(path.read_text())

    as_c = simulate("c", "-c", SIMULATE, PYTHONPATH=str(compiled / "src"))
    assert as_c["ok"] > 0
    assert as_c == simulate("python", "-c", "from mdi_exit_ros.cli.main import main; main()")


def test_this_checkout_is_tested_as_python() -> None:
    assert not is_compiled(), "run make interpreted before the tests: some look inside"


def test_extension_that_is_older_than_its_source_is_refused(compiled: Path) -> None:
    folder = compiled / "src" / "mdi_exit_ros" / "policy"
    check_checkout(folder)
    source = folder / "offloading.py"
    os.utime(source)
    with pytest.raises(ConfigurationError, match=r"compiled before offloading.py changed: run make compiled again"):
        check_checkout(folder)
