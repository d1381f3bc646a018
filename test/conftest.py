# SPDX-License-Identifier: Apache-2.0
"""What holds for every test: its own corner of DDS, this machine only, and markers that skip with a reason."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
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


APART = (
    "mount -t tmpfs tmpfs /dev/shm && "
    'if [ -e /etc/machine-id ]; then mount --bind "$0" /etc/machine-id; fi && exec "$@"'
)
HOSTS = {"robot": "10.213.7.1", "nano2": "10.213.7.2"}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def addresses() -> dict[str, str]:
    """Host name -> address of `two_hosts`."""
    return dict(HOSTS)


@pytest.fixture
def two_hosts(tmp_path: Path) -> Iterator[dict[str, list[str]]]:
    """Two network namespaces joined by a cable: host name -> words that run a command there.

    Each has shared memory and a machine id of its own, or Fast DDS takes both for one host and uses no network.
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names = {host: f"mdi_exit_{host}_{os.getpid() % 10000}" for host in HOSTS}
    cable = {host: f"v{host[:5]}{os.getpid() % 10000}" for host in HOSTS}
    try:
        try:
            for name in names.values():
                ip("netns", "add", name)
            ip("link", "add", cable["robot"], "type", "veth", "peer", "name", cable["nano2"])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not permitted here: {error.stderr.decode().strip()}")
        for host, address in HOSTS.items():
            ip("link", "set", cable[host], "netns", names[host])
            ip("-n", names[host], "addr", "add", f"{address}/24", "dev", cable[host])
            ip("-n", names[host], "link", "set", cable[host], "up")
            ip("-n", names[host], "link", "set", "lo", "up")
            ip("-n", names[host], "route", "add", "224.0.0.0/4", "dev", cable[host])
        identities = {host: tmp_path / f"{host}.id" for host in HOSTS}
        for number, identity in enumerate(identities.values(), 1):
            identity.write_text(f"{number:032x}\n")
        yield {
            host: ["ip", "netns", "exec", name, "sh", "-c", APART, str(identities[host])]
            for host, name in names.items()
        }
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
