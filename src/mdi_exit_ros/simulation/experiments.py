# SPDX-License-Identifier: Apache-2.0
"""The experiments of MDI-Exit (Colocrese, Koyuncu, Seferoglu 2024), on simulated clusters, and what grows with size.

Each experiment is a shipped scenario of which a few keys are varied; every variation is a `Point`, simulated by itself.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mdi_exit_ros.policy.admission import Curve
from mdi_exit_ros.simulation.costs import NO_COSTS
from mdi_exit_ros.simulation.model import SimulatedModel
from mdi_exit_ros.simulation.scenario import Scenario, make_scenario

TOPOLOGIES = ("one_node", "two_nodes", "three_mesh", "three_ring", "five_mesh")
ALONE = "one_node"
NEIGHBOURS = 32
WORKERS_PER_SOURCE = 64
TYPICAL_BATCH = 8


class Series(NamedTuple):
    """One line of a figure: a strategy, with or without exits and the model's autoencoder."""

    label: str
    strategy: str
    exits: bool
    autoencoder: bool = True


LOCAL = (Series("local", "local", True), Series("local, no exits", "local", False))
DISTRIBUTED = (
    Series("mdi_exit", "mdi_exit", True),
    Series("mdi_exit, no exits", "mdi_exit", False),
    Series("ddi", "ddi", True),
    Series("ddi, no exits", "ddi", False),
    Series("mdi", "mdi", False),
)
WITHOUT_AUTOENCODER = tuple(
    series._replace(label=f"{series.label}, no autoencoder", autoencoder=False)
    for series in DISTRIBUTED
    if series.strategy != "ddi"
)
"""Only of models that have one; whole frames (`ddi`) go on the way without it anyway."""


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much of each experiment is simulated.

    Attributes:
        threshold_points: points of the model's curve of thresholds.
        frames: of each run at fixed thresholds, at least; rounded up to whole passes over the recorded images, so that
            equal thresholds have equal accuracy.
        rates: arrival rates, as multiples of what one computer can run without exits.
        warm_up_s, window_s: simulated time before anything counts, and the least time that counts, of each run at a
            fixed rate.
        passes: over the recorded images that arrive in that time, at least.
        workers: numbers of workers.
        scale_warm_up_s, scale_window_s: the same times for them.
    """

    threshold_points: int
    frames: int
    rates: tuple[float, ...]
    warm_up_s: float
    window_s: float
    passes: float
    workers: tuple[int, ...]
    scale_warm_up_s: float
    scale_window_s: float


FULL = Extent(
    threshold_points=8,
    frames=15_000,
    rates=(0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0),
    warm_up_s=6.0,
    window_s=6.0,
    passes=1.0,
    workers=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000),
    scale_warm_up_s=2.5,
    scale_window_s=1.0,
)
QUICK = Extent(
    threshold_points=3,
    frames=6_000,
    rates=(0.5, 1.5, 4.0),
    warm_up_s=5.0,
    window_s=2.0,
    passes=1.0,
    workers=(1, 2, 4, 16, 64),
    scale_warm_up_s=2.0,
    scale_window_s=0.5,
)


class Point(NamedTuple):
    """One simulation of an experiment.

    Attributes:
        experiment: `rate`, `threshold` or `scale`.
        facts: what was varied, the first columns of its row.
        scenario: everything that decides it.
        counts_from_s: simulated time from which it counts until the scenario's end; None: all its frames count.
    """

    experiment: str
    facts: Mapping[str, Any]
    scenario: Scenario
    counts_from_s: float | None


class Request(NamedTuple):
    """What an experiment's points are made of: keys of its scenario, the network, how much, and the seed."""

    content: Mapping[str, Any]
    model: SimulatedModel
    model_name: str
    extent: Extent
    seed: int

    def point(
        self, experiment: str, facts: Mapping[str, Any], changes: Mapping[str, Any], counts_from_s: float | None
    ) -> Point:
        """A point of the experiment.

        Raises:
            ConfigurationError: the scenario cannot be used.
        """
        content = {**self.content, "model": self.model_name, "seed": self.seed, **changes}
        scenario = make_scenario(content, origin=f"the scenario of experiment {experiment}")
        return Point(experiment, {"model": self.model.name, **facts}, scenario, counts_from_s)


