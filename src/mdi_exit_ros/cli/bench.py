# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit bench`: frames per second through the graph against the bare loop, interleaved in one run."""

from __future__ import annotations

import datetime
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.table import Table

from mdi_exit_ros.benchmark.bare import Layout, Work, archive_files, bare_run, best_layout, frame_latency_ms
from mdi_exit_ros.benchmark.camera_topic import LOW_RATE_HZ, PROGRAM, CameraRun, camera_run
from mdi_exit_ros.benchmark.graph import GraphWork, graph_summary, peak_rate
from mdi_exit_ros.benchmark.peers import PEERS, missing_for, peer_result
from mdi_exit_ros.benchmark.programs import missing_program
from mdi_exit_ros.benchmark.results import latency_row, recorded_efficiency, regressions, row
from mdi_exit_ros.cli.output import FiniteRange, json_option, write_json
from mdi_exit_ros.cli.run import own_parameters
from mdi_exit_ros.errors import ConfigurationError, MdiExitError
from mdi_exit_ros.machine import machine
from mdi_exit_ros.model.backends.registry import load_segments, resolve_backend
from mdi_exit_ros.model.card import load_card
from mdi_exit_ros.plan import PlanOptions, make_plan
from mdi_exit_ros.policy.compiled import is_compiled
from mdi_exit_ros.resources import sample_archive
from mdi_exit_ros.task import Strategy
from mdi_exit_ros.topology import load_topology

METHOD = (
    "Bare loop, graphs and peers in turn, repeated; medians, and efficiency as the median of the turns' ratios. All "
    "decode the same JPEG files and run the same segments, exits and thresholds. The bare loop runs at the batch size "
    "and process count that were fastest in a search just before. Each warms up first; graph frames/s: answered frames "
    "between the first fifth and the last twentieth of a run. Peers' workers have one thread each: pipelines "
    "have two workers, farms one per processor. Processor time counts every process of a run. "
    "Camera topic: decoded images as sensor_msgs/Image from a process of its own, which counts their Classification "
    "messages: at full rate with a bounded number in flight, reliable and deeply queued, and at 20 Hz with one. "
    "Latency from publishing to receiving. Added: p50 less that of one decoded frame in the bare loop, batch 1, one "
    "thread, one frame right after the other; rare: with frames as rare there."
)
TABLE_WIDTH = 132  # where the output is no terminal
DEFAULT_GRAPHS = ("one_node:local", "two_nodes:mdi_exit", "three_mesh:mdi_exit")
DEFAULT_CAMERAS = ("one_node:local",)
DEFAULT_PEERS = tuple(f"{name}:{mode}" for name, peer in PEERS.items() for mode in peer.modes)


class _Graph(NamedTuple):
    """A graph to measure; `composed`: its source shares the process of the home worker."""

    topology: str
    strategy: Strategy
    composed: bool

    def __str__(self) -> str:
        return f"{self.topology} {self.strategy}{' composed' if self.composed else ''}"

    @property
    def topic_name(self) -> str:
        """Of its row when it is measured from an image topic."""
        return f"{self} topic"

    @property
    def options(self) -> tuple[str, ...]:
        """Of `mdi-exit run`."""
        return ("--use-composition",) if self.composed else ()

    @property
    def facts(self) -> dict[str, Any]:
        """What a row says of it."""
        return {"strategy": self.strategy.value, "topology": self.topology, "composed": self.composed}


def _cameras(values: tuple[str, ...], console: Console) -> list[_Graph]:
    """Graphs to measure from an image topic; none, and a word, where the program that plays the camera is missing."""
    found = _graphs("--camera-topic", values)
    missing = missing_program(PROGRAM) if found else None
    if missing is not None:
        console.print(f"left out: camera topics, {missing}", soft_wrap=True)
    return found if missing is None else []


def _check_parameters(parameters: tuple[str, ...]) -> None:
    for text in parameters:
        key = text.partition("=")[0].rpartition(":")[2]
        if key in ("backend", "precision"):
            raise ConfigurationError(f"--param: every row has one {key}: expected --{key} instead of {text!r}")


def _graphs(option: str, values: tuple[str, ...]) -> list[_Graph]:
    if values == ("none",):
        return []
    found = []
    for value in values:
        pair = value.removesuffix(":composed")
        topology, _, strategy = pair.rpartition(":")
        if not topology or strategy not in list(Strategy):
            raise ConfigurationError(
                f"{option}: expected TOPOLOGY:STRATEGY such as three_mesh:mdi_exit, or none, got {value!r} "
                f"(strategies: {', '.join(Strategy)}; :composed behind them: the source in its home worker's process)"
            )
        found.append(_Graph(topology, Strategy(strategy), pair != value))
    return found


