# SPDX-License-Identifier: Apache-2.0
"""From a trained network to the model directory that ships: calibration, thresholds, card, weights."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdi_exit_ros.errors import ConfigurationError, ModelError
from mdi_exit_ros.model.architecture import Architecture
from mdi_exit_ros.model.card import (
    CARD_NAME,
    ModelCard,
    ThresholdPoint,
    TrainingRecord,
    load_card,
    weights_digest,
)
from mdi_exit_ros.model.checkpoint import feature_shapes, load_weights, save_weights
from mdi_exit_ros.model.cost import segment_costs
from mdi_exit_ros.model.segment import SegmentedNetwork
from mdi_exit_ros.training import calibration
from mdi_exit_ros.training.datasets import LabelledImages
from mdi_exit_ros.training.loop import exit_accuracy, exit_logits
from mdi_exit_ros.training.operating_points import Calibration, calibrate

MACS = "multiply-accumulates"


def write_model(
    *,
    network: SegmentedNetwork,
    architecture: Architecture,
    name: str,
    data: str,
    test: LabelledImages,
    training_images: int,
    validation: LabelledImages,
    epochs: int,
    seed: int,
    started_from: str | None,
    command: str,
    half_weights: bool,
    out_directory: Path,
    say: Callable[[str], None],
) -> None:
    """Calibrates `network` on the validation images, reports on the test images and writes card and weights.

    The default thresholds are the cheapest that lose at most 0.2 points of accuracy against the last exit alone.
    """
    network.eval()
    if half_weights:
        with tempfile.TemporaryDirectory() as folder:  # what the figures are of
            load_weights(network, [Path(folder, name) for name in save_weights(network, Path(folder), half=True)])
    segment_macs, exit_macs = segment_costs(network, architecture.input_shape)
    logits = exit_logits(network, validation.images)
    if not np.isfinite(logits).all():
        raise ModelError(
            "the network's answers are no numbers: it is not written; lower --learning-rate, or see "
            "whether its weights are too large for --half-weights"
        )
    fitted = calibrate(logits, validation.labels, calibration.exit_costs(segment_macs, exit_macs))
    accuracy_test = exit_accuracy(exit_logits(network, test.images), test.labels)
    out_directory.mkdir(parents=True, exist_ok=True)
    names = save_weights(network, out_directory, half=half_weights)  # with the card, once all is known
    card = ModelCard(
        name=name,
        architecture=architecture,
        class_names=validation.class_names,
        num_segments=len(network),
        input_shape=architecture.input_shape,
        feature_shapes=feature_shapes(network, architecture.input_shape),
        segment_macs=segment_macs,
        exit_macs=exit_macs,
        segment_parameters=tuple(
            sum(parameter.numel() for parameter in network[number].parameters())
            for number in range(1, len(network) + 1)
        ),
        accuracy_validation=tuple(exit_accuracy(logits, validation.labels)),
        accuracy_test=tuple(accuracy_test),
        test_images=len(test),
        **_chosen(fitted, MACS),
        training=TrainingRecord(
            data=Path(data).name,
            data_hash=validation.data_hash,
            command=command,
            started_from=started_from,
            seed=seed,
            epochs=epochs,
            training_images=training_images,
            validation_images=len(validation),
            torch_version=torch.__version__,
        ),
        weights_files=names,
        weights_sha256=weights_digest(out_directory / name for name in names),
    )
    _write_card(card, out_directory)
    say(f"test accuracy per exit: {' '.join(f'{accuracy:.4f}' for accuracy in accuracy_test)}")
    say(
        f"default thresholds {fitted.default.thresholds}: {fitted.default.mac_fraction:.3f} of the multiply-accumulates"
    )
    say(f"wrote {out_directory}")


def rewrite_model(card: ModelCard, fitted: Calibration, cost_basis: str, out_directory: Path) -> ModelCard:
    """Writes the model of `card` with another calibration and the folder's name; answers with the new card.

    Raises:
        ConfigurationError: `out_directory` holds something that is not a model.
    """
    out_directory.mkdir(parents=True, exist_ok=True)
    if out_directory.resolve() != card.directory.resolve():
        if any(out_directory.iterdir()) and not (out_directory / CARD_NAME).is_file():
            raise ConfigurationError(
                f"--out {out_directory} has other files in it: expected a model or an empty folder"
            )
        for path in card.weights_paths:
            partial = out_directory / f"{path.name}.partial"
            partial.write_bytes(path.read_bytes())
            os.replace(partial, out_directory / path.name)
    name = out_directory.absolute().name
    _write_card(card.model_copy(update={"name": name, **_chosen(fitted, cost_basis)}), out_directory)
    return load_card(out_directory)


def _chosen(fitted: Calibration, cost_basis: str) -> dict[str, Any]:
    """The fields of a card that a calibration decides."""
    return {
        "temperatures": fitted.temperatures,
        "threshold_curve": tuple(ThresholdPoint(**asdict(point)) for point in fitted.curve),
        "default_thresholds": fitted.default.thresholds,
        "calibration_images": fitted.images,
        "cost_basis": cost_basis,
    }


def _write_card(card: ModelCard, directory: Path) -> None:
    partial = directory / f"{CARD_NAME}.partial"
    partial.write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")
    os.replace(partial, directory / CARD_NAME)
