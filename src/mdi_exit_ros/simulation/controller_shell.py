# SPDX-License-Identifier: Apache-2.0
"""The simulated controller."""

from __future__ import annotations

from typing import Any

from mdi_exit_ros.policy.actions import (
    PublishPolicy,
    ShowModel,
    Warn,
)
from mdi_exit_ros.policy.cadence import CLUSTER_PERIOD_S, REPORT_PERIOD_S
from mdi_exit_ros.policy.controller import ClusterSummary, ControllerCore
from mdi_exit_ros.policy.events import (
    AppliedPolicy,
    SourceReport,
    WorkerReport,
)
from mdi_exit_ros.simulation.shells import Carrier, Node


class SimulatedController(Node):
    """A controller; `timeline` has what it saw of the cluster, five times a second."""

    core: ControllerCore | None

    def __init__(self, core: ControllerCore, *, carrier: Carrier, **node: Any) -> None:
        super().__init__(core.setup.me.name, core, **node)
        self._carrier = carrier
        self._reports: dict[str, WorkerReport | SourceReport] = {}
        self._looked_at = self._cluster_at = float("-inf")
        self.policy: AppliedPolicy | None = None
        self.timeline: list[tuple[float, ClusterSummary]] = []

    def take_report(self, report: WorkerReport | SourceReport) -> None:
        """A status has arrived; only the newest of each counts."""
        name = report.worker.name if isinstance(report, WorkerReport) else report.source.name
        self._reports[name] = report

    def due(self) -> float:
        """When anything is due (s)."""
        return min(super().due(), self._looked_at + REPORT_PERIOD_S)

    def _tick(self) -> None:
        now = self.clock.now
        if self.core is not None and now >= self._looked_at + REPORT_PERIOD_S:
            self._looked_at = now
            reports, self._reports = self._reports, {}
            for report in reports.values():
                self._step(report)
            if now >= self._cluster_at + CLUSTER_PERIOD_S:
                self._cluster_at = now
                self.timeline.append((now, self.core.cluster(now)))
        super()._tick()

    def perform(self, action: Any) -> None:
        """Publishes the policy."""
        match action:
            case PublishPolicy():
                self.policy = action.policy
                self.publish(self.costs.status_out_us, lambda: self._carrier.policy(action.policy))
            case ShowModel() | Warn():
                pass
