# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit simulate`: exit statuses, files, and what it says about a user's mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mdi_exit_ros.cli.main import run
from mdi_exit_ros.cli.simulate import with_changes
from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.simulation.scenario import Scenario

FEW = ("--set", "frames=120")


class Said:
    """What the command answered."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        status = run(["simulate", *words])
        return status, *self._capsys.readouterr()


@pytest.fixture
def simulate(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


def error(said: tuple[int, str, str]) -> str:
    """The one line that a user's mistake is worth."""
    status, out, err = said
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


# ---- what it does --------------------------------------------------------------------------------------------------


def test_shipped_scenario_is_simulated_by_name_and_marked(simulate: Said) -> None:
    status, out, _ = simulate("three_mesh", *FEW)
    assert status == 0
    assert "three_mesh, mdi_exit, simulated" in out
    assert "120" in out


def test_summary_is_that_of_a_run_marked_simulated_with_its_scenario(simulate: Said, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "s.json"
    assert simulate("three_mesh", *FEW, "--seed", "9", "--json", str(path))[0] == 0
    summary = json.loads(path.read_text())
    assert (summary["simulated"], summary["seed"], summary["scenario"]["seed"]) == (True, 9, 9)
    assert (summary["offered"], summary["ok"], summary["unaccounted"]) == (120, 120, 0)
    assert {"throughput_fps", "latency_ms", "exits", "accuracy", "workers", "model_id", "machine"} <= set(summary)
    assert "agreement" not in summary
    Scenario.model_validate(summary["scenario"])


def test_same_command_gives_the_same_summary(simulate: Said, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.json", "b.json", "c.json")]
    for path, seed in zip(paths, ("1", "1", "2"), strict=True):
        simulate("three_mesh", *FEW, "--seed", seed, "--json", str(path))
    one, again, other = (path.read_text() for path in paths)
    assert one == again
    assert one != other


def test_scenario_of_one_s_own_is_read_from_its_file(simulate: Said, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("topology: {workers: 2, neighbours: 1}\nframes: 50\nstrategy: ddi\n")
    status, out, _ = simulate(str(path))
    assert status == 0
    assert "2_workers, ddi, simulated" in out


def test_nested_keys_are_set(simulate: Said, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    words = ("network.rate_mbps=20", "computers.nano2.speed=0.5", "strategy=ddi", "arrivals={kind: max}", "reach=null")
    sets = [word for each in words for word in ("--set", each)]
    assert simulate("three_mesh", *FEW, *sets, "--json", str(path))[0] == 0
    scenario = json.loads(path.read_text())["scenario"]
    assert scenario["network"]["rate_mbps"] == 20.0
    assert scenario["network"]["medium"] == "wifi", "what the file says besides"
    assert scenario["computers"] == {"nano2": {"cores": 1.0, "speed": 0.5, "all_busy": 1.0, "port_mbps": None}}
    assert (scenario["strategy"], scenario["arrivals"]["kind"], scenario["reach"]) == ("ddi", "max", None)


def test_last_of_two_settings_counts_and_the_given_mapping_is_not_changed() -> None:
    given: dict[str, Any] = {"network": {"loss": 0.1}}
    found = with_changes(dict(given), ("network.loss=0.2", "network.loss=0.3", "topology.workers=4"))
    assert found == {"network": {"loss": 0.3}, "topology": {"workers": 4}}
    assert given == {"network": {"loss": 0.1}}


def test_trace_is_replayed_to_the_same_decisions(simulate: Said, tmp_path: Path) -> None:
    first, second = tmp_path / "a.trace", tmp_path / "b.trace"
    assert simulate("three_mesh", *FEW, "--trace", str(first))[0] == 0
    status, out, _ = simulate("--replay", str(first), "--trace", str(second))
    assert status == 0
    assert f"decisions as in {first}" in out
    assert first.read_bytes() == second.read_bytes()


def test_changed_trace_is_told_and_fails(simulate: Said, tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    simulate("three_mesh", *FEW, "--trace", str(path))
    lines = path.read_text().splitlines()
    lines[60] = lines[60][:-1] + "?)"
    path.write_text("\n".join(lines) + "\n")
    status, out, _ = simulate("--replay", str(path))
    assert status == 1
    assert "after 59 equal decisions the trace says" in out
    assert lines[60] in out


@pytest.fixture
def real(simulate: Said, tmp_path: Path) -> Path:
    """What a real run would have said, were it like its simulation."""
    path = tmp_path / "run.json"
    words = ("topology=two_nodes", "together=true", "computer.cores=2", "frames=1500")
    sets = [word for each in words for word in ("--set", each)]
    scenario = tmp_path / "plain.yaml"
    scenario.write_text("{topology: two_nodes}\n")
    assert simulate(str(scenario), *sets, "--json", str(path))[0] == 0
    summary = json.loads(path.read_text())
    del summary["simulated"], summary["scenario"]
    summary["machine"]["cores"] = 2
    summary["options"] = {"topology": "two_nodes", "exits": None, "worker": {}, "source": {}, "controller": {}}
    path.write_text(json.dumps(summary))
    return path


def test_comparison_that_holds_ends_with_0(simulate: Said, real: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    status, out, _ = simulate("--compare", str(real), "--set", "profile=shipped", "--json", str(path))
    assert status == 0
    assert "a real run and its simulation" in out
    found = json.loads(path.read_text())
    assert len(found["agreement"]) == 7
    assert all(each["holds"] for each in found["agreement"])
    assert found["simulated"] is True


def test_comparison_that_does_not_hold_ends_with_1(simulate: Said, real: Path) -> None:
    status, out, _ = simulate("--compare", str(real), "--set", "profile=shipped", "--set", "computer.speed=0.5")
    assert status == 1
    assert " no " in out


def test_set_beside_compare_keeps_what_the_run_says(simulate: Said, real: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    simulate("--compare", str(real), "--set", "profile=shipped", "--set", "computer.all_busy=0.7", "--json", str(path))
    computer = json.loads(path.read_text())["scenario"]["computer"]
    assert computer == {"cores": 2.0, "speed": 1.0, "all_busy": 0.7, "port_mbps": None}


def test_schema_is_the_shipped_one(simulate: Said, repository: Path) -> None:
    status, out, _ = simulate("--schema")
    assert status == 0
    shipped = (repository / "config" / "scenarios" / "schema.json").read_text(encoding="utf-8")
    assert out == shipped, "write it anew: mdi-exit simulate --schema > config/scenarios/schema.json"
    schema = json.loads(out)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["topology"]


# ---- what users get wrong ------------------------------------------------------------------------------------------


def test_unknown_scenario_is_told(simulate: Said) -> None:
    assert "no scenario 'three_mes' (did you mean 'three_mesh'?)" in error(simulate("three_mes"))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("frames", "--set: expected KEY=VALUE such as frames=1000, got 'frames'"),
        ("=5", "--set: expected KEY=VALUE such as frames=1000, got '=5'"),
        ("frames=[1", "--set: '[1' in 'frames=[1' is no YAML value"),
        ("frames=-1", "three_mesh.yaml: frames: expected greater than or equal to 1, got -1"),
        ("frame=5", "three_mesh.yaml: frame: unknown key (did you mean 'frames'?)"),
        ("network.rate=5", "three_mesh.yaml: network.rate: unknown key (did you mean 'rate_mbps'?)"),
        ("network..rate=5", "three_mesh.yaml: network.: unknown key"),
        ("topology=four_mesh", "three_mesh.yaml: topology: no topology 'four_mesh'"),
        ("profile=none.json", "three_mesh.yaml: cannot read the profile none.json"),
        ("recording=none.npz", "three_mesh.yaml: cannot read the recording none.npz"),
        ("backend=abacus", "three_mesh.yaml: the profile of 'mobilenetv2' has no abacus fp32"),
        ("model=none", "three_mesh.yaml: no model 'none'"),
        ("thresholds=[0.5]", "three_mesh.yaml: thresholds: expected one for each of exits 1..4"),
        ("links=[{between: [robot, moon]}]", "three_mesh.yaml: links.0.between: 'moon' is no computer"),
        ("frames=null", "three_mesh.yaml: frames, duration_s: expected a number in one of them"),
    ],
)
def test_wrong_setting_is_told_in_one_line(simulate: Said, change: str, text: str) -> None:
    assert text in error(simulate("three_mesh", "--set", change))


def test_setting_inside_a_list_is_refused_instead_of_replacing_it() -> None:
    with pytest.raises(ConfigurationError, match="--set: links is a list: expected it whole, got 'links.0.loss=0'"):
        with_changes({"links": [{"between": ["a", "b"]}]}, ("links.0.loss=0",))


def test_recording_of_another_model_is_told(simulate: Said, repository: Path) -> None:
    path = repository / "models" / "mobilenetv2" / "recording.npz"
    told = error(simulate("three_mesh", "--set", "model=mobilenetv2_fast", "--recording", str(path)))
    assert f"the recording {path} is of model " in told
    assert "expected mobilenetv2_fast" in told


def test_profile_of_another_model_is_told(simulate: Said, repository: Path) -> None:
    path = repository / "models" / "mobilenetv2_fast" / "profile.json"
    assert "the profile is of mobilenetv2_fast" in error(simulate("three_mesh", "--set", f"profile={path}"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "say what to simulate"),
        (("three_mesh", "--replay", "a.trace"), "say what to simulate"),
        (("three_mesh", "--compare", "a.json"), "say what to simulate"),
        (("--replay", "a.trace", "--seed", "2"), "leave --set, --seed and --recording out"),
        (("--replay", "a.trace", "--set", "frames=2"), "leave --set, --seed and --recording out"),
        (("--replay", "a.trace", "--trace", "a.trace"), "--trace would overwrite the trace that is replayed"),
        (("three_mesh", "--seed", "-1"), "--seed"),
        (("three_mesh", "--json", "/proc/none/s.json"), "expected a file that can be written"),
        (("three_mesh", "--frames", "5"), "No such option"),
    ],
)
def test_wrong_usage_is_told_with_status_2(simulate: Said, words: tuple[str, ...], text: str) -> None:
    status, out, err = simulate(*words)
    assert (status, out) == (2, "")
    assert text in " ".join(err.split())


def test_trace_that_cannot_be_written_is_told(simulate: Said, tmp_path: Path) -> None:
    path = tmp_path / "none" / "a.trace"
    assert f"--trace: expected a file that can be written, got {path}" in error(
        simulate("three_mesh", "--trace", str(path))
    )


def test_wrong_scenario_leaves_an_old_trace_alone(simulate: Said, tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    path.write_text("old\n")
    error(simulate("three_mesh", "--set", "topology=none", "--trace", str(path)))
    assert path.read_text() == "old\n"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "--compare: cannot read"),
        ("no JSON", "--compare: cannot read"),
        ("[]", "is no summary of mdi-exit run --json"),
        ("{}", "is no summary of mdi-exit run --json"),
        ('{"simulated": true}', "is of a simulation"),
    ],
)
def test_what_cannot_be_compared_is_told(simulate: Said, tmp_path: Path, content: str | None, text: str) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    assert text in error(simulate("--compare", str(path)))


def test_foreign_trace_is_told(simulate: Said, tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    path.write_text("something else\n")
    assert "is no trace of mdi-exit simulate --trace" in error(simulate("--replay", str(path)))
