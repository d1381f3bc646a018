# SPDX-License-Identifier: Apache-2.0
"""The deployment plan: which node runs on which computer with which parameters. Launch file and runner only read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.partition import Computer, Work, best_cut, longest_path
from mdi_exit_ros.task import NAME_MAX, NAMESPACE, Strategy
from mdi_exit_ros.topology import ALL, Topology, meant

CLUSTER_NAMESPACE = "/mdi_exit"
ENTRIES_MAX = 16  # workers that a source's frames may enter; each is a publisher of the source
Executable = Literal["segment_worker", "camera_source", "controller"]


@dataclasses.dataclass(frozen=True)
class PlannedNode:
    """One node: program, place, ROS name and the parameters that differ from the node's own defaults."""

    name: str
    executable: Executable
    computer: str
    namespace: str
    parameters: Mapping[str, Any]

    @property
    def full_name(self) -> str:
        """The node's name in the ROS graph."""
        return f"{self.namespace.rstrip('/')}/{self.name}"

    def with_parameters(self, **parameters: Any) -> PlannedNode:
        """The node with more parameters, which win over what it had."""
        return dataclasses.replace(self, parameters={**self.parameters, **parameters})


def processes_of(nodes: Iterable[PlannedNode], *, composed: bool) -> list[tuple[PlannedNode, ...]]:
    """The nodes of one computer by the process that they run in, each process named after its first node.

    Args:
        composed: a source lives in the process of its home worker, where that is here: what they send each other is
            handed over. One source for each worker.
    """
    found: dict[str, tuple[PlannedNode, ...]] = {node.name: (node,) for node in nodes}
    if composed:
        for node, *_ in list(found.values()):
            entries = node.parameters.get("entries") if node.executable == "camera_source" else None
            home = found.get(str(entries[0]), ()) if isinstance(entries, list | tuple) and entries else ()
            if [(each.executable, each.computer) for each in home] == [("segment_worker", node.computer)]:
                found[home[0].name] = (*home, node)
                del found[node.name]
    return list(found.values())


@dataclasses.dataclass(frozen=True)
class Plan:
    """All nodes of a cluster: workers first, then the controller, then the sources."""

    topology: str
    origin: str
    strategy: Strategy
    computers: tuple[str, ...]
    nodes: tuple[PlannedNode, ...]

    def on(self, computer: str) -> tuple[PlannedNode, ...]:
        """The nodes of one computer; of every computer for `all`. Workers learn how many they are there and elsewhere.

        Raises:
            ConfigurationError: the topology has no such computer.
        """
        if computer not in (ALL, *self.computers):
            raise ConfigurationError(
                f"computer {computer!r} is not in {self.origin}{meant(computer, self.computers)}: "
                f"expected {ALL} or one of {', '.join(self.computers)}"
            )
        here = [node for node in self.nodes if computer in (ALL, node.computer)]
        workers = sum(node.executable == "segment_worker" for node in here)
        elsewhere = len(self.named("segment_worker")) - workers
        return tuple(
            dataclasses.replace(
                node, parameters={**node.parameters, "workers_here": workers, "workers_elsewhere": elsewhere}
            )
            if node.executable == "segment_worker"
            else node
            for node in here
        )

    def named(self, executable: Executable) -> tuple[PlannedNode, ...]:
        """The nodes that run one program."""
        return tuple(node for node in self.nodes if node.executable == executable)

    def with_parameters(self, parameters: Mapping[str, Mapping[str, Any]]) -> Plan:
        """The plan with more parameters, by node; they win over what it had."""
        nodes = [node.with_parameters(**parameters.get(node.name, {})) for node in self.nodes]
        return dataclasses.replace(self, nodes=tuple(nodes))


