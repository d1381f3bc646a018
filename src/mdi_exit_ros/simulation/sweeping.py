# SPDX-License-Identifier: Apache-2.0
"""Many simulations of one scenario, over ranges of its keys: all combinations, with several seeds, in processes."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from mdi_exit_ros.errors import ConfigurationError, MdiExitError
from mdi_exit_ros.simulation.cluster import Simulation
from mdi_exit_ros.simulation.model import SimulatedModel
from mdi_exit_ros.simulation.processes import side_by_side
from mdi_exit_ros.simulation.scenario import NETWORK_KEYS, Scenario
from mdi_exit_ros.simulation.stability import Stability, adapted, worst_after
from mdi_exit_ros.topology import NODE_KINDS, parameter_defaults

# What a run is judged by, and which end of it is good.
FIGURES = {
    "offered": "max",
    "ok": "max",
    "refused": "min",
    "failed": "min",
    "throughput_fps": "max",
    "latency_p50_ms": "min",
    "latency_p95_ms": "min",
    "latency_p99_ms": "min",
    "latency_mean_ms": "min",
    "accuracy": "max",
    "bytes_per_frame": "min",
    "batch_mean": "max",
    "control_per_frame": "min",
    **dict.fromkeys(Stability._fields, "min"),
}
COMBINATIONS_MAX = 100_000
AS_IT_IS = "as it is"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER}):({_NUMBER}):(\d+)(:log)?")


class Variation(NamedTuple):
    """A key of the scenario, dots leading into mappings and lists, and the values it takes in turn."""

    key: str
    values: tuple[Any, ...]


class Combination(NamedTuple):
    """One value per varied key, the scenario that follows (with its own seed), and the network in it."""

    values: tuple[Any, ...]
    scenario: Scenario
    model: SimulatedModel


def read_variation(text: str) -> Variation:
    """The variation that `KEY=V1,V2,...`, `KEY=LOW:HIGH:COUNT` or `KEY=LOW:HIGH:COUNT:log` says.

    Raises:
        ConfigurationError: it says none.
    """
    key, equals, values = text.partition("=")
    if not equals or not all(key.split(".")) or not values:
        raise ConfigurationError(
            f"--vary: expected KEY=V1,V2 or KEY=LOW:HIGH:COUNT[:log] such as controller.alpha=0.1,0.2, got {text!r}"
        )
    if key == "seed":
        raise ConfigurationError("--vary: seed: say how many with --seeds")
    between = _RANGE.fullmatch(values)
    if between is not None:
        return Variation(key, _spread(key, *between.groups()))
    try:
        found = yaml.safe_load(f"[{values}]")
    except yaml.YAMLError as error:
        raise ConfigurationError(f"--vary: {key}: expected YAML values with commas between, got {values!r}") from error
    if not found:
        raise ConfigurationError(f"--vary: {key}: expected at least one value, got {values!r}")
    return Variation(key, tuple(map(_number, found)))


def _spread(key: str, low: str, high: str, count: str, log: str | None) -> tuple[Any, ...]:
    first, last, many = float(low), float(high), int(count)
    if not 2 <= many <= COMBINATIONS_MAX or last <= first or (log and first <= 0.0):
        raise ConfigurationError(
            f"--vary: {key}: expected LOW:HIGH:COUNT with LOW below HIGH{', both above 0,' if log else ''} and "
            f"2..{COMBINATIONS_MAX} values, got {low}:{high}:{count}{log or ''}"
        )
    shares = [index / (many - 1) for index in range(many)]
    values = [first * (last / first) ** share if log else first + (last - first) * share for share in shares]
    rounded = [float(f"{value:.6g}") for value in values]
    return tuple(int(value) if value.is_integer() else value for value in rounded)


def _number(value: Any) -> Any:
    """YAML takes 1e-3 for text."""
    if isinstance(value, str) and re.fullmatch(_NUMBER, value):
        return float(value)
    return value


def changed(content: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of a scenario's keys with another value at `key`; a dot leads into a mapping or a list.

    Raises:
        ConfigurationError: the key leads to a place that a list does not have.
    """
    return dict(_changed(content, key.split("."), value, key))


def _changed(place: Any, parts: Sequence[str], value: Any, key: str) -> Any:
    if not parts:
        return value
    first, rest = parts[0], parts[1:]
    if isinstance(place, list):
        if not first.isdecimal() or int(first) >= len(place):
            raise ConfigurationError(f"{key}: expected a number below {len(place)}, as this is a list, got {first!r}")
        index = int(first)
        return [*place[:index], _changed(place[index], rest, value, key), *place[index + 1 :]]
    inner = place if isinstance(place, Mapping) else {}
    return {**inner, first: _changed(inner.get(first), rest, value, key)}


def own_value(content: Mapping[str, Any], key: str) -> Any:
    """The value at `key` of a scenario that leaves it as it is: its own, or the node's default; None for neither."""
    kind, _, name = key.partition(".")
    place: Any = content
    for part in key.split("."):
        if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
            place = place[int(part)]
        elif isinstance(place, Mapping) and part in place:
            place = place[part]
        else:
            return parameter_defaults(kind).get(name) if kind in NODE_KINDS else None
    return place


