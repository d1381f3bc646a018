# SPDX-License-Identifier: Apache-2.0
"""The shared network over ZeroMQ PUSH/PULL sockets: two stages, or workers that each hold all of it.

Batches travel as raw buffers without a copy in Python. PUSH blocks rather than drops at its high-water mark of two
batches; the answers' queue has room for everything in flight. A farm's source has one PUSH socket per worker and fills
the least busy: one socket for all would deal in turn and let batches pile up at a slow worker while another is idle.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
from common import FARM, PIPELINE, Job, Stage, measure, processes, run
from numpy.typing import NDArray

from mdi_exit_ros.benchmark.peers import BENCH_REQUIREMENTS

TASKS_HIGH_WATER_MARK = 2


def _socket(context: Any, kind: int, high_water_mark: int) -> Any:
    socket = context.socket(kind)
    socket.set_hwm(high_water_mark)
    socket.linger = 0
    return socket


def worker(job: Job, number: int, folder: str) -> None:
    """Takes batches, answers what leaves here and passes the rest on."""
    import zmq

    stage = Stage(job, job.spans[number])
    context = zmq.Context()
    tasks = _socket(context, zmq.PULL, TASKS_HIGH_WATER_MARK)
    tasks.bind(f"ipc://{folder}/tasks{number}")
    answers = _socket(context, zmq.PUSH, job.in_flight)
    answers.connect(f"ipc://{folder}/answers")
    onward = _socket(context, zmq.PUSH, TASKS_HIGH_WATER_MARK)
    if job.mode == PIPELINE and number + 1 < len(job.spans):
        onward.connect(f"ipc://{folder}/tasks{number + 1}")
    while True:
        numbers, data = tasks.recv_multipart(copy=False)
        ids = np.frombuffer(numbers.buffer, np.int64)
        batch = np.frombuffer(data.buffer, stage.dtype).reshape(len(ids), *stage.row_shape)
        output = stage.run(ids, batch)
        if len(output.answers):
            answers.send(output.answers, copy=False)
        if len(output.ids):
            onward.send_multipart([output.ids, output.features], copy=False)


class ZeroMQLink:
    """The source's sockets: one to each worker that takes frames, and one for answers."""

    def __init__(self, job: Job, folder: str) -> None:
        import zmq

        context = zmq.Context()
        self._batch = job.batch
        self._answers = _socket(context, zmq.PULL, job.in_flight)
        self._answers.bind(f"ipc://{folder}/answers")
        self._tasks = []
        for number in range(len(job.spans) if job.mode == FARM else 1):
            self._tasks.append(_socket(context, zmq.PUSH, TASKS_HIGH_WATER_MARK))
            self._tasks[number].connect(f"ipc://{folder}/tasks{number}")
        self._waiting = [0] * len(self._tasks)
        self._worker_of: dict[int, int] = {}  # by number of the batch

    def offer(self, ids: NDArray[np.int64], frames: NDArray[np.uint8]) -> None:
        """See `common.Link`."""
        worker = min(range(len(self._tasks)), key=self._waiting.__getitem__)
        self._worker_of[int(ids[0]) // self._batch] = worker
        self._waiting[worker] += len(ids)
        self._tasks[worker].send_multipart([ids, frames], copy=False)

    def answers(self, timeout_s: float) -> list[NDArray[np.int64]]:
        """See `common.Link`."""
        came: list[NDArray[np.int64]] = []
        while self._answers.poll(0 if came else int(1000 * timeout_s)):
            rows = np.frombuffer(self._answers.recv(), np.int64).reshape(-1, 3)
            self._waiting[self._worker_of[int(rows[0, 0]) // self._batch]] -= len(rows)
            came.append(rows)
        return came


def serve(job: Job) -> None:
    """Source and sink in this process, workers in their own."""
    with tempfile.TemporaryDirectory() as folder:
        link = ZeroMQLink(job, folder)
        with processes(worker, [(job, number, folder) for number in range(len(job.spans))]):
            measure(job, link, ["pyzmq"])


if __name__ == "__main__":
    run(
        serve,
        name="zeromq_pipeline",
        needs=BENCH_REQUIREMENTS,
        modes=(PIPELINE, FARM),
        batch=32,
        in_flight=6,
    )
