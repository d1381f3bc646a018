# SPDX-License-Identifier: Apache-2.0
"""The tensors of the tasks that a node holds, one row each, copied only when a batch is put together anew."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdi_exit_ros.task import FrameId, Task

Key = tuple[FrameId, int]  # frame and attempt


class Row(NamedTuple):
    """Row `position` of an array [B, ...]."""

    batch: NDArray[Any]
    position: int


def spans(rows: Sequence[Row]) -> list[NDArray[Any]]:
    """The rows as arrays [b, ...] that follow each other: views, one for rows that are neighbours in one array."""
    found: list[NDArray[Any]] = []
    start = 0
    for end in range(1, len(rows) + 1):
        if (
            end == len(rows)
            or rows[end].batch is not rows[start].batch
            or rows[end].position != rows[end - 1].position + 1
        ):
            first = rows[start].position
            found.append(rows[start].batch[first : first + end - start])
            start = end
    return found


def gather(rows: Sequence[Row]) -> NDArray[Any]:
    """The rows as one array [B, ...]: a view where they follow each other in one array, else a copy."""
    found = spans(rows)
    return found[0] if len(found) == 1 else np.concatenate(found)


class TensorStore:
    """The input of every task held, by frame and attempt."""

    def __init__(self) -> None:
        self._rows: dict[Key, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def keep(self, tasks: Iterable[Task], batch: NDArray[Any]) -> None:
        """Stores row i of `batch` for task i, unless that attempt is held already."""
        for index, task in enumerate(tasks):
            self._rows.setdefault((task.frame, task.attempt), Row(batch, index))

    def keep_each(self, tasks: Iterable[Task], values: Iterable[NDArray[Any]]) -> None:
        """Stores an array [1, ...] of its own for each task, unless that attempt is held already."""
        for task, value in zip(tasks, values, strict=True):
            self._rows.setdefault((task.frame, task.attempt), Row(value, 0))

    def replace(self, tasks: Iterable[Task], batch: NDArray[Any]) -> None:
        """Stores row i of `batch` for task i: the features that its segment made."""
        for index, task in enumerate(tasks):
            self._rows[task.frame, task.attempt] = Row(batch, index)

    def rows(self, tasks: Iterable[Task]) -> list[Row]:
        """The rows of tasks that are held."""
        return [self._rows[task.frame, task.attempt] for task in tasks]

    def forget(self, tasks: Iterable[Task]) -> None:
        """Frees the rows of tasks."""
        for task in tasks:
            self._rows.pop((task.frame, task.attempt), None)
