# SPDX-License-Identifier: Apache-2.0
"""Shared processors against cases worked out by hand and against a slow model of the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdi_exit_ros.simulation.clock import Clock
from mdi_exit_ros.simulation.processor import Processor, Thread

FOREVER = float("inf")


class Diary:
    """When what happened."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.ends: list[tuple[str, float]] = []

    def ends_as(self, name: str) -> Callable[[], None]:
        return lambda: self.ends.append((name, pytest.approx(self._clock.now)))

    @property
    def order(self) -> list[str]:
        return [name for name, _ in self.ends]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def diary(clock: Clock) -> Diary:
    return Diary(clock)


# ---- the clock -----------------------------------------------------------------------------------------------------


def test_what_is_due_at_the_same_time_happens_in_the_order_it_was_asked_for(clock: Clock, diary: Diary) -> None:
    for name in "abc":
        clock.after(1.0, diary.ends_as(name))
    clock.run(FOREVER)
    assert diary.ends == [("a", 1.0), ("b", 1.0), ("c", 1.0)]


def test_run_ends_at_its_time_and_goes_on_from_there(clock: Clock, diary: Diary) -> None:
    clock.after(1.0, diary.ends_as("a"))
    clock.after(2.0, diary.ends_as("b"))
    clock.run(1.5)
    assert (diary.order, clock.now) == (["a"], 1.0)
    clock.run(2.0)
    assert (diary.order, clock.now) == (["a", "b"], 2.0)


def test_stop_ends_the_run_after_what_happens_now(clock: Clock, diary: Diary) -> None:
    clock.after(1.0, clock.stop)
    clock.after(1.0, diary.ends_as("too late"))
    clock.run(FOREVER)
    assert diary.ends == []


# ---- processors ----------------------------------------------------------------------------------------------------


def test_lone_job_takes_its_work_divided_by_the_speed(clock: Clock, diary: Diary) -> None:
    Processor(clock, 1.0, speed=4.0).run(2.0, diary.ends_as("a"))
    clock.run(FOREVER)
    assert diary.ends == [("a", 0.5)]


def test_two_jobs_share_one_core_until_the_shorter_ends(clock: Clock, diary: Diary) -> None:
    processor = Processor(clock, 1.0)
    processor.run(3.0, diary.ends_as("long"))
    processor.run(1.0, diary.ends_as("short"))
    clock.run(FOREVER)
    assert diary.ends == [("short", 2.0), ("long", 4.0)]


def test_newcomer_halves_the_pace_of_who_runs(clock: Clock, diary: Diary) -> None:
    processor = Processor(clock, 1.0)
    processor.run(2.0, diary.ends_as("first"))
    clock.after(1.0, lambda: processor.run(0.5, diary.ends_as("second")))
    clock.run(FOREVER)
    assert diary.ends == [("second", 2.0), ("first", 2.5)]


def test_jobs_of_a_dead_owner_leave_the_processor_to_the_others(clock: Clock, diary: Diary) -> None:
    processor = Processor(clock, 1.0)
    dead = object()
    processor.run(1.0, diary.ends_as("lost"), owner=dead)
    processor.run(1.0, diary.ends_as("lost too"), owner=dead)
    processor.run(1.0, diary.ends_as("lost as well"), owner=dead)
    processor.run(3.0, diary.ends_as("kept"))
    clock.after(2.0, lambda: processor.drop(dead))  # of which each of four threads has had a quarter
    clock.run(FOREVER)
    assert diary.ends == [("kept", 4.5)]


def test_two_jobs_on_two_cores_do_not_slow_each_other(clock: Clock, diary: Diary) -> None:
    processor = Processor(clock, 2.0)
    processor.run(1.0, diary.ends_as("a"))
    processor.run(1.5, diary.ends_as("b"))
    clock.run(FOREVER)
    assert diary.ends == [("a", 1.0), ("b", 1.5)]


