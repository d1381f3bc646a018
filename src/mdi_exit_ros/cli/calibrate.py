# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit calibrate`: temperatures and thresholds of a model, from labelled images and measured times."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mdi_exit_ros.cli.output import json_option, wide_console, writable_folder, write_json

if TYPE_CHECKING:
    from mdi_exit_ros.profile import Profile


@click.command(short_help="Fit a model's temperatures and thresholds to labelled images.")
@click.option("--model", "model_name", default="mobilenetv2", show_default=True, help="Shipped model or its folder.")
@click.option("--data", required=True, help="Zip archive or folder of [<split>/]<class>/<image>, or torchvision:DIR.")
@click.option(
    "--split",
    help="Which images of --data decide; by default those of train that the model's own training held out.",
)
@click.option("--report-split", default="test", show_default=True, help="Images that only report, with --split.")
@click.option(
    "--profile",
    "profile_file",
    type=click.Path(path_type=Path),
    help="Times to count with (mdi-exit profile); this computer's by default, else multiply-accumulates.",
)
@click.option("--batch", default=8, show_default=True, type=click.IntRange(min=1), help="Frames per run that is timed.")
@click.option(
    "--out",
    "out_directory",
    type=click.Path(path_type=Path),
    callback=writable_folder,
    help="Model directory to write.",
)
@click.option(
    "--plots",
    "plot_directory",
    type=click.Path(path_type=Path),
    callback=writable_folder,
    help="Folder for pictures.",
)
@json_option("Also write everything here.")
def calibrate(
    model_name: str,
    data: str,
    split: str | None,
    report_split: str,
    profile_file: Path | None,
    batch: int,
    out_directory: Path | None,
    plot_directory: Path | None,
    json_path: Path | None,
) -> None:
    """Fit a temperature per exit and the cheapest thresholds for every accuracy, and say how well both hold.

    Without --out nothing of the model is changed.
    """
    from mdi_exit_ros.model.card import load_card
    from mdi_exit_ros.model.checkpoint import load_network
    from mdi_exit_ros.profile import PROFILE_NAME, profile_path, save_profile
    from mdi_exit_ros.simulation.recording import RECORDING_NAME, Recording, save_recording
    from mdi_exit_ros.training import calibration
    from mdi_exit_ros.training.datasets import (
        LabelledImages,
        MissingSplitError,
        load_split,
        load_splits,
        split_validation,
    )
    from mdi_exit_ros.training.evaluation import labels_for
    from mdi_exit_ros.training.finish import rewrite_model
    from mdi_exit_ros.training.loop import exit_logits
    from mdi_exit_ros.training.operating_points import calibrate as fit
    from mdi_exit_ros.training.operating_points import report

    card = load_card(model_name)
    network = load_network(card)
    height, width, _ = card.input_shape

    def images_of(name: str) -> LabelledImages:
        return load_split(data, name, image_size=(height, width))

    others: LabelledImages | None
    if split is None:
        seed = card.training.seed
        images, others = load_splits(data, image_size=(height, width), seed=seed)
        deciding = images
        if images.data_hash == card.training.data_hash:
            _, deciding = split_validation(images, card.training.validation_images, seed=seed)
        else:
            click.echo(
                f"{data} is not what {card.name} was trained on: all {len(images)} of its images calibrate. Where the "
                "model has seen some of them in training, name others with --split: its confidence in those is too high"
            )
    else:
        deciding = images_of(split)
        try:
            others = images_of(report_split)
        except MissingSplitError:
            others = None
    macs = calibration.exit_costs(card.segment_macs, card.exit_macs)
    measured = _measured(card, profile_file)
    seconds, basis = _times(card, measured, batch)
    costs = calibration.time_costs(seconds) if seconds else None
    logits, labels = exit_logits(network, deciding.images), labels_for(card, deciding)
    fitted = fit(logits, labels, macs, costs)
    document: dict[str, Any] = {
        "model": card.name,
        "temperatures": list(fitted.temperatures),
        "default_thresholds": list(fitted.default.thresholds),
        "cost": basis,
        "mac_fraction_exits": [float(value) for value in fitted.macs],
        "cost_exits": [float(value) for value in fitted.costs],
        "data_hash": deciding.data_hash,
        "validation": report(fitted, logits, labels),
        "test": None,
    }
    if others is None or others.has_same_images(deciding):
        click.echo(f"no other {report_split} images in {data}: nothing to hold the calibration against")
    else:
        document["test"] = report(fitted, exit_logits(network, others.images), labels_for(card, others))
    _show(document)
    if out_directory is not None:
        written = rewrite_model(card, fitted, basis, out_directory)
        recording = Recording(
            fitted.confidence(logits).T,
            (logits.argmax(axis=2) == labels).T,
            written.model_id,
            f"{len(labels)} images of {Path(data).name} that calibrated the model",
            deciding.data_hash,
        )
        save_recording(recording, out_directory / RECORDING_NAME)
        if measured is not None:
            # Temperatures change the model's id, and not how long its segments take.
            renamed = measured.model_copy(update={"model_id": written.model_id})
            save_profile(renamed, out_directory / PROFILE_NAME)
            if profile_file is None:
                save_profile(renamed, profile_path(written.model_id))
        click.echo(f"wrote {out_directory} ({written.model_id})")
    if plot_directory is not None:
        from mdi_exit_ros.training.plots import draw_calibration

        plot_directory.mkdir(parents=True, exist_ok=True)
        for path in draw_calibration(document, plot_directory):
            click.echo(f"wrote {path}")
    if json_path is not None:
        write_json(document, json_path)


