# SPDX-License-Identifier: Apache-2.0
"""The topology file: computers, workers, edges and sources, and what has to be true of any of them."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.node_settings import (
    ControllerNodeSettings,
    SetPointSettings,
    SourceNodeSettings,
    WorkerNodeSettings,
)
from mdi_exit_ros.parameter import check, parameters_of
from mdi_exit_ros.policy.admission import AdaptationSettings
from mdi_exit_ros.policy.source_setup import SourceSettings
from mdi_exit_ros.policy.worker_setup import WorkerSettings
from mdi_exit_ros.resources import share_directory
from mdi_exit_ros.task import NAME_MAX

ALL = "all"  # every computer of the plan

# What the file may say about a node besides its place: the settings of its core and those of its node.
_SETTINGS: dict[str, tuple[Any, ...]] = {
    "worker": (WorkerSettings, WorkerNodeSettings),
    "source": (SourceSettings, SourceNodeSettings),  # `drop` is a word at the node
    "controller": (AdaptationSettings, SetPointSettings, ControllerNodeSettings),
}


# ---- the file ---------------------------------------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Open(BaseModel):
    """A node; keys beyond its place are parameters of the node."""

    model_config = ConfigDict(extra="allow", frozen=True)


class _ComputerEntry(_Strict):
    description: str = ""


class _WorkerEntry(_Open):
    computer: str
    segments: Literal["all"] | list[int] | None = None


class _SourceEntry(_Open):
    computer: str
    home: str
    namespace: str = ""


class _ControllerEntry(_Open):
    computer: str | None = None


class _TopologyFile(_Strict):
    description: str = ""
    computers: dict[str, _ComputerEntry | None]
    workers: dict[str, _WorkerEntry]
    edges: list[tuple[str, str]] = []
    directed: bool = False
    sources: dict[str, _SourceEntry]
    controller: _ControllerEntry = _ControllerEntry()


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML whose mappings may not name a key twice; plain YAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


# ---- the topology -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class WorkerSpec:
    """A worker as the file declares it; `segments` is None where the strategy decides."""

    name: str
    computer: str
    segments: tuple[int, ...] | Literal["all"] | None
    parameters: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class SourceSpec:
    """A camera source as the file declares it; `namespace` is its robot's."""

    name: str
    computer: str
    home: str
    namespace: str
    parameters: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Topology:
    """Computers, nodes and edges, with everything checked that does not depend on strategy and model.

    Attributes:
        origin: the file, for messages.
        successors: workers that each worker may send tasks to.
    """

    name: str
    origin: str
    computers: tuple[str, ...]
    workers: tuple[WorkerSpec, ...]
    successors: Mapping[str, tuple[str, ...]]
    sources: tuple[SourceSpec, ...]
    controller_computer: str
    controller_parameters: Mapping[str, Any]


def known_topologies() -> list[str]:
    """Names of the topologies that come with the project."""
    return sorted(path.stem for path in (share_directory() / "config" / "topologies").glob("*.yaml"))


def load_topology(name_or_path: str | Path) -> Topology:
    """Reads a shipped topology by name, or a user's file.

    Raises:
        ConfigurationError: no such topology, not YAML, or a declaration that cannot be used; names file and key.
    """
    path = _find(name_or_path)
    content = read_mapping(path, _TopologyFile)
    try:
        declared = _TopologyFile.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError(_explain(path, error)) from error
    return _Checker(path).topology(declared)


