# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mdi_exit_ros.errors import BackendError, ConfigurationError, ModelError
from mdi_exit_ros.model.backends import export
from mdi_exit_ros.model.backends.export import ensure_exported
from mdi_exit_ros.model.backends.registry import FASTEST_FIRST, available_backends, load_segments, resolve_backend
from mdi_exit_ros.model.card import ModelCard
from mdi_exit_ros.model.inference import run_exits
from mdi_exit_ros.training.datasets import LabelledImages


def everything(card: ModelCard) -> range:
    return range(1, card.num_segments + 1)


@pytest.fixture(scope="module")
def reference(card: ModelCard, sample: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
    return run_exits(load_segments(card, everything(card), backend="torch-eager"), card.num_segments, sample.images)


@pytest.mark.parametrize(
    ("backend", "precision", "equal", "tolerance"),
    [
        ("onnxruntime", "fp32", 0.999, 5e-3),
        ("openvino", "fp32", 0.999, 5e-3),
        ("torch", "fp32", 0.999, 5e-3),
        ("openvino", "bf16", 0.995, 0.5),
    ],
)
def test_backend_agrees_with_torch_on_the_sample(
    card: ModelCard,
    sample: LabelledImages,
    reference: tuple[np.ndarray, np.ndarray],
    backend: str,
    precision: str,
    equal: float,
    tolerance: float,
) -> None:
    pytest.importorskip(backend)
    runner = load_segments(card, everything(card), backend=backend, precision=precision)
    class_ids, confidence = run_exits(runner, card.num_segments, sample.images)
    assert (class_ids[-1] == reference[0][-1]).mean() >= equal
    assert np.abs(confidence - reference[1]).max() < tolerance
    assert confidence.min() > 0.0
    assert confidence.max() <= 1.0


@pytest.mark.parametrize("backend", FASTEST_FIRST)
def test_answers_do_not_depend_on_the_batch_or_on_later_runs(card: ModelCard, frames: np.ndarray, backend: str) -> None:
    pytest.importorskip(backend.partition("-")[0])
    runner = load_segments(card, [1], backend=backend)
    together = runner.run(1, frames[:5])
    kept = together.features.copy()  # type: ignore[union-attr]
    alone = [runner.run(1, frames[index : index + 1]) for index in range(5)]
    assert together.features is not None
    np.testing.assert_array_equal(together.features, kept)
    np.testing.assert_allclose(together.features, np.concatenate([one.features for one in alone]), atol=1e-3)
    assert together.class_id.dtype == np.uint16
    assert together.confidence.dtype == np.float32
    assert together.features.dtype == np.float32


@pytest.mark.parametrize("backend", FASTEST_FIRST)
@pytest.mark.parametrize(
    ("segment", "batch"),
    [
        (1, np.zeros((2, 32, 32), np.uint8)),
        (1, np.zeros((2, 16, 32, 3), np.uint8)),
        (1, np.zeros((2, 32, 32, 3), np.float32)),
        (1, np.zeros((0, 32, 32, 3), np.uint8)),
        (2, np.zeros((2, 32, 32, 3), np.float32)),
        (2, np.zeros((2, 24, 16, 16), np.float64)),
    ],
)
def test_wrong_input_is_named_with_what_was_expected(
    card: ModelCard, backend: str, segment: int, batch: np.ndarray
) -> None:
    pytest.importorskip(backend.partition("-")[0])
    runner = load_segments(card, [1, 2], backend=backend)
    with pytest.raises(ModelError, match=r"takes (uint8|float32) of shape \(B, .*came (uint8|float32|float64)"):
        runner.run(segment, batch)


def test_a_segment_that_is_not_loaded_is_refused(card: ModelCard) -> None:
    runner = load_segments(card, [2])
    with pytest.raises(ModelError, match=r"segment 1 .* is not loaded here: this runner holds \[2\]"):
        runner.run(1, np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("segments", [[], [0], [6], [1, 9]])
def test_segments_that_the_model_does_not_have_are_refused(card: ModelCard, segments: list[int]) -> None:
    with pytest.raises(ModelError, match="has segments 1 to 5"):
        load_segments(card, segments)


def test_unknown_backend_precision_and_threads_are_refused(card: ModelCard) -> None:
    with pytest.raises(
        BackendError, match="unknown backend 'tpu': expected auto, onnxruntime, openvino, torch, torch-e"
    ):
        load_segments(card, [1], backend="tpu")
    with pytest.raises(BackendError, match="computes in fp32, not in 'int8'"):
        load_segments(card, [1], backend="torch", precision="int8")
    with pytest.raises(BackendError, match="'onnxruntime' computes on cpu here, not on 'tensorrt'"):
        load_segments(card, [1], backend="onnxruntime", device="tensorrt")
    with pytest.raises(BackendError, match="'openvino' computes on cpu here, not on 'cuda'"):
        load_segments(card, [1], backend="openvino", device="cuda")
    with pytest.raises(BackendError, match="at least 1 thread"):
        load_segments(card, [1], threads=0)


def test_a_backend_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdi_exit_ros.model.backends.registry.available_backends", lambda: {"torch": "2"})
    assert resolve_backend("auto") == "torch"
    with pytest.raises(BackendError, match="backend 'openvino' is not installed: pip install openvino"):
        resolve_backend("openvino")
    monkeypatch.setattr("mdi_exit_ros.model.backends.registry.available_backends", dict)
    with pytest.raises(BackendError, match="no backend is installed"):
        resolve_backend("auto")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_torch_stays_out_once_the_model_is_exported(card: ModelCard, backend: str) -> None:
    pytest.importorskip(backend)
    assert backend in available_backends()
    ensure_exported(card)
    program = (
        "import sys, numpy\n"
        "from mdi_exit_ros.model.backends.registry import load_segments\n"
        "from mdi_exit_ros.model.card import load_card\n"
        f"runner = load_segments(load_card('mobilenetv2'), [1, 2], backend={backend!r})\n"
        "features = runner.run(1, numpy.zeros((1, 32, 32, 3), numpy.uint8)).features\n"
        "runner.run(2, features)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_cache_that_cannot_be_written_is_named(
    card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="set XDG_CACHE_HOME to a writable folder"):
        ensure_exported(card)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            RuntimeError("Exporting the operator x is not supported\nand more"),
            ModelError,
            "operator x is not supported; ",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            ConfigurationError,
            "No space left on device.*XDG_CACHE_HOME",
        ),
    ],
)
def test_what_keeps_a_model_from_being_exported_is_one_line(
    error: Exception, kind: type, message: str, card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(export, "_export", fail)
    with pytest.raises(kind, match=f"model 'mobilenetv2' cannot be exported.*{message}") as told:
        ensure_exported(card)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("damage", ["cut", "other bytes", "missing", "no list"])
def test_a_damaged_export_is_made_anew(
    damage: str, card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ensure_exported(card)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(export, "_WHOLE", set())
    monkeypatch.setattr(export, "_export", lambda card, folder: shutil.copytree(whole, folder, dirs_exist_ok=True))
    folder = ensure_exported(card)
    assert folder != whole
    file = folder / (export.MANIFEST if damage == "no list" else "segment_2.onnx")
    content = file.read_bytes()
    if damage in ("missing", "no list"):
        file.unlink()
    else:
        file.write_bytes(content[:100] if damage == "cut" else content[:100] + bytes(50) + content[150:])
    export._WHOLE.clear()
    assert ensure_exported(card) == folder
    assert (folder / "segment_2.onnx").read_bytes() == (whole / "segment_2.onnx").read_bytes()


def test_a_device_that_onnxruntime_cannot_use_is_named(card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)  # as a wheel without its driver says
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(BackendError, match="has CUDAExecutionProvider and cannot use it"),
    ):
        load_segments(card, [1], backend="onnxruntime", device="cuda")


def test_an_export_that_answers_differently_is_refused(
    card: ModelCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("mdi_exit_ros.model.backends.export.CONFIDENCE_TOLERANCE", -1.0)
    with pytest.raises(ModelError, match="segment 1 of 'mobilenetv2' answers differently once exported"):
        ensure_exported(card)
    assert not list(tmp_path.rglob("*.onnx"))
