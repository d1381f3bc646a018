# SPDX-License-Identifier: Apache-2.0
"""Exit classifiers: what turns a segment's features into class logits."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn


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
