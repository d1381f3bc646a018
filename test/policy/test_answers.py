# SPDX-License-Identifier: Apache-2.0
"""When gathered answers go out."""

from __future__ import annotations

import math

from literals import CAM, W2, task

from mdi_exit_ros.policy.answers import GatheredAnswers
from mdi_exit_ros.task import Answer, Reason, Status

ANSWER = Answer(task().frame, 1, Status.REFUSED, Reason.BLOCKED)


def test_answers_go_out_when_the_most_urgent_one_is_due() -> None:
    gathered = GatheredAnswers()
    assert (bool(gathered), gathered.due_at) == (False, math.inf)
    gathered.add(CAM, ANSWER, 2.0)
    gathered.add(W2, ANSWER, 1.0)
    gathered.add(CAM, ANSWER, 3.0)
    assert gathered.due_at == 1.0
    assert gathered.take() == [(CAM, [ANSWER, ANSWER]), (W2, [ANSWER])]
    assert (bool(gathered), gathered.due_at, gathered.take()) == (False, math.inf, [])


def test_stream_is_opened_by_a_message_without_answers() -> None:
    gathered = GatheredAnswers()
    gathered.add(CAM, None, 2.0)
    assert gathered
    assert gathered.take() == [(CAM, [])]


def test_stream_is_opened_though_answers_have_gathered() -> None:
    gathered = GatheredAnswers()
    gathered.add(CAM, ANSWER, 2.0)
    gathered.add(CAM, None, 3.0)
    assert gathered.take() == [(CAM, []), (CAM, [ANSWER])]
