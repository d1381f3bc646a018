# SPDX-License-Identifier: Apache-2.0
"""What a network looks like, without its weights: enough to build it again."""

from __future__ import annotations

from dataclasses import dataclass

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True)
class Architecture:
    """A backbone and where it is cut.

    Attributes:
        backbone: Name of the backbone.
        cuts: Number of backbone layers in front of each exit, increasing; the last one is all layers.
        exit_hidden_channels: Width of each exit's hidden convolution; None for an exit without one.
        num_classes: Number of classes.
        input_shape: Frame (H, W, 3), uint8 RGB.
        strides: Stride of the stem and of each stage of the backbone; their product shrinks the image.
        dropout: Share of the pooled features dropped in training, at exits without a hidden convolution.
        pixel_mean: Mean per colour, of pixels in [0, 1].
        pixel_std: Standard deviation per colour, of pixels in [0, 1].
    """

    backbone: str
    cuts: tuple[int, ...]
    exit_hidden_channels: tuple[int | None, ...]
    strides: tuple[int, ...]
    num_classes: int = 10
    input_shape: tuple[int, int, int] = (32, 32, 3)
    dropout: float = 0.1
    pixel_mean: tuple[float, float, float] = CIFAR_MEAN
    pixel_std: tuple[float, float, float] = CIFAR_STD


ARCHITECTURES = {
    "mobilenetv2": Architecture(
        backbone="mobilenet_v2",
        cuts=(4, 7, 11, 14, 19),
        exit_hidden_channels=(64, 128, 128, 128, None),
        strides=(1, 1, 2, 2, 1, 1, 2, 1),
    )
}
