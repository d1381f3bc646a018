# SPDX-License-Identifier: Apache-2.0
"""The words that every layer shares: peers, frames, tasks, answers. No tensors, no clocks."""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

NAME_MAX = 100  # of a node or namespace; ROS takes topics of up to 247 characters with both
NAMESPACE = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)


class PeerId(NamedTuple):
    """One life of a named node: a restarted worker has the same name and a new incarnation."""

    name: str
    incarnation: int


class FrameId(NamedTuple):
    """One camera frame: the life of the source that offered it, and its number there (0, 1, ...)."""

    source: PeerId
    sequence: int


class Task(NamedTuple):
    """Segment `segment` (1..K) waiting to be run on a frame.

    Times are seconds on the monotonic clock of the computer that holds the task; a task that
    crosses the network carries durations and gets new times where it arrives. Of two tasks the one with the higher
    `priority`, its source's, is run first.
    """

    frame: FrameId
    attempt: int
    segment: int
    admitted_at: float
    expires_at: float
    priority: int = 0

    def following(self) -> Task:
        """The same attempt, one segment further."""
        return Task(self.frame, self.attempt, self.segment + 1, self.admitted_at, self.expires_at, self.priority)


class Reason(enum.IntEnum):
    """Why a frame was refused or failed. Numbers below 20 travel in ResultBatch."""

    NONE = 0
    EXPIRED = 1
    NO_HOLDER = 2
    BLOCKED = 3
    NO_CREDIT = 4
    COMPUTE = 5
    BAD_INPUT = 6
    MODEL_MISMATCH = 7
    SHUTDOWN = 8
    # Known to the source alone.
    RATE = 20  # held back by the admission interval until a newer frame came
    STALE = 21  # due, but no worker had room until a newer frame came
    UNREADABLE = 22  # the image could not be decoded
    NO_ANSWER = 23  # no attempt was answered by the deadline
    NO_WORKER = 24  # no worker to enter was heard for too long

    @property
    def label(self) -> str:
        """Name in summaries and logs, such as `no_holder`."""
        return self.name.lower()


class Status(enum.IntEnum):
    """How an attempt ended. REFUSED may be tried again elsewhere."""

    OK = 0
    REFUSED = 1
    FAILED = 2


class Answer(NamedTuple):
    """How one attempt at a frame ended at a worker.

    `exit` (1..K), `class_id` and the calibrated `confidence` (0..1) are what the network said, valid when OK.
    """

    frame: FrameId
    attempt: int
    status: Status
    reason: Reason = Reason.NONE
    exit: int = 0
    class_id: int = 0
    confidence: float = 0.0


class State(enum.IntEnum):
    """Life phase of a worker or source; a source that stops is FINISHED."""

    STARTING = 0
    RUNNING = 1
    STOPPING = 2


class Mode(enum.IntEnum):
    """Who moves the applied policy: nobody, the admission interval, or the thresholds."""

    MANUAL = 0
    RATE = 1
    THRESHOLD = 2


class Strategy(enum.StrEnum):
    """How frames are spread over workers.

    local: the home worker alone runs everything. ddi: every worker holds the whole model, frames
    move whole. mdi: segments are spread, no exits. mdi_exit: tasks move after any segment, frames
    leave early.
    """

    LOCAL = "local"
    DDI = "ddi"
    MDI = "mdi"
    MDI_EXIT = "mdi_exit"

    def may_move(self, segment: int) -> bool:
        """Whether a task of `segment` (1..K) may be offloaded although this worker could run it."""
        match self:
            case Strategy.LOCAL:
                return False
            case Strategy.DDI:
                return segment == 1
            case Strategy.MDI | Strategy.MDI_EXIT:
                return True

    @property
    def has_exits(self) -> bool:
        """Whether frames leave early unless told otherwise."""
        return self is not Strategy.MDI
