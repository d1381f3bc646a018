# SPDX-License-Identifier: Apache-2.0
"""What the simulator knows of a network: how long its segments take, how large their inputs are, what its exits say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mdi_exit_ros.policy.admission import Curve
from mdi_exit_ros.profile import BackendProfile
from mdi_exit_ros.simulation.recording import Recording


@dataclasses.dataclass(frozen=True)
class SimulatedModel:
    """A network without its tensors.

    Attributes:
        name, model_id: of the model.
        num_segments: K.
        input_nbytes: by encoding, bytes per frame of the input of segment 1..K as it travels.
        segment_costs: K costs in any unit, for the spreading of segments over workers.
        default_thresholds: of exits 1..K-1.
        curve: calibrated points, accuracy and thresholds.
        times: what the segments take on the profiled computer.
        recording: what the exits said about real images.
        machine: the profiled computer.
    """

    name: str
    model_id: str
    num_segments: int
    input_nbytes: Mapping[str, tuple[int, ...]]
    segment_costs: tuple[float, ...]
    default_thresholds: tuple[float, ...]
    curve: Curve
    times: BackendProfile
    recording: Recording
    machine: str
