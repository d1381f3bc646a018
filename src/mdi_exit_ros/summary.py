# SPDX-License-Identifier: Apache-2.0
"""The JSON summary of a run, the same for a real and a simulated one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

STEADY_MIN = 1000  # frames of a run, below which its middle says little
_ADDED = ("offered", "admitted", "ok", "unaccounted", "retries", "duplicates", "labelled")


class SteadyRate:
    """Answered frames/s of the middle of a run of `total` frames, without its beginning and its end.

    At the beginning streams open, caches fill and service times are unknown; at the end there is too little to share.
    """

    def __init__(self, total: int) -> None:
        self._from, self._to = (total // 5, total * 19 // 20) if total >= STEADY_MIN else (0, 0)
        self._closed = self._answered = 0
        self._began: tuple[int, float] = (0, 0.0)
        self.fps: float | None = None

    def note(self, *, answered: bool, now: float) -> None:
        """Counts one closed frame; `now` is the local monotonic time (s)."""
        self._closed += 1
        self._answered += answered
        if self._closed == self._from:
            self._began = (self._answered, now)
        elif self._closed == self._to and now > self._began[1]:
            self.fps = (self._answered - self._began[0]) / (now - self._began[1])


def summarise(
    ledger: Mapping[str, Any], duration_s: float, steady_fps: float | None, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """One source's part: its ledger's summary with rates.

    Args:
        ledger: what SourceCore.summary says.
        duration_s: from the first frame offered to the last one closed.
        steady_fps: what SteadyRate says.
        facts: model_id, input_hash and the like, copied as they are.
    """
    return {
        **ledger,
        "throughput_fps": ledger["ok"] / duration_s if duration_s > 0.0 else 0.0,
        "steady_fps": steady_fps,
        "duration_s": duration_s,
        **facts,
    }


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
