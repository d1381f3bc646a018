# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit run`: starts a cluster (or one computer's part of it), shows it, and accounts for every frame."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import click
import yaml
from rich.console import Console

from mdi_exit_ros.cli.cluster_options import cluster_namespace_option, domain_id_option
from mdi_exit_ros.cli.output import FiniteRange, json_option, write_json
from mdi_exit_ros.cli.parameter_files import parameters_in_files
from mdi_exit_ros.codec import ENCODINGS
from mdi_exit_ros.errors import ConfigurationError, DataError
from mdi_exit_ros.machine import machine
from mdi_exit_ros.model.backends.export import ensure_exported
from mdi_exit_ros.model.backends.registry import available_backends, resolve_backend
from mdi_exit_ros.model.card import ModelCard, load_card
from mdi_exit_ros.plan import Plan, PlannedNode, PlanOptions, make_plan
from mdi_exit_ros.resources import SAMPLE, sample_archive, share_directory
from mdi_exit_ros.runner.quota import parse_quotas
from mdi_exit_ros.simulation.agreement import MIXED
from mdi_exit_ros.task import Mode, Strategy
from mdi_exit_ros.topology import ALL, load_topology, meant
from mdi_exit_ros.transport import TRANSPORTS, transport_variables


class _Rate(click.ParamType[float]):
    """`max`, or frames per second."""

    name = "HZ|max"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if value == "max":
            return 0.0
        try:
            rate = float(value)
        except ValueError:
            rate = -1.0
        if not 0.0 < rate <= 100000.0:
            self.fail(f"expected max, or frames per second above 0 and up to 100000, got {value!r}", param, ctx)
        return rate


