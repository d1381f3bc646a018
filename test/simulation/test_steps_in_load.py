# SPDX-License-Identifier: Apache-2.0
"""The whole loop of adaptation: after a step in load a simulated cluster settles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mdi_exit_ros.cli.simulated_model import simulated_model
from mdi_exit_ros.simulation.cluster import Simulation
from mdi_exit_ros.simulation.model import SimulatedModel
from mdi_exit_ros.simulation.scenario import Scenario, load_scenario, read_scenario_keys
from mdi_exit_ros.simulation.stability import adapted, worst_after
from mdi_exit_ros.simulation.sweeping import load_steps

SLOW, FAST = 100.0, 900.0  # frames/s; what two computers do with the thresholds that users set lies between
COMPUTER = {"cores": 2, "speed": 0.25}
NETWORK = {"rate_mbps": 100, "latency_ms": 1.5}


def simulated(scenario: Callable[..., Scenario], model: SimulatedModel, mode: str, **keys: Any) -> Simulation:
    """The simulation, run, of a camera that drops frames and a controller in that mode."""
    given = {"computer": COMPUTER, "network": NETWORK, "source": {"drop": "oldest"}, "controller": {"mode": mode}}
    simulation = Simulation(scenario(**given, **keys), model)
    simulation.run()
    return simulation


@pytest.mark.parametrize("mode", ["rate", "threshold"])
def test_the_shipped_step_in_load_settles_within_three_seconds_without_oscillation(mode: str) -> None:
    shipped = load_scenario("step", {**read_scenario_keys("step"), "controller": {"mode": mode}})
    simulation = Simulation(shipped, simulated_model(shipped))
    simulation.run()
    points = adapted(simulation.controller.timeline)
    found = worst_after(points, load_steps(simulation))
    assert found is not None
    assert found.settling_s <= 3.0
    assert found.swing <= 0.05
    assert found.reversals_hz <= 1.0
    (before, *_), loaded = ([value for time, value in points if begin_s < time < begin_s + 1.0] for begin_s in (3, 12))
    if mode == "rate":
        assert min(loaded) > 1.5 * before
    else:
        assert max(loaded) < 0.8 * before


def test_thresholds_fall_until_what_the_camera_offers_is_answered(
    scenario: Callable[..., Scenario], model: SimulatedModel
) -> None:
    def answered(mode: str) -> float:
        steps = {"kind": "steps", "steps": [(0.0, SLOW), (1.0, FAST)]}
        simulation = simulated(scenario, model, mode, frames=None, duration_s=6.0, arrivals=steps)
        (first, early), *_, (last, late) = [entry for entry in simulation.controller.timeline if 4.0 < entry[0] <= 6.0]
        return (late.ok - early.ok) / (last - first)

    assert answered("manual") < 0.9 * FAST
    assert answered("threshold") > 0.95 * FAST


@pytest.mark.parametrize("mode", ["rate", "threshold"])
def test_a_camera_that_is_slower_than_the_cluster_is_left_alone(
    scenario: Callable[..., Scenario], model: SimulatedModel, mode: str
) -> None:
    simulation = simulated(scenario, model, mode, frames=400, arrivals={"kind": "periodic", "rate_hz": 100})
    started, *rest = [cluster for time, cluster in simulation.controller.timeline if time > 1.0]
    assert rest[-1].refused == started.refused
    assert {cluster.policy.exit_thresholds for cluster in rest} == {model.default_thresholds}