def _peers(values: tuple[str, ...], console: Console) -> list[tuple[str, str]]:
    """The peers that can run here; those that cannot are said."""
    found = []
    for value in values:
        name, _, mode = value.partition(":")
        if name not in PEERS or mode not in PEERS[name].modes:
            raise ConfigurationError(
                f"--peer: expected NAME:MODE, one of {', '.join(DEFAULT_PEERS)}, or none; got {value!r}"
            )
        missing = missing_for(name)
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
    metavar="TOPOLOGY:STRATEGY[:composed]|none",
    help="Graph to measure; may be given several times.",
)
@click.option(
    "--camera-topic",
    "cameras",
    multiple=True,
    default=DEFAULT_CAMERAS,
    show_default=True,
    metavar="TOPOLOGY:STRATEGY[:composed]|none",
    help="Graph to measure from an image topic to `classification`, one message per frame; likewise.",
)
@click.option(
    "--camera-in-flight",
    default=128,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Images on their way at full rate.",
)
@click.option(
    "--camera-seconds",
    default=5.0,
    show_default=True,
    type=FiniteRange(min=0.1),
    help="Length of a measurement from an image topic at full rate (s); twice as long at a low rate.",
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
@click.option(
    "--bare-seconds",
    default=3.0,
    show_default=True,
    type=FiniteRange(min=0.1),
    help="Length of one bare measurement (s).",
)
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
    cameras: tuple[str, ...],
    camera_in_flight: int,
    camera_seconds: float,
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
    _check_parameters(parameters)
    direct, behind_topics = _graphs("--graph", graphs), _cameras(cameras, console)
    chosen = [] if peers == ("none",) else _peers(peers or DEFAULT_PEERS, console)
    if not (direct or behind_topics or chosen):
        raise ConfigurationError("nothing to measure: expected a --graph, a --camera-topic or a --peer, got none")
    decisions = "compiled" if is_compiled() else "Python"
    card = load_card(model)
    backend = resolve_backend(backend)
    for graph in (*direct, *behind_topics):
        options = PlanOptions(strategy=graph.strategy, model=model)
        plan = make_plan(load_topology(graph.topology), options, card.num_segments, card.segment_costs)
        own_parameters(plan, parameters)
    conditions = {"decisions": decisions, "model_id": card.model_id, "backend": backend, "precision": precision}
    recorded = None
    if check is not None:
        names = [*map(str, direct), *(graph.topic_name for graph in behind_topics)]
        recorded = recorded_efficiency(check, names, **conditions)
    load_segments(card, (1,), backend=backend, precision=precision)  # what cannot be is told now
    archive = sample_archive()
    files = archive_files(archive)
    cores = len(os.sched_getaffinity(0))
    extra = tuple(part for each in parameters for part in ("--param", each))

    def work_of(graph: _Graph) -> GraphWork:
        return GraphWork(graph.topology, graph.strategy, model, backend, precision)

    def peer_result_of(name: str, mode: str) -> dict[str, Any]:
        count = max(1000, frames // 3)
        return peer_result(name, mode, count, model=model, backend=backend, precision=precision, workers=cores)

    bare: dict[bool, tuple[Work, Layout, dict[str, float]]] = {}
    wanted = {graph.strategy.has_exits for graph in (*direct, *behind_topics)} | ({True} if chosen else set())
    for exits in sorted(wanted):
        work = Work(model, backend, precision, card.default_thresholds if exits else ())
        console.print(f"{_bare_name(exits)}: looking for its best layout")
        bare[exits] = (work, *best_layout(work, files, cores=cores, duration_s=min(1.5, bare_seconds)))
    bare_runs: dict[bool, list[dict[str, Any]]] = {exits: [] for exits in bare}
    graph_runs: dict[_Graph, list[dict[str, Any]]] = {graph: [] for graph in direct}
    camera_runs: dict[_Graph, list[CameraRun]] = {graph: [] for graph in behind_topics}
    one_frame: dict[bool, list[dict[str, dict[str, float]]]] = {exits: [] for exits in bare}
    peer_runs: dict[tuple[str, str], list[dict[str, Any]]] = {peer: [] for peer in chosen}
    for turn in range(repeats):
        console.print(f"turn {turn + 1} of {repeats}")
        for exits, (work, layout, _) in bare.items():
            bare_runs[exits].append(bare_run(work, layout, files, duration_s=bare_seconds)._asdict())
            if any(graph.strategy.has_exits is exits for graph in behind_topics):
                count = round(2.0 * camera_seconds * LOW_RATE_HZ)
                one_frame[exits].append(
                    {
                        "bare_ms": frame_latency_ms(work, files, frames=max(count, len(files))),
                        "bare_low_rate_ms": frame_latency_ms(work, files, frames=count, rate_hz=LOW_RATE_HZ),
                    }
                )
        for graph, runs in graph_runs.items():
            summary = graph_summary(work_of(graph), frames=frames, extra=(*graph.options, *extra))
            runs.append({**summary, "fps": summary["steady_fps"] or summary["throughput_fps"]})
        for graph, seen in camera_runs.items():
            further = (*graph.options, *extra)
            times = {"full_s": camera_seconds, "low_s": 2.0 * camera_seconds}
            seen.append(camera_run(work_of(graph), archive, in_flight=camera_in_flight, **times, extra=further))
        for peer, results in list(peer_runs.items()):
            try:
                results.append(peer_result_of(*peer))
            except MdiExitError as error:
                console.print(f"left out: {error}", soft_wrap=True, markup=False)
                del peer_runs[peer]

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
    for graph, runs in graph_runs.items():
        result = row(
            *(str(graph), "graph", runs, reference[graph.strategy.has_exits]),
            backend=backend,
            precision=precision,
            **graph.facts,
            summaries=runs,
        )
        if peak:
            console.print(f"{graph}: looking for its peak rate")
            result["peak_rate_hz"] = peak_rate(work_of(graph), around_fps=result["fps"], extra=(*graph.options, *extra))
            if result["peak_rate_hz"] is None:
                console.print(f"{graph}: no peak between half and one and a half times {result['fps']:.0f} Hz")
        rows.append(result)
    for graph, seen in camera_runs.items():
        facts = {"backend": backend, "precision": precision, **graph.facts}
        name = graph.topic_name
        full, low = [run.full_rate for run in seen], [run.low_rate for run in seen]
        base, alone = reference[graph.strategy.has_exits], one_frame[graph.strategy.has_exits]
        summaries = [run.summary for run in seen]
        rows.append(row(name, "camera", full, base, **facts, in_flight=camera_in_flight, turns=full))
        low_name = f"{name} {LOW_RATE_HZ:g} Hz"
        less = {
            "bare_p50_ms": [each["bare_ms"]["p50"] for each in alone],
            "bare_same_rate_p50_ms": [each["bare_low_rate_ms"]["p50"] for each in alone],
        }
        rows.append(latency_row(low_name, "latency", low, **less, **facts, turns=low, bare=alone, summaries=summaries))
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
            **conditions,
            "input_hash": file_hash(archive),
            "machine": machine(),
            "version": version("mdi_exit_ros"),
            "results": rows,
        }
        write_json(document, json_path)
        console.print(f"results: {json_path}")
    if recorded is not None:
        slower = regressions(rows, recorded)
        for line in slower:
            console.print(f"slower than recorded: {line}")
        return 1 if slower else 0
    return 0


def _bare_name(exits: bool) -> str:
    return f"bare loop {'with' if exits else 'without'} exits"


def _show(results: list[dict[str, Any]], *, console: Console) -> None:
    table = Table(title=f"{results[0]['backend']} {results[0]['precision']}", caption=METHOD)
    headings = ["what", "frames/s", "min..max", "of bare", "p50 ms", "p99 ms", "CPU s/1000", "switches", "bytes"]
    further = {"added ms": "added_latency_ms", "rare": "added_same_rate_ms", "peak Hz": "peak_rate_hz"}
    further = {head: field for head, field in further.items() if any(field in result for result in results)}
    for heading in (*headings, *further):
        table.add_column(heading, justify="left" if heading == "what" else "right", no_wrap=True)
    for result in results:
        latency, fps = result["latency_ms"], result.get("fps_spread")
        cells = [
            result["name"],
            _cell(result["fps"], 0),
            f"{fps['min']:.0f}..{fps['max']:.0f}" if fps else "",
            _cell(result["efficiency"], 2),
            *(_cell(latency[share], 1) for share in ("p50", "p99")),
            _cell(result.get("cpu_s_per_1000_frames"), 2),
            _cell(result.get("context_switches_per_frame"), 2),
            _cell(result.get("bytes_per_frame"), 0),
            *(_cell(result.get(field), 1) for field in further.values()),
        ]
        table.add_row(*cells)
    console.print(table)
    for result in results:
        if result["kind"] in ("camera", "latency"):
            ends = ("published", "answered", "refused", "failed", "lost")
            counts = ", ".join(f"{sum(run[end] for run in result['turns'])} {end}" for end in ends)
            console.print(f"{result['name']}: {counts}; p95 {_cell(result['latency_ms']['p95'], 1)} ms", soft_wrap=True)


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
