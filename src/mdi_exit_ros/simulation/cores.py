# SPDX-License-Identifier: Apache-2.0
"""The cores of simulated nodes, from the parameters of their plan, as the ROS nodes make theirs."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, TypeVar

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.node_settings import travelling_as
from mdi_exit_ros.parameter import parameters_of
from mdi_exit_ros.policy.admission import AdaptationSettings
from mdi_exit_ros.policy.bottleneck import AllocationSetup, successors_of
from mdi_exit_ros.policy.controller import ControllerCore, ControllerSetup
from mdi_exit_ros.policy.events import SetPoints
from mdi_exit_ros.policy.source import SourceCore
from mdi_exit_ros.policy.source_setup import SourceSettings, SourceSetup
from mdi_exit_ros.policy.worker import WorkerCore
from mdi_exit_ros.policy.worker_setup import WorkerSettings, WorkerSetup
from mdi_exit_ros.simulation.model import SimulatedModel
from mdi_exit_ros.simulation.scenario import ComputerEntry
from mdi_exit_ros.task import Mode, PeerId, Strategy

Parameters = Mapping[str, Any]
Settings = TypeVar("Settings", WorkerSettings, SourceSettings, AdaptationSettings)


def lanes_of(parameters: Parameters, computer: ComputerEntry) -> int:
    """Threads of a worker that share a batch."""
    return int(parameters.get("threads", 0)) or max(1, int(computer.cores) // int(parameters["workers_here"]))


def worker_core(
    life: PeerId,
    parameters: Parameters,
    model: SimulatedModel,
    computer: ComputerEntry,
    *,
    segments: tuple[int, ...],
    thresholds: tuple[float, ...],
    origin: str,
    rng: random.Random,
) -> WorkerCore:
    """What a worker decides with.

    Raises:
        ConfigurationError: the model's features do not travel in that encoding; `origin` is the topology.
    """
    settings = _settings(WorkerSettings, parameters)
    encoding = travelling_as(str(parameters.get("encoding", "auto")), int(parameters["workers_elsewhere"]))
    if encoding not in model.input_nbytes:
        raise ConfigurationError(
            f"{origin}: workers.{life.name}.encoding: expected one of {', '.join(model.input_nbytes)}, got {encoding!r}"
        )
    setup = WorkerSetup(
        me=life,
        model_id=model.model_id,
        num_segments=model.num_segments,
        segments=frozenset(segments),
        input_nbytes=model.input_nbytes[encoding],
        neighbours=tuple(parameters.get("neighbours", ())),
        strategy=Strategy(parameters["strategy"]),
        exits_enabled=parameters["exits"],
        exit_thresholds=thresholds,
        settings=settings,
        service_times=tuple(
            (segment, batch, seconds / computer.speed)
            for segment, batch, seconds in model.times.first_estimates(segments, settings.batch_max)
        ),
        lanes=lanes_of(parameters, computer),
    )
    return WorkerCore(setup, rng)


def controller_core(
    life: PeerId, parameters: Parameters, model: SimulatedModel, thresholds: tuple[float, ...]
) -> ControllerCore:
    """What a controller decides with."""
    setup = ControllerSetup(
        me=life,
        num_segments=model.num_segments,
        priority=int(parameters.get("leader_priority", 0)),
        model=model.name,
        model_id=model.model_id,
        curve=model.curve,
        allocation=AllocationSetup(
            home=str(parameters.get("home", "")),
            successors=successors_of(parameters.get("edges", ())),
            segment_costs=model.facts.segment_costs,
            input_nbytes=model.facts.input_nbytes,
        ),
    )
    set_points = SetPoints(
        Mode[str(parameters.get("mode", "manual")).upper()],
        thresholds,
        float(parameters.get("admission_rate", 0)),
        float(parameters.get("target_accuracy", 0.0)),
    )
    return ControllerCore(setup, _settings(AdaptationSettings, parameters), set_points)


def source_core(life: PeerId, parameters: Parameters, model: SimulatedModel, frames: int | None) -> SourceCore:
    """What a source of so many frames (None: endless) decides with."""
    settings = _settings(SourceSettings, parameters, leave_out=("drop",))
    return SourceCore(
        SourceSetup(
            me=life,
            model_id=model.model_id,
            num_segments=model.num_segments,
            entries=tuple(parameters["entries"]),
            total=frames or 0,
            settings=settings.of_input(drop=drops(parameters)),
        )
    )


def drops(parameters: Parameters) -> bool:
    """Whether a source refuses its oldest waiting frame when a newer one comes."""
    return bool(parameters.get("drop", "never") == "oldest")


def _settings(kind: type[Settings], parameters: Parameters, *, leave_out: tuple[str, ...] = ()) -> Settings:
    names = {name for name, _, _ in parameters_of(kind)} - set(leave_out)
    return kind(**{name: value for name, value in parameters.items() if name in names})