def rate_points(request: Request) -> list[Point]:
    """Data rate reached against accuracy: thresholds fixed, admission adapts."""
    model, extent = request.model, request.extent
    frames = -(-extent.frames // len(model.recording)) * len(model.recording)
    chosen = spread(model.curve, extent.threshold_points) or [model.default_thresholds]
    points = []
    for topology, series in _lines(model):
        for thresholds in chosen if series.exits else chosen[-1:]:
            facts = {**_facts(topology, series), "thresholds": " ".join(map(str, thresholds)) if series.exits else ""}
            changes = {**_keys(topology, series), "thresholds": list(thresholds), "frames": frames, "duration_s": None}
            points.append(request.point("rate", facts, changes, None))
    return points


def threshold_points(request: Request) -> list[Point]:
    """Accuracy against arrival rate: Poisson arrivals at a fixed rate, thresholds adapt."""
    model, extent = request.model, request.extent
    highest = max(model.curve)[1] if model.curve else model.default_thresholds
    base = request.point("threshold", {}, {}, None).scenario
    alone_fps = one_computer_fps(base, model)
    points = []
    for topology, series in _lines(model):
        for multiple in extent.rates:
            rate_hz = round(multiple * alone_fps, 1)
            window_s = max(extent.window_s, extent.passes * len(model.recording) / rate_hz)
            changes = {
                **_keys(topology, series),
                "thresholds": list(highest),
                "frames": None,
                "duration_s": extent.warm_up_s + window_s,
                "arrivals": {"kind": "poisson", "rate_hz": rate_hz},
            }
            facts = {**_facts(topology, series), "arrival_rate_hz": rate_hz}
            points.append(request.point("threshold", facts, changes, extent.warm_up_s))
    return points


def scale_points(request: Request) -> list[Point]:
    """Throughput, control traffic and decision cost against the number of workers."""
    extent = request.extent
    points = []
    for own_work in (True, False):
        for workers in extent.workers:
            sources = max(1, workers // WORKERS_PER_SOURCE)
            facts = {
                "series": "nodes' own work costs time" if own_work else "nodes' own work is free",
                "workers": workers,
                "sources": sources,
            }
            changes = {
                "topology": {"workers": workers, "neighbours": NEIGHBOURS, "sources": sources},
                "frames": None,
                "duration_s": extent.scale_warm_up_s + extent.scale_window_s,
                **({} if own_work else {"costs": NO_COSTS.model_dump()}),
            }
            points.append(request.point("scale", facts, changes, extent.scale_warm_up_s))
    return points


EXPERIMENTS: Mapping[str, tuple[str, Callable[[Request], list[Point]]]] = {
    "rate": ("paper_rate", rate_points),
    "threshold": ("paper_threshold", threshold_points),
    "scale": ("scale", scale_points),
}
"""By name: the shipped scenario and what makes its points."""


def shuffled(model: SimulatedModel, seed: int) -> SimulatedModel:
    """The network with its recorded images in another order, so that any stretch of them is a fair sample of all."""
    order = list(range(len(model.recording)))
    random.Random(seed).shuffle(order)
    recording = dataclasses.replace(
        model.recording, confidence=model.recording.confidence[order], correct=model.recording.correct[order]
    )
    return dataclasses.replace(model, recording=recording)


def spread(curve: Curve, count: int) -> list[tuple[float, ...]]:
    """Thresholds of at most `count` points of a curve, evenly spaced in accuracy, cheapest first."""
    if not curve:
        return []
    ends = curve[0][0], max(curve)[0]
    wanted = [ends[0] + (ends[1] - ends[0]) * index / max(1, count - 1) for index in range(count)]
    nearest = {min(range(len(curve)), key=lambda place: abs(curve[place][0] - each)): None for each in wanted}
    return [curve[place][1] for place in sorted(nearest)]


def one_computer_fps(scenario: Scenario, model: SimulatedModel) -> float:
    """Frames/s that one computer of the scenario can run through the whole network, were there nothing else to do."""
    computer = scenario.computer
    seconds = sum(model.times.per_frame(range(1, model.num_segments + 1), TYPICAL_BATCH))
    return computer.cores * computer.speed / seconds


def _lines(model: SimulatedModel) -> list[tuple[str, Series]]:
    """Every topology with its strategies; one computer alone has nobody to give to."""
    distributed = DISTRIBUTED + (WITHOUT_AUTOENCODER if model.autoencoder else ())
    return [(name, series) for name in TOPOLOGIES for series in (LOCAL if name == ALONE else distributed)]


def _facts(topology: str, series: Series) -> dict[str, Any]:
    return {**_keys(topology, series), "series": series.label}


def _keys(topology: str, series: Series) -> dict[str, Any]:
    return {
        "topology": topology,
        "strategy": series.strategy,
        "exits": series.exits,
        "autoencoder": series.autoencoder,
    }
