# SPDX-License-Identifier: Apache-2.0
"""The controller node: the policy as ROS parameters, what is applied of it, and the cluster in plain numbers."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any, assert_never

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.parameter import Parameter
from rclpy.timer import Timer

from mdi_exit_msgs.msg import Policy, SourceStatus, WorkerStatus
from mdi_exit_ros.codec import INT8
from mdi_exit_ros.errors import MdiExitError, MessageError
from mdi_exit_ros.model.card import ModelCard, load_card
from mdi_exit_ros.node_settings import ControllerNodeSettings, SetPointSettings
from mdi_exit_ros.nodes import entry
from mdi_exit_ros.nodes.conversions import (
    cluster_to_message,
    policy_from_message,
    policy_to_message,
    source_report_from_message,
    worker_report_from_message,
)
from mdi_exit_ros.nodes.diagnostics import diagnose
from mdi_exit_ros.nodes.lifecycle import CoreNode
from mdi_exit_ros.nodes.local_delivery import LocalDelivery
from mdi_exit_ros.nodes.parameters import NodeConfig, changed, declare, declare_one
from mdi_exit_ros.nodes.serialized import NewestOfEach
from mdi_exit_ros.nodes.topics import DIAGNOSTICS
from mdi_exit_ros.parameter import check, on_grid, parameter
from mdi_exit_ros.policy.actions import ControllerAction, PublishPolicy, ShowModel
from mdi_exit_ros.policy.admission import THRESHOLD_INFO, AdaptationSettings
from mdi_exit_ros.policy.bottleneck import AllocationSetup, successors_of
from mdi_exit_ros.policy.cadence import CLUSTER_PERIOD_S, REPORT_PERIOD_S
from mdi_exit_ros.policy.controller import ControllerCore, ControllerSetup
from mdi_exit_ros.policy.events import AppliedPolicy, ModelFacts, ModelWanted, SetPoints, SetPointsChanged
from mdi_exit_ros.task import Mode

SLOW_PERIOD_S = 1.0  # of diagnostics and of applied.*
THRESHOLD = "exit_threshold."
APPLIED = "applied."


@dataclasses.dataclass(frozen=True)
class ControllerConfig(ControllerNodeSettings, NodeConfig):
    """Parameters of a controller besides those of adaptation and the thresholds."""

    model: str = parameter(
        "mobilenetv2", "shipped model, or folder with a model.json; changed here, the whole cluster changes", live=True
    )

    home: str = parameter("", "worker that frames enter, for adaptive_allocation")
    edges: list[str] = parameter([], "edges as FROM>TO over which segments may be spread, for adaptive_allocation")


class Controller(CoreNode):
    """Applies a policy to the cluster.

    Subscribes: workers, sources, policy. Publishes: policy, cluster, /diagnostics. Services: lifecycle and parameters.
    Parameters: ControllerConfig; live: SetPointSettings, exit_threshold.<k>, AdaptationSettings; applied.* mirror what
    is applied and are changed by the node alone.
    """

    core: ControllerCore | None

    def __init__(self, local: LocalDelivery | None = None) -> None:
        super().__init__("controller", local)
        self._mirror_timer: Timer | None = None
        self.config = self.declare_config(ControllerConfig)
        self.set_points = declare(self, SetPointSettings)
        self.settings = declare(self, AdaptationSettings)
        self.card = load_card(self.config.model)
        self._cards = {self.config.model: self.card}
        self._model_name = self.config.model
        self._is_named = False  # a user has asked for it while the cluster ran
        self.thresholds = [
            float(declare_one(self, f"{THRESHOLD}{exit_number}", default, THRESHOLD_INFO))
            for exit_number, default in enumerate(_facts(self._model_name, self.card).exit_thresholds, 1)
        ]
        self._mirroring = False
        self._settled: ShowModel | None = None
        self._applied: AppliedPolicy | None = None
        self._slow_at = self._cluster_at = self._reported_at = float("-inf")
        for name, value in self._mirror(None).items():
            self.declare_parameter(
                APPLIED + name, value, ParameterDescriptor(description="what is applied; changed by this node alone")
            )
        self.add_pre_set_parameters_callback(self._as_declared)
        self.add_on_set_parameters_callback(self._validate)
        self.add_post_set_parameters_callback(self._apply)

    def open(self) -> None:
        """Opens the endpoints."""
        self._policy = self.open_publisher(self.topics.policy_out)
        self._cluster = self.open_publisher(self.topics.cluster, overridable=True)
        self._diagnostics = self.open_publisher(DIAGNOSTICS)
        self._reports = (
            (NewestOfEach(WorkerStatus), worker_report_from_message),
            (NewestOfEach(SourceStatus), source_report_from_message),
        )
        for topic, (newest, _) in zip((self.topics.workers, self.topics.sources), self._reports, strict=True):
            self.open_subscription(topic, newest.put, raw=True)
        self.open_subscription(self.topics.policy_in, self._on_policy)
        self._mirror_timer = self.create_timer(
            SLOW_PERIOD_S, self._show_applied, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def close(self) -> None:
        """Stops mirroring."""
        if self._mirror_timer is not None:
            self.destroy_timer(self._mirror_timer)
            self._mirror_timer = None

    def start(self) -> ControllerCore:
        """A new core with the set-points as they are."""
        facts = _facts(self._model_name, self.card)
        self._settled = ShowModel(facts.model, tuple(self.thresholds))  # a wish of the life before is forgotten
        setup = ControllerSetup(
            me=self.new_life(),
            num_segments=self.card.num_segments,
            priority=self.config.leader_priority,
            model=facts.model,
            model_id=facts.model_id,
            is_named=self._is_named,
            curve=facts.curve,
            allocation=AllocationSetup(
                home=self.config.home,
                successors=successors_of(self.config.edges),
                segment_costs=facts.segment_costs,
                input_nbytes=facts.input_nbytes,
            ),
        )
        return ControllerCore(setup, self.settings, self._asked())

    def shut_down(self) -> None:
        """A controller holds nothing: the last policy stays in force."""

    def _asked(self) -> SetPoints:
        points = self.set_points
        return SetPoints(
            Mode[points.mode.upper()], tuple(self.thresholds), float(points.admission_rate), points.target_accuracy
        )

    # ---- messages in -----------------------------------------------------------------------------------------

    def _take_reports(self) -> None:
        for newest, from_message in self._reports:
            for message, _ in newest.take():
                try:
                    self.step(from_message(message))
                except MessageError as error:
                    self.say_once(f"report:{message.name}", f"dropped: {error}")
            if newest.unusable:
                self.say_once("reports", "dropped statuses that are none: another program publishes on these topics")

    def _on_policy(self, message: Policy) -> None:
        self.feed(policy_from_message(message, self.card.num_segments))

    # ---- parameters ------------------------------------------------------------------------------------------

    def _as_declared(self, parameters: list[Parameter[Any]]) -> list[Parameter[Any]]:
        """Whole numbers are doubles where doubles are wanted, and the other way round: ROS asks for `1.0` else."""
        found = []
        for each in parameters:
            wanted = self.get_parameter(each.name).type_ if self.has_parameter(each.name) else None
            if wanted is Parameter.Type.DOUBLE and each.type_ is Parameter.Type.INTEGER:
                each = Parameter(each.name, value=float(each.value))
            elif wanted is Parameter.Type.INTEGER and each.type_ is Parameter.Type.DOUBLE and each.value.is_integer():
                each = Parameter(each.name, value=int(each.value))
            found.append(each)
        return found

    def _validate(self, parameters: Sequence[Parameter[Any]]) -> SetParametersResult:
        reason = self._wrong(parameters)
        if reason:
            self.get_logger().warning(f"refused: {reason}")  # rqt does not show it
        return SetParametersResult(successful=not reason, reason=reason)

    def _wrong(self, parameters: Sequence[Parameter[Any]]) -> str:
        """What is wrong with new values; empty when nothing is."""
        values = {each.name: each.value for each in parameters}
        if not self._mirroring and any(name.startswith(APPLIED) for name in values):
            return "applied.* shows what is applied: change the set-point without `applied.` instead"
        try:
            if "model" in values and not self._mirroring:
                card = load_card(values["model"])
                card.check_takes_place_of(self.card)
                self._cards[values["model"]] = card
            check(changed(self.set_points, values))
            check(changed(self.settings, values))
        except MdiExitError as error:
            return str(error)
        return ""

    def _apply(self, parameters: Sequence[Parameter[Any]]) -> None:
        with self.condition:
            self._take_over({each.name: each.value for each in parameters})

    def _take_over(self, values: dict[str, Any]) -> None:
        before = (self.set_points, self.settings, list(self.thresholds))
        self.set_points = changed(self.set_points, values)
        self.settings = changed(self.settings, values)
        for index in range(len(self.thresholds)):
            self.thresholds[index] = values.get(f"{THRESHOLD}{index + 1}", self.thresholds[index])
        if before != (self.set_points, self.settings, self.thresholds):
            self.feed(SetPointsChanged(self._asked(), self.settings))
        if "model" in values and not self._mirroring:
            self._is_named = True
            facts = _facts(values["model"], self._cards[values["model"]])
            if self.core is None:
                self.perform(ShowModel(facts.model, facts.exit_thresholds))
            else:
                self.feed(ModelWanted(facts))

    def _mirror(self, policy: AppliedPolicy | None) -> dict[str, Any]:
        thresholds = policy.exit_thresholds if policy is not None else tuple(self.thresholds)
        return {
            "mode": policy.mode.name.lower() if policy is not None else self.set_points.mode,
            "version": policy.version if policy is not None else 0,
            "admission_interval_s": _longest_interval(policy),
            **{f"{THRESHOLD}{number}": round(value, 4) for number, value in enumerate(thresholds, 1)},
        }

    def _show_applied(self) -> None:
        """On the executor's thread, as every change of parameters; publishes under no lock."""
        shown = {APPLIED + name: value for name, value in self._mirror(self._applied).items()}
        if self._settled is not None:
            settled, self._settled = self._settled, None
            shown["model"] = settled.model
            shown |= {f"{THRESHOLD}{number}": value for number, value in enumerate(self.thresholds, 1)}
        news = [
            Parameter(name, value=value) for name, value in shown.items() if self.get_parameter(name).value != value
        ]
        if news:
            self._mirroring = True
            try:
                self.set_parameters_atomically(news)
            finally:
                self._mirroring = False

    # ---- actions ---------------------------------------------------------------------------------------------

    def perform(self, action: ControllerAction) -> None:
        """Does what the core asks."""
        match action:
            case PublishPolicy():
                self._applied = action.policy
                self._policy.publish(policy_to_message(action.policy))
            case ShowModel():
                self._settled = action
                self._model_name, self.card = action.model, self._cards[action.model]
                self.thresholds = list(action.exit_thresholds)
                self.get_logger().info(f"the cluster's model is {action.model}, thresholds {self.thresholds}")
            case _:
                assert_never(action)  # type: ignore[arg-type]  # Warn ends in CoreNode

    def housekeeping(self, now: float) -> float:
        """Publishes the picture of the cluster, and at a lower rate diagnostics."""
        assert self.core is not None
        if now >= self._reported_at + REPORT_PERIOD_S:
            self._reported_at = now
            self._take_reports()
        if now >= self._cluster_at + CLUSTER_PERIOD_S:
            self._cluster_at = now
            cluster = self.core.cluster(now)
            self._cluster.publish(cluster_to_message(cluster))
            if now >= self._slow_at + SLOW_PERIOD_S:
                self._slow_at = now
                self._diagnostics.publish(diagnose(cluster, self.get_clock().now().to_msg()))
        return min(self._reported_at + REPORT_PERIOD_S, self._cluster_at + CLUSTER_PERIOD_S)


def _facts(name: str, card: ModelCard) -> ModelFacts:
    """What the core knows of a model; thresholds as parameters have them, in the steps of a slider."""
    return ModelFacts(
        model=name,
        model_id=card.model_id,
        exit_thresholds=tuple(on_grid(THRESHOLD_INFO, default) for default in card.default_thresholds),
        curve=card.curve,
        segment_costs=card.segment_costs,
        input_nbytes=tuple(card.input_nbytes_of(segment, INT8) for segment in range(1, card.num_segments + 1)),
    )


def _longest_interval(policy: AppliedPolicy | None) -> float:
    """The slowest source's admission interval (s)."""
    if policy is None:
        return 0.0
    return round(max((interval for _, interval in policy.source_intervals_s), default=policy.admission_interval_s), 6)


def main() -> None:
    """Runs the node as a process."""
    sys.exit(entry.run("controller"))


if __name__ == "__main__":
    main()