@click.command()
@click.option(
    "--topology", default="three_mesh", show_default=True, metavar="NAME|FILE", help="Who is joined with whom."
)
@click.option(
    "--strategy",
    default=Strategy.MDI_EXIT.value,
    show_default=True,
    metavar="|".join(Strategy),
    help="How frames spread.",
)
@click.option(
    "--model", default="mobilenetv2", show_default=True, metavar="NAME|DIR", help="Shipped model or model folder."
)
@click.option(
    "--input",
    "input_name",
    default=None,
    metavar="PATH|topic|device:N|sample",
    help="Folder, .zip archive, video file, image topic or camera.  [default: the topology's, else sample]",
)
@click.option("--image-topic", default=None, metavar="TOPIC", help="Topic that --input topic reads.  [default: image]")
@click.option(
    "--rate", type=_Rate(), default="max", show_default=True, help="Frames offered per second by a finite input."
)
@click.option("--frames", type=click.IntRange(min=1), default=None, help="Frames to offer; a finite input begins anew.")
@click.option(
    "--drop/--no-drop", default=None, help="Refuse old frames instead of waiting.  [default: live inputs only]"
)
@click.option("--computer", default=ALL, show_default=True, metavar="NAME", help="Start this computer's part only.")
@click.option(
    "--mode",
    type=click.Choice([mode.name.lower() for mode in Mode]),
    default=None,
    help="What adapts.  [default: manual]",
)
@click.option(
    "--threshold",
    "thresholds",
    type=FiniteRange(0.0, 1.0),
    multiple=True,
    help="Confidence to leave by; once for all exits, or once per exit.  [default: the model's]",
)
@click.option("--target-accuracy", type=FiniteRange(0.0, 1.0), default=None, help="Choose thresholds that reach it.")
@click.option("--no-exits", is_flag=True, help="No frame leaves before the last exit.")
@click.option(
    "--backend", default=None, metavar="auto|onnxruntime|openvino|torch", help="What computes.  [default: auto]"
)
@click.option("--precision", default=None, metavar="fp32|bf16", help="Of computing.  [default: fp32]")
@click.option(
    "--encoding",
    type=click.Choice(ENCODINGS),
    help="How features travel between workers.  [default: raw on one computer, else int8]",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    default=None,
    help="Threads of each worker, each with a batch of its own.  [default: all processors, shared out]",
)
@click.option(
    "--cpu-quota",
    "quotas",
    multiple=True,
    metavar="CORES|WORKER=CORES",
    help="Processors that each worker here may use, such as 0.4; needs the right to make control groups.",
)
@json_option("Write the summary here.")
@click.option(
    "--transport",
    default=None,
    metavar="|".join((*TRANSPORTS, "FILE.xml")),
    help="How messages travel; a file has Fast DDS profiles.  [default: shared_memory where all nodes are here and "
    "nothing else is set, else default]",
)
@domain_id_option
@click.option(
    "--params-file",
    "params_files",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="ROS parameter file, as config/nodes.yaml; what the plan decides wins.",
)
@click.option("--param", "parameters", multiple=True, metavar="NODE:KEY=VALUE", help="One parameter of one node.")
@click.option("--namespace", default="", help="Namespace of the robot's topics.")
@cluster_namespace_option
@click.option(
    "--duration", type=FiniteRange(min=0.0), default=0.0, help="End in order after so many seconds; 0: never."
)
@click.option("--timeout", type=FiniteRange(min=0.0), default=0.0, help="Fail after so many seconds; 0: never.")
@click.option("--log-dir", type=click.Path(path_type=Path, file_okay=False), help="Keep the nodes' logs here.")
@click.option(
    "--use-composition", is_flag=True, help="A source shares the process of its home worker: less work and delay."
)
@click.option(
    "--use-respawn",
    is_flag=True,
    help="Start workers and controller again when they die, but no source.",
)
def run(
    topology: str,
    strategy: str,
    model: str,
    input_name: str | None,
    image_topic: str | None,
    rate: float,
    frames: int | None,
    drop: bool | None,
    computer: str,
    mode: str | None,
    thresholds: tuple[float, ...],
    target_accuracy: float | None,
    no_exits: bool,
    backend: str | None,
    precision: str | None,
    encoding: str | None,
    threads: int | None,
    quotas: tuple[str, ...],
    json_path: Path | None,
    transport: str | None,
    domain_id: int | None,
    params_files: tuple[Path, ...],
    parameters: tuple[str, ...],
    namespace: str,
    cluster_namespace: str,
    duration: float,
    timeout: float,
    log_dir: Path | None,
    use_composition: bool,
    use_respawn: bool,
) -> int:
    """Starts a cluster on this machine, or one computer's part of it, and accounts for every frame.

    Ends by itself when a finite input is played or --duration is over, otherwise with Ctrl-C. Exit status 0 means that
    frames were answered and every one has its end.
    """
    card = load_card(model)
    declared = load_topology(topology)
    inputs = {input_name or source.parameters.get("input", SAMPLE) for source in declared.sources}
    if image_topic and "topic" not in inputs:
        raise ConfigurationError(f"--image-topic {image_topic}: nothing reads it; expected --input topic with it")
    live = any(each == "topic" or each.startswith("device:") for each in inputs)
    if live and rate:
        raise ConfigurationError("--rate: a live camera has its own; expected max, or a finite --input")
    options = PlanOptions(
        strategy=strategy,
        model=model,
        exits=False if no_exits else None,
        namespace=namespace,
        cluster_namespace=cluster_namespace,
        worker=_given(backend=backend, precision=precision, encoding=encoding, threads=threads),
        source=_given(
            input=_existing(input_name) if input_name else (SAMPLE if inputs == {SAMPLE} else None),
            rate_hz=rate or None,
            frames=frames,
            loop=True if frames and not live else None,
            drop={True: "oldest", False: "never", None: None}[drop],
        ),
        controller=_given(
            mode=mode, target_accuracy=target_accuracy, **_threshold_parameters(thresholds, card.num_segments)
        ),
    )
    plan = make_plan(declared, options, card.num_segments, card.segment_costs)
    for node in plan.named("camera_source"):
        if "input" not in node.parameters:
            plan = plan.with_parameters({node.name: {"input": SAMPLE}})
    own = own_parameters(plan, parameters)
    plan = plan.with_parameters(own)
    nodes = plan.on(computer)
    if not nodes:
        raise ConfigurationError(f"computer {computer!r} has no node in {plan.origin} with strategy {plan.strategy}")
    sources = [node for node in nodes if node.executable == "camera_source"]
    if json_path is not None and not sources:
        where = ", ".join(node.computer for node in plan.named("camera_source"))
        raise ConfigurationError(f"--json: the summary is written where the source runs: {where}, not {computer}")
    if transport:
        transport_variables(transport, os.environ)  # a mistake is told before anything is prepared
    cpu_quota = parse_quotas(quotas, tuple(node.name for node in nodes if node.executable == "segment_worker"))
    computing = computing_of(plan.named("segment_worker"), params_files)
    console = Console(stderr=True)
    here = [computing[node.name].backend for node in nodes if node.executable == "segment_worker"]
    _export_once(card, {resolve_backend(name) for name in here}, console)

    from mdi_exit_ros.cli.summary_table import as_tables
    from mdi_exit_ros.runner.session import Session

    outcome = Session(
        plan=plan,
        nodes=nodes,
        cluster_namespace=cluster_namespace,
        params_files=params_files,
        here_only=computer == ALL,
        domain_id=domain_id,
        duration_s=duration,
        timeout_s=timeout,
        log_folder=log_dir.absolute() if log_dir else None,
        respawn=use_respawn,
        composed=use_composition,
        image_topic=image_topic or "",
        transport=transport,
        cpu_quota=cpu_quota,
    ).run(console)
    if outcome.summary is not None:
        chosen = _chosen(options, topology, own, composed=use_composition, params_files=params_files)
        summary = _completed(outcome.summary, plan, computing.values(), chosen)
        Console().print(as_tables(summary))
        if json_path is not None:
            write_json(summary, json_path)
    if outcome.failure:
        click.echo(f"error: {outcome.failure}", err=True)
        return outcome.status
    if outcome.summary is None:
        return 1 if sources else 0
    return 0 if outcome.summary["unaccounted"] == 0 and outcome.summary["ok"] > 0 else 1


