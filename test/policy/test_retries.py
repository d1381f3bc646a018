# SPDX-License-Identifier: Apache-2.0
"""When attempts are looked at, and how many are made anew."""

from __future__ import annotations

import math

import pytest

from mdi_exit_ros.policy.ledger import FrameLedger, OpenFrame
from mdi_exit_ros.policy.retries import RETRY_PAUSE_S, SPARE_LOOKS, Retries
from mdi_exit_ros.policy.source_setup import SourceSettings

SETTINGS = SourceSettings(attempt_timeout_s=1.0, deadline_s=10.0, attempts_max=3, retry_share=0.0, retry_burst=1)


def admitted(ledger: FrameLedger, *sequences: int) -> list[OpenFrame]:
    frames = [ledger.offer(sequence, None, 0.0) for sequence in sequences]
    for frame in frames:
        ledger.admit(frame, 0.0, SETTINGS.deadline_s)
    return frames


def test_attempt_without_an_answer_is_made_anew_within_the_budget() -> None:
    ledger = FrameLedger(5)
    retries = Retries(SETTINGS, ledger)
    first, second = admitted(ledger, 0, 1)
    assert (retries.next_deadline(), retries.take()) == (math.inf, None)
    for frame in (first, second):
        retries.begin(frame, 0.0)
    assert (retries.next_deadline(), retries.look(1.0)) == (1.0, [])
    assert retries.take() is first
    assert (first.attempt, ledger.retries, retries.take()) == (2, 1, None)
    assert retries.next_deadline() == 1.0 + RETRY_PAUSE_S  # the second waits for the budget


def test_attempt_that_was_answered_meanwhile_is_not_made_anew() -> None:
    ledger = FrameLedger(5)
    retries = Retries(SETTINGS, ledger)
    (frame,) = admitted(ledger, 0)
    retries.begin(frame, 0.0)
    retries.look(1.0)
    ledger.answer(frame, 1, 0, 1.1)
    assert (retries.take(), ledger.retries) == (None, 0)


def test_frame_past_its_deadline_ends_once_however_often_it_is_due() -> None:
    ledger = FrameLedger(5)
    retries = Retries(SETTINGS, ledger)
    (frame,) = admitted(ledger, 0)
    for due in (9.0, 99.0, 999.0):
        retries.look_again(frame, due)
    assert retries.next_deadline() == 9.0
    assert retries.look(10.0) == [frame]


def test_memory_is_that_of_open_frames() -> None:
    ledger = FrameLedger(5)
    retries = Retries(SETTINGS, ledger)
    for sequence in range(5000):
        (frame,) = admitted(ledger, sequence)
        retries.look_again(frame, 600.0)
        if sequence:
            ledger.answer(frame, 1, 0, 0.1)
    assert len(retries._looks) <= 2 * len(ledger.open) + SPARE_LOOKS


def test_attempt_that_is_refused_again_and_again_is_looked_at_once() -> None:
    ledger = FrameLedger(5)
    retries = Retries(SETTINGS, ledger)
    (frame,) = admitted(ledger, 0)
    retries.begin(frame, 0.0)
    for _ in range(1000):
        retries.failed(frame, 0.0)
    assert len(retries._looks) == 2
    assert retries.next_deadline() == RETRY_PAUSE_S
    retries.look(RETRY_PAUSE_S)
    assert retries.take() is frame


def test_where_answers_take_long_they_are_waited_for_longer() -> None:
    ledger = FrameLedger(5)
    retries = Retries(SETTINGS, ledger)
    frames = admitted(ledger, *range(40))
    for frame in frames:
        retries.begin(frame, 0.0)
    retries.answered(frames[0], 0.8)
    assert retries.patience_s == 0.8 + 4.0 * 0.4  # RFC 6298, section 2.2
    assert (retries.look(1.0), retries.take()) == ([], None)  # begun when less was waited for
    assert retries.next_deadline() == retries.patience_s
    retries.answered(frames[1], 1.6)
    spread_s = 0.75 * 0.4 + 0.25 * 0.8  # section 2.3
    assert retries.patience_s == pytest.approx(0.9 + 4.0 * spread_s)
    retries.look(retries.patience_s)
    assert retries.take() is frames[0]
    for frame in frames[2:]:
        frame.began_at = 5.0
        retries.answered(frame, 5.01)
    assert retries.patience_s == SETTINGS.attempt_timeout_s


def test_answers_to_later_attempts_say_nothing_of_how_long_answers_take() -> None:
    ledger = FrameLedger(5)
    retries = Retries(SETTINGS, ledger)
    (frame,) = admitted(ledger, 0)
    frame.attempt = 2
    retries.begin(frame, 0.0)
    retries.answered(frame, 9.0)
    assert retries.patience_s == SETTINGS.attempt_timeout_s
