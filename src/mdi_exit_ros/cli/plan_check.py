# SPDX-License-Identifier: Apache-2.0
"""What a plan would do, by simulation: the planner's estimate held against the nodes' own decisions."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mdi_exit_ros.cli.simulated_model import simulated_model
from mdi_exit_ros.planner.arrangement import Arrangement
from mdi_exit_ros.planner.demand import Candidate
from mdi_exit_ros.simulation.cluster import Simulation
from mdi_exit_ros.simulation.scenario import make_scenario

START_S = 1.0  # left out: streams open
SHORTEST_S, LONGEST_S = 2.0, 4.0
FRAMES_MIN, FRAMES_MAX = 50, 10_000
SHORT = 0.97  # of the rate asked for, from which it counts as reached


class Checked(NamedTuple):
    """How one set did in the simulation, after its start.

    Attributes:
        computers: of the set.
        estimated_fps: what the planner says it reaches.
        asked_fps: frames/s of the camera.
        reached_fps: frames answered per second.
        refused_share: of the frames offered, those refused.
        latency_ms: mean of the frames answered; None where none was.
        latency_s: the largest that was asked for (s).
    """

    computers: tuple[str, ...]
    estimated_fps: float
    asked_fps: float
    reached_fps: float
    refused_share: float
    latency_ms: float | None
    latency_s: float = math.inf

    @property
    def holds(self) -> bool:
        """Whether it does what was asked for."""
        in_time = self.latency_ms is not None and self.latency_ms <= 1e3 * self.latency_s
        return self.reached_fps >= SHORT * self.asked_fps and in_time


def topology_keys(arrangement: Arrangement, encoding: str, queue_capacity: int) -> dict[str, Any]:
    """The keys of a topology file with the workers of an arrangement, named after their places in it."""
    working = [duty for duty in arrangement.duties if duty.segments]
    everything = tuple(range(1, max(duty.segments[-1] for duty in working) + 1))
    names = [f"worker{number}" for number in range(1, len(working) + 1)]
    joined = itertools.pairwise(names) if arrangement.kind == "spans" else ((names[0], name) for name in names[1:])
    edges = [list(pair) for pair in joined]
    robot = arrangement.duties[0].computer
    return {
        "computers": {duty.computer: None for duty in arrangement.duties},
        "workers": {
            name: {
                "computer": duty.computer,
                "segments": "all" if duty.segments == everything else list(duty.segments),
                "encoding": encoding,
                "queue_capacity": queue_capacity,
            }
            for name, duty in zip(names, working, strict=True)
        },
        **({"edges": edges, "directed": True} if edges else {}),
        "sources": {"camera": {"computer": robot, "home": names[0]}},
    }


def check_by_simulation(
    arrangement: Arrangement,
    candidates: Sequence[Candidate],
    rate_hz: float,
    encoding: str,
    queue_capacity: int,
    scenario: Mapping[str, Any],
    latency_s: float = math.inf,
) -> Checked:
    """Simulates an arrangement for a few seconds, with a camera that drops frames that nobody takes.

    Args:
        arrangement: what to simulate.
        candidates: all computers, by name those of the arrangement.
        rate_hz: frames/s of the camera.
        encoding: how features travel.
        queue_capacity: room of every worker (frames).
        scenario: model, profile, backend, precision, exits and thresholds, as in a scenario file.
        latency_s: the largest mean that is asked for (s).

    Raises:
        ConfigurationError: the model has no fitting profile.
        DataError: the model has no recording.
    """
    length_s = START_S + max(min(LONGEST_S, max(SHORTEST_S, FRAMES_MAX / rate_hz)), FRAMES_MIN / rate_hz)
    used = [each for each in candidates if each.name in arrangement.names]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.yaml"
        path.write_text(yaml.safe_dump(topology_keys(arrangement, encoding, queue_capacity)), encoding="utf-8")
        made = make_scenario(
            {
                **scenario,
                "topology": str(path),
                "strategy": arrangement.strategy.value,
                "frames": None,
                "duration_s": length_s,
                "arrivals": {"kind": "periodic", "rate_hz": rate_hz},
                "source": {"drop": "oldest"},
                "computers": {each.name: _computer(each) for each in used},
            },
            origin="the plan's check",
        )
        simulation = Simulation(made, simulated_model(made))
    (source,) = simulation.sources.values()
    seen: list[tuple[float, int, int, int, float]] = []  # time, offered, answered, refused, sum of latencies (ms)

    def look(closed: int, total: int) -> None:
        if source.core is not None and simulation.clock.now <= length_s:
            counts = source.core.summary()
            refused, ok = sum(counts["refused"].values()), counts["ok"]
            sum_ms = ok * (counts["latency_ms"]["mean"] or 0.0)
            seen.append((simulation.clock.now, counts["offered"], ok, refused, sum_ms))

    simulation.run(look)
    first = next(each for each in seen if each[0] >= START_S)
    _, offered, answered, refused, sum_ms = (end - begin for begin, end in zip(first, seen[-1], strict=True))
    share = 1.0 / max(1, offered)
    return Checked(
        *(arrangement.names, arrangement.rate_hz, rate_hz, answered * share * rate_hz, refused * share),
        *(sum_ms / answered if answered else None, latency_s),
    )


def _computer(candidate: Candidate) -> dict[str, Any]:
    port = {"port_mbps": candidate.link_bps / 1e6} if candidate.link_bps < math.inf else {}
    return {"cores": candidate.cores, "speed": candidate.speed, **port}
