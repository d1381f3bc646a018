# SPDX-License-Identifier: Apache-2.0
"""What colcon and pip make of this repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from catkin_pkg.package import parse_package

PACKAGES = {"mdi_exit_msgs", "mdi_exit_ros"}
SHARED_DIRECTORIES = ("config", "data", "launch", "models")
BUILT = ("package.xml", "setup.py", "setup.cfg", "pyproject.toml", "colcon_defaults.yaml")
COMMANDS = {"mdi-exit", "camera_source", "segment_worker", "worker_and_source", "controller"}


@pytest.fixture(scope="session")
def clone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that a build reads, where a build may leave its own."""
    copy = tmp_path_factory.mktemp("workspace") / "src" / "mdi_exit_ros"
    copy.mkdir(parents=True)
    for name in BUILT:
        shutil.copy(repository / name, copy)
    for name in ("resource", "src", *SHARED_DIRECTORIES):
        if (repository / name).is_dir():
            shutil.copytree(repository / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return copy


@pytest.fixture(scope="session")
def installed(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix with the package installed the way that pip lays it out, nothing editable about it."""
    folder = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, clone], check=True, capture_output=True
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "lib")
    (data,) = (folder / "lib").glob("*.data/data/share")
    data.rename(folder / "share")
    return folder


def listed_packages(directory: Path, *arguments: str) -> set[str]:
    command = [sys.executable, "-m", "colcon", "--log-base", os.devnull, "list", "--names-only", *arguments]
    done = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_colcon_lists_both_packages_in_a_clone(repository: Path) -> None:
    assert listed_packages(repository) == PACKAGES


def test_colcon_lists_both_packages_in_a_workspace(clone: Path) -> None:
    bases = ("src/mdi_exit_ros", "src/mdi_exit_ros/src")
    assert listed_packages(clone.parent.parent, "--base-paths", *bases) == PACKAGES


@pytest.mark.parametrize("manifest", ["package.xml", "src/mdi_exit_msgs/package.xml"])
def test_manifest_is_valid(repository: Path, manifest: str) -> None:
    warnings: list[str] = []
    package = parse_package(str(repository / manifest), warnings=warnings)
    assert warnings == []
    assert package.licenses == ["Apache-2.0"]


def test_versions_agree(repository: Path) -> None:
    manifests = ("package.xml", "src/mdi_exit_msgs/package.xml")
    versions = {parse_package(str(repository / manifest)).version for manifest in manifests}
    assert versions == set(re.findall(r'version="([^"]+)"', (repository / "setup.py").read_text()))


def test_manifest_names_every_ros_package_that_is_imported(repository: Path) -> None:
    package = parse_package(str(repository / "package.xml"))
    named = {dependency.name for dependency in (*package.exec_depends, *package.build_depends)}
    ros = r"(rclpy|cv_bridge|launch|launch_ros|ament_index_python|\w+_msgs)"
    imported = {
        name
        for folder in ("src/mdi_exit_ros", "launch")
        for path in (repository / folder).rglob("*.py")
        for name in re.findall(rf"^\s*(?:from|import) {ros}\b", path.read_text(), re.MULTILINE)
    }
    assert imported <= named


def test_every_message_file_is_built(repository: Path) -> None:
    folder = repository / "src" / "mdi_exit_msgs"
    listed = re.findall(r'"(msg/\w+\.msg)"', (folder / "CMakeLists.txt").read_text())
    assert sorted(listed) == sorted(f"msg/{path.name}" for path in (folder / "msg").iterdir())


def test_every_command_can_be_loaded() -> None:
    ours = entry_points(group="console_scripts").select(name="mdi-exit")
    assert ours, "mdi_exit_ros is not installed: run `make setup`"
    distribution = next(iter(ours)).dist
    assert distribution is not None
    commands = distribution.entry_points.select(group="console_scripts")
    assert {command.name for command in commands} == COMMANDS
    assert all(callable(command.load()) for command in commands)


def test_every_shared_file_is_installed(repository: Path, installed: Path) -> None:
    share = installed / "share" / "mdi_exit_ros"
    missing = [
        path.relative_to(repository)
        for folder in SHARED_DIRECTORIES
        for path in (repository / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not (share / path.relative_to(repository)).is_file()
    ]
    assert missing == []
    assert (share / "package.xml").is_file()
    assert (installed / "share/ament_index/resource_index/packages/mdi_exit_ros").is_file()


def test_installed_package_finds_its_shared_files(installed: Path, tmp_path: Path) -> None:
    code = "from mdi_exit_ros.resources import share_directory; print(share_directory())"
    environment = os.environ | {"PYTHONPATH": str(installed / "lib"), "AMENT_PREFIX_PATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert Path(done.stdout.strip()) == installed / "share" / "mdi_exit_ros"


def test_installed_package_without_its_shared_files_says_so(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.prefix = '/nowhere'; from mdi_exit_ros.cli.main import run; "
        "sys.exit(run(['evaluate', '--data', 'none.zip']))"
    )
    environment = os.environ | {"PYTHONPATH": str(installed / "lib"), "AMENT_PREFIX_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert re.fullmatch(r"error: the files of mdi_exit_ros .* source install/setup.bash .*\n", done.stderr)


def test_every_requirement_is_pinned_and_no_host_is_named(repository: Path) -> None:
    pins = (repository / "constraints.txt").read_text().splitlines()
    assert [line for line in pins if not re.fullmatch(r"[a-z0-9][a-z0-9-]*==[\w.]+", line)] == []
    pinned = {line.partition("==")[0] for line in pins}
    for name in ("requirements.txt", "requirements-ros.txt", "requirements-bench.txt"):
        lines = [line for line in (repository / name).read_text().splitlines() if line and line[0] != "#"]
        assert {re.split(r"[<>=~\[]", line.lower())[0] for line in lines} <= pinned
