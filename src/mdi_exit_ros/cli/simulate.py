# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit simulate`: a cluster without computers, by the very same decisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from mdi_exit_ros.cli.output import json_option, wide_console, write_json
from mdi_exit_ros.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from mdi_exit_ros.simulation.agreement import Agreement
    from mdi_exit_ros.simulation.shells import Trace

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(short_help="Simulate a cluster, from measured times and recorded answers.")
@click.argument("name", metavar="[SCENARIO]", required=False)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Another value for a key of the scenario, such as frames=1000 or network.rate_mbps=20; repeatable.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Decides all chance.  [default: the scenario's]")
@json_option("Write the summary here.")
@click.option("--trace", "trace_path", type=FILE, help="Write every decision here.")
@click.option("--replay", "replay_path", type=FILE, help="Simulate a trace's scenario anew and compare all decisions.")
@click.option("--compare", "run_path", type=FILE, help="Repeat the run of this summary and compare with it.")
@click.option("--recording", type=FILE, help="Answers of the exits, from mdi-exit evaluate --record.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of scenario files and end.")
def simulate(
    name: str | None,
    changes: tuple[str, ...],
    seed: int | None,
    json_path: Path | None,
    trace_path: Path | None,
    replay_path: Path | None,
    run_path: Path | None,
    recording: Path | None,
    schema: bool,
) -> int:
    """Simulates the cluster of SCENARIO, a shipped name or a YAML file, from measured times and recorded answers.

    Exit status 1 says that frames are unaccounted for, that a replay differs, or that a comparison does not hold.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from mdi_exit_ros.cli.simulated_model import simulated_model
    from mdi_exit_ros.cli.summary_table import as_tables
    from mdi_exit_ros.model.card import load_card
    from mdi_exit_ros.simulation.agreement import compare, repeat
    from mdi_exit_ros.simulation.cluster import Simulation
    from mdi_exit_ros.simulation.scenario import Scenario, find_scenario, load_scenario, naming, read_scenario_keys
    from mdi_exit_ros.simulation.trace import TraceComparer, TraceWriter, read_header

    if schema:
        click.echo(json.dumps(Scenario.model_json_schema(), indent=2))
        return 0
    if sum(each is not None for each in (name, replay_path, run_path)) != 1:
        raise click.UsageError("say what to simulate: a SCENARIO, --replay TRACE or --compare SUMMARY")
    if trace_path is not None and replay_path is not None and trace_path.absolute() == replay_path.absolute():
        raise click.UsageError(
            f"--trace would overwrite the trace that is replayed: expected another file, got {trace_path}"
        )
    given: dict[str, Any] = {}
    if seed is not None:
        given["seed"] = seed
    if recording is not None:
        given["recording"] = str(recording.absolute())
    real: dict[str, Any] = {}
    comparer = None
    if replay_path is not None:
        if changes or given:
            raise click.UsageError("--replay takes everything from the trace: leave --set, --seed and --recording out")
        origin = replay_path
        scenario = read_header(replay_path)
        comparer = TraceComparer(replay_path)
    elif run_path is not None:
        real = _read_summary(run_path)
        origin = run_path
        scenario = repeat(
            real,
            run_path,
            lambda keys: with_changes(keys, changes) | given,
            lambda model: load_card(model).default_thresholds,
        )
    else:
        assert name is not None
        origin = find_scenario(name)
        scenario = load_scenario(name, with_changes(read_scenario_keys(name), changes) | given)
    notes: list[Trace] = [comparer.note] if comparer is not None else []

    def note(time: float, node: str, action: Any) -> None:
        for each in notes:
            each(time, node, action)

    with naming(origin):
        model = simulated_model(scenario)
        simulation = Simulation(scenario, model, trace=note if notes or trace_path is not None else None)
    console = Console(stderr=True)
    trace_file = _opened(trace_path) if trace_path is not None else None
    try:
        if trace_file is not None:
            notes.append(TraceWriter(trace_file, scenario).note)
        columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("", total=None)
            summary = simulation.run(lambda closed, total: progress.update(bar, completed=closed, total=total or None))
    finally:
        if trace_file is not None:
            trace_file.close()
    wide_console().print(as_tables(summary))
    agreement = compare(real, summary) if run_path is not None else []
    if json_path is not None:
        more = {"agreement": [each._asdict() | {"holds": each.holds} for each in agreement]} if agreement else {}
        write_json({**summary, **more, "scenario": scenario.model_dump()}, json_path)
    failed = summary["unaccounted"] != 0
    if agreement:
        _show_agreement(agreement)
        failed |= not all(each.holds for each in agreement)
    if comparer is not None:
        comparer.end()
        if comparer.difference is None:
            click.echo(f"the same {comparer.same} decisions as in {replay_path}")
        else:
            recorded, new = comparer.difference
            click.echo(f"after {comparer.same} equal decisions the trace says\n  {recorded}\nand this run\n  {new}")
            failed = True
    return int(failed)


def with_changes(content: dict[str, Any], changes: tuple[str, ...]) -> dict[str, Any]:
    """The keys of a scenario with `KEY=VALUE` applied; a dot leads into a mapping.

    Raises:
        ConfigurationError: a change that is none.
    """
    import yaml

    for text in changes:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigurationError(f"--set: expected KEY=VALUE such as frames=1000, got {text!r}")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigurationError(f"--set: {value!r} in {text!r} is no YAML value") from error
        place = content
        *outer, last = key.split(".")
        for part in outer:
            inner = place.get(part)
            if isinstance(inner, list):
                raise ConfigurationError(f"--set: {part} is a list: expected it whole, got {text!r}")
            place[part] = dict(inner) if isinstance(inner, dict) else {}
            place = place[part]
        place[last] = parsed
    return content


def _opened(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"--trace: expected a file that can be written, got {path}: {error.strerror}"
        ) from error


def _read_summary(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"--compare: cannot read {path}: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"--compare: {path} is no summary of mdi-exit run --json")
    return found


def _show_agreement(agreement: list[Agreement]) -> None:
    from rich.table import Table

    table = Table(title="a real run and its simulation")
    for heading in ("figure", "measured", "simulated", "difference", "tolerance", "holds"):
        table.add_column(heading, justify="left" if heading == "figure" else "right")
    for each in agreement:
        table.add_row(
            each.figure,
            f"{each.measured:.4g}",
            f"{each.simulated:.4g}",
            f"{100.0 * each.difference:+.1f} %",
            f"{100.0 * each.tolerance:.0f} %",
            "yes" if each.holds else "no",
        )
    wide_console().print(table)
