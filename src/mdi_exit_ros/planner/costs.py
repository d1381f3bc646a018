# SPDX-License-Identifier: Apache-2.0
"""What frames, messages and statuses cost on a computer and its link, in a set of workers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from mdi_exit_ros.planner.arrangement import Duty, Use
from mdi_exit_ros.planner.demand import Candidate, Demand
from mdi_exit_ros.policy.source_setup import SourceSettings
from mdi_exit_ros.policy.worker_setup import WorkerSettings
from mdi_exit_ros.simulation.shells import MESSAGE_NBYTES, STATUS_NBYTES, STREAM_NBYTES, TASK_NBYTES

US = 1e-6
STATUS_HZ = 2.0 / (WorkerSettings().status_interval_min_s + WorkerSettings().status_interval_max_s)
FLUSH_HZ = 1.0 / WorkerSettings().answer_wait_s  # messages that a worker gets and answers, however few frames they hold
SOURCE_STATUS_HZ = 1.0 / SourceSettings().status_interval_s


@dataclass(frozen=True)
class Work:
    """What a worker does per frame of the camera, in seconds on a profiled core."""

    network_s: float
    own_s: float


class Costs:
    """Seconds on a core of the profiled computer, and bits, in a set of `workers`."""

    def __init__(self, demand: Demand, workers: int) -> None:
        costs, batch = demand.costs, demand.batch
        self.demand = demand
        self.workers = workers
        self.message = 1 if demand.lone else batch  # frames in one
        flush_hz = 0.0 if demand.lone else FLUSH_HZ
        self.send_s = US * costs.send_us / self.message  # of one message, per frame in it
        self.receive_s = US * costs.receive_us / self.message
        self.task_s = US * (costs.task_us + costs.batch_us / batch)
        self.source_thread_s = US * costs.frame_us + self._kilobytes_s(1) + self.send_s + self.receive_s
        self.source_s = self.source_thread_s + US * costs.read_us
        # Shares of a core that go into statuses and into messages that are not full. The source hears its home worker's
        # status at once, the others' now and then.
        self.worker_always = US * (
            STATUS_HZ * (costs.status_out_us + (workers - 1) * costs.status_in_us)
            + SOURCE_STATUS_HZ * costs.status_in_us
            + flush_hz * (costs.send_us + costs.receive_us)
        )
        self.home_always = self.worker_always + US * (workers - 1) * flush_hz * costs.send_us
        self.source_always = US * (
            STATUS_HZ * costs.status_in_us
            + SOURCE_STATUS_HZ * costs.status_out_us
            + flush_hz * (costs.send_us + workers * costs.receive_us)
        )
        segments = demand.segments
        self._spans = {(start, end): self._span(start, end) for start in segments for end in segments if end >= start}

    def _kilobytes_s(self, segment: int) -> float:
        return US * self.demand.costs.kilobyte_us * self.demand.input_nbytes[segment - 1] / 1000.0

    def give_s(self, segment: int) -> float:
        """Sending a task of a segment."""
        return self.send_s + self._kilobytes_s(segment)

    def take_s(self, segment: int) -> float:
        """Taking it in."""
        return self.receive_s + self._kilobytes_s(segment) + US * self.demand.costs.task_us

    def share(self, segment: int, start: int) -> float:
        """Of the frames at segment `start`, those that come to `segment`."""
        return self.demand.reach[segment - 1] / self.demand.reach[start - 1]

    def own_s(self, start: int, end: int) -> float:
        """A worker's own work on a frame at `start` that it runs up to `end` at most, answers included."""
        return self._spans[start, end].own_s

    def network_s(self, start: int, end: int) -> float:
        """The network's layers on such a frame, on one core."""
        return self._spans[start, end].network_s

    def _span(self, start: int, end: int) -> Work:
        shares = [self.share(segment, start) for segment in range(start, end + 1)]
        answered = 1.0 - (self.share(end + 1, start) if end < self.demand.segments[-1] else 0.0)
        times = self.demand.segment_s[start - 1 : end]
        return Work(
            sum(share * seconds for share, seconds in zip(shares, times, strict=True)),
            sum(shares) * self.task_s + answered * self.send_s,
        )

    def bits(self, segment: int) -> float:
        """What crosses the network with a task of a segment."""
        return 8.0 * (self.demand.input_nbytes[segment - 1] + TASK_NBYTES + MESSAGE_NBYTES / self.message)

    def status_bps(self, streams: int) -> float:
        """What a worker's statuses take to one listener."""
        return 8.0 * STATUS_HZ * (STATUS_NBYTES + STREAM_NBYTES * streams)

    @property
    def source_bps(self) -> float:
        """What the source's statuses take to one listener."""
        return 8.0 * SOURCE_STATUS_HZ * (STATUS_NBYTES + STREAM_NBYTES)


@lru_cache(maxsize=32)
def costs_of(demand: Demand, workers: int) -> Costs:
    """The costs in a set of so many workers, worked out once."""
    return Costs(demand, workers)


class Place:
    """One computer of a set, as what runs there sees it.

    Args:
        always: share of a profiled core that its worker takes whatever the rate.
    """

    def __init__(self, computer: Candidate, costs: Costs, *, is_robot: bool, always: float) -> None:
        self.computer = computer
        self.costs = costs
        self.is_robot = is_robot
        self.lanes = max(1, int(computer.cores))
        self.thread = computer.speed * min(1.0, computer.cores)  # what one thread does, in profiled cores
        self.all = computer.speed * computer.cores
        self.always = always

    def alone_s(self, work: Work) -> float:
        """How long the work takes here when nothing waits (s), frame by frame."""
        return (work.network_s + work.own_s) / self.thread

    def uses(self, work: Work) -> tuple[Use, ...]:
        """Of the cores, by a worker and, on the robot, by the camera source and the controller."""
        name, costs = self.computer.name, self.costs
        # A lane's batch and Python's work for it come in turn, and only one lane's Python can run.
        serial_s = max((work.network_s + work.own_s) / self.lanes, work.own_s)
        found = [Use("compute", name, self.always / self.thread, serial_s / self.thread)]
        if self.is_robot:
            always = self.always + costs.source_always
            total = costs.source_s + work.network_s + work.own_s
            busy = costs.demand.costs.controller_cores / self.computer.cores
            found += [
                Use("compute", name, busy + always / self.all, total / self.all),
                Use("compute", name, costs.source_always / self.thread, costs.source_thread_s / self.thread),
            ]
        return tuple(found)

    def link(self, always_bps: float, bits: float) -> tuple[Use, ...]:
        """Of one direction of the link."""
        rate = self.computer.link_bps
        return (Use("link", self.computer.name, always_bps / rate, bits / rate, rate),) if rate < math.inf else ()


NOTHING = Work(0.0, 0.0)


def camera_only(robot: Candidate, costs: Costs) -> Duty:
    """The robot where no worker runs on it: it sends all frames whole."""
    place = Place(robot, costs, is_robot=True, always=0.0)
    link = place.link(costs.workers * costs.source_bps, costs.bits(1))
    return Duty(robot.name, (), 0.0, 0.0, costs.bits(1) / robot.link_bps, (*place.uses(NOTHING), *link))
