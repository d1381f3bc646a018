# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

PARENT = """
import time
from mdi_exit_ros.simulation.processes import side_by_side
if __name__ == "__main__":
    for _, pid in side_by_side(__import__("os").getpid, [(), ()], 2):
        print(pid, flush=True)
    for _ in side_by_side(time.sleep, [(60,), (60,)], 2):
        pass
"""


def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().strip().isdecimal()
        until = time.monotonic() + 30.0
        children: list[psutil.Process] = []
        while len(children) < 3 and time.monotonic() < until:  # two that work, and multiprocessing's own helper
            children = psutil.Process(parent.pid).children()
            time.sleep(0.1)
        assert len(children) >= 2
        time.sleep(1.0)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _, alive = psutil.wait_procs(children, timeout=20.0)
    assert alive == []
