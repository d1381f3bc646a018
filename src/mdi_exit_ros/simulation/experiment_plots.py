# SPDX-License-Identifier: Apache-2.0
"""Pictures of the experiments; what was measured on real computers is drawn apart from what was simulated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mdi_exit_ros.simulation.experiment_rows import PAYING_SHARE
from mdi_exit_ros.simulation.experiments import ALONE, DISTRIBUTED, LOCAL, TOPOLOGIES, WITHOUT_AUTOENCODER

matplotlib.use("Agg")
DPI = 120

Row = Mapping[str, Any]
_STYLES: dict[str, dict[str, Any]] = {
    "mdi_exit": {"color": "tab:blue", "marker": "o"},
    "mdi_exit, no exits": {"color": "tab:blue", "marker": "s", "linestyle": "--", "fillstyle": "none"},
    "ddi": {"color": "tab:orange", "marker": "^"},
    "ddi, no exits": {"color": "tab:orange", "marker": "v", "linestyle": "--", "fillstyle": "none"},
    "mdi": {"color": "tab:green", "marker": "D", "linestyle": "--", "fillstyle": "none"},
    "mdi_exit, no autoencoder": {"color": "tab:purple", "marker": "o"},
    "mdi_exit, no exits, no autoencoder": {
        "color": "tab:purple",
        "marker": "s",
        "linestyle": "--",
        "fillstyle": "none",
    },
    "mdi, no autoencoder": {"color": "tab:brown", "marker": "D", "linestyle": "--", "fillstyle": "none"},
    "local": {"color": "0.4", "marker": "."},
    "local, no exits": {"color": "0.4", "marker": "x", "linestyle": "--"},
}
_REAL: dict[str, Any] = {"linestyle": "none", "marker": "*", "markersize": 13, "color": "tab:red"}


def draw_rate(rows: Sequence[Row], real: Sequence[Row]) -> Figure:
    """Data rate reached against accuracy, one panel per topology; one computer alone stands in all of them."""
    figure = Figure(figsize=(14, 8), layout="constrained")
    panels = figure.subplots(2, 3, sharey=True)
    for axes, topology in zip(panels.flat, TOPOLOGIES, strict=False):
        for label, line in _lines(rows, topology):
            axes.plot(
                [row["rate_fps"] for row in line], _percent(line, "accuracy"), label=label, alpha=0.8, **_STYLES[label]
            )
        _draw_real(axes, real, topology, "rate_fps", "accuracy")
        axes.set_title(topology)
        axes.set_xlabel("data rate reached (frames/s)")
        axes.set_ylabel("accuracy (%)")
        axes.set_xlim(left=0.0)
        axes.grid(alpha=0.3)
    _legend(figure, panels.flat[-1], panels.flat)
    figure.suptitle(f"{_model(rows)}: data rate against accuracy at fixed thresholds, admission adapts (simulated)")
    return figure


def draw_threshold(rows: Sequence[Row], real: Sequence[Row]) -> Figure:
    """Accuracy and share of frames answered against arrival rate, one column per topology."""
    figure = Figure(figsize=(18, 8), layout="constrained")
    panels = figure.subplots(2, len(TOPOLOGIES), sharey="row", sharex=True)
    figures = (("accuracy", "accuracy of answered frames (%)"), ("answered_share", "frames answered (%)"))
    for column, topology in enumerate(TOPOLOGIES):
        for axes, (name, text) in zip(panels[:, column], figures, strict=True):
            for label, line in _lines(rows, topology):
                rates = [row["arrival_rate_hz"] for row in line]
                axes.plot(rates, _percent(line, name), label=label, alpha=0.8, **_STYLES[label])
            _draw_real(axes, real, topology, "arrival_rate_hz", name)
            axes.set_xlabel("arrival rate (frames/s, Poisson)")
            axes.set_xlim(left=0.0)
            axes.grid(alpha=0.3)
            if not column:
                axes.set_ylabel(text)
        panels[0, column].set_title(topology)
    _legend(figure, None, panels.flat)
    figure.suptitle(f"{_model(rows)}: accuracy against arrival rate, thresholds adapt (simulated)")
    return figure


def draw_scale(rows: Sequence[Row], real: Sequence[Row]) -> Figure:
    """Throughput, what a worker contributes, control traffic and decision cost against the number of workers."""
    figure = Figure(figsize=(12, 9), layout="constrained")
    ((throughput, share), (control, decisions)) = figure.subplots(2, 2, sharex=True)
    for number, series in enumerate(dict.fromkeys(row["series"] for row in rows)):
        line = [row for row in rows if row["series"] == series]
        workers = [row["workers"] for row in line]
        style: dict[str, Any] = {"color": f"C{number}", "marker": "o"}
        throughput.plot(workers, [row["rate_fps"] for row in line], label=series, **style)
        alone = [row["rate_fps"] for row in line if row["workers"] == 1]
        if alone:
            ideal = [alone[0] * count for count in workers]
            throughput.plot(workers, ideal, color=f"C{number}", linestyle=":", label="as many times one worker")
        share.plot(workers, _percent(line, "share_of_one_worker"), label=series, **style)
        messages = [row["control_messages_per_frame"] for row in line]
        kilobytes = [_scaled(row["control_bytes_per_frame"], 1e-3) for row in line]
        control.plot(workers, messages, label=f"messages, {series}", **style)
        control.plot(workers, kilobytes, label=f"kB, {series}", linestyle="--", fillstyle="none", **style)
        for kind, dashes in (("workers", "-"), ("sources", "--"), ("controller", ":")):
            spent = [row[f"decision_us_per_frame_{kind}"] for row in line]
            decisions.plot(workers, spent, label=f"{kind}, {series}", linestyle=dashes, **style)
    if real:
        measured = [row["workers"] for row in real], [row["rate_fps"] for row in real]
        throughput.plot(*measured, label="measured, see the data", **_REAL)
    share.axhline(100 * PAYING_SHARE, color="0.4", linewidth=1, label="below this, offloading does not pay")
    share.set_ylim(bottom=0.0)
    for axes, text in (
        (throughput, "throughput (frames/s)"),
        (share, "throughput per worker (% of one worker's alone)"),
        (control, "control traffic per frame"),
        (decisions, "decisions (µs of processor time per frame)"),
    ):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("workers, at most 32 neighbours each")
        axes.set_ylabel(text)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    for axes in (throughput, control, decisions):
        axes.set_yscale("log")
    figure.suptitle(f"{_model(rows)}: what grows with the number of workers (simulated)")
    return figure


DRAW = {"rate": draw_rate, "threshold": draw_threshold, "scale": draw_scale}
"""By experiment: its picture, of simulated rows and of measured ones."""


def _lines(rows: Sequence[Row], topology: str) -> list[tuple[str, list[Row]]]:
    """The lines of a panel, by label; what one computer does alone is the same in all."""
    found = []
    for place, series in ((topology, DISTRIBUTED + WITHOUT_AUTOENCODER), (ALONE, LOCAL)):
        for each in series:
            line = [row for row in rows if (row["topology"], row["series"]) == (place, each.label)]
            if line:
                found.append((each.label, line))
    return found


def _draw_real(axes: Axes, real: Sequence[Row], topology: str, across: str, up: str) -> None:
    here = [row for row in real if row["topology"] == topology and row[up] is not None]
    if here:
        axes.plot([row[across] for row in here], _percent(here, up), label="measured, see the data", **_REAL)


def _percent(rows: Sequence[Row], name: str) -> list[float]:
    return [_scaled(row[name], 100.0) for row in rows]


def _scaled(value: float | None, factor: float) -> float:
    """A figure in another unit; nan, which is not drawn, where there is none."""
    return math.nan if value is None else factor * value


def _model(rows: Sequence[Row]) -> str:
    return str(rows[0]["model"])


def _legend(figure: Figure, empty: Axes | None, panels: Any) -> None:
    """One legend for all panels, in the empty one or below."""
    entries: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    if empty is not None:
        empty.set_axis_off()
        empty.legend(entries.values(), entries.keys(), loc="center")
    else:
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=8)
