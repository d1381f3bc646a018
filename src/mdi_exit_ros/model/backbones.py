# SPDX-License-Identifier: Apache-2.0
"""Backbones: torchvision's classes, unrolled into one flat list of layers that can be cut anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import nn

from mdi_exit_ros.errors import ModelError

# expansion, channels and number of blocks of each stage (Sandler et al. 2018, table 2)
MOBILENET_V2_STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))

_operator_stubs: list[Any] = []


def torchvision_module(name: str) -> Any:
    """Torchvision's module `name` (`models`, `datasets`), importable also where only its wheel was built for CUDA.

    Such a wheel lacks its compiled operators, and its import fails on registering fake versions of two of them.
    Their schemas alone cure it; classifiers use neither.
    """
    try:
        return import_module(f"torchvision.{name}")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    stubs: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        stubs.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _operator_stubs.append(stubs)  # the schemas live as long as this object
    return import_module(f"torchvision.{name}")


def _mobilenet_v2(strides: Sequence[int]) -> list[nn.Module]:
    stem_stride, *stage_strides = _expect_strides("mobilenet_v2", strides, 1 + len(MOBILENET_V2_STAGES))
    setting = [[*stage, stride] for stage, stride in zip(MOBILENET_V2_STAGES, stage_strides, strict=True)]
    network = torchvision_module("models").MobileNetV2(num_classes=10, inverted_residual_setting=setting)
    network.features[0][0].stride = (stem_stride, stem_stride)
    return list(network.features)


def _expect_strides(name: str, strides: Sequence[int], count: int) -> Sequence[int]:
    if len(strides) != count:
        raise ModelError(f"backbone {name} takes {count} strides, of its stem and of each stage: came {list(strides)}")
    return strides


def pretrained_layers(name: str) -> list[nn.Module]:
    """The layers of backbone `name` with torchvision's ImageNet weights, which are downloaded the first time.

    Raises:
        ModelError: Torchvision has none for it, or they cannot be downloaded.
    """
    if name not in TORCHVISION_WEIGHTS:
        raise ModelError(f"torchvision has no weights for {name!r}: expected one of {', '.join(TORCHVISION_WEIGHTS)}")
    models = torchvision_module("models")
    weights = getattr(models, TORCHVISION_WEIGHTS[name]).DEFAULT
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"torchvision's weights of {name} cannot be had: {error} ({weights.url})") from error
    network = getattr(models, name)()
    network.load_state_dict(state)
    return list(network.features)


TORCHVISION_WEIGHTS = {"mobilenet_v2": "MobileNet_V2_Weights"}
BACKBONES: dict[str, Callable[[Sequence[int]], list[nn.Module]]] = {"mobilenet_v2": _mobilenet_v2}


def backbone_layers(name: str, *, strides: Sequence[int]) -> list[nn.Module]:
    """The layers of backbone `name`, in order, without its classifier; (B, 3, H, W) float32 in.

    Args:
        name: A key of `BACKBONES`.
        strides: Stride of the stem and of each stage; smaller ones than torchvision's own suit small images.

    Raises:
        ModelError: `name` is not a known backbone, or has another number of stages.
    """
    if name not in BACKBONES:
        raise ModelError(f"unknown backbone {name!r}: expected one of {', '.join(sorted(BACKBONES))}")
    return BACKBONES[name](strides)
