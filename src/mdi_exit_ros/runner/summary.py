# SPDX-License-Identifier: Apache-2.0
"""The summary of a run: what its sources say, put together with what only the runner knows."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from mdi_exit_ros.monitoring.cluster_monitor import WorkerSeen

_ADDED = ("offered", "admitted", "ok", "unaccounted", "retries", "duplicates", "labelled")


def merge(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One summary of several sources: counts added, shares weighted, latencies of the worst source."""
    if len(parts) == 1:
        return dict(parts[0])
    merged = dict(parts[0])
    for field in _ADDED:
        merged[field] = sum(part[field] for part in parts)
    for field in ("refused", "failed"):
        merged[field] = dict(sum((Counter(part[field]) for part in parts), Counter()))
    ok, labelled = merged["ok"], merged["labelled"]
    correct = sum((part["accuracy"] or 0.0) * part["labelled"] for part in parts)
    merged["accuracy"] = correct / labelled if labelled else None
    merged["exits"] = [
        sum(share * part["ok"] for share, part in zip(shares, parts, strict=True)) / ok if ok else 0.0
        for shares in zip(*(part["exits"] for part in parts), strict=True)
    ]
    merged["latency_ms"] = {
        name: max((part["latency_ms"][name] for part in parts if part["latency_ms"][name] is not None), default=None)
        for name in parts[0]["latency_ms"]
    }
    merged["duration_s"] = max(part["duration_s"] for part in parts)
    merged["throughput_fps"] = ok / merged["duration_s"] if merged["duration_s"] else 0.0
    steady = [part["steady_fps"] for part in parts]
    merged["steady_fps"] = sum(steady) if None not in steady else None
    merged["input_hash"] = "+".join(part["input_hash"] for part in parts)
    merged["sources"] = {part["source"]: {k: v for k, v in part.items() if k != "workers"} for part in parts}
    return merged


def worker_statistics(seen: WorkerSeen) -> dict[str, Any]:
    """The part of a worker's newest report that a summary keeps; counts in frames."""
    return {
        **seen.report.counters._asdict(),
        "rss_bytes": seen.rss_bytes,
        "cpu_s": seen.cpu_s,
        "segments": list(seen.report.segments),
        "model_id": seen.report.model_id,
    }


def with_workers(summary: Mapping[str, Any], statistics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The summary with the workers' last counters, and what follows from them."""
    known = {**summary.get("workers", {}), **statistics}
    total = Counter[str]()
    for worker in known.values():
        total.update({name: worker[name] for name in ("served", "batches", "moved_bytes")})
    return {
        **summary,
        "workers": dict(sorted(known.items())),
        "batch_mean": total["served"] / total["batches"] if total["batches"] else 0.0,
        "bytes_per_frame": total["moved_bytes"] / summary["ok"] if summary["ok"] else 0.0,
    }


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_tables(summary: Mapping[str, Any]) -> RenderableType:
    """What a user sees at the end."""
    frames = Table(title=f"{summary['topology']}, {summary['strategy']}", show_header=False)
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
            f"{worker['rss_bytes'] / 2**20:.0f}",
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
