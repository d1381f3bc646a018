# SPDX-License-Identifier: Apache-2.0
"""What `mdi-exit run` says of a run, and of one that failed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mdi_exit_ros.cli.run import Computing, _chosen, _completed, computing_of, own_parameters
from mdi_exit_ros.plan import Plan, PlanOptions, make_plan
from mdi_exit_ros.resources import sample_archive
from mdi_exit_ros.runner.processes import ProcessGroup
from mdi_exit_ros.topology import load_topology

FP32 = Computing("onnxruntime", "fp32")
PART: dict[str, Any] = {"input": "sample", "input_hash": "of the source"}


def planned(*parameters: str, topology: str | Path = "two_nodes", **worker: str) -> Plan:
    plan = make_plan(load_topology(topology), PlanOptions(worker=worker), 5)
    return plan.with_parameters(own_parameters(plan, parameters))


def computing(plan: Plan, *files: Path) -> list[Computing]:
    return list(computing_of(plan.named("segment_worker"), files).values())


def completed(summary: dict[str, Any], *found: Computing) -> dict[str, Any]:
    return _completed(summary, planned(), found or (FP32, FP32), {})


# ---- what computes -------------------------------------------------------------------------------------------------


def test_workers_compute_as_the_plan_says() -> None:
    assert computing(planned()) == [FP32, FP32]
    assert computing(planned(backend="torch")) == [Computing("torch", "fp32")] * 2
    one = planned("worker2:backend=openvino", "worker2:precision=bf16", backend="auto")
    assert computing(one) == [FP32, Computing("openvino", "bf16")]


def test_a_topology_says_what_a_worker_computes_with(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "computers: {a: }\nworkers: {worker1: {computer: a, backend: torch}}\nsources: {camera: {computer: a, "
        "home: worker1}}\n"
    )
    assert computing(planned(topology=path)) == [Computing("torch", "fp32")]


def test_the_plan_wins_over_parameter_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("/**:\n  ros__parameters: {backend: torch, precision: bf16}\n")
    assert computing(planned("worker1:backend=openvino"), path) == [
        Computing("openvino", "bf16"),
        Computing("torch", "bf16"),
    ]


def test_a_summary_says_mixed_where_workers_differ() -> None:
    same = completed(PART, FP32, FP32)
    assert (same["backend"], same["precision"]) == ("onnxruntime", "fp32")
    other = completed(PART, FP32, Computing("openvino", "fp32"))
    assert (other["backend"], other["precision"]) == ("mixed", "fp32")


# ---- what was played and asked for ---------------------------------------------------------------------------------


def test_the_hash_of_an_input_is_that_of_its_file() -> None:
    assert completed(PART)["input_hash"] == completed({**PART, "input": str(sample_archive())})["input_hash"]
    assert completed({**PART, "input": "topic"})["input_hash"] == "of the source"


def test_sources_that_play_different_files_have_no_hash_in_common(tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    other.write_bytes(b"other")
    parts = {"camera1": PART, "camera2": {**PART, "input": str(other)}}
    assert completed({**PART, "sources": parts})["input_hash"] is None
    parts["camera2"] = PART
    assert completed({**PART, "sources": parts})["input_hash"] == completed(PART)["input_hash"]


def test_options_tell_what_a_simulation_cannot_repeat() -> None:
    chosen = _chosen(PlanOptions(), "two_nodes", {}, composed=True, params_files=[Path("some/where/mine.yaml")])
    assert (chosen["composed"], chosen["params_files"]) == (True, ["mine.yaml"])


# ---- why it failed -------------------------------------------------------------------------------------------------


COMPLAINT_OF_ONE_THAT_ENDS = """
import os, sys, time
from pathlib import Path
from mdi_exit_ros.runner.processes import ProcessGroup, Program

program = Program("worker1", ["/bin/sh", "-c", "echo killed"])
with ProcessGroup([program], Path(sys.argv[1]), Path(sys.argv[1]), os.environ) as group:
    while not group.states()["worker1"].ended:
        time.sleep(0.05)
    print(group.complaint("worker1"))
"""


def test_the_complaint_is_of_this_run_and_not_of_an_earlier_one(tmp_path: Path) -> None:
    log = tmp_path / "worker1.log"
    log.write_text("error: of yesterday\n")
    command = [sys.executable, "-c", COMPLAINT_OF_ONE_THAT_ENDS, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "killed\n"
    assert log.read_text() == "error: of yesterday\nkilled\n"


@pytest.mark.parametrize(("before", "expected"), [(0, "of yesterday"), (20, "it said nothing"), (9000, "of yesterday")])
def test_a_log_that_was_begun_anew_counts_as_a_whole(before: int, expected: str, tmp_path: Path) -> None:
    (tmp_path / "worker1.log").write_text("error: of yesterday\n")
    group = ProcessGroup([], tmp_path, tmp_path, {})
    group._said_before["worker1"] = before
    assert group.complaint("worker1") == expected
