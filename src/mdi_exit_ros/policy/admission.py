# SPDX-License-Identifier: Apache-2.0
"""How fast frames are admitted, or how sure exits must be, from the backlog of the home worker."""

from __future__ import annotations

import dataclasses

from mdi_exit_ros.parameter import parameter


@dataclasses.dataclass(frozen=True)
class AdaptationSettings:
    """Constants of adaptation, all changeable while running. Doubles start at 0 so that rqt's sliders are right."""

    queue_low: int = parameter(8, "T_Q1: below this backlog load rises fast", unit="frames", low=0, high=500, live=True)
    queue_high: int = parameter(
        24, "T_Q2: from this backlog on load falls", unit="frames", low=0, high=500, live=True
    )
    output_threshold: int = parameter(
        16, "T_O: output queue length above which new tasks stay here", unit="frames", low=0, high=500, live=True
    )
    alpha: float = parameter(0.2, "step of a fast rise", low=0.0, high=1.0, live=True)
    beta: float = parameter(0.05, "step of a slow rise", low=0.0, high=1.0, live=True)
    zeta: float = parameter(0.1, "step of a fall", low=0.0, high=1.0, live=True)
    period_s: float = parameter(0.1, "s: time between two adaptations", unit="s", low=0.0, high=5.0, live=True)
    interval_max_s: float = parameter(1.0, "largest admission interval mu", unit="s", low=0.0, high=10.0, live=True)
    threshold_floor: float = parameter(0.2, "lowest threshold that adaptation may apply", low=0.0, high=1.0, live=True)
    smoothing: float = parameter(
        0.2, "weight of a new measurement in service times and delays", low=0.0, high=1.0, live=True
    )
