# SPDX-License-Identifier: Apache-2.0
"""What adaptation remembers: means of what nodes report, and smaller steps once they have gone too far."""

from __future__ import annotations

import pytest
from literals import W1, source_report, worker_report

from mdi_exit_ros.policy.adaptation import (
    BEST_S,
    POINTS_MAX,
    SHARE_MIN,
    AdaptationMemory,
    BestRate,
    DampedSteps,
    Growth,
)
from mdi_exit_ros.policy.admission import AdaptationSettings
from mdi_exit_ros.policy.events import LedgerCounts

SETTINGS = AdaptationSettings(queue_low=8, queue_high=24, alpha=0.5, beta=0.25, zeta=1.0)


def growth(*points: tuple[float, float]) -> Growth:
    found = Growth()
    for stamp, count in points:
        found.note(stamp, count)
    return found


def test_growth_is_unknown_until_time_has_passed() -> None:
    assert growth().per_second() is None
    assert growth((5.0, 100.0)).per_second() is None
    assert growth((5.0, 100.0), (5.0, 200.0)).per_second() is None
    assert growth((5.0, 100.0), (5.1, 110.0)).per_second(over_s=0.2) is None


def test_growth_is_the_mean_over_the_window() -> None:
    assert growth((0.0, 0.0), (0.1, 50.0), (0.3, 60.0)).per_second() == pytest.approx(200.0)
    assert growth((0.0, 0.0), (0.1, 50.0), (0.3, 60.0), (0.4, 80.0)).per_second() == pytest.approx(100.0)


def test_growth_over_a_silence_is_the_mean_of_that_time() -> None:
    assert growth((0.0, 0.0), (0.1, 50.0), (9.1, 140.0)).per_second() == pytest.approx(10.0)


@pytest.mark.parametrize("again", [(0.5, 400.0), (9.0, 3.0)])
def test_growth_begins_anew_with_a_new_life(again: tuple[float, float]) -> None:
    stamp, count = again
    found = growth((8.0, 100.0), (8.1, 200.0), again)
    assert found.per_second() is None
    found.note(stamp + 0.1, count + 7.0)
    assert found.per_second() == pytest.approx(70.0)


def test_best_rate_outlasts_a_pause_and_is_forgotten_after_it() -> None:
    best = BestRate()
    for step in range(11):  # 100 a second for one second, then nothing
        best.note(0.1 * step, 10.0 * step)
    assert best.per_second == pytest.approx(100.0)
    best.note(1.0 + BEST_S - 0.1, 100.0)
    assert best.per_second == pytest.approx(100.0)
    best.note(1.0 + BEST_S + 0.1, 100.0)
    assert best.per_second < 50.0


def test_two_reports_at_once_make_no_rate() -> None:
    best = BestRate()
    best.note(1.0, 0.0)
    best.note(1.001, 32.0)
    assert best.per_second == 0.0


def test_reports_without_pause_take_bounded_memory() -> None:
    best = BestRate()
    for number in range(3 * POINTS_MAX):
        best.note(number * 1e-6, float(number))
    assert len(best._rates) <= POINTS_MAX
    assert len(best._growth._points) <= POINTS_MAX


def steps_at(steps: DampedSteps, backlog: float, count: int, begin_s: float) -> list[float]:
    """Factors of `count` steps, one every 0.1 s."""
    return [steps.next(1.0, backlog, SETTINGS, begin_s + 0.1 * step, low=0.0, high=9.0) for step in range(count)]


def test_whole_steps_are_taken_until_the_direction_changes() -> None:
    steps = DampedSteps()
    assert steps_at(steps, 0, 10, 0.0) == [0.5] * 10
    assert steps_at(steps, 10, 10, 1.0) == [0.75] * 10
    assert steps_at(steps, 30, 1, 2.0) == [2.0**0.5]


def test_steps_shrink_with_every_change_of_direction_and_not_without_end() -> None:
    steps = DampedSteps()
    steps_at(steps, 0, 1, 0.0)
    falls = []
    for turn in range(10):
        falls += steps_at(steps, 30, 1, 0.2 * turn + 0.1)
        steps_at(steps, 0, 1, 0.2 * turn + 0.2)
    assert falls[:2] == pytest.approx([2.0**0.5, 2.0**0.125])
    assert falls[-1] == pytest.approx(2.0**SHARE_MIN)


def test_steps_between_the_thresholds_come_to_rest() -> None:
    steps = DampedSteps()
    steps_at(steps, 30, 1, 0.0)
    rises = steps_at(steps, 20, 30, 0.1)
    assert rises == sorted(rises)
    assert rises[0] == pytest.approx(0.75**0.5)
    assert rises[-1] == pytest.approx(0.75**SHARE_MIN)


@pytest.mark.parametrize("backlog", [0, 30])
def test_steps_grow_again_when_small_ones_do_not_help(backlog: int) -> None:
    steps = DampedSteps()
    for turn in range(10):
        steps_at(steps, 30 if turn % 2 else 0, 1, 0.1 * turn)
    small, *_, last = steps_at(steps, backlog, 16, 1.0)
    assert abs(small - 1.0) < 0.05
    assert last == (0.5 if backlog == 0 else 2.0)


def test_backlog_counts_the_mean_queue_what_waits_and_what_was_turned_away() -> None:
    memory = AdaptationMemory()
    home = worker_report(W1, queue=99, stamp=0.3, backlog_s=3.0)
    memory.hear_worker(worker_report(W1))
    memory.hear_worker(home)
    for stamp, stale in ((5.0, 100), (5.3, 106)):
        source = source_report(stamp=stamp, counts=LedgerCounts(admitted=1), waiting_for_credit=2, stale=stale)
        memory.hear_source(source)
    assert memory.backlog(home, source) == pytest.approx(10.0 + 2.0 + 6.0)


def test_what_is_turned_away_while_the_cluster_starts_is_no_backlog() -> None:
    memory = AdaptationMemory()
    home = worker_report(W1)
    memory.hear_worker(home)
    for stamp, admitted, stale in ((0.0, 0, 0), (0.1, 0, 30), (0.2, 5, 40), (0.3, 9, 40)):
        source = source_report(stamp=stamp, counts=LedgerCounts(admitted=admitted), stale=stale)
        memory.hear_source(source)
    assert memory.backlog(home, source) == 0.0


def test_memory_keeps_only_what_is_asked_for() -> None:
    memory = AdaptationMemory()
    memory.hear_worker(worker_report(W1))
    memory.hear_source(source_report())
    memory.keep(workers={"w1"}, sources={"cam"})
    assert (len(memory._queued), len(memory._sources)) == (1, 1)
    memory.keep(workers=(), sources=())
    assert (len(memory._queued), len(memory._sources)) == (0, 0)
