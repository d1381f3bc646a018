# SPDX-License-Identifier: Apache-2.0
"""Transport profiles by name: which variables make the middleware carry messages so, and when they may be set."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.resources import share_directory
from mdi_exit_ros.topology import meant

RMW = "RMW_IMPLEMENTATION"
DEFAULT_RMW = "rmw_fastrtps_cpp"
FAST_DDS_RMWS = (DEFAULT_RMW, "rmw_fastrtps_dynamic_cpp")
NOT_DDS_RMWS = ("rmw_zenoh_cpp",)
RANGE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
PROFILES = "FASTDDS_DEFAULT_PROFILES_FILE"
# The second is the name of older distributions, which rmw_fastrtps still reads.
PROFILES_VARIABLES = (PROFILES, "FASTRTPS_DEFAULT_PROFILES_FILE")
# Who sets one of these has made the choice.
CHOSEN_BY_USER = (
    *PROFILES_VARIABLES,
    "FASTDDS_BUILTIN_TRANSPORTS",
    "ROS_STATIC_PEERS",
    "ROS_DISCOVERY_SERVER",
    "ROS2_EASY_MODE",
)
# glibc gives a block of some 100 KB back to the kernel at once and pays for its pages anew with each message: kept, a
# message of 512 KB takes half the time. Other C libraries do not read these.
ALLOCATION_VARIABLES = {
    "MALLOC_MMAP_THRESHOLD_": str(8 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20),
}


class Middleware(enum.Enum):
    """Which middleware a profile is for."""

    ANY = "any middleware"
    DDS = "any DDS"
    FAST_DDS = f"Fast DDS ({RMW}={DEFAULT_RMW})"


@dataclasses.dataclass(frozen=True)
class Transport:
    """One profile. `config/transport/<name>.xml` goes with it where there is such a file.

    Attributes:
        summary: when to use it, for help texts.
        ranges: values of ROS_AUTOMATIC_DISCOVERY_RANGE that go with it, the one that is set first; empty: any.
        replaces: values that are replaced by it because it means no more than they do.
        middleware: which kind it is for.
        needs: variable that only a user can fill.
        example: what could be in it.
    """

    summary: str
    ranges: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    middleware: Middleware = Middleware.FAST_DDS
    needs: str = ""
    example: str = ""


_NETWORK = ("SUBNET", "SYSTEM_DEFAULT")
DEFAULT = "default"
SHARED_MEMORY = "shared_memory"
TRANSPORTS = {
    DEFAULT: Transport("sets nothing", middleware=Middleware.ANY),
    SHARED_MEMORY: Transport("all nodes on one machine", ("SYSTEM_DEFAULT",), replaces=("LOCALHOST",)),
    "wifi": Transport("messages below the MTU, for radio links", _NETWORK),
    "large_data": Transport("data by TCP between computers, shared memory within one", _NETWORK),
    "static_peers": Transport(
        "networks that filter multicast",
        ("SUBNET",),
        middleware=Middleware.DDS,
        needs="ROS_STATIC_PEERS",
        example="192.168.1.10;192.168.1.11",
    ),
    "discovery_server": Transport(
        "nodes find each other through a server", _NETWORK, needs="ROS_DISCOVERY_SERVER", example="192.168.1.10:11811"
    ),
}


def profile_file(name: str) -> Path | None:
    """The Fast DDS profiles that come with the named transport, where it has any."""
    path = share_directory() / "config" / "transport" / f"{name}.xml"
    return path if path.is_file() else None


def default_transport(environment: Mapping[str, str], *, here_only: bool) -> str:
    """The transport of who asks for none: shared memory where all nodes are on this machine and nothing else is set."""
    unchosen = not any(environment.get(name) for name in CHOSEN_BY_USER)
    fits = _rmw(environment) in FAST_DDS_RMWS and environment.get(RANGE, "LOCALHOST") in ("", "LOCALHOST")
    return SHARED_MEMORY if here_only and unchosen and fits else DEFAULT


def transport_variables(name_or_path: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that nodes need for a transport, by name or as a file of Fast DDS profiles, beside `environment`.

    Raises:
        ConfigurationError: no such transport or file, another middleware is in use, what only a user can say is
            missing, or `environment` says the contrary.
    """
    if name_or_path in TRANSPORTS:
        return _of_name(name_or_path, TRANSPORTS[name_or_path], environment)
    path = Path(name_or_path).expanduser()
    if path.suffix != ".xml" and len(path.parts) <= 1:
        raise ConfigurationError(
            f"no transport {name_or_path!r}{meant(name_or_path, TRANSPORTS)}: expected one of {', '.join(TRANSPORTS)}, "
            "or the path of an .xml file with Fast DDS profiles"
        )
    return _of_file(path.absolute(), environment)


