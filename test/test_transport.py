# SPDX-License-Identifier: Apache-2.0
"""Transport profiles: what they set, when they are refused, and that Fast DDS takes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import psutil
import pytest

from mdi_exit_ros.cli.main import run
from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.runner.launching import node_environment
from mdi_exit_ros.transport import (
    ALLOCATION_VARIABLES,
    DEFAULT,
    PROFILES,
    RANGE,
    RMW,
    SHARED_MEMORY,
    TRANSPORTS,
    default_transport,
    profile_file,
    transport_variables,
)

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "config" / "transport"
WITH_PROFILES = ["large_data", "shared_memory", "static_peers", "wifi"]
CYCLONE = {RMW: "rmw_cyclonedds_cpp"}
PEERS = {"ROS_STATIC_PEERS": "10.0.0.2"}


# ---- what is set ------------------------------------------------------------------------------------------------


def test_every_profile_has_a_name_and_is_xml_with_one_default_participant() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.xml")) == WITH_PROFILES
    assert set(WITH_PROFILES) <= set(TRANSPORTS)
    for name in WITH_PROFILES:
        text = (FOLDER / f"{name}.xml").read_text(encoding="utf-8")
        assert "SPDX-License-Identifier: Apache-2.0" in text.splitlines()[1]
        participants = ElementTree.fromstring(text).findall(".//{*}participant[@is_default_profile='true']")
        assert [participant.get("profile_name") for participant in participants] == [name]


def test_every_name_is_documented() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in TRANSPORTS if f"| `{name}` |" not in text] == []


def test_default_sets_nothing_whatever_the_middleware() -> None:
    assert transport_variables(DEFAULT, {}) == transport_variables(DEFAULT, CYCLONE) == {}


@pytest.mark.parametrize("name", ["wifi", "large_data"])
def test_profiles_come_as_a_file_and_a_range(name: str) -> None:
    expected = {PROFILES: str(profile_file(name)), RANGE: "SUBNET"}
    assert transport_variables(name, {}) == expected
    assert transport_variables(name, {**expected, RMW: "rmw_fastrtps_cpp"}) == expected


def test_shared_memory_takes_the_place_of_the_localhost_range() -> None:
    assert transport_variables(SHARED_MEMORY, {RANGE: "LOCALHOST"})[RANGE] == "SYSTEM_DEFAULT"


def test_static_peers_work_with_any_middleware_and_keep_a_users_profiles() -> None:
    assert transport_variables("static_peers", {**PEERS, **CYCLONE}) == {RANGE: "SUBNET"}
    assert transport_variables("static_peers", {**PEERS, PROFILES: "/my.xml"}) == {RANGE: "SUBNET"}
    assert PROFILES in transport_variables("static_peers", PEERS)


def test_a_users_file_decides_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine.xml"
    file.write_text("<dds><profiles/></dds>")
    assert transport_variables(str(file), {}) == {PROFILES: str(file), RANGE: "SYSTEM_DEFAULT"}
    assert transport_variables(str(file), {RANGE: "SUBNET", PROFILES: str(file)})[RANGE] == "SUBNET"


@pytest.mark.parametrize(
    ("name", "environment", "message"),
    [
        ("wify", {}, r"no transport 'wify' \(did you mean 'wifi'\?\): expected one of default, shared_memory, .*\.xml"),
        ("wifi", CYCLONE, "transport wifi is for Fast DDS .* is rmw_cyclonedds_cpp: expected default or static_peers"),
        (
            "static_peers",
            {RMW: "rmw_zenoh_cpp"},
            "is for any DDS, and RMW_IMPLEMENTATION is rmw_zenoh_cpp: expected def",
        ),
        ("static_peers", {}, "expected addresses in ROS_STATIC_PEERS, .*export ROS_STATIC_PEERS='192"),
        ("discovery_server", {}, "expected addresses in ROS_DISCOVERY_SERVER"),
        ("wifi", {RANGE: "LOCALHOST"}, f"expected {RANGE} to be SUBNET or SYSTEM_DEFAULT, got LOCALHOST: unset it"),
        ("shared_memory", {RANGE: "SUBNET"}, "to be SYSTEM_DEFAULT, got SUBNET"),
        ("wifi", {PROFILES: "/my.xml"}, f"brings profiles of its own, and {PROFILES} names /my.xml: unset"),
        ("wifi", {"FASTRTPS_DEFAULT_PROFILES_FILE": "/my.xml"}, "FASTRTPS_DEFAULT_PROFILES_FILE names /my.xml"),
        ("/nowhere/my.xml", {}, "transport /nowhere/my.xml cannot be read: No such file"),
    ],
)
def test_a_mistake_is_one_clear_message(name: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as error:
        transport_variables(name, environment)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"), [("<dds>", "expected XML with Fast DDS profiles"), ("<dds/>", "a <profiles> element")]
)
def test_a_file_without_profiles_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.xml"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        transport_variables(str(file), {})


def test_the_command_tells_a_mistake_before_it_starts_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "--transport", "bluetooth"]) == 2
    assert re.fullmatch(r"error: no transport 'bluetooth': expected one of .*\n", capsys.readouterr().err)


def test_shared_memory_is_chosen_where_all_is_here_and_the_user_chose_nothing(tmp_path: Path) -> None:
    assert default_transport({}, here_only=True) == SHARED_MEMORY
    assert default_transport({RANGE: "LOCALHOST"}, here_only=True) == SHARED_MEMORY
    assert default_transport({}, here_only=False) == DEFAULT
    for chosen in (CYCLONE, PEERS, {PROFILES: "/my.xml"}, {RANGE: "SUBNET"}, {"ROS_DISCOVERY_SERVER": "x:11811"}):
        assert default_transport(chosen, here_only=True) == DEFAULT


def test_nodes_keep_memory_of_messages_unless_the_user_has_set_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(iter(ALLOCATION_VARIABLES))
    monkeypatch.setenv(first, "4096")
    environment = node_environment(here_only=True, domain_id=None, log_folder=tmp_path)
    assert {name: environment[name] for name in ALLOCATION_VARIABLES} == {**ALLOCATION_VARIABLES, first: "4096"}


# ---- Fast DDS itself --------------------------------------------------------------------------------------------

ONE_WAY = [sys.executable, str(ROOT / "benchmark" / "one_way.py")]
COUNT = 5
SIZES = (64 * 1024, 512 * 1024)


class Crossing(NamedTuple):
    """What two processes did.

    Attributes:
        arrived: number of messages, by size.
        said: what came on their standard error.
        segment_bytes: size of the largest shared memory segment that they had mapped.
        tcp: connections that stood on their hosts.
    """

    arrived: dict[str, int]
    said: str
    segment_bytes: int
    tcp: int


def segments(pid: int) -> list[int]:
    """Sizes of the shared memory segments of Fast DDS that a process has mapped; at least one entry."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
    except OSError:  # it has ended
        return [0]
    ranges = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) .*/fastdds_[0-9a-f]+$", maps, re.MULTILINE)
    return [0, *(int(end, 16) - int(begin, 16) for begin, end in ranges)]


