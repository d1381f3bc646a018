# SPDX-License-Identifier: Apache-2.0
"""The network of a scenario, as the simulator wants it: from its card, a profile and a recording."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mdi_exit_ros.codec import ENCODINGS
from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.model.card import ModelCard, load_card
from mdi_exit_ros.profile import PROFILE_NAME, Profile, load_profile_of
from mdi_exit_ros.simulation.model import SimulatedModel
from mdi_exit_ros.simulation.recording import RECORDING_NAME, load_recording
from mdi_exit_ros.simulation.scenario import Scenario


def simulated_model(scenario: Scenario) -> SimulatedModel:
    """The network that `scenario` names.

    Raises:
        ModelError: there is no such model.
        ConfigurationError: no profile, or one of another model or without that backend or precision.
        DataError: no recording, or one of another model.
    """
    card = load_card(scenario.model)
    others = {event.model: load_card(event.model) for event in scenario.events if event.model is not None}
    for other in others.values():
        other.check_takes_place_of(card)
    path = Path(scenario.recording) if scenario.recording else card.directory / RECORDING_NAME
    return dataclasses.replace(
        _of_card(card, scenario, path),
        others={name: _of_card(other, scenario, other.directory / RECORDING_NAME) for name, other in others.items()},
    )


def _of_card(card: ModelCard, scenario: Scenario, path: Path) -> SimulatedModel:
    """The network of a card; `path` is its recording."""
    profile = profile_of(card, scenario.profile)
    if scenario.backend is None:
        times = profile.fastest(scenario.precision)
    else:
        times = profile.of(scenario.backend, scenario.precision)
    recording = load_recording(path)
    if recording.model_id != card.model_id:
        raise ConfigurationError(
            f"the recording {path} is of model {recording.model_id}, expected {card.name} {card.model_id}: "
            "make one with mdi-exit evaluate --record"
        )
    has_autoencoder = any(card.architecture.bottleneck_channels or ())
    if has_autoencoder and not scenario.autoencoder:
        from mdi_exit_ros.model.checkpoint import without_autoencoder  # torch; others go without

        card = card.model_copy(update={"feature_shapes": without_autoencoder(card)})
    segments = range(1, card.num_segments + 1)
    return SimulatedModel(
        name=card.name,
        model_id=card.model_id,
        num_segments=card.num_segments,
        input_nbytes={
            encoding: tuple(card.input_nbytes_of(segment, encoding) for segment in segments) for encoding in ENCODINGS
        },
        segment_costs=card.segment_costs,
        default_thresholds=card.default_thresholds,
        curve=card.curve,
        times=times,
        recording=recording,
        machine=str(profile.machine.get("processor")),
        autoencoder=has_autoencoder and scenario.autoencoder,
    )


def profile_of(card: ModelCard, source: str) -> Profile:
    """A model's profile: `shipped` with it, `measured` on this computer, or a file.

    Raises:
        ConfigurationError: there is none, or it is of another model.
    """
    if source == "measured":
        return load_profile_of(card.name, card.model_id)
    if source != "shipped":
        return load_profile_of(card.name, card.model_id, Path(source))
    path = card.directory / PROFILE_NAME
    if not path.is_file():
        raise ConfigurationError(
            f"model {card.name!r} comes without a profile: measure one with mdi-exit profile --model {card.directory}, "
            "and say profile: measured"
        )
    return load_profile_of(card.name, card.model_id, path)