def _measured(card: Any, profile_file: Path | None) -> Profile | None:
    from mdi_exit_ros.profile import load_profile_of, profile_path

    if profile_file is None and not profile_path(card.model_id).is_file():
        return None
    return load_profile_of(card.name, card.model_id, profile_file)


def _times(card: Any, measured: Profile | None, batch: int) -> tuple[tuple[float, ...], str]:
    """Time per frame (s) of each segment, and what to call it; no times where none were measured."""
    if measured is None:
        return (), "multiply-accumulates"
    times = measured.fastest(batch=batch)
    seconds = times.per_frame(range(1, card.num_segments + 1), batch)
    where = f"{times.backend} {times.precision}, batches of {batch}, {measured.machine.get('processor')}"
    return seconds, f"time: {where}"


def _show(document: dict[str, Any]) -> None:
    from rich.table import Table

    split, name = (document["test"], "test") if document["test"] else (document["validation"], "validation")
    table = Table(title=f"{document['model']}, exits alone on {split['images']} {name} images")
    for heading in ("exit", "accuracy", "95 %", "temperature", "ECE before", "after", "cost", "multiply-accumulates"):
        table.add_column(heading, justify="right")
    for index, accuracy in enumerate(split["accuracy_exits"]):
        low, high = split["accuracy_exits_interval"][index]
        table.add_row(
            str(index + 1),
            f"{accuracy:.4f}",
            f"{low:.4f}-{high:.4f}",
            f"{document['temperatures'][index]:.3f}",
            f"{split['ece_before'][index]:.4f}",
            f"{split['ece_after'][index]:.4f}",
            f"{document['cost_exits'][index]:.3f}",
            f"{document['mac_fraction_exits'][index]:.3f}",
        )
    console = wide_console()
    console.print(table)
    table = Table(
        title=f"thresholds for a target accuracy, and what they reach on the {name} images",
        caption=f"cost: {document['cost']}",
    )
    for heading in ("target", "accuracy", "95 %", "held", "cost", "multiply-accumulates", "exits"):
        table.add_column(heading, justify="right")
    for each in split["targets"]:
        low, high = each["accuracy_interval"]
        table.add_row(
            f"{each['target']:.3f}",
            f"{each['accuracy']:.4f}",
            f"{low:.4f}-{high:.4f}",
            "yes" if each["held"] else "no",
            f"{each['cost']:.3f}",
            f"{each['mac_fraction']:.3f}",
            " ".join(f"{share:.2f}" for share in each["exit_shares"]),
        )
    console.print(table)
    default = split["default"]
    low, high = default["accuracy_interval"]
    console.print(
        f"default thresholds {document['default_thresholds']}: accuracy {default['accuracy']:.4f} "
        f"({low:.4f}-{high:.4f}) for {default['cost']:.3f} of the cost, "
        f"{default['mac_fraction']:.3f} of the multiply-accumulates",
        soft_wrap=True,
    )
