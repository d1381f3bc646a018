# SPDX-License-Identifier: Apache-2.0
"""Computers that share all work: a home worker, and others that hold the segments from some place on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mdi_exit_ros.planner.arrangement import FULL, Arrangement, Duty, Use
from mdi_exit_ros.planner.costs import Costs, Place, Work, camera_only, costs_of
from mdi_exit_ros.planner.demand import Candidate, Demand

# Of what comes to a segment, a home worker that holds it moves at most so much: it also takes what it has room for, and
# kept at least 0.24 in simulations of 2 to 8 computers, however much waited.
MOVED_MAX = 0.75


def shared(computers: Sequence[Candidate], demand: Demand, margin: float) -> Arrangement:
    """The best arrangement of one home worker, where frames come in, and others with the segments from a place on.

    The home worker is on another computer than the robot only where a worker there could not move all that it should.
    """
    costs = costs_of(demand, len(computers))
    places = demand.segments if len(computers) > 1 else demand.segments[:1]
    found = [_shared_from(computers, costs, 0, place, margin) for place in places]
    best = max(found, key=lambda each: each.rate_hz)  # of equals the earliest place
    if len(computers) == 1 or not any(_moves_all(each, demand) for each in found):
        return best
    costs = costs_of(demand, len(computers) - 1)
    homes = {replace(each, name=""): index for index, each in reversed(list(enumerate(computers))) if index}
    places = demand.segments if len(computers) > 2 else demand.segments[:1]
    elsewhere = [
        _shared_from(computers, costs, home, place, margin) for home in sorted(homes.values()) for place in places
    ]
    return max([best, *elsewhere], key=lambda each: each.rate_hz)


def _moves_all(arrangement: Arrangement, demand: Demand) -> bool:
    """Whether the home worker moves as much as it can."""
    moved = sum(duty.taken for duty in arrangement.duties[1:])
    return moved >= FULL * MOVED_MAX * demand.reach[arrangement.place - 1]


def _shared_from(computers: Sequence[Candidate], costs: Costs, home: int, place: int, margin: float) -> Arrangement:
    """The best of those with that home worker and place."""
    demand = costs.demand
    last = demand.segments[-1]
    count = costs.workers - 1
    entry = Place(computers[home], costs, is_robot=home == 0, always=costs.home_always)
    others = [
        Place(each, costs, is_robot=False, always=costs.worker_always)
        for index, each in enumerate(computers)
        if index not in (0, home)
    ]
    whole = Work(costs.network_s(1, last), costs.take_s(1) + costs.own_s(1, last))
    rest = Work(costs.network_s(place, last), costs.own_s(place, last))
    saved = Work(rest.network_s, rest.own_s - costs.give_s(place))
    taken = Work(rest.network_s, rest.own_s + costs.take_s(place))
    bits = costs.bits(place)
    out_bps = count * costs.status_bps(count + 1) + (count * costs.source_bps if home == 0 else 0.0)
    in_bps = costs.status_bps(count + 1) + costs.source_bps + (count - 1) * costs.status_bps(2)
    camera = camera_only(computers[0], costs) if home else None
    given = (*camera.uses, *entry.link(in_bps, costs.bits(1))) if camera else ()
    # Tasks per second that the others can take, each for itself and all together.
    takes = [min(use.rate_within(margin) for use in (*each.uses(taken), *each.link(in_bps, bits))) for each in others]
    most = min([sum(takes), *(use.rate_within(margin) for use in entry.link(out_bps, bits))])

    def uses_at_home(moved: float) -> tuple[Use, ...]:
        """Of all that the home worker needs, where that many tasks per frame move."""
        network_s = whole.network_s - moved * saved.network_s
        return *entry.uses(Work(network_s, whole.own_s - moved * saved.own_s)), *given

    reach = demand.reach[place - 1]
    moved = _moved_per_frame(uses_at_home, MOVED_MAX * reach, most, margin)
    # A worker that moves all it can had better not hold those segments, where the others can take everything.
    passes_on = (
        place > 1 and moved >= FULL * MOVED_MAX * reach and reach * _rate_hz(uses_at_home(reach), margin) <= most
    )
    if passes_on:
        moved = reach
    home_uses = [use for use in uses_at_home(moved) if use.computer == entry.computer.name]
    duties = [] if camera is None else [camera]
    duties.append(
        Duty(
            computer=entry.computer.name,
            segments=tuple(range(1, place if passes_on else len(demand.reach) + 1)),
            taken=1.0,
            alone_s=entry.alone_s(whole) - moved * entry.alone_s(saved),
            moving_s=costs.bits(1) / entry.computer.link_bps if camera else 0.0,
            uses=(*home_uses, *(entry.link(out_bps, moved * bits) if count else ())),
        )
    )
    for each, takes_hz in zip(others, takes, strict=True):
        share = moved * takes_hz / sum(takes) if moved else 0.0
        duties.append(
            Duty(
                computer=each.computer.name,
                segments=tuple(range(place, len(demand.reach) + 1)),
                taken=share,
                alone_s=share * each.alone_s(taken),
                moving_s=share * bits / min(entry.computer.link_bps, each.computer.link_bps),
                uses=(*each.uses(_scaled(taken, share)), *each.link(in_bps, share * bits)),
            )
        )
    return Arrangement("shared", place if count else 0, sum(each.cost for each in computers), margin, tuple(duties))


def _scaled(work: Work, share: float) -> Work:
    return Work(share * work.network_s, share * work.own_s)


def _rate_hz(uses: Sequence[Use], margin: float) -> float:
    return min(use.rate_within(margin) for use in uses)


def _moved_per_frame(
    uses_at_home: Callable[[float], tuple[Use, ...]], reach: float, most: float, margin: float
) -> float:
    """How many tasks per frame move at best, of `reach` that there are and `most` per second that find a place.

    What the home worker has to do falls linearly with them: either all move, or as many per second as find a place.
    """
    none, one = uses_at_home(0.0), uses_at_home(1.0)
    if reach * _rate_hz(uses_at_home(reach), margin) <= most:
        moved = reach
    else:
        rate_hz = min(
            (margin - without.always + most * (without.per_frame - each.per_frame)) / without.per_frame
            for without, each in zip(none, one, strict=True)
            if without.per_frame > 0.0
        )
        moved = most / rate_hz if rate_hz > 0.0 else 0.0
    return moved if _rate_hz(uses_at_home(moved), margin) > _rate_hz(none, margin) else 0.0
