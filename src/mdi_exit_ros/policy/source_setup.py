# SPDX-License-Identifier: Apache-2.0
"""What a camera source is, and the settings that users may choose for it."""

from __future__ import annotations

import dataclasses

from mdi_exit_ros.parameter import parameter
from mdi_exit_ros.task import PeerId

WAITING_FINITE = 64  # frames of a finite input that wait for admission, so that batches form


@dataclasses.dataclass(frozen=True)
class SourceSettings:
    """Settings of a source that users may choose at start."""

    drop: bool = parameter(True, "refuse the oldest waiting frame when a newer one comes; false: wait for admission")
    waiting_max: int = parameter(1, "most frames that wait for admission", unit="frames", low=1, high=4096)
    in_flight_max: int = parameter(256, "most frames admitted and not yet closed", unit="frames", low=1, high=65536)
    deadline_s: float = parameter(
        10.0, "time from admission until a frame finally fails", unit="s", low=0.1, high=600.0
    )
    attempt_timeout_s: float = parameter(
        1.5,
        "time without an answer after which a frame is tried again; longer where answers take longer",
        unit="s",
        low=0.05,
        high=600.0,
    )
    attempts_max: int = parameter(4, "most attempts at one frame", low=1, high=100)
    retry_share: float = parameter(0.05, "retries allowed per admitted frame", low=0.0, high=1.0)
    retry_burst: int = parameter(8, "retries allowed on top of the share", unit="frames", low=0, high=1000)
    status_interval_s: float = parameter(0.1, "time between two statuses", unit="s", low=0.01, high=1.0)
    liveness_timeout_s: float = parameter(
        1.5, "age of a worker's newest status beyond which it counts as dead", unit="s", low=0.1, high=60.0
    )
    stall_timeout_s: float = parameter(
        10.0,
        "time in one batch beyond which a worker counts as stuck and gets no frames",
        unit="s",
        low=0.5,
        high=600.0,
    )
    worker_timeout_s: float = parameter(
        30.0, "time without any worker to enter after which waiting frames are refused", unit="s", low=0.5, high=3600.0
    )
    priority: int = parameter(0, "frames of a source with a higher one are run first", low=0, high=9)
    send_batch_max: int = parameter(64, "most frames sent in one batch", unit="frames", low=1, high=256)
    send_wait_s: float = parameter(
        0.01, "how long frames gather for one batch while others are under way", unit="s", low=0.0, high=1.0
    )

    def of_input(self, *, drop: bool) -> SourceSettings:
        """These settings for an input whose frames are dropped when newer ones come, or wait."""
        waiting = self.waiting_max if drop else max(self.waiting_max, WAITING_FINITE)
        return dataclasses.replace(self, drop=drop, waiting_max=waiting)


@dataclasses.dataclass(frozen=True)
class SourceSetup:
    """What a source is. Filled by the node from plan and model card.

    Attributes:
        me: name and incarnation of this life.
        model_id: content hash of partition and weights.
        num_segments: K.
        entries: workers that frames may enter, the home worker first.
        total: frames that will be offered in all; 0 when unknown.
        admission_interval_s: mu until a controller is heard.
    """

    me: PeerId
    model_id: str
    num_segments: int
    entries: tuple[str, ...]
    total: int = 0
    admission_interval_s: float = 0.0
    settings: SourceSettings = SourceSettings()
