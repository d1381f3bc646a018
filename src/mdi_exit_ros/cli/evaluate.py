# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit evaluate`: accuracy and cost of a model on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mdi_exit_ros.cli.output import FiniteRange, json_option, wide_console, writable, write_json
from mdi_exit_ros.codec import ENCODINGS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

    from mdi_exit_ros.training.evaluation import BackendReport, CurvePoint, EncodingReport

CURVE_ROWS = 10


@click.command(short_help="Measure a model's accuracy and cost on labelled images.")
@click.option("--model", "model_name", default="mobilenetv2", show_default=True, help="Shipped model or its folder.")
@click.option(
    "--data",
    help="Zip archive or folder of [<split>/]<class>/<image>, or torchvision:DIR; the shipped sample by default.",
)
@click.option("--split", default="test", show_default=True, help="Which images of --data.")
@click.option(
    "--target-accuracy",
    type=FiniteRange(0.0, 1.0),
    help="Exit at the cheapest thresholds that had this accuracy on the validation images.",
)
@click.option("--thresholds", help="Thresholds of all exits but the last, comma separated; the card's by default.")
@click.option("--backend", default="auto", show_default=True, help="auto, onnxruntime, openvino or torch.")
@click.option("--precision", default="fp32", show_default=True, help="fp32, or bf16 with openvino.")
@click.option("--encoding", default="raw", show_default=True, type=click.Choice(ENCODINGS), help="Of features at cuts.")
@click.option("--encodings", is_flag=True, help="Also compare all encodings at every cut; takes a dozen runs.")
@click.option("--backends", is_flag=True, help="Also compare all installed backends with eager torch.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1), help="CPU threads.")
@click.option(
    "--record",
    "recording_path",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=writable,
    help="Also write here what every exit said about every image, for mdi-exit simulate.",
)
@json_option("Also write the figures here.")
def evaluate(
    model_name: str,
    data: str | None,
    split: str,
    target_accuracy: float | None,
    thresholds: str | None,
    backend: str,
    precision: str,
    encoding: str,
    encodings: bool,
    backends: bool,
    threads: int,
    recording_path: Path | None,
    json_path: Path | None,
) -> None:
    """Measure a model's accuracy and cost on labelled images."""
    from rich.progress import Progress
    from rich.table import Table

    from mdi_exit_ros.errors import ConfigurationError
    from mdi_exit_ros.model.backends.registry import load_segments, resolve_backend
    from mdi_exit_ros.model.card import load_card
    from mdi_exit_ros.resources import sample_archive
    from mdi_exit_ros.training import evaluation
    from mdi_exit_ros.training.datasets import load_split

    if thresholds is not None and target_accuracy is not None:
        raise ConfigurationError("--thresholds and --target-accuracy exclude each other: give one of them")
    card = load_card(model_name)
    applied = card.default_thresholds
    if target_accuracy is not None:
        applied = card.point_for(target_accuracy).thresholds
    if thresholds is not None:
        try:
            applied = tuple(float(part) for part in thresholds.split(","))
        except ValueError as error:
            raise ConfigurationError(f"--thresholds must be numbers like 0.8,0.8: came {thresholds!r}") from error
    height, width, _ = card.input_shape
    images = load_split(data or str(sample_archive()), split, image_size=(height, width))
    own = split != "train" and images.data_hash == card.training.data_hash
    if data and own and load_split(data, "train", image_size=(height, width)).has_same_images(images):
        click.echo(
            f"{data} holds no {split} images of its own, and {card.name} was trained on most of these: its accuracy on "
            "others is lower"
        )
    backend = resolve_backend(backend)
    if backends:
        resolve_backend("torch")  # which the others are compared with
    runner = load_segments(card, range(1, card.num_segments + 1), backend=backend, precision=precision, threads=threads)
    answers: dict[str, NDArray[Any]] = {}
    console = wide_console()
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task(f"evaluating {card.name}", total=len(images))
        report = evaluation.evaluate(
            card,
            runner,
            images,
            applied,
            backend=backend,
            precision=precision,
            encoding=encoding,
            on_batch=lambda count: progress.advance(bar, count),
            on_answers=lambda confidence, correct: answers.update(confidence=confidence.T, correct=correct.T),
        )
        compared = []
        if encodings:
            bar = progress.add_task("comparing encodings", total=None)
            compared = evaluation.compare_encodings(
                card,
                runner,
                images,
                applied,
                on_run=lambda done, total: progress.update(bar, completed=done, total=total),
            )
        backend_rows = []
        if backends:
            bar = progress.add_task("comparing backends", total=None)
            backend_rows = evaluation.compare_backends(
                card,
                images,
                threads=threads,
                on_run=lambda done, total: progress.update(bar, completed=done, total=total),
            )
    table = Table(title=f"{card.name} ({card.model_id}) on {len(images)} images, {backend} {precision}")
    for heading in ("exit", "accuracy alone", "95 %", "ECE", "threshold", "share of images"):
        table.add_column(heading, justify="right")
    for index, (low, high) in enumerate(report["accuracy_exits_interval"]):
        table.add_row(
            str(index + 1),
            f"{report['accuracy_exits'][index]:.4f}",
            f"{low:.4f}-{high:.4f}",
            f"{report['ece_exits'][index]:.4f}",
            f"{applied[index]:g}" if index < len(applied) else "always",
            f"{report['exits'][index]:.3f}",
        )
    console.print(table)
    low, high = report["accuracy_interval"]
    _show_curve(report["curve"], console)
    console.print(
        f"with early exits: accuracy {report['accuracy']:.4f} ({low:.4f}-{high:.4f}), "
        f"{report['mac_fraction']:.3f} of the multiply-accumulates, ECE {report['ece']:.4f}",
        soft_wrap=True,
    )
    if compared:
        _show_encodings(compared, console)
    if backend_rows:
        _show_backends(backend_rows, console)
    if recording_path is not None:
        from mdi_exit_ros.simulation.recording import Recording, save_recording

        what = f"{split} images of {Path(data).name if data else sample_archive().name}"
        save_recording(
            Recording(**answers, model_id=card.model_id, images=what, data_hash=images.data_hash), recording_path
        )
    if json_path is not None:
        further = {"encodings": compared, "backends": backend_rows}
        write_json({**report, **{name: rows for name, rows in further.items() if rows}}, json_path)


def _show_curve(curve: list[CurvePoint], console: Console) -> None:
    from rich.table import Table

    table = Table(title="settings of the exits, from cheap to accurate (every one of them with --json)")
    for heading in ("thresholds", "accuracy", "95 %", "multiply-accumulates", "share of images at each exit"):
        table.add_column(heading, justify="right")
    for point in curve[:: max(1, len(curve) // CURVE_ROWS)]:
        low, high = point["accuracy_interval"]
        table.add_row(
            " ".join(f"{value:.2f}" for value in point["thresholds"]),
            f"{point['accuracy']:.4f}",
            f"{low:.4f}-{high:.4f}",
            f"{point['mac_fraction']:.3f}",
            " ".join(f"{share:.2f}" for share in point["exits"]),
        )
    console.print(table)


def _show_encodings(compared: list[EncodingReport], console: Console) -> None:
    from rich.table import Table

    table = Table(title="features as they cross the network, one cut at a time and all at once")
    for heading in (
        "encoding",
        "behind segment",
        "bytes per frame",
        "accuracy with exits",
        "of the last exit",
        "equal",
    ):
        table.add_column(heading, justify="left" if heading == "encoding" else "right")
    for row in compared:
        table.add_row(
            row["encoding"],
            str(row["cut"] or "every"),
            str(row["nbytes"]) if row["cut"] else "",
            f"{row['accuracy']:.4f}",
            f"{row['accuracy_last']:.4f}",
            f"{100.0 * row['agreement']:.2f} %",
        )
    console.print(table)


def _show_backends(compared: list[BackendReport], console: Console) -> None:
    from rich.table import Table

    table = Table(title="backends; equal: answers with the class of eager torch, at the exit where it is least so")
    for heading in ("backend", "precision"):
        table.add_column(heading)
    for heading in ("accuracy of the last exit", "equal", "95 %", "largest confidence difference"):
        table.add_column(heading, justify="right")
    for row in compared:
        low, high = row["agreement_interval"]
        table.add_row(
            row["backend"],
            row["precision"],
            f"{row['accuracy_exits'][-1]:.4f}",
            f"{100.0 * row['agreement']:.2f} %",
            f"{100.0 * low:.2f}-{100.0 * high:.2f}",
            f"{row['confidence_difference']:.2g}",
        )
    console.print(table)
