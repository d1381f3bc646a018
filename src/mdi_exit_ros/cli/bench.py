# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit bench`: frames per second through the graph against the bare loop, interleaved in one run."""

from __future__ import annotations

import datetime
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from mdi_exit_ros.benchmark.bare import Layout, Work, archive_files, bare_run, best_layout
from mdi_exit_ros.benchmark.graph import GraphWork, graph_summary, peak_rate
from mdi_exit_ros.benchmark.peers import PEERS, missing_library, peer_result
from mdi_exit_ros.benchmark.results import regressions, row
from mdi_exit_ros.cli.output import json_option, write_json
from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.machine import machine
from mdi_exit_ros.model.backends.export import ensure_exported
from mdi_exit_ros.model.backends.registry import resolve_backend
from mdi_exit_ros.model.card import load_card
from mdi_exit_ros.resources import sample_archive
from mdi_exit_ros.task import Strategy

METHOD = (
    "Bare loop, graphs and peers in turn, repeated; medians, and efficiency as the median of the turns' ratios. All "
    "decode the same JPEG files and run the same segments, exits and thresholds. The bare loop runs at the batch size "
    "and process count that were fastest in a search just before. Each warms up first; graph frames/s: answered frames "
    "between the first fifth and the last twentieth of a run. Processor time counts every process of a run."
)
TABLE_WIDTH = 120  # where the output is no terminal
DEFAULT_GRAPHS = ("one_node:local", "two_nodes:mdi_exit", "three_mesh:mdi_exit")
DEFAULT_PEERS = tuple(f"{name}:{mode}" for name, peer in PEERS.items() for mode in peer.modes)


def _pairs(values: tuple[str, ...]) -> list[tuple[str, Strategy]]:
    pairs = []
    for value in values:
        topology, _, strategy = value.rpartition(":")
        if not topology or strategy not in list(Strategy):
            raise ConfigurationError(
                f"--graph: expected TOPOLOGY:STRATEGY such as three_mesh:mdi_exit, got {value!r} "
                f"(strategies: {', '.join(Strategy)})"
            )
        pairs.append((topology, Strategy(strategy)))
    return pairs


def _peers(values: tuple[str, ...], console: Console) -> list[tuple[str, str]]:
    """The peers that can run here; those that cannot are said."""
    found = []
    for value in values:
        name, _, mode = value.partition(":")
        if name not in PEERS or mode not in PEERS[name].modes:
            raise ConfigurationError(
                f"--peer: expected NAME:MODE, one of {', '.join(DEFAULT_PEERS)}, or none; got {value!r}"
            )
        missing = missing_library(name)
        if missing is None:
            found.append((name, mode))
        else:
            console.print(f"left out: {missing}", soft_wrap=True)
    return found


