# SPDX-License-Identifier: Apache-2.0
"""The example of a backbone of one's own, installed and used as its README says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mdi_exit_ros.errors import ModelError
from mdi_exit_ros.model.backbones import backbone_layers, known_backbones
from mdi_exit_ros.model.card import load_card
from mdi_exit_ros.resources import share_directory
from mdi_exit_ros.simulation.recording import load_recording

EXAMPLE = share_directory() / "examples" / "own_backbone"


def mdi_exit(*arguments: str, packages: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(packages), "XDG_CACHE_HOME": str(packages / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "mdi_exit_ros.cli.main", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(600)  # pip, and training, in processes of their own
@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="examples are not installed")
def test_example_is_installed_trained_profiled_and_calibrated(
    tmp_path: Path, pictures: dict[str, bytes], tiny_archive: Path
) -> None:
    source, packages, images = tmp_path / "source", tmp_path / "packages", tmp_path / "my_images"
    shutil.copytree(EXAMPLE, source)
    for name, content in pictures.items():
        if name.startswith("train/"):
            path = images / name.removeprefix("train/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-build-isolation"]
    subprocess.run([*pip, "--no-deps", "--target", str(packages), str(source)], check=True, capture_output=True)
    model = tmp_path / "mine"
    training = ["--epochs", "2", "--batch-size", "32", "--threads", "1", "--out", str(model)]
    training += ["--architecture", str(source / "plain_cnn.yaml")]
    trained = mdi_exit("train", "--data", str(images), *training, packages=packages)
    assert "98 images to train, 10 to calibrate, 12 to report" in trained
    profile = ["--backend", "onnxruntime", "--turns", "1", "--batch", "1,8", "--precision", "fp32"]
    mdi_exit("profile", "--model", str(model), *profile, packages=packages)
    calibration = ["--out", str(model), "--json", str(tmp_path / "c.json")]
    mdi_exit("calibrate", "--model", str(model), "--data", str(images), *calibration, packages=packages)
    document = json.loads((tmp_path / "c.json").read_text())
    assert (document["validation"]["images"], document["test"]["images"]) == (10, 12)  # those that training held out
    recording = load_recording(model / "recording.npz")
    assert recording.confidence.shape == (10, 3)
    assert recording.correct.mean(axis=0).tolist() == pytest.approx(document["validation"]["accuracy_exits"])
    assert recording.model_id == load_card(model).model_id
    evaluation = ["--data", str(tiny_archive), "--json", str(tmp_path / "e.json")]
    mdi_exit("evaluate", "--model", str(model), *evaluation, packages=packages)
    card = json.loads((model / "model.json").read_text())
    assert card["name"] == "mine"
    assert card["architecture"]["backbone"] == "plain_cnn"
    assert card["feature_shapes"] == [[4, 16, 16], [64, 8, 8], [128, 4, 4]]
    assert card["cost_basis"].startswith("time: onnxruntime fp32")
    assert len(json.loads((tmp_path / "e.json").read_text())["accuracy_exits"]) == 3


def test_unknown_backbones_and_wrong_strides_are_named() -> None:
    assert {"mobilenet_v2", "resnet50"} <= set(known_backbones())
    with pytest.raises(ModelError, match=r"unknown backbone 'vgg': .* entry points in mdi_exit_ros\.backbones"):
        backbone_layers("vgg", strides=[1])
    with pytest.raises(ModelError, match=r"resnet50 takes 5 strides, of its stem and of each stage: came \[1, 2\]"):
        backbone_layers("resnet50", strides=[1, 2])
