# SPDX-License-Identifier: Apache-2.0
"""A backbone of one's own: a function from strides to a list of layers, which can be cut between any two."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

WIDTHS = (16, 32, 64, 128)


def layers(strides: Sequence[int]) -> list[nn.Module]:
    """Convolutions with batch normalisation; (B, 3, H, W) float32 in.

    Args:
        strides: One per layer.
    """
    channels = (3, *WIDTHS)
    return [
        nn.Sequential(
            nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        )
        for before, after, stride in zip(channels, WIDTHS, strides, strict=False)
    ]
