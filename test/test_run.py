# SPDX-License-Identifier: Apache-2.0
"""`mdi-exit run` for real: node processes on DDS, one killed in the middle, and parts on hosts of their own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

# The timeout is beyond all that one test waits for.
pytestmark = [pytest.mark.graph, pytest.mark.usefixtures("exported"), pytest.mark.timeout(300)]

MDI_EXIT = [sys.executable, "-m", "mdi_exit_ros.cli.main"]
RUN = [*MDI_EXIT, "run"]
END_S = 20.0  # for a run to end after Ctrl-C
MARK = "MDI_EXIT_TEST_RUN"  # in the environment of every process of a run
# Section 10 of the design: what every summary has.
FIELDS = {
    *("offered", "refused", "ok", "failed", "unaccounted", "accuracy", "throughput_fps", "latency_ms", "exits"),
    *("bytes_per_frame", "strategy", "topology", "workers", "backend", "precision", "batch_mean", "model_id"),
    *("input_hash", "machine", "duration_s"),
}


class Run:
    """One `mdi-exit run` and what it prints, errors included."""

    def __init__(self, log: Path, options: tuple[str, ...], command: list[str], environment: dict[str, str]) -> None:
        self.log = log
        variables = {**os.environ, **environment, MARK: str(log), "PYTHONFAULTHANDLER": "1"}
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, *RUN, *options], stdout=out, stderr=subprocess.STDOUT, env=variables
            )

    @property
    def returncode(self) -> int | None:
        return self.process.returncode

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, pattern: str, timeout_s: float = 60.0) -> None:
        """Waits until a line that begins with the pattern is printed."""
        deadline = time.monotonic() + timeout_s
        while not re.search(f"^{pattern}", self.said(), re.MULTILINE):
            assert self.process.poll() is None, f"ended before it said {pattern}:\n{self.said()}"
            assert time.monotonic() < deadline, f"no {pattern} within {timeout_s} s:\n{self.said()}"
            time.sleep(0.1)

    def finish(self, timeout_s: float) -> str:
        """What it has printed when it ended; where it stands, if it does not."""
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(END_S)
            pytest.fail(f"no end within {timeout_s} s:\n{self.said()}")
        return self.said()

    def end(self) -> None:
        """Ends it as Ctrl-C does, and by force whatever is left of it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(END_S)
        for pid in processes_with(f"{MARK}={self.log}"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `mdi-exit run` with some options; whatever becomes of the test, nothing of it is left afterwards."""
    runs: list[Run] = []

    def begin(*options: str, command: list[str] | None = None, **environment: str) -> Run:
        runs.append(Run(tmp_path / f"said{len(runs)}.txt", options, command or [], environment))
        return runs[-1]

    yield begin
    for run in runs:
        run.end()


def processes_with(variable: str) -> list[int]:
    """Processes that live and have this NAME=value in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            variables = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            if variable.encode() in variables and process.status() != "zombie":
                found.append(process.pid)
        except (OSError, psutil.Error):
            continue
    return found


def left_behind(log_folder: Path) -> list[int]:
    """Processes of a run that still live; its nodes name the folder of their logs in their environment."""
    return processes_with(f"ROS_LOG_DIR={log_folder / 'ros'}")


def node_process(run: Run, name: str, timeout_s: float = 30.0, besides: int = 0) -> psutil.Process:
    """The process of the named node, once it is there; not the one with the pid `besides`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for child in psutil.Process(run.process.pid).children(recursive=True):
            try:
                if child.pid != besides and any(part.endswith(f"__node:={name}") for part in child.cmdline()):
                    return child
            except psutil.Error:
                continue
        time.sleep(0.1)
    raise AssertionError(f"{name} was not started")


def wait_for_work(run: Run, process: psutil.Process, cpu_s: float = 0.5, timeout_s: float = 60.0) -> None:
    """Waits until a process of the run has used so much processor time more.

    Lines are no measure of that at full load: who prints them may not get a processor until all is over.
    """
    deadline = time.monotonic() + timeout_s
    wanted = sum(process.cpu_times()[:2]) + cpu_s
    while sum(process.cpu_times()[:2]) < wanted:
        assert run.process.poll() is None, f"ended before that:\n{run.said()}"
        assert time.monotonic() < deadline, f"it did not work:\n{run.said()}"
        time.sleep(0.05)


def test_three_workers_share_the_work_and_every_frame_is_accounted_for(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    run = start("--topology", "three_mesh", "--frames", "1000", "--json", str(path))
    output = run.finish(90)
    assert run.returncode == 0, output
    summary = json.loads(path.read_text())
    assert set(summary) >= FIELDS
    assert (summary["offered"], summary["unaccounted"]) == (1000, 0)
    assert summary["ok"] >= 990
    assert summary["accuracy"] > 0.8
    assert all(worker["served"] > 0 for worker in summary["workers"].values()), summary["workers"]
    assert len(summary["workers"]) == 3
    assert "Traceback" not in output


def test_a_finite_input_that_drops_begins_with_the_first_credit(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    options = ["--topology", "one_node", "--strategy", "local", "--rate", "50", "--frames", "100", "--drop"]
    run = start(*options, "--json", str(path))
    output = run.finish(60)
    assert run.returncode == 0, output
    summary = json.loads(path.read_text())
    assert (summary["offered"], summary["unaccounted"]) == (100, 0)
    assert summary["ok"] >= 95, summary


def test_a_composed_source_hands_its_frames_over_and_every_one_is_accounted_for(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    options = ["--topology", "two_nodes", "--rate", "300", "--frames", "1200", "--use-composition"]
    run = start(*options, "--json", str(path))
    assert node_process(run, "camera") == node_process(run, "worker1")
    output = run.finish(90)
    assert run.returncode == 0, output
    summary = json.loads(path.read_text())
    assert (summary["offered"], summary["ok"], summary["unaccounted"]) == (1200, 1200, 0)
    assert summary["accuracy"] > 0.8
    assert sum(worker["served"] for worker in summary["workers"].values()) >= 1200
    assert "Traceback" not in output


def test_a_composed_source_that_cannot_start_ends_the_run_with_its_own_words(start: Start, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    options = ["--topology", "one_node", "--strategy", "local", "--input", str(tmp_path / "empty")]
    run = start(*options, "--use-composition", "--log-dir", str(tmp_path / "log"))
    output = run.finish(40)
    assert run.returncode == 2, output
    assert "error: camera: input: no images in" in output.replace("\n", " ")
    assert "Traceback" not in output
    assert left_behind(tmp_path / "log") == []


def test_a_run_whose_composed_home_worker_is_killed_fails_with_a_word(start: Start, tmp_path: Path) -> None:
    options = ["--topology", "two_nodes", "--rate", "100", "--frames", "3000", "--use-composition"]
    run = start(*options, "--log-dir", str(tmp_path))
    run.wait_for(r"[1-9]\d*/3000 frames")
    node_process(run, "camera").kill()
    output = run.finish(40)
    assert run.returncode == 1, output
    assert "error: worker1" in output
    assert "Traceback" not in output
    assert left_behind(tmp_path) == []


# Below the full rate the home worker does nearly everything itself.
@pytest.mark.parametrize(("victim", "rate", "frames"), [("worker1", "150", 2000), ("worker4", "max", 10_000)])
def test_a_worker_killed_in_the_middle_costs_no_frame_its_end(
    start: Start, tmp_path: Path, victim: str, rate: str, frames: int
) -> None:
    path = tmp_path / "summary.json"
    run = start("--topology", "five_mesh", "--rate", rate, "--frames", str(frames), "--json", str(path))
    run.wait_for(rf"\d+/{frames} frames")
    process = node_process(run, victim)
    wait_for_work(run, process)
    process.kill()
    output = run.finish(90)
    assert run.returncode == 0, output
    summary: dict[str, Any] = json.loads(path.read_text())
    assert summary["unaccounted"] == 0
    assert summary["ok"] >= 0.99 * frames, summary
    assert summary["workers"][victim]["served"] > 0, "it had nothing to lose"


def test_segments_of_a_killed_worker_are_taken_over_and_no_frame_is_lost(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    adaptive = [f"worker{number}:move_timeout_s=9.0" for number in (1, 2, 3)]
    adaptive += ["controller:adaptive_allocation=true", "camera:retry_burst=500"]
    parameters = [part for each in adaptive for part in ("--param", each)]
    run = start(
        *("--topology", "three_mesh", "--strategy", "mdi", "--rate", "60", "--frames", "900"),
        *("--timeout", "80", "--json", str(path), *parameters),
    )
    run.wait_for(r"[2-9]\d\d/900 frames")
    node_process(run, "worker3").kill()
    output = run.finish(100)
    assert run.returncode == 0, output
    summary = json.loads(path.read_text())
    assert (summary["offered"], summary["ok"], summary["unaccounted"]) == (900, 900, 0)
    assert summary["workers"]["worker3"]["served"] > 0, "it had nothing to lose"
    held = {segment for name in ("worker1", "worker2") for segment in summary["workers"][name]["segments"]}
    assert held == {1, 2, 3, 4, 5}, summary["workers"]


@pytest.mark.parametrize("respawn", [(), ("--use-respawn",)], ids=["once", "respawn"])
def test_a_node_that_cannot_start_ends_the_run_with_its_own_words(
    start: Start, tmp_path: Path, respawn: tuple[str, ...]
) -> None:
    mistake = ("--param", "worker2:batch_max=9999")
    run = start("--topology", "two_nodes", *mistake, *respawn, "--log-dir", str(tmp_path))
    output = run.finish(40)
    assert run.returncode == 2
    assert (tmp_path / "worker2.log").read_text().count("expected int") == 1, "it was started again"
    assert "error: worker2: parameter batch_max: expected int such as 32 in 1..256" in output.replace("\n", " ")
    assert "Traceback" not in output
    assert left_behind(tmp_path) == []


def test_a_worker_that_is_killed_is_started_again_where_asked_for(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    options = ["--topology", "two_nodes", "--use-respawn", "--rate", "100", "--frames", "1500"]
    run = start(*options, "--json", str(path))
    run.wait_for(r"[1-9]\d*/1500 frames")
    first = node_process(run, "worker2")
    first.kill()
    assert node_process(run, "worker2", besides=first.pid).pid != first.pid
    output = run.finish(90)
    assert run.returncode == 0, output
    assert json.loads(path.read_text())["unaccounted"] == 0
    assert "Traceback" not in output


@pytest.mark.parametrize("ends", ["Ctrl-C", "Ctrl-C composed", "terminal", "service"])
def test_a_run_that_is_ended_is_quiet_and_every_frame_gets_its_end(start: Start, tmp_path: Path, ends: str) -> None:
    path = tmp_path / "summary.json"
    options = ["--topology", "one_node", "--strategy", "local", "--rate", "50", "--log-dir", str(tmp_path)]
    composed = ["--use-composition"] if "composed" in ends else []
    run = start(*options, *composed, "--json", str(path))
    run.wait_for(r"[1-9]\d*/1200 frames")
    if ends == "service":  # as systemd does: everybody at once
        for each in [psutil.Process(run.process.pid), *psutil.Process(run.process.pid).children(recursive=True)]:
            each.terminate()
    else:
        run.process.send_signal(signal.SIGHUP if ends == "terminal" else signal.SIGINT)
    output = run.finish(40)
    assert run.returncode == 0, output
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
def test_what_ros_does_not_take_is_told_in_one_line(
    start: Start, tmp_path: Path, mistake: tuple[str, ...], said: str
) -> None:
    run = start("--topology", "one_node", *mistake, "--log-dir", str(tmp_path))
    output = run.finish(40)
    assert run.returncode == 2
    assert re.search(f"error: .*{said}", output.replace("\n", " ")), output
    assert "Traceback" not in output


def test_a_domain_that_is_none_is_told_in_one_line(start: Start, tmp_path: Path) -> None:
    run = start("--topology", "one_node", "--log-dir", str(tmp_path), ROS_DOMAIN_ID="abc")
    output = run.finish(40)
    assert run.returncode == 2
    assert "error: ROS cannot start, with ROS_DOMAIN_ID='abc'" in output.replace("\n", " ")
    assert "Traceback" not in output


def test_run_of_a_given_duration_ends_in_order(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    options = ["--topology", "one_node", "--strategy", "local", "--rate", "50", "--log-dir", str(tmp_path)]
    run = start(*options, "--frames", "100000", "--duration", "3", "--json", str(path))
    output = run.finish(60)
    assert run.returncode == 0, output
    summary = json.loads(path.read_text())
    assert 0 < summary["ok"] < 1000
    assert summary["unaccounted"] == 0
    assert left_behind(tmp_path) == []


def test_run_that_takes_longer_than_it_may_says_so_and_fails(start: Start, tmp_path: Path) -> None:
    options = ["--topology", "one_node", "--strategy", "local", "--timeout", "1"]
    run = start(*options, "--log-dir", str(tmp_path))
    output = run.finish(40)
    assert run.returncode == 1, output
    assert "error: the run did not finish within 1 s" in output
    assert "Traceback" not in output
    assert left_behind(tmp_path) == []


def top(*options: str) -> tuple[int, str]:
    """Exit status and output of `mdi-exit top`."""
    command = [*MDI_EXIT, "top", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_top_shows_a_run_that_somebody_else_has_started(start: Start) -> None:
    run = start("--topology", "two_nodes", "--rate", "50", "--frames", "100000")
    run.wait_for(r"[1-9]\d*/100000 frames")
    status, output = top("--duration", "8")
    assert status == 0, output
    assert re.search(r"[1-9]\d*/100000 frames, .*; queues worker1:\d+\+\d+ worker2:\d+\+\d+", output), output
    assert run.process.poll() is None, "it only listens"


def test_top_says_where_it_heard_nothing_and_fails() -> None:
    status, output = top("--cluster-namespace", "/nobody", "--duration", "1")
    assert status == 1
    domain = os.environ["ROS_DOMAIN_ID"]
    assert f"nothing heard on /nobody yet, in ROS domain {domain}: is it running" in output.replace("\n", " ")


@pytest.mark.parametrize("victim", ["runner", "supervisord"])
def test_nothing_outlives_a_process_above_it_that_was_killed(start: Start, tmp_path: Path, victim: str) -> None:
    run = start("--topology", "one_node", "--strategy", "local", "--rate", "50", "--log-dir", str(tmp_path))
    node_process(run, "camera")
    assert len(left_behind(tmp_path)) >= 4  # supervisord, worker, controller, source
    killed = psutil.Process(run.process.pid) if victim == "runner" else psutil.Process(run.process.pid).children()[0]
    killed.kill()
    output = run.finish(30)
    if victim == "supervisord":
        assert run.returncode == 1
        assert "error: supervisord, which watches the node processes, is gone" in output.replace("\n", " ")
        assert "Traceback" not in output
    deadline = time.monotonic() + 15.0
    while left_behind(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left_behind(tmp_path) == []


def test_parts_started_on_two_hosts_find_each_other(
    start: Start, tmp_path: Path, two_hosts: dict[str, list[str]]
) -> None:
    path = tmp_path / "summary.json"
    common = ["--topology", "two_nodes", "--strategy", "mdi"]
    network = {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}
    nano = start(*common, "--computer", "nano2", command=two_hosts["nano2"], **network)
    robot = start(
        *(*common, "--computer", "robot", "--frames", "200", "--json", str(path)),
        command=two_hosts["robot"],
        **network,
    )
    output = robot.finish(90)
    nano.process.send_signal(signal.SIGINT)
    nano_output = nano.finish(30)
    assert robot.returncode == 0, output + nano_output
    summary = json.loads(path.read_text())
    assert (summary["offered"], summary["ok"], summary["unaccounted"]) == (200, 200, 0), summary
    assert summary["workers"]["worker2"]["answered"] == 200  # the last segment is there, and there are no exits
    assert "Traceback" not in output + nano_output
