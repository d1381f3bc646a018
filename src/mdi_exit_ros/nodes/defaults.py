# SPDX-License-Identifier: Apache-2.0
"""Writes config/nodes.yaml: every parameter of every node at its default. Run it when a parameter changes."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from mdi_exit_ros.node_settings import SetPointSettings
from mdi_exit_ros.nodes.camera_source import CameraSourceConfig
from mdi_exit_ros.nodes.controller import THRESHOLD, ControllerConfig
from mdi_exit_ros.nodes.parameters import NodeConfig
from mdi_exit_ros.nodes.segment_worker import SegmentWorkerConfig
from mdi_exit_ros.parameter import ParameterInfo, parameters_of
from mdi_exit_ros.policy.admission import THRESHOLD_INFO, AdaptationSettings
from mdi_exit_ros.policy.source_setup import SourceSettings
from mdi_exit_ros.policy.worker_setup import WorkerSettings

SECTIONS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("All nodes", (NodeConfig,)),
    ("segment_worker", (SegmentWorkerConfig, WorkerSettings)),
    ("camera_source", (CameraSourceConfig, SourceSettings)),
    (
        "controller; those marked live may be changed while it runs",
        (ControllerConfig, SetPointSettings, AdaptationSettings),
    ),
)
HEADER = """\
# SPDX-License-Identifier: Apache-2.0
# Every parameter of every node at its default; written by `python -m mdi_exit_ros.nodes.defaults`.
# The section fits nodes of any name: a node ignores what it does not know. To set a value for one node
# alone, add a section with its name, such as /worker2: or /**/worker2:, below this one.
/**:
  ros__parameters:
"""


def nodes_yaml() -> str:
    """The text of config/nodes.yaml. A parameter that several nodes have stands where it comes first."""
    lines: list[str] = []
    seen: dict[str, Any] = {}
    for title, configs in SECTIONS:
        lines += ["", f"    # ---- {title} ----"]
        for config in configs:
            for name, value, info in parameters_of(config):
                if name not in seen and not (config is SourceSettings and name == "drop"):
                    lines += _entry(name, value, info)
                elif name in seen and seen[name] != value and name != "drop":
                    raise ValueError(
                        f"{name} has two defaults, {seen[name]!r} and {value!r}: give one of them a new name"
                    )
                seen.setdefault(name, value)
        if SetPointSettings in configs:
            lines += [
                *_comment(f"{THRESHOLD_INFO.description}; exits 1..K-1, defaults come with the model"),
                f"    # {THRESHOLD}1: 0.8",
            ]
    return HEADER + "\n".join(lines).lstrip("\n") + "\n"


def _entry(name: str, value: Any, info: ParameterInfo) -> list[str]:
    bounds = f", {info.low} to {info.high}" if info.low is not None and info.high is not None else ""
    live = ", live" if info.live else ""
    return [*_comment(f"{info.description}{bounds}{live}"), f"    {name}: {json.dumps(value)}"]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 114, initial_indent="    # ", subsequent_indent="    # ")


if __name__ == "__main__":
    print(nodes_yaml(), end="")
