# SPDX-License-Identifier: Apache-2.0
"""From a trained network to the model directory that ships: calibration, thresholds, card, weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from mdi_exit_ros.model.architecture import Architecture
from mdi_exit_ros.model.card import CARD_NAME, WEIGHTS_NAME, ModelCard, ThresholdPoint, TrainingRecord
from mdi_exit_ros.model.checkpoint import feature_shapes, save_weights
from mdi_exit_ros.model.cost import segment_costs
from mdi_exit_ros.model.segment import SegmentedNetwork
from mdi_exit_ros.training import calibration
from mdi_exit_ros.training.datasets import LabelledImages
from mdi_exit_ros.training.loop import exit_accuracy, exit_logits

ACCURACY_GIVEN_UP = 0.002


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
    out_directory: Path,
    say: Callable[[str], None],
) -> None:
    """Calibrates `network` on the validation images, reports on the test images and writes card and weights.

    The default thresholds are the cheapest that lose at most 0.2 points of accuracy against the last exit alone.
    """
    network.eval()
    logits = exit_logits(network, validation.images)
    temperatures = tuple(calibration.fit_temperature(answer, validation.labels) for answer in logits)
    probabilities = calibration.softmax(logits / np.asarray(temperatures, dtype=np.float32)[:, None, None])
    accuracy_validation = exit_accuracy(logits, validation.labels)
    segment_macs, exit_macs = segment_costs(network, architecture.input_shape)
    curve = calibration.threshold_curve(
        probabilities.max(axis=2),
        logits.argmax(axis=2) == validation.labels,
        calibration.exit_costs(segment_macs, exit_macs),
    )
    default = calibration.cheapest_within(curve, accuracy_validation[-1] - ACCURACY_GIVEN_UP)
    accuracy_test = exit_accuracy(exit_logits(network, test.images), test.labels)
    out_directory.mkdir(parents=True, exist_ok=True)
    weights = out_directory / WEIGHTS_NAME
    save_weights(network, weights)
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
        accuracy_validation=tuple(accuracy_validation),
        accuracy_test=tuple(accuracy_test),
        test_images=len(test),
        temperatures=temperatures,
        threshold_curve=tuple(ThresholdPoint(**asdict(point)) for point in curve),
        default_thresholds=default.thresholds,
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
        weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
    )
    partial = out_directory / f"{CARD_NAME}.partial"
    partial.write_text(card.model_dump_json(indent=1) + "\n")
    os.replace(partial, out_directory / CARD_NAME)
    say(f"test accuracy per exit: {' '.join(f'{accuracy:.4f}' for accuracy in accuracy_test)}")
    say(f"default thresholds {default.thresholds}: {default.mac_fraction:.3f} of the multiply-accumulates")
    say(f"wrote {out_directory}")
