# SPDX-License-Identifier: Apache-2.0
"""Joint training of all exits, resumable at every epoch to the same result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.model.segment import SegmentedNetwork
from mdi_exit_ros.training.augmentation import augment
from mdi_exit_ros.training.datasets import LabelledImages

GRADIENT_NORM_MAX = 5.0
AVERAGING_RATE = 0.25  # learning rate while weights are averaged, as a share of the peak


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. Everything that changes the result, apart from the data, the architecture and the start.

    Attributes:
        epochs: Passes over the training images.
        seed: Decides the validation split, the first weights and every chance after them.
        batch_size: Images per step.
        precision: `fp32`, or `bf16` for activations and gradients (weights stay in float32).
        peak_learning_rate: At the end of the warm-up, for batches of 128; larger ones raise it in proportion.
        warm_up_share: Share of all steps in which the learning rate rises.
        weight_decay: Of weights with more than one dimension.
        momentum: Of Nesterov's method.
        label_smoothing: Share of the label's probability spread over all classes.
        early_exit_weight: Weight of each early exit's loss; the last exit's is 1.
        distillation_weight: Weight of an early exit's distance from the last one's opinion, relative to its labels.
        distillation_temperature: Temperature at which that opinion is asked.
        crop_padding: Largest shift of an image in pixels.
        cutout: Side of the square cut out of each image in pixels.
        averaged_epochs: Last epochs whose weights are averaged for the result; the learning rate is constant in them.
    """

    epochs: int = 30
    seed: int = 1
    batch_size: int = 256
    precision: str = "fp32"
    peak_learning_rate: float = 0.1
    warm_up_share: float = 0.15
    weight_decay: float = 5e-4
    momentum: float = 0.9
    label_smoothing: float = 0.1
    early_exit_weight: float = 0.4
    distillation_weight: float = 0.5
    distillation_temperature: float = 2.0
    crop_padding: int = 4
    cutout: int = 8
    averaged_epochs: int = 0


CHANGEABLE = ("epochs", "early_exit_weight", "peak_learning_rate")
"""Options that may change between two epochs of a run, unless epochs are averaged."""


@dataclass
class EpochReport:
    """What one epoch brought.

    Attributes:
        epoch: Its number, from 1.
        loss: Mean loss of its steps.
        validation_accuracy: In [0, 1], of each exit on the validation images.
        options: The changeable ones that it was trained with.
    """

    epoch: int
    loss: float
    validation_accuracy: list[float] = field(default_factory=list)
    options: dict[str, float] = field(default_factory=dict)


def joint_loss(answers: list[torch.Tensor], labels: torch.Tensor, options: TrainingOptions) -> torch.Tensor:
    """Weighted cross-entropy of all exits, plus how far the early ones are from the last one's opinion.

    The distance is Hinton's distillation loss (2015, arXiv 1503.02531) with the network's own last exit as the teacher
    (Zhang et al. 2019, arXiv 1905.08094).

    Args:
        answers: Logits (B, classes) per exit.
        labels: (B,) int64.
        options: Weights and temperatures.
    """
    heat = options.distillation_temperature
    *early, last = [logits.float() for logits in answers]
    opinion = F.softmax(last.detach() / heat, dim=1)
    loss = F.cross_entropy(last, labels, label_smoothing=options.label_smoothing)
    for logits in early:
        labelled = F.cross_entropy(logits, labels, label_smoothing=options.label_smoothing)
        distance = F.kl_div(F.log_softmax(logits / heat, dim=1), opinion, reduction="batchmean") * heat**2
        loss = loss + options.early_exit_weight * (labelled + options.distillation_weight * distance)
    return loss


