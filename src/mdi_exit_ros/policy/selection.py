# SPDX-License-Identifier: Apache-2.0
"""Which controller's policy counts when there are several, or none any more."""

from __future__ import annotations

from mdi_exit_ros.policy.events import AppliedPolicy

CONTROLLER_TIMEOUT_S = 3.0


class PolicySelector:
    """Highest priority, then lowest name, among controllers heard lately; when all are silent the last one holds."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[AppliedPolicy, float]] = {}
        self.current: AppliedPolicy | None = None

    def hear(self, policy: AppliedPolicy, now: float) -> bool:
        """Takes in a policy. Returns whether more than one controller is alive."""
        self._heard[policy.controller.name] = (policy, now)
        alive = [entry for entry, at in self._heard.values() if now - at <= CONTROLLER_TIMEOUT_S]
        self._heard = {entry.controller.name: self._heard[entry.controller.name] for entry in alive}
        self.current = min(alive, key=lambda entry: (-entry.priority, entry.controller.name))
        return len(alive) > 1
