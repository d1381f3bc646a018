# SPDX-License-Identifier: Apache-2.0
"""How a set of computers is used, and what follows: its rate, what limits it, its latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from mdi_exit_ros.policy.source import BUSY_FRAMES
from mdi_exit_ros.policy.source_setup import SourceSettings
from mdi_exit_ros.policy.worker_setup import WorkerSettings
from mdi_exit_ros.task import Strategy

FULL = 1.0 - 1e-6  # of the margin, from which something counts as what limits
QUEUE_MAX = 4096  # frames, of a worker
ANSWER_WAIT_S = WorkerSettings().answer_wait_s
GATHERING_S = SourceSettings().send_wait_s + ANSWER_WAIT_S  # longest waits for a full message
TURNAROUND_S = GATHERING_S + WorkerSettings().status_interval_min_s  # the same, and for the news of room


class Use(NamedTuple):
    """How far something is used, as a share of all of it, at a rate of frames from the camera.

    Attributes:
        kind: `compute` or `link`.
        computer: whose it is.
        always: share used whatever the rate.
        per_frame: share used per frame/s.
        bps: what a link carries in all, bits per second.
    """

    kind: str
    computer: str
    always: float
    per_frame: float
    bps: float = math.inf

    def at(self, rate_hz: float) -> float:
        """The share at that rate."""
        return self.always + rate_hz * self.per_frame

    def rate_within(self, margin: float) -> float:
        """The largest rate at which at most `margin` is used (frames/s)."""
        if self.always >= margin:
            return 0.0
        return (margin - self.always) / self.per_frame if self.per_frame > 0.0 else math.inf


@dataclass(frozen=True)
class Duty:
    """What one computer of a set does.

    Attributes:
        computer: its name.
        segments: those that it holds; none where it only has the camera.
        taken: tasks that it gets to begin with per frame of the camera: from the camera, or moved there.
        alone_s: time that its part of a frame takes when nothing waits, averaged over all frames (s).
        moving_s: the same for moving frames there (s).
        uses: of its cores and its link.
    """

    computer: str
    segments: tuple[int, ...]
    taken: float
    alone_s: float
    moving_s: float
    uses: tuple[Use, ...]

    def busy(self, rate_hz: float, kind: str = "compute") -> float:
        """Share of the fullest of its `kind` that is used at that rate."""
        return max((use.at(rate_hz) for use in self.uses if use.kind == kind), default=0.0)

    def carried_bps(self, rate_hz: float) -> float:
        """What its link carries in its busier direction at that rate (bit/s); nan where no rate limits it."""
        links = [use.at(rate_hz) * use.bps for use in self.uses if use.kind == "link"]
        return max(links, default=math.nan)


@dataclass(frozen=True)
class Arrangement:
    """A set of computers, used as well as it can be.

    Attributes:
        kind: `shared` or `spans`, see the module.
        place: the segment before which frames move; 0 for spans, and where nothing moves.
        cost: of all its computers.
        margin: share of each core and link that may be used.
        duties: of its computers, the robot first, then the home worker's.
    """

    kind: str
    place: int
    cost: float
    margin: float
    duties: tuple[Duty, ...]

    @cached_property
    def rate_hz(self) -> float:
        """Frames/s that it does within the margin."""
        return min(use.rate_within(self.margin) for duty in self.duties for use in duty.uses)

    @property
    def names(self) -> tuple[str, ...]:
        """Its computers."""
        return tuple(duty.computer for duty in self.duties)

    @property
    def limits(self) -> tuple[Use, ...]:
        """What is used up to the margin at its best rate."""
        uses = [use for duty in self.duties for use in duty.uses]
        found = [use for use in uses if use.at(self.rate_hz) >= FULL * self.margin]
        return tuple({(use.kind, use.computer): use for use in found}.values())

    def limit(self) -> str:
        """What keeps it from more, in words."""
        share = f"{100.0 * self.margin:.0f} %"
        links = [use.computer for use in self.limits if use.kind == "link"]
        busy = [use.computer for use in self.limits if use.kind == "compute"]
        parts = []
        if links:
            are = "links of" if len(links) > 1 else "link of"
            parts.append(f"link: {share} of the {are} {_listed(links)} {'are' if len(links) > 1 else 'is'} used")
        if busy:
            parts.append(f"compute: {_listed(busy)} {'are' if len(busy) > 1 else 'is'} {share} busy")
            if not any(duty.segments for duty in self.duties if duty.computer in busy):
                parts[-1] += " with its camera alone"
        return "; ".join(parts)

    def latency_s(self, rate_hz: float) -> float:
        """Rough mean latency (s): work and moving, each stretched by 1 / (1 - used), and waits for messages.

        Where more than a few frames are under way, frames and answers gather for messages; that counts with its
        longest waits.
        """
        waited = 0.0
        for duty in self.duties:
            for alone_s, kind in ((duty.alone_s, "compute"), (duty.moving_s, "link")):
                left = 1.0 - duty.busy(rate_hz, kind)
                waited += 0.0 if alone_s == 0.0 else alone_s / left if left > 0.0 else math.inf
        return waited + (GATHERING_S if rate_hz * (waited + ANSWER_WAIT_S) >= BUSY_FRAMES else 0.0)

    @property
    def strategy(self) -> Strategy:
        """By which the nodes do what is meant here."""
        if sum(bool(duty.segments) for duty in self.duties) == 1:
            return Strategy.LOCAL
        return Strategy.DDI if self.place == 1 else Strategy.MDI_EXIT

    def queue_capacity(self, rate_hz: float) -> int:
        """The room that every worker needs for that rate, the default or a power of two (frames).

        A source has half of its home worker's room, for the frames on their way and until it hears of new room.
        """
        under_way = rate_hz * (self.latency_s(rate_hz) + TURNAROUND_S)
        needed = 2.0 * min(under_way, QUEUE_MAX)
        return min(QUEUE_MAX, max(WorkerSettings().queue_capacity, 1 << math.ceil(math.log2(max(1.0, needed)))))


def _listed(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
