# SPDX-License-Identifier: Apache-2.0
"""A change of model while the cluster runs, in two phases.

First workers load the wanted model beside the one they run. When all have, the policy is final: sources admit nothing
until their frames of the old model have ended, and go on with the new one; a worker begins a new life with it as soon
as it holds nothing and no source is left that still has frames of the old model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mdi_exit_ros.policy.actions import LoadModel
from mdi_exit_ros.policy.events import AppliedPolicy, ModelFacts, ModelLoaded, WorkerReport

PREPARE_TIMEOUT_S = 60.0  # for all workers to load a model, before the change is given up


class PreparedModel:
    """Which model a worker has loaded beside its own, and whether it is time to change to it.

    Attributes:
        prepared: content hash of the model that is loaded beside; empty: none.
    """

    def __init__(self, own: str) -> None:
        self._own = own
        self._asked = ""
        self.prepared = ""
        self._segments: tuple[int, ...] = ()

    def ask(self, policy: AppliedPolicy, segments: Iterable[int]) -> LoadModel | None:
        """What the policy in force wants loaded, said once; None when nothing is."""
        if policy.model_id == self._asked:
            return None
        self._asked, self.prepared = policy.model_id, ""
        if policy.model_id in ("", self._own):
            return None
        self._segments = tuple(sorted(segments))
        return LoadModel(policy.model, policy.model_id, self._segments)

    def loaded(self, event: ModelLoaded) -> None:
        """Takes in how loading ended."""
        if event.loaded and event.model_id == self._asked:
            self.prepared = event.model_id

    def is_due(self, policy: AppliedPolicy | None) -> bool:
        """Whether the policy in force has the worker change to what it has prepared."""
        return policy is not None and policy.model_final and self.prepared != "" and policy.model_id == self.prepared

    @property
    def segments(self) -> tuple[int, ...]:
        """Segments of the prepared model that were loaded."""
        return self._segments


class ModelChange:
    """Which model a controller has the cluster run.

    Attributes:
        agreed: the model that sources and workers run, or change to.
        wanted: the model that workers load beside it; None while no change is going on.
    """

    def __init__(self, own: ModelFacts) -> None:
        self.agreed = own
        self.wanted: ModelFacts | None = None
        self._before = ""
        self._is_named = False  # nobody is told which model to run before a user has asked for one
        self._since = 0.0

    @property
    def named(self) -> tuple[str, str, bool]:
        """Model, content hash and whether it is final, as the policy has them."""
        if self.wanted is not None:
            return self.wanted.model, self.wanted.model_id, False
        return (self.agreed.model, self.agreed.model_id, True) if self._is_named else ("", "", True)

    def want(self, facts: ModelFacts, now: float) -> None:
        """A user wants this model; the one that is agreed on ends a change that is going on."""
        self._since = now
        if facts.model_id == self.agreed.model_id:
            self._is_named = self._is_named or self.wanted is None
            self.wanted = None
        else:
            self.wanted = facts

    def missing(self, reports: Mapping[str, WorkerReport]) -> tuple[str, ...]:
        """Workers of the old model, among those that are alive, that have not loaded the wanted one."""
        if self.wanted is None:
            return ()
        old, new = self.agreed.model_id, self.wanted.model_id
        return tuple(sorted(n for n, each in reports.items() if each.model_id == old and each.prepared_model_id != new))

    def settle(self, reports: Mapping[str, WorkerReport], now: float) -> bool:
        """Whether the change has just ended, as all have loaded the model or it took too long; `agreed` says how."""
        if self.wanted is None:
            return False
        if any(self.runs_either(report) for report in reports.values()) and not self.missing(reports):
            self._before, self.agreed, self.wanted = self.agreed.model_id, self.wanted, None
            self._is_named = True
            return True
        if now > self._since + PREPARE_TIMEOUT_S:
            self.wanted = None
            return True
        return False

    def is_left_by(self, reports: Mapping[str, WorkerReport]) -> bool:
        """Whether workers are still on their way from the model before."""
        return self._before != "" and any(each.model_id == self._before for each in reports.values())

    def is_strange_to(self, reports: Mapping[str, WorkerReport]) -> bool:
        """Whether all workers run another model than the agreed one, and nobody has told them to change."""
        own = self.agreed.model_id
        return bool(own and reports) and not self.named[0] and all(own != each.model_id for each in reports.values())

    def runs_either(self, report: WorkerReport) -> bool:
        """Whether the worker takes part in the change."""
        return self.wanted is not None and report.model_id in (self.agreed.model_id, self.wanted.model_id)
