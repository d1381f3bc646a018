# SPDX-License-Identifier: Apache-2.0
"""The state of a training run between two epochs, in one safetensors file: opening it runs no code."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.training.loop import CHANGEABLE, EpochReport, Trainer, TrainingOptions

CHECKPOINT_NAME = "checkpoint.safetensors"


def save_checkpoint(trainer: Trainer, path: Path, *, origin: dict[str, Any]) -> None:
    """Writes everything that the next epoch depends on, atomically.

    Args:
        trainer: Between two epochs.
        path: File to write.
        origin: What the run was started with, by name; `restore_checkpoint` compares it. Values are JSON.
    """
    tensors = {f"network.{name}": tensor for name, tensor in trainer.network.state_dict().items()}
    for name, parameter in trainer.network.named_parameters():
        buffer = trainer.optimizer.state.get(parameter, {}).get("momentum_buffer")
        if buffer is not None:
            tensors[f"momentum.{name}"] = buffer
    if trainer.average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in trainer.average.state_dict().items()}
    state = {
        "epoch": trainer.epoch,
        "options": asdict(trainer.options),
        "origin": origin,
        "history": [asdict(report) for report in trainer.history],
    }
    partial = path.with_suffix(".partial")
    save_file(
        {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial, {"state": json.dumps(state)}
    )
    os.replace(partial, path)


def restore_checkpoint(trainer: Trainer, path: Path, *, origin: dict[str, Any]) -> None:
    """Continues from `save_checkpoint`.

    Unless epochs are averaged, options that are `CHANGEABLE` may be others than before: they hold for the next epochs,
    whose learning rate is that of their place among all.

    Raises:
        ConfigurationError: No readable checkpoint, one of a run that was started with something else, or one that has
            more epochs behind it than are asked for.
    """
    if not path.is_file():
        raise ConfigurationError(f"nothing to resume: there is no {path}")
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path} is not a whole checkpoint ({error}): start anew without --resume") from error
    ours = {**asdict(trainer.options), **origin}
    theirs = {**asdict(TrainingOptions()), **state["options"], **state["origin"]}  # options that came later
    changeable = CHANGEABLE if trainer.average is None else ()
    different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    different = [key for key in different if key not in changeable]
    if not different and trainer.options.epochs < state["epoch"]:
        raise ConfigurationError(
            f"{path} has {state['epoch']} epochs behind it, --epochs {trainer.options.epochs} asks for fewer: "
            f"resume with --epochs {state['epoch']} or more, or start anew without --resume"
        )
    if different:
        was = ", ".join(f"{key} {theirs.get(key)!r}, now {ours.get(key)!r}" for key in different)
        raise ConfigurationError(
            f"{path} was made by another run ({was}): resume with the same ones, or start anew without --resume"
        )
    trainer.network.load_state_dict(_below("network.", tensors))
    if trainer.average is not None:
        trainer.average.load_state_dict(_below("average.", tensors))
    for name, parameter in trainer.network.named_parameters():
        if f"momentum.{name}" in tensors:
            buffer = torch.empty_like(parameter)
            trainer.optimizer.state[parameter]["momentum_buffer"] = buffer.copy_(tensors[f"momentum.{name}"])
    trainer.epoch = state["epoch"]
    had = {name: theirs[name] for name in CHANGEABLE}  # before epochs kept their own, a run had the same throughout
    trainer.history = [EpochReport(**{"options": had, **report}) for report in state["history"]]


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
