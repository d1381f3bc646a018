# SPDX-License-Identifier: Apache-2.0
"""The model card: everything about a trained network that can be known without loading it (no torch)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from mdi_exit_ros.errors import ModelError
from mdi_exit_ros.model.architecture import Architecture
from mdi_exit_ros.resources import share_directory

CARD_NAME = "model.json"
FORMAT_VERSION = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Share = Annotated[float, Field(ge=0.0, le=1.0)]


class ThresholdPoint(_Frozen):
    """One setting of the exits and what it brought on the validation images.

    Attributes:
        thresholds: Confidence threshold of exits 1..K-1, in [0, 1].
        accuracy: Share of validation images answered rightly.
        mac_fraction: Mean multiply-accumulates per image, relative to running everything with the last exit alone.
        cost: Mean cost per image, relative to what reaching the last exit costs; of what, says the card's `cost_basis`.
        exit_shares: Share of images answered at each exit 1..K.
    """

    thresholds: tuple[float, ...]
    accuracy: Share
    mac_fraction: float = Field(ge=0.0)
    cost: float = Field(ge=0.0)
    exit_shares: tuple[Share, ...]


class TrainingRecord(_Frozen):
    """How the weights came about; enough to make them again."""

    data: str
    data_hash: str
    command: str
    started_from: str | None = None
    seed: int
    epochs: int
    training_images: int = Field(ge=1)
    validation_images: int = Field(ge=1)
    torch_version: str


class ModelCard(_Frozen):
    """A trained, calibrated network, cut into K segments with an exit after each.

    Attributes:
        format_version: Version of this file's layout.
        name: Name of the model.
        architecture: What to build before the weights are filled in.
        class_names: Names of the classes, by class id.
        num_segments: K.
        input_shape: Frame (H, W, 3), uint8 RGB.
        feature_shapes: (C, H, W) of the float32 features after each segment 1..K.
        segment_macs: Multiply-accumulates per image of each segment without its exit.
        exit_macs: Multiply-accumulates per image of each exit.
        segment_parameters: Number of weights of each segment with its exit.
        accuracy_validation: Accuracy in [0, 1] of each exit alone on the validation images.
        accuracy_test: The same on the test images, which chose nothing.
        test_images: Number of test images.
        temperatures: Temperature of each exit; logits are divided by it before the softmax.
        threshold_curve: Settings of the exits from cheap to accurate, every threshold rising along it.
        default_thresholds: Thresholds of exits 1..K-1 to start with.
        calibration_images: Number of images that chose temperatures and curve; those of the training where left out.
        cost_basis: What the curve is cheap in: multiply-accumulates, or time on a computer that it names.
        training: How the weights came about.
        weights_files: Files with the weights, beside the card; usually one per segment.
        weights_sha256: SHA-256 of those files, one after the other.
    """

    format_version: int = FORMAT_VERSION
    name: str
    architecture: Architecture
    class_names: tuple[str, ...]
    num_segments: int
    input_shape: tuple[int, int, int]
    feature_shapes: tuple[tuple[int, int, int], ...]
    segment_macs: tuple[int, ...]
    exit_macs: tuple[int, ...]
    segment_parameters: tuple[int, ...]
    accuracy_validation: tuple[Share, ...]
    accuracy_test: tuple[Share, ...]
    test_images: int
    temperatures: tuple[float, ...]
    threshold_curve: tuple[ThresholdPoint, ...]
    default_thresholds: tuple[float, ...]
    calibration_images: int | None = Field(default=None, ge=1)
    cost_basis: str = "multiply-accumulates"
    training: TrainingRecord
    weights_files: tuple[str, ...] = Field(min_length=1)
    weights_sha256: str

    _directory: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _lengths_agree(self) -> ModelCard:
        count = self.num_segments
        for field in ("feature_shapes", "segment_macs", "exit_macs", "segment_parameters", "temperatures"):
            if len(getattr(self, field)) != count:
                raise ValueError(f"{field} has {len(getattr(self, field))} entries for {count} segments")
        if len(self.default_thresholds) != count - 1:
            raise ValueError(f"default_thresholds has {len(self.default_thresholds)} entries, expected {count - 1}")
        if not self.threshold_curve:
            raise ValueError("threshold_curve is empty: expected at least one point")
        for thresholds in (self.default_thresholds, *(point.thresholds for point in self.threshold_curve)):
            if len(thresholds) != count - 1 or not all(0.0 <= threshold <= 1.0 for threshold in thresholds):
                raise ValueError(f"expected {count - 1} thresholds from 0 to 1, got {thresholds}")
        if not all(0.0 < temperature < math.inf for temperature in self.temperatures):
            raise ValueError(f"expected temperatures above 0, got {self.temperatures}")
        ours = self.format_version, self.input_shape, len(self.class_names), count
        wanted = self.architecture
        built = FORMAT_VERSION, wanted.input_shape, wanted.num_classes, len(wanted.cuts)
        if ours != built:
            raise ValueError(
                f"format_version, input_shape, number of classes and segments: expected {built}, as this program and "
                f"the architecture have them, got {ours}"
            )
        for name in self.weights_files:
            if Path(name).name != name:
                raise ValueError(f"weights_files must be files beside the card, not {name!r}")
        return self

    @cached_property
    def model_id(self) -> str:
        """16 hex digits that name partition, weights and calibration; equal ids compute the same answers."""
        content = json.dumps([asdict(self.architecture), self.weights_sha256, self.temperatures], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def directory(self) -> Path:
        """The folder that the card was read from.

        Raises:
            ModelError: The card was made in memory.
        """
        if self._directory is None:
            raise ModelError(f"the card of {self.name!r} was not read from a folder: use load_card")
        return self._directory

    @property
    def segment_costs(self) -> tuple[float, ...]:
        """Multiply-accumulates per image of each segment with its exit."""
        return tuple(float(macs + more) for macs, more in zip(self.segment_macs, self.exit_macs, strict=True))

    @property
    def weights_paths(self) -> tuple[Path, ...]:
        """The files with the weights."""
        return tuple(self.directory / name for name in self.weights_files)

    def check_takes_place_of(self, other: ModelCard) -> None:
        """Whether a running cluster can change from `other` to this model.

        Raises:
            ModelError: input, classes or number of segments differ.
        """
        for what, own, its in (
            ("classes", self.class_names, other.class_names),
            ("input shape", self.input_shape, other.input_shape),
            ("number of segments", self.num_segments, other.num_segments),
        ):
            if own != its:
                raise ModelError(
                    f"model {self.name!r} cannot take the place of {other.name!r} in a running cluster: expected the "
                    f"{what} {its}, got {own}; start the cluster anew with it"
                )

    def input_shape_of(self, segment: int) -> tuple[int, int, int]:
        """Shape of one frame's input of `segment` 1..K: (H, W, 3) uint8 for the first, else (C, H, W) float32."""
        return self.input_shape if segment == 1 else self.feature_shapes[segment - 2]

    def input_nbytes_of(self, segment: int, encoding: str = "raw") -> int:
        """Bytes of one frame's input of `segment` 1..K as it travels.

        Raises:
            CodecError: unknown encoding.
        """
        from mdi_exit_ros import codec  # numpy; whoever only reads a card goes without

        dtype = "uint8" if segment == 1 else "float32"
        return codec.nbytes((1, *self.input_shape_of(segment)), dtype, encoding)

    @property
    def default_point(self) -> ThresholdPoint:
        """The point of the curve with the default thresholds; the nearest one where they are not on it."""

        def distance(point: ThresholdPoint) -> float:
            return sum(abs(a - b) for a, b in zip(point.thresholds, self.default_thresholds, strict=True))

        return min(self.threshold_curve, key=distance)

    @property
    def curve(self) -> tuple[tuple[float, tuple[float, ...]], ...]:
        """Promised accuracy and thresholds of every setting, from cheap to accurate."""
        images = self.calibration_images or self.training.validation_images
        return tuple((promised_accuracy(point.accuracy, images), point.thresholds) for point in self.threshold_curve)

    def point_for(self, target_accuracy: float) -> ThresholdPoint:
        """The cheapest setting that promises at least `target_accuracy` in [0, 1].

        Raises:
            ModelError: No setting does.
        """
        pairs = zip(self.threshold_curve, self.curve, strict=True)
        fitting = [point for point, (promised, _) in pairs if promised >= target_accuracy]
        if not fitting:
            raise ModelError(
                f"model {self.name!r} promises an accuracy of at most {max(self.curve)[0]:.4f}: "
                f"ask for no more than that, got {target_accuracy}"
            )
        return min(fitting, key=lambda point: point.cost)


