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


def recorded_efficiency(baseline: Path, *, decisions: str) -> dict[str, float]:
    """The efficiency of every row of a recorded run, by its name.

    Args:
        baseline: what `mdi-exit bench --json` wrote.
        decisions: `compiled` or `Python`: how they are made in the run to compare.

    Raises:
        ConfigurationError: `baseline` is no file of results, or its decisions were made in the other way.
    """
    try:
        document = json.loads(baseline.read_text(encoding="utf-8"))
        recorded = {each["name"]: each["efficiency"] for each in document["results"] if each["efficiency"] is not None}
        before = document["decisions"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"--check: expected results that `mdi-exit bench --json` wrote, {baseline} cannot be used: {error!r}"
        ) from error
    if before != decisions:
        raise ConfigurationError(
            f"--check: {baseline} was recorded with decisions as {before}, this run has them as {decisions}: "
            "`make compiled` or `make interpreted` changes that, or record anew"
        )
    return recorded


def regressions(results: Sequence[Mapping[str, Any]], recorded: Mapping[str, float]) -> list[str]:
    """What has become slower than `recorded`, a line each; efficiencies are compared, not frames per second.

    Raises:
        ConfigurationError: none of these rows was recorded.
    """
    common = [each for each in results if each["name"] in recorded and each["kind"] not in ("bare", "latency")]
    if not common:
        raise ConfigurationError(f"--check: no row of this run was recorded: expected one of {', '.join(recorded)}")
    return [
        f"{each['name']}: efficiency {each['efficiency']:.2f}, was {recorded[each['name']]:.2f}"
        for each in common
        if each["efficiency"] < (1.0 - CHECK_TOLERANCE) * recorded[each["name"]]
    ]
