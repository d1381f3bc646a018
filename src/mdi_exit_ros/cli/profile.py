# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit profile`: how long every segment takes on this computer, by backend and batch size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mdi_exit_ros.cli.output import json_option, numbers, wide_console

if TYPE_CHECKING:
    from rich.console import Console

    from mdi_exit_ros.model.profiling import Agreement, Candidate
    from mdi_exit_ros.profile import Profile


@click.command(short_help="Measure how long every segment takes on this computer.")
@click.option("--model", "model_name", default="mobilenetv2", show_default=True, help="Shipped model or its folder.")
@click.option(
    "--backend", "backends", multiple=True, help="What to measure, repeatable; every installed one by default."
)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="Both by default, bf16 where a backend has it.")
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda", "tensorrt"]))
@click.option("--batch", "batches", default="1,2,4,8,16,32", show_default=True, callback=numbers, help="Batch sizes.")
@click.option("--turns", default=5, show_default=True, type=click.IntRange(min=1), help="How often all are measured.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="CPU threads of one run.")
@click.option(
    "--images", default=200, show_default=True, type=click.IntRange(min=1), help="Images that answers are compared on."
)
@json_option("Also write the profile here; the one that planner and workers read is kept in the cache.")
def profile(
    model_name: str,
    backends: tuple[str, ...],
    precision: str | None,
    device: str,
    batches: tuple[int, ...],
    turns: int,
    threads: int,
    images: int,
    json_path: Path | None,
) -> None:
    """Measure how long every segment takes on this computer, by backend and batch size.

    Workers start with these times instead of none, and mdi-exit plan and calibrate count with them.
    """
    from rich.progress import Progress

    from mdi_exit_ros.model.backends.export import check_frames
    from mdi_exit_ros.model.backends.registry import resolve_backend
    from mdi_exit_ros.model.card import load_card
    from mdi_exit_ros.model.profiling import Candidate, agreement, candidates, measure
    from mdi_exit_ros.profile import profile_path, save_profile

    card = load_card(model_name)
    chosen = candidates((precision,) if precision else ("fp32", "bf16"))
    if backends or device != "cpu":
        names = dict.fromkeys(resolve_backend(name) for name in backends or ("onnxruntime",))
        chosen = [Candidate(name, precision or "fp32", device) for name in names]
    kept = profile_path(card.model_id)
    with Progress(transient=True) as progress:
        bar = progress.add_task(f"profiling {card.name}", total=None)
        measured = measure(
            card,
            chosen,
            batches=batches,
            turns=turns,
            threads=threads,
            on_step=lambda done, total: progress.update(bar, completed=done, total=total),
        )
        for path in filter(None, (kept, json_path)):
            save_profile(measured, path)
        progress.update(bar, description="comparing answers", completed=0, total=len(chosen))
        agreements = {}
        frames = check_frames(card, images)
        for candidate in chosen:
            agreements[candidate] = agreement(card, candidate, frames)
            progress.advance(bar)
    _show(measured, agreements, len(frames), wide_console())
    click.echo(f"wrote {kept}" + (f" and {json_path}" if json_path else ""))


def _show(measured: Profile, agreements: dict[Candidate, Agreement], images: int, console: Console) -> None:
    from rich.table import Table

    first = measured.backends[0]
    segments = range(1, 1 + max(time.segment for time in first.times))
    table = Table(
        title=f"{measured.model} ({measured.model_id}), ms per frame, {first.threads} thread(s), "
        f"{measured.machine['processor']}",
        caption="whole: all segments, with the spread over the turns; equal: classes as torch-eager's, of the last "
        f"exit and of all, and the largest difference of a confidence, on {images} images",
    )
    for heading in ("backend", "batch", *(f"segment {segment}" for segment in segments), "whole", "equal"):
        table.add_column(heading, justify="left" if heading == "backend" else "right")
    for entry, equal in zip(measured.backends, agreements.values(), strict=True):
        for batch in entry.batches:
            times = [time for time in entry.times if time.batch == batch]
            whole = [
                1000.0 * sum(getattr(time, field) for time in times) / batch for field in ("seconds", "low", "high")
            ]
            table.add_row(
                f"{entry.backend} {entry.precision}" if batch == entry.batches[0] else "",
                str(batch),
                *(f"{1000.0 * time.seconds / batch:.3f}" for time in times),
                f"{whole[0]:.2f} ({whole[1]:.2f}..{whole[2]:.2f})",
                f"{100.0 * equal.last:.2f}, {100.0 * equal.every:.2f} %, {equal.confidence:.1g}"
                if batch == entry.batches[0]
                else "",
            )
        table.add_section()
    console.print(table)
