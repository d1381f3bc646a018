# SPDX-License-Identifier: Apache-2.0
"""What only the runner knows for the summary of a run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mdi_exit_ros.monitoring.cluster_monitor import WorkerSeen


def worker_statistics(seen: WorkerSeen) -> dict[str, Any]:
    """The part of a worker's newest report that a summary keeps; counts in frames."""
    return {
        **seen.report.counters._asdict(),
        "rss_bytes": seen.rss_bytes,
        "cpu_s": seen.cpu_s,
        "segments": list(seen.report.segments),
        "model_id": seen.report.model_id,
    }


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
