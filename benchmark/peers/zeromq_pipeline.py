# SPDX-License-Identifier: Apache-2.0
"""The shared network over ZeroMQ PUSH/PULL sockets: two stages, or workers that each hold all of it.

Batches travel as raw buffers without a copy in Python. PUSH blocks rather than drops; a high-water mark of two batches
keeps a fast sender from filling a slow worker's queue, and the answers' queue has room for everything in flight.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
from common import FARM, PIPELINE, Job, Stage, measure, processes, run
from numpy.typing import NDArray

TASKS_HIGH_WATER_MARK = 2


def _socket(context: Any, kind: int, high_water_mark: int) -> Any:
    socket = context.socket(kind)
    socket.set_hwm(high_water_mark)
    socket.linger = 0
    return socket


def worker(job: Job, span: tuple[int, int], folder: str) -> None:
    """Takes batches, answers what leaves here and passes the rest on."""
    import zmq

    stage = Stage(job, span)
    context = zmq.Context()
    tasks = _socket(context, zmq.PULL, TASKS_HIGH_WATER_MARK)
    answers = _socket(context, zmq.PUSH, job.in_flight)
    onward = _socket(context, zmq.PUSH, TASKS_HIGH_WATER_MARK)
    if span[0] == 1:
        tasks.connect(f"ipc://{folder}/frames")
    else:
        tasks.bind(f"ipc://{folder}/features")
    if span != job.spans[-1]:
        onward.connect(f"ipc://{folder}/features")
    answers.connect(f"ipc://{folder}/answers")
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
    """The source's two sockets."""

    def __init__(self, job: Job, folder: str) -> None:
        import zmq

        context = zmq.Context()
        self._frames = _socket(context, zmq.PUSH, TASKS_HIGH_WATER_MARK)
        self._answers = _socket(context, zmq.PULL, job.in_flight)
        self._frames.bind(f"ipc://{folder}/frames")
        self._answers.bind(f"ipc://{folder}/answers")

    def offer(self, ids: NDArray[np.int64], frames: NDArray[np.uint8]) -> None:
        """See `common.Link`."""
        self._frames.send_multipart([ids, frames], copy=False)

    def answers(self, timeout_s: float) -> list[NDArray[np.int64]]:
        """See `common.Link`."""
        came = []
        while self._answers.poll(0 if came else int(1000 * timeout_s)):
            came.append(np.frombuffer(self._answers.recv(), np.int64).reshape(-1, 3))
        return came


def serve(job: Job) -> None:
    """Source and sink in this process, workers in their own."""
    with tempfile.TemporaryDirectory() as folder:
        link = ZeroMQLink(job, folder)
        with processes(worker, [(job, span, folder) for span in job.spans]):
            measure(job, link, ["pyzmq"])


if __name__ == "__main__":
    run(
        serve,
        name="zeromq_pipeline",
        needs="pip install -c constraints.txt -r requirements-bench.txt",
        modes=(PIPELINE, FARM),
        batch=32,
        in_flight=6,
    )
