# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import random

import pytest
from literals import ALL_SEGMENTS, MODEL, W1, stream, worker_report

from mdi_exit_ros.policy.neighbourhood import Neighbour, Neighbourhood
from mdi_exit_ros.task import PeerId


def neighbour(name: str = "w2", *, nbytes: tuple[int, ...] = (100,) * 5) -> Neighbour:
    made = Neighbour(name, W1, MODEL, nbytes, liveness_timeout_s=1.0, stall_timeout_s=5.0)
    made.keep(ALL_SEGMENTS, frozenset(ALL_SEGMENTS))
    return made


def heard(*, queue: int, output: int = 0, service_s: float = 0.1, credit: int = 8) -> Neighbour:
    made = neighbour()
    made.hear(worker_report(PeerId("w2", 2), stream(credit=credit), queue=queue, output=output, service_s=service_s), 1)
    return made


@pytest.mark.parametrize(("after_s", "queued"), [(0.0, 4.0), (0.1, 3.0), (0.25, 1.5), (0.4, 0.0), (9.0, 0.0)])
def test_queue_shrinks_between_statuses_at_the_neighbours_own_pace(after_s: float, queued: float) -> None:
    worker = heard(queue=4)
    worker.settle(1.0 + after_s)
    assert worker.queued == pytest.approx(queued)


@pytest.mark.parametrize(("after_s", "queued"), [(0.1, 4.0), (0.3, 4.0), (0.4, 3.0), (0.7, 0.0)])
def test_queue_is_filled_up_from_the_output_queue_while_that_has_tasks(after_s: float, queued: float) -> None:
    worker = heard(queue=4, output=3)
    worker.settle(1.0 + after_s)
    assert worker.queued == pytest.approx(queued)


def test_queue_of_unknown_pace_does_not_shrink() -> None:
    worker = heard(queue=4, service_s=0.0)
    worker.settle(100.0)
    assert worker.queued == 4.0


def test_what_is_sent_to_an_idle_neighbour_waits_from_then_on() -> None:
    worker = heard(queue=0)
    worker.send(1.5)
    worker.send(1.5)
    worker.settle(1.6)
    assert worker.queued == pytest.approx(1.0)
    assert worker.room == 6


def test_delays_are_those_of_the_neighbours_one_by_one_and_infinite_for_the_unfit() -> None:
    rng = random.Random(3)
    workers = [neighbour(f"w{number:02}", nbytes=tuple(range(100, 600, 100))) for number in range(40)]
    all_of_them = Neighbourhood(rng.sample(workers, len(workers)))
    assert [each.name for each in all_of_them] == [each.name for each in workers]
    for each in workers[1:]:
        mine = stream(credit=rng.choice((0, 0, 1, 9)))
        life = PeerId(each.name, 2)
        heard_at = rng.random()
        each.hear(worker_report(life, mine, queue=rng.randrange(6), service_s=rng.choice((0.0, 0.1))), heard_at)
        each.measure(stream(echo_stamp=heard_at - rng.random()), heard_at, 1.0)
    now, longest = 1.2, 4.0
    for segment in ALL_SEGMENTS:
        found = all_of_them.delays_s(segment, now, longest)
        for each, delay in zip(workers, found, strict=True):
            each.settle(now)
            fit = each.may_take(segment) and each.ready(now) and each.queued < longest
            assert delay == pytest.approx(each.delay_s(segment) if fit else math.inf)
        assert any(delay < math.inf for delay in found)
