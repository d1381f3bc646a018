# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from literals import CONTROLLER

from mdi_exit_ros.nodes.diagnostics import diagnose
from mdi_exit_ros.policy.controller import ClusterSummary, WorkerRow
from mdi_exit_ros.policy.events import AppliedPolicy
from mdi_exit_ros.task import Mode

ALIVE = WorkerRow("worker1", True, 3, 2, 0.0015, 40)
DEAD = WorkerRow("worker2", False, 0, 0, 0.002, 7)


def summary(*workers: WorkerRow, sources_alive: int = 1) -> ClusterSummary:
    return ClusterSummary(
        controller="controller",
        policy=AppliedPolicy(CONTROLLER, 0, 1, Mode.RATE, (0.8, 0.65), 0.0, (), 16, 0.2),
        uptime_s=5.0,
        sources_alive=sources_alive,
        fps=123.45,
        offered_fps=130.0,
        accuracy=math.nan,
        latency_ms=(12.0, 30.0, 40.0),
        **{"offered": 60, "admitted": 58, "refused": 2, "ok": 50, "failed": 1, "retries": 0, "total": 80},
        **{"waiting": 0, "in_flight": 7, "exits": (40, 10), "admission_rate_hz": 0.0},
        workers=workers,
    )


def test_cluster_and_every_worker_have_a_status_and_a_dead_one_is_an_error():
    found = diagnose(summary(ALIVE, DEAD), Time(sec=7))
    assert found.header.stamp.sec == 7
    assert [(each.name, each.hardware_id, each.level, each.message) for each in found.status] == [
        ("mdi_exit: cluster", "controller", DiagnosticStatus.OK, "123.5 frames/s on 1 workers"),
        ("mdi_exit: worker worker1", "worker1", DiagnosticStatus.OK, "running"),
        ("mdi_exit: worker worker2", "worker2", DiagnosticStatus.ERROR, "not heard any more"),
    ]
    cluster, worker, _ = ({pair.key: pair.value for pair in each.values} for each in found.status)
    assert cluster == {
        **{"frames/s": "123.5", "accuracy": "nan", "latency p95 [ms]": "30.0", "refused": "2", "failed": "1"},
        **{"mode": "rate", "exit thresholds": "0.800, 0.650"},
    }
    assert worker == {"input queue": "3", "output queue": "2", "service time [ms]": "1.500", "served": "40"}


@pytest.mark.parametrize(
    ("workers", "sources_alive", "message"),
    [
        ((), 1, "no worker is alive"),
        ((DEAD,), 1, "no worker is alive"),
        ((DEAD,), 0, "no worker is alive"),
        ((ALIVE,), 0, "no camera source is alive"),
    ],
)
def test_cluster_that_answers_nothing_is_a_warning(workers, sources_alive, message):
    cluster = diagnose(summary(*workers, sources_alive=sources_alive), Time()).status[0]
    assert (cluster.level, cluster.message) == (DiagnosticStatus.WARN, message)
