# SPDX-License-Identifier: Apache-2.0
"""Computers that hold one span of the segments each, which frames visit in order until they leave."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mdi_exit_ros.planner.arrangement import Arrangement, Duty
from mdi_exit_ros.planner.costs import Costs, Place, Work, camera_only, costs_of
from mdi_exit_ros.planner.demand import Candidate, Demand

_Stage = tuple[int, int, int, int]  # computer before (-1: none), computer, first segment, last segment


def _spans(candidates: Sequence[Candidate], demand: Demand, margin: float, size: int) -> Iterator[Arrangement]:
    """The best pipeline of exactly `size` stages of every set that many computers can make."""
    costs = costs_of(demand, size)
    last = demand.segments[-1]
    best: dict[tuple[int, int, int], tuple[float, list[_Stage]]] = {(0, -1, 0): (math.inf, [])}
    for _ in range(size):
        following: dict[tuple[int, int, int], tuple[float, list[_Stage]]] = {}
        for (used, before, done), (rate_hz, stages) in best.items():
            for index in range(len(candidates)):
                if used >> index & 1 or (index == 0 and done):  # the robot comes first, or only has the camera
                    continue
                for end in range(done + 1, last + 1):
                    stage = before, index, done + 1, end
                    duty = _stage_duty(candidates, costs, *stage)
                    total = min(rate_hz, *(use.rate_within(margin) for use in duty.uses))
                    state = used | 1 << index, index, end
                    if state not in following or total > following[state][0]:
                        following[state] = total, [*stages, stage]
        best = following
    for (used, _, done), (_, stages) in best.items():
        if done == last:
            yield _pipeline(candidates, costs, margin, used, stages)


def _pipeline(
    candidates: Sequence[Candidate], costs: Costs, margin: float, used: int, stages: list[_Stage]
) -> Arrangement:
    duties = [_stage_duty(candidates, costs, *stage) for stage in stages]
    computers = [candidates[stage[1]] for stage in stages]
    if not used & 1:
        duties.insert(0, camera_only(candidates[0], costs))
        computers.append(candidates[0])
    return Arrangement("spans", 0, sum(each.cost for each in computers), margin, tuple(duties))


def _stage_duty(candidates: Sequence[Candidate], costs: Costs, before: int, index: int, first: int, end: int) -> Duty:
    """Segments `first` to `end` on one computer, with what comes there from the computer before."""
    demand = costs.demand
    place = Place(candidates[index], costs, is_robot=index == 0, always=costs.worker_always)
    came = demand.reach[first - 1]
    own_s = costs.take_s(first) + costs.own_s(first, end)
    if end < demand.segments[-1]:
        own_s += costs.share(end + 1, first) * costs.give_s(end + 1)
    work = Work(came * costs.network_s(first, end), came * own_s)
    uses, moving_s = place.uses(work), 0.0
    if index != max(before, 0):  # before the first stage the frame is on the robot
        sender = Place(candidates[max(before, 0)], costs, is_robot=before <= 0, always=0.0)
        statuses_bps = (costs.workers - 1) * costs.status_bps(2) + costs.source_bps
        bits = came * costs.bits(first)
        uses += (*place.link(statuses_bps, bits), *sender.link(statuses_bps, bits))
        moving_s = bits / min(place.computer.link_bps, sender.computer.link_bps)
    # Segments that no frame comes to are held by the last.
    until = len(demand.reach) if end == demand.segments[-1] else end
    return Duty(place.computer.name, tuple(range(first, until + 1)), came, place.alone_s(work), moving_s, uses)


def pipelines(candidates: Sequence[Candidate], demand: Demand, margin: float) -> dict[tuple[int, ...], Arrangement]:
    """The best pipeline of every set of computers that makes one, by their numbers."""
    places = {each.name: index for index, each in enumerate(candidates)}
    sets: dict[tuple[int, ...], Arrangement] = {}
    for size in range(1, min(len(candidates), len(demand.segments)) + 1):
        for found in _spans(candidates, demand, margin, size):
            chosen = tuple(sorted(places[name] for name in found.names))
            if chosen not in sets or found.rate_hz > sets[chosen].rate_hz:
                sets[chosen] = found
    return sets
