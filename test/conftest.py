# SPDX-License-Identifier: Apache-2.0
"""What holds for every test: its own corner of DDS and cache, this machine only, markers that skip with a reason."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock, Timeout
from hypothesis import HealthCheck, settings

TEST_DOMAINS = range(60, 100)  # which robots, in domain 0, do not use
OWN_DOMAIN = "MDI_EXIT_TEST_DOMAIN_ID"  # names a domain instead
GRAPH_MODELS = ("mobilenetv2", "mobilenetv2_fast")  # which the graph tests run
ROOT = Path(__file__).resolve().parent.parent


def lock_of_a_free_domain() -> tuple[int, FileLock]:
    """A domain that no other test run on this machine uses, and what keeps it so until this run ends."""
    for offset in range(len(TEST_DOMAINS)):
        domain = TEST_DOMAINS[(os.getpid() + offset) % len(TEST_DOMAINS)]
        lock = FileLock(Path(tempfile.gettempdir()) / f"mdi_exit_test_domain_{domain}.lock")
        try:
            lock.acquire(timeout=0)
        except (Timeout, PermissionError):  # in use, or another user's
            continue
        return domain, lock
    raise pytest.UsageError(f"domains {TEST_DOMAINS[0]} to {TEST_DOMAINS[-1]} are all in use: set {OWN_DOMAIN}")


if OWN_DOMAIN in os.environ:
    os.environ["ROS_DOMAIN_ID"] = os.environ[OWN_DOMAIN]
else:
    DOMAIN, DOMAIN_LOCK = lock_of_a_free_domain()
    os.environ["ROS_DOMAIN_ID"] = str(DOMAIN)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
# A machine that is busy takes long for one example, which is no failure.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


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


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for all tests, and the processes they start, in which nothing is at first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def exported(own_cache: None) -> None:
    """The models of the graph tests are in the cache, so that no node is waited for while it exports."""
    from mdi_exit_ros.model.backends.export import ensure_exported  # here, as most tests need none of it
    from mdi_exit_ros.model.card import load_card

    for model in GRAPH_MODELS:
        ensure_exported(load_card(model))


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
