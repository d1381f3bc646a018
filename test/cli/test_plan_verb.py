# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mdi_exit_ros.cli import plan_check, plan_rate
from mdi_exit_ros.cli.main import run
from mdi_exit_ros.cli.plan import plan
from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.model.card import load_card
from mdi_exit_ros.plan import PlanOptions, make_plan
from mdi_exit_ros.profile import BackendProfile, Profile, ServiceTime, save_profile
from mdi_exit_ros.task import Strategy
from mdi_exit_ros.topology import load_topology

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
        (["--computer", "a", "--computer", "a"], "different names"),
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


def test_cores_multiply_the_speed_of_a_stage(profile: Path) -> None:
    one = planned(profile, "--no-exits", "--computer", "robot:2")
    two = planned(profile, "--no-exits", "--computer", "robot:1x2")
    assert one["frames_per_s"] == two["frames_per_s"] == pytest.approx(400.0)


# ---- --rate -----------------------------------------------------------------------------------------------------


def asked(profile: Path, *arguments: str, status: int = 0) -> dict[str, Any]:
    """What `--rate` writes, at a target accuracy of 0.88 unless `arguments` say another."""
    path = profile.parent / "plan.json"
    given = ["plan", "--target-accuracy", "0.88", "--profile", str(profile), "--json", str(path), *arguments]
    assert run(given) == status
    return dict(json.loads(path.read_text()))


