# SPDX-License-Identifier: Apache-2.0
"""The command that a model's card remembers."""

from __future__ import annotations

import pytest

from mdi_exit_ros.cli.train import _place


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("torchvision:/data/cifar", "torchvision:cifar"),
        ("/home/me/my_images/", "my_images"),
        ("images.zip", "images.zip"),
    ],
)
def test_data_keeps_its_kind_and_loses_its_folder(data: str, expected: str) -> None:
    assert _place(data) == expected
