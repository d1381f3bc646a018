# SPDX-License-Identifier: Apache-2.0
"""Random crops and mirrored images, for a whole batch at once."""

from __future__ import annotations

import torch


def augment(frames: torch.Tensor, *, padding: int, generator: torch.Generator) -> torch.Tensor:
    """Each frame shifted by up to `padding` pixels, its edge reflected, and mirrored half of the time.

    Args:
        frames: (B, H, W, 3) uint8.
        padding: Largest shift in pixels, at least 0.
        generator: Source of chance; the same state gives the same frames.
    """
    count, height, width, _ = frames.shape
    rows = torch.arange(height) + torch.randint(-padding, padding + 1, (count, 1), generator=generator)
    columns = torch.arange(width) + torch.randint(-padding, padding + 1, (count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = _reflect(rows, height), _reflect(columns, width)
    return frames[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _reflect(index: torch.Tensor, size: int) -> torch.Tensor:
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)
