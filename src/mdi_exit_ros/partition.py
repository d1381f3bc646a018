# SPDX-License-Identifier: Apache-2.0
"""Where to cut a network among computers so that the slowest stage of the pipeline is as fast as possible."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from mdi_exit_ros.errors import ConfigurationError

COMPUTERS_MAX = 12  # in any order there are 2^n sets of them to look at


EQUAL = 1.0 + 1e-9  # costs that differ by less are the same


@dataclass(frozen=True)
class Computer:
    """A computer of the pipeline.

    Attributes:
        name: Its name.
        speed: How fast it computes, relative to the one that was profiled; above 0.
        link_bps: Bits per second that its network link carries in each direction; above 0.
    """

    name: str
    speed: float = 1.0
    link_bps: float = math.inf


@dataclass(frozen=True)
class Work:
    """What one frame costs, on average.

    Attributes:
        segment_s: Time of each segment 1..K on the profiled computer (s).
        input_nbytes: Bytes that cross the network in front of each segment 1..K.
        reach: Share of the frames that come to each segment 1..K, in [0, 1]; all 1 without early exits.
    """

    segment_s: Sequence[float]
    input_nbytes: Sequence[float]
    reach: Sequence[float]

    def __post_init__(self) -> None:
        if not self.segment_s or not len(self.segment_s) == len(self.input_nbytes) == len(self.reach):
            raise ConfigurationError(
                f"expected a time, a size and a share for every segment, got {len(self.segment_s)}, "
                f"{len(self.input_nbytes)} and {len(self.reach)}"
            )


@dataclass(frozen=True)
class Stage:
    """What one computer does for an average frame.

    Attributes:
        computer: Its name.
        segments: A span of 1..K.
        compute_s: Time of its segments (s).
        transfer_s: Time in which its input crosses the network (s); 0 where the frame is here already.
    """

    computer: str
    segments: tuple[int, ...]
    compute_s: float
    transfer_s: float

    @property
    def slowest_s(self) -> float:
        """The slower of computing and moving (s)."""
        return max(self.compute_s, self.transfer_s)


@dataclass(frozen=True)
class Cut:
    """A pipeline of stages, in the order of the network.

    Attributes:
        stages: One per computer that has something to do.
    """

    stages: tuple[Stage, ...]

    @property
    def slowest_s(self) -> float:
        """Time of the slowest stage for an average frame (s)."""
        return max(stage.slowest_s for stage in self.stages)

    @property
    def frames_per_s(self) -> float:
        """Frames per second that the slowest stage lets through."""
        return 1.0 / self.slowest_s

    @property
    def latency_s(self) -> float:
        """Time of an average frame through idle stages (s)."""
        return sum(stage.compute_s + stage.transfer_s for stage in self.stages)


def best_cut(computers: Sequence[Computer], work: Work, *, in_order: bool = False, all_used: bool = False) -> Cut:
    """The cut with the fastest slowest stage; among equals the one with the shortest latency, then fewest computers.

    Exact, by dynamic programming over the set of computers used, the last of them and the segments done: once for the
    slowest stage, and once more for the latency among the cuts that are no slower. Computing and moving overlap, so a
    stage takes as long as the slower of the two. Two computers are as far apart as the slower of their links.

    Args:
        computers: The first is where frames come in; it may be left out of the pipeline and then sends them on.
        work: What a frame costs.
        in_order: The pipeline visits computers in the order given, rather than in the best one.
        all_used: Every computer gets at least one segment.

    Raises:
        ConfigurationError: No computer, too many, names given twice, a speed or rate that is not above 0, or more
            computers than segments although all shall be used.
    """
    _check(computers, len(work.segment_s), in_order=in_order, all_used=all_used)
    table = _Stages(computers, work)
    bound = _search(table, in_order=in_order, all_used=all_used, limit_s=math.inf, by_latency=False)[0]
    stages = _search(table, in_order=in_order, all_used=all_used, limit_s=bound * (1 + 1e-12), by_latency=True)[1]
    return Cut(tuple(table.stage(*stage) for stage in stages))


def longest_path(path: list[str], successors: Mapping[str, Sequence[str]], limit: int) -> list[str]:
    """The longest way on from the end of `path` over workers that it has not visited, with at most `limit` in all."""
    best = path
    for name in successors[path[-1]]:
        if len(best) >= limit:
            break
        if name not in path:
            best = max(best, longest_path([*path, name], successors, limit), key=len)
    return best


_Span = tuple[int, int, int, int]  # computer before (-1: none), computer, segments done before, segments done after


class _Stages:
    """Costs of every possible stage."""

    def __init__(self, computers: Sequence[Computer], work: Work) -> None:
        self.computers = computers
        self.work = work
        self.segments = len(work.segment_s)
        weighted = (share * seconds for share, seconds in zip(work.reach, work.segment_s, strict=True))
        self._until = [0.0, *accumulate(weighted)]

    def costs(self, before: int, computer: int, start: int, end: int) -> tuple[float, float]:
        """Time to compute and to move (s) of a stage that runs segments `start` + 1 to `end`."""
        compute_s = (self._until[end] - self._until[start]) / self.computers[computer].speed
        origin = max(before, 0)  # before the first stage the frame is at the first computer
        if origin == computer:
            return compute_s, 0.0
        link_bps = min(self.computers[origin].link_bps, self.computers[computer].link_bps)
        return compute_s, self.work.reach[start] * 8.0 * self.work.input_nbytes[start] / link_bps

    def stage(self, before: int, computer: int, start: int, end: int) -> Stage:
        """That stage, described."""
        compute_s, transfer_s = self.costs(before, computer, start, end)
        return Stage(self.computers[computer].name, tuple(range(start + 1, end + 1)), compute_s, transfer_s)


def _search(
    table: _Stages, *, in_order: bool, all_used: bool, limit_s: float, by_latency: bool
) -> tuple[float, list[_Span]]:
    """Smallest slowest stage, or with `by_latency` smallest latency, over cuts whose stages take at most `limit_s`."""
    count = len(table.computers)
    best: dict[tuple[int, int, int], tuple[float, int, list[_Span]]] = {(0, -1, 0): (0.0, 0, [])}
    for done in range(table.segments):
        for used, last, _ in [state for state in best if state[2] == done]:
            cost, size, spans = best[used, last, done]
            for following in _next(used, last, count, in_order=in_order, all_used=all_used):
                for end in range(done + 1, table.segments + 1):
                    compute_s, transfer_s = table.costs(last, following, done, end)
                    slowest_s = max(compute_s, transfer_s)
                    if slowest_s > limit_s:
                        continue
                    total = cost + compute_s + transfer_s if by_latency else max(cost, slowest_s)
                    state = (used if in_order else used | 1 << following, following, end)
                    if state not in best or _is_less((total, size + 1), best[state][:2]):
                        best[state] = (total, size + 1, [*spans, (last, following, done, end)])
    whole = (1 << count) - 1
    ends = [
        found
        for (used, last, done), found in best.items()
        if done == table.segments and (not all_used or used == whole or (in_order and last == count - 1))
    ]
    cheapest = min(cost for cost, _, _ in ends)
    cost, _, spans = min((found for found in ends if found[0] <= cheapest * EQUAL), key=lambda found: found[1])
    return cost, spans


def _is_less(one: tuple[float, int], other: tuple[float, int]) -> bool:
    """Whether a cost is less, or the same but for rounding with fewer computers."""
    return one[0] * EQUAL < other[0] or (one[0] <= other[0] * EQUAL and one[1] < other[1])


def _next(used: int, last: int, count: int, *, in_order: bool, all_used: bool) -> Iterator[int]:
    if in_order:
        yield from range(last + 1, min(last + 2, count) if all_used else count)
    else:
        yield from (computer for computer in range(count) if not used >> computer & 1)


def _check(computers: Sequence[Computer], segments: int, *, in_order: bool, all_used: bool) -> None:
    if not computers or (len(computers) > COMPUTERS_MAX and not in_order):
        raise ConfigurationError(
            f"expected 1 to {COMPUTERS_MAX} computers, or more in a given order, got {len(computers)}"
        )
    names = [computer.name for computer in computers]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"expected computers of different names, got {', '.join(names)}")
    for computer in computers:
        if not computer.speed > 0.0 or not computer.link_bps > 0.0 or math.isinf(computer.speed):
            raise ConfigurationError(
                f"computer {computer.name}: expected a speed and a link rate above 0, got {computer.speed} and "
                f"{computer.link_bps} bit/s"
            )
    if all_used and len(computers) > segments:
        raise ConfigurationError(f"expected at most {segments} computers for {segments} segments, got {len(computers)}")
