# SPDX-License-Identifier: Apache-2.0
"""A worker whose backend has broken leaves the cluster instead of drawing frames to its empty queue."""

from __future__ import annotations

import sys

from graph_harness import NodeProcess, graph

BROKEN_BACKEND = """
import sys
from mdi_exit_ros.nodes import compute, entry

def fail(rows):
    raise RuntimeError("the accelerator is gone")

compute.gather = fail
sys.exit(entry.run("segment_worker"))
"""


class BrokenProcess(NodeProcess):
    def begin(self, command: list[str]) -> None:
        super().begin([sys.executable, "-c", BROKEN_BACKEND, *command[command.index("--ros-args") :]])


def test_worker_that_fails_every_batch_ends_with_one_line_and_may_be_started_again(tmp_path):
    with graph(tmp_path, "/broken") as (start, seen):
        worker = BrokenProcess(tmp_path, "segment_worker", "worker1", "/broken", segments=[1, 2, 3, 4, 5])
        try:
            source = start("camera_source", "camera", entries=["worker1"], input="sample", rate_hz=50.0)
            seen.wait_until(lambda: worker.process.poll() is not None, 30.0, "the worker to end")
            assert worker.wait() == 1  # 0 and 2 would not be started again
            (line,) = (line for line in worker.said().splitlines() if line.startswith("error: "))
            assert (
                line == "error: 10 batches in a row have failed, the last with RuntimeError('the accelerator is gone')"
            )
            assert "Traceback" not in worker.said()
            source.stop()
        finally:
            worker.kill()
