# SPDX-License-Identifier: Apache-2.0
"""How near a simulation comes to the real run that it repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mdi_exit_ros.errors import DataError
from mdi_exit_ros.simulation.scenario import Scenario, make_scenario

THROUGHPUT_TOLERANCE = 0.15
LATENCY_TOLERANCE = 0.30
EXIT_TOLERANCE = 0.02
MIXED = "mixed"  # in the place of a run's backend or precision, where its workers differ

_SHELL_ONLY = frozenset({"backend", "precision", "device", "frames", "loop", "input", "image_transport"})
_THRESHOLD = "exit_threshold."
ALL_BUSY = 0.97  # of a repeated run's computer: cores share memory; fitted with the costs of nodes


class Agreement(NamedTuple):
    """One figure, measured and simulated.

    Attributes:
        figure: its name.
        measured, simulated: in the unit that the name says.
        difference: relative to the measured one, or absolute for shares.
        tolerance: the largest difference that counts as agreement.
    """

    figure: str
    measured: float
    simulated: float
    difference: float
    tolerance: float

    @property
    def holds(self) -> bool:
        """Whether the difference is within the tolerance."""
        return abs(self.difference) <= self.tolerance


def repeat(
    run: Mapping[str, Any],
    path: Path,
    change: Callable[[dict[str, Any]], dict[str, Any]] = lambda keys: keys,
    thresholds_of: Callable[[str], Sequence[float]] = lambda model: (),
) -> Scenario:
    """The scenario that repeats a real run on one computer.

    Args:
        run: the run's summary, as `mdi-exit run --json` wrote it.
        path: its file, for messages.
        change: makes the scenario's keys of those that repeat the run.
        thresholds_of: of a model, those of exits 1..K-1 that the run left as they are.

    Raises:
        DataError: it is no summary, one of a simulation, or of a run that no simulation repeats.
        ConfigurationError: the changes cannot be used.
    """
    if run.get("simulated"):
        raise DataError(f"{path} is of a simulation: expected the summary of mdi-exit run --json")
    try:
        options = run["options"]
        _check_repeatable(run, path)
        source = dict(options["source"])
        rate_hz = source.pop("rate_hz", None)
        nodes = {name: _known(given) for name, given in options.get("nodes", {}).items()}
        controller = {**options["controller"], **nodes.pop("controller", {})}
        thresholds = {key: controller.pop(key) for key in list(controller) if key.startswith(_THRESHOLD)}
        if thresholds:
            left = {f"{_THRESHOLD}{number}": each for number, each in enumerate(thresholds_of(run["model"]), 1)}
            thresholds = left | thresholds
        content = {
            "description": f"repeats {path.name}",
            "topology": options["topology"],
            "strategy": run["strategy"],
            "model": run["model"],
            "exits": options["exits"],
            "thresholds": [thresholds[key] for key in sorted(thresholds, key=lambda key: (len(key), key))] or None,
            "frames": max((part["offered"] for part in run.get("sources", {}).values()), default=run["offered"]),
            "arrivals": {"kind": "periodic", "rate_hz": rate_hz} if rate_hz else {"kind": "max"},
            "profile": "measured",
            "backend": run["backend"],
            "precision": run["precision"],
            "together": True,
            "computer": {"cores": run["machine"]["cores"], "all_busy": ALL_BUSY},
            "quotas": run.get("cpu_quota", {}),
            "worker": _known(options["worker"]),
            "source": _known(source),
            "controller": controller,
            "nodes": nodes,
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no summary of mdi-exit run --json: it has no {error}") from error
    return make_scenario(change(content), origin=f"the repeated run of {path}")


def _check_repeatable(run: Mapping[str, Any], path: Path) -> None:
    options = run["options"]
    files = options.get("params_files", ())
    reasons = (
        (options.get("composed", False), "--use-composition: sources in the processes of workers are not simulated"),
        (files, f"parameter files ({', '.join(files)}): what they say is not in its summary, that of --param is"),
        (run["backend"] == MIXED, "workers of several backends: simulated ones have one"),
        (run["precision"] == MIXED, "workers of several precisions: simulated ones have one"),
    )
    for applies, reason in reasons:
        if applies:
            raise DataError(f"--compare: {path} is of a run with {reason}")


def _known(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters without those that say what a scenario says by keys of its own."""
    return {key: value for key, value in parameters.items() if key not in _SHELL_ONLY}


def compare(real: Mapping[str, Any], simulated: Mapping[str, Any]) -> list[Agreement]:
    """Throughput, mean latency and exit shares of a run and of its simulation.

    Raises:
        DataError: the run's summary lacks a figure.
    """
    try:
        if len(real["exits"]) != len(simulated["exits"]):
            raise ValueError(f"it has {len(real['exits'])} exits, the simulation {len(simulated['exits'])}")
        rate = "steady_fps" if real["steady_fps"] and simulated["steady_fps"] else "throughput_fps"
        found = [
            _relative("throughput, frames/s", real[rate], simulated[rate], THROUGHPUT_TOLERANCE),
            _relative(
                "mean latency, ms", real["latency_ms"]["mean"], simulated["latency_ms"]["mean"], LATENCY_TOLERANCE
            ),
        ]
        for number, (one, other) in enumerate(zip(real["exits"], simulated["exits"], strict=True), 1):
            found.append(Agreement(f"share of exit {number}", one, other, other - one, EXIT_TOLERANCE))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"the run's summary lacks a figure: {error}; make it anew with mdi-exit run --json") from error
    return found


def _relative(figure: str, measured: float, simulated: float, tolerance: float) -> Agreement:
    if not measured or simulated is None:
        raise ValueError(f"{figure}: expected a number above 0, got {measured!r} and simulated {simulated!r}")
    return Agreement(figure, measured, simulated, simulated / measured - 1.0, tolerance)
