# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit plan`: which computer should run which segments."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mdi_exit_ros.cli.output import json_option, wide_console, write_json

if TYPE_CHECKING:
    from mdi_exit_ros.partition import Computer, Cut

MBIT = 1e6


def _computers(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> list[Computer]:
    from mdi_exit_ros.partition import Computer

    found = []
    for text in texts:
        name, _, rest = text.partition(":")
        speed, _, mbit = rest.partition(":")
        try:
            found.append(Computer(name, float(speed or 1.0), float(mbit) * MBIT if mbit else math.inf))
        except ValueError as error:
            raise click.BadParameter(f"expected NAME[:SPEED[:MBIT_PER_S]] like nano2:0.5:40, got {text!r}") from error
    return found


@click.command(short_help="Say which computer should run which segments.")
@click.option("--cut", is_flag=True, help="Cut the network into a pipeline whose slowest stage is as fast as possible.")
@click.option(
    "--computer",
    "computers",
    multiple=True,
    required=True,
    callback=_computers,
    metavar="NAME[:SPEED[:MBIT]]",
    help="A computer, its speed relative to the profiled one (1) and its link's rate in Mbit/s (no limit); repeatable. "
    "Frames come in at the first one.",
)
@click.option("--in-order", is_flag=True, help="The pipeline visits the computers in the order given.")
@click.option("--model", "model_name", default="mobilenetv2", show_default=True, help="Shipped model or its folder.")
@click.option(
    "--profile",
    "path",
    type=click.Path(path_type=Path),
    help="File of mdi-exit profile; this computer's own by default.",
)
@click.option("--backend", default="auto", show_default=True, help="Whose times; auto: the fastest in the profile.")
@click.option("--precision", default="fp32", show_default=True, type=click.Choice(["fp32", "bf16"]))
@click.option("--batch", default=8, show_default=True, type=click.IntRange(min=1), help="Frames per run.")
@click.option("--exits/--no-exits", default=True, show_default=True, help="Frames may leave early.")
@click.option("--target-accuracy", type=click.FloatRange(0.0, 1.0), help="Exit at the thresholds for it.")
@click.option("--encoding", default="raw", show_default=True, help="How features travel: raw, fp16 or int8.")
@json_option("Also write the plan here.")
def plan(
    cut: bool,
    computers: list[Computer],
    in_order: bool,
    model_name: str,
    path: Path | None,
    backend: str,
    precision: str,
    batch: int,
    exits: bool,
    target_accuracy: float | None,
    encoding: str,
    json_path: Path | None,
) -> None:
    """Say which computer should run which segments, from measured times (mdi-exit profile)."""
    from mdi_exit_ros.model.card import load_card
    from mdi_exit_ros.partition import Work, best_cut
    from mdi_exit_ros.profile import load_profile_of

    if not cut:
        raise click.UsageError("say what to plan: --cut")
    card = load_card(model_name)
    measured = load_profile_of(card.name, card.model_id, path)
    times = measured.fastest(precision, batch=batch) if backend == "auto" else measured.of(backend, precision)
    segments = range(1, card.num_segments + 1)
    point = card.default_point if target_accuracy is None else card.point_for(target_accuracy)
    reach = [1.0 - sum(point.exit_shares[: segment - 1]) if exits else 1.0 for segment in segments]
    work = Work(
        times.per_frame(segments, batch), [card.input_nbytes_of(segment, encoding) for segment in segments], reach
    )
    found = best_cut(computers, work, in_order=in_order)
    alone = best_cut(computers[:1], work)
    _show(
        found,
        alone,
        f"{card.name}, {times.backend} {times.precision} in batches of {batch}, measured on "
        f"{measured.machine.get('processor')}, {f'exits at {point.thresholds}' if exits else 'no exits'}, {encoding}",
    )
    if json_path is not None:
        write_json(
            {
                "model": card.name,
                "model_id": card.model_id,
                "backend": times.backend,
                "precision": times.precision,
                "batch": batch,
                "encoding": encoding,
                "reach": reach,
                "stages": [asdict(stage) for stage in found.stages],
                "slowest_s": found.slowest_s,
                "frames_per_s": found.frames_per_s,
                "latency_s": found.latency_s,
                "alone_frames_per_s": alone.frames_per_s,
                "simulated": False,
                "measured": False,
            },
            json_path,
        )


def _show(found: Cut, alone: Cut, title: str) -> None:
    from rich.table import Table

    table = Table(title=title, caption="ms per average frame; a stage is as slow as the slower of computing and moving")
    for heading in ("computer", "segments", "computes", "moves in"):
        table.add_column(heading, justify="left" if heading == "computer" else "right")
    for stage in found.stages:
        slowest = " <" if stage.slowest_s == found.slowest_s else ""
        table.add_row(
            stage.computer + slowest,
            ", ".join(map(str, stage.segments)),
            f"{1000.0 * stage.compute_s:.3f}",
            f"{1000.0 * stage.transfer_s:.3f}" if stage.transfer_s else "",
        )
    wide_console().print(table)
    click.echo(
        f"expected at most {found.frames_per_s:.0f} frames/s, the first computer alone {alone.frames_per_s:.0f}; "
        "in a topology file:"
    )
    for stage in found.stages:
        click.echo(f"  {stage.computer}: {{segments: {list(stage.segments)}}}")
