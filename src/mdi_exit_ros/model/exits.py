# SPDX-License-Identifier: Apache-2.0
"""What is added to a backbone at its cuts: exit classifiers, and autoencoders that make features small."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn


def encoder(channels: int, width: int) -> nn.Module:
    """First half of an autoencoder: (B, channels, H, W) to (B, width, H, W), which is what crosses the network."""
    return nn.Sequential(nn.Conv2d(channels, width, kernel_size=1, bias=False), nn.BatchNorm2d(width))


def decoder(width: int, channels: int) -> nn.Module:
    """Second half of an autoencoder: (B, width, H, W) to (B, channels, H, W)."""
    return nn.Sequential(
        nn.Conv2d(width, channels, kernel_size=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
    )


class ExitHead(nn.Module):
    """Classifier after one segment: (B, C, H, W) features in, (B, classes) logits out.

    With `hidden_channels` it looks for patterns once more (3x3 convolution, stride 2) before it averages over the
    image; without, it averages and classifies, which is enough behind a whole backbone.
    """

    def __init__(self, channels: int, classes: int, *, hidden_channels: int | None, dropout: float = 0.0) -> None:
        super().__init__()
        if hidden_channels is None:
            self.hidden: nn.Module = nn.Identity()
        else:
            self.hidden = nn.Sequential(
                nn.Conv2d(channels, hidden_channels, kernel_size=3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(hidden_channels),
                nn.ReLU6(inplace=True),
            )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden_channels or channels, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes) of features (B, C, H, W)."""
        pooled = self.hidden(features).mean(dim=(2, 3))
        return cast(torch.Tensor, self.classifier(self.dropout(pooled)))
