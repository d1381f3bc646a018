# SPDX-License-Identifier: Apache-2.0
"""A pipeline that is spread anew where a link is its slowest part."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

ADAPTIVE = {"adaptive_allocation": True}
FAST = {"rate_mbps": 100.0, "latency_ms": 1.0}


def slow(one: str, other: str, rate_mbps: float) -> list[dict[str, Any]]:
    return [{"between": [one, other], "rate_mbps": rate_mbps, "latency_ms": 1.0}]


def pipeline(simulate: Any, frames: int = 4000, **keys: Any) -> tuple[dict[str, Any], list[str]]:
    """The summary, and the lines of its trace in which a change of the allocation begins."""
    lines: list[str] = []
    # Segments are to be much slower than the nodes' own work.
    common = {"strategy": "mdi", "computer": {"speed": 0.25}, "worker": {"move_timeout_s": 8.0}}
    summary = simulate(**common, frames=frames, lines=lines, **keys)
    changes = [line for line in lines if "PublishPolicy" in line and "allocation_final=False" in line]
    return summary, changes


def kinds(changes: list[str]) -> list[str]:
    """Allocations that were changed to, each once per change."""
    return [key for key, _ in itertools.groupby(line.split("allocation=")[1] for line in changes)]


def segments(summary: dict[str, Any]) -> list[list[int]]:
    return [worker["segments"] for worker in summary["workers"].values()]


def test_pipeline_goes_round_a_slow_link_and_stays_there(simulate: Any) -> None:
    links = {"topology": "three_mesh", "network": FAST, "links": slow("robot", "nano2", 2.0)}
    before, _ = pipeline(simulate, **links)
    after, changes = pipeline(simulate, **links, controller=ADAPTIVE)
    assert (before["ok"], after["ok"]) == (4000, 4000)
    assert segments(before) == [[1], [2], [3]]
    assert segments(after) == [[1], [3], [2]]
    assert after["throughput_fps"] > 2.0 * before["throughput_fps"]
    assert len(kinds(changes)) == 1


def test_a_narrow_port_of_either_computer_slows_the_pipeline(simulate: Any) -> None:
    keys = {"topology": "two_nodes", "strategy": "mdi", "frames": 1000, "network": FAST}
    free = simulate(**keys)["throughput_fps"]
    for narrow in ("robot", "nano2"):
        slowed = simulate(**keys, computers={narrow: {"port_mbps": 2.0}})
        assert slowed["ok"] == 1000
        assert slowed["throughput_fps"] < 0.5 * free


@pytest.mark.parametrize(("rate_mbps", "held"), [(100.0, [[1], [2, 3]]), (3.0, [[1, 2], [3]])])
def test_cut_is_where_the_link_lets_it(simulate: Any, rate_mbps: float, held: list[list[int]]) -> None:
    # The robot is slow: it had better run segment 1 alone. But of int8 features 6000 bytes per frame cross in front of
    # segment 2, 1500 in front of segment 3.
    keys = {"topology": "two_nodes", "computers": {"robot": {"speed": 0.1}}, "network": {"rate_mbps": rate_mbps}}
    summary, changes = pipeline(simulate, **keys, frames=2000, controller=ADAPTIVE)
    assert (summary["ok"], segments(summary)) == (2000, held)
    assert len(kinds(changes)) <= 2, "once tried and found slow it is left alone"


def test_home_runs_everything_where_every_link_is_too_slow(simulate: Any) -> None:
    links = {"topology": "two_nodes", "network": {"rate_mbps": 0.5, "latency_ms": 1.0}}
    after, _ = pipeline(simulate, **links, frames=2000, controller=ADAPTIVE)
    assert segments(after) == [[1, 2, 3], []]
    assert after["ok"] == 2000


def test_fast_links_change_nothing(simulate: Any) -> None:
    links = {"topology": "three_mesh", "network": FAST}
    summary, changes = pipeline(simulate, **links, controller=ADAPTIVE)
    assert (segments(summary), changes) == ([[1], [2], [3]], [])