@click.command()
@click.option(
    "--graph",
    "graphs",
    multiple=True,
    default=DEFAULT_GRAPHS,
    show_default=True,
    metavar="TOPOLOGY:STRATEGY",
    help="Graph to measure; may be given several times.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    metavar="NAME:MODE|none",
    help=f"Other library to do the same work with, of {', '.join(DEFAULT_PEERS)}.  [default: all that are installed]",
)
@click.option("--model", default="mobilenetv2", show_default=True, help="Shipped model or model folder.")
@click.option("--backend", default="auto", show_default=True, help="auto, onnxruntime, openvino or torch.")
@click.option("--precision", default="fp32", show_default=True, help="fp32, or bf16 where the backend has it.")
@click.option("--frames", default=12000, show_default=True, type=click.IntRange(min=1), help="Frames per graph run.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1), help="Turns.")
@click.option("--bare-seconds", default=3.0, show_default=True, type=float, help="Length of one bare measurement (s).")
@click.option(
    "--peak", is_flag=True, help="Also search each graph's highest rate with under 5 % refused (a minute each)."
)
@click.option(
    "--param", "parameters", multiple=True, metavar="NODE:KEY=VALUE", help="As of `mdi-exit run`, for graphs."
)
@click.option(
    "--check",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Compare with results recorded by --json; exit status 1 when a graph's efficiency is 15 % lower.",
)
@json_option("Write results here.")
def bench(
    graphs: tuple[str, ...],
    peers: tuple[str, ...],
    model: str,
    backend: str,
    precision: str,
    frames: int,
    repeats: int,
    bare_seconds: float,
    peak: bool,
    parameters: tuple[str, ...],
    check: Path | None,
    json_path: Path | None,
) -> int:
    """Measures the graph against a bare loop of the same segments, backend, precision, exits and images."""
    from mdi_exit_ros.runner.summary import file_hash

    console = Console(stderr=True)
    pairs = _pairs(graphs)
    chosen = [] if peers == ("none",) else _peers(peers or DEFAULT_PEERS, console)
    card = load_card(model)
    backend = resolve_backend(backend)
    if backend != "torch":
        ensure_exported(card)
    archive = sample_archive()
    files = archive_files(archive)
    cores = len(os.sched_getaffinity(0))
    extra = tuple(part for each in parameters for part in ("--param", each))

    bare: dict[bool, tuple[Work, Layout, dict[str, float]]] = {}
    for exits in sorted({strategy.has_exits for _, strategy in pairs} | ({True} if chosen else set())):
        work = Work(model, backend, precision, card.default_thresholds if exits else ())
        console.print(f"{_bare_name(exits)}: looking for its best layout")
        bare[exits] = (work, *best_layout(work, files, cores=cores, duration_s=min(1.5, bare_seconds)))
    bare_runs: dict[bool, list[dict[str, Any]]] = {exits: [] for exits in bare}
    graph_runs: dict[tuple[str, Strategy], list[dict[str, Any]]] = {pair: [] for pair in pairs}
    peer_runs: dict[tuple[str, str], list[dict[str, Any]]] = {peer: [] for peer in chosen}
    for turn in range(repeats):
        console.print(f"turn {turn + 1} of {repeats}")
        for exits, (work, layout, _) in bare.items():
            bare_runs[exits].append(bare_run(work, layout, files, duration_s=bare_seconds)._asdict())
        for pair, runs in graph_runs.items():
            summary = graph_summary(GraphWork(*pair, model, backend, precision), frames=frames, extra=extra)
            runs.append({**summary, "fps": summary["steady_fps"] or summary["throughput_fps"]})
        for (name, mode), results in peer_runs.items():
            results.append(peer_result(name, mode, max(1000, frames // 3), model=model, backend=backend))

    reference = {exits: [run["fps"] for run in runs] for exits, runs in bare_runs.items()}
    rows = [
        row(
            *(_bare_name(exits), "bare", bare_runs[exits], reference[exits]),
            backend=backend,
            precision=precision,
            strategy=None,
            topology=None,
            layout=layout._asdict(),
            tried=tried,
        )
        for exits, (_, layout, tried) in bare.items()
    ]
    for (topology, strategy), runs in graph_runs.items():
        result = row(
            *(f"{topology} {strategy}", "graph", runs, reference[strategy.has_exits]),
            backend=backend,
            precision=precision,
            strategy=strategy.value,
            topology=topology,
            summaries=runs,
        )
        if peak:
            console.print(f"{topology} {strategy}: looking for its peak rate")
            work_here = GraphWork(topology, strategy, model, backend, precision)
            result["peak_rate_hz"] = peak_rate(work_here, around_fps=result["fps"])
        rows.append(result)
    rows += [
        row(
            *(f"{name} {mode}", "peer", runs, reference[True]),
            backend=backend,
            precision=precision,
            strategy=None,
            topology=mode,
            versions=runs[-1].get("versions"),
        )
        for (name, mode), runs in peer_runs.items()
    ]
    out = Console()
    _show(rows, console=out if out.is_terminal else Console(width=TABLE_WIDTH))
    if json_path is not None:
        document = {
            "method": METHOD,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "model_id": card.model_id,
            "input_hash": file_hash(archive),
            "machine": machine(),
            "version": version("mdi_exit_ros"),
            "results": rows,
        }
        write_json(document, json_path)
        console.print(f"results: {json_path}")
    if check is not None:
        slower = regressions(rows, check)
        for line in slower:
            console.print(f"slower than recorded: {line}")
        return 1 if slower else 0
    return 0


def _bare_name(exits: bool) -> str:
    return f"bare loop {'with' if exits else 'without'} exits"


def _show(results: list[dict[str, Any]], *, console: Console) -> None:
    table = Table(title=f"{results[0]['backend']} {results[0]['precision']}", caption=METHOD)
    peak = any("peak_rate_hz" in result for result in results)
    headings = ("what", "frames/s", "min..max", "of bare", "p50 ms", "p99 ms", "CPU s/1000", "switches", "bytes")
    for heading in (*headings, "peak Hz") if peak else headings:
        table.add_column(heading, justify="left" if heading == "what" else "right", no_wrap=True)
    for result in results:
        latency = result["latency_ms"]
        cells = [
            result["name"],
            f"{result['fps']:.0f}",
            f"{result['fps_spread']['min']:.0f}..{result['fps_spread']['max']:.0f}",
            f"{result['efficiency']:.2f}",
            _cell(latency["p50"], 1),
            _cell(latency["p99"], 1),
            _cell(result["cpu_s_per_1000_frames"], 2),
            _cell(result["context_switches_per_frame"], 2),
            _cell(result["bytes_per_frame"], 0),
            _cell(result.get("peak_rate_hz"), 0),
        ]
        table.add_row(*cells[: len(table.columns)])
    console.print(table)


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
