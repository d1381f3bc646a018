# SPDX-License-Identifier: Apache-2.0
"""A model as a worker holds it: its card, and its segments in a backend, ready to run."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.model.backends.interface import SegmentRunner
from mdi_exit_ros.model.backends.registry import load_segments
from mdi_exit_ros.model.card import ModelCard, load_card
from mdi_exit_ros.policy.actions import LoadModel


@dataclasses.dataclass(frozen=True)
class Backend:
    """What computes, and how: see the parameters of a worker.

    Attributes:
        lanes: threads that run batches at the same time.
        batch_max: frames of the largest batch.
    """

    name: str
    precision: str
    device: str
    lanes: int
    batch_max: int


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """Segments of a model, each run once.

    Attributes:
        inputs: shape and dtype of one frame's input of segment 1..K.
    """

    card: ModelCard
    segments: tuple[int, ...]
    inputs: tuple[tuple[tuple[int, int, int], str], ...]
    runner: SegmentRunner


def load_model(card: ModelCard, segments: tuple[int, ...], backend: Backend) -> LoadedModel:
    """Loads segments and runs each once per lane on the largest batch: memory is taken now and not under load."""
    numbers = range(1, card.num_segments + 1)
    inputs = tuple((card.input_shape_of(number), "uint8" if number == 1 else "float32") for number in numbers)
    runner = load_segments(
        card,
        segments,
        backend=backend.name,
        precision=backend.precision,
        lanes=backend.lanes,
        device=backend.device,
    )
    with ThreadPoolExecutor(backend.lanes) as lanes:
        for segment in segments:
            shape, dtype = inputs[segment - 1]
            batch = np.zeros((backend.batch_max, *shape), dtype)
            list(lanes.map(lambda _, segment=segment, batch=batch: runner.run(segment, batch), range(backend.lanes)))
    return LoadedModel(card, segments, inputs, runner)


def load_wanted(wanted: LoadModel, running: ModelCard, backend: Backend) -> LoadedModel:
    """Loads the model that a controller wants in the place of the one that is running.

    Raises:
        ModelError: there is no such model here, or it cannot take that place.
        ConfigurationError: what has that name here is another one.
    """
    card = load_card(wanted.model)
    if card.model_id != wanted.model_id:
        raise ConfigurationError(
            f"expected model_id {wanted.model_id}, as the controller has it, got {card.model_id} in {card.directory}: "
            "copy the same model folder to every computer"
        )
    card.check_takes_place_of(running)
    return load_model(card, wanted.segments, backend)
