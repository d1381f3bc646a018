# SPDX-License-Identifier: Apache-2.0
"""Joint training of all exits, resumable at every epoch to the same result."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.model.segment import SegmentedNetwork
from mdi_exit_ros.training.augmentation import augment
from mdi_exit_ros.training.datasets import LabelledImages

CHECKPOINT_NAME = "checkpoint.pt"


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. Everything that changes the result, apart from the data and the architecture."""

    epochs: int = 24
    seed: int = 1
    batch_size: int = 128
    peak_learning_rate: float = 0.1
    warm_up_share: float = 0.15
    weight_decay: float = 5e-4
    momentum: float = 0.9
    label_smoothing: float = 0.05
    exit_weights: tuple[float, ...] = (0.3, 0.35, 0.4, 0.4, 0.65)
    distillation_weight: float = 0.3
    distillation_temperature: float = 2.0
    crop_padding: int = 4


@dataclass
class EpochReport:
    """What one epoch brought: mean loss, and accuracy in [0, 1] of each exit on the validation images."""

    epoch: int
    loss: float
    validation_accuracy: list[float] = field(default_factory=list)


def joint_loss(answers: list[torch.Tensor], labels: torch.Tensor, options: TrainingOptions) -> torch.Tensor:
    """Weighted cross-entropy of all exits, plus how far the early ones are from the last one's opinion.

    Args:
        answers: Logits (B, classes) per exit.
        labels: (B,) int64.
        options: Weights and temperatures.
    """
    heat = options.distillation_temperature
    opinion = F.softmax(answers[-1].detach() / heat, dim=1)
    loss = torch.zeros(())
    for weight, logits in zip(options.exit_weights, answers, strict=True):
        loss = loss + weight * F.cross_entropy(logits, labels, label_smoothing=options.label_smoothing)
        if logits is not answers[-1]:
            distance = F.kl_div(F.log_softmax(logits / heat, dim=1), opinion, reduction="batchmean") * heat**2
            loss = loss + weight * options.distillation_weight * distance
    return loss


def learning_rate_factor(step: int, *, total_steps: int, warm_up_share: float) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then half a cosine down to zero."""
    warm_up = max(1, round(total_steps * warm_up_share))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, total_steps - warm_up)))


def exit_logits(network: SegmentedNetwork, images: NDArray[Any], *, batch_size: int = 500) -> NDArray[Any]:
    """Logits (exits, N, classes) float32 of images (N, H, W, 3) uint8, in evaluation mode."""
    network.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            frames = torch.from_numpy(images[start : start + batch_size])
            parts.append(torch.stack(network(frames)))
    return torch.cat(parts, dim=1).numpy()


def exit_accuracy(logits: NDArray[Any], labels: NDArray[Any]) -> list[float]:
    """Accuracy in [0, 1] per exit, from logits (exits, N, classes) and labels (N,)."""
    return [float(accuracy) for accuracy in (logits.argmax(axis=2) == labels).mean(axis=1)]


class Trainer:
    """Network, optimizer and schedule between two epochs. Chance depends on seed and epoch alone."""

    def __init__(self, network: SegmentedNetwork, training: LabelledImages, options: TrainingOptions) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.options = options
        self.epoch = 0
        self.history: list[EpochReport] = []
        self._images = torch.from_numpy(training.images)
        self._labels = torch.from_numpy(training.labels)
        self.steps_per_epoch = len(training) // options.batch_size
        if self.steps_per_epoch == 0:
            raise ConfigurationError(
                f"{len(training)} training images do not fill one batch of {options.batch_size}: lower --batch-size"
            )
        decayed = [p for p in network.parameters() if p.ndim > 1]
        plain = [p for p in network.parameters() if p.ndim <= 1]
        self._optimizer = torch.optim.SGD(
            [{"params": decayed, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=options.peak_learning_rate,
            momentum=options.momentum,
            nesterov=True,
        )

    def run_epoch(self, on_step: Callable[[int, float], None] = lambda step, loss: None) -> float:
        """Trains one epoch and returns its mean loss; `on_step` gets the steps done and the last loss."""
        options = self.options
        epoch_seed = options.seed * 100_003 + self.epoch
        generator = torch.Generator().manual_seed(epoch_seed)
        torch.manual_seed(epoch_seed)  # dropout
        self.network.train()
        order = torch.randperm(len(self._labels), generator=generator)
        losses = 0.0
        for step in range(self.steps_per_epoch):
            chosen = order[step * options.batch_size : (step + 1) * options.batch_size]
            frames = augment(self._images[chosen], padding=options.crop_padding, generator=generator)
            factor = learning_rate_factor(
                self.epoch * self.steps_per_epoch + step,
                total_steps=options.epochs * self.steps_per_epoch,
                warm_up_share=options.warm_up_share,
            )
            for group in self._optimizer.param_groups:
                group["lr"] = options.peak_learning_rate * factor
            loss = joint_loss(self.network(frames), self._labels[chosen], options)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
            self._optimizer.step()
            losses += loss.item()
            on_step(step + 1, loss.item())
        self.epoch += 1
        return losses / self.steps_per_epoch

    def save(self, path: Path) -> None:
        """Writes everything that the next epoch depends on, atomically."""
        state: dict[str, Any] = {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "epoch": self.epoch,
            "options": asdict(self.options),
            "history": [asdict(report) for report in self.history],
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def restore(self, path: Path) -> None:
        """Continues from `save`.

        Raises:
            ConfigurationError: The checkpoint was made with other options.
        """
        state = torch.load(path, weights_only=True)
        ours = asdict(self.options)
        ours["exit_weights"], theirs = list(ours["exit_weights"]), dict(state["options"])
        theirs["exit_weights"] = list(theirs["exit_weights"])
        if ours != theirs:
            different = sorted(key for key in ours if ours[key] != theirs.get(key))
            raise ConfigurationError(
                f"{path} was made with other options ({', '.join(different)}): "
                "resume with the same ones, or start anew without --resume"
            )
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.epoch = state["epoch"]
        self.history = [EpochReport(**report) for report in state["history"]]
