# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mdi_exit_ros.policy.ordering import InOrder


def test_what_comes_early_waits_for_what_is_before_it() -> None:
    order: InOrder[str] = InOrder(1.0)
    assert order.put(0, "a", 0.0) == ["a"]
    assert order.put(2, "c", 0.1) == []
    assert order.put(3, "d", 0.2) == []
    assert order.next_deadline() == 1.1
    assert order.put(1, "b", 0.3) == ["b", "c", "d"]
    assert order.next_deadline() == math.inf


def test_waiting_ends_and_what_comes_later_is_handed_on_at_once() -> None:
    order: InOrder[str] = InOrder(1.0)
    assert order.put(4, "e", 0.0) == []
    assert order.put(2, "c", 0.5) == []
    assert order.put(5, "f", 0.6) == []
    assert order.due(0.9) == []
    assert order.due(1.0) == ["c", "e", "f"]
    assert (order.put(3, "d", 1.1), order.put(0, "a", 1.2)) == (["d"], ["a"])
    assert order.put(6, "g", 1.3) == ["g"]


def test_each_gap_is_waited_for() -> None:
    order: InOrder[str] = InOrder(1.0)
    assert order.put(1, "b", 0.0) == []
    assert order.put(3, "d", 0.5) == []
    assert (order.due(1.0), order.next_deadline()) == (["b"], 1.5)
    assert order.due(1.5) == ["d"]


@given(st.permutations(range(12)), st.lists(st.floats(0.0, 0.4), min_size=12, max_size=12), st.floats(0.0, 2.0))
def test_everything_is_handed_on_once_in_order_and_in_time(
    numbers: list[int], gaps: list[float], wait_s: float
) -> None:
    order: InOrder[int] = InOrder(wait_s)
    came: dict[int, float] = {}
    handed: list[int] = []
    now, on_time = 0.0, True
    for number, gap in zip(numbers, gaps, strict=True):
        while order.next_deadline() <= now + gap:
            due = order.next_deadline()
            handed += (given := order.due(due))
            assert given
            on_time &= all(due <= came[each] + wait_s for each in given)
        now += gap
        came[number] = now
        late = order.put(number, number, now)
        assert late == sorted(late)
        handed += late
    assert on_time
    end = order.due(math.inf)
    assert sorted(handed + end) == list(range(12))
    if wait_s > sum(gaps):
        assert handed == list(range(12))