def test_four_threads_on_two_cores_take_twice_as_long(clock: Clock, diary: Diary) -> None:
    processor = Processor(clock, 2.0)
    for name in "abcd":
        processor.run(1.0, diary.ends_as(name))
    clock.run(FOREVER)
    assert diary.ends == [(name, 2.0) for name in "abcd"]


def test_quota_below_one_core_slows_even_a_lone_thread(clock: Clock, diary: Diary) -> None:
    processor = Processor(clock, 0.25)
    processor.run(1.0, diary.ends_as("a"))
    processor.run(1.0, diary.ends_as("b"))
    clock.run(FOREVER)
    assert diary.ends == [("a", 8.0), ("b", 8.0)]


def test_one_and_a_half_cores_are_shared_by_two_threads(clock: Clock, diary: Diary) -> None:
    processor = Processor(clock, 1.5)
    processor.run(1.5, diary.ends_as("a"))
    processor.run(3.0, diary.ends_as("b"))  # 1.5 by t = 2, the rest alone on one core
    clock.run(FOREVER)
    assert diary.ends == [("a", 2.0), ("b", 3.5)]


@pytest.mark.parametrize(
    ("cores", "threads", "seconds"), [(3.0, 1, 1.0), (3.0, 2, 4 / 3), (3.0, 3, 2.0), (2.0, 2, 2.0)]
)
def test_cores_slow_down_as_more_are_busy(
    clock: Clock, diary: Diary, cores: float, threads: int, seconds: float
) -> None:
    processor = Processor(clock, cores, all_busy=0.5)
    for _ in range(threads):
        processor.run(1.0, diary.ends_as("a"))
    clock.run(FOREVER)
    assert diary.ends == [("a", pytest.approx(seconds))] * threads


def test_change_of_speed_counts_from_then_on(clock: Clock, diary: Diary) -> None:
    processor = Processor(clock, 1.0)
    processor.run(2.0, diary.ends_as("a"))

    def slow_down() -> None:
        processor.speed = 0.25

    clock.after(1.0, slow_down)
    clock.run(FOREVER)
    assert processor.speed == 0.25
    assert diary.ends == [("a", 5.0)]


def test_no_work_ends_at_once_but_not_before_the_call_returns(clock: Clock, diary: Diary) -> None:
    Processor(clock, 1.0).run(0.0, diary.ends_as("a"))
    assert diary.ends == []
    clock.run(FOREVER)
    assert diary.ends == [("a", 0.0)]


def test_job_that_a_job_asks_for_follows_it(clock: Clock, diary: Diary) -> None:
    processor = Processor(clock, 1.0)
    processor.run(1.0, lambda: processor.run(1.0, diary.ends_as("second")))
    clock.run(FOREVER)
    assert diary.ends == [("second", 2.0)]


Job = tuple[float, float]  # begun at, work


def ends_by_small_model(jobs: list[Job], cores: float, speed: float) -> list[float]:
    """The same, job by job: all that run go on at one pace until the next begins or ends."""
    now, left, ends = 0.0, {}, [0.0] * len(jobs)
    coming = sorted(range(len(jobs)), key=lambda index: jobs[index][0])
    while left or coming:
        pace = speed * min(1.0, cores / max(1, len(left)))
        ending = min((now + work / pace for work in left.values()), default=FOREVER)
        beginning = jobs[coming[0]][0] if coming else FOREVER
        following = min(ending, beginning)
        left = {index: work - (following - now) * pace for index, work in left.items()}
        now = following
        for index in [index for index, work in left.items() if work <= 1e-9]:
            ends[index] = now
            del left[index]
        while coming and jobs[coming[0]][0] <= now:
            index = coming.pop(0)
            left[index] = jobs[index][1]
    return ends


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.001, 5.0)), min_size=1, max_size=12),
    st.sampled_from([0.1, 0.5, 1.0, 1.5, 2.0, 4.0]),
    st.sampled_from([0.25, 1.0, 3.0]),
)
def test_sharing_is_that_of_a_small_model_and_no_work_is_lost(jobs: list[Job], cores: float, speed: float) -> None:
    clock = Clock()
    processor = Processor(clock, cores, speed=speed)
    ends: dict[int, float] = {}

    def begin(index: int) -> None:
        processor.run(jobs[index][1], lambda: ends.setdefault(index, clock.now))

    for index, (at, _) in enumerate(jobs):
        clock.after(at, lambda index=index: begin(index))  # type: ignore[misc]
    clock.run(FOREVER)
    assert [ends[index] for index in range(len(jobs))] == pytest.approx(
        ends_by_small_model(jobs, cores, speed), abs=1e-6
    )
    assert processor.busy_s * speed == pytest.approx(sum(work for _, work in jobs), rel=1e-6)


