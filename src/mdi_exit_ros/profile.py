# SPDX-License-Identifier: Apache-2.0
"""How long each segment of a model takes on one computer: measured once, read by planner, simulator and workers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mdi_exit_ros.cache import cache_directory
from mdi_exit_ros.errors import ConfigurationError
from mdi_exit_ros.machine import machine

PROFILE_NAME = "profile.json"  # of a model directory


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServiceTime(_Frozen):
    """Time of one run of one segment with its exit.

    Attributes:
        segment: 1..K.
        batch: Frames in the run.
        seconds: Median over the turns.
        low: Fastest turn (s).
        high: Slowest turn (s).
    """

    segment: int = Field(ge=1)
    batch: int = Field(ge=1)
    seconds: float = Field(gt=0.0)
    low: float = Field(gt=0.0)
    high: float = Field(gt=0.0)


class BackendProfile(_Frozen):
    """What one backend takes.

    Attributes:
        backend: Its name.
        precision: `fp32` or `bf16`.
        device: `cpu`, `cuda` or `tensorrt`.
        threads: CPU threads of one run.
        version: Of the backend's package.
        times: Every segment at the same batch sizes.
    """

    backend: str
    precision: str
    device: str
    threads: int
    version: str
    times: tuple[ServiceTime, ...]

    @cached_property
    def _measured(self) -> dict[int, list[tuple[int, float]]]:
        found: dict[int, list[tuple[int, float]]] = {}
        for time in sorted(self.times, key=lambda time: time.batch):
            found.setdefault(time.segment, []).append((time.batch, time.seconds))
        return found

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes measured, increasing."""
        return tuple(sorted({time.batch for time in self.times}))

    def seconds(self, segment: int, batch: int) -> float:
        """Time (s) of one run of `segment` on `batch` frames.

        Between measured batch sizes it is interpolated; beyond the largest the time per frame stays as it is there.

        Raises:
            ConfigurationError: The segment was not measured.
        """
        points = self._measured.get(segment)
        if not points:
            raise ConfigurationError(f"the profile of {self.backend} has no segment {segment}: measure it again")
        if batch <= points[0][0]:
            return points[0][1]
        for (small, faster), (large, slower) in pairwise(points):
            if batch <= large:
                return faster + (slower - faster) * (batch - small) / (large - small)
        largest, longest = points[-1]
        return longest * batch / largest

    def first_estimates(self, segments: Sequence[int], batch_max: int) -> tuple[tuple[int, int, float], ...]:
        """Segment, batch and time (s) of what was measured up to `batch_max`, smallest batches first."""
        return tuple(
            (segment, batch, self.seconds(segment, batch))
            for batch in self.batches
            for segment in segments
            if batch <= batch_max
        )

    def per_frame(self, segments: Sequence[int], batch: int) -> tuple[float, ...]:
        """Time per frame (s) of each of `segments` in batches of `batch`."""
        return tuple(self.seconds(segment, batch) / batch for segment in segments)


class Profile(_Frozen):
    """All measurements of one model on one computer.

    Attributes:
        format_version: Version of this file's layout.
        model: Name of the model.
        model_id: Its content hash.
        machine: What computer it was.
        measured_on: Date.
        method: How it was measured, in words.
        backends: One entry per backend and precision.
    """

    format_version: int = 1
    model: str
    model_id: str
    machine: dict[str, Any]
    measured_on: str
    method: str
    backends: tuple[BackendProfile, ...]

    def of(self, backend: str, precision: str = "fp32", device: str = "cpu") -> BackendProfile:
        """The measurements of one backend.

        Raises:
            ConfigurationError: It was not measured.
        """
        for entry in self.backends:
            if (entry.backend, entry.precision, entry.device) == (backend, precision, device):
                return entry
        known = ", ".join(f"{entry.backend} {entry.precision} on {entry.device}" for entry in self.backends)
        raise ConfigurationError(
            f"the profile of {self.model!r} has no {backend} {precision} on {device}: it has {known}; "
            "measure it with mdi-exit profile"
        )

    def fastest(self, precision: str = "fp32", *, batch: int = 8) -> BackendProfile:
        """The backend of `precision` that runs the whole network fastest in batches of `batch`.

        Raises:
            ConfigurationError: None of that precision was measured.
        """
        entries = [entry for entry in self.backends if entry.precision == precision]
        if not entries:
            raise ConfigurationError(f"the profile of {self.model!r} has no backend in {precision}")
        return min(entries, key=lambda entry: sum(entry.seconds(k, batch) for k in {t.segment for t in entry.times}))


def profile_path(model_id: str) -> Path:
    """Where the profile of a model on this computer is kept."""
    return cache_directory("profiles") / f"{model_id}.json"


def save_profile(profile: Profile, path: Path) -> None:
    """Writes a profile, atomically."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(profile.model_dump_json(indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def load_profile(path: Path) -> Profile:
    """Reads what `save_profile` wrote.

    Raises:
        ConfigurationError: No such file, or not a profile.
    """
    try:
        return Profile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the profile {path}: {error.strerror}; make one with mdi-exit profile"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigurationError(f"{path} is not a profile: {where}: {first['msg']}") from error


def load_profile_of(model: str, model_id: str, path: Path | None = None) -> Profile:
    """The profile of a model, from `path` or this computer's own.

    Raises:
        ConfigurationError: See `load_profile`; or the profile is of another model.
    """
    measured = load_profile(path or profile_path(model_id))
    if measured.model_id != model_id:
        raise ConfigurationError(
            f"the profile is of {measured.model} {measured.model_id}, expected {model} {model_id}: "
            "measure it with mdi-exit profile"
        )
    return measured


def times_here(model_id: str, backend: str, precision: str, device: str) -> BackendProfile | None:
    """What was measured of a model on this computer; None where nothing was, or on another processor.

    Raises:
        ConfigurationError: There is a profile, but it cannot be read or has no such backend.
    """
    path = profile_path(model_id)
    if not path.is_file():
        return None
    profile = load_profile(path)
    if profile.machine.get("processor") != machine()["processor"]:
        return None
    return profile.of(backend, precision, device)