def combine(
    content: Mapping[str, Any],
    variations: Sequence[Variation],
    make: Callable[[dict[str, Any]], Scenario],
    model_of: Callable[[Scenario], SimulatedModel],
    *,
    apart: bool = False,
) -> list[Combination]:
    """All combinations, the last key varying fastest, each found usable.

    Args:
        content: the keys of the scenario.
        variations: what is varied.
        make: a scenario from such keys.
        model_of: the network of a scenario; asked once for all that have the same.
        apart: no combinations: the scenario as it is, then every key alone; `values` are then its name and its value.

    Raises:
        ConfigurationError: a key is there twice, or there are too many combinations.
        MdiExitError: a combination cannot be used; says which.
    """
    keys = [variation.key for variation in variations]
    if len(set(keys)) < len(keys):
        raise ConfigurationError(f"--vary: expected every key once, got {', '.join(keys)}")
    counts = [len(variation.values) for variation in variations]
    count = 1 + sum(counts) if apart else math.prod(counts)
    if count > COMBINATIONS_MAX:
        raise ConfigurationError(f"--vary: expected up to {COMBINATIONS_MAX} combinations, got {count}")
    models: dict[tuple[Any, ...], SimulatedModel] = {}
    found = []
    for values, given in _apart(variations) if apart else _together(variations):
        keyed = dict(content)
        try:
            for key, value in given.items():
                keyed = changed(keyed, key, value)
            scenario = make(keyed)
            others = (event.model for event in scenario.events)
            named = (*(getattr(scenario, key) for key in NETWORK_KEYS), *others)
            if named not in models:
                models[named] = model_of(scenario)
            Simulation(scenario, models[named])
        except MdiExitError as error:
            where = " ".join(f"{key}={value}" for key, value in given.items())
            raise type(error)(f"with {where}: {error}" if where else str(error)) from error
        found.append(Combination(values, scenario, models[named]))
    return found


def _together(variations: Sequence[Variation]) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    keys = [variation.key for variation in variations]
    for values in itertools.product(*(variation.values for variation in variations)):
        yield values, dict(zip(keys, values, strict=True))


def _apart(variations: Sequence[Variation]) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    yield (AS_IT_IS, None), {}
    for variation in variations:
        for value in variation.values:
            yield (variation.key, value), {variation.key: value}


def run_once(scenario: Scenario, model: SimulatedModel) -> dict[str, Any]:
    """The FIGURES of one simulation; None where a figure does not apply, as stability in mode manual."""
    simulation = Simulation(scenario, model)
    summary = simulation.run()
    stability = worst_after(adapted(simulation.controller.timeline), load_steps(simulation))
    latency, ok = summary["latency_ms"], summary["ok"]
    return {
        "offered": summary["offered"],
        "ok": ok,
        "refused": sum(summary["refused"].values()),
        "failed": sum(summary["failed"].values()),
        "throughput_fps": summary["throughput_fps"],
        **{f"latency_{name}_ms": latency[name] for name in ("p50", "p95", "p99", "mean")},
        "accuracy": summary["accuracy"],
        "bytes_per_frame": summary["bytes_per_frame"],
        "batch_mean": summary["batch_mean"],
        "control_per_frame": summary["messages"].get("control", 0) / ok if ok else None,
        **(stability._asdict() if stability is not None else dict.fromkeys(Stability._fields)),
    }


def load_steps(simulation: Simulation) -> list[float]:
    """When the load of a simulation that has run changed (s): where arrivals step, else at the beginning."""
    scenario = simulation.scenario
    times = {
        (source.began_at or 0.0) + at_s
        for name, source in simulation.sources.items()
        for at_s, _ in scenario.arrivals_of.get(name, scenario.arrivals).steps or ()
        if at_s > 0.0
    }
    return sorted(times) or [0.0]


def sweep(
    combinations: Sequence[Combination], seeds: int, jobs: int, on_done: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """FIGURES of every combination with every seed, and that `seed`, in this order whatever `jobs` is.

    Args:
        combinations: as `combine` says.
        seeds: per combination, from the scenario's own on upwards.
        jobs: processes; 1 for none besides this one.
        on_done: called after each run.
    """
    runs = [
        (combination.scenario.model_copy(update={"seed": combination.scenario.seed + number}), combination.model)
        for combination in combinations
        for number in range(seeds)
    ]
    figures: Iterable[dict[str, Any]]
    if jobs == 1:
        figures = _in_turn(runs, on_done)
    else:
        figures = _in_processes(runs, jobs, on_done)
    return [{"seed": scenario.seed, **row} for (scenario, _), row in zip(runs, figures, strict=True)]


def _in_turn(runs: Sequence[tuple[Scenario, SimulatedModel]], on_done: Callable[[], None]) -> Iterable[dict[str, Any]]:
    for scenario, model in runs:
        yield run_once(scenario, model)
        on_done()


def _in_processes(
    runs: Sequence[tuple[Scenario, SimulatedModel]], jobs: int, on_done: Callable[[], None]
) -> list[dict[str, Any]]:
    models = list({id(model): model for _, model in runs}.values())
    place = {id(model): index for index, model in enumerate(models)}
    rows: list[dict[str, Any]] = [{}] * len(runs)
    arguments = [(scenario, place[id(model)]) for scenario, model in runs]
    for number, row in side_by_side(_run, arguments, jobs, begin=_begin, given=(models,)):
        rows[number] = row
        on_done()
    return rows


_models: list[SimulatedModel] = []  # of a process that simulates


def _begin(models: list[SimulatedModel]) -> None:
    _models[:] = models


def _run(scenario: Scenario, model: int) -> dict[str, Any]:
    return run_once(scenario, _models[model])
