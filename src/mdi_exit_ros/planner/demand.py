# SPDX-License-Identifier: Apache-2.0
"""What the planner is given: computers that may be used, and what an average frame asks of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.simulation.costs import NodeCosts
from mdi_exit_ros.topology import ALL

CANDIDATES_MAX = 12  # all sets of them are looked at
NOBODY = 1e-9  # share of frames below which a segment is never reached


@dataclass(frozen=True)
class Candidate:
    """A computer that may be used.

    Attributes:
        name: its name.
        speed: of one core, relative to the computer that was profiled; above 0.
        cores: processors that the nodes may use; above 0.
        link_bps: bits per second that its network link carries in each direction; above 0.
        cost: of having it, in any unit; at least 0.
    """

    name: str
    speed: float = 1.0
    cores: float = 1.0
    link_bps: float = math.inf
    cost: float = 1.0


@dataclass(frozen=True)
class Demand:
    """What an average frame asks of computers and links.

    Attributes:
        segment_s: time per frame of each segment 1..K on one core of the profiled computer, in batches (s).
        input_nbytes: bytes of the input of each segment 1..K as it travels.
        reach: share of the frames that come to each segment 1..K, in [0, 1], falling.
        batch: frames per batch and per message, at least 1.
        lone: every frame has a message of its own, as where few come; else messages are full, and some besides
            go out before they are, whatever the rate.
        costs: the nodes' own work.
    """

    segment_s: tuple[float, ...]
    input_nbytes: tuple[float, ...]
    reach: tuple[float, ...]
    batch: int = 16
    lone: bool = False
    costs: NodeCosts = field(default_factory=NodeCosts)

    @property
    def segments(self) -> range:
        """The segments 1..K that any frame comes to."""
        return range(1, 1 + sum(share > NOBODY for share in self.reach))


def check(candidates: Sequence[Candidate]) -> None:
    """Holds computers against what the planner takes.

    Raises:
        ConfigurationError: no computer, too many, names given twice, or a number out of its range.
    """
    if not 1 <= len(candidates) <= CANDIDATES_MAX:
        raise ConfigurationError(f"expected 1 to {CANDIDATES_MAX} computers to choose from, got {len(candidates)}")
    names = [each.name for each in candidates]
    if len(set(names)) < len(names) or not all(names):
        raise ConfigurationError(f"expected computers of different names, got {', '.join(map(repr, names))}")
    if ALL in names:
        raise ConfigurationError(f"computer {ALL}: the word stands for every computer: expected another name")
    for each in candidates:
        for what, value in (("speed", each.speed), ("number of cores", each.cores)):
            if not 0.0 < value < math.inf:
                raise ConfigurationError(f"computer {each.name}: expected a {what} above 0, got {value:g}")
        if not each.link_bps > 0.0:
            raise ConfigurationError(f"computer {each.name}: expected a link rate above 0, got {each.link_bps:g} bit/s")
        if not 0.0 <= each.cost < math.inf:
            raise ConfigurationError(f"computer {each.name}: expected a cost of at least 0, got {each.cost:g}")
