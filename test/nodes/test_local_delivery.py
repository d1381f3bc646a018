# SPDX-License-Identifier: Apache-2.0
"""What nodes of one process send each other."""

from __future__ import annotations

from mdi_exit_ros.nodes.local_delivery import LocalDelivery


def test_what_nobody_here_receives_is_left_to_the_middleware():
    local = LocalDelivery()
    assert not local.send("/tasks", 1)
    found: list[int] = []
    local.receive("/tasks", found.append)
    assert local.send("/tasks", 2)
    local.deliver()
    assert found == [2]


def test_what_is_sent_while_something_is_received_comes_after_it():
    local = LocalDelivery()
    order: list[str] = []

    def worker(item: str) -> None:
        order.append(f"worker began {item}")
        local.send("/results", item)
        local.deliver()
        order.append(f"worker ended {item}")

    local.receive("/tasks", worker)
    local.receive("/results", lambda item: order.append(f"source {item}"))
    local.send("/tasks", "a")
    local.send("/tasks", "b")
    local.deliver()
    assert order == [
        *("worker began a", "worker ended a", "worker began b", "worker ended b"),
        *("source a", "source b"),
    ]


def test_what_was_sent_to_a_receiver_that_left_is_dropped():
    local = LocalDelivery()
    found: list[int] = []
    local.receive("/tasks", found.append)
    local.send("/tasks", 1)
    local.withdraw("/tasks")
    local.deliver()
    local.receive("/tasks", found.append)
    local.deliver()
    assert found == []


def test_a_receiver_that_fails_does_not_stop_later_deliveries():
    local = LocalDelivery()
    found: list[int] = []

    def receiver(item: int) -> None:
        if item == 0:
            raise ValueError(item)
        found.append(item)

    local.receive("/tasks", receiver)
    for item in (0, 1):
        local.send("/tasks", item)
        try:
            local.deliver()
        except ValueError:
            continue
    assert found == [1]
