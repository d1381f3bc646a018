# SPDX-License-Identifier: Apache-2.0
"""A small network whose times and answers are written out, and simulations whose accounts always balance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mdi_exit_ros.profile import BackendProfile, ServiceTime
from mdi_exit_ros.simulation.cluster import Simulation
from mdi_exit_ros.simulation.model import SimulatedModel
from mdi_exit_ros.simulation.recording import Recording
from mdi_exit_ros.simulation.scenario import Scenario, make_scenario

# Seconds of one run by segment and batch size.
TIMES = {
    1: {1: 0.0010, 8: 0.0040, 32: 0.0128},
    2: {1: 0.0020, 8: 0.0080, 32: 0.0256},
    3: {1: 0.0015, 8: 0.006, 32: 0.0192},
}
# Of ten images at thresholds 0.5 five leave at exit 1, three at exit 2 and two at exit 3; exit 1 is wrong about one.
CONFIDENCE = [
    *[[0.9, 0.9, 0.9], [0.2, 0.8, 0.9], [0.7, 0.7, 0.9], [0.1, 0.3, 0.6], [0.6, 0.9, 0.9]],
    *[[0.3, 0.6, 0.8], [0.8, 0.9, 0.9], [0.4, 0.4, 0.7], [0.5, 0.9, 0.9], [0.2, 0.9, 0.9]],
]
CORRECT = [
    *[[True, True, True], [False, True, True], [True, True, True], [False, False, True], [False, True, True]],
    *[[False, True, True], [True, True, True], [False, False, False], [True, True, True], [False, True, True]],
]

Simulate = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def recording() -> Recording:
    """What three exits said about ten images."""
    return Recording(np.array(CONFIDENCE), np.array(CORRECT), "model-a", "ten made-up images", "data-a")


@pytest.fixture(scope="session")
def model(recording: Recording) -> SimulatedModel:
    """Three segments."""
    times = tuple(
        ServiceTime(segment=segment, batch=batch, seconds=seconds, low=seconds, high=seconds)
        for segment, by_batch in TIMES.items()
        for batch, seconds in by_batch.items()
    )
    return SimulatedModel(
        name="three",
        model_id="model-a",
        num_segments=3,
        input_nbytes={"raw": (3000, 24000, 6000), "fp16": (3000, 12000, 3000), "int8": (3000, 6000, 1500)},
        segment_costs=(1.0, 2.0, 1.5),
        default_thresholds=(0.5, 0.5),
        curve=((0.7, (0.2, 0.2)), (0.8, (0.5, 0.5)), (0.9, (1.0, 0.65))),
        times=BackendProfile(
            backend="onnxruntime", precision="fp32", device="cpu", threads=1, version="1", times=times
        ),
        recording=recording,
        machine="a made-up computer",
    )


@pytest.fixture(scope="session")
def models(model: SimulatedModel) -> SimulatedModel:
    """The same, with another model that the cluster may change to: of its exits only the first may answer."""
    other = dataclasses.replace(
        model,
        name="one",
        model_id="model-b",
        default_thresholds=(0.0, 0.0),
        recording=dataclasses.replace(model.recording, model_id="model-b"),
    )
    return dataclasses.replace(model, others={"one": other})


def scenario_of(**keys: Any) -> Scenario:
    return make_scenario({"topology": "two_nodes", "frames": 200} | keys, origin="the test's scenario")


@pytest.fixture
def scenario() -> Callable[..., Scenario]:
    """A scenario from keys; two nodes and 200 frames where they say nothing else."""
    return scenario_of


class Books:
    """Notes all actions and holds them against what must be true of any simulation."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._now = 0.0
        self._closed: set[tuple[str, int]] = set()

    def note(self, time: float, node: str, action: Any) -> None:
        assert time >= self._now, "time never goes back"
        self._now = time
        if type(action).__name__ == "CloseFrame":
            frame = (node, action.sequence)
            assert frame not in self._closed, "every frame ends once"
            self._closed.add(frame)
        self.lines.append(f"{time!r} {node} {action!r}")

    def balance(self, summary: dict[str, Any]) -> None:
        assert summary["simulated"] is True
        assert summary["unaccounted"] == 0
        ended = summary["ok"] + sum(summary["refused"].values()) + sum(summary["failed"].values())
        assert summary["offered"] == ended == len(self._closed)
        assert not summary["ok"] or sum(summary["exits"]) == pytest.approx(1.0)
        assert summary["duration_s"] <= summary["simulated_s"]


@pytest.fixture
def simulate(models: SimulatedModel) -> Simulate:
    """Simulates the scenario of some keys on the made-up network, balances its books and gives its summary.

    With `lines` a list it is filled with every action.
    """

    def run(*, lines: list[str] | None = None, **keys: Any) -> dict[str, Any]:
        books = Books()
        summary = Simulation(scenario_of(**keys), models, trace=books.note).run()
        books.balance(summary)
        if lines is not None:
            lines.extend(books.lines)
        return summary

    return run
