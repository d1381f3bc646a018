# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit sweep`: what becomes of a simulated cluster over ranges of its constants."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mdi_exit_ros.cli.output import wide_console, writable
from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.machine import machine

FILE = click.Path(path_type=Path, dir_okay=False)
SHOWN = ("throughput_fps", "refused", "latency_mean_ms", "latency_p95_ms", "accuracy")
ENDINGS = (".csv", ".parquet")

Row = dict[str, Any]


@click.command(short_help="Simulate a cluster over ranges of its constants.")
@click.argument("name", metavar="SCENARIO")
@click.option(
    "--vary",
    "texts",
    multiple=True,
    required=True,
    metavar="KEY=VALUES",
    help="A key of the scenario, such as controller.alpha, and its values: V1,V2,... or LOW:HIGH:COUNT or "
    "LOW:HIGH:COUNT:log; repeatable, all combinations are simulated.",
)
@click.option(
    "--apart",
    is_flag=True,
    help="No combinations: one key at a time, the others as the scenario has them, beside a run as it is.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="One other value for a key, as in simulate; repeatable.",
)
@click.option("--seeds", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Runs per combination.")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Processes.  [default: the processors]")
@click.option("--output", "path", type=FILE, callback=writable, help="One row per run: a .csv or .parquet file.")
@click.option("--best", metavar="FIGURE[:min|max]", help="Mark the best combination in the table by this.")
@click.option(
    "--plot",
    "picture",
    type=FILE,
    callback=writable,
    help="Draw against the first key: a PNG file; infinite figures are left out.",
)
@click.option(
    "--figure",
    "drawn",
    multiple=True,
    metavar="FIGURE",
    help="What --plot draws; repeatable.  [default: that of --best, else throughput_fps]",
)
@click.option("--recording", type=FILE, help="Answers of the exits, from mdi-exit evaluate --record.")
def sweep(
    name: str,
    texts: tuple[str, ...],
    apart: bool,
    changes: tuple[str, ...],
    seeds: int,
    jobs: int | None,
    path: Path | None,
    best: str | None,
    picture: Path | None,
    drawn: tuple[str, ...],
    recording: Path | None,
) -> int:
    """Simulates SCENARIO, a shipped name or a YAML file, with every combination of values, and compares.

    Stability is the worst after any step in load, see mdi_exit_ros.simulation.stability: empty where nothing adapts
    (controller.mode), inf where the band of +-10 % is not held.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from mdi_exit_ros.cli.simulate import with_changes
    from mdi_exit_ros.cli.simulated_model import simulated_model
    from mdi_exit_ros.simulation import sweeping
    from mdi_exit_ros.simulation.scenario import load_scenario, read_scenario_keys
    from mdi_exit_ros.simulation.sweep_plots import draw_apart, draw_combinations

    _check_output(path)
    best_by = _read_best(best)
    pictured = [_figure("--figure", each) for each in drawn] or [best_by[0] if best_by else "throughput_fps"]
    variations = [sweeping.read_variation(text) for text in texts]
    content = with_changes(read_scenario_keys(name), changes)
    if recording is not None:
        content["recording"] = str(recording.absolute())
    keys = [variation.key for variation in variations]
    combinations = sweeping.combine(
        content, variations, lambda keys: load_scenario(name, keys), simulated_model, apart=apart
    )
    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(combinations) * seeds)
        figures = sweeping.sweep(combinations, seeds, jobs or machine()["cores"], lambda: progress.advance(bar))
    columns_of_row = ["key", "value"] if apart else keys
    given = [
        dict(zip(columns_of_row, map(_plain, each.values), strict=True)) for each in combinations for _ in range(seeds)
    ]
    rows = [{**values, **row, "simulated": True} for values, row in zip(given, figures, strict=True)]
    if path is not None:
        _write(rows, path)
    means = _means(rows, columns_of_row, seeds)
    shown = columns_of_row if apart else [each.key for each in variations if len(each.values) > 1] or keys
    _show(means, shown, best_by, f"{Path(name).stem}, simulated, means of {seeds} seed{'s'[: seeds > 1]}")
    if picture is not None:
        title = f"{Path(name).stem}, simulated"
        if apart:
            own = {key: _plain(sweeping.own_value(content, key)) for key in keys}
            drawing = draw_apart(means, own, pictured, title)
        else:
            drawing = draw_combinations(means, shown, pictured, title)
        try:
            drawing.savefig(picture, format="png", dpi=120)
        except OSError as error:
            raise ConfigurationError(f"--plot: cannot write {picture}: {error}") from error
    return 0


def _check_output(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix not in ENDINGS:
        raise ConfigurationError(f"--output: expected a file that ends in {' or '.join(ENDINGS)}, got {path}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ConfigurationError(
            f"--output: Parquet needs the package pyarrow: {sys.executable} -m pip install pyarrow, or say a .csv file"
        )


def _figure(option: str, name: str) -> str:
    from mdi_exit_ros.simulation.sweeping import FIGURES
    from mdi_exit_ros.topology import meant

    if name not in FIGURES:
        raise ConfigurationError(
            f"{option}: no figure {name!r}{meant(name, FIGURES)}: expected one of {', '.join(FIGURES)}"
        )
    return name


def _read_best(text: str | None) -> tuple[str, bool] | None:
    """The figure, and whether the largest is best."""
    from mdi_exit_ros.simulation.sweeping import FIGURES

    if text is None:
        return None
    name, colon, end = text.partition(":")
    if colon and end not in ("min", "max"):
        raise ConfigurationError(f"--best: expected FIGURE, FIGURE:min or FIGURE:max, got {text!r}")
    return _figure("--best", name), (end or FIGURES[name]) == "max"


def _plain(value: Any) -> Any:
    """What a cell can hold."""
    return value if value is None or isinstance(value, bool | int | float | str) else json.dumps(value)


def _write(rows: Sequence[Row], path: Path) -> None:
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return
    arrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) > 1 and not kinds <= {int, float}:
            values = [None if value is None else str(value) for value in values]
        columns[name] = values
    parquet.write_table(arrow.table(columns), path)


def _means(rows: Sequence[Row], keys: Sequence[str], seeds: int) -> list[Row]:
    """Means over the seeds of each combination; None where a figure does not apply."""
    from mdi_exit_ros.simulation.sweeping import FIGURES

    means = []
    for first in range(0, len(rows), seeds):
        group = rows[first : first + seeds]
        mean: Row = {key: group[0][key] for key in keys}
        for figure in FIGURES:
            values = [row[figure] for row in group if row[figure] is not None]
            mean[figure] = sum(values) / len(values) if values else None
        means.append(mean)
    return means


def _show(means: Sequence[Row], keys: Sequence[str], best_by: tuple[str, bool] | None, title: str) -> None:
    from rich import box
    from rich.table import Table

    from mdi_exit_ros.simulation.stability import Stability

    shown = [*SHOWN, *(name for name in Stability._fields if any(mean[name] is not None for mean in means))]
    best = None
    if best_by is not None:
        figure, largest = best_by
        shown = [figure, *(name for name in shown if name != figure)]
        told = [mean for mean in means if mean[figure] is not None]
        best = (max if largest else min)(told, key=lambda mean: float(mean[figure]), default=None)
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for key in keys:
        table.add_column(key.replace(".", ".\n"), style="bold", overflow="fold")
    for figure in shown:
        table.add_column(figure.replace("_", "\n"), justify="right", overflow="fold")
    if best_by is not None:
        table.add_column("")
    for mean in means:
        cells = [str(mean[key]) for key in keys]
        cells += [_short(mean[figure]) for figure in shown]
        if best_by is not None:
            cells.append("best" if mean is best else "")
        table.add_row(*cells, style="green" if mean is best else None)
    wide_console().print(table)


def _short(value: float | None) -> str:
    """Four digits, or all that stand before the point."""
    if value is None:
        return ""
    return f"{value:.0f}" if 1e4 <= abs(value) < math.inf else f"{value:.4g}"
