# SPDX-License-Identifier: Apache-2.0
"""What the simulator knows of a network: how long its segments take, how large their inputs are, what its exits say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mdi_exit_ros.parameter import on_grid
from mdi_exit_ros.policy.admission import THRESHOLD_INFO, Curve
from mdi_exit_ros.policy.events import ModelFacts
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
        autoencoder: whether one makes the features that travel smaller.
        others: models that the cluster may change to, by the name that a scenario has for them.
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
    autoencoder: bool = False
    others: Mapping[str, SimulatedModel] = dataclasses.field(default_factory=dict)

    @property
    def facts(self) -> ModelFacts:
        """What a controller knows of it."""
        # Thresholds as parameters have them, in the steps of a slider.
        thresholds = tuple(on_grid(THRESHOLD_INFO, threshold) for threshold in self.default_thresholds)
        return ModelFacts(
            self.name, self.model_id, thresholds, self.curve, self.segment_costs, self.input_nbytes["int8"]
        )
