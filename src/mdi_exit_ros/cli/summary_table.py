# SPDX-License-Identifier: Apache-2.0
"""The end of a run, real or simulated, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table


def as_tables(summary: Mapping[str, Any]) -> RenderableType:
    """What a user sees at the end."""
    kind = ", simulated" if summary.get("simulated") else ""
    frames = Table(title=f"{summary['topology']}, {summary['strategy']}{kind}", show_header=False)
    frames.add_column(style="bold")
    frames.add_column()
    for name, value in _rows(summary):
        frames.add_row(name, value)
    workers = Table(title="workers")
    for heading in ("name", "segments", "tasks run", "mean batch", "answered", "moved", "MiB"):
        workers.add_column(heading, justify="left" if heading in ("name", "segments") else "right")
    for name, worker in summary["workers"].items():
        workers.add_row(
            name,
            " ".join(map(str, worker["segments"])),
            str(worker["served"]),
            f"{worker['served'] / worker['batches']:.1f}" if worker["batches"] else "",
            str(worker["answered"]),
            str(worker["moved"]),
            f"{worker['rss_bytes'] / 2**20:.0f}" if worker["rss_bytes"] is not None else "",
        )
    return Group(frames, workers)


def _rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    def counted(reasons: Mapping[str, int]) -> str:
        return f"{sum(reasons.values())} " + " ".join(f"{reason}={count}" for reason, count in reasons.items())

    latency = summary["latency_ms"]
    accuracy = summary["accuracy"]
    return [
        ("offered", f"{summary['offered']}"),
        ("ok", f"{summary['ok']}"),
        ("refused", counted(summary["refused"])),
        ("failed", counted(summary["failed"])),
        ("unaccounted", f"{summary['unaccounted']}"),
        ("accuracy", f"{accuracy:.4f} of {summary['labelled']} labelled" if accuracy is not None else "no labels"),
        ("throughput", f"{summary['throughput_fps']:.1f} frames/s over {summary['duration_s']:.1f} s"),
        ("latency", ", ".join(f"{name} {value:.1f} ms" for name, value in latency.items() if value is not None)),
        ("exits", " ".join(f"{share:.1%}" for share in summary["exits"])),
        ("moved", f"{summary['bytes_per_frame']:.0f} bytes/frame, mean batch {summary['batch_mean']:.1f}"),
        ("model", f"{summary['model']} {summary['model_id']}, {summary['backend']} {summary['precision']}"),
    ]