@dataclasses.dataclass(frozen=True)
class PlanOptions:
    """What whoever starts the cluster chose; parameters here win over the topology file's.

    Attributes:
        exits: whether frames may leave early; None: as the strategy says.
        namespace: robots' namespaces lie below it.
        worker, source, controller: parameters of every node of that kind.
    """

    strategy: str = Strategy.MDI_EXIT
    model: str = "mobilenetv2"
    exits: bool | None = None
    namespace: str = ""
    cluster_namespace: str = CLUSTER_NAMESPACE
    worker: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    controller: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def make_plan(topology: Topology, options: PlanOptions, num_segments: int, segment_costs: Sequence[float] = ()) -> Plan:
    """Decides which worker holds which segments, and writes down every node.

    Args:
        num_segments: K of the model.
        segment_costs: K costs in any unit; `mdi` spreads segments so that the dearest worker is cheapest. Without
            them segments cost the same.

    Raises:
        ConfigurationError: an unknown strategy, a namespace that ROS does not take, a segment outside 1..K or held by
            nobody, or a worker from which a frame could not go on.
    """
    strategy = parse_strategy(options.strategy)
    _check_namespace("cluster namespace", options.cluster_namespace)
    _check_namespace("namespace", options.namespace)
    for source in topology.sources:
        _check_namespace(f"{topology.origin}: sources.{source.name}.namespace", source.namespace)
    costs = tuple(segment_costs) or (1.0,) * num_segments
    held = _held_segments(topology, strategy, num_segments, costs)
    successors = {
        name: tuple(other for other in topology.successors[name] if other in held and strategy is not Strategy.LOCAL)
        for name in held
    }
    homes = list(dict.fromkeys(source.home for source in topology.sources))
    _check_routes(topology, homes, held, successors, num_segments)
    cluster = _join(options.cluster_namespace)
    common = {"model": options.model, "cluster_namespace": cluster}
    exits = strategy.has_exits if options.exits is None else options.exits
    workers = [
        PlannedNode(
            worker.name,
            "segment_worker",
            worker.computer,
            cluster,
            {
                **worker.parameters,
                **options.worker,
                **common,
                "name": worker.name,
                "segments": list(held[worker.name]),
                **({"neighbours": list(successors[worker.name])} if successors[worker.name] else {}),
                "strategy": strategy.value,
                "exits": exits,
            },
        )
        for worker in topology.workers
        if worker.name in held
    ]
    controller = PlannedNode(
        "controller",
        "controller",
        topology.controller_computer,
        cluster,
        {
            **topology.controller_parameters,
            **options.controller,
            **common,
            "name": "controller",
            **(_spreading(homes[0], successors) if strategy is Strategy.MDI else {}),
        },
    )
    sources = [
        PlannedNode(
            source.name,
            "camera_source",
            source.computer,
            _join(options.namespace, source.namespace),
            {
                **source.parameters,
                **options.source,
                **common,
                "name": source.name,
                "entries": _entries(source.home, held, successors, num_segments),
            },
        )
        for source in topology.sources
    ]
    return Plan(topology.name, topology.origin, strategy, topology.computers, (*workers, controller, *sources))


def parse_strategy(name: str) -> Strategy:
    """The strategy of that name.

    Raises:
        ConfigurationError: there is none; names those that there are.
    """
    known = [strategy.value for strategy in Strategy]
    if name not in known:
        raise ConfigurationError(f"no strategy {name!r}{meant(name, known)}: expected one of {', '.join(known)}")
    return Strategy(name)


def _check_namespace(key: str, given: str) -> None:
    name = given.rstrip("/")
    if name and (not NAMESPACE.fullmatch(name) or len(name) > NAME_MAX):
        raise ConfigurationError(
            f"{key}: expected words of letters, digits and _ joined by /, none starting with a digit and at most "
            f"{NAME_MAX} characters in all, such as /robot1; got {given!r}"
        )


def _join(*parts: str) -> str:
    return "/" + "/".join(part.strip("/") for part in parts if part.strip("/"))


Held = Mapping[str, tuple[int, ...]]
Successors = Mapping[str, tuple[str, ...]]