def learning_rate_factor(step: int, *, total_steps: int, warm_up_share: float, averaged_steps: int = 0) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then half a cosine down to zero.

    With `averaged_steps` the cosine ends at AVERAGING_RATE when these begin.
    """
    warm_up = max(1, round(total_steps * warm_up_share))
    if step < warm_up:
        return (step + 1) / warm_up
    fallen = min(1.0, (step - warm_up) / max(1, total_steps - averaged_steps - warm_up))
    lowest = AVERAGING_RATE if averaged_steps else 0.0
    return lowest + (1.0 - lowest) * 0.5 * (1.0 + math.cos(math.pi * fallen))


def exit_logits(network: SegmentedNetwork, images: NDArray[Any], *, batch_size: int = 500) -> NDArray[Any]:
    """Logits (exits, N, classes) float32 of images (N, H, W, 3) uint8, in evaluation mode."""
    network.eval()
    device = next(network.parameters()).device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            frames = torch.from_numpy(images[start : start + batch_size]).to(device)
            parts.append(torch.stack(network(frames)).cpu())
    return torch.cat(parts, dim=1).numpy()


def exit_accuracy(logits: NDArray[Any], labels: NDArray[Any]) -> list[float]:
    """Accuracy in [0, 1] per exit, from logits (exits, N, classes) and labels (N,)."""
    return [float(accuracy) for accuracy in (logits.argmax(axis=2) == labels).mean(axis=1)]


class Trainer:
    """Network, optimizer and schedule between two epochs. Chance depends on seed and epoch alone."""

    def __init__(
        self, network: SegmentedNetwork, training: LabelledImages, options: TrainingOptions, *, device: str = "cpu"
    ) -> None:
        self.network: SegmentedNetwork = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.options = options
        self.average = AveragedModel(self.network) if options.averaged_epochs else None
        self.epoch = 0
        self.history: list[EpochReport] = []
        self._device = device
        self._images = torch.from_numpy(training.images)
        self._labels = torch.from_numpy(training.labels)
        self.steps_per_epoch = len(training) // options.batch_size
        others = options.epochs - options.averaged_epochs
        if options.averaged_epochs and others <= options.warm_up_share * options.epochs:
            raise ConfigurationError(
                f"{options.averaged_epochs} epochs cannot be averaged of {options.epochs}: expected fewer, as the "
                "learning rate has to rise and fall before"
            )
        if self.steps_per_epoch == 0:
            raise ConfigurationError(
                f"{len(training)} training images do not fill one batch of {options.batch_size}: lower --batch-size"
            )
        if options.precision == "bf16" and device == "cpu":
            _stride_after_depthwise(self.network)
        decayed = [p for p in network.parameters() if p.ndim > 1]
        plain = [p for p in network.parameters() if p.ndim <= 1]
        self._peak = options.peak_learning_rate * options.batch_size / 128
        self.optimizer = torch.optim.SGD(
            [{"params": decayed, "weight_decay": options.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=self._peak,
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
            frames = self._frames(chosen, generator)
            factor = learning_rate_factor(
                self.epoch * self.steps_per_epoch + step,
                total_steps=options.epochs * self.steps_per_epoch,
                warm_up_share=options.warm_up_share,
                averaged_steps=options.averaged_epochs * self.steps_per_epoch,
            )
            for group in self.optimizer.param_groups:
                group["lr"] = self._peak * factor
            with torch.autocast(self._device, dtype=torch.bfloat16, enabled=options.precision == "bf16"):
                answers = self.network(frames)
            loss = joint_loss(answers, self._labels[chosen].to(self._device), options)
            if not torch.isfinite(loss):
                raise ConfigurationError(
                    f"the loss is no number any more in epoch {self.epoch + 1}, step {step + 1}: lower --learning-rate "
                    "and --resume: what was trained up to the epoch before is in the checkpoint"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM_MAX)
            self.optimizer.step()
            losses += loss.item()
            on_step(step + 1, loss.item())
        self.epoch += 1
        if self.average is not None and self.epoch > options.epochs - options.averaged_epochs:
            self.average.update_parameters(self.network)
        return losses / self.steps_per_epoch

    def result(self) -> SegmentedNetwork:
        """The trained network: as the last epoch left it, or the mean of the averaged ones with batch statistics anew.

        The mean is stochastic weight averaging (Izmailov et al. 2018, arXiv 1803.05407).
        """
        if self.average is None:
            return self.network
        seed = self.options.seed * 100_003 + self.epoch
        torch.manual_seed(seed)  # dropout
        with torch.autocast(self._device, dtype=torch.bfloat16, enabled=self.options.precision == "bf16"):
            update_bn(self._augmented(torch.Generator().manual_seed(seed)), self.average)
        return cast(SegmentedNetwork, self.average.module)

    def _augmented(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """Batches of all training images as an epoch would see them."""
        options = self.options
        order = torch.randperm(len(self._labels), generator=generator)
        for step in range(self.steps_per_epoch):
            chosen = order[step * options.batch_size : (step + 1) * options.batch_size]
            yield self._frames(chosen, generator)

    def _frames(self, chosen: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        options = self.options
        return augment(
            self._images[chosen], padding=options.crop_padding, cutout=options.cutout, generator=generator
        ).to(self._device)


def _stride_after_depthwise(network: nn.Module) -> None:
    """Has depthwise convolutions compute every pixel and drop those that their stride leaves out: the same output.

    The backward pass of depthwise convolutions with a stride takes twice as long in bfloat16 as in float32 (oneDNN of
    torch 2.13) and would be a third of a training step.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.stride != (1, 1):
            down, right = layer.stride
            layer.stride = (1, 1)
            layer.register_forward_hook(
                lambda _, __, output, down=down, right=right: output[:, :, ::down, ::right].contiguous(
                    memory_format=torch.channels_last
                )
            )
