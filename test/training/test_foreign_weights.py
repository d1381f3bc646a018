# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import dataclasses
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tflite_file import tflite_of
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mdi_exit_ros.errors import ModelError
from mdi_exit_ros.model.architecture import ARCHITECTURES, CIFAR_MEAN, CIFAR_STD
from mdi_exit_ros.model.backbones import torchvision_module
from mdi_exit_ros.model.segment import SegmentedNetwork
from mdi_exit_ros.training.foreign import backbone_tensors, read_convolutions, settle_batch_norms
from mdi_exit_ros.training.start import starting_point

FRAMES = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8))


class Detector(nn.Module):
    """A backbone with a head that branches off between its layers."""

    def __init__(self, network: SegmentedNetwork) -> None:
        super().__init__()
        self.layers = nn.Sequential(*backbone(network))
        self.head = nn.Conv2d(96, 5, kernel_size=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for layer in self.layers:
            images = layer(images)
            if images.shape[1] == 96:
                found = self.head(images)
        return images, found


def backbone(network: SegmentedNetwork) -> list[nn.Module]:
    return [layer for segment in network.segments for layer in segment.layers][1:]


def fresh_network(seed: int) -> SegmentedNetwork:
    torch.manual_seed(seed)
    network = SegmentedNetwork(ARCHITECTURES["mobilenetv2_fast"])
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
    network.train()
    network(FRAMES)  # statistics that are not those of a fresh network
    return network.eval()


@pytest.fixture(scope="module")
def theirs() -> SegmentedNetwork:
    return fresh_network(1)


@pytest.fixture(scope="module")
def onnx_file(theirs: SegmentedNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("foreign") / "detector.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Detector(theirs).eval(), (torch.zeros(1, 3, 32, 32),), str(path), dynamo=False)
    return path


def features(network: SegmentedNetwork) -> torch.Tensor:
    images = network[1].layers[0](FRAMES)
    with torch.no_grad():
        result: torch.Tensor = nn.Sequential(*backbone(network))(images)
    return result


def test_a_file_starts_its_backbone_and_leaves_out_the_heads(theirs: SegmentedNetwork, onnx_file: Path) -> None:
    ours = fresh_network(2)
    start = starting_point(str(onnx_file), ours, "mobilenet_v2")
    assert start.name.startswith("detector.onnx ") and start.folded
    assert len(read_convolutions(onnx_file)) == 53
    said = start.fill(ours, FRAMES)
    assert said == f"started from {start.name}: 260 of {len(ours.state_dict())} tensors"
    expected = features(theirs)
    assert torch.allclose(features(ours), expected, atol=1e-3 * float(expected.abs().max()))


def test_training_starts_where_the_file_left_off(theirs: SegmentedNetwork, onnx_file: Path) -> None:
    ours = fresh_network(2)
    ours.load_state_dict(backbone_tensors(ours, onnx_file), strict=False)
    expected = features(theirs)
    largest = float(expected.abs().max())
    ours.train()
    assert not torch.allclose(features(ours), expected, atol=0.1 * largest)  # normalised with a scale of one
    ours.load_state_dict(backbone_tensors(ours, onnx_file), strict=False)
    settle_batch_norms(ours, FRAMES)
    ours.train()
    assert torch.allclose(features(ours), expected, atol=1e-2 * largest)


def folded(network: SegmentedNetwork) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases of the backbone's convolutions with the batch normalizations behind them."""
    layers = [layer for part in backbone(network) for layer in part.modules()]
    found = []
    for convolution, norm in pairwise(layers):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            fused = fuse_conv_bn_eval(convolution, norm)
            found.append((fused.weight.detach().numpy(), fused.bias.detach().numpy()))
    return found


def test_a_file_of_tensorflow_lite_starts_its_backbone(theirs: SegmentedNetwork, tmp_path: Path) -> None:
    (weight, bias), *others = folded(theirs)
    mean, std = (np.asarray(each, np.float32)[:, None, None] for each in (CIFAR_MEAN, CIFAR_STD))
    # the first convolution of pixels from -1 to 1, as TensorFlow Lite's networks take them
    first = 0.5 * weight / std, bias + (weight * (0.5 - mean) / std).sum(axis=(1, 2, 3))
    path = tmp_path / "detector.tflite"
    path.write_bytes(tflite_of([first, *others]))
    read = read_convolutions(path)
    for got, (kernel, added) in zip(read, [first, *others], strict=True):
        assert np.array_equal(got.weight, kernel) and np.array_equal(got.bias, added)
    ours = fresh_network(2)
    starting_point(str(path), ours, "mobilenet_v2").fill(ours, FRAMES)
    expected = features(theirs)
    assert torch.allclose(features(ours), expected, atol=1e-3 * float(expected.abs().max()))


def test_a_file_of_torchvisions_tensors_starts_the_same_layers(theirs: SegmentedNetwork, tmp_path: Path) -> None:
    network = torchvision_module("models").mobilenet_v2()
    nn.Sequential(*backbone(theirs)).load_state_dict(network.features.state_dict())
    path, ours = tmp_path / "imagenet.safetensors", fresh_network(2)
    save_file(network.state_dict(), path)
    start = starting_point(str(path), ours, "mobilenet_v2")
    said = start.fill(ours, FRAMES)
    assert said == f"started from {start.name}: 312 of {len(ours.state_dict())} tensors"
    assert torch.equal(features(ours), features(theirs))


def test_an_autoencoder_between_segments_is_no_part_of_the_backbone(
    theirs: SegmentedNetwork, onnx_file: Path, tmp_path: Path
) -> None:
    architecture = dataclasses.replace(ARCHITECTURES["mobilenetv2_fast"], bottleneck_channels=(8, None, None, None))
    network, path = torchvision_module("models").mobilenet_v2(), tmp_path / "imagenet.safetensors"
    nn.Sequential(*backbone(theirs)).load_state_dict(network.features.state_dict())
    save_file(network.state_dict(), path)
    for file, tensors in ((path, 312), (onnx_file, 260)):
        ours = SegmentedNetwork(architecture)
        said = starting_point(str(file), ours, "mobilenet_v2").fill(ours, FRAMES)
        assert f": {tensors} of " in said
        last, expected = ours[5].layers[-1], theirs[5].layers[-1]
        assert torch.allclose(last[0].weight, expected[0].weight) == (tensors == 312)  # else folded


def test_tensors_of_another_network_are_no_start(tmp_path: Path) -> None:
    ours, path = fresh_network(2), tmp_path / "other.safetensors"
    with pytest.raises(ModelError, match=r"no file .*other\.safetensors to start from"):
        starting_point(str(path), ours, "mobilenet_v2")
    path.write_bytes(b"not tensors")
    with pytest.raises(ModelError, match=r"cannot read the weights in .*other\.safetensors: "):
        starting_point(str(path), ours, "mobilenet_v2")
    state = torchvision_module("models").mobilenet_v2().state_dict()
    save_file({**state, "features.1.conv.0.0.weight": torch.zeros(8, 1, 3, 3)}, path)
    with pytest.raises(
        ModelError, match=r"hold features\.1\.conv\.0\.0\.weight of shape \(32, 1, 3, 3\): came shape \(8, 1, 3, 3\)"
    ):
        starting_point(str(path), ours, "mobilenet_v2")
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    with pytest.raises(ModelError, match=r"hold features\.0\.0\.weight .*: came none of that name"):
        starting_point(str(path), ours, "mobilenet_v2")


def test_files_that_are_no_start_are_named(onnx_file: Path, tmp_path: Path) -> None:
    ours = fresh_network(2)
    with pytest.raises(ModelError, match=r"no file .*missing\.tflite to start from"):
        starting_point(str(tmp_path / "missing.tflite"), ours, "mobilenet_v2")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network")
    with pytest.raises(ModelError, match=r"broken\.onnx cannot be read as a network \(\.tflite, \.onnx\)"):
        starting_point(str(broken), ours, "mobilenet_v2")
    other = SegmentedNetwork(ARCHITECTURES["resnet50"])
    with pytest.raises(ModelError, match=r"another backbone: of \d+ convolutions, number 1 of shape \(64, 3, 3, 3\)"):
        starting_point(str(onnx_file), other, "resnet50")
