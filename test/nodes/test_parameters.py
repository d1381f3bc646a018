# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import rclpy
from rcl_interfaces.msg import ParameterType
from rclpy.node import Node
from rclpy.parameter import Parameter

from mdi_exit_ros import node_settings
from mdi_exit_ros.codec import ENCODINGS
from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.model.backends.interface import DEVICES
from mdi_exit_ros.model.backends.registry import FASTEST_FIRST
from mdi_exit_ros.node_settings import SetPointSettings
from mdi_exit_ros.nodes.camera_source import CameraSourceConfig
from mdi_exit_ros.nodes.controller import Controller, ControllerConfig
from mdi_exit_ros.nodes.defaults import nodes_yaml
from mdi_exit_ros.nodes.parameters import declare
from mdi_exit_ros.nodes.segment_worker import SegmentWorkerConfig
from mdi_exit_ros.parameter import on_grid, parameter, parameters_of
from mdi_exit_ros.policy.admission import THRESHOLD_INFO, AdaptationSettings
from mdi_exit_ros.policy.source_setup import SourceSettings
from mdi_exit_ros.policy.worker_setup import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = [
    *(SegmentWorkerConfig, WorkerSettings),
    *(CameraSourceConfig, SourceSettings),
    *(SetPointSettings, AdaptationSettings),
]
LIVE = [SetPointSettings, AdaptationSettings]


@pytest.fixture
def make_node():
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(overrides=None, kind=Node, **options):
        parameters = [Parameter(name, value=value) for name, value in (overrides or {}).items()]
        nodes.append(kind("probe", context=context, parameter_overrides=parameters, **options))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def slider_positions(low: float, high: float) -> list[float]:
    """What rqt's slider sends: position / (100 / range), as text and back."""
    scale = 100 / (high - low)
    return [float(f"{position / scale:f}") for position in range(101)]


def test_nodes_yaml_holds_every_parameter_at_its_default():
    assert (ROOT / "config" / "nodes.yaml").read_text(encoding="utf-8") == nodes_yaml(), (
        "run: python -m mdi_exit_ros.nodes.defaults > config/nodes.yaml"
    )


@pytest.mark.parametrize("config", CONFIGS)
def test_config_is_declared_with_its_defaults_and_said_in_words(make_node, config):
    node = make_node(start_parameter_services=False)
    assert declare(node, config) == config()
    for name, _, info in parameters_of(config):
        described = node.describe_parameter(name)
        assert described.description.startswith(info.help)
        assert described.read_only is not info.live


@pytest.mark.parametrize("config", LIVE)
def test_every_position_of_every_slider_is_accepted(make_node, config):
    node = make_node(start_parameter_services=False)
    declare(node, config)
    for name, default, info in parameters_of(config):
        if isinstance(default, bool):
            values = [not default, default]
        elif isinstance(default, float):
            assert info.low == 0.0
            values = slider_positions(info.low, info.high)
        elif isinstance(default, int):
            values = [int(info.low), default + 1, int(info.high)]
        else:
            continue
        assert node.set_parameters([Parameter(name, value=default)])[0].successful, f"{name} is off the grid"
        for value in values:
            result = node.set_parameters([Parameter(name, value=value)])[0]
            assert result.successful, result.reason


def test_thresholds_of_the_model_are_moved_to_slider_positions():
    assert on_grid(THRESHOLD_INFO, 0.7349) == pytest.approx(0.73)
    assert on_grid(THRESHOLD_INFO, 1.2) == 1.0


