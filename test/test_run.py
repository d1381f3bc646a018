# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit run` for real: node processes on DDS, one killed in the middle, and parts on hosts of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.graph

RUN = [sys.executable, "-m", "mdi_exit_ros.cli.main", "run"]
# Section 10 of the design: what every summary has.
FIELDS = {
    *("offered", "refused", "ok", "failed", "unaccounted", "accuracy", "throughput_fps", "latency_ms", "exits"),
    *("bytes_per_frame", "strategy", "topology", "workers", "backend", "precision", "batch_mean", "model_id"),
    *("input_hash", "machine", "duration_s"),
}


def finish(process: subprocess.Popen[str], timeout_s: float) -> str:
    """What the process printed until it ended."""
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        pytest.fail(f"no end within {timeout_s} s:\n{output}")
    return output


def start(*options: str, command: list[str] | None = None, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*(command or []), *RUN, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def node_process(runner: subprocess.Popen[str], name: str, timeout_s: float = 30.0) -> psutil.Process:
    """The process of the named node, once it is there."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for child in psutil.Process(runner.pid).children(recursive=True):
            try:
                if any(part.endswith(f"__node:={name}") for part in child.cmdline()):
                    return child
            except psutil.Error:
                continue
        time.sleep(0.1)
    raise AssertionError(f"{name} was not started")


def test_three_workers_share_the_work_and_every_frame_is_accounted_for(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    process = start("--topology", "three_mesh", "--frames", "1000", "--json", str(path))
    output = finish(process, 90)
    assert process.returncode == 0, output
    summary = json.loads(path.read_text())
    assert set(summary) >= FIELDS
    assert (summary["offered"], summary["unaccounted"]) == (1000, 0)
    assert summary["ok"] >= 990
    assert summary["accuracy"] > 0.8
    assert all(worker["served"] > 0 for worker in summary["workers"].values()), summary["workers"]
    assert len(summary["workers"]) == 3
    assert "Traceback" not in output


def test_a_finite_input_that_drops_begins_with_the_first_credit(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    options = ["--topology", "one_node", "--strategy", "local", "--rate", "200", "--frames", "400", "--drop"]
    process = start(*options, "--json", str(path))
    output = finish(process, 60)
    assert process.returncode == 0, output
    summary = json.loads(path.read_text())
    assert (summary["offered"], summary["unaccounted"]) == (400, 0)
    assert summary["ok"] >= 390, summary


def test_a_composed_source_hands_its_frames_over_and_every_one_is_accounted_for(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    options = ["--topology", "two_nodes", "--rate", "300", "--frames", "1200", "--use-composition"]
    process = start(*options, "--json", str(path))
    assert node_process(process, "camera") == node_process(process, "worker1")
    output = finish(process, 90)
    assert process.returncode == 0, output
    summary = json.loads(path.read_text())
    assert (summary["offered"], summary["ok"], summary["unaccounted"]) == (1200, 1200, 0)
    assert summary["accuracy"] > 0.8
    assert sum(worker["served"] for worker in summary["workers"].values()) >= 1200
    assert "Traceback" not in output


def test_a_composed_source_that_cannot_start_ends_the_run_with_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    options = ["--topology", "one_node", "--strategy", "local", "--input", str(tmp_path / "empty")]
    process = start(*options, "--use-composition", "--log-dir", str(tmp_path / "log"))
    output = finish(process, 40)
    assert process.returncode == 2, output
    assert "error: camera: input: no images in" in output.replace("\n", " ")
    assert "Traceback" not in output
    assert left_behind(tmp_path / "log") == []


def test_a_run_whose_composed_home_worker_is_killed_fails_with_a_word(tmp_path: Path) -> None:
    options = ["--topology", "two_nodes", "--rate", "100", "--frames", "3000", "--use-composition"]
    process = start(*options, "--log-dir", str(tmp_path))
    victim = node_process(process, "camera")
    time.sleep(5.0)
    victim.kill()
    output = finish(process, 40)
    assert process.returncode == 1, output
    assert "error: worker1" in output
    assert "Traceback" not in output
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("victim", ["worker1", "worker4"])
def test_a_worker_killed_in_the_middle_costs_no_frame_its_end(tmp_path: Path, victim: str) -> None:
    path = tmp_path / "summary.json"
    options = ["--topology", "five_mesh", "--rate", "150", "--frames", "1500", "--json", str(path)]
    process = start(*options)
    node_process(process, "camera")
    time.sleep(4.0)
    node_process(process, victim).kill()
    output = finish(process, 90)
    assert process.returncode == 0, output
    summary: dict[str, Any] = json.loads(path.read_text())
    assert summary["unaccounted"] == 0
    assert summary["ok"] >= 0.99 * 1500, summary


def test_segments_of_a_killed_worker_are_taken_over_and_no_frame_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    adaptive = [f"worker{number}:move_timeout_s=9.0" for number in (1, 2, 3)]
    adaptive += ["controller:adaptive_allocation=true", "camera:retry_burst=500"]
    parameters = [part for each in adaptive for part in ("--param", each)]
    process = start(
        *("--topology", "three_mesh", "--strategy", "mdi", "--rate", "60", "--frames", "900"),
        *("--timeout", "80", "--json", str(path), *parameters),
    )
    last = node_process(process, "worker3")
    node_process(process, "camera")
    time.sleep(3.0)
    last.kill()
    output = finish(process, 100)
    assert process.returncode == 0, output
    summary = json.loads(path.read_text())
    assert (summary["offered"], summary["ok"], summary["unaccounted"]) == (900, 900, 0)
    held = {segment for name in ("worker1", "worker2") for segment in summary["workers"][name]["segments"]}
    assert held == {1, 2, 3, 4, 5}, summary["workers"]


def left_behind(log_folder: Path) -> list[int]:
    """Processes of a run that still live; its nodes name the folder of their logs in their environment."""
    needle = f"ROS_LOG_DIR={log_folder / 'ros'}".encode()
    found = []
    for process in psutil.process_iter():
        try:
            if needle in Path(f"/proc/{process.pid}/environ").read_bytes() and process.status() != "zombie":
                found.append(process.pid)
        except (OSError, psutil.Error):
            continue
    return found


@pytest.mark.parametrize("respawn", [(), ("--use-respawn",)], ids=["once", "respawn"])
def test_a_node_that_cannot_start_ends_the_run_with_its_own_words(tmp_path: Path, respawn: tuple[str, ...]) -> None:
    mistake = ("--param", "worker2:batch_max=9999")
    process = start("--topology", "two_nodes", *mistake, *respawn, "--log-dir", str(tmp_path))
    output = finish(process, 40)
    assert process.returncode == 2
    assert (tmp_path / "worker2.log").read_text().count("expected int") == 1, "it was started again"
    assert "error: worker2: parameter batch_max: expected int such as 32 in 1..256" in output.replace("\n", " ")
    assert "Traceback" not in output
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("ends", ["Ctrl-C", "Ctrl-C composed", "terminal", "service"])
def test_a_run_that_is_ended_is_quiet_and_every_frame_gets_its_end(tmp_path: Path, ends: str) -> None:
    path = tmp_path / "summary.json"
    options = ["--topology", "one_node", "--strategy", "local", "--rate", "50", "--log-dir", str(tmp_path)]
    composed = ["--use-composition"] if "composed" in ends else []
    process = start(*options, *composed, "--json", str(path))
    assert process.stdout is not None
    before = []
    for line in process.stdout:
        before.append(line)
        if re.match(r"[1-9]\d*/1200 frames", line):
            break
    if ends == "service":  # as systemd does: everybody at once
        for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            each.terminate()
    else:
        process.send_signal(signal.SIGHUP if ends == "terminal" else signal.SIGINT)
    output = "".join(before) + finish(process, 40)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    summary = json.loads(path.read_text())
    assert 0 < summary["ok"] < 1200
    assert summary["unaccounted"] == 0
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (("--cluster-namespace", "mdi exit"), "cluster namespace: expected words"),
        (("--input", "topic", "--image-topic", "camera-1/image"), "ROS arguments or environment: .*camera-1/image"),
    ],
)
def test_what_ros_does_not_take_is_told_in_one_line(tmp_path: Path, mistake: tuple[str, ...], said: str) -> None:
    process = start("--topology", "one_node", *mistake, "--log-dir", str(tmp_path))
    output = finish(process, 40)
    assert process.returncode == 2
    assert re.search(f"error: .*{said}", output.replace("\n", " ")), output
    assert "Traceback" not in output


def test_a_domain_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    process = start("--topology", "one_node", "--log-dir", str(tmp_path), ROS_DOMAIN_ID="abc")
    output = finish(process, 40)
    assert process.returncode == 2
    assert "error: ROS cannot start, with ROS_DOMAIN_ID='abc'" in output.replace("\n", " ")
    assert "Traceback" not in output


def test_run_of_a_given_duration_ends_in_order(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    options = ["--topology", "one_node", "--strategy", "local", "--rate", "50", "--log-dir", str(tmp_path)]
    process = start(*options, "--frames", "100000", "--duration", "3", "--json", str(path))
    output = finish(process, 60)
    assert process.returncode == 0, output
    summary = json.loads(path.read_text())
    assert 0 < summary["ok"] < 1000
    assert summary["unaccounted"] == 0
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("victim", ["runner", "supervisord"])
def test_nothing_outlives_a_process_above_it_that_was_killed(tmp_path: Path, victim: str) -> None:
    process = start("--topology", "one_node", "--strategy", "local", "--rate", "50", "--log-dir", str(tmp_path))
    node_process(process, "camera")
    assert len(left_behind(tmp_path)) >= 4  # supervisord, worker, controller, source
    killed = psutil.Process(process.pid) if victim == "runner" else psutil.Process(process.pid).children()[0]
    killed.kill()
    output, _ = process.communicate(timeout=30)
    if victim == "supervisord":
        assert process.returncode == 1
        assert "error: supervisord, which watches the node processes, is gone" in output.replace("\n", " ")
        assert "Traceback" not in output
    deadline = time.monotonic() + 15.0
    while left_behind(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left_behind(tmp_path) == []


def test_parts_started_on_two_hosts_find_each_other(tmp_path: Path, two_hosts: dict[str, list[str]]) -> None:
    path = tmp_path / "summary.json"
    common = ["--topology", "two_nodes", "--strategy", "mdi"]
    network = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}
    nano = start(*common, "--computer", "nano2", command=two_hosts["nano2"], **network)
    robot = start(
        *(*common, "--computer", "robot", "--frames", "200", "--json", str(path)),
        command=two_hosts["robot"],
        **network,
    )
    try:
        output = finish(robot, 90)
    finally:
        nano.send_signal(signal.SIGINT)
        nano_output = finish(nano, 30)
    assert robot.returncode == 0, output + nano_output
    summary = json.loads(path.read_text())
    assert (summary["offered"], summary["ok"], summary["unaccounted"]) == (200, 200, 0), summary
    assert summary["workers"]["worker2"]["answered"] == 200  # the last segment is there, and there are no exits
    assert "Traceback" not in output + nano_output
