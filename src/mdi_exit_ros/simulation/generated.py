# SPDX-License-Identifier: Apache-2.0
"""Topologies made on the spot, as large as wanted."""

from __future__ import annotations

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.simulation.scenario import Generated
from mdi_exit_ros.topology import SourceSpec, Topology, WorkerSpec


def generated_topology(wanted: Generated) -> Topology:
    """Workers in a circle, each on a computer of its own and joined with its nearest on both sides.

    Sources sit on the computers of workers that are evenly spread over the circle; they are named `camera1`, ...,
    workers `worker1`, ... .

    Raises:
        ConfigurationError: more sources than workers.
    """
    count = wanted.workers
    if wanted.sources > count:
        raise ConfigurationError(
            f"topology.sources: expected at most one per worker, got {wanted.sources} for {count} workers"
        )
    names = [f"worker{number}" for number in range(1, count + 1)]
    reach = min(wanted.neighbours, count - 1)
    successors = {}
    steps = [step for distance in range(1, reach + 1) for step in (distance, -distance)]  # nearest first
    for index, name in enumerate(names):
        others = dict.fromkeys(names[(index + step) % count] for step in steps)
        others.pop(name, None)
        successors[name] = tuple(others)[:reach]
    computers = tuple(f"computer{number}" for number in range(1, count + 1))
    homes = [index * count // wanted.sources for index in range(wanted.sources)]
    return Topology(
        name=f"{count}_workers",
        origin="the scenario's topology",
        computers=computers,
        workers=tuple(WorkerSpec(name, computer, None, {}) for name, computer in zip(names, computers, strict=True)),
        successors=successors,
        sources=tuple(
            SourceSpec(f"camera{number}", computers[home], names[home], f"robot{number}", {})
            for number, home in enumerate(homes, 1)
        ),
        controller_computer=computers[homes[0]],
        controller_parameters={},
    )
