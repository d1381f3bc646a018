# SPDX-License-Identifier: Apache-2.0
"""One training run from images to a model directory."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.model.architecture import Architecture
from mdi_exit_ros.model.segment import SegmentedNetwork
from mdi_exit_ros.training.checkpoint import CHECKPOINT_NAME, restore_checkpoint, save_checkpoint
from mdi_exit_ros.training.datasets import HELD_OUT, load_splits, split_validation
from mdi_exit_ros.training.finish import write_model
from mdi_exit_ros.training.loop import CHANGEABLE, EpochReport, Trainer, TrainingOptions, exit_accuracy, exit_logits
from mdi_exit_ros.training.start import StartingPoint

OPTION_OF = dict(zip(CHANGEABLE, ("--epochs", "--early-exit-weight", "--learning-rate"), strict=True))
SETTLING_IMAGES = 1024  # training images, at most, whose statistics weights without batch normalization get


@dataclass(frozen=True)
class TrainingRun:
    """What to train from what.

    Attributes:
        name: Name of the model.
        architecture: What to build; its number of classes is that of the images.
        data: Source for `load_splits`.
        validation_size: Training images held out for calibration; None for a tenth of them.
        options: How to train.
        start: Weights to start with; None for fresh ones.
        command: What the card says about how to do it again.
        half_weights: Store weights as float16.
    """

    name: str
    architecture: Architecture
    data: str
    validation_size: int | None
    options: TrainingOptions
    start: StartingPoint | None
    command: str
    half_weights: bool = False


def train_model(
    run: TrainingRun,
    *,
    out_directory: Path,
    resume: bool = False,
    threads: int = 0,
    device: str = "cpu",
    on_step: Callable[[int, int, int, float], None],
    say: Callable[[str], None],
) -> None:
    """Trains, calibrates and writes a model directory; a checkpoint after every epoch makes it resumable.

    Args:
        run: What to train from what.
        out_directory: Where the checkpoint and the model go.
        resume: Continue from the checkpoint there.
        threads: CPU threads, 0 for all cores.
        device: `cpu` or `cuda`.
        on_step: Called after each step with epoch, step, steps per epoch and loss.
        say: Called with each line worth keeping.

    Raises:
        ConfigurationError: Nothing to resume, a checkpoint of another run, a device that is not there.
        DataError: The images cannot be read.
        ModelError: The architecture cannot be built, or the weights to start with do not fit it.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            "this torch finds no CUDA device: leave --device out, or install a CUDA build of torch"
        )
    torch.backends.cudnn.allow_tf32 = False  # fp32 is meant; convolutions would be rounded to TF32 unasked
    _keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    height, width, _ = run.architecture.input_shape
    options = run.options
    images, test = load_splits(run.data, image_size=(height, width), seed=options.seed)
    training, validation = split_validation(images, run.validation_size or len(images) // HELD_OUT, seed=options.seed)
    say(f"{len(training)} images to train, {len(validation)} to calibrate, {len(test)} to report")
    architecture = replace(run.architecture, num_classes=len(images.class_names))
    torch.manual_seed(options.seed)
    network = SegmentedNetwork(architecture)
    if run.start is not None:
        every = -(-len(training) // SETTLING_IMAGES)
        say(run.start.fill(network, torch.from_numpy(training.images[::every])))
        if run.start.trained_on not in (None, (images.data_hash, options.seed)):
            say(
                f"{run.start.name} was trained on other images, or on another split of them: where it has seen those "
                "that are held out here, validation and test are too good"
            )
    trainer = Trainer(network, training, options, device=device)
    origin: dict[str, Any] = {
        "architecture": asdict(architecture),
        "data": images.data_hash,
        "validation_size": len(validation),
        "start": run.start.name if run.start else None,
    }
    origin["architecture"] = {
        key: list(value) if isinstance(value, tuple) else value for key, value in origin["architecture"].items()
    }
    out_directory.mkdir(parents=True, exist_ok=True)
    checkpoint = out_directory / CHECKPOINT_NAME
    if resume:
        restore_checkpoint(trainer, checkpoint, origin=origin)
    while trainer.epoch < options.epochs:
        started = time.monotonic()
        number = trainer.epoch + 1
        loss = trainer.run_epoch(partial(_report_step, on_step, number, trainer.steps_per_epoch))
        accuracy = exit_accuracy(exit_logits(trainer.network, validation.images), validation.labels)
        trainer.history.append(EpochReport(number, loss, accuracy, _changeable(options)))
        save_checkpoint(trainer, checkpoint, origin=origin)
        shown = " ".join(f"{value:.3f}" for value in accuracy)
        say(f"epoch {number}/{options.epochs} loss {loss:.3f} validation {shown} ({time.monotonic() - started:.0f} s)")
    trained = SegmentedNetwork(architecture)
    trained.load_state_dict(trainer.result().state_dict())
    write_model(
        network=trained,
        architecture=architecture,
        name=run.name,
        data=run.data,
        test=test,
        training_images=len(training),
        validation=validation,
        epochs=options.epochs,
        seed=options.seed,
        started_from=run.start.name if run.start else None,
        command=run.command + _options_before(trainer.history, options),
        half_weights=run.half_weights,
        out_directory=out_directory,
        say=say,
    )


def _changeable(options: TrainingOptions) -> dict[str, float]:
    return {name: getattr(options, name) for name in CHANGEABLE}


def _options_before(history: list[EpochReport], options: TrainingOptions) -> str:
    """What a card's command adds for a run that was resumed with other options than it began with."""
    now, told = _changeable(options), []
    for had, reports in groupby(history, key=lambda report: report.options):
        numbers = [report.epoch for report in reports]
        others = [f"{OPTION_OF[name]} {value:g}" for name, value in had.items() if value != now[name]]
        if others:
            told.append(f"epochs {numbers[0]} to {numbers[-1]} with {' '.join(others)}")
    return f" --resume, {', '.join(told)}" if told else ""


def _report_step(
    on_step: Callable[[int, int, int, float], None], epoch: int, steps: int, step: int, loss: float
) -> None:
    on_step(epoch, step, steps, loss)


def _keep_freed_memory() -> None:
    """Has glibc keep freed memory instead of mapping it anew for every activation: 20 % more images/s."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 2**28)