def _held_segments(topology: Topology, strategy: Strategy, num_segments: int, costs: Sequence[float]) -> Held:
    """Segments of each worker that is started."""
    everything = tuple(range(1, num_segments + 1))
    declared: dict[str, tuple[int, ...] | None] = {}
    for worker in topology.workers:
        key = f"{topology.origin}: workers.{worker.name}.segments"
        segments = everything if isinstance(worker.segments, str) else worker.segments
        if segments is not None:
            if unknown := [segment for segment in segments if segment not in everything]:
                raise ConfigurationError(
                    f"{key}: there is no segment {unknown[0]}: expected numbers in 1..{num_segments}, or all"
                )
            if not segments:
                raise ConfigurationError(f"{key}: expected at least one of 1..{num_segments}, got none")
        declared[worker.name] = segments
    homes = {source.home for source in topology.sources}
    match strategy:
        case Strategy.LOCAL | Strategy.DDI:
            used = homes if strategy is Strategy.LOCAL else set(declared)
            for name in declared:
                if name in used and declared[name] not in (None, everything):
                    raise ConfigurationError(
                        f"{topology.origin}: workers.{name}.segments: strategy {strategy} runs whole frames, expected "
                        f"all segments 1..{num_segments}, got {list(declared[name] or ())}"
                    )
            return {name: everything for name in declared if name in used}
        case Strategy.MDI_EXIT:
            return {name: segments or everything for name, segments in declared.items()}
        case Strategy.MDI:
            chosen = {name: segments for name, segments in declared.items() if segments is not None}
            if not chosen:
                return _spread(topology.sources[0].home, topology.successors, num_segments, costs)
            if missing := [name for name in declared if name not in chosen]:
                raise ConfigurationError(
                    f"{topology.origin}: workers.{missing[0]}.segments: missing; strategy {strategy} expects segments "
                    "of every worker or of none"
                )
            return chosen


def _spreading(home: str, successors: Successors) -> dict[str, Any]:
    """What a controller needs to know to spread segments anew."""
    edges = [f"{one}>{other}" for one, others in successors.items() for other in others]
    return {"home": home, **({"edges": edges} if edges else {})}


def _spread(home: str, successors: Successors, num_segments: int, costs: Sequence[float]) -> Held:
    """Contiguous segments along a path of workers from home, the dearest worker as cheap as possible."""
    path = [Computer(name) for name in longest_path([home], successors, num_segments)]
    work = Work(costs, [0.0] * num_segments, [1.0] * num_segments)
    return {stage.computer: stage.segments for stage in best_cut(path, work, in_order=True, all_used=True).stages}


Place = tuple[str, int]  # a worker, and the segment that a frame there waits for


def _places(start: str, held: Held, successors: Successors, num_segments: int) -> Iterator[Place]:
    """Every place that a frame can come to from `start`; a place without a way on is a dead end."""
    seen = {(start, 1)}
    frontier = [(start, 1)]
    while frontier:
        place = frontier.pop()
        yield place
        for following in _onward(*place, held, successors):
            if following not in seen and following[1] <= num_segments:
                seen.add(following)
                frontier.append(following)


def _onward(worker: str, segment: int, held: Held, successors: Successors) -> list[Place]:
    stays = [(worker, segment + 1)] if segment in held[worker] else []
    return stays + [(other, segment) for other in successors[worker] if segment in held[other]]


def _check_routes(topology: Topology, homes: list[str], held: Held, successors: Successors, num_segments: int) -> None:
    for segment in range(1, num_segments + 1):
        if not any(segment in segments for segments in held.values()):
            raise ConfigurationError(
                f"{topology.origin}: workers: nobody holds segment {segment}: expected every one of 1..{num_segments}"
            )
    reached: set[str] = set()
    for home in homes:
        if home not in held:
            raise ConfigurationError(
                f"{topology.origin}: workers.{home}.segments: missing; the home worker {home} lies beside the path "
                f"that segments are spread along from {homes[0]}"
            )
        for worker, segment in _places(home, held, successors, num_segments):
            reached.add(worker)
            if not _onward(worker, segment, held, successors):
                raise ConfigurationError(
                    f"{topology.origin}: workers.{worker}: a frame from the home worker {home} cannot reach segment "
                    f"{segment} from here: expected that {worker} or a worker that an edge leads to from it "
                    f"({', '.join(successors[worker]) or 'none'}) holds it"
                )
    for name in held:
        if name not in reached:
            raise ConfigurationError(
                f"{topology.origin}: workers.{name}: no frame from the home worker {' or '.join(homes)} can reach its "
                f"segments {list(held[name])}: add an edge, or change segments"
            )


def _entries(home: str, held: Held, successors: Successors, num_segments: int) -> list[str]:
    """The home worker, and after it those that frames may enter instead when it is gone, nearest first."""
    found, order, seen = [home], [home], {home}
    all_everywhere = all(len(segments) == num_segments for segments in held.values())
    for name in order:
        if len(found) == ENTRIES_MAX:
            break
        for other in successors[name]:
            if other not in seen:
                seen.add(other)
                order.append(other)
        fits = all_everywhere or (
            1 in held[name]
            and all(_onward(*place, held, successors) for place in _places(name, held, successors, num_segments))
        )
        if name != home and fits:
            found.append(name)
    return found