@pytest.mark.parametrize(
    ("config", "overrides", "message"),
    [
        (WorkerSettings, {"batch_max": 0}, "batch_max: expected int such as 32 in 1..256"),
        (WorkerSettings, {"liveness_timeout_s": 1}, "liveness_timeout_s: expected float such as 1.5"),
        (SegmentWorkerConfig, {"strategy": "fastest"}, "strategy: expected one of local, ddi, mdi, mdi_exit"),
        (SegmentWorkerConfig, {"segments": ["1"]}, "segments: expected integer array"),
        (CameraSourceConfig, {"drop": True}, "drop: expected str"),
    ],
)
def test_wrong_value_is_one_clear_message(make_node, config, overrides, message):
    node = make_node(overrides, start_parameter_services=False)
    with pytest.raises(ConfigurationError, match=message):
        declare(node, config)


def test_arrays_may_be_empty_or_given(make_node):
    node = make_node({"segments": [2, 3]}, start_parameter_services=False)
    found = declare(node, SegmentWorkerConfig)
    assert (found.segments, found.neighbours) == ([2, 3], [])
    assert node.describe_parameter("segments").type == ParameterType.PARAMETER_INTEGER_ARRAY


def test_slider_that_does_not_start_at_zero_is_a_mistake_of_ours(make_node):
    @dataclasses.dataclass(frozen=True)
    class Wrong:
        share: float = parameter(0.5, "starts at one", low=1.0, high=2.0, live=True)

    with pytest.raises(ValueError, match="must start at 0"):
        declare(make_node(start_parameter_services=False), Wrong)


@pytest.fixture
def controller():
    rclpy.init()
    node = Controller()
    yield node
    node.destroy_node()
    rclpy.shutdown()


def test_controller_has_a_slider_per_exit_and_refuses_foreign_changes_of_applied(controller):
    for exit_number in range(1, controller.card.num_segments):
        for value in slider_positions(0.0, 1.0)[::10]:
            result = controller.set_parameters([Parameter(f"exit_threshold.{exit_number}", value=value)])[0]
            assert result.successful, result.reason
            assert controller.thresholds[exit_number - 1] == value
    result = controller.set_parameters([Parameter("applied.exit_threshold.1", value=0.5)])[0]
    assert not result.successful
    assert "applied." in result.reason


@pytest.mark.parametrize(
    ("name", "value"),
    [("mode", "fast"), ("exit_threshold.1", 1.5), ("alpha", 0.123), ("model", "other"), ("alpha", "1")],
)
def test_controller_refuses_what_cannot_be_and_keeps_what_was(controller, name, value):
    before = (controller.set_points, controller.settings, list(controller.thresholds))
    assert not controller.set_parameters([Parameter(name, value=value)])[0].successful
    assert (controller.set_points, controller.settings, controller.thresholds) == before


def test_words_of_settings_are_those_of_backends_and_codec():
    assert (node_settings.BACKENDS, node_settings.DEVICES) == (FASTEST_FIRST, DEVICES)
    assert node_settings.ENCODINGS == ENCODINGS


@pytest.mark.parametrize("config", [SegmentWorkerConfig, CameraSourceConfig, ControllerConfig])
def test_all_parameters_can_be_asked_for_at_once(make_node, config):
    """rclpy answers with nothing where one of them is unset: rqt and `ros2 param dump` do so."""
    node = make_node()
    declare(node, config)
    names = [name for name, _, _ in parameters_of(config)]
    found = {each.name: each.value for each in node.get_parameters(names)}
    assert None not in found.values()
    for name, default, info in parameters_of(config):
        assert found[name] == default
        assert node.describe_parameter(name).read_only is not info.live
        if isinstance(default, list):
            refused = node.set_parameters([Parameter(name, node.get_parameter(name).type_, [])])[0]
            assert not refused.successful


def test_whole_numbers_are_taken_for_doubles_and_the_other_way_round(controller):
    one, rate, half = (
        controller.set_parameters([Parameter(name, value=value)])[0].successful
        for name, value in (("exit_threshold.1", 1), ("admission_rate", 100.0), ("admission_rate", 100.5))
    )
    assert (one, rate, half) == (True, True, False)
    assert controller.get_parameter("exit_threshold.1").value == 1.0
