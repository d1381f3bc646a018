# SPDX-License-Identifier: Apache-2.0
"""What a source writes at its end: its own part of the summary, and what it last heard of the workers."""

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


def worker_statistics(status: WorkerStatus) -> dict[str, Any]:
    """The part of a worker's newest status that a summary keeps; counts in frames."""
    return {
        **{field: getattr(status, field) for field in _WORKER_FIELDS},
        "segments": list(status.segments),
        "model_id": status.model_id,
    }


def write(summary: Mapping[str, Any], path: Path) -> None:
    """Writes the summary, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, path)
