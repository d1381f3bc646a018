# SPDX-License-Identifier: Apache-2.0
"""Weights out of a network file of another framework (TensorFlow Lite, ONNX), as OpenVINO reads it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mdi_exit_ros.errors import ModelError
from mdi_exit_ros.model.segment import FrameNormalization, SegmentedNetwork

FILE_SUFFIXES = (".tflite", ".onnx")
CONVOLUTIONS = ("Convolution", "GroupConvolution")  # OpenVINO's layers
RESHAPING = ("Reshape", "Unsqueeze", "Transpose", "Convert")  # what may lie between a constant and its reader


@dataclass(frozen=True)
class Convolution:
    """A convolution with the batch normalization behind it folded in.

    Attributes:
        weight: (out, in / groups, height, width) float32.
        bias: (out,) float32.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def read_convolutions(path: Path) -> list[Convolution]:
    """All convolutions of the network in file `path`, in the order in which they run.

    Raises:
        ModelError: OpenVINO cannot read the file.
    """
    import openvino  # it takes a second, and few runs need it

    core = openvino.Core()
    try:
        graph = core.read_model(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(f"{path} cannot be read as a network ({', '.join(FILE_SUFFIXES)}): {reason}") from error
    layers = [layer for layer in graph.get_ordered_ops() if layer.get_type_name() in CONVOLUTIONS]
    if not layers:
        return []
    constants = openvino.Model([layer.input_value(1) for layer in layers], [], "weights")  # as convolutions read them
    compiled = core.compile_model(constants, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    convolutions = []
    for layer, weight in zip(layers, compiled([]).to_tuple(), strict=True):
        weight = weight.reshape(-1, *weight.shape[-3:])  # depthwise ones are (groups, out / groups, ...)
        convolutions.append(Convolution(weight, _bias_of(layer, len(weight))))
    return convolutions


def _bias_of(convolution: Any, channels: int) -> NDArray[np.float32]:
    """What the addition behind OpenVINO's layer `convolution` adds per channel; zeros where none is."""
    for reader in convolution.output(0).get_target_inputs():
        addition = reader.get_node()
        if addition.get_type_name() == "Add":
            node = addition.input_value(1 - reader.get_index()).get_node()
            while node.get_type_name() in RESHAPING:
                node = node.input_value(0).get_node()
            if node.get_type_name() == "Constant" and node.data.size == channels:
                bias: NDArray[np.float32] = node.data.astype(np.float32).reshape(-1)
                return bias
    return np.zeros(channels, np.float32)


def backbone_tensors(network: SegmentedNetwork, path: Path) -> dict[str, torch.Tensor]:
    """Tensors of the backbone of `network` that make it compute what the one in file `path` does.

    Convolutions are told by their shapes and order; what the file has between them (heads of a detector) is left out.
    The batch normalization behind each gets the bias and statistics that change nothing: `settle_batch_norms` is next.

    Args:
        network: What the tensors are for.
        path: A network whose batch normalizations are folded. One of TensorFlow Lite takes pixels from -1 to 1, one of
            ONNX normalised as `network` normalises them.

    Raises:
        ModelError: The file cannot be read, or holds another backbone.
    """
    read = read_convolutions(path)
    remaining = iter(read)
    tensors = {}
    pairs = _normalised_convolutions(network)
    for number, (name, layer, norm_name, norm) in enumerate(pairs):
        found = next((item for item in remaining if item.weight.shape == layer.weight.shape), None)
        if found is None:
            raise ModelError(
                f"{path} holds another backbone: of {len(pairs)} convolutions, number {number + 1} of shape "
                f"{tuple(layer.weight.shape)} does not follow among the file's {len(read)}"
            )
        weight, bias = torch.from_numpy(found.weight), torch.from_numpy(found.bias)
        if number == 0 and path.suffix == ".tflite":
            weight, bias = _for_normalised_pixels(weight, bias, network[1].layers[0])
        tensors[f"{name}.weight"] = weight
        tensors[f"{norm_name}.weight"] = torch.ones_like(bias)
        tensors[f"{norm_name}.bias"] = bias
        tensors[f"{norm_name}.running_mean"] = torch.zeros_like(bias)
        tensors[f"{norm_name}.running_var"] = torch.full_like(bias, 1.0 - norm.eps)
    return tensors


def settle_batch_norms(network: SegmentedNetwork, frames: torch.Tensor) -> None:
    """Gives the backbone's batch normalizations the statistics of `frames`, and scales that keep what each computes.

    Without it, training would start by normalising what was folded, with a scale of one.

    Args:
        network: Left in evaluation mode.
        frames: (N, H, W, 3) uint8.
    """

    def settle(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        mean, variance = inputs[0].mean(dim=(0, 2, 3)), inputs[0].var(dim=(0, 2, 3), unbiased=False)
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        norm.bias.add_(scale * (mean - norm.running_mean))
        norm.weight.copy_(scale * torch.sqrt(variance + norm.eps))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)

    hooks = [norm.register_forward_pre_hook(settle) for _, _, _, norm in _normalised_convolutions(network)]
    network.eval()
    with torch.no_grad():
        network(frames)
    for hook in hooks:
        hook.remove()


def _normalised_convolutions(network: SegmentedNetwork) -> list[tuple[str, nn.Conv2d, str, nn.BatchNorm2d]]:
    """Names and modules of the backbone's convolutions and of the batch normalization behind each."""
    layers = [inner for place, layer in network.backbone() for inner in layer.named_modules(prefix=place)]
    return [
        (name, layer, norm_name, norm)
        for (name, layer), (norm_name, norm) in pairwise(layers)
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    ]


def _for_normalised_pixels(
    weight: torch.Tensor, bias: torch.Tensor, normalization: nn.Module
) -> tuple[torch.Tensor, torch.Tensor]:
    """A first convolution of pixels in [-1, 1] as one of pixels as `normalization` leaves them."""
    assert isinstance(normalization, FrameNormalization)
    std = 1.0 / (normalization.scale * 255.0)  # type: ignore[operator]
    mean = normalization.offset / 255.0  # type: ignore[operator]
    return weight * 2.0 * std, bias + (weight * (2.0 * mean - 1.0)).sum(dim=(1, 2, 3))
