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
    name: str, kind: str, runs: Sequence[Mapping[str, Any]], bare_p50_ms: Sequence[float], **facts: Any
) -> dict[str, Any]:
    """One row of a load that is given, so that only latency tells anything.

    Args:
        runs: one mapping per turn, with `latency_ms` (p50, p95, p99).
        bare_p50_ms: what the bare loop takes for one frame in each turn; `added_latency_ms` is paired with it.
        facts: further fields of the row.
    """
    pairs = [
        run["latency_ms"]["p50"] - bare
        for run, bare in zip(runs, bare_p50_ms, strict=True)
        if run["latency_ms"]["p50"] is not None
    ]
    added = spread(pairs) if pairs else None
    return {
        "name": name,
        "kind": kind,
        **facts,
        "fps": None,
        "efficiency": None,
        "latency_ms": _latency_ms(runs),
        "added_latency_ms": added["median"] if added else None,
        "added_latency_ms_spread": added,
    }


def _latency_ms(runs: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    return {share: _median([run["latency_ms"][share] for run in runs]) for share in ("p50", "p95", "p99")}


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return spread(known)["median"] if known else None


def regressions(results: Sequence[Mapping[str, Any]], baseline: Path) -> list[str]:
    """What has become slower than in a recorded run, a line each; efficiencies are compared, not frames per second.

    Raises:
        ConfigurationError: `baseline` is no file of results, or has none of these rows.
    """
    try:
        rows = json.loads(baseline.read_text(encoding="utf-8"))["results"]
        recorded = {each["name"]: each for each in rows if each["efficiency"] is not None}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"--check: expected results that `mdi-exit bench --json` wrote, {baseline} cannot be used: {error}"
        ) from error
    common = [each for each in results if each["name"] in recorded and each["kind"] not in ("bare", "latency")]
    if not common:
        raise ConfigurationError(f"--check: {baseline} has no row of this run: expected one of {', '.join(recorded)}")
    return [
        f"{each['name']}: efficiency {each['efficiency']:.2f}, was {recorded[each['name']]['efficiency']:.2f}"
        for each in common
        if each["efficiency"] < (1.0 - CHECK_TOLERANCE) * recorded[each["name"]]["efficiency"]
    ]
