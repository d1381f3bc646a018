# SPDX-License-Identifier: Apache-2.0
"""Whether a worker is fit for tasks, and the stream to it."""

from __future__ import annotations

from typing import Any

import pytest
from literals import MODEL, W1, W2, stream, worker_report

from mdi_exit_ros.policy.receiver import OPEN_INTERVAL_S, Receiver
from mdi_exit_ros.task import PeerId, State


def receiver() -> Receiver:
    return Receiver(W1, MODEL, liveness_timeout_s=1.0, stall_timeout_s=10.0)


def test_unheard_worker_is_not_ready_and_nothing_is_opened() -> None:
    unheard = receiver()
    assert not unheard.fits
    assert not unheard.ready(0.0)
    assert unheard.opens(0.0) is None


@pytest.mark.parametrize(
    ("report", "age_s", "ready"),
    [
        ({}, 0.0, True),
        ({}, 1.0, True),
        ({}, 1.001, False),
        ({"busy_s": 10.0}, 0.0, True),
        ({"busy_s": 10.0}, 0.001, False),
        ({"busy_s": 9.5}, 0.5, True),
        ({"state": State.STARTING}, 0.0, False),
        ({"state": State.STOPPING}, 0.0, False),
        ({"model_id": "model-b"}, 0.0, False),
    ],
)
def test_worker_is_ready_while_it_is_heard_and_not_stuck(report: dict[str, Any], age_s: float, ready: bool) -> None:
    worker = receiver()
    worker.hear(worker_report(W2, stream(), **report), 5.0)
    assert worker.ready(5.0 + age_s) is ready


def test_credit_is_taken_from_an_open_stream() -> None:
    worker = receiver()
    assert worker.hear(worker_report(W2, stream(credit=4)), 0.0) == stream(credit=4)
    assert worker.outbound is not None and worker.outbound.available == 4


def test_credit_of_another_model_is_not_taken() -> None:
    worker = receiver()
    worker.hear(worker_report(W2, stream(credit=4), model_id="model-b"), 0.0)
    assert worker.outbound is not None and worker.outbound.available == 0


@pytest.mark.parametrize(
    "later", [worker_report(W2), worker_report(W2, stream(opened=False)), worker_report(W2, stream(W2))]
)
def test_stream_that_the_worker_does_not_know_voids_credit(later: Any) -> None:
    worker = receiver()
    worker.hear(worker_report(W2, stream(credit=4)), 0.0)
    assert worker.hear(later, 0.1) is None
    assert worker.outbound is not None and worker.outbound.available == 0


def test_new_life_starts_a_new_stream() -> None:
    worker = receiver()
    worker.hear(worker_report(W2, stream(credit=4)), 0.0)
    assert worker.outbound is not None
    worker.outbound.sent = 3
    reborn = PeerId("w2", 22)
    worker.hear(worker_report(reborn), 0.1)
    assert (worker.outbound.receiver, worker.outbound.sent, worker.outbound.unacknowledged) == (reborn, 0, 0)


def test_stream_is_opened_at_an_interval_and_only_at_a_running_worker() -> None:
    worker = receiver()
    worker.hear(worker_report(W2), 1.0)
    assert worker.opens(1.0) is worker.outbound
    assert worker.opens(1.0 + OPEN_INTERVAL_S - 0.01) is None
    assert worker.opens(1.0 + OPEN_INTERVAL_S + 0.01) is worker.outbound
    worker.hear(worker_report(W2, state=State.STOPPING), 2.0)
    assert worker.opens(2.0) is None
