# SPDX-License-Identifier: Apache-2.0
"""Rows of a benchmark: repeated measurements with their spread, held against the bare loop and a recorded baseline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdi_exit_ros.benchmark.bare import spread
from mdi_exit_ros.errors import ConfigurationError

CHECK_TOLERANCE = 0.15  # of the efficiency; what repeated runs on shared machines differ by


def row(
    name: str,
    kind: str,
    runs: Sequence[Mapping[str, Any]],
    reference_fps: Sequence[float],
    **facts: Any,
) -> dict[str, Any]:
    """One row of the results.

    Args:
        kind: `bare`, `graph`, `camera` or `peer`.
        runs: one mapping per turn, with `fps` and, where measured, `latency_ms` (p50, p95, p99),
            `cpu_s_per_1000_frames`, `context_switches_per_frame`, `bytes_per_frame` and `accuracy`.
        reference_fps: the bare loop's frames per second of each turn; efficiency is paired with it.
        facts: further fields of the row.
    """
    fps = spread([run["fps"] for run in runs])
    efficiency = spread([run["fps"] / base for run, base in zip(runs, reference_fps, strict=True)])
    return {
        "name": name,
        "kind": kind,
        **facts,
        "fps": fps["median"],
        "fps_spread": fps,
        "efficiency": efficiency["median"],
        "efficiency_spread": efficiency,
        "latency_ms": _latency_ms(runs),
        **{
            field: _median([run.get(field) for run in runs])
            for field in ("cpu_s_per_1000_frames", "context_switches_per_frame", "bytes_per_frame", "accuracy")
        },
    }


def latency_row(
    name: str,
    kind: str,
    runs: Sequence[Mapping[str, Any]],
    *,
    bare_p50_ms: Sequence[float],
    bare_same_rate_p50_ms: Sequence[float],
    **facts: Any,
) -> dict[str, Any]:
    """One row of a load that is given, so that only latency tells anything.

    Args:
        runs: one mapping per turn, with `latency_ms` (p50, p95, p99).
        bare_p50_ms: what the bare loop takes for one frame in each turn, one right after the other;
            `added_latency_ms` is paired with it.
        bare_same_rate_p50_ms: what it takes for frames as rare as those of the runs; `added_same_rate_ms` is paired
            with it.
        facts: further fields of the row.
    """
    added = _added(runs, bare_p50_ms)
    added_same_rate = _added(runs, bare_same_rate_p50_ms)
    return {
        "name": name,
        "kind": kind,
        **facts,
        "fps": None,
        "efficiency": None,
        "latency_ms": _latency_ms(runs),
        "added_latency_ms": added["median"] if added else None,
        "added_latency_ms_spread": added,
        "added_same_rate_ms": added_same_rate["median"] if added_same_rate else None,
        "added_same_rate_ms_spread": added_same_rate,
    }


def _added(runs: Sequence[Mapping[str, Any]], bare_p50_ms: Sequence[float]) -> dict[str, float] | None:
    pairs = [
        run["latency_ms"]["p50"] - bare
        for run, bare in zip(runs, bare_p50_ms, strict=True)
        if run["latency_ms"]["p50"] is not None
    ]
    return spread(pairs) if pairs else None


def _latency_ms(runs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    return {share: _median([run["latency_ms"][share] for run in runs]) for share in ("p50", "p95", "p99")}


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return spread(known)["median"] if known else None


def recorded_efficiency(baseline: Path, names: Sequence[str], **conditions: str) -> dict[str, float]:
    """The efficiency of every graph of a recorded run, by its name.

    Args:
        baseline: what `mdi-exit bench --json` wrote.
        names: graphs that will be compared; of which one is recorded at least.
        conditions: fields of the results that have to be the same: how decisions are made, model, backend, precision.

    Raises:
        ConfigurationError: `baseline` is no file of results, has other conditions or none of these graphs.
    """
    try:
        document = json.loads(baseline.read_text(encoding="utf-8"))
        recorded = {
            each["name"]: float(each["efficiency"])
            for each in document["results"]
            if each["kind"] in ("graph", "camera")
        }
        before = {key: document[key] for key in conditions}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"--check: expected results that `mdi-exit bench --json` wrote, {baseline} cannot be used: "
            f"{error if isinstance(error, OSError) else repr(error)}"
        ) from error
    for key, now in conditions.items():
        if before[key] != now:
            raise ConfigurationError(
                f"--check: {baseline} was recorded with {key} {before[key]}, this run has {now}: record anew, or "
                "measure in the same way (`make compiled` and `make interpreted` change how decisions are made)"
            )
    if not recorded.keys() & set(names):
        raise ConfigurationError(
            f"--check: {baseline} has none of {', '.join(names)}: expected one of {', '.join(recorded) or 'no graph'}"
        )
    return recorded


def regressions(results: Sequence[Mapping[str, Any]], recorded: Mapping[str, float]) -> list[str]:
    """Graphs that have become slower than `recorded`, a line each; efficiencies are compared, not frames per second."""
    return [
        f"{each['name']}: efficiency {each['efficiency']:.2f}, was {recorded[each['name']]:.2f}"
        for each in results
        if each["name"] in recorded and each["efficiency"] < (1.0 - CHECK_TOLERANCE) * recorded[each["name"]]
    ]
