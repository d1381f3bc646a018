# SPDX-License-Identifier: Apache-2.0
"""The shared network as Ray actors: two stages, or workers that each hold all of it.

What one actor makes for the next stays in Ray's object store and is read there without a copy; only answers are fetched
by the source. Batches in flight are bounded by the source, which gives each to the actor with the fewest.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np
from common import FARM, PIPELINE, Job, Stage, StageOutput, measure, run
from numpy.typing import NDArray

from mdi_exit_ros.benchmark.peers import BENCH_REQUIREMENTS

OBJECT_STORE_BYTES = 256 * 2**20


class RayLink:
    """Calls to actors whose results have not come yet."""

    def __init__(self, job: Job) -> None:
        import ray

        self._ray = ray
        self._farm = job.mode == FARM
        actor = ray.remote(num_cpus=1)(StageActor)
        self._actors = [actor.remote(job, span) for span in job.spans]
        self._calls = [0] * len(self._actors)
        self._waiting: dict[Any, int] = {}  # answers to come, and from which actor

    def offer(self, ids: NDArray[np.int64], frames: NDArray[np.uint8]) -> None:
        """See `common.Link`."""
        if self._farm:
            chosen = min(range(len(self._actors)), key=self._calls.__getitem__)
            self._expect(self._actors[chosen].answer.remote((ids, frames)), chosen)
            return
        task: Any = (ids, frames)
        for number, actor in enumerate(self._actors[:-1]):
            answers, task = actor.step.options(num_returns=2).remote(task)
            self._expect(answers, number)
        self._expect(self._actors[-1].answer.remote(task), len(self._actors) - 1)

    def _expect(self, answers: Any, actor: int) -> None:
        self._waiting[answers] = actor
        self._calls[actor] += 1

    def answers(self, timeout_s: float) -> list[NDArray[np.int64]]:
        """See `common.Link`."""
        came: list[NDArray[np.int64]] = []
        while not came and self._waiting:
            ready, _ = self._ray.wait(list(self._waiting), num_returns=len(self._waiting), timeout=0)
            if not ready and timeout_s:
                ready, _ = self._ray.wait(list(self._waiting), num_returns=1, timeout=timeout_s)
            if not ready:
                break
            for reference in ready:
                self._calls[self._waiting.pop(reference)] -= 1
            came = [rows for rows in self._ray.get(ready) if len(rows)]
        return came


class StageActor:
    """One worker; becomes an actor in `RayLink`."""

    def __init__(self, job: Job, span: tuple[int, int]) -> None:
        self._stage = Stage(job, span)

    def step(self, task: tuple[NDArray[np.int64], NDArray[Any]]) -> tuple[NDArray[np.int64], Any]:
        """Answers of the frames that leave here, and the task of those that go on."""
        output: StageOutput = self._stage.run(*task)
        return output.answers, (output.ids, output.features)

    def answer(self, task: tuple[NDArray[np.int64], NDArray[Any]]) -> NDArray[np.int64]:
        """Answers of the last worker on a frame's way."""
        return self._stage.run(*task).answers


def serve(job: Job) -> None:
    """Source and sink in this process, one actor per worker."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        ray.init(
            address="local",
            num_cpus=len(job.spans),
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=folder,
        )
        try:
            measure(job, RayLink(job), ["ray"])
        finally:
            ray.shutdown()


if __name__ == "__main__":
    run(
        serve,
        name="ray_actors",
        needs=BENCH_REQUIREMENTS,
        modes=(PIPELINE, FARM),
        batch=32,
        in_flight=6,
    )
