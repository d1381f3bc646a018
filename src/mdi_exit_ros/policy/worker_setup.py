# SPDX-License-Identifier: Apache-2.0
"""What a worker is, and the settings that users may choose for it."""

from __future__ import annotations

import dataclasses

from mdi_exit_ros.parameter import parameter
from mdi_exit_ros.task import PeerId, Strategy


@dataclasses.dataclass(frozen=True)
class WorkerSettings:
    """Settings of a worker that users may choose at start."""

    queue_capacity: int = parameter(
        192,
        "most tasks held at once, all queues together; half may come from sources",
        unit="frames",
        low=8,
        high=4096,
    )
    queue_wait_max_s: float = parameter(
        2.0,
        "longest that all tasks held at once may take to run here: slow segments hold fewer than queue_capacity",
        unit="s",
        low=0.05,
        high=600.0,
    )
    batch_max: int = parameter(32, "most tasks run in one batch", unit="frames", low=1, high=256)
    batch_wait_s: float = parameter(
        0.02, "how long tasks may wait while other segments make fuller batches", unit="s", low=0.0, high=1.0
    )
    group_min: int = parameter(
        8,
        "tasks of a segment that are worth a message to a neighbour, however far",
        unit="frames",
        low=1,
        high=256,
    )
    answer_wait_s: float = parameter(
        0.01, "how long a busy worker gathers answers for one message", unit="s", low=0.0, high=1.0
    )
    status_interval_min_s: float = parameter(
        0.02, "shortest time between two statuses, when others wait for one", unit="s", low=0.001, high=1.0
    )
    status_interval_max_s: float = parameter(
        0.1, "longest time between two statuses: the sign of life", unit="s", low=0.01, high=1.0
    )
    liveness_timeout_s: float = parameter(
        1.5, "age of a peer's newest status beyond which it counts as dead", unit="s", low=0.1, high=60.0
    )
    stall_timeout_s: float = parameter(
        10.0, "time in one batch beyond which a worker counts as stuck and gets no tasks", unit="s", low=0.5, high=600.0
    )
    move_timeout_s: float = parameter(
        1.0, "how long a task that cannot run here waits for a holder with credit", unit="s", low=0.05, high=60.0
    )


@dataclasses.dataclass(frozen=True)
class WorkerSetup:
    """What a worker is: identity, model and place in the topology. Filled by the node from plan and model card.

    Attributes:
        me: name and incarnation of this life.
        model_id: content hash of partition and weights.
        num_segments: K.
        segments: segments held at first, 1..K.
        input_nbytes: bytes per frame of the input of segment 1..K, as sent.
        neighbours: names of the workers that share an edge with this one.
        strategy: which tasks may move.
        exits_enabled: whether frames may leave before exit K.
        exit_thresholds: T_e^1..T_e^(K-1) until a controller is heard.
        service_times: segment, batch size and seconds of runs on one lane measured before, from the smallest batch to
            the largest.
        lanes: threads that each run batches of their own.
    """

    me: PeerId
    model_id: str
    num_segments: int
    segments: frozenset[int]
    input_nbytes: tuple[int, ...]
    neighbours: tuple[str, ...]
    strategy: Strategy
    exits_enabled: bool
    exit_thresholds: tuple[float, ...]
    settings: WorkerSettings = WorkerSettings()
    service_times: tuple[tuple[int, int, float], ...] = ()
    lanes: int = 1
