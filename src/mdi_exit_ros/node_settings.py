# SPDX-License-Identifier: Apache-2.0
"""Settings of nodes besides those of their cores, which topologies and scenarios may give too."""

from __future__ import annotations

import dataclasses

from mdi_exit_ros.parameter import parameter

# In the words of `model.backends` and `codec`, which a reader of files goes without; a test holds them together.
BACKENDS = ("onnxruntime", "openvino", "torch", "torch-eager")
DEVICES = ("cpu", "cuda", "tensorrt")
ENCODINGS = ("raw", "fp16", "int8")


def travelling_as(encoding: str, workers_elsewhere: int) -> str:
    """The encoding that `encoding` stands for on a computer, where other computers have so many of the workers."""
    if encoding != "auto":
        return encoding
    return "int8" if workers_elsewhere else "raw"


@dataclasses.dataclass(frozen=True)
class WorkerNodeSettings:
    """How a worker computes, and how its features travel."""

    backend: str = parameter("auto", "what computes", choices=("auto", *BACKENDS))
    device: str = parameter("cpu", "where it computes; others need a build of the backend", choices=DEVICES)
    precision: str = parameter("fp32", "precision of computing; bf16 is openvino's", choices=("fp32", "bf16"))
    encoding: str = parameter(
        "auto",
        "how features travel to neighbours; auto: raw where all workers are on one computer, else int8",
        choices=("auto", *ENCODINGS),
    )
    threads: int = parameter(
        0,
        "threads that run batches, one each; 0: this computer's processors, shared out among its workers",
        low=0,
        high=256,
    )


@dataclasses.dataclass(frozen=True)
class SourceNodeSettings:
    """What a source plays."""

    input: str = parameter(
        "topic", "topic, sample (shipped images), device:N, or the path of a folder, .zip archive or video file"
    )
    image_transport: str = parameter("raw", "what an image topic carries", choices=("raw", "compressed"))
    rate_hz: float = parameter(
        0.0, "rate at which a finite input offers frames; 0: as fast as admitted", unit="Hz", low=0.0, high=100000.0
    )
    frames: int = parameter(0, "frames to offer in all; 0: all there are", low=0, high=1_000_000_000)
    loop: bool = parameter(False, "begin anew when a finite input ends")
    drop: str = parameter(
        "auto",
        "refuse the oldest waiting frame when a newer one comes; auto: topics and devices only",
        choices=("auto", "oldest", "never"),
    )
    order_wait_s: float = parameter(
        0.0,
        "publish results in the order of their frames, each waiting at most so long for earlier ones; 0: as they come",
        unit="s",
        low=0.0,
        high=60.0,
    )


@dataclasses.dataclass(frozen=True)
class ControllerNodeSettings:
    """A controller's place among several."""

    leader_priority: int = parameter(0, "of several controllers the highest counts", low=-1000, high=1000)


@dataclasses.dataclass(frozen=True)
class SetPointSettings:
    """Set-points besides the thresholds; only users change them."""

    mode: str = parameter(
        "manual",
        "manual: set-points as they are; rate: the admission interval adapts; threshold: the thresholds adapt",
        choices=("manual", "rate", "threshold"),
        live=True,
    )
    target_accuracy: float = parameter(
        0.0, "accuracy to hold at least cost, instead of exit_threshold; 0: unused", low=0.0, high=1.0, live=True
    )
    admission_rate: int = parameter(
        0, "frames admitted per second by each source, at most; 0: unlimited", unit="Hz", low=0, high=5000, live=True
    )
