# SPDX-License-Identifier: Apache-2.0
"""A change of model while the cluster runs, in two phases.

First workers load the wanted model beside the one they run. When all have, the policy is final: sources admit nothing
until their frames of the old model have ended, and go on with the new one; a worker begins a new life with it as soon
as it holds nothing and no source is left that still has frames of the old model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from mdi_exit_ros.policy.actions import LoadModel
from mdi_exit_ros.policy.events import AppliedPolicy, ModelFacts, ModelLoaded, SourceReport, WorkerReport

RELOAD_S = 10.0  # after which a worker tries again to load what it could not: the model may have been copied there
RELOAD_MAX_S = 300.0  # the longest it waits, as it waits twice as long each time
PREPARE_TIMEOUT_S = 60.0  # for all workers to load a model, before the change is given up
CHANGE_PATIENCE_S = 20.0  # for sources to end their frames of the old model: longer than a frame may take


class PreparedModel:
    """Which model a worker has loaded beside its own, and whether it is time to change to it.

    Attributes:
        asked: content hash of the model that the policy names; empty: none.
        prepared: that of the model that is loaded beside; empty: none.
    """

    def __init__(self, own: str) -> None:
        self._own = own
        self.asked = ""
        self.prepared = ""
        self._due_since: float | None = None
        self._again_at = math.inf
        self._wait_s = RELOAD_S

    def ask(self, policy: AppliedPolicy, segments: Iterable[int], now: float) -> LoadModel | None:
        """What the policy in force wants loaded, said once, and again a while after it failed; None when nothing is."""
        if policy.model_id != self.asked:
            self._wait_s = RELOAD_S
        elif now < self._again_at:
            return None
        self.asked, self.prepared, self._again_at = policy.model_id, "", math.inf
        if policy.model_id in ("", self._own):
            return None
        return LoadModel(policy.model, policy.model_id, tuple(sorted(segments)))

    def loaded(self, event: ModelLoaded, now: float) -> None:
        """Takes in how loading ended."""
        if event.model_id != self.asked or self.asked == self._own:
            return
        if event.loaded:
            self.prepared, self._again_at = event.model_id, math.inf
        elif not self.prepared:
            self._again_at = now + self._wait_s
            self._wait_s = min(2.0 * self._wait_s, RELOAD_MAX_S)

    def due_s(self, policy: AppliedPolicy | None, now: float) -> float | None:
        """For how long the policy in force has had the worker change to what it has prepared (s); None: it has not."""
        if policy is None or not policy.model_final or not self.prepared or policy.model_id != self.prepared:
            self._due_since = None
            return None
        self._due_since = now if self._due_since is None else self._due_since
        return now - self._due_since


class ModelChange:
    """Which model a controller has the cluster run.

    Attributes:
        agreed: the model that sources and workers run, or change to.
        wanted: the model that workers load beside it; None while no change is going on.
    """

    def __init__(self, own: ModelFacts, *, is_named: bool = False) -> None:
        self.agreed = own
        self.wanted: ModelFacts | None = None
        self._before = ""
        self._is_named = is_named  # nobody is told which model to run before a user has asked for one
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
        """Workers of the models before, among those that are alive, that have not loaded the wanted one."""
        if self.wanted is None:
            return ()
        new = self.wanted.model_id
        old = {self._before, self.agreed.model_id} - {new}
        return tuple(sorted(n for n, each in reports.items() if each.model_id in old and each.prepared_model_id != new))

    def settle(self, reports: Mapping[str, WorkerReport], now: float) -> bool:
        """Whether the change has just ended, as all have loaded the model or it took too long; `agreed` says how."""
        if self.wanted is None:
            return False
        if any(self.runs_either(report) for report in reports.values()) and not self.missing(reports):
            self._before, self.agreed, self.wanted = self.agreed.model_id, self.wanted, None
            self._is_named = True
            self._since = now
            return True
        if now > self._since + PREPARE_TIMEOUT_S:
            self.wanted = None
            return True
        return False

    def is_left_by(self, reports: Mapping[str, WorkerReport], now: float) -> bool:
        """Whether workers are still on their way from the model before; whoever takes too long stays behind."""
        on_the_way = any(each.model_id == self._before for each in reports.values())
        return self._before != "" and on_the_way and now <= self._since + PREPARE_TIMEOUT_S

    def is_left(self, report: SourceReport) -> bool:
        """Whether the source still has frames of another model than the one that all change to."""
        return self._is_named and self.wanted is None and report.model_id != self.agreed.model_id

    def strangers(self, reports: Mapping[str, WorkerReport]) -> tuple[str, ...]:
        """Workers of another model than the agreed one, whom nobody has told to change."""
        if self._is_named or self.wanted is not None or not self.agreed.model_id:
            return ()
        return tuple(sorted(name for name, each in reports.items() if each.model_id != self.agreed.model_id))

    def runs_either(self, report: WorkerReport) -> bool:
        """Whether the worker takes part in the change."""
        models = (self._before, self.agreed.model_id, self.wanted.model_id) if self.wanted is not None else ()
        return report.model_id in models
