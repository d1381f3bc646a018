# SPDX-License-Identifier: Apache-2.0
"""Settings declared once."""

from __future__ import annotations

import dataclasses
import math

import pytest

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.parameter import check, parameter, parameters_of
from mdi_exit_ros.policy.admission import AdaptationSettings
from mdi_exit_ros.policy.source_setup import SourceSettings
from mdi_exit_ros.policy.worker_setup import WorkerSettings


@dataclasses.dataclass(frozen=True)
class Settings:
    count: int = parameter(4, "how many", unit="frames", low=1, high=8)
    share: float = parameter(0.5, "how much", low=0.0, high=1.0, live=True)
    kind: str = parameter("a", "which", choices=("a", "b"))
    flag: bool = parameter(True, "whether")
    values: list[float] = parameter([0.1, 0.2], "several")
    plain: int = 3


@pytest.mark.parametrize("change", [{}, {"count": 1}, {"count": 8}, {"share": 0.0}, {"share": 1.0}, {"kind": "b"}])
def test_values_up_to_both_bounds_are_accepted(change: dict[str, object]) -> None:
    check(Settings(**change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, r"count: expected 1\.\.8 frames, got 0"),
        ({"count": 9}, r"count: expected 1\.\.8 frames, got 9"),
        ({"share": -0.001}, r"share: expected 0\.0\.\.1\.0, got -0\.001"),
        ({"share": math.nan}, r"share: expected 0\.0\.\.1\.0, got nan"),
        ({"share": math.inf}, r"share: expected 0\.0\.\.1\.0, got inf"),
        ({"kind": "c"}, r"kind: expected one of a, b, got 'c'"),
    ],
)
def test_value_outside_names_the_setting_what_was_expected_and_what_came(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check(Settings(**change))  # type: ignore[arg-type]


def test_settings_are_listed_with_defaults_or_values_and_others_are_not() -> None:
    defaults = {name: value for name, value, _ in parameters_of(Settings)}
    assert defaults == {"count": 4, "share": 0.5, "kind": "a", "flag": True, "values": [0.1, 0.2]}
    values = {name: value for name, value, _ in parameters_of(Settings(count=7))}
    assert values["count"] == 7


def test_default_list_is_not_shared() -> None:
    assert Settings().values is not Settings().values


def test_description_has_unit_and_choices() -> None:
    described = {name: info.description for name, _, info in parameters_of(Settings)}
    assert described["count"] == "how many [frames]"
    assert described["kind"] == "which (one of: a, b)"
    assert described["flag"] == "whether"


@pytest.mark.parametrize("settings", [WorkerSettings, SourceSettings, AdaptationSettings])
def test_every_default_of_the_policy_is_within_its_bounds_and_described(settings: type) -> None:
    check(settings())
    for name, value, info in parameters_of(settings):
        assert info.help, name
        if isinstance(value, float):
            assert info.low is not None and info.high is not None, name
