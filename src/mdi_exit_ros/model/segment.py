# SPDX-License-Identifier: Apache-2.0
"""A backbone cut into segments with an exit after each: the network that workers share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import nn

from mdi_exit_ros.errors import ModelError
from mdi_exit_ros.model.architecture import Architecture
from mdi_exit_ros.model.backbones import backbone_layers
from mdi_exit_ros.model.exits import ExitHead, decoder, encoder


class FrameNormalization(nn.Module):
    """uint8 RGB frames (B, H, W, 3) to float32 (B, 3, H, W) of zero mean and unit variance per colour."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("offset", torch.tensor(mean).view(1, 3, 1, 1) * 255.0)
        self.register_buffer("scale", 1.0 / (torch.tensor(std).view(1, 3, 1, 1) * 255.0))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Normalised images (B, 3, H, W) of frames (B, H, W, 3)."""
        offset, scale = cast(torch.Tensor, self.offset), cast(torch.Tensor, self.scale)
        return (frames.permute(0, 3, 1, 2).to(offset.dtype) - offset) * scale


class Segment(nn.Module):
    """Layers between two cuts, the exit behind them, and what makes their features small for the next segment."""

    def __init__(self, layers: Sequence[nn.Module], exit_head: ExitHead, encode: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.exit = exit_head
        self.encoder = encode
        self.temperature = 1.0

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, C, H, W) for the next segment and uncalibrated logits (B, classes)."""
        features = self.layers(batch)
        return self.encoder(features), self.exit(features)

    def classify(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Class (B,) int64 and calibrated confidence (B,) in [0, 1] of logits (B, classes)."""
        confidence, class_id = torch.softmax(logits / self.temperature, dim=1).max(dim=1)
        return class_id, confidence


class SegmentedNetwork(nn.Module):
    """All segments in order; segment 1 takes uint8 frames (B, H, W, 3)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        layers = backbone_layers(architecture.backbone, strides=architecture.strides)
        cuts = architecture.cuts
        for name in ("exit_hidden_channels", "bottleneck_channels"):
            given, expected = getattr(architecture, name), len(cuts) - (name == "bottleneck_channels")
            if given is not None and len(given) != expected:
                raise ModelError(f"{name}: expected {expected} entries for {len(cuts)} cuts, came {list(given)}")
        if cuts[-1] != len(layers):
            raise ModelError(
                f"the last cut must be behind the last of the {len(layers)} layers of {architecture.backbone}, "
                f"but cuts are {list(cuts)}"
            )
        spans = [layers[start:end] for start, end in pairwise((0, *cuts))]
        spans[0] = [FrameNormalization(architecture.pixel_mean, architecture.pixel_std), *spans[0]]
        self.segments = nn.ModuleList()
        with torch.no_grad():
            features = torch.zeros(1, *architecture.input_shape, dtype=torch.uint8)
            for cut, (span, hidden) in enumerate(zip(spans, architecture.exit_hidden_channels, strict=True), start=1):
                features = nn.Sequential(*span).eval()(features)
                head = ExitHead(
                    features.shape[1],
                    architecture.num_classes,
                    hidden_channels=hidden,
                    dropout=architecture.dropout if hidden is None else 0.0,
                )
                width, channels = architecture.bottleneck(cut), features.shape[1]
                encode = nn.Identity() if width is None else encoder(channels, width)
                self.segments.append(Segment(span, head, encode))
                if width is not None:
                    spans[cut].insert(0, decoder(width, channels))
                features = encode.eval()(features)
        self._cuts = cuts
        self.train()

    def backbone(self) -> list[tuple[str, nn.Module]]:
        """The backbone's layers by their names here, without what was put in front of a segment's first."""
        found = []
        for index, (segment, (start, end)) in enumerate(zip(self.segments, pairwise((0, *self._cuts)), strict=True)):
            layers = list(cast(Segment, segment).layers.named_children())
            found += [(f"segments.{index}.layers.{name}", layer) for name, layer in layers[start - end :]]
        return found

    def __getitem__(self, number: int) -> Segment:
        """Segment `number`, counted from 1."""
        return cast(Segment, self.segments[number - 1])

    def __len__(self) -> int:
        return len(self.segments)

    def forward(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """Uncalibrated logits (B, classes) of every exit, first to last."""
        batch, answers = frames, []
        for segment in self.segments:
            batch, logits = segment(batch)
            answers.append(logits)
        return answers
