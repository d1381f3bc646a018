# SPDX-License-Identifier: Apache-2.0
"""Which nodes a scenario has, on which computers and with which parameters: the plan that real nodes start from too."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.plan import Plan, PlannedNode, PlanOptions, make_plan
from mdi_exit_ros.simulation.generated import generated_topology
from mdi_exit_ros.simulation.model import SimulatedModel
from mdi_exit_ros.simulation.scenario import Generated, Scenario, simulated_parameters
from mdi_exit_ros.topology import Topology, load_topology, meant

ALL_HERE = "computer"  # the one that all nodes are on when they are together
_KINDS = {"segment_worker": "worker", "camera_source": "source", "controller": "controller"}


@dataclasses.dataclass(frozen=True)
class Deployment:
    """The nodes of a scenario.

    Attributes:
        nodes: by name, with the parameters that they have where they run.
        places: the computer of each node.
        workers, sources: their names, in the order of the plan.
        controller: its name.
    """

    topology: Topology
    plan: Plan
    nodes: Mapping[str, PlannedNode]
    places: Mapping[str, str]
    workers: tuple[str, ...]
    sources: tuple[str, ...]
    controller: str

    def parameters(self, name: str) -> Mapping[str, Any]:
        """Parameters of a node."""
        return self.nodes[name].parameters

    @property
    def neighbours(self) -> dict[str, tuple[str, ...]]:
        """Workers that share an edge with each worker."""
        return {name: tuple(self.parameters(name).get("neighbours", ())) for name in self.workers}

    @property
    def homes(self) -> dict[str, str]:
        """The home worker of each source."""
        return {name: self.parameters(name)["entries"][0] for name in self.sources}


def deploy(scenario: Scenario, model: SimulatedModel) -> Deployment:
    """The nodes of a scenario.

    Raises:
        ConfigurationError: scenario, topology and model do not fit each other.
    """
    topology = topology_of(scenario)
    options = PlanOptions(
        strategy=scenario.strategy,
        model=scenario.model,
        exits=scenario.exits,
        worker=scenario.worker,
        source=scenario.source,
        controller=scenario.controller,
    )
    plan = make_plan(topology, options, model.num_segments, model.segment_costs)
    if scenario.thresholds is not None and len(scenario.thresholds) != model.num_segments - 1:
        raise ConfigurationError(
            f"thresholds: expected one for each of exits 1..{model.num_segments - 1} of {model.name}, "
            f"got {len(scenario.thresholds)}"
        )
    plan = plan.with_parameters(_own_parameters(scenario, plan))
    computers = ("all",) if scenario.together else topology.computers
    (controller,) = plan.named("controller")
    deployment = Deployment(
        topology=topology,
        plan=plan,
        nodes={node.name: node for computer in computers for node in plan.on(computer)},
        places={node.name: ALL_HERE if scenario.together else node.computer for node in plan.nodes},
        workers=tuple(node.name for node in plan.named("segment_worker")),
        sources=tuple(node.name for node in plan.named("camera_source")),
        controller=controller.name,
    )
    _check_names(scenario, deployment)
    return deployment


def topology_of(scenario: Scenario) -> Topology:
    """The topology that a scenario names or describes.

    Raises:
        ConfigurationError: there is no such file, or it cannot be used.
    """
    if isinstance(scenario.topology, Generated):
        return generated_topology(scenario.topology)
    try:
        return load_topology(scenario.topology)
    except ConfigurationError as error:
        raise ConfigurationError(f"topology: {error}") from error


def _own_parameters(scenario: Scenario, plan: Plan) -> dict[str, dict[str, Any]]:
    known = {node.name: _KINDS[node.executable] for node in plan.nodes}
    found = {}
    for name, given in scenario.nodes.items():
        if name not in known:
            raise ConfigurationError(
                f"nodes.{name}: there is no such node{meant(name, known)}: expected one of {', '.join(known)}"
            )
        found[name] = simulated_parameters(f"the scenario: nodes.{name}", known[name], given)
    return found


def _check_names(scenario: Scenario, deployment: Deployment) -> None:
    """Whether everything that a scenario speaks of is there."""
    topology, workers = deployment.topology, deployment.workers
    computers = (*topology.computers, ALL_HERE) if scenario.together else topology.computers
    given = [(f"computers.{name}", name, computers, "computer") for name in scenario.computers]
    for index, link in enumerate(scenario.links):
        given += [(f"links.{index}.between", name, computers, "computer") for name in link.between]
    given += [(f"quotas.{name}", name, workers, "worker of this strategy") for name in scenario.quotas]
    given += [(f"arrivals_of.{name}", name, deployment.sources, "source") for name in scenario.arrivals_of]
    given += [
        (f"events.{index}.worker", event.worker, workers, "worker of this strategy")
        for index, event in enumerate(scenario.events)
        if event.worker
    ]
    given += [
        (f"events.{index}.link.between", name, computers, "computer")
        for index, event in enumerate(scenario.events)
        for name in (event.link.between if event.link is not None else ())
    ]
    for key, name, known, what in given:
        if name not in known:
            raise ConfigurationError(
                f"{key}: {name!r} is no {what} in {topology.origin}{meant(name, known)}: "
                f"expected one of {', '.join(known[:20])}"
            )