def _chosen(
    options: PlanOptions, topology: str, own: dict[str, dict[str, Any]], *, composed: bool, params_files: Sequence[Path]
) -> dict[str, Any]:
    """What was asked for, so that a simulation can be asked for the same."""
    return {
        "topology": topology,
        "exits": options.exits,
        **{kind: dict(getattr(options, kind)) for kind in ("worker", "source", "controller")},
        "nodes": own,
        "composed": composed,
        "params_files": [path.name for path in params_files],
    }


class Computing(NamedTuple):
    """What a worker computes with."""

    backend: str
    precision: str


def computing_of(workers: Iterable[PlannedNode], params_files: Sequence[Path]) -> dict[str, Computing]:
    """What each worker of a plan computes with, by name; `auto` is what it stands for on this computer.

    Raises:
        ConfigurationError: a parameter file cannot be read.
    """
    found = {}
    for node in workers:
        given = {**parameters_in_files(node.full_name, params_files), **node.parameters}
        backend = str(given.get("backend", "auto"))
        if backend == "auto" and available_backends():
            backend = resolve_backend(backend)
        found[node.name] = Computing(backend, str(given.get("precision", "fp32")))
    return found


def _given(**parameters: Any) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def _existing(name: str) -> str:
    """The input, with a path made absolute; nodes say more of what it holds.

    Raises:
        DataError: there is no such file or folder.
    """
    if name in ("topic", SAMPLE) or name.startswith("device:"):
        return name
    path = Path(name).expanduser().absolute()
    if not path.exists():
        raise DataError(
            f"--input: no {path}: expected a folder, a .zip archive, a video file, topic, device:N or sample"
        )
    return str(path)


def _threshold_parameters(thresholds: tuple[float, ...], num_segments: int) -> dict[str, float]:
    exits = range(1, num_segments)
    if len(thresholds) == 1:
        thresholds *= len(exits)
    if thresholds and len(thresholds) != len(exits):
        raise ConfigurationError(
            f"--threshold: expected one for all, or one for each of exits 1..{num_segments - 1}, got {len(thresholds)}"
        )
    return {f"exit_threshold.{number}": value for number, value in zip(exits, thresholds, strict=False)}


def own_parameters(plan: Plan, parameters: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The parameters that texts NODE:KEY=VALUE give nodes of the plan.

    Raises:
        ConfigurationError: another form, a node that is not in the plan, a parameter that no node has, or a value that
            is no YAML.
    """
    given: dict[str, dict[str, Any]] = {}
    names = [node.name for node in plan.nodes]
    defaults = (share_directory() / "config" / "nodes.yaml").read_text(encoding="utf-8")
    known = list(yaml.safe_load(defaults)["/**"]["ros__parameters"])
    for text in parameters:
        place, equals, value = text.partition("=")
        node, colon, key = place.partition(":")
        if not (equals and colon and key and node in names):
            raise ConfigurationError(
                f"--param: expected NODE:KEY=VALUE with a node of {', '.join(names)}, such as {names[0]}:batch_max=8; "
                f"got {text!r}"
            )
        if key not in known and not key.startswith(("qos_overrides.", "exit_threshold.", "use_sim_time")):
            raise ConfigurationError(
                f"--param: no node has a parameter {key!r}{meant(key, known)}: expected one of config/nodes.yaml, "
                f"got {text!r}"
            )
        try:
            given.setdefault(node, {})[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigurationError(f"--param: expected a value as in YAML, got {value!r} in {text!r}") from error
    return given


def _export_once(card: ModelCard, backends: Iterable[str], console: Console) -> None:
    """So that workers need not wait for each other at their start."""
    exported = sorted(name for name in backends if not name.startswith("torch"))
    if exported:
        with console.status(f"preparing {card.name} for {', '.join(exported)}"):
            ensure_exported(card)


def _completed(
    summary: dict[str, Any], plan: Plan, computing: Iterable[Computing], options: dict[str, Any]
) -> dict[str, Any]:
    backends, precisions = zip(*computing, strict=True)
    hashes = {_input_hash(part) for part in summary.get("sources", {"": summary}).values()}
    return {
        **summary,
        "input_hash": hashes.pop() if len(hashes) == 1 else None,
        "strategy": plan.strategy.value,
        "topology": plan.topology,
        "backend": _of_all(backends),
        "precision": _of_all(precisions),
        "machine": machine(),
        "version": version("mdi_exit_ros"),
        "options": options,
    }


def _of_all(values: Sequence[str]) -> str:
    """The value that all have, or that they differ."""
    return values[0] if len(set(values)) == 1 else MIXED


def _input_hash(part: Mapping[str, Any]) -> str:
    """That of the file which a source played; what the source says itself of anything else."""
    from mdi_exit_ros.runner.summary import file_hash

    path = sample_archive() if part["input"] == SAMPLE else Path(part["input"])
    return file_hash(path) if path.is_file() else str(part["input_hash"])
