# SPDX-License-Identifier: Apache-2.0
"""Weights in files: safetensors only, so that opening a model never runs code from it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from mdi_exit_ros.errors import ModelError
from mdi_exit_ros.model.card import ModelCard
from mdi_exit_ros.model.segment import SegmentedNetwork


def save_weights(network: SegmentedNetwork, directory: Path, *, half: bool = False) -> tuple[str, ...]:
    """Writes weights and buffers of `network` to a safetensors file per segment; answers with their names.

    Args:
        network: What to save.
        directory: An existing folder.
        half: Store float32 as float16, which halves the files; they are read back as float32.
    """
    names = []
    for number in range(1, len(network) + 1):
        prefix = f"segments.{number - 1}."
        tensors = {prefix + name: tensor.contiguous() for name, tensor in network[number].state_dict().items()}
        if half:
            tensors = {name: t.half() if t.dtype == torch.float32 else t for name, t in tensors.items()}
        names.append(f"segment_{number}.safetensors")
        partial = directory / f"{names[-1]}.partial"
        partial.write_bytes(save(tensors))
        os.replace(partial, directory / names[-1])
    return tuple(names)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in the safetensors file `path`, by name.

    Raises:
        ModelError: It is missing, truncated, or no such file.
    """
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot read the weights in {path}: {error}; the file is missing or cut short") from error


def load_weights(network: SegmentedNetwork, paths: Sequence[Path]) -> None:
    """Fills `network` with the weights in `paths`.

    Raises:
        ModelError: A file is missing, truncated, or made for another network.
    """
    tensors: dict[str, torch.Tensor] = {}
    for each in paths:
        tensors |= read_tensors(each)
    path = paths[0].parent
    expected = network.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors or name not in expected:
            side = "has no" if name not in tensors else "has an unexpected"
            raise ModelError(f"the weights do not fit the network: {path} {side} tensor {name}")
        if tensors[name].shape != expected[name].shape:
            raise ModelError(
                f"the weights do not fit the network: {name} in {path} has shape {list(tensors[name].shape)}, "
                f"expected {list(expected[name].shape)}"
            )
    network.load_state_dict(tensors)


def load_network(card: ModelCard) -> SegmentedNetwork:
    """The whole network of `card`, with weights and temperatures, ready to infer.

    Raises:
        ModelError: The weights cannot be read, or card and weights disagree.
    """
    network = SegmentedNetwork(card.architecture)
    if len(network) != card.num_segments:
        raise ModelError(f"the card of {card.name!r} cuts {len(network)} segments but names {card.num_segments}")
    load_weights(network, card.weights_paths)
    for number, temperature in enumerate(card.temperatures, start=1):
        network[number].temperature = temperature
    network.eval().requires_grad_(False)
    shapes = feature_shapes(network, card.input_shape)
    if shapes != card.feature_shapes:
        raise ModelError(f"the card of {card.name!r} names feature shapes {card.feature_shapes}, but they are {shapes}")
    return network


def without_autoencoder(card: ModelCard) -> tuple[tuple[int, int, int], ...]:
    """(C, H, W) of the features after each segment, were there no autoencoder behind any cut."""
    architecture = dataclasses.replace(card.architecture, bottleneck_channels=None)
    return feature_shapes(SegmentedNetwork(architecture).eval(), card.input_shape)


def feature_shapes(network: SegmentedNetwork, input_shape: tuple[int, int, int]) -> tuple[tuple[int, int, int], ...]:
    """(C, H, W) of the features after each segment, for frames of `input_shape` (H, W, 3)."""
    shapes = []
    with torch.inference_mode():
        batch = torch.zeros(1, *input_shape, dtype=torch.uint8)
        for number in range(1, len(network) + 1):
            batch = network[number].encoder(network[number].layers(batch))
            _, channels, height, width = batch.shape
            shapes.append((channels, height, width))
    return tuple(shapes)