def read_mapping(path: Path, expected: type[BaseModel]) -> dict[str, Any]:
    """The keys of a YAML file, each of which is there once.

    Raises:
        ConfigurationError: it cannot be read, or is something else.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise ConfigurationError(
            f"{path}: expected YAML with every key once{where}: {getattr(error, 'problem', error)}"
        ) from error
    if not isinstance(content, dict):
        keys = ", ".join(expected.model_fields)
        raise ConfigurationError(f"{path}: expected a mapping with {keys}, got {content!r}")
    return content


def _find(name_or_path: str | Path) -> Path:
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    if len(path.parts) == 1 and not path.suffix:
        shipped = share_directory() / "config" / "topologies" / f"{path}.yaml"
        if shipped.is_file():
            return shipped
    known = known_topologies()
    raise ConfigurationError(
        f"no topology {str(name_or_path)!r}{meant(str(name_or_path), known)}: expected the path of a YAML file, "
        f"or one of {', '.join(known)}"
    )


def meant(word: str, known: Iterable[str]) -> str:
    """A question to add to a message, where one of `known` is close to `word`; else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _explain(path: Path, error: ValidationError) -> str:
    """The first problem, as file, key path, value and what was expected."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"] if part != "_ComputerEntry"]
    key = ".".join(where)
    model: type[BaseModel] = _ComputerEntry if where[:1] == ["computers"] else _TopologyFile
    match first["type"]:
        case "extra_forbidden":
            known = list(model.model_fields)
            return f"{path}: {key}: unknown key{meant(where[-1], known)}: expected one of {', '.join(known)}"
        case "missing":
            return f"{path}: {key}: missing; it has to be given"
    if where[0] == "edges":
        return f"{path}: edges[{'.'.join(where[1:2])}]: expected two names of workers, got {first['input']!r}"
    if "segments" in where:
        return f"{path}: {'.'.join(where[:3])}: expected `all` or a list of numbers, got {first['input']!r}"
    return f"{path}: {key}: {first['msg'].lower()}, got {first['input']!r}"


class _Checker:
    """Holds a file against what has to be true of any topology."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _wrong(self, key: str, text: str) -> ConfigurationError:
        return ConfigurationError(f"{self._path}: {key}: {text}")

    def topology(self, file: _TopologyFile) -> Topology:
        for kind in ("computers", "workers", "sources"):
            if not getattr(file, kind):
                raise self._wrong(kind, "expected at least one, got none")
        self._check_names(file)
        for kind, entries in (("workers", file.workers), ("sources", file.sources)):
            for name, entry in entries.items():
                self._known(f"{kind}.{name}.computer", entry.computer, file.computers, "declared computer")
        for name, source in file.sources.items():
            self._known(f"sources.{name}.home", source.home, file.workers, "declared worker")
        controller_computer = file.controller.computer or next(iter(file.sources.values())).computer
        self._known("controller.computer", controller_computer, file.computers, "declared computer")
        successors = self._successors(file)
        self._check_reachable(file, successors)
        return Topology(
            name=self._path.stem,
            origin=str(self._path),
            computers=tuple(file.computers),
            workers=tuple(
                WorkerSpec(
                    name,
                    entry.computer,
                    tuple(sorted(set(entry.segments))) if isinstance(entry.segments, list) else entry.segments,
                    self._parameters(f"workers.{name}", "worker", entry),
                )
                for name, entry in file.workers.items()
            ),
            successors=successors,
            sources=tuple(
                SourceSpec(
                    name,
                    entry.computer,
                    entry.home,
                    entry.namespace,
                    self._parameters(f"sources.{name}", "source", entry),
                )
                for name, entry in file.sources.items()
            ),
            controller_computer=controller_computer,
            controller_parameters=self._parameters("controller", "controller", file.controller),
        )

    def _known(self, key: str, name: str, declared: Iterable[str], what: str) -> None:
        if name not in (names := list(declared)):
            raise self._wrong(key, f"{name!r} is no {what}{meant(name, names)}: expected one of {', '.join(names)}")

    def _check_names(self, file: _TopologyFile) -> None:
        taken: dict[str, str] = {"controller": "the controller"}
        for kind, names in (("workers", file.workers), ("sources", file.sources)):
            for name in names:
                if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or len(name) > NAME_MAX:
                    raise self._wrong(
                        f"{kind}.{name}", f"expected up to {NAME_MAX} letters, digits and _, a letter first"
                    )
                if name in taken:
                    raise self._wrong(f"{kind}.{name}", f"the name belongs to {taken[name]}: expected names used once")
                taken[name] = f"one of the {kind}"
        if ALL in file.computers:
            raise self._wrong(f"computers.{ALL}", "the word stands for every computer: expected another name")

    def _successors(self, file: _TopologyFile) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {name: [] for name in file.workers}
        for index, edge in enumerate(file.edges):
            for name in edge:
                self._known(f"edges[{index}]", name, file.workers, "declared worker")
            if edge[0] == edge[1]:
                raise self._wrong(f"edges[{index}]", f"joins {edge[0]!r} with itself: expected two different workers")
            for one, other in (edge,) if file.directed else (edge, edge[::-1]):
                if other not in found[one]:
                    found[one].append(other)
        return {name: tuple(others) for name, others in found.items()}

    def _check_reachable(self, file: _TopologyFile, successors: Mapping[str, tuple[str, ...]]) -> None:
        homes = [source.home for source in file.sources.values()]
        reached = set(homes)
        frontier = list(reached)
        while frontier:
            new = [name for name in successors[frontier.pop()] if name not in reached]
            reached.update(new)
            frontier.extend(new)
        for name in file.workers:
            if name not in reached:
                raise self._wrong(
                    f"workers.{name}",
                    f"no path of edges leads to it from the home worker {' or '.join(dict.fromkeys(homes))}: "
                    "add an edge or remove the worker",
                )

    def _parameters(self, key: str, kind: str, entry: _Open) -> dict[str, Any]:
        fields = tuple(type(entry).model_fields)
        return node_parameters(str(self._path), key, kind, entry.__pydantic_extra__ or {}, fields=fields)


NODE_KINDS = tuple(_SETTINGS)


def parameter_defaults(kind: str) -> dict[str, Any]:
    """Parameters of a `worker`, `source` or `controller` that a file may give, each with its default."""
    return {name: default for settings in _SETTINGS[kind] for name, default, _ in parameters_of(settings)}


def node_parameters(
    origin: str, key: str, kind: str, given: Mapping[str, Any], *, fields: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Parameters of a node that a file gives, held against what the node has.

    Args:
        origin: the file, for messages.
        key: where they stand in it.
        kind: `worker`, `source` or `controller`.
        given: names and values.
        fields: other keys that are allowed there, for messages.

    Raises:
        ConfigurationError: an unknown one, or a value of another type or outside its bounds.
    """
    found = dict(given)
    defaults = parameter_defaults(kind)
    for name, value in found.items():
        if name not in defaults:
            known = [*fields, *defaults]
            raise ConfigurationError(
                f"{origin}: {key}.{name}: unknown key{meant(name, known)}: expected one of {', '.join(known)}"
            )
        wanted = type(defaults[name])
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            found[name] = float(value)
        elif type(value) is not wanted:
            raise ConfigurationError(f"{origin}: {key}.{name}: expected {_TYPE_NAMES[wanted]}, got {value!r}")
    try:
        for settings in reversed(_SETTINGS[kind]):
            names = {name for name, default, _ in parameters_of(settings) if type(default) is type(defaults[name])}
            check(settings(**{name: value for name, value in found.items() if name in names}))
    except ConfigurationError as error:
        raise ConfigurationError(f"{origin}: {key}.{error}") from error
    return found


_TYPE_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
