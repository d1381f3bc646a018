# SPDX-License-Identifier: Apache-2.0
"""Choice of a compute backend by name; each is imported only when it is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import cast

from mdi_exit_ros.errors import BackendError
from mdi_exit_ros.model.backends.interface import LoadOptions, SegmentRunner, check_segments
from mdi_exit_ros.model.card import ModelCard

DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
    "torch": ("torch",),
    "torch-eager": ("torch",),
}
FASTEST_FIRST = tuple(DISTRIBUTIONS)  # in fp32 on a CPU, measured by `mdi-exit profile`


def available_backends() -> dict[str, str]:
    """Version of each installed backend, fastest first; nothing is imported."""
    return {name: found for name, names in DISTRIBUTIONS.items() if (found := _version(names)) is not None}


def _version(distributions: Sequence[str]) -> str | None:
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def resolve_backend(name: str) -> str:
    """The backend that `name` stands for; `auto` is the fastest that is installed.

    Raises:
        BackendError: Unknown or not installed.
    """
    available = available_backends()
    if name == "auto" and available:
        return next(iter(available))
    if name in available:
        return name
    if name in FASTEST_FIRST or name == "auto":
        wanted = "no backend" if name == "auto" else f"backend {name!r}"
        missing = "onnxruntime" if name == "auto" else DISTRIBUTIONS[name][0]
        hint = f"pip install {missing}; installed now: {', '.join(available) or 'none'}"
        raise BackendError(f"{wanted} is {'' if name == 'auto' else 'not '}installed: {hint}")
    raise BackendError(f"unknown backend {name!r}: expected auto, {', '.join(FASTEST_FIRST)}")


def load_segments(
    model: ModelCard,
    segments: Sequence[int],
    *,
    backend: str = "auto",
    precision: str = "fp32",
    threads: int = 1,
    lanes: int = 1,
    device: str = "cpu",
) -> SegmentRunner:
    """Loads `segments` (numbers 1..K) of `model` into a backend.

    Args:
        model: Card of the model, read by `load_card`.
        segments: Which segments; each counts once.
        backend: `auto`, `onnxruntime`, `openvino`, `torch` (batch normalisation folded) or `torch-eager`.
        precision: See `LoadOptions`.
        threads: See `LoadOptions`.
        lanes: See `LoadOptions`.
        device: See `LoadOptions`.

    Raises:
        BackendError: The backend is unknown, not installed, or cannot compute in `precision` or on `device`.
        ModelError: The model has no such segment, or its weights do not fit.
    """
    numbers = tuple(sorted(set(segments)))
    check_segments(model, numbers)
    if threads < 1 or lanes < 1:
        raise BackendError(f"a backend needs at least 1 thread and 1 lane, asked for {threads} and {lanes}")
    module_name, _, variant = resolve_backend(backend).partition("-")
    module = import_module(f"mdi_exit_ros.model.backends.{module_name}_backend")
    load = cast(
        Callable[[ModelCard, tuple[int, ...], LoadOptions], SegmentRunner],
        getattr(module, f"load_{variant}" if variant else "load"),
    )
    return load(model, numbers, LoadOptions(precision, threads, lanes, device))
