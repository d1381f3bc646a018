# SPDX-License-Identifier: Apache-2.0
"""The JSON summary of one source's run, as far as the source knows it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdi_exit_msgs.msg import WorkerStatus

STEADY_MIN = 1000  # frames of a run, below which its middle says little
_WORKER_FIELDS = (
    *("served", "batches", "answered", "moved", "moved_bytes", "received_total", "refused", "failed", "superseded"),
    *("lost", "rss_bytes", "cpu_s"),
)


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
    ledger: Mapping[str, Any],
    duration_s: float,
    steady_fps: float | None,
    workers: Mapping[str, WorkerStatus],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The ledger's summary with rates, bytes and the last counters heard from each worker.

    Args:
        ledger: what SourceCore.summary says.
        duration_s: from the first frame offered to the last one closed.
        steady_fps: what SteadyRate says.
        workers: newest status of each worker heard.
        facts: model_id, input_hash and the like, copied as they are.
    """
    served = sum(worker.served for worker in workers.values())
    batches = sum(worker.batches for worker in workers.values())
    moved_bytes = sum(worker.moved_bytes for worker in workers.values())
    ok = ledger["ok"]
    return {
        **ledger,
        "throughput_fps": ok / duration_s if duration_s > 0.0 else 0.0,
        "steady_fps": steady_fps,
        "bytes_per_frame": moved_bytes / ok if ok else 0.0,
        "batch_mean": served / batches if batches else 0.0,
        "workers": {
            name: {
                **{field: getattr(worker, field) for field in _WORKER_FIELDS},
                "segments": list(worker.segments),
                "model_id": worker.model_id,
            }
            for name, worker in sorted(workers.items())
        },
        "duration_s": duration_s,
        **facts,
    }


def write(summary: Mapping[str, Any], path: Path) -> None:
    """Writes the summary, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)
