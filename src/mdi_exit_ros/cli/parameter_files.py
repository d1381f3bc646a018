# SPDX-License-Identifier: Apache-2.0
"""What ROS parameter files say of a node, for whoever has to know it before the node is started."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mdi_exit_ros.errors import ConfigurationError


def parameters_in_files(full_name: str, files: Iterable[Path]) -> dict[str, Any]:
    """The parameters that files like config/nodes.yaml give a node, as ROS reads them.

    Of the sections that fit the node's name the lowest wins, and of two files the later one.

    Args:
        full_name: the node's name in the ROS graph.

    Raises:
        ConfigurationError: a file that cannot be read.
    """
    sections: dict[str, dict[str, Any]] = {}
    for file in files:
        for name, given in _sections(_content(file)):
            sections.setdefault(name, {}).update(given)
    found: dict[str, Any] = {}
    for name, given in sections.items():
        if re.fullmatch(_pattern(name), full_name):
            found |= given
    return found


def _content(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"--params-file: expected YAML as in config/nodes.yaml in {path}: {reason}") from error


def _sections(content: Any, name: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Names of nodes and their parameters; namespaces may be nested. What is none of this is for the node to refuse."""
    for key, inner in content.items() if isinstance(content, dict) else ():
        if key == "ros__parameters" and isinstance(inner, dict):
            yield name, inner
        else:
            yield from _sections(inner, f"{name}/{str(key).strip('/')}")


def _pattern(name: str) -> str:
    """A regular expression for a section's name, in which * stands for one part of a name and ** for any."""
    parts = {"**": "(/[^/]+)*", "*": "/[^/]+"}
    return "".join(parts.get(part, f"/{re.escape(part)}") for part in name.strip("/").split("/"))
