# SPDX-License-Identifier: Apache-2.0
"""Backbones: torchvision's classes, unrolled into one flat list of layers that can be cut anywhere."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import nn

from mdi_exit_ros.errors import ModelError

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


def _mobilenet_v2(stem_stride: int) -> list[nn.Module]:
    network = torchvision_module("models").MobileNetV2(num_classes=10)
    network.features[0][0].stride = (stem_stride, stem_stride)
    return list(network.features)


BACKBONES: dict[str, Callable[[int], list[nn.Module]]] = {"mobilenet_v2": _mobilenet_v2}


def backbone_layers(name: str, *, stem_stride: int) -> list[nn.Module]:
    """The layers of backbone `name`, in order, without its classifier; (B, 3, H, W) float32 in.

    Args:
        name: A key of `BACKBONES`.
        stem_stride: Stride of the first convolution; 1 suits 32x32 images, 2 is torchvision's own.

    Raises:
        ModelError: `name` is not a known backbone.
    """
    if name not in BACKBONES:
        raise ModelError(f"unknown backbone {name!r}: expected one of {', '.join(sorted(BACKBONES))}")
    return BACKBONES[name](stem_stride)
