# SPDX-License-Identifier: Apache-2.0
"""Every offered frame gets exactly one end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mdi_exit_ros.policy.events import LedgerCounts
from mdi_exit_ros.policy.ledger import FrameLedger, OpenFrame
from mdi_exit_ros.task import Reason


def offered(ledger: FrameLedger, sequence: int, label: int | None = None) -> OpenFrame:
    return ledger.offer(sequence, label, float(sequence))


def admitted(ledger: FrameLedger, sequence: int, label: int | None = None) -> OpenFrame:
    frame = offered(ledger, sequence, label)
    ledger.admit(frame, float(sequence), 10.0)
    return frame


def test_frames_are_offered_in_order_without_gaps() -> None:
    ledger = FrameLedger(5)
    assert ledger.next_sequence == 0
    offered(ledger, 0)
    assert ledger.next_sequence == 1
    for wrong in (0, 2, -1):
        with pytest.raises(ValueError, match="expected frame 1"):
            offered(ledger, wrong)


def test_admitted_frame_is_attempt_one_with_a_deadline() -> None:
    ledger = FrameLedger(5)
    frame = offered(ledger, 0)
    assert (frame.attempt, frame.expires_at) == (0, float("inf"))
    ledger.admit(frame, 2.0, 10.0)
    assert (frame.attempt, frame.admitted_at, frame.expires_at) == (1, 2.0, 12.0)


def test_frames_are_counted_wherever_they_are() -> None:
    ledger = FrameLedger(5)
    ledger.refuse(offered(ledger, 0), Reason.RATE)
    ledger.answer(admitted(ledger, 1, label=3), 2, 3, 1.5)
    ledger.answer(admitted(ledger, 2, label=4), 5, 3, 2.5)
    ledger.fail(admitted(ledger, 3), Reason.NO_HOLDER)
    admitted(ledger, 4)
    offered(ledger, 5)
    counts = LedgerCounts(
        offered=6, admitted=4, refused=1, ok=2, failed=1, waiting=1, in_flight=1, labelled=2, correct=1
    )
    assert ledger.counts == counts
    assert counts.offered == counts.refused + counts.ok + counts.failed + counts.waiting + counts.in_flight
    assert ledger.exits == [0, 1, 0, 0, 1]


@pytest.mark.parametrize(
    "end_again",
    [
        lambda ledger, frame: ledger.answer(frame, 1, 0, 1.0),
        lambda ledger, frame: ledger.fail(frame, Reason.EXPIRED),
        lambda ledger, frame: ledger.refuse(frame, Reason.RATE),
    ],
)
def test_frame_cannot_end_twice(end_again: Callable[[FrameLedger, OpenFrame], None]) -> None:
    ledger = FrameLedger(5)
    frame = admitted(ledger, 0)
    ledger.answer(frame, 1, 0, 1.0)
    with pytest.raises(KeyError):
        end_again(ledger, frame)
    assert ledger.counts.ok == 1


def test_summary_accounts_for_everything() -> None:
    ledger = FrameLedger(5)
    ledger.refuse(offered(ledger, 0), Reason.STALE)
    ledger.refuse(offered(ledger, 1), Reason.RATE)
    ledger.answer(admitted(ledger, 2, label=1), 1, 1, 2.25)
    ledger.fail(admitted(ledger, 3), Reason.NO_ANSWER)
    summary = ledger.summary()
    assert summary["unaccounted"] == 0
    assert summary["refused"] == {"rate": 1, "stale": 1}
    assert summary["failed"] == {"no_answer": 1}
    assert summary["accuracy"] == 1.0
    assert summary["exits"] == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert summary["latency_ms"]["p50"] == pytest.approx(250.0, rel=0.011)


def test_open_frame_is_unaccounted_until_it_ends() -> None:
    ledger = FrameLedger(5)
    frame = admitted(ledger, 0)
    assert ledger.summary()["unaccounted"] == 1
    ledger.fail(frame, Reason.SHUTDOWN)
    assert ledger.summary()["unaccounted"] == 0


def test_accuracy_is_unknown_without_labels() -> None:
    ledger = FrameLedger(5)
    ledger.answer(admitted(ledger, 0), 1, 0, 1.0)
    assert ledger.summary()["accuracy"] is None
    assert ledger.summary()["labelled"] == 0


def test_summary_of_an_empty_ledger_is_all_zero() -> None:
    summary = FrameLedger(5).summary()
    assert (summary["offered"], summary["unaccounted"], summary["exits"]) == (0, 0, [0.0] * 5)


def test_closed_frames_take_no_memory() -> None:
    ledger = FrameLedger(5)
    for sequence in range(20_000):
        ledger.answer(admitted(ledger, sequence), 1, 0, sequence + 0.5)
    assert ledger.open == {}
    assert len(ledger.refused) + len(ledger.failed) + len(ledger.exits) == 5
    assert ledger.counts.ok == 20_000
