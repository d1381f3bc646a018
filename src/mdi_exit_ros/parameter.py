# SPDX-License-Identifier: Apache-2.0
"""Declares each setting once: default, unit, bounds and one line of help as dataclass field metadata.

ROS parameters are declared from it, and config/nodes.yaml is compared with it by a test.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from mdi_exit_ros.errors import ConfigurationError

_KEY = "parameter"
SLIDER_POSITIONS = 100  # of rqt's slider for doubles, counted from zero


@dataclasses.dataclass(frozen=True)
class ParameterInfo:
    """What a user is told about a setting; `low`..`high` includes both ends.

    Attributes:
        live: may be changed while the node runs; live numbers get a slider in rqt.
        choices: the only values allowed, for text.
    """

    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    live: bool = False
    choices: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """Help with unit and choices: rqt's tooltip."""
        unit = f" [{self.unit}]" if self.unit else ""
        choices = f" (one of: {', '.join(self.choices)})" if self.choices else ""
        return f"{self.help}{unit}{choices}"


def parameter(
    default: Any,
    help: str,  # noqa: A002 - the field's standard word
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    live: bool = False,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field that is also a documented setting."""
    info = ParameterInfo(help, unit, low, high, live, choices)
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata={_KEY: info})
    return dataclasses.field(default=default, metadata={_KEY: info})


def parameters_of(config: Any) -> Iterator[tuple[str, Any, ParameterInfo]]:
    """Name, value (or default, for a class) and description of each setting of a config dataclass."""
    for field in dataclasses.fields(config):
        info = field.metadata.get(_KEY)
        if info is None:
            continue
        if not isinstance(config, type):
            value = getattr(config, field.name)
        elif field.default is not dataclasses.MISSING:
            value = field.default
        else:
            assert field.default_factory is not dataclasses.MISSING
            value = field.default_factory()
        yield field.name, value, info


def check(config: Any) -> None:
    """Holds every setting of a config dataclass against its bounds and choices.

    Raises:
        ConfigurationError: a value is outside; the message names the setting, what was expected and what came.
    """
    for name, value, info in parameters_of(config):
        if info.choices and value not in info.choices:
            raise ConfigurationError(f"{name}: expected one of {', '.join(info.choices)}, got {value!r}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        below = info.low is not None and value < info.low
        above = info.high is not None and value > info.high
        if not math.isfinite(value) or below or above:
            raise ConfigurationError(
                f"{name}: expected {info.low if info.low is not None else '-inf'}.."
                f"{info.high if info.high is not None else 'inf'}{' ' + info.unit if info.unit else ''}, got {value!r}"
            )


def on_grid(info: ParameterInfo, value: float) -> float:
    """The slider position nearest to `value`."""
    assert info.low is not None and info.high is not None
    step = (info.high - info.low) / SLIDER_POSITIONS
    return round(min(info.high, max(info.low, round(value / step) * step)), 10)
