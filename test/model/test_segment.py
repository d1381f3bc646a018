# SPDX-License-Identifier: Apache-2.0
"""Anchor: chained segments equal the whole network."""

from __future__ import annotations

import numpy as np
import torch

from mdi_exit_ros.model.backends.registry import load_segments
from mdi_exit_ros.model.card import ModelCard
from mdi_exit_ros.model.checkpoint import load_network
from mdi_exit_ros.model.cost import segment_costs


def test_chained_segments_equal_the_whole_network(card: ModelCard, frames: np.ndarray) -> None:
    network = load_network(card)
    with torch.inference_mode():
        whole = network(torch.from_numpy(frames))
    batch = frames
    for number in range(1, card.num_segments + 1):
        alone = load_segments(card, [number], backend="torch")
        output = alone.run(number, batch)
        probabilities = torch.softmax(whole[number - 1] / card.temperatures[number - 1], dim=1)
        np.testing.assert_array_equal(output.class_id, whole[number - 1].argmax(dim=1).numpy())
        np.testing.assert_allclose(output.confidence, probabilities.max(dim=1).values.numpy(), rtol=1e-4)
        if number < card.num_segments:
            assert output.features is not None
            assert output.features.shape == (len(frames), *card.feature_shapes[number - 1])
            batch = output.features
    assert output.features is None


def test_costs_on_the_card_are_those_of_the_network(card: ModelCard) -> None:
    assert segment_costs(load_network(card), card.input_shape) == (card.segment_macs, card.exit_macs)
