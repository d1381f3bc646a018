# SPDX-License-Identifier: Apache-2.0
"""What holds for every test: its own corner of DDS, this machine only, and markers that skip with a reason."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

# Domains that neither robots (0) nor, usually, another test run on this machine uses; two parallel runs differ.
TEST_DOMAINS = range(60, 100)
os.environ.setdefault("ROS_DOMAIN_ID", str(TEST_DOMAINS[os.getpid() % len(TEST_DOMAINS)]))
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needs = {
        "launch": (("launch", "launch_ros"), "comes with ROS 2's packages, not with its wheels"),
        "graph": (("rclpy", "mdi_exit_msgs"), "run `make setup`, or source ROS 2"),
    }
    for marker, (modules, where) in needs.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            skip = pytest.mark.skip(reason=f"{' and '.join(missing)} not installed: {where}")
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(skip)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout that is tested."""
    return ROOT