def test_a_second_computer_is_taken_when_the_first_is_not_enough(
    profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    computers = ["--computer", "robot:1x2:100", "--computer", "nano2:1x2:100", "--computer", "nano3:1x2:100:0.5"]
    document = asked(profile, "--rate", "800", *computers)
    assert document["feasible"]
    assert document["plan"]["computers"] == ["robot", "nano3"]  # it costs less than nano2
    assert document["plan"]["cost"] == 1.5
    assert document["one_fewer"]["computers"] == ["robot"]
    assert document["one_fewer"]["reachable_frames_per_s"] < 800.0
    assert document["one_fewer"]["limited_by"] == ["compute"]
    assert (document["simulated"], document["measured"]) == (False, False)
    output = capsys.readouterr().out
    assert "cheapest: robot, nano3, cost 1.5, strategy ddi" in output
    assert "without nano3: at most" in output


def test_the_topology_of_a_plan_is_one(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = asked(profile, "--rate", "500", "--cut-only", *computers_of_three())
    text = capsys.readouterr().out.partition("in a topology file:\n")[2]
    assert yaml.safe_load(text) == document["topology"]
    assert document["topology"]["workers"]["worker1"]["queue_capacity"] == document["queue_capacity"]
    path = profile.parent / "printed.yaml"
    path.write_text(text)
    topology = load_topology(path)
    assert make_plan(topology, PlanOptions(strategy="mdi_exit"), 5).strategy == "mdi_exit"
    held = [segment for worker in topology.workers for segment in worker.segments or ()]
    assert held == [1, 2, 3, 4, 5]


def computers_of_three() -> list[str]:
    return [part for name in ("robot", "nano2", "nano3") for part in ("--computer", f"{name}:1:100")]


def test_what_nothing_does_is_refused_in_one_line_with_the_limit(
    profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = asked(profile, "--rate", "5000", *computers_of_three(), status=1)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("nothing does 5000 frames/s at an accuracy of 0.88")
    assert "with robot, nano2, nano3 (compute: robot" in line and "80 % busy)" in line
    assert (document["feasible"], document["why"]) == (False, line)


def test_a_narrow_link_is_named_as_the_limit(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked(profile, "--rate", "5000", "--computer", "robot:1:8", "--computer", "nano2:1:100", status=1)
    assert "link: 80 % of the link of robot is used" in capsys.readouterr().out


def test_an_accuracy_above_the_models_is_refused(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--no-exits"]):
        asked(profile, "--rate", "1", "--computer", "a", "--target-accuracy", "0.99", *more, status=1)
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith("nothing does it: model 'mobilenetv2' promises an accuracy of")
        assert "0.99" in line


def test_a_latency_that_nothing_keeps_is_refused(profile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked(profile, "--rate", "10", "--computer", "a", "--latency-ms", "0.1", status=1)
    assert "within 0.1 ms: the quickest, a, may take" in capsys.readouterr().out


def test_a_lower_accuracy_needs_fewer_computers(profile: Path) -> None:
    accurate = asked(profile, "--rate", "450", *computers_of_three())
    cheap = asked(profile, "--rate", "450", *computers_of_three(), "--target-accuracy", "0.8")
    assert len(cheap["plan"]["computers"]) < len(accurate["plan"]["computers"])
    assert sum(cheap["reach"]) < sum(accurate["reach"])


def test_without_a_profile_of_this_computer_the_models_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan_rate, "profile_path", lambda model_id: tmp_path / "none.json")
    assert run(["plan", "--rate", "1", "--target-accuracy", "0.8", "--computer", "a"]) == 0
    assert "the profile shipped with the model" in capsys.readouterr().out


def test_the_simulator_bears_out_a_plan_and_what_is_missing_without_a_computer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    computers = [part for name in ("robot", "nano2", "nano3") for part in ("--computer", f"{name}:0.25x2:100")]
    given = ["plan", "--profile", "shipped", "--rate", "900", "--target-accuracy", "0.88", "--check"]
    assert run([*given, "--json", str(path), *computers]) == 0
    document = json.loads(path.read_text())
    whole, fewer = document["check"]
    assert whole["computers"] == ["robot", "nano2"]
    assert whole["simulated"]
    assert whole["reached_fps"] == pytest.approx(900.0, rel=0.03)
    assert whole["refused_share"] < 0.03
    assert fewer["computers"] == ["robot"]
    # The estimate leaves a fifth of the computer free, which the simulation uses.
    assert fewer["estimated_fps"] < fewer["reached_fps"] < 1.5 * fewer["estimated_fps"]
    assert fewer["refused_share"] > 0.05
    assert "check: simulated at 900 frames/s" in capsys.readouterr().out


class SlowAtFirst:
    """Stands in for a simulation: 10 frames of 900 ms in the first second, then 30 of 20 ms, then the end."""

    def __init__(self, *_: object) -> None:
        self.clock = SimpleNamespace(now=0.0)
        self._seen: dict[str, Any] = {}
        self.sources = {"camera": SimpleNamespace(core=SimpleNamespace(summary=lambda: self._seen))}

    def run(self, look: Any) -> dict[str, Any]:
        for at_s, ok, mean_ms in ((0.0, 0, None), (1.0, 10, 900.0), (2.0, 40, 240.0), (99.0, 50, 500.0)):
            self.clock.now = at_s
            self._seen = {"offered": ok, "ok": ok, "refused": {}, "latency_ms": {"mean": mean_ms}}
            look(ok, 0)
        return self._seen


def test_the_latency_of_a_check_leaves_the_first_second_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_check, "Simulation", SlowAtFirst)
    for name in ("topology_keys", "make_scenario", "simulated_model"):
        monkeypatch.setattr(plan_check, name, lambda *_, **__: {})
    arrangement: Any = SimpleNamespace(names=("a",), rate_hz=30.0, strategy=Strategy.LOCAL)
    checked = plan_check.check_by_simulation(arrangement, [], 30.0, "raw", 64, {}, 0.1)
    assert (checked.latency_ms, checked.reached_fps) == (pytest.approx(20.0), 30.0)
    assert checked.holds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "10"], "--rate expects --target-accuracy"),
        (["--rate", "10", "--target-accuracy", "0.8", "--in-order"], "no --in-order"),
        (["--rate", "10", "--target-accuracy", "0.8", "--cut"], "say what to plan"),
        (["--rate", "0", "--target-accuracy", "0.8"], "0.0 is not in the range x>0.0"),
        (["--rate", "10", "--target-accuracy", "1.8"], "1.8 is not in the range"),
        (["--rate", "10", "--target-accuracy", "0.8", "--margin", "0"], "not in the range"),
        (["--rate", "10", "--target-accuracy", "0.8", "--computer", "b:1x"], "like nano2:0.5:40, got 'b:1x'"),
        (["--rate", "10", "--target-accuracy", "0.8", "--computer", "b:1:2:3:4"], "got 'b:1:2:3:4'"),
        (["--rate", "10", "--target-accuracy", "0.8", "--computer", "b:-1"], "computer b: expected a speed above 0"),
        (["--rate", "10", "--target-accuracy", "0.8", "--computer", "a"], "expected computers of different names"),
        (["--rate", "10", "--target-accuracy", "0.8", "--computer", "all"], "expected another name"),
        (["--rate", "10", "--target-accuracy", "0.8", "--encoding", "zip"], "expected an encoding of raw, fp16, int8"),
        (["--rate", "10", "--target-accuracy", "0.8", "--profile", "no.json"], "cannot read the profile"),
        (["--rate", "10", "--target-accuracy", "0.8", "--backend", "abacus"], "has no abacus fp32 on cpu"),
        (["--cut", "--check"], "go with --rate"),
        (["--cut", "--computer", "b:1:1:2"], "go with --rate"),
    ],
)
def test_a_mistake_of_the_user_is_one_message_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "--computer", "a", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
