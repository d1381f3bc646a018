# SPDX-License-Identifier: Apache-2.0
"""The shared network as a pipeline over torch.distributed point-to-point messages (gloo).

Rank 0 is source and sink, each later rank a stage. A batch is two messages: frame numbers, then the tensor with as many
rows as there are numbers. Every rank receives in a thread of its own, so that messages travel while a stage computes.
"""

from __future__ import annotations

import os
import queue
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from common import PIPELINE, STOP_TIMEOUT_S, Job, Stage, measure, processes, run
from numpy.typing import NDArray

from mdi_exit_ros.benchmark.peers import REQUIREMENTS

QUEUED_BATCHES = 2
SENDS_UNDER_WAY = 8
STOP = -1  # count of rows that ends a stream


def join(job: Job, rank: int, folder: str) -> None:
    """Makes this process one rank of the group."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{Path(folder) / 'group'}", rank=rank, world_size=1 + len(job.spans)
    )


class Sender:
    """Sends without waiting, up to a number of messages under way."""

    def __init__(self) -> None:
        self._under_way: deque[Any] = deque()

    def send(self, values: NDArray[Any], rank: int) -> None:
        """Sends an array; the array must not change any more."""
        import torch
        import torch.distributed as dist

        self._under_way.append(dist.isend(torch.from_numpy(values), rank))
        if len(self._under_way) > SENDS_UNDER_WAY:
            self._under_way.popleft().wait()

    def finish(self) -> None:
        """Waits until everything has been sent."""
        while self._under_way:
            self._under_way.popleft().wait()


def numbered(ids: NDArray[np.int64], batch: int) -> NDArray[np.int64]:
    """Frame numbers as a message of fixed length: their count, the numbers, padding."""
    message = np.zeros(1 + batch, np.int64)
    message[0] = len(ids)
    message[1 : 1 + len(ids)] = ids
    return message


def stop_message(batch: int) -> NDArray[np.int64]:
    """The message of frame numbers that ends a stream."""
    message = np.zeros(1 + batch, np.int64)
    message[0] = STOP
    return message


def receive_tasks(job: Job, stage: Stage, rank: int, inbox: queue.Queue[Any]) -> None:
    """Fills a stage's inbox from the rank before it, until the stream ends."""
    import torch
    import torch.distributed as dist

    while True:
        numbers = torch.zeros(1 + job.batch, dtype=torch.int64)
        dist.irecv(numbers, rank - 1).wait()
        count = int(numbers[0])
        if count == STOP:
            inbox.put(None)
            return
        rows = torch.from_numpy(np.empty((count, *stage.row_shape), stage.dtype))
        dist.irecv(rows, rank - 1).wait()
        inbox.put((numbers.numpy()[1 : 1 + count], rows.numpy()))


def worker(job: Job, rank: int, folder: str) -> None:
    """Takes batches, answers what leaves here and passes the rest on."""
    import torch.distributed as dist

    stage = Stage(job, job.spans[rank - 1])
    join(job, rank, folder)
    inbox: queue.Queue[Any] = queue.Queue(QUEUED_BATCHES)
    threading.Thread(target=receive_tasks, args=(job, stage, rank, inbox), daemon=True).start()
    sender = Sender()
    while (task := inbox.get()) is not None:
        output = stage.run(*task)
        if len(output.answers):
            message = np.zeros((1 + job.batch, 3), np.int64)
            message[0, 0] = len(output.answers)
            message[1 : 1 + len(output.answers)] = output.answers
            sender.send(message, 0)
        if len(output.ids):
            sender.send(numbered(output.ids, job.batch), rank + 1)
            sender.send(np.ascontiguousarray(output.features), rank + 1)
    if rank < len(job.spans):
        sender.send(stop_message(job.batch), rank + 1)
    last = np.zeros((1 + job.batch, 3), np.int64)
    last[0, 0] = STOP
    sender.send(last, 0)
    sender.finish()
    dist.destroy_process_group()


class TorchDistributedLink:
    """The source's sends to rank 1 and a thread that takes answers of any rank."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._sender = Sender()
        self._inbox: queue.SimpleQueue[NDArray[np.int64]] = queue.SimpleQueue()
        self._receiver = threading.Thread(target=self._receive, daemon=True)
        self._receiver.start()

    def _receive(self) -> None:
        import torch
        import torch.distributed as dist

        running = len(self._job.spans)
        while running:
            message = torch.zeros((1 + self._job.batch, 3), dtype=torch.int64)
            dist.recv(message)
            count = int(message[0, 0])
            if count == STOP:
                running -= 1
            else:
                self._inbox.put(message.numpy()[1 : 1 + count])

    def offer(self, ids: NDArray[np.int64], frames: NDArray[np.uint8]) -> None:
        """See `common.Link`."""
        self._sender.send(numbered(ids, self._job.batch), 1)
        self._sender.send(frames, 1)

    def answers(self, timeout_s: float) -> list[NDArray[np.int64]]:
        """See `common.Link`."""
        came = []
        try:
            came.append(self._inbox.get(timeout=timeout_s) if timeout_s else self._inbox.get_nowait())
            while True:
                came.append(self._inbox.get_nowait())
        except queue.Empty:
            return came

    def stop(self) -> None:
        """Ends the stream and waits until every stage has said so."""
        self._sender.send(stop_message(self._job.batch), 1)
        self._sender.finish()
        self._receiver.join(STOP_TIMEOUT_S)


def serve(job: Job) -> None:
    """Source and sink in this process, stages in their own."""
    import torch.distributed as dist

    with tempfile.TemporaryDirectory() as folder:
        ranks = range(1, 1 + len(job.spans))
        with processes(worker, [(job, rank, folder) for rank in ranks]):
            join(job, 0, folder)
            link = TorchDistributedLink(job)
            measure(job, link, ["torch"])
            link.stop()
            dist.destroy_process_group()


if __name__ == "__main__":
    run(
        serve,
        name="torch_distributed_pipeline",
        needs=REQUIREMENTS,
        modes=(PIPELINE,),
        batch=32,
        in_flight=6,
    )
