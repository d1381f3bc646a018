# SPDX-License-Identifier: Apache-2.0
"""ROS parameters declared from config dataclasses, with descriptions, ranges and sliders that rqt shows rightly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.parameter import SLIDER_POSITIONS, ParameterInfo, check, parameter, parameters_of

T = TypeVar("T")
_ARRAY_TYPES = {"list[int]": Parameter.Type.INTEGER_ARRAY, "list[str]": Parameter.Type.STRING_ARRAY}


@dataclasses.dataclass(frozen=True)
class NodeConfig:
    """Parameters that every node has."""

    name: str = parameter("", "name in the cluster; empty: the node's full name with _ for /")
    cluster_namespace: str = parameter(
        "/mdi_exit", "namespace of the topics by which computers share work, the same for all robots of a cluster"
    )
    model: str = parameter("mobilenetv2", "shipped model, or folder with a model.json")
    autostart: bool = parameter(True, "configure and activate without being asked by a lifecycle service")


def descriptor(info: ParameterInfo, value: object) -> ParameterDescriptor:
    """What a parameter's users are told.

    A live double gets rqt's slider grid (from 0, 100 steps), a live integer step 1. A setting that is not live is
    read-only and gets its range without a step.
    """
    described = ParameterDescriptor(description=info.description, read_only=not info.live)
    if isinstance(value, bool) or info.low is None or info.high is None:
        return described
    if isinstance(value, int):
        described.integer_range = [IntegerRange(from_value=int(info.low), to_value=int(info.high), step=1)]
    elif isinstance(value, float):
        step = (info.high - info.low) / SLIDER_POSITIONS if info.live else 0.0
        if info.live and info.low != 0.0:
            raise ValueError(f"a slider of doubles must start at 0, this one at {info.low}: {info.help}")
        described.floating_point_range = [FloatingPointRange(from_value=info.low, to_value=info.high, step=step)]
    return described


def declare_one(node: Node, name: str, default: Any, info: ParameterInfo) -> Any:
    """Declares one parameter and returns its value.

    Raises:
        ConfigurationError: a value of another type or outside its range was given.
    """
    try:
        return node.declare_parameter(name, default, descriptor(info, default)).value
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        raise ConfigurationError(
            f"parameter {name}: expected {type(default).__name__} such as {default!r}"
            f"{f' in {info.low}..{info.high}' if info.low is not None else ''}: {error}"
        ) from error


def declare(node: Node, config: type[T], *, leave_out: frozenset[str] = frozenset()) -> T:
    """Declares a parameter for every setting of `config` and returns what was given, defaults filled in.

    Raises:
        ConfigurationError: a value has the wrong type, is outside its range or none of its choices.
    """
    assert dataclasses.is_dataclass(config)
    values: dict[str, Any] = {}
    array_types = {field.name: _ARRAY_TYPES.get(str(field.type)) for field in dataclasses.fields(config)}
    for name, default, info in parameters_of(config):
        array_type = array_types[name]
        if name in leave_out:
            continue
        if array_type is None:
            values[name] = declare_one(node, name, default, info)
        else:
            values[name] = _declare_array(node, name, array_type, info)
    found = config(**values)
    check(found)
    return found


def _declare_array(node: Node, name: str, kind: Parameter.Type, info: ParameterInfo) -> list[Any]:
    """An empty array has no type in ROS: it is declared by type, then set, and only then may be read-only.

    Left unset, rclpy would answer a question for all parameters with none, and rqt and `ros2 param dump` show nothing.
    """
    try:
        node.declare_parameter(name, kind, ParameterDescriptor(description=info.description))
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        expected = kind.name.lower().replace("_", " ")
        raise ConfigurationError(f"parameter {name}: expected {expected}: {error}") from error
    value = node.get_parameter_or(name, Parameter(name, kind, [])).value
    if not value:
        node.set_parameters([Parameter(name, kind, [])])
    settled = ParameterDescriptor(description=info.description, type=kind.value, read_only=not info.live)
    node.set_descriptor(name, settled)
    return list(value) if value is not None else []


def changed(config: T, values: Mapping[str, Any]) -> T:
    """`config` with those of `values` that it knows."""
    names = {field.name for field in dataclasses.fields(config)}  # type: ignore[arg-type]
    return dataclasses.replace(config, **{name: value for name, value in values.items() if name in names})  # type: ignore[type-var]
