# SPDX-License-Identifier: Apache-2.0
"""Whether a task at the head of the output queue moves, and to which neighbour."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import NamedTuple


class Candidate(NamedTuple):
    """A neighbour that could take the task: alive, same model, holds the segment, has given credit.

    A task that this worker could run is considered only for neighbours whose input queue I_m is shorter than O_n.

    Attributes:
        name: Neighbour m.
        queue_length: I_m in frames, with what was sent to m and is not yet acknowledged.
        service_time_s: Gamma_m, seconds per task.
        transfer_delay_s: D_nm, seconds for this task.
    """

    name: str
    queue_length: int
    service_time_s: float
    transfer_delay_s: float

    @property
    def expected_delay_s(self) -> float:
        """D_nm + I_m * Gamma_m: time until m would begin this task."""
        return self.transfer_delay_s + self.queue_length * self.service_time_s


def best(candidates: Iterable[Candidate]) -> Candidate | None:
    """The candidate with the smallest expected delay; the first named of equals."""
    return min(candidates, key=lambda candidate: (candidate.expected_delay_s, candidate.name), default=None)


def send_probability(own_delay_s: float, other_delay_s: float) -> float:
    """Chance that a task moves although the other worker is not expected to be faster.

    1 if D_nm + I_m * Gamma_m < I_n * Gamma_n, else min(1, I_n * Gamma_n / (D_nm + I_m * Gamma_m)), where a zero
    denominator means sending (MDI-Exit, Colocrese et al. 2024, offloading rule).

    Args:
        own_delay_s: I_n * Gamma_n.
        other_delay_s: D_nm + I_m * Gamma_m.
    """
    if other_delay_s <= 0.0 or other_delay_s < own_delay_s:
        return 1.0
    return min(1.0, own_delay_s / other_delay_s)


def moves(candidate: Candidate, *, input_length: int, service_time_s: float, rng: random.Random) -> bool:
    """Whether the head of O_n goes to this candidate, whose I_m is shorter than O_n: one toss.

    Args:
        input_length: I_n in frames.
        service_time_s: Gamma_n.
    """
    probability = send_probability(input_length * service_time_s, candidate.expected_delay_s)
    return probability >= 1.0 or rng.random() < probability
