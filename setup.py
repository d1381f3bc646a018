# SPDX-License-Identifier: Apache-2.0
"""Build description of mdi_exit_ros, for colcon (ament_python) and pip alike."""

import os
from pathlib import Path
from typing import Any

from setuptools import find_packages, setup

NAME = "mdi_exit_ros"
SHARE = Path("share", NAME)
SHARED_DIRECTORIES = ("config", "data", "launch", "models")
CACHES = ("__pycache__",)
COMPILED = "MDI_EXIT_COMPILED"
DECISIONS = Path("src", NAME, "policy")
INTERPRETED = ("__init__.py", "compiled.py")


def shared_files() -> list[tuple[str, list[str]]]:
    """Everything below the shared directories, laid out under share/ as it lies here."""
    files = [
        path
        for directory in SHARED_DIRECTORIES
        for path in sorted(Path(directory).rglob("*"))
        if path.is_file() and path.parent.name not in CACHES
    ]
    return [(str(SHARE / path.parent), [str(path)]) for path in files]


def compiled_decisions() -> list[Any]:
    """The decision code as C extensions, where the environment asks for them; they answer as the Python does."""
    if os.environ.get(COMPILED, "") in ("", "0"):
        return []
    try:
        from mypyc.build import mypycify
    except ImportError as error:
        raise SystemExit(f"{COMPILED}=1 needs mypy: pip install mypy, and pip install --no-build-isolation") from error

    modules = [path for path in sorted(DECISIONS.glob("*.py")) if path.name not in INTERPRETED]
    paths = [*modules, DECISIONS.parent / "task.py"]
    extensions: list[Any] = mypycify(
        ["--config-file=pyproject.toml", *map(str, paths)],
        group_name=f"{NAME}.decisions",
        target_dir="build/compiled",
    )
    return extensions


setup(
    name=NAME,
    version="0.1.0",
    description="Model-distributed inference with early exits as a ROS 2 node graph",
    license="Apache-2.0",
    maintainer="mdi_exit_ros maintainers",
    maintainer_email="maintainers@example.com",
    python_requires=">=3.11",
    package_dir={"": "src"},
    # The neighbour src/mdi_exit_msgs is an interface package with a build of its own.
    packages=find_packages("src", include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed"]},
    ext_modules=compiled_decisions(),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (str(SHARE), ["package.xml"]),
        *shared_files(),
    ],
    install_requires=["setuptools"],
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "mdi-exit = mdi_exit_ros.cli.main:main",
            "camera_source = mdi_exit_ros.nodes.entry:camera_source",
            "segment_worker = mdi_exit_ros.nodes.entry:segment_worker",
            "worker_and_source = mdi_exit_ros.nodes.entry:worker_and_source",
            "controller = mdi_exit_ros.nodes.entry:controller",
        ],
    },
)