def promised_accuracy(accuracy: float, images: int) -> float:
    """What an accuracy on so many images promises for others: the lower end of its one-sided 95 % interval (Wilson)."""
    z2 = 1.644854**2 / images
    spread = math.sqrt(z2 * accuracy * (1.0 - accuracy) + z2 * z2 / 4.0)
    return (accuracy + z2 / 2.0 - spread) / (1.0 + z2)


def weights_digest(paths: Iterable[Path]) -> str:
    """SHA-256 of files, one after the other, as `ModelCard.weights_sha256` names it."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def shipped_models() -> list[str]:
    """Names of the models that come with the project."""
    return sorted(path.parent.name for path in (share_directory() / "models").glob(f"*/{CARD_NAME}"))


def load_card(path_or_name: str | Path) -> ModelCard:
    """Reads a model's card and checks that its weights are the ones it describes.

    Args:
        path_or_name: Name of a shipped model, a model directory, or its `model.json`.

    Raises:
        ModelError: No such model, an unreadable card, missing or different weights.
    """
    directory = _find(path_or_name)
    path = directory / CARD_NAME
    try:
        card = ModelCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelError(f"{path} is not a model card: {where}: {first['msg']}") from error
    card._directory = directory
    try:
        actual = weights_digest(card.weights_paths)
    except OSError as error:
        raise ModelError(f"model {card.name!r} has no weights: cannot read {error.filename}") from error
    if actual != card.weights_sha256:
        raise ModelError(
            f"the weights do not fit the card: {path} expects {', '.join(card.weights_files)} with SHA-256 "
            f"{card.weights_sha256[:16]}..., found {actual[:16]}...; take all files from the same training run"
        )
    return card


def _find(path_or_name: str | Path) -> Path:
    try:
        path = Path(path_or_name).expanduser()
        if (path / CARD_NAME).is_file():
            return path.resolve()
        if path.name == CARD_NAME and path.is_file():
            return path.resolve().parent
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"no model {str(path_or_name)[:200]!r}: {error}") from error
    if len(path.parts) == 1:
        shipped = share_directory() / "models" / path
        if (shipped / CARD_NAME).is_file():
            return shipped
    names = ", ".join(shipped_models()) or "none"
    raise ModelError(f"no model {str(path_or_name)!r}: expected a folder with {CARD_NAME}, or a shipped one ({names})")
