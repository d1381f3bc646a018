# SPDX-License-Identifier: Apache-2.0
"""The cluster as diagnostic_msgs, for rqt_robot_monitor and aggregators."""

from __future__ import annotations

from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from mdi_exit_ros.policy.controller import ClusterSummary, WorkerRow


def diagnose(cluster: ClusterSummary, stamp: Any) -> DiagnosticArray:
    """One status for the cluster and one per worker."""
    return DiagnosticArray(
        header=Header(stamp=stamp), status=[_cluster(cluster), *(_worker(row) for row in cluster.workers)]
    )


def _cluster(cluster: ClusterSummary) -> DiagnosticStatus:
    alive = sum(row.alive for row in cluster.workers)
    if not alive:
        level, message = DiagnosticStatus.WARN, "no worker is alive"
    elif not cluster.sources_alive:
        level, message = DiagnosticStatus.WARN, "no camera source is alive"
    else:
        level, message = DiagnosticStatus.OK, f"{cluster.fps:.1f} frames/s on {alive} workers"
    values = {
        "frames/s": f"{cluster.fps:.1f}",
        "accuracy": f"{cluster.accuracy:.4f}",
        "latency p95 [ms]": f"{cluster.latency_ms[1]:.1f}",
        "refused": str(cluster.refused),
        "failed": str(cluster.failed),
        "mode": cluster.policy.mode.name.lower(),
        "exit thresholds": ", ".join(f"{threshold:.3f}" for threshold in cluster.policy.exit_thresholds),
    }
    return _status("mdi_exit: cluster", cluster.controller, level, message, values)


def _worker(row: WorkerRow) -> DiagnosticStatus:
    level, message = (DiagnosticStatus.OK, "running") if row.alive else (DiagnosticStatus.ERROR, "not heard any more")
    values = {
        "input queue": str(row.input_queue),
        "output queue": str(row.output_queue),
        "service time [ms]": f"{1000.0 * row.service_time_s:.3f}",
        "served": str(row.served),
    }
    return _status(f"mdi_exit: worker {row.name}", row.name, level, message, values)


def _status(name: str, hardware: str, level: bytes, message: str, values: dict[str, str]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(name=name, hardware_id=hardware, level=level, message=message, values=pairs)
