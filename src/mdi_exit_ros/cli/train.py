# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit train`: trains all exits jointly and writes a model directory."""

from __future__ import annotations

from pathlib import Path

import click

from mdi_exit_ros.cli.output import FiniteRange, writable_folder


@click.command(short_help="Train a multi-exit network and write a model directory.")
@click.option("--data", required=True, help="Zip archive or folder of [<split>/]<class>/<image>, or torchvision:DIR.")
@click.option("--architecture", default="mobilenetv2", show_default=True, help="What to train, or a file of one.")
@click.option(
    "--start-from",
    help="Model whose weights to start with, a .tflite or .onnx file of the backbone, a .safetensors file of "
    "torchvision's tensors, or torchvision for its weights.",
)
@click.option("--epochs", default=30, show_default=True, type=click.IntRange(min=1), help="Passes over the images.")
@click.option(
    "--seed",
    default=1,
    show_default=True,
    type=click.IntRange(0, 2**31 - 1),
    help="Decides the split, the weights and the order.",
)
@click.option("--batch-size", default=256, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    type=click.Choice(["fp32", "bf16"]),
    help="Of activations; bf16 is faster on processors and GPUs that compute in it.",
)
@click.option(
    "--early-exit-weight",
    default=0.4,
    show_default=True,
    type=FiniteRange(min=0.0, max=10.0),
    help="Weight of each early exit's loss; the last one's is 1.",
)
@click.option(
    "--learning-rate",
    default=0.1,
    show_default=True,
    type=FiniteRange(min=0.0, max=10.0, min_open=True),
    help="The highest, for batches of 128; lower ones suit a start from a trained model.",
)
@click.option(
    "--averaged-epochs",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Last epochs, at a constant learning rate, whose weights are averaged for the result.",
)
@click.option("--device", default="cpu", show_default=True, type=click.Choice(["cpu", "cuda"]))
@click.option(
    "--validation-size",
    type=click.IntRange(min=1),
    help="Training images held out for calibration; a tenth of them by default.",
)
@click.option("--half-weights", is_flag=True, help="Store weights as float16: half the size of the model directory.")
@click.option(
    "--out",
    "out_directory",
    required=True,
    type=click.Path(path_type=Path),
    callback=writable_folder,
    help="Model directory to write; its name is the model's.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue from the checkpoint in --out; unless epochs are averaged, --epochs, --early-exit-weight and "
    "--learning-rate may be others.",
)
@click.option("--threads", default=0, type=click.IntRange(min=0), help="CPU threads; 0 for all cores.")
def train(
    data: str,
    architecture: str,
    start_from: str | None,
    epochs: int,
    seed: int,
    batch_size: int,
    precision: str,
    early_exit_weight: float,
    learning_rate: float,
    averaged_epochs: int,
    device: str,
    validation_size: int | None,
    half_weights: bool,
    out_directory: Path,
    resume: bool,
    threads: int,
) -> None:
    """Train a multi-exit network and write a model directory."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from mdi_exit_ros.model.architecture import load_architecture
    from mdi_exit_ros.model.segment import SegmentedNetwork
    from mdi_exit_ros.training.loop import TrainingOptions
    from mdi_exit_ros.training.session import TrainingRun, train_model
    from mdi_exit_ros.training.start import starting_point

    network = load_architecture(architecture)
    options = TrainingOptions(
        epochs=epochs,
        seed=seed,
        batch_size=batch_size,
        precision=precision,
        early_exit_weight=early_exit_weight,
        peak_learning_rate=learning_rate,
        averaged_epochs=averaged_epochs,
    )
    usual = TrainingOptions()
    # the card names the archive, not where it lay on this computer
    command = (
        f"mdi-exit train --data {_place(data)} --architecture {Path(architecture).name} --epochs {epochs} "
        f"--seed {seed} --batch-size {batch_size} --precision {precision}"
        + (f" --early-exit-weight {early_exit_weight}" if early_exit_weight != usual.early_exit_weight else "")
        + (f" --learning-rate {learning_rate}" if learning_rate != usual.peak_learning_rate else "")
        + (f" --averaged-epochs {averaged_epochs}" if averaged_epochs else "")
        + (f" --validation-size {validation_size}" if validation_size else "")
        + (" --half-weights" if half_weights else "")
        + (f" --start-from {Path(start_from).name if Path(start_from).is_file() else start_from}" if start_from else "")
    )
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        bar = progress.add_task("reading images", total=None)

        def show_step(epoch: int, step: int, steps: int, loss: float) -> None:
            progress.update(bar, description=f"epoch {epoch}/{epochs} loss {loss:.3f}", completed=step, total=steps)

        train_model(
            TrainingRun(
                name=out_directory.absolute().name,
                architecture=network,
                data=data,
                validation_size=validation_size,
                options=options,
                start=starting_point(start_from, SegmentedNetwork(network), network.backbone) if start_from else None,
                command=command,
                half_weights=half_weights,
            ),
            out_directory=out_directory,
            resume=resume,
            threads=threads,
            device=device,
            on_step=show_step,
            say=progress.console.print,
        )


def _place(data: str) -> str:
    """Images to train with, without where they lay on this computer."""
    from mdi_exit_ros.training.datasets import TORCHVISION_PREFIX

    prefix = TORCHVISION_PREFIX if data.startswith(TORCHVISION_PREFIX) else ""
    return prefix + Path(data.removeprefix(prefix)).name
