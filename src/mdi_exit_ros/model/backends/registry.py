# SPDX-License-Identifier: Apache-2.0
"""Choice of a compute backend by name; each is imported only when it is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import cast

from mdi_exit_ros.errors import BackendError
from mdi_exit_ros.model.backends.interface import SegmentRunner, check_segments
from mdi_exit_ros.model.card import ModelCard

FASTEST_FIRST = ("onnxruntime", "openvino", "torch")


def available_backends() -> dict[str, str]:
    """Version of each installed backend, fastest first; nothing is imported."""
    found = {}
    for name in FASTEST_FIRST:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


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
        missing = " or ".join(FASTEST_FIRST) if name == "auto" else name
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
) -> SegmentRunner:
    """Loads `segments` (numbers 1..K) of `model` into a backend.

    Args:
        model: Card of the model, read by `load_card`.
        segments: Which segments; each counts once.
        backend: `auto`, `openvino`, `onnxruntime` or `torch`.
        precision: `fp32`; `openvino` also computes in `bf16`.
        threads: CPU threads for one call of `run`, at least 1.
        lanes: calls of `run` that may be made at once, at least 1.

    Raises:
        BackendError: The backend is unknown, not installed, or cannot compute in `precision`.
        ModelError: The model has no such segment, or its weights do not fit.
    """
    numbers = tuple(sorted(set(segments)))
    check_segments(model, numbers)
    if threads < 1 or lanes < 1:
        raise BackendError(f"a backend needs at least 1 thread and 1 lane, asked for {threads} and {lanes}")
    module = import_module(f"mdi_exit_ros.model.backends.{resolve_backend(backend)}_backend")
    load = cast(Callable[[ModelCard, tuple[int, ...], str, int, int], SegmentRunner], module.load)
    return load(model, numbers, precision, threads, lanes)
