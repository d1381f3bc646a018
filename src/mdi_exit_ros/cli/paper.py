# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit paper`: all figures of the experiments, simulated, in one go."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mdi_exit_ros.cli.output import writable_folder, write_json
from mdi_exit_ros.errors import ConfigurationError, ModelError

if TYPE_CHECKING:
    from mdi_exit_ros.simulation.experiments import Extent, Point
    from mdi_exit_ros.simulation.model import SimulatedModel
    from mdi_exit_ros.simulation.scenario import Scenario

MODELS = ("mobilenetv2", "resnet50")
SCALE_MODEL = MODELS[0]
NEEDED = ("profile.json", "recording.npz")  # of a model directory, to be simulated
FILE = click.Path(path_type=Path, dir_okay=False)
_NO_AUTOENCODER = (
    "no autoencoder: the same network, its features as wide as they are in front of the encoder; times of segments and "
    "answers of the exits taken for the same, as the network was not trained without it"
)


@click.command(short_help="Make all figures of the experiments, simulated.")
@click.option(
    "--out", "folder", type=click.Path(path_type=Path), required=True, callback=writable_folder, help="For the files."
)
@click.option("--quick", is_flag=True, help="Few points and short runs: a look in two minutes.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this experiment: rate, threshold, scale; repeatable.")
@click.option("--model", "names", multiple=True, help="Only this network; repeatable.  [default: those that are there]")
@click.option(
    "--jobs", type=click.IntRange(min=1), default=None, help="Simulations at a time.  [default: one per processor]"
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Decides all chance.")
@click.option(
    "--real", "real_paths", type=FILE, multiple=True, help="Summary of mdi-exit run, drawn as points apart; repeatable."
)
def paper(
    folder: Path,
    quick: bool,
    only: tuple[str, ...],
    names: tuple[str, ...],
    jobs: int | None,
    seed: int,
    real_paths: tuple[Path, ...],
) -> int:
    """Makes the figures of the experiments of MDI-Exit on simulated clusters, each as PNG, CSV and JSON.

    rate: data rate reached against accuracy at fixed thresholds. threshold: accuracy against arrival rate. scale: what
    grows with the number of workers. Exit status 1 says that frames are unaccounted for.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from mdi_exit_ros.simulation.experiment_rows import belongs, real_run
    from mdi_exit_ros.simulation.experiments import EXPERIMENTS, FULL, QUICK

    for name in only:
        if name not in EXPERIMENTS:
            raise ConfigurationError(f"--only: no experiment {name!r}: expected one of {', '.join(EXPERIMENTS)}")
    chosen = [name for name in EXPERIMENTS if name in only or not only]
    models = _available(names)
    real = [real_run(path) for path in real_paths]
    figures = _figures(chosen, models, QUICK if quick else FULL, seed)
    points = [point for each in figures.values() for point in each]
    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows: list[dict[str, Any] | None] = [None] * len(points)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(points))
        for index, row in simulate_all(points, jobs or os.cpu_count() or 1):
            rows[index] = row
            progress.advance(bar)
    done = iter(rows)
    unaccounted = 0
    for name, each in figures.items():
        found = [row for row in (next(done) for _ in each) if row is not None]
        unaccounted += sum(row["unaccounted"] for row in found)
        for path in _write(folder, name, each, found, real, quick=quick, seed=seed):
            click.echo(path)
    for path, run in zip(real_paths, real, strict=True):
        if not any(belongs(run, each[0]) for each in figures.values()):
            click.echo(f"{path} is in no figure: none of these experiments has its model and topology")
    return int(unaccounted != 0)


# ---- what is simulated -------------------------------------------------------------------------------------------


def _available(names: tuple[str, ...]) -> list[str]:
    """Networks that can be simulated; says which of the usual ones are left out.

    Raises:
        ConfigurationError: one that was asked for cannot be, or none is left.
    """
    found = []
    for name in names or MODELS:
        problem = _missing(name)
        if problem is None:
            found.append(name)
        elif names:
            raise ConfigurationError(f"--model: {problem}")
        else:
            click.echo(f"left out: {problem}")
    if not found:
        raise ConfigurationError("no network can be simulated: expected model folders with a profile and a recording")
    return found


def _missing(name: str) -> str | None:
    """Why a network cannot be simulated; None when it can."""
    from mdi_exit_ros.model.card import load_card

    try:
        directory = load_card(name).directory
    except ModelError as error:
        return f"{name} ({error})"
    lacking = [file for file in NEEDED if not (directory / file).is_file()]
    return f"{name} (its folder has no {' and no '.join(lacking)})" if lacking else None


def _figures(experiments: Sequence[str], models: Sequence[str], extent: Extent, seed: int) -> dict[str, list[Point]]:
    """The points of every figure, by its file's name.

    Raises:
        ConfigurationError: two figures would have the same name.
    """
    from mdi_exit_ros.simulation.experiments import EXPERIMENTS, Request
    from mdi_exit_ros.simulation.scenario import load_scenario, read_scenario_keys

    figures = {}
    for experiment in experiments:
        scenario_name, make = EXPERIMENTS[experiment]
        content = read_scenario_keys(scenario_name)
        if experiment == "scale":
            used = [SCALE_MODEL if SCALE_MODEL in models else models[0]]
        else:
            used = list(models)
        for name in used:
            model = _model(load_scenario(scenario_name, {**content, "model": name, "seed": seed}))
            figure = experiment if experiment == "scale" else f"{experiment}_{model.name}"
            if figure in figures:
                raise ConfigurationError(f"--model: expected networks of different names, two are called {model.name}")
            figures[figure] = make(Request(content, model, name, extent, seed))
    return figures


@cache
def _model_of(text: str) -> SimulatedModel:
    from mdi_exit_ros.cli.simulated_model import simulated_model
    from mdi_exit_ros.simulation.experiments import shuffled
    from mdi_exit_ros.simulation.scenario import Scenario

    scenario = Scenario.model_validate_json(text)
    return shuffled(simulated_model(scenario), scenario.seed)


def _model(scenario: Scenario) -> SimulatedModel:
    """The network of a scenario, its images in an order of the scenario's seed; read once per process."""
    from mdi_exit_ros.simulation.scenario import NETWORK_KEYS

    keys = scenario.model_dump(include={*NETWORK_KEYS, "seed"})
    return _model_of(json.dumps({**keys, "topology": "one_node"}))


def perform(point: Point) -> dict[str, Any]:
    """The row of one point, in whichever process."""
    from mdi_exit_ros.simulation.experiment_rows import measure

    return measure(point, _model(point.scenario))


def simulate_all(points: Sequence[Point], jobs: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """The row of every point with its place, as they come; the longest first, in `jobs` processes."""
    order = sorted(range(len(points)), key=lambda index: -_effort(points[index]))
    if jobs == 1:
        for index in order:
            yield index, perform(points[index])
        return
    from mdi_exit_ros.simulation.processes import side_by_side

    for place, row in side_by_side(perform, [(points[index],) for index in order], jobs):
        yield order[place], row


def _effort(point: Point) -> float:
    """Roughly how long a point takes to simulate, in frames; control traffic grows with the workers besides."""
    scenario = point.scenario
    workers = 1 if isinstance(scenario.topology, str) else scenario.topology.workers
    rate_hz = scenario.arrivals.rate_hz or 3000.0
    return workers * 1000.0 + (scenario.frames or rate_hz * (scenario.duration_s or 0.0))


# ---- files -------------------------------------------------------------------------------------------------------


def _write(
    folder: Path,
    name: str,
    points: Sequence[Point],
    rows: list[dict[str, Any]],
    real: Sequence[Mapping[str, Any]],
    *,
    quick: bool,
    seed: int,
) -> list[Path]:
    """Writes picture and data of one figure; measured rows go into a table of their own."""
    from mdi_exit_ros.simulation.experiment_plots import DPI, DRAW
    from mdi_exit_ros.simulation.experiment_rows import PAYING_SHARE, belongs, stops_paying, with_shares

    experiment, scenario = points[0].experiment, points[0].scenario
    measured = [dict(run) for run in real if belongs(run, points[0])]
    more: dict[str, Any] = {}
    if experiment == "scale":
        rows = with_shares(rows)
        more = {"paying_share": PAYING_SHARE, "stops_paying_from_workers": stops_paying(rows)}
        for series, workers in more["stops_paying_from_workers"].items():
            where = f"from {workers} workers on" if workers else "for no number of workers here"
            click.echo(f"{series}: throughput per worker is below {100 * PAYING_SHARE:.0f} % of one's own {where}")
    document = {
        "figure": name,
        "simulated": True,
        "quick": quick,
        "seed": seed,
        "model": rows[0]["model"],
        "assumptions": _assumptions(experiment, scenario, _model(scenario)),
        "scenario_of_the_first_row": scenario.model_dump(exclude={"model"}),
        **more,
        "rows": rows,
        "measured": measured,
    }
    draw: Callable[..., Any] = DRAW[experiment]
    draw(rows, measured).savefig(folder / f"{name}.png", dpi=DPI)
    write_json(document, folder / f"{name}.json")
    tables = [(folder / f"{name}.csv", rows)]
    if measured:
        tables.append((folder / f"{name}_measured.csv", measured))
    for path, table in tables:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    return [folder / f"{name}.png", folder / f"{name}.json", *(path for path, _ in tables)]


def _assumptions(experiment: str, scenario: Scenario, model: SimulatedModel) -> list[str]:
    """What the figures rest on, for whoever reads the data."""
    computer, link = scenario.computer, scenario.network
    rate = f"{link.rate_mbps:g} Mbit/s" if link.rate_mbps is not None else "no limit of rate"
    shared = "one channel shared by all" if link.medium else "a link of its own between any two"
    return [
        f"computers: {computer.cores:g} cores, each of {computer.speed:g} of the speed of the profiled one "
        f"({model.machine}); assumed for computers on small robots (Jetson class), not measured on any",
        f"links: {rate}, {link.latency_ms:g} ms, jitter {link.jitter_ms:g} ms, loss {100 * link.loss:g} %, {shared}; "
        "assumed, not measured",
        f"times of segments: measured with {model.times.backend} {model.times.precision} on the profiled computer",
        f"answers of the exits: recorded on {len(model.recording)} {model.recording.images}; what an encoding of "
        "features on the way does to them is not in it",
        *([_NO_AUTOENCODER] if model.autoencoder and experiment != "scale" else []),
        "computers, networks, data and constants of the original experiments differ: their figures are not comparable",
    ]
