# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mdi_exit_ros.cli.plan import plan
from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.model.card import load_card
from mdi_exit_ros.profile import BackendProfile, Profile, ServiceTime, save_profile

FACTS = {"machine": {"processor": "P"}, "measured_on": "2026-11-25", "method": "by hand"}


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """Every segment takes 1 ms per frame."""
    card = load_card("mobilenetv2")
    times = tuple(ServiceTime(segment=k, batch=8, seconds=0.008, low=0.008, high=0.008) for k in range(1, 6))
    entry = BackendProfile(backend="b", precision="fp32", device="cpu", threads=1, version="1", times=times)
    save_profile(Profile(model=card.name, model_id=card.model_id, backends=(entry,), **FACTS), tmp_path / "p.json")
    return tmp_path / "p.json"


def planned(profile: Path, *arguments: str) -> dict[str, object]:
    path = profile.parent / "plan.json"
    given = ["--cut", "--profile", str(profile), "--json", str(path), *arguments]
    result = CliRunner().invoke(plan, given, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "in a topology file:" in result.output
    return dict(json.loads(path.read_text()))


def spans(document: dict[str, object]) -> list[tuple[str, list[int]]]:
    return [(stage["computer"], stage["segments"]) for stage in document["stages"]]  # type: ignore[attr-defined]


def test_pipeline_is_cut_where_its_slowest_stage_is_fastest(profile: Path) -> None:
    document = planned(profile, "--no-exits", "--computer", "robot", "--computer", "nano2:1.5")
    assert spans(document) == [("robot", [1, 2]), ("nano2", [3, 4, 5])]
    assert document["frames_per_s"] == pytest.approx(500.0)
    assert document["alone_frames_per_s"] == pytest.approx(200.0)


def test_frames_that_leave_early_count_less(profile: Path) -> None:
    card = load_card("mobilenetv2")
    document = planned(profile, "--computer", "robot", "--computer", "nano2")
    shares = card.default_point.exit_shares
    assert document["reach"] == pytest.approx([1.0 - sum(shares[:k]) for k in range(5)])
    assert spans(document)[0] == ("robot", [1])


def test_smaller_features_let_a_slow_link_take_part(profile: Path) -> None:
    computers = ["--no-exits", "--computer", "robot", "--computer", "nano2:1:5"]
    raw = planned(profile, *computers)
    small = planned(profile, *computers, "--encoding", "int8")
    assert small["frames_per_s"] > raw["frames_per_s"]  # type: ignore[operator]


def test_mistakes_are_one_clear_message(profile: Path, tmp_path: Path) -> None:
    refused = CliRunner().invoke(plan, ["--cut", "--computer", "robot:fast"])
    assert (refused.exit_code, "like nano2:0.5:40, got 'robot:fast'" in refused.output) == (2, True)
    refused = CliRunner().invoke(plan, ["--computer", "robot"])
    assert (refused.exit_code, "say what to plan: --cut" in refused.output) == (2, True)
    for arguments, message in (
        (["--computer", "robot:0"], "above 0"),
        (["--computer", "a", "--backend", "other"], "has no other fp32 on cpu"),
        (["--computer", "a", "--encoding", "zip"], "expected an encoding of raw, fp16, int8"),
    ):
        with pytest.raises(Exception, match=message):
            CliRunner().invoke(plan, ["--cut", "--profile", str(profile), *arguments], catch_exceptions=False)
    with pytest.raises(ConfigurationError, match="make one with mdi-exit profile"):
        CliRunner().invoke(
            plan, ["--cut", "--computer", "a", "--profile", str(tmp_path / "no.json")], catch_exceptions=False
        )
    other = profile.read_text().replace(load_card("mobilenetv2").model_id, "0")
    profile.write_text(other)
    with pytest.raises(ConfigurationError, match="the profile is of mobilenetv2 0, expected mobilenetv2"):
        CliRunner().invoke(plan, ["--cut", "--computer", "a", "--profile", str(profile)], catch_exceptions=False)
