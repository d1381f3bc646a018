# SPDX-License-Identifier: Apache-2.0
"""One training run from images to a model directory."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from mdi_exit_ros.errors import ConfigurationError, DataError
from mdi_exit_ros.model.architecture import ARCHITECTURES
from mdi_exit_ros.model.segment import SegmentedNetwork
from mdi_exit_ros.training.datasets import load_split, split_validation
from mdi_exit_ros.training.finish import write_model
from mdi_exit_ros.training.loop import (
    CHECKPOINT_NAME,
    EpochReport,
    Trainer,
    TrainingOptions,
    exit_accuracy,
    exit_logits,
)


def train_model(
    *,
    data: str,
    architecture_name: str,
    options: TrainingOptions,
    validation_size: int,
    out_directory: Path,
    resume: bool,
    threads: int,
    command: str,
    on_step: Callable[[int, int, int, float], None],
    say: Callable[[str], None],
) -> None:
    """Trains, calibrates and writes a model directory; a checkpoint after every epoch makes it resumable.

    Args:
        data: Source for `load_split`; needs `train` and `test`.
        architecture_name: A key of `ARCHITECTURES`.
        options: How to train.
        validation_size: Training images held out for calibration.
        out_directory: Where the checkpoint and the model go.
        resume: Continue from the checkpoint there.
        threads: CPU threads, 0 for all cores.
        command: What the card says about how to do it again.
        on_step: Called after each step with epoch, step, steps per epoch and loss.
        say: Called with each line worth keeping.

    Raises:
        ConfigurationError: Unknown architecture, nothing to resume, a checkpoint of other options.
        DataError: The images cannot be read.
    """
    if architecture_name not in ARCHITECTURES:
        raise ConfigurationError(
            f"unknown architecture {architecture_name!r}: expected one of {', '.join(sorted(ARCHITECTURES))}"
        )
    _keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    height, width, _ = ARCHITECTURES[architecture_name].input_shape
    test = load_split(data, "test", image_size=(height, width))
    images = load_split(data, "train", image_size=(height, width))
    if images.class_names != test.class_names:
        raise DataError(
            f"training and test images must have the same classes: came {', '.join(images.class_names)} "
            f"and {', '.join(test.class_names)}"
        )
    if len(images.class_names) != ARCHITECTURES[architecture_name].num_classes:
        raise DataError(
            f"{architecture_name} tells {ARCHITECTURES[architecture_name].num_classes} classes apart, "
            f"but {data} has {len(images.class_names)}: {', '.join(images.class_names)}"
        )
    training, validation = split_validation(images, validation_size, seed=options.seed)
    torch.manual_seed(options.seed)
    trainer = Trainer(SegmentedNetwork(ARCHITECTURES[architecture_name]), training, options)
    out_directory.mkdir(parents=True, exist_ok=True)
    checkpoint = out_directory / CHECKPOINT_NAME
    if resume:
        if not checkpoint.is_file():
            raise ConfigurationError(f"nothing to resume: there is no {checkpoint}")
        trainer.restore(checkpoint)
    while trainer.epoch < options.epochs:
        started = time.monotonic()
        number = trainer.epoch + 1
        loss = trainer.run_epoch(partial(_report_step, on_step, number, trainer.steps_per_epoch))
        accuracy = exit_accuracy(exit_logits(trainer.network, validation.images), validation.labels)
        trainer.history.append(EpochReport(number, loss, accuracy))
        trainer.save(checkpoint)
        shown = " ".join(f"{value:.3f}" for value in accuracy)
        say(f"epoch {number}/{options.epochs} loss {loss:.3f} validation {shown} ({time.monotonic() - started:.0f} s)")
    write_model(
        network=trainer.network,
        architecture_name=architecture_name,
        name=architecture_name,
        data=data,
        test=test,
        training_images=len(training),
        validation=validation,
        epochs=options.epochs,
        seed=options.seed,
        command=command,
        out_directory=out_directory,
        say=say,
    )


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
