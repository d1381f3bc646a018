# SPDX-License-Identifier: Apache-2.0
"""Backbones: torchvision's classes, unrolled into one flat list of layers that can be cut anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import torch
from torch import nn

from mdi_exit_ros.errors import ModelError

# expansion, channels and number of blocks of each stage (Sandler et al. 2018, table 2)
MOBILENET_V2_STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))

Backbone = Callable[[Sequence[int]], list[nn.Module]]  # strides in, layers out

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


def _resnet50(strides: Sequence[int]) -> list[nn.Module]:
    """Torchvision's ResNet-50 with a 3x3 stem and no pooling behind it, as small images need.

    Each block starts as the identity (Goyal et al. 2017, arXiv 1706.02677, section 5.1), which short training needs.
    """
    stem_stride, *stage_strides = _expect_strides("resnet50", strides, 5)
    network = torchvision_module("models").resnet50(num_classes=10, zero_init_residual=True)
    stem = nn.Sequential(
        nn.Conv2d(3, 64, kernel_size=3, stride=stem_stride, padding=1, bias=False), network.bn1, network.relu
    )
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    for stage, stride in zip(stages, stage_strides, strict=True):
        stage[0].conv2.stride = stage[0].downsample[0].stride = (stride, stride)
    return [stem, *(block for stage in stages for block in stage)]


def _expect_strides(name: str, strides: Sequence[int], count: int) -> Sequence[int]:
    if len(strides) != count:
        raise ModelError(f"backbone {name} takes {count} strides, of its stem and of each stage: came {list(strides)}")
    return strides


def pretrained_layers(name: str, weights: dict[str, torch.Tensor] | None = None) -> list[nn.Module]:
    """The layers of backbone `name` with weights of torchvision's network of that name.

    Args:
        name: Which backbone.
        weights: By torchvision's names, those of the classifier left out or ignored; None for its ImageNet weights,
            which are downloaded the first time.

    Raises:
        ModelError: Torchvision has no such network, its weights cannot be downloaded, or `weights` are of another one.
    """
    if name not in TORCHVISION_WEIGHTS:
        raise ModelError(f"torchvision has no weights for {name!r}: expected one of {', '.join(TORCHVISION_WEIGHTS)}")
    models = torchvision_module("models")
    if weights is None:
        source = getattr(models, TORCHVISION_WEIGHTS[name]).DEFAULT
        try:
            weights = source.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as error:
            raise ModelError(f"torchvision's weights of {name} cannot be had: {error} ({source.url})") from error
    network = getattr(models, name)()
    prefix = "features."
    ours = {key: value for key, value in weights.items() if key.startswith(prefix)}
    wanted = {key: value for key, value in network.state_dict().items() if key.startswith(prefix)}
    for key, value in wanted.items():
        if key not in ours or ours[key].shape != value.shape:
            came = f"shape {tuple(ours[key].shape)}" if key in ours else "none of that name"
            raise ModelError(f"torchvision's weights of {name} hold {key} of shape {tuple(value.shape)}: came {came}")
    network.load_state_dict(ours, strict=False)
    return list(network.features)


TORCHVISION_WEIGHTS = {"mobilenet_v2": "MobileNet_V2_Weights"}
BACKBONES: dict[str, Backbone] = {"mobilenet_v2": _mobilenet_v2, "resnet50": _resnet50}
ENTRY_POINTS = "mdi_exit_ros.backbones"  # group in which an installed package names its backbones


def known_backbones() -> list[str]:
    """Names of the backbones of this package and of installed ones."""
    return sorted({*BACKBONES, *(entry.name for entry in entry_points(group=ENTRY_POINTS))})


def backbone_layers(name: str, *, strides: Sequence[int]) -> list[nn.Module]:
    """The layers of backbone `name`, in order, without its classifier; (B, 3, H, W) float32 in.

    Args:
        name: A key of `BACKBONES`, or what an installed package offers as an entry point in ENTRY_POINTS.
        strides: Stride of the stem and of each stage; smaller ones than torchvision's own suit small images.

    Raises:
        ModelError: `name` is not a known backbone, or has another number of stages.
    """
    if name in BACKBONES:
        return BACKBONES[name](strides)
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        found: Backbone = entry.load()
        return found(strides)
    raise ModelError(
        f"unknown backbone {name!r}: expected one of {', '.join(known_backbones())}; a package of your own names more "
        f"as entry points in {ENTRY_POINTS}"
    )
