# SPDX-License-Identifier: Apache-2.0
"""Whether a task at the head of the output queue moves to a neighbour."""

from __future__ import annotations

import random


def expected_delay_s(transfer_delay_s: float, queue_length: float, service_time_s: float) -> float:
    """D_nm + I_m * Gamma_m: time until neighbour m would begin the task (s).

    Args:
        transfer_delay_s: D_nm, for this task.
        queue_length: I_m in frames, with what was sent to m and is not yet acknowledged.
        service_time_s: Gamma_m, per task.
    """
    return transfer_delay_s + queue_length * service_time_s


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


def moves(own_delay_s: float, other_delay_s: float, rng: random.Random) -> bool:
    """Whether the head of O_n goes to the neighbour with that delay: one toss, if any; see `send_probability`."""
    probability = send_probability(own_delay_s, other_delay_s)
    return probability >= 1.0 or rng.random() < probability
