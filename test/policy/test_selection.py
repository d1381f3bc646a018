# SPDX-License-Identifier: Apache-2.0
"""Which controller's policy counts."""

from __future__ import annotations

from literals import CONTROLLER, policy

from mdi_exit_ros.policy.selection import CONTROLLER_TIMEOUT_S, PolicySelector
from mdi_exit_ros.task import PeerId

A, B = PeerId("a", 1), PeerId("b", 2)


def test_nothing_applies_before_a_controller_is_heard() -> None:
    assert PolicySelector().current is None


def test_only_controller_applies() -> None:
    selector = PolicySelector()
    assert not selector.hear(policy(), 0.0)
    assert selector.current == policy()


def test_newer_policy_of_the_same_controller_applies_at_once() -> None:
    selector = PolicySelector()
    selector.hear(policy(version=1), 0.0)
    assert not selector.hear(policy(version=2), 0.1)
    assert selector.current == policy(version=2)


def test_highest_priority_applies_whoever_spoke_last() -> None:
    selector = PolicySelector()
    selector.hear(policy(B, priority=5), 0.0)
    assert selector.hear(policy(A, priority=1), 0.1)
    assert selector.current == policy(B, priority=5)


def test_lowest_name_applies_among_equal_priorities() -> None:
    selector = PolicySelector()
    selector.hear(policy(B), 0.0)
    assert selector.hear(policy(A), 0.1)
    assert selector.current == policy(A)
    selector.hear(policy(B), 0.2)
    assert selector.current == policy(A)


def test_silent_controller_gives_way_to_one_that_speaks() -> None:
    selector = PolicySelector()
    selector.hear(policy(A, priority=5), 0.0)
    assert selector.hear(policy(B), CONTROLLER_TIMEOUT_S)
    assert selector.current == policy(A, priority=5)
    assert not selector.hear(policy(B), CONTROLLER_TIMEOUT_S + 0.001)
    assert selector.current == policy(B)


def test_last_policy_holds_when_all_controllers_are_gone() -> None:
    selector = PolicySelector()
    selector.hear(policy(version=7), 0.0)
    assert selector.current == policy(version=7)  # whatever the time: nobody else speaks


def test_restarted_controller_takes_the_place_of_its_old_life() -> None:
    selector = PolicySelector()
    selector.hear(policy(version=50), 0.0)
    reborn = policy(PeerId(CONTROLLER.name, 99), version=1)
    assert not selector.hear(reborn, 0.1)
    assert selector.current == reborn


def test_two_controllers_of_one_name_do_not_take_turns() -> None:
    selector = PolicySelector()
    twins = policy(PeerId("c", 9), priority=10), policy(PeerId("c", 1), priority=-10)
    for step in range(10):
        for twin in twins:
            several = selector.hear(twin, 0.1 * step)
        if step:
            assert several and selector.current == twins[0]
    same = policy(PeerId("d", 3)), policy(PeerId("d", 4))
    for step in range(10):
        for twin in same:
            several = selector.hear(twin, 10.0 + 0.1 * step)
        if step:
            assert several and selector.current == same[0]


def test_controllers_that_come_and_go_leave_nothing_behind() -> None:
    selector = PolicySelector()
    for index in range(1000):
        selector.hear(policy(PeerId(f"c{index}", index)), index * 10.0)
    assert len(selector._heard) == 1
