# SPDX-License-Identifier: Apache-2.0
"""The shipped model and sample."""

from __future__ import annotations

import numpy as np
import pytest

from mdi_exit_ros.model.card import ModelCard, load_card
from mdi_exit_ros.resources import share_directory
from mdi_exit_ros.training.datasets import LabelledImages, load_split


@pytest.fixture(scope="session")
def card() -> ModelCard:
    return load_card("mobilenetv2")


@pytest.fixture(scope="session")
def sample(own_cache: None) -> LabelledImages:
    return load_split(str(share_directory() / "data/cifar10_sample.zip"), "test")


@pytest.fixture(scope="session")
def frames(sample: LabelledImages) -> np.ndarray:
    return sample.images[::6]
