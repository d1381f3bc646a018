# SPDX-License-Identifier: Apache-2.0
"""Random crops, mirrored images and cut-out squares, for a whole batch at once."""

from __future__ import annotations

import torch


def augment(frames: torch.Tensor, *, padding: int, cutout: int, generator: torch.Generator) -> torch.Tensor:
    """Each frame shifted by up to `padding` pixels, its edge reflected, mirrored half of the time, a square cut out.

    Args:
        frames: (B, H, W, 3) uint8.
        padding: Largest shift in pixels, at least 0.
        cutout: Side in pixels of the square that is filled with the frame's mean colour; 0 for none.
        generator: Source of chance; the same state gives the same frames.
    """
    count, height, width, _ = frames.shape
    rows = torch.arange(height) + torch.randint(-padding, padding + 1, (count, 1), generator=generator)
    columns = torch.arange(width) + torch.randint(-padding, padding + 1, (count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = _reflect(rows, height), _reflect(columns, width)
    moved = frames[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    if cutout == 0:
        return moved
    top = torch.randint(0, height, (count, 1), generator=generator) - cutout // 2
    left = torch.randint(0, width, (count, 1), generator=generator) - cutout // 2
    hidden = _within(top, cutout, height)[:, :, None] & _within(left, cutout, width)[:, None, :]
    mean_colour = moved.float().mean(dim=(1, 2), keepdim=True).to(moved.dtype)
    return torch.where(hidden[..., None], mean_colour, moved)


def _reflect(index: torch.Tensor, size: int) -> torch.Tensor:
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)


def _within(start: torch.Tensor, length: int, size: int) -> torch.Tensor:
    position = torch.arange(size)
    return (position >= start) & (position < start + length)
