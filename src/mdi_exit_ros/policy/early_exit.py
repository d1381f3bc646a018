# SPDX-License-Identifier: Apache-2.0
"""Whether a frame leaves at an exit."""

from __future__ import annotations

from collections.abc import Sequence


def leaves_here(segment: int, num_segments: int, confidence: float, exit_thresholds: Sequence[float]) -> bool:
    """Whether exit `segment` (1..K) answers: confidence C_k(d) in 0..1 reaches T_e^k; the last exit always does.

    Args:
        exit_thresholds: T_e^1..T_e^(K-1); empty means that only the last exit answers.
    """
    if segment >= num_segments:
        return True
    return segment <= len(exit_thresholds) and confidence >= exit_thresholds[segment - 1]
