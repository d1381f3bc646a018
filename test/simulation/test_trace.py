# SPDX-License-Identifier: Apache-2.0
"""Traces: written, replayed to the same decisions, and told where they differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mdi_exit_ros.errors import ConfigurationError, DataError
from mdi_exit_ros.simulation.cluster import Simulation
from mdi_exit_ros.simulation.model import SimulatedModel
from mdi_exit_ros.simulation.scenario import Scenario
from mdi_exit_ros.simulation.trace import TraceComparer, TraceWriter, read_header

KEYS: dict[str, Any] = {
    "frames": 60,
    "seed": 5,
    "network": {"rate_mbps": 20, "jitter_ms": 1, "loss": 0.02},
    "events": [{"at_s": 0.4, "worker": "worker2", "do": "kill"}],
    "worker": {"batch_max": 4},
}


@pytest.fixture
def written(tmp_path: Path, scenario: Any, model: SimulatedModel) -> Path:
    """The trace of a simulation."""
    path = tmp_path / "a.trace"
    with path.open("w", encoding="utf-8") as file:
        wanted = scenario(**KEYS)
        Simulation(wanted, model, trace=TraceWriter(file, wanted).note).run()
    return path


def replay(path: Path, model: SimulatedModel) -> TraceComparer:
    comparer = TraceComparer(path)
    Simulation(read_header(path), model, trace=comparer.note).run()
    comparer.end()
    return comparer


def test_scenario_comes_back_from_the_trace(written: Path, scenario: Any) -> None:
    found = read_header(written)
    assert isinstance(found, Scenario)
    assert found == scenario(**KEYS)


def test_trace_has_every_node_s_actions_with_their_time(written: Path) -> None:
    lines = written.read_text(encoding="utf-8").splitlines()[1:]
    assert {line.split()[1] for line in lines} == {"worker1", "worker2", "camera", "controller"}
    times = [float(line.split()[0]) for line in lines]
    assert times == sorted(times)
    assert sum("CloseFrame(" in line for line in lines) == 60


def test_replay_makes_the_same_decisions(written: Path, model: SimulatedModel) -> None:
    comparer = replay(written, model)
    assert comparer.difference is None
    assert comparer.same == len(written.read_text(encoding="utf-8").splitlines()) - 1 > 100


def test_changed_line_is_found(written: Path, model: SimulatedModel) -> None:
    lines = written.read_text(encoding="utf-8").splitlines()
    original, lines[41] = lines[41], lines[41].replace("worker", "walker")
    written.write_text("\n".join(lines) + "\n", encoding="utf-8")
    comparer = replay(written, model)
    assert comparer.same == 40
    assert comparer.difference == (lines[41], original)
    assert lines[41] != original


def test_lines_that_are_missing_or_too_many_are_found(written: Path, model: SimulatedModel) -> None:
    whole = written.read_text(encoding="utf-8")
    last = whole.splitlines()[-1]
    written.write_text(whole.removesuffix(last + "\n"), encoding="utf-8")
    assert replay(written, model).difference == ("(the trace ends)", last)
    written.write_text(whole + "one more\n", encoding="utf-8")
    assert replay(written, model).difference == ("one more", "(the new run ends)")


def test_other_version_s_seed_differs(written: Path, model: SimulatedModel) -> None:
    header, _, rest = written.read_text(encoding="utf-8").partition("\n")
    content = json.loads(header)
    content["scenario"]["seed"] = 6
    written.write_text(json.dumps(content) + "\n" + rest, encoding="utf-8")
    assert replay(written, model).difference is not None


def test_line_of_other_bytes_is_a_difference_and_no_traceback(written: Path, model: SimulatedModel) -> None:
    lines = written.read_bytes().splitlines()
    lines[10] = b"\xff\xfe"
    written.write_bytes(b"\n".join(lines) + b"\n")
    assert replay(written, model).same == 9


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"no JSON\n", b"[]\n", b"{}\n", b'{"format": "other", "scenario": {}}\n'],
)
def test_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b.trace"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"b\.trace is no trace of mdi-exit simulate --trace: ") as caught:
        read_header(path)
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_header(tmp_path / "none.trace")


def test_wrong_scenario_in_a_trace_is_told_with_the_trace_s_name(tmp_path: Path) -> None:
    path = tmp_path / "b.trace"
    path.write_text('{"format": "mdi_exit simulation trace 1", "scenario": {"topology": "one_node", "frames": -1}}\n')
    with pytest.raises(ConfigurationError, match=r"b\.trace: frames: expected greater than or equal to 1, got -1"):
        read_header(path)
