# SPDX-License-Identifier: Apache-2.0
"""The JSON summary of one source's run, as far as the source knows it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdi_exit_msgs.msg import WorkerStatus

_WORKER_FIELDS = (
    *("served", "batches", "answered", "moved", "moved_bytes", "received_total", "refused", "failed", "superseded"),
    *("lost", "rss_bytes", "cpu_s"),
)


def summarise(
    ledger: Mapping[str, Any], duration_s: float, workers: Mapping[str, WorkerStatus], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The ledger's summary with rates, bytes and the last counters heard from each worker.

    Args:
        ledger: what SourceCore.summary says.
        duration_s: from the first frame offered to the last one closed.
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
