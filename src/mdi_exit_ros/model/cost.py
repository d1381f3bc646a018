# SPDX-License-Identifier: Apache-2.0
"""What a network costs to run, counted from its layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mdi_exit_ros.model.segment import SegmentedNetwork


def multiply_accumulates(module: nn.Module, batch: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Multiply-accumulates of convolutions and linear layers per image, and the output for `batch` (1, ...)."""
    total = 0

    def count(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        match layer:
            case nn.Conv2d():
                per_output = layer.weight[0].numel()
            case nn.Linear():
                per_output = layer.in_features
            case _:
                return
        total += output.numel() * per_output

    hooks = [layer.register_forward_hook(count) for layer in module.modules()]
    try:
        with torch.inference_mode():
            output = module(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return total, output


def segment_costs(
    network: SegmentedNetwork, input_shape: tuple[int, int, int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Multiply-accumulates per image of each segment without its exit, and of each exit, for frames (H, W, 3)."""
    batch = torch.zeros(1, *input_shape, dtype=torch.uint8)
    segments, exits = [], []
    for number in range(1, len(network) + 1):
        cost, features = multiply_accumulates(network[number].layers, batch)
        exits.append(multiply_accumulates(network[number].exit, features)[0])
        encoding, batch = multiply_accumulates(network[number].encoder, features)
        segments.append(cost + encoding)
    return tuple(segments), tuple(exits)
