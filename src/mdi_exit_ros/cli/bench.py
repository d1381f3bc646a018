# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit bench`: frames per second through the graph against the bare loop, interleaved in one run."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from mdi_exit_ros.benchmark.bare import Work, archive_files, bare_fps, best_layout, spread
from mdi_exit_ros.benchmark.graph import graph_summary
from mdi_exit_ros.cli.output import json_option, write_json
from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.machine import machine
from mdi_exit_ros.model.backends.export import ensure_exported
from mdi_exit_ros.model.backends.registry import resolve_backend
from mdi_exit_ros.model.card import load_card
from mdi_exit_ros.resources import share_directory
from mdi_exit_ros.task import Strategy

METHOD = (
    "Bare loop and graph in turn, repeated; medians. Both decode the same JPEG files. The bare loop runs at the batch "
    "size and process count that were fastest in a search just before. Graph frames/s: answered frames from the first "
    "admission to the last answer."
)


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


@click.command()
@click.option(
    "--graph",
    "graphs",
    multiple=True,
    default=("one_node:local", "two_nodes:mdi_exit", "three_mesh:mdi_exit"),
    show_default=True,
    metavar="TOPOLOGY:STRATEGY",
    help="Graph to measure; may be given several times.",
)
@click.option("--model", default="mobilenetv2", show_default=True, help="Shipped model or model folder.")
@click.option("--backend", default="auto", show_default=True, help="auto, onnxruntime, openvino or torch.")
@click.option("--precision", default="fp32", show_default=True, help="fp32, or bf16 where the backend has it.")
@click.option("--frames", default=6000, show_default=True, type=click.IntRange(min=1), help="Frames per graph run.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1), help="Turns of bare and graph.")
@click.option("--bare-seconds", default=3.0, show_default=True, type=float, help="Length of one bare measurement (s).")
@json_option("Write results here.")
def bench(
    graphs: tuple[str, ...],
    model: str,
    backend: str,
    precision: str,
    frames: int,
    repeats: int,
    bare_seconds: float,
    json_path: Path | None,
) -> None:
    """Measures the graph against a bare loop of the same segments, backend, precision, exits and images."""
    console = Console(stderr=True)
    pairs = _pairs(graphs)
    card = load_card(model)
    backend = resolve_backend(backend)
    if backend != "torch":
        ensure_exported(card)
    files = archive_files(share_directory() / "data" / "cifar10_sample.zip")
    cores = len(os.sched_getaffinity(0))

    bare: dict[bool, dict[str, Any]] = {}
    for exits in sorted({strategy.has_exits for _, strategy in pairs}):
        work = Work(model, backend, precision, card.default_thresholds if exits else ())
        console.print(f"bare loop {'with' if exits else 'without'} exits: looking for its best layout")
        layout, tried = best_layout(work, files, cores=cores, duration_s=min(1.5, bare_seconds))
        bare[exits] = {"work": work, "layout": layout, "tried": tried, "fps": []}
    runs: dict[tuple[str, Strategy], list[dict[str, Any]]] = {pair: [] for pair in pairs}
    for turn in range(repeats):
        console.print(f"turn {turn + 1} of {repeats}")
        for entry in bare.values():
            entry["fps"].append(bare_fps(entry["work"], entry["layout"], files, duration_s=bare_seconds))
        for topology, strategy in pairs:
            runs[topology, strategy].append(
                graph_summary(
                    topology=topology,
                    strategy=strategy,
                    model=model,
                    backend=backend,
                    precision=precision,
                    frames=frames,
                )
            )
    results = [
        {
            "name": f"bare loop {'with' if exits else 'without'} exits",
            "kind": "bare",
            "strategy": None,
            "topology": None,
            "backend": backend,
            "precision": precision,
            "fps": spread(entry["fps"])["median"],
            "fps_spread": spread(entry["fps"]),
            "efficiency": 1.0,
            "layout": entry["layout"]._asdict(),
            "tried": entry["tried"],
        }
        for exits, entry in bare.items()
    ]
    for (topology, strategy), summaries in runs.items():
        reference = bare[strategy.has_exits]["fps"]
        fps = [summary["throughput_fps"] for summary in summaries]
        efficiency = spread([each / base for each, base in zip(fps, reference, strict=True)])
        results.append(
            {
                "name": f"{topology} {strategy}",
                "kind": "graph",
                "strategy": strategy.value,
                "topology": topology,
                "backend": backend,
                "precision": precision,
                "fps": spread(fps)["median"],
                "fps_spread": spread(fps),
                "efficiency": efficiency["median"],
                "efficiency_spread": efficiency,
                "summaries": summaries,
            }
        )
    _show(results, console=Console())
    if json_path is not None:
        document = {
            "method": METHOD,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "model_id": card.model_id,
            "machine": machine(),
            "results": results,
        }
        write_json(document, json_path)
        console.print(f"results: {json_path}")


def _show(results: list[dict[str, Any]], *, console: Console) -> None:
    table = Table(title=f"{results[0]['backend']} {results[0]['precision']}", caption=METHOD)
    for heading in ("what", "frames/s", "min..max", "of bare", "p50 ms", "MiB/worker"):
        table.add_column(heading, justify="left" if heading == "what" else "right", no_wrap=True)
    for result in results:
        summary = result["summaries"][-1] if result["kind"] == "graph" else None
        workers = summary["workers"].values() if summary else ()
        largest = max((worker["rss_bytes"] for worker in workers), default=0)
        table.add_row(
            result["name"],
            f"{result['fps']:.0f}",
            f"{result['fps_spread']['min']:.0f}..{result['fps_spread']['max']:.0f}",
            f"{result['efficiency']:.2f}",
            f"{summary['latency_ms']['p50']:.1f}" if summary else "",
            f"{largest / 2**20:.0f}" if summary else "",
        )
    console.print(table)