# ---- threads -------------------------------------------------------------------------------------------------------


def test_thread_does_one_thing_after_the_other(clock: Clock, diary: Diary) -> None:
    thread = Thread(Processor(clock, 4.0))
    thread.run(1.0, diary.ends_as("a"))
    thread.run(2.0, diary.ends_as("b"))
    clock.run(FOREVER)
    assert diary.ends == [("a", 1.0), ("b", 3.0)]


def test_two_threads_share_their_core(clock: Clock, diary: Diary) -> None:
    processor = Processor(clock, 1.0)
    for name in "ab":
        Thread(processor).run(1.0, diary.ends_as(name))
    clock.run(FOREVER)
    assert diary.ends == [("a", 2.0), ("b", 2.0)]


def test_what_a_job_asks_for_goes_before_all_that_waits(clock: Clock, diary: Diary) -> None:
    thread = Thread(Processor(clock, 1.0))

    def first() -> None:
        diary.ends_as("first")()
        thread.run(1.0, inner)
        thread.run(1.0, diary.ends_as("its second"))

    def inner() -> None:
        diary.ends_as("its first")()
        thread.run(0.0, diary.ends_as("of the inner"))

    thread.run(1.0, first)
    thread.run(1.0, diary.ends_as("last"))
    clock.run(FOREVER)
    assert diary.ends == [("first", 1.0), ("its first", 2.0), ("of the inner", 2.0), ("its second", 3.0), ("last", 4.0)]


def test_idle_thread_does_at_once_what_needs_no_work(clock: Clock, diary: Diary) -> None:
    thread = Thread(Processor(clock, 1.0))
    thread.run(0.0, lambda: thread.run(0.0, diary.ends_as("inner")))
    assert diary.ends == [("inner", 0.0)]
    thread.run(1.0, diary.ends_as("later"))
    clock.run(FOREVER)
    assert diary.ends == [("inner", 0.0), ("later", 1.0)]


def test_busy_thread_does_without_work_in_turn_too(clock: Clock, diary: Diary) -> None:
    thread = Thread(Processor(clock, 1.0))
    thread.run(1.0, diary.ends_as("a"))
    thread.run(0.0, diary.ends_as("b"))
    assert diary.ends == []
    clock.run(FOREVER)
    assert diary.ends == [("a", 1.0), ("b", 1.0)]


def test_end_drops_what_runs_and_what_waits(clock: Clock, diary: Diary) -> None:
    thread = Thread(Processor(clock, 1.0))
    thread.run(1.0, diary.ends_as("running"))
    thread.run(1.0, diary.ends_as("waiting"))
    clock.after(0.5, thread.end)
    clock.after(0.6, lambda: thread.run(1.0, diary.ends_as("too late")))
    clock.run(FOREVER)
    assert diary.ends == []


def test_job_that_ends_its_own_thread_is_the_last(clock: Clock, diary: Diary) -> None:
    thread = Thread(Processor(clock, 1.0))

    def ending() -> None:
        thread.run(0.0, diary.ends_as("asked for before"))
        thread.end()

    thread.run(1.0, ending)
    thread.run(0.0, diary.ends_as("waiting"))
    clock.run(FOREVER)
    assert diary.ends == []