def connections(pid: int) -> int:
    """TCP connections that stand on the host of a process."""
    try:
        return Path(f"/proc/{pid}/net/tcp").read_text().count(" 01 ")
    except OSError:
        return 0


def cross(
    name: str,
    *,
    commands: tuple[list[str], list[str]] = ([], []),
    environments: Any = ({}, {}),
    patience_s: float = 30.0,
) -> Crossing:
    """Sends messages of SIZES from one process to another with the named transport."""
    words = [f"transport/x{time.monotonic_ns()}", str(COUNT), "20", *map(str, SIZES)]
    processes = []
    for role, command, given in zip(("receive", "send"), commands, environments, strict=True):
        environment = {key: value for key, value in os.environ.items() if key != RANGE} | given
        environment |= transport_variables(name, environment)
        processes.append(
            subprocess.Popen(
                [*command, *ONE_WAY, role, *words],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    segment, tcp, end = 0, 0, time.monotonic() + patience_s
    try:
        while any(process.poll() is None for process in processes) and time.monotonic() < end:
            for process in processes:
                segment = max(segment, *segments(process.pid))
                tcp = max(tcp, connections(process.pid))
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
        outputs = [process.communicate() for process in processes]
    lines = outputs[0][0].splitlines()
    heard = json.loads(lines[-1]) if lines else {}
    said = "".join(error for _, error in outputs)
    if tcp:  # the one that ends first leaves the other a connection request that fails
        said = "".join(
            line for line in said.splitlines(keepends=True) if "Failed sending Connection Request" not in line
        )
    return Crossing({size: len(numbers) for size, numbers in heard.items()}, said, segment, tcp)


ALL_ARRIVED = {str(size): COUNT for size in SIZES}
NOTHING_S = 10.0  # within which everything would have arrived


@pytest.mark.graph
def test_shared_memory_has_room_for_large_batches() -> None:
    crossing = cross(SHARED_MEMORY)
    assert (crossing.arrived, crossing.said) == (ALL_ARRIVED, "")
    assert crossing.segment_bytes >= 8 * 2**20


@pytest.mark.graph
def test_wifi_has_messages_in_datagrams_alone() -> None:
    crossing = cross("wifi")
    assert (crossing.arrived, crossing.said, crossing.segment_bytes) == (ALL_ARRIVED, "", 0)


@pytest.mark.graph
def test_a_node_without_profile_hears_one_in_shared_memory() -> None:
    default = {RANGE: "SUBNET"}
    words = [f"transport/x{time.monotonic_ns()}", str(COUNT), "20", *map(str, SIZES)]
    environment = {**os.environ, **transport_variables(SHARED_MEMORY, {})}
    receiver = subprocess.Popen(
        [*ONE_WAY, "receive", *words], env={**os.environ, **default}, stdout=subprocess.PIPE, text=True
    )
    sender = subprocess.Popen([*ONE_WAY, "send", *words], env=environment)
    try:
        output, _ = receiver.communicate(timeout=30)
    finally:
        for process in (receiver, sender):
            process.kill()
            process.wait()
    assert {size: len(numbers) for size, numbers in json.loads(output.splitlines()[-1]).items()} == ALL_ARRIVED


@pytest.mark.graph
def test_nodes_find_each_other_through_a_discovery_server() -> None:
    program = shutil.which("fastdds", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        pytest.skip("fastdds, the discovery server's program, is not installed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    server = subprocess.Popen(
        [program, "discovery", "-i", "0", "-l", "127.0.0.1", "-p", port],
        env={**os.environ, "PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        address = {"ROS_DISCOVERY_SERVER": f"127.0.0.1:{port}"}
        crossing = cross("discovery_server", environments=(address, address))
    finally:
        for process in [*psutil.Process(server.pid).children(recursive=True), server]:
            process.kill()
        server.wait()
    assert (crossing.arrived, crossing.said) == (ALL_ARRIVED, "")
    # It was the server that made them meet: where nothing listens any more they do not.
    assert cross("discovery_server", environments=(address, address), patience_s=NOTHING_S).arrived == {}


def fragments_made(host: list[str]) -> int:
    """Fragments of IP packets that a host has made so far."""
    text = subprocess.run([*host, "cat", "/proc/net/snmp"], check=True, capture_output=True, text=True).stdout
    names, values = (line.split() for line in text.splitlines() if line.startswith("Ip:"))
    return int(values[names.index("FragCreates")])


@pytest.mark.graph
@pytest.mark.parametrize("name", ["wifi", "large_data", "static_peers"])
def test_messages_cross_between_two_hosts(
    two_hosts: dict[str, list[str]], addresses: dict[str, str], name: str
) -> None:
    robot, nano = two_hosts["robot"], two_hosts["nano2"]
    given: tuple[dict[str, str], dict[str, str]] = ({}, {})
    if name == "static_peers":  # and no multicast at all
        given = ({"ROS_STATIC_PEERS": addresses["nano2"]}, {"ROS_STATIC_PEERS": addresses["robot"]})
        for host in (robot, nano):
            subprocess.run([*host, "ip", "route", "del", "224.0.0.0/4"], check=True)
    before = fragments_made(nano)
    crossing = cross(name, commands=(robot, nano), environments=given)
    assert (crossing.arrived, crossing.said) == (ALL_ARRIVED, "")
    if name == "wifi":
        assert fragments_made(nano) == before
    if name == "large_data":
        assert crossing.tcp > 0
