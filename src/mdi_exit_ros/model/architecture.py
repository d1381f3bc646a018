# SPDX-License-Identifier: Apache-2.0
"""What a network looks like, without its weights: enough to build it again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from mdi_exit_ros.errors import ConfigurationError

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True)
class Architecture:
    """A backbone and where it is cut.

    Attributes:
        backbone: Name of the backbone.
        cuts: Number of backbone layers in front of each exit, increasing; the last one is all layers.
        exit_hidden_channels: Width of each exit's hidden convolution; None for an exit without one.
        num_classes: Number of classes.
        input_shape: Frame (H, W, 3), uint8 RGB.
        bottleneck_channels: Width of the autoencoder behind each cut but the last, through which features go on; None
            for a cut without one. Its encoder ends the segment in front of the cut, its decoder begins the next.
        strides: Stride of the stem and of each stage of the backbone; their product shrinks the image.
        dropout: Share of the pooled features dropped in training, at exits without a hidden convolution.
        pixel_mean: Mean per colour, of pixels in [0, 1].
        pixel_std: Standard deviation per colour, of pixels in [0, 1].
    """

    backbone: str
    cuts: tuple[int, ...]
    exit_hidden_channels: tuple[int | None, ...]
    strides: tuple[int, ...]
    bottleneck_channels: tuple[int | None, ...] | None = None
    num_classes: int = 10
    input_shape: tuple[int, int, int] = (32, 32, 3)
    dropout: float = 0.1
    pixel_mean: tuple[float, float, float] = CIFAR_MEAN
    pixel_std: tuple[float, float, float] = CIFAR_STD
    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        """Raises ValueError for what could not be built."""
        cuts = (0, *self.cuts)
        widths = [*self.exit_hidden_channels, *(self.bottleneck_channels or ())]
        sizes = [*self.strides, *self.input_shape, self.num_classes, *(width for width in widths if width is not None)]
        for holds, expected, got in (
            (len(cuts) > 1 and all(one < other for one, other in pairwise(cuts)), "cuts that rise from 1", self.cuts),
            (min(sizes) >= 1, "strides, input_shape, num_classes and channels of at least 1", sizes),
            (self.input_shape[2] == 3, "input_shape with 3 colours", self.input_shape),
            (0.0 <= self.dropout < 1.0, "dropout from 0 to below 1", self.dropout),
            (min(self.pixel_std) > 0.0, "pixel_std above 0", self.pixel_std),
        ):
            if not holds:
                raise ValueError(f"expected {expected}, got {got}")

    def bottleneck(self, cut: int) -> int | None:
        """Width of the autoencoder behind cut 1..K; None where features go on as they are."""
        if self.bottleneck_channels is None or cut == len(self.cuts):
            return None
        return self.bottleneck_channels[cut - 1]


def load_architecture(name_or_file: str) -> Architecture:
    """A built-in architecture by name, or the fields of one from a YAML or JSON file.

    Raises:
        ConfigurationError: No such architecture, or a file that does not describe one.
    """
    if name_or_file in ARCHITECTURES:
        return ARCHITECTURES[name_or_file]
    path = Path(name_or_file).expanduser()
    if path.suffix not in {".yaml", ".yml", ".json"}:
        raise ConfigurationError(
            f"unknown architecture {name_or_file!r}: expected one of {', '.join(sorted(ARCHITECTURES))}, "
            "or a YAML file that describes one"
        )
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TypeAdapter(Architecture).validate_python(fields)
    except OSError as error:
        raise ConfigurationError(f"cannot read the architecture {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigurationError(f"{path} is not an architecture: {where}: {first['msg']}") from error


ARCHITECTURES = {
    "mobilenetv2": Architecture(
        backbone="mobilenet_v2",
        cuts=(4, 7, 11, 14, 19),
        exit_hidden_channels=(64, 128, 128, 128, None),
        strides=(1, 1, 2, 2, 1, 1, 2, 1),
    ),
    "mobilenetv2_fast": Architecture(
        backbone="mobilenet_v2",
        cuts=(4, 7, 11, 14, 19),
        exit_hidden_channels=(64, 128, 128, 128, None),
        strides=(1, 1, 2, 2, 2, 1, 2, 1),
    ),
    "resnet50": Architecture(
        backbone="resnet50",
        cuts=(4, 8, 14, 17),
        exit_hidden_channels=(128, 128, 128, None),
        bottleneck_channels=(8, None, None),
        strides=(1, 2, 2, 2, 2),
    ),
}
