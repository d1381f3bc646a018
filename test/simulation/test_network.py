# SPDX-License-Identifier: Apache-2.0
"""Links against times worked out by hand: rate, latency, a shared medium, losses that delay and never lose."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdi_exit_ros.simulation.clock import Clock
from mdi_exit_ros.simulation.network import PACKET_NBYTES, ROUNDS_MAX, Link, Network

FOREVER = float("inf")
SLOW = Link(rate_bps=8e6, latency_s=0.005)  # one megabyte per second


class Tosses(random.Random):
    """Chance with a known outcome."""

    def __init__(self, *values: float) -> None:
        super().__init__(0)
        self.values = list(values)

    def random(self) -> float:
        return self.values.pop(0)


class Post:
    """A network and what came when over it."""

    def __init__(self, default: Link, links: dict[tuple[str, str], Link] | None = None, **rest: Any) -> None:
        self.clock = Clock()
        rng = rest.pop("rng", random.Random(1))
        local = Link(latency_s=0.0001)
        self.network = Network(self.clock, rng, default=default, local=local, links=links, **rest)
        self.came: list[tuple[str, float]] = []

    def send(
        self, name: str, computers: str, nbytes: int, at_s: float = 0.0, route: str = "", kind: str = "tasks"
    ) -> None:
        one, other = computers
        sender, receiver = route or computers

        def now() -> None:
            self.network.send(
                (sender, receiver), (one, other), nbytes, lambda: self.came.append((name, self.clock.now)), kind=kind
            )

        self.clock.after(at_s, now)

    def deliver(self) -> list[tuple[str, Any]]:
        self.clock.run(FOREVER)
        return [(name, pytest.approx(at)) for name, at in self.came]


def test_message_takes_the_time_of_its_bits_and_the_latency() -> None:
    post = Post(SLOW)
    post.send("a", "AB", 2000)
    assert post.deliver() == [("a", 0.007)]


def test_messages_of_one_link_are_sent_one_after_the_other() -> None:
    post = Post(SLOW)
    post.send("a", "AB", 1000)
    post.send("b", "AB", 1000)
    post.send("c", "AB", 1000, at_s=1.0)
    assert post.deliver() == [("a", 0.006), ("b", 0.007), ("c", 1.006)]


def test_both_directions_are_links_of_their_own() -> None:
    post = Post(SLOW)
    post.send("there", "AB", 1000)
    post.send("back", "BA", 1000)
    assert post.deliver() == [("there", 0.006), ("back", 0.006)]


def test_links_of_one_medium_wait_for_each_other() -> None:
    wifi = Link(rate_bps=8e6, latency_s=0.005, medium="wifi")
    post = Post(wifi, {("E", "F"): SLOW})
    for name, computers in (("a", "AB"), ("b", "BA"), ("c", "CD"), ("cable", "EF")):
        post.send(name, computers, 1000)
    assert post.deliver() == [("a", 0.006), ("cable", 0.006), ("b", 0.007), ("c", 0.008)]


def test_a_port_carries_what_its_computer_sends_and_gets_one_after_the_other() -> None:
    post = Post(Link(latency_s=0.005), ports={"A": 8e6, "D": 4e6})
    for name, computers in (("a", "AB"), ("b", "AC"), ("in", "CA"), ("c", "AD"), ("d", "BD"), ("others", "BC")):
        post.send(name, computers, 1000)
    # A's port takes 1 ms per message out, and in besides; D's 2 ms in. c is at D from 2 ms on, and d comes after it.
    expected = {"others": 0.005, "a": 0.006, "in": 0.006, "b": 0.007, "c": 0.009, "d": 0.011}
    assert dict(post.deliver()) == expected


def test_a_port_and_a_link_take_the_time_of_the_slower() -> None:
    post = Post(SLOW, ports={"A": 4e6, "B": 8e6})
    post.send("a", "AB", 1000)
    post.send("b", "AB", 1000)
    post.send("same", "AA", 10**9)
    assert dict(post.deliver()) == {"same": 0.0001, "a": 0.007, "b": 0.009}


def test_without_a_rate_only_latency_counts() -> None:
    post = Post(Link(latency_s=0.005))
    post.send("large", "AB", 10**9)
    post.send("small", "AB", 1)
    assert post.deliver() == [("large", 0.005), ("small", 0.005)]


def test_nodes_of_one_computer_do_not_use_the_network() -> None:
    post = Post(SLOW)
    post.send("a", "AA", 10**9)
    assert post.deliver() == [("a", 0.0001)]


def test_lost_packet_is_sent_again_after_a_round_trip() -> None:
    link = Link(rate_bps=8e6, latency_s=0.005, loss=0.1, repair_s=0.02)
    # Two packets: the second is lost, and its first repetition too.
    post = Post(link, rng=Tosses(0.5, 0.05, 0.01, 0.9))
    post.send("a", "AB", 2000)
    assert post.deliver() == [("a", 0.007 + 2 * (PACKET_NBYTES * 1e-6 + 0.01 + 0.02))]


def test_what_follows_a_lost_packet_waits_for_it() -> None:
    post = Post(Link(latency_s=0.005, loss=0.1), rng=Tosses(0.01, 0.9, 0.9))
    post.send("lost first", "AB", 100)
    post.send("follows", "AB", 100)
    assert post.deliver() == [("lost first", 0.025), ("follows", 0.025)]


def test_even_a_hopeless_link_delivers_everything_once() -> None:
    post = Post(Link(latency_s=0.001, loss=0.99, repair_s=0.01))
    for number in range(20):
        post.send(str(number), "AB", 5000)
    assert [name for name, _ in post.deliver()] == [str(number) for number in range(20)]
    assert post.clock.now <= 0.001 + ROUNDS_MAX * 0.012 + 1e-9


def test_losses_add_to_the_mean_time_what_they_should() -> None:
    post = Post(Link(latency_s=0.0, loss=0.2, repair_s=1.0))
    for number in range(2000):
        post.send("a", "AB", 100, route=f"s{number % 10}", at_s=100.0 * number)
    post.deliver()
    mean_s = sum(at - 100.0 * number for number, (_, at) in enumerate(post.came)) / 2000
    assert mean_s == pytest.approx(0.25, abs=0.04)  # 0.2 + 0.04 + ... rounds of a second


def test_of_statuses_that_wait_for_the_link_only_the_newest_goes() -> None:
    post = Post(SLOW)
    post.send("tasks", "AB", 10_000)
    for number in range(5):
        post.send(f"status {number}", "AB", 1000, at_s=0.001 * number, kind="control")
    post.send("of another", "AB", 1000, at_s=0.002, route="cB", kind="control")
    post.send("status 5", "AB", 1000, at_s=0.0105, kind="control")
    assert post.deliver() == [("tasks", 0.015), ("status 4", 0.016), ("of another", 0.017), ("status 5", 0.018)]
    assert post.network.messages == {"tasks": 1, "control": 3}


def test_link_full_of_statuses_does_not_fall_behind_for_ever() -> None:
    post = Post(Link(rate_bps=8e3))  # a kilobyte per second
    for number in range(1000):
        post.send(str(number), "AB", 1000, at_s=0.1 * number, kind="control")
    post.deliver()
    assert post.clock.now < 102.0
    assert post.came[-1][0] == "999"


def test_messages_are_counted_by_kind() -> None:
    network = Post(SLOW).network
    for kind, nbytes in (("tasks", 100), ("tasks", 50), ("control", 7)):
        network.send(("a", "b"), ("A", "B"), nbytes, lambda: None, kind=kind)
    assert network.messages == {"tasks": 2, "control": 1}
    assert network.nbytes == {"tasks": 150, "control": 7}


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.floats(0.0, 0.02), st.integers(1, 5000), st.sampled_from("xyz")), min_size=2, max_size=20),
    st.integers(0, 2**32),
)
def test_jitter_and_loss_keep_the_order_of_a_route_and_the_past(
    messages: list[tuple[float, int, str]], seed: int
) -> None:
    link = Link(rate_bps=1e7, latency_s=0.001, jitter_s=0.01, loss=0.2, medium="wifi")
    post = Post(link, rng=random.Random(seed))
    for number, (at_s, nbytes, sender) in enumerate(messages):
        post.send(f"{sender}{number}", "AB", nbytes, at_s, route=f"{sender}r")
    post.deliver()
    sent = sorted(range(len(messages)), key=lambda number: messages[number][0])
    for sender in "xyz":
        expected = [f"{sender}{number}" for number in sent if messages[number][2] == sender]
        assert [name for name, _ in post.came if name[0] == sender] == expected
    assert all(at >= messages[int(name[1:])][0] + link.latency_s for name, at in post.came)


def test_routes_overtake_each_other() -> None:
    post = Post(Link(latency_s=0.001, jitter_s=0.01), rng=random.Random(3))
    for number in range(20):
        post.send(str(number), "AB", 100, at_s=0.001 * number, route=f"{number % 4}r")
    names = [int(name) for name, _ in post.deliver()]
    assert names != sorted(names)


def test_same_seed_gives_the_same_times_and_another_other_ones() -> None:
    def times(seed: int) -> list[tuple[str, float]]:
        post = Post(Link(rate_bps=1e7, jitter_s=0.01, loss=0.1), rng=random.Random(seed))
        for number in range(20):
            post.send(str(number), "AB", 3000, at_s=0.001 * number)
        post.deliver()
        return post.came

    assert times(1) == times(1)
    assert times(1) != times(2)


def test_message_that_catches_up_with_the_one_before_arrives_after_it_in_spite_of_rounding() -> None:
    for seed in range(100):
        chance = random.Random(seed)
        post = Post(Link(latency_s=0.001, jitter_s=0.01), rng=chance)
        for number, at_s in enumerate(sorted(chance.uniform(0.0, 0.02) for _ in range(10))):
            post.send(str(number), "AB", 100, at_s=at_s)
        assert [name for name, _ in post.deliver()] == list("0123456789")