def _rmw(environment: Mapping[str, str]) -> str:
    return environment.get(RMW) or DEFAULT_RMW


def _of_name(name: str, transport: Transport, environment: Mapping[str, str]) -> dict[str, str]:
    _require(transport.middleware, f"transport {name}", environment)
    if transport.needs and not environment.get(transport.needs):
        raise ConfigurationError(
            f"transport {name}: expected addresses in {transport.needs}, which is not set; for example: "
            f"export {transport.needs}='{transport.example}'"
        )
    variables = {}
    if transport.ranges:
        reach = environment.get(RANGE) or transport.ranges[0]
        if reach not in (*transport.ranges, *transport.replaces):
            raise ConfigurationError(
                f"transport {name}: expected {RANGE} to be {' or '.join(transport.ranges)}, got {reach}: unset it, or "
                "choose another transport"
            )
        variables[RANGE] = transport.ranges[0] if reach in transport.replaces else reach
    profiles = profile_file(name)
    if profiles is not None and _rmw(environment) in FAST_DDS_RMWS:
        other = _other_profiles(profiles, environment)
        if other and transport.middleware is Middleware.FAST_DDS:
            raise ConfigurationError(
                f"transport {name} brings profiles of its own, and {other} names {environment[other]}: unset {other}, "
                f"or choose transport {DEFAULT}"
            )
        if not other:
            variables[PROFILES] = str(profiles)
    return variables


def _of_file(path: Path, environment: Mapping[str, str]) -> dict[str, str]:
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise ConfigurationError(
            f"transport {path} cannot be read: {error.strerror}; expected one of {', '.join(TRANSPORTS)}, or an "
            ".xml file with Fast DDS profiles"
        ) from error
    except ElementTree.ParseError as error:
        raise ConfigurationError(f"transport {path}: expected XML with Fast DDS profiles: {error}") from error
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    if "profiles" not in tags:
        raise ConfigurationError(f"transport {path}: expected Fast DDS profiles (a <profiles> element), got none")
    _require(Middleware.FAST_DDS, f"transport {path}", environment)
    other = _other_profiles(path, environment)
    if other:
        raise ConfigurationError(
            f"transport {path} is not what {other} names ({environment[other]}): unset {other}, or name the same file"
        )
    # With any other range rmw_fastrtps adds transports and peers of its own; with this one the file decides alone.
    return {PROFILES: str(path), RANGE: environment.get(RANGE) or "SYSTEM_DEFAULT"}


def _kind(rmw: str) -> Middleware:
    if rmw in FAST_DDS_RMWS:
        return Middleware.FAST_DDS
    return Middleware.ANY if rmw in NOT_DDS_RMWS else Middleware.DDS


def _require(needed: Middleware, what: str, environment: Mapping[str, str]) -> None:
    order = list(Middleware)
    kind = _kind(_rmw(environment))
    if order.index(needed) > order.index(kind):
        fitting = [name for name, each in TRANSPORTS.items() if order.index(each.middleware) <= order.index(kind)]
        raise ConfigurationError(
            f"{what} is for {needed.value}, and {RMW} is {_rmw(environment)}: expected {' or '.join(fitting)}, or "
            f"another {RMW}"
        )


def _other_profiles(path: Path, environment: Mapping[str, str]) -> str:
    """The variable by which a user names other profiles than `path`; empty if there is none."""
    for name in PROFILES_VARIABLES:
        value = environment.get(name)
        if value and Path(value).expanduser().absolute() != path:
            return name
    return ""
