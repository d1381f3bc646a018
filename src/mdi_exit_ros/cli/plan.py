# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit plan`: which computers are needed, and which should run which segments."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from mdi_exit_ros.cli.output import FiniteRange, json_option, wide_console, write_json

if TYPE_CHECKING:
    from mdi_exit_ros.partition import Cut

MBIT = 1e6


EXPECTED = "expected NAME[:SPEED[xCORES][:MBIT_PER_S[:COST]]] like nano2:0.5:40"


class Given(NamedTuple):
    """What the option --computer says; `cost` is None where it does not say it."""

    name: str
    speed: float
    cores: float
    link_bps: float
    cost: float | None


def _computers(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> list[Given]:
    found = []
    for text in texts:
        name, speed, mbit, cost, *more = [*text.split(":"), "", "", ""][: max(4, text.count(":") + 1)]
        speed, times, cores = speed.partition("x")
        try:
            if more or not name or (times and not cores):
                raise ValueError
            found.append(
                Given(
                    name,
                    float(speed or 1.0),
                    float(cores) if cores else 1.0,
                    float(mbit) * MBIT if mbit else math.inf,
                    float(cost) if cost else None,
                )
            )
        except ValueError as error:
            raise click.BadParameter(f"{EXPECTED}, got {text!r}") from error
    return found


@click.command(short_help="Say which computers are needed, and which should run which segments.")
@click.option("--cut", is_flag=True, help="Cut the network into a pipeline whose slowest stage is as fast as possible.")
@click.option(
    "--computer",
    "computers",
    multiple=True,
    required=True,
    callback=_computers,
    metavar="NAME[:SPEED[xCORES][:MBIT[:COST]]]",
    help="A computer, the speed of its cores relative to the profiled one's (1) and how many there are (1), its link's "
    "rate in Mbit/s (no limit) and, with --rate, its cost (1), such as nano2:0.25x4:40; repeatable. Frames come in at "
    "the first one.",
)
@click.option("--rate", "rate_hz", type=FiniteRange(0.0, min_open=True), help="Frames/s to find a cheap set for.")
@click.option("--target-accuracy", type=FiniteRange(0.0, 1.0), help="Exit at the thresholds for it.")
@click.option(
    "--latency-ms",
    type=FiniteRange(0.0, min_open=True),
    help="Largest mean latency, roughly estimated, with --rate.",
)
@click.option(
    "--margin",
    default=0.8,
    show_default=True,
    type=FiniteRange(0.0, 1.0, min_open=True),
    help="Share of every core and link that may be used, with --rate.",
)
@click.option("--cut-only", is_flag=True, help="Every computer holds one span of the segments only, with --rate.")
@click.option("--check", is_flag=True, help="Simulate the set found and the one with a computer fewer, with --rate.")
@click.option("--in-order", is_flag=True, help="The pipeline visits the computers in the order given, with --cut.")
@click.option("--model", "model_name", default="mobilenetv2", show_default=True, help="Shipped model or its folder.")
@click.option(
    "--profile",
    "path",
    type=click.Path(path_type=Path),
    help="File of mdi-exit profile; this computer's own by default, with --rate else the model's. With --rate also the "
    "words shipped and measured.",
)
@click.option("--backend", default="auto", show_default=True, help="Whose times; auto: the fastest in the profile.")
@click.option("--precision", default="fp32", show_default=True, type=click.Choice(["fp32", "bf16"]))
@click.option("--batch", type=click.IntRange(min=1), help="Frames per run.  [default: 8 with --cut, 16 with --rate]")
@click.option("--exits/--no-exits", default=True, show_default=True, help="Frames may leave early.")
@click.option("--encoding", help="How features travel: raw, fp16 or int8.  [default: raw with --cut, int8 with --rate]")
@json_option("Also write the plan here.")
def plan(
    cut: bool,
    computers: list[Given],
    rate_hz: float | None,
    target_accuracy: float | None,
    latency_ms: float | None,
    margin: float,
    cut_only: bool,
    check: bool,
    in_order: bool,
    model_name: str,
    path: Path | None,
    backend: str,
    precision: str,
    batch: int | None,
    exits: bool,
    encoding: str | None,
    json_path: Path | None,
) -> int:
    """Say which computers are needed for a rate and an accuracy, or with --cut which should run which segments.

    Both follow from measured times (mdi-exit profile). Exit status 1 says that no set of the computers does it, or that
    the check does not bear the plan out.
    """
    if cut == (rate_hz is not None):
        raise click.UsageError("say what to plan: --cut, or --rate HZ and --target-accuracy A")
    if not cut:
        from mdi_exit_ros.cli.plan_rate import Wish, plan_rate

        if target_accuracy is None or in_order:
            raise click.UsageError("--rate expects --target-accuracy, and no --in-order")
        assert rate_hz is not None
        wish = Wish(
            rate_hz=rate_hz,
            target_accuracy=target_accuracy,
            latency_s=latency_ms / 1000.0 if latency_ms is not None else math.inf,
            margin=margin,
            spans=cut_only,
            model=model_name,
            profile=path,
            backend=backend,
            precision=precision,
            batch=batch or 16,
            exits=exits,
            encoding=encoding or "int8",
        )
        return plan_rate(computers, wish, check=check, json_path=json_path)
    if latency_ms is not None or cut_only or check or any(each.cost is not None for each in computers):
        raise click.UsageError("--latency-ms, --cut-only, --check and the cost of a computer go with --rate")
    _plan_cut(
        computers,
        in_order,
        model_name,
        path,
        backend,
        precision,
        batch or 8,
        exits,
        target_accuracy,
        encoding or "raw",
        json_path,
    )
    return 0


def _plan_cut(
    given: list[Given],
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
    from mdi_exit_ros.model.card import load_card
    from mdi_exit_ros.partition import Computer, Work, best_cut
    from mdi_exit_ros.profile import load_profile_of

    computers = [Computer(each.name, each.speed * each.cores, each.link_bps) for each in given]
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
