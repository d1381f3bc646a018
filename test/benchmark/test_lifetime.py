# SPDX-License-Identifier: Apache-2.0
"""Nothing that a benchmark starts outlives it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from mdi_exit_ros.benchmark import camera_topic
from mdi_exit_ros.benchmark.graph import GraphWork

# Started with a folder, a program that writes its number there and sleeps, and the folder of the peer programs.
BENCHMARK = """
import multiprocessing.spawn, os, sys, time  # the first looks where Python is, now
from pathlib import Path
from mdi_exit_ros.benchmark import camera_topic, graph, peers
sys.path.append(sys.argv[3])
from common import processes

folder = Path(sys.argv[1])

def sleep():
    (folder / "pid.new").write_text(str(os.getpid()))
    (folder / "pid.new").rename(folder / "pid")
    time.sleep(60.0)

if __name__ == "__main__":
    sys.executable = sys.argv[2]
    {begin}
    time.sleep(60.0)
"""
BEGINNINGS = {
    "graph": "graph.graph_summary(graph.GraphWork('', '', '', '', ''), frames=1)",
    "camera": "begun = camera_topic._Process('graph', folder, [])",
    "peer": "peers._run([sys.executable])",
    "worker of a peer": "with processes(sleep, [()]): time.sleep(60.0)",
}


def begun_by(process: subprocess.Popen[bytes], folder: Path) -> psutil.Process:
    deadline = time.monotonic() + 60.0
    while not (folder / "pid").is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return psutil.Process(int((folder / "pid").read_text()))


@pytest.mark.parametrize("what", BEGINNINGS)
def test_what_a_benchmark_began_ends_with_it(what: str, tmp_path: Path, repository: Path) -> None:
    program, script = tmp_path / "sleep", tmp_path / "benchmark.py"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 60\n")
    program.chmod(0o755)
    script.write_text(BENCHMARK.format(begin=BEGINNINGS[what]))
    peers = repository / "benchmark" / "peers"
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path), str(program), str(peers)])
    begun = begun_by(process, tmp_path)
    process.terminate()
    process.wait(30.0)
    try:
        begun.wait(10.0)
    finally:
        if begun.is_running():
            begun.kill()


def test_a_graph_ends_when_the_camera_cannot_be_started(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[subprocess.Popen[bytes]] = []

    def popen(*_: Any, **__: Any) -> subprocess.Popen[bytes]:
        if begun:
            raise OSError("no more processes")
        begun.append(subprocess.Popen(["sleep", "60"]))
        return begun[0]

    monkeypatch.setattr(camera_topic, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": popen}))
    work = GraphWork("one_node", "local", "mobilenetv2", "onnxruntime", "fp32")
    with pytest.raises(OSError, match="no more processes"):
        camera_topic.camera_run(work, repository, in_flight=1, full_s=0.1, low_s=0.1)
    assert begun[0].poll() is not None
