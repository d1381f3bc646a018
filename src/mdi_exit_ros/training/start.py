# SPDX-License-Identifier: Apache-2.0
"""Weights that a training run starts with, instead of fresh ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mdi_exit_ros.errors import ModelError
from mdi_exit_ros.model.backbones import pretrained_layers
from mdi_exit_ros.model.card import load_card, weights_digest
from mdi_exit_ros.model.checkpoint import load_network, read_tensors
from mdi_exit_ros.model.segment import SegmentedNetwork
from mdi_exit_ros.training.foreign import FILE_SUFFIXES, backbone_tensors, settle_batch_norms

TORCHVISION = "torchvision"
STATE_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class StartingPoint:
    """Weights by name of tensor, as in `SegmentedNetwork.state_dict`.

    Attributes:
        name: Where they came from; goes onto the card.
        tensors: The weights.
        folded: Their batch normalizations were folded into the convolutions.
        trained_on: Hash of the images and seed of the split that they were trained on, where known.
    """

    name: str
    tensors: dict[str, torch.Tensor]
    folded: bool = False
    trained_on: tuple[str, int] | None = None

    def fill(self, network: SegmentedNetwork, frames: torch.Tensor) -> str:
        """Copies every tensor that fits in name and shape into `network`; answers with a line about it.

        Args:
            network: What is to be trained.
            frames: Some of its training images, (N, H, W, 3) uint8.

        Raises:
            ModelError: None fits.
        """
        state = network.state_dict()
        fitting = {
            name: tensor for name, tensor in self.tensors.items() if name in state and state[name].shape == tensor.shape
        }
        if not fitting:
            raise ModelError(f"no weight of {self.name} fits the network: expected one of the same backbone")
        network.load_state_dict(fitting, strict=False)
        if self.folded:
            settle_batch_norms(network, frames)
        return f"started from {self.name}: {len(fitting)} of {len(state)} tensors"


def starting_point(source: str, template: SegmentedNetwork, backbone: str) -> StartingPoint:
    """The weights that `source` names.

    Args:
        source: A model (shipped, or its folder), a file as `backbone_tensors` reads them, one of tensors by
            torchvision's names (.safetensors), or `torchvision` for that library's ImageNet weights, downloaded.
        template: A network of the architecture to be trained.
        backbone: Its backbone.

    Raises:
        ModelError: No such model, or its weights cannot be had.
    """
    path = Path(source)
    if path.suffix in (*FILE_SUFFIXES, STATE_SUFFIX):
        if not path.is_file():
            raise ModelError(f"no file {path} to start from")
        name = f"{path.name} {weights_digest([path])[:16]}"
        if path.suffix in FILE_SUFFIXES:
            return StartingPoint(name, backbone_tensors(template, path), folded=True)
        return StartingPoint(name, _named_alike(template, pretrained_layers(backbone, read_tensors(path))))
    if source != TORCHVISION:
        card = load_card(source)
        return StartingPoint(
            f"{card.name} {card.weights_sha256[:16]}",
            load_network(card).state_dict(),
            trained_on=(card.training.data_hash, card.training.seed),
        )
    return StartingPoint(f"torchvision's {backbone}", _named_alike(template, pretrained_layers(backbone)))


def _named_alike(template: SegmentedNetwork, pretrained: list[nn.Module]) -> dict[str, torch.Tensor]:
    """The tensors of the layers of a backbone, by their names in `template`, which is cut from the same backbone."""
    return {
        f"{place}.{name}": tensor
        for (place, _), layer in zip(template.backbone(), pretrained, strict=True)
        for name, tensor in layer.state_dict().items()
    }
