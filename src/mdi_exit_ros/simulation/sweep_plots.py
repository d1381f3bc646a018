# SPDX-License-Identifier: Apache-2.0
"""Pictures of sweeps: figures of simulated clusters against what was varied."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

matplotlib.use("Agg")
COLUMNS = 4

Row = Mapping[str, Any]


def draw_combinations(means: Sequence[Row], keys: Sequence[str], figures: Sequence[str], title: str) -> Figure:
    """One panel per figure, one line per value of the second key, means over all further keys."""
    picture = Figure(figsize=(7, 3.2 * len(figures) + 0.6), layout="constrained")
    picture.suptitle(title)
    for number, figure in enumerate(figures, 1):
        axes = picture.add_subplot(len(figures), 1, number)
        lines: dict[str, dict[Any, list[float]]] = {}
        for mean, place in zip(means, _axis([mean[keys[0]] for mean in means]), strict=True):
            name = f"{keys[1]} = {mean[keys[1]]}" if len(keys) > 1 else ""
            if mean[figure] is not None:
                lines.setdefault(name, {}).setdefault(place, []).append(mean[figure])
        for name, points in lines.items():
            axes.plot(list(points), [sum(each) / len(each) for each in points.values()], marker=".", label=name)
        axes.set_xlabel(keys[0])
        axes.set_ylabel(figure)
        axes.grid(alpha=0.3)
        if len(keys) > 1 and lines:
            axes.legend()
    return picture


def draw_apart(means: Sequence[Row], own: Mapping[str, Any], figures: Sequence[str], title: str) -> Figure:
    """One panel per key, one line per figure, as a percentage of what the scenario as it is brings.

    Args:
        means: the scenario as it is, then every key and value.
        own: the value that the scenario as it is has at a key; None where that is unknown.
        figures: what is drawn.
        title: of the picture.
    """
    base, rest = means[0], means[1:]
    names = list(dict.fromkeys(mean["key"] for mean in rest))
    columns = min(COLUMNS, len(names))
    lines = -(-len(names) // columns)
    picture = Figure(figsize=(3.6 * columns, 2.8 * lines + 1.0), layout="constrained")
    picture.suptitle(f"{title}: % of what it brings as it is (dotted)")
    panels = picture.subplots(lines, columns, sharey=True, squeeze=False)
    for axes, key in zip(panels.flat, names, strict=False):
        here = [mean for mean in rest if mean["key"] == key]
        places = _axis([mean["value"] for mean in here])
        for figure in figures:
            axes.plot(places, [_percent(mean[figure], base[figure]) for mean in here], marker=".", label=figure)
        own_place = own[key] if all(map(_is_number, places)) else str(own[key])
        if own_place in places or _is_number(own_place):
            axes.axvline(own_place, color="0.4", linestyle=":")
        axes.set_title(key, fontsize="medium")
        axes.grid(alpha=0.3)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    picture.legend(*panels.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(figures))
    return picture


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _axis(values: Sequence[Any]) -> list[Any]:
    """Numbers as they are; else everything as text, as an axis takes no mixture."""
    return list(values) if all(map(_is_number, values)) else [str(value) for value in values]


def _percent(value: float | None, base: float | None) -> float:
    """nan, which is not drawn, where there is nothing to compare."""
    return math.nan if value is None or not base else 100.0 * value / base
