# SPDX-License-Identifier: Apache-2.0
"""Which controller's policy counts when there are several, or none any more."""

from __future__ import annotations

from mdi_exit_ros.policy.events import AppliedPolicy
from mdi_exit_ros.task import PeerId

CONTROLLER_TIMEOUT_S = 3.0


class PolicySelector:
    """Highest priority, then lowest name, among controllers heard lately; when all are silent the last one holds.

    A new life takes the place of the one before of that name, unless that turns out to be alive: then there are two.
    """

    def __init__(self) -> None:
        self._heard: dict[PeerId, tuple[AppliedPolicy, float]] = {}
        self._replaced: set[PeerId] = set()
        self.current: AppliedPolicy | None = None

    def hear(self, policy: AppliedPolicy, now: float) -> bool:
        """Takes in a policy. Returns whether more than one controller is alive."""
        life = policy.controller
        if life not in self._heard:
            self._replaced |= {other for other in self._heard if other.name == life.name}
        self._replaced.discard(life)
        self._heard[life] = (policy, now)
        self._heard = {each: heard for each, heard in self._heard.items() if now - heard[1] <= CONTROLLER_TIMEOUT_S}
        self._replaced &= self._heard.keys()
        alive = [entry for each, (entry, _) in self._heard.items() if each not in self._replaced]
        self.current = min(alive, key=lambda entry: (-entry.priority, entry.controller))
        return len(alive) > 1
