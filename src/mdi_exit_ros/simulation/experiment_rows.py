# SPDX-License-Identifier: Apache-2.0
"""The rows of the experiments' tables: what was simulated, what was measured, and what follows from them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from mdi_exit_ros.errors import DataError
from mdi_exit_ros.simulation.cluster import Simulation
from mdi_exit_ros.simulation.experiments import TOPOLOGIES, Point
from mdi_exit_ros.simulation.model import SimulatedModel

PAYING_SHARE = 0.5  # throughput per worker, of what one worker alone does, below which offloading does not pay


def measure(point: Point, model: SimulatedModel) -> dict[str, Any]:
    """Simulates a point and answers with its row. Only `decision_us...` are not decided by the seed."""
    simulation = Simulation(point.scenario, model)
    spent = _time_decisions(simulation) if point.experiment == "scale" else {}
    moments = [_Moment.of(simulation, spent)]
    if point.counts_from_s is not None:
        assert point.scenario.duration_s is not None
        moments.clear()
        for at_s in (point.counts_from_s, point.scenario.duration_s):
            simulation.clock.after(at_s, lambda: moments.append(_Moment.of(simulation, spent)))
    summary = simulation.run()
    if point.counts_from_s is None:
        moments.append(_Moment.of(simulation, spent))
    row = moments[-1].since(moments[0])
    if point.counts_from_s is None:
        row["rate_fps"] = summary["steady_fps"] or summary["throughput_fps"]
    return {**point.facts, **row, "unaccounted": summary["unaccounted"], "simulated": True}


def _time_decisions(simulation: Simulation) -> dict[str, float]:
    """Has the time that each kind of core takes to decide added up, in seconds of processor time.

    Processor time, not wall time: other processes of this computer do not count.
    """
    spent = dict.fromkeys(("workers", "sources", "controller"), 0.0)

    for shells, kind in (
        (simulation.workers.values(), "workers"),
        (simulation.sources.values(), "sources"),
        ([simulation.controller], "controller"),
    ):
        for shell in shells:
            shell.core = cast(Any, _Timed(shell.core, kind, spent))
    return spent


class _Timed:
    """A core that adds up its time; a wrapper, as the methods of a compiled one cannot be replaced."""

    def __init__(self, core: Any, kind: str, spent: dict[str, float]) -> None:
        self._core = core
        self._kind = kind
        self._spent = spent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def handle(self, event: Any, now: float) -> Any:
        began = time.thread_time()
        actions = self._core.handle(event, now)
        self._spent[self._kind] += time.thread_time() - began
        return actions


@dataclasses.dataclass(frozen=True)
class _Moment:
    """Everything counted since the beginning."""

    at_s: float
    counts: Mapping[str, float]
    exits: tuple[float, ...]
    spent: Mapping[str, float]

    @classmethod
    def of(cls, simulation: Simulation, spent: Mapping[str, float]) -> _Moment:
        counts: dict[str, float] = dict.fromkeys(("ok", "closed", "labelled", "correct", "latency_s"), 0.0)
        exits = [0.0] * simulation.model.num_segments
        for source in simulation.sources.values():
            assert source.core is not None
            each = source.core.summary()
            counts["ok"] += each["ok"]
            counts["closed"] += each["ok"] + sum(each["refused"].values()) + sum(each["failed"].values())
            counts["labelled"] += each["labelled"]
            counts["correct"] += (each["accuracy"] or 0.0) * each["labelled"]
            counts["latency_s"] += (each["latency_ms"]["mean"] or 0.0) * 1e-3 * each["ok"]
            exits = [one + share * each["ok"] for one, share in zip(exits, each["exits"], strict=True)]
        for kind in ("tasks", "answers", "control"):
            counts[f"{kind}_messages"] = simulation.network.messages[kind]
            counts[f"{kind}_bytes"] = simulation.network.nbytes[kind]
        return cls(simulation.clock.now, counts, tuple(exits), dict(spent))

    def since(self, before: _Moment) -> dict[str, Any]:
        """What happened between two moments, per frame or second; None where nothing was answered."""
        counts = {name: value - before.counts[name] for name, value in self.counts.items()}
        ok, window_s = counts["ok"], self.at_s - before.at_s

        def per_frame(value: float) -> float | None:
            return value / ok if ok else None

        latency_s = per_frame(counts["latency_s"])
        return {
            "frames": round(ok),
            "window_s": window_s,
            "rate_fps": ok / window_s if window_s > 0.0 else 0.0,
            "accuracy": counts["correct"] / counts["labelled"] if counts["labelled"] else None,
            "answered_share": ok / counts["closed"] if counts["closed"] else None,
            "latency_ms_mean": 1e3 * latency_s if latency_s is not None else None,
            **{
                f"{kind}_{what}_per_frame": per_frame(counts[f"{kind}_{what}"])
                for kind in ("tasks", "answers", "control")
                for what in ("messages", "bytes")
            },
            **{
                f"exit_{number}": per_frame(now - then)
                for number, (now, then) in enumerate(zip(self.exits, before.exits, strict=True), 1)
            },
            **{
                f"decision_us_per_frame_{kind}": per_frame(1e6 * (seconds - before.spent[kind]))
                for kind, seconds in self.spent.items()
            },
        }


# ---- real runs ---------------------------------------------------------------------------------------------------


def real_run(path: Path) -> dict[str, Any]:
    """The row of a real run, from its summary.

    Raises:
        DataError: it cannot be read, is of a simulation, or lacks something.
    """
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        if run.get("simulated"):
            raise DataError(f"--real: {path} is of a simulation: expected the summary of mdi-exit run --json")
        rate_hz = run["options"]["source"].get("rate_hz")
        closed = run["ok"] + sum(run["refused"].values()) + sum(run["failed"].values())
        return {
            "file": path.name,
            "model": run["model"],
            "topology": run["topology"],
            "strategy": run["strategy"],
            "workers": len(run["workers"]),
            "processor": run["machine"]["processor"],
            "arrival_rate_hz": rate_hz or None,
            "rate_fps": run["steady_fps"] or run["throughput_fps"],
            "accuracy": run["accuracy"],
            "answered_share": run["ok"] / closed if closed else None,
            "simulated": False,
        }
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"--real: cannot read {path}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"--real: {path} is no summary of mdi-exit run --json: it has no {error}") from error


def belongs(run: Mapping[str, Any], point: Point) -> bool:
    """Whether a real run is drawn into the figure of a point."""
    if run["model"] != point.facts["model"]:
        return False
    if point.experiment == "scale":
        return run["arrival_rate_hz"] is None
    given = run["arrival_rate_hz"] is not None
    return given == (point.experiment == "threshold") and run["topology"] in TOPOLOGIES


# ---- scale -------------------------------------------------------------------------------------------------------


def with_shares(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the scale experiment with throughput per worker, also as a share of what one worker alone does."""
    alone = {row["series"]: row["rate_fps"] for row in rows if row["workers"] == 1}
    found = []
    for row in rows:
        each, one = row["rate_fps"] / row["workers"], alone.get(row["series"])
        found.append({**row, "fps_per_worker": each, "share_of_one_worker": each / one if one else None})
    return found


def stops_paying(rows: Sequence[Mapping[str, Any]], share: float = PAYING_SHARE) -> dict[str, int | None]:
    """By series, the smallest number of workers from which on the share per worker stays below; None: it never does."""
    found: dict[str, int | None] = {}
    for series in dict.fromkeys(row["series"] for row in rows):
        found[series] = None
        for row in sorted((row for row in rows if row["series"] == series), key=lambda row: -row["workers"]):
            if row["share_of_one_worker"] is None or row["share_of_one_worker"] >= share:
                break
            found[series] = row["workers"]
    return found
