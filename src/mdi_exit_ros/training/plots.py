# SPDX-License-Identifier: Apache-2.0
"""Pictures of a calibration: accuracy against cost, reliability diagrams, and which exits answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

matplotlib.use("Agg")
DPI = 120


def draw_calibration(document: dict[str, Any], directory: Path) -> list[Path]:
    """Writes `tradeoff.png`, `reliability.png` and `exits.png`; answers with their paths.

    Args:
        document: What `mdi-exit calibrate --json` writes.
        directory: An existing folder.
    """
    drawn = {"tradeoff": _tradeoff(document), "reliability": _reliability(document), "exits": _exits(document)}
    paths = []
    for name, figure in drawn.items():
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=DPI)
    return paths


def _splits(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, document[name]) for name in ("validation", "test") if document.get(name)]


def _tradeoff(document: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, split in _splits(document):
        curve = split["curve"]
        (line,) = axes.plot(
            [point["mac_fraction"] for point in curve],
            [100 * point["accuracy"] for point in curve],
            marker=".",
            label=f"with exits, {split['images']} {name} images",
        )
        axes.fill_between(
            [point["mac_fraction"] for point in curve],
            [100 * point["accuracy_interval"][0] for point in curve],
            [100 * point["accuracy_interval"][1] for point in curve],
            color=line.get_color(),
            alpha=0.15,
        )
        axes.plot(
            document["mac_fraction_exits"],
            [100 * accuracy for accuracy in split["accuracy_exits"]],
            linestyle="none",
            marker="s",
            fillstyle="none",
            color=line.get_color(),
            label=f"each exit alone, {name}",
        )
        default = split["default"]
        axes.plot(default["mac_fraction"], 100 * default["accuracy"], marker="*", markersize=14, color=line.get_color())
    axes.set_xlabel("multiply-accumulates per image, relative to the last exit alone")
    axes.set_ylabel("accuracy (%)")
    axes.set_title(f"{document['model']}: accuracy against cost (star: default thresholds)")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _reliability(document: dict[str, Any]) -> Figure:
    name, split = _splits(document)[-1]
    exits = split["reliability"]
    figure = Figure(figsize=(2.6 * len(exits), 3.2), layout="constrained")
    for number, bins in enumerate(exits, start=1):
        axes = figure.add_subplot(1, len(exits), number)
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for when, marker in (("before", "o"), ("after", "s")):
            axes.plot(
                [each["confidence"] for each in bins[when]],
                [each["accuracy"] for each in bins[when]],
                marker=marker,
                markersize=3,
                linewidth=1,
                label=f"{when}: {split[f'ece_{when}'][number - 1]:.3f}",
            )
        axes.set_title(f"exit {number}")
        axes.set_xlabel("confidence")
        axes.legend(title="calibration error", fontsize="x-small", title_fontsize="x-small")
        if number == 1:
            axes.set_ylabel(f"accuracy ({name})")
    return figure


def _exits(document: dict[str, Any]) -> Figure:
    name, split = _splits(document)[-1]
    curve = split["curve"]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.stackplot(
        [100 * point["accuracy"] for point in curve],
        *zip(*(point["exit_shares"] for point in curve), strict=True),
        labels=[f"exit {number}" for number in range(1, 1 + len(curve[0]["exit_shares"]))],
    )
    axes.set_xlabel(f"accuracy on {name} images (%)")
    axes.set_ylabel("share of images answered")
    axes.margins(0)
    axes.legend(loc="lower left")
    return figure
