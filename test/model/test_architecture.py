# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mdi_exit_ros.errors import ConfigurationError, ModelError
from mdi_exit_ros.model.architecture import ARCHITECTURES, load_architecture
from mdi_exit_ros.model.checkpoint import feature_shapes
from mdi_exit_ros.model.cost import segment_costs
from mdi_exit_ros.model.segment import SegmentedNetwork

# Multiply-accumulates that the README states, in millions
MACS = {"mobilenetv2": 68.9, "mobilenetv2_fast": 24.4, "resnet50": 330.0}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_costs_what_is_said(name: str) -> None:
    architecture = ARCHITECTURES[name]
    segments, exits = segment_costs(SegmentedNetwork(architecture).eval(), architecture.input_shape)
    assert sum(segments) / 1e6 == pytest.approx(MACS[name], abs=0.05)
    assert len(segments) == len(exits) == len(architecture.cuts)


def test_autoencoder_makes_what_crosses_the_network_small_and_the_next_segment_opens_it() -> None:
    architecture = ARCHITECTURES["resnet50"]
    network = SegmentedNetwork(architecture).eval()
    assert feature_shapes(network, architecture.input_shape)[:2] == ((8, 16, 16), (512, 8, 8))
    without = SegmentedNetwork(dataclasses.replace(architecture, bottleneck_channels=None)).eval()
    assert feature_shapes(without, architecture.input_shape)[0] == (256, 16, 16)
    frames = torch.randint(0, 255, (2, *architecture.input_shape), dtype=torch.uint8)
    with torch.inference_mode():
        features, logits = network[1](frames)
        assert torch.equal(logits, network[1].exit(network[1].layers(frames)))
        assert features.shape == (2, 8, 16, 16)
        assert network[2](features)[0].shape == (2, 512, 8, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cuts": (4, 8, 14, 16)}, "the last cut must be behind the last of the 17 layers"),
        ({"exit_hidden_channels": (8, None)}, r"exit_hidden_channels: expected 4 entries for 4 cuts, came \[8, None\]"),
        ({"bottleneck_channels": (8,)}, r"bottleneck_channels: expected 3 entries for 4 cuts, came \[8\]"),
    ],
)
def test_an_architecture_that_does_not_fit_together_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        SegmentedNetwork(dataclasses.replace(ARCHITECTURES["resnet50"], **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"cuts": ()}, "cuts that rise from 1"),
        ({"cuts": (7, 7, 19)}, "cuts that rise from 1"),
        ({"cuts": (-2, 19)}, "cuts that rise from 1"),
        ({"strides": (0, 1)}, "of at least 1"),
        ({"exit_hidden_channels": (0, None)}, "of at least 1"),
        ({"input_shape": (32, 32, 1)}, "input_shape with 3 colours"),
        ({"dropout": 2.0}, "dropout from 0 to below 1"),
        ({"pixel_std": (0.2, 0.0, 0.2)}, "pixel_std above 0"),
    ],
)
def test_architecture_that_cannot_be_built_is_refused(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    fields = {"backbone": "mobilenet_v2", "cuts": [7, 19], "exit_hidden_channels": [64, None], "strides": [1] * 8}
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(fields | changes))
    with pytest.raises(ConfigurationError, match=f"mine.yaml is not an architecture: .*expected .*{expected}"):
        load_architecture(str(path))
