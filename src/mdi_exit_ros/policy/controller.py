# SPDX-License-Identifier: Apache-2.0
"""What a controller decides: which policy applies, from set-points and the load of the home workers."""

from __future__ import annotations

import dataclasses

from mdi_exit_ros.task import PeerId


@dataclasses.dataclass(frozen=True)
class ControllerSetup:
    """What a controller is.

    Attributes:
        me: name and incarnation of this life.
        num_segments: K.
        priority: of several controllers the highest counts, then the lowest name.
        curve: calibrated points (accuracy on validation data 0..1, thresholds T_e^1..T_e^(K-1)), cheap to accurate;
            empty when the model has none.
    """

    me: PeerId
    num_segments: int
    priority: int = 0
    curve: tuple[tuple[float, tuple[float, ...]], ...] = ()
    liveness_timeout_s: float = 1.0
