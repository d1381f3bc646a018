# SPDX-License-Identifier: Apache-2.0
"""What the nodes' own work costs beside the network's layers: messages, frames, statuses."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class NodeCosts(BaseModel):
    """Processor time of a node's own work, on one core of the computer that the profile is of.

    Defaults: fitted to real runs, see ARCHITECTURE.md.

    Attributes:
        receive_us: taking in one message of tasks or answers.
        send_us: publishing one.
        status_in_us: taking in one status.
        status_out_us: publishing one status or policy.
        kilobyte_us: per kilobyte of tensor, on either side.
        task_us: a worker's work per task, from its message or answer to the next.
        batch_us: a worker's work per batch besides.
        read_us: decoding one image ahead, on a thread of its own.
        frame_us: a source's work per frame from offer to end.
        transit_us: time that a message is under way besides the network, without work of either side: waking up.
        quota_share: share of a CPU quota that does work; the rest goes by while threads wait for each other's period.
        controller_cores: cores that the controller and the view of a run keep busy, on the first source's computer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    receive_us: float = Field(default=200.0, ge=0.0)
    send_us: float = Field(default=160.0, ge=0.0)
    status_in_us: float = Field(default=250.0, ge=0.0)
    status_out_us: float = Field(default=300.0, ge=0.0)
    kilobyte_us: float = Field(default=0.3, ge=0.0)
    task_us: float = Field(default=15.0, ge=0.0)
    batch_us: float = Field(default=100.0, ge=0.0)
    read_us: float = Field(default=60.0, ge=0.0)
    frame_us: float = Field(default=40.0, ge=0.0)
    transit_us: float = Field(default=250.0, ge=0.0)
    controller_cores: float = Field(default=0.06, ge=0.0)
    quota_share: float = Field(default=0.82, gt=0.0, le=1.0)


NO_COSTS = NodeCosts(
    receive_us=0.0,
    send_us=0.0,
    status_in_us=0.0,
    status_out_us=0.0,
    kilobyte_us=0.0,
    task_us=0.0,
    batch_us=0.0,
    read_us=0.0,
    frame_us=0.0,
    transit_us=100.0,
    quota_share=1.0,
    controller_cores=0.0,
)
