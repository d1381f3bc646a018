# SPDX-License-Identifier: Apache-2.0
"""What one camera source decides: which frames enter, which are tried again, and how each one ends."""

from __future__ import annotations

import dataclasses
from collections import deque
from itertools import islice
from typing import Any, Literal, assert_never

from mdi_exit_ros.policy.actions import (
    ChangeModel,
    CloseFrame,
    Finished,
    PublishSourceReport,
    SendTasks,
    SourceAction,
    Warn,
)
from mdi_exit_ros.policy.credits import Outbound
from mdi_exit_ros.policy.entries import Entries
from mdi_exit_ros.policy.estimation import smooth
from mdi_exit_ros.policy.events import (
    AnswersReceived,
    AppliedPolicy,
    FramesOffered,
    FrameUnreadable,
    InputEnded,
    Shutdown,
    SourceEvent,
    SourceReport,
    Tick,
    WorkerReport,
)
from mdi_exit_ros.policy.ledger import FrameLedger, OpenFrame
from mdi_exit_ros.policy.retries import Retries
from mdi_exit_ros.policy.selection import PolicySelector
from mdi_exit_ros.policy.source_setup import SourceSetup
from mdi_exit_ros.task import Answer, FrameId, Reason, State, Status, Task

CATCH_UP_S = 0.05  # lateness that admission makes up for; more is forgotten
OFFER_SMOOTHING = 0.1
BUSY_FRAMES = 8  # under way, from which newly admitted frames gather
ENOUGH_FRAMES = 16  # gathered, from which they are sent at once
_FINAL_REASONS = frozenset({Reason.EXPIRED, Reason.NO_HOLDER, Reason.BAD_INPUT})


class SourceCore:
    """What one camera source decides: admission, retries, and the one end of every offered frame.

    `handle` takes one event and the local monotonic time (s) and returns actions in the order in
    which the shell performs them.
    """

    def __init__(self, setup: SourceSetup) -> None:
        self.setup = setup
        self._settings = setup.settings
        self._ledger = FrameLedger(setup.num_segments)
        self._waiting: deque[OpenFrame] = deque()
        self._retries = Retries(self._settings, self._ledger)
        self._gathered: list[Task] = []  # attempts begun and not yet sent
        self._gathered_until = float("inf")
        self._entries = Entries(setup)
        self._policies = PolicySelector()
        self._drains = False  # admits nothing until the frames of the old model have ended
        self._worker_seen_at = 0.0
        self._next_admission_at = float("-inf")
        self._offered_at: float | None = None
        self._offered_interval_s = -1.0
        self._ended = False
        self._state = State.RUNNING
        self._finished = False
        self._reported_at = float("-inf")
        self._handled_at = float("-inf")
        self._actions: list[SourceAction] = []

    # ---- the door --------------------------------------------------------------------------------------

    def handle(self, event: SourceEvent, now: float) -> list[SourceAction]:
        """Takes in one event at time `now` (s, never decreasing) and says what to do."""
        if self._handled_at == float("-inf"):
            self._worker_seen_at = now
            self._entries.begin(now)
        self._handled_at = now
        match event:
            case FramesOffered():
                self._on_offered(event, now)
            case FrameUnreadable():
                self._close(self._ledger.offer(event.sequence, None, now), Status.REFUSED, Reason.UNREADABLE, now)
            case AnswersReceived():
                self._on_answers(event, now)
            case InputEnded():
                self._ended = True
            case WorkerReport():
                self._on_worker_report(event, now)
            case AppliedPolicy():
                interval_before = self._interval_s
                several = self._policies.hear(event, now)
                # The next frame is due by the new interval, not when the old one ends.
                self._next_admission_at += self._interval_s - interval_before
                if several:
                    self._warn(
                        "controllers",
                        "several controllers are alive: the highest priority counts, then the lowest name",
                    )
            case Shutdown():
                self._on_shutdown(now)
            case Tick():
                pass
            case _:
                assert_never(event)
        self._expire(now)
        self._follow_model(now)
        self._admit(now)
        self._drop(now)
        self._end()
        self._report(now)
        actions, self._actions = self._actions, []
        return actions

    def next_deadline(self) -> float | None:
        """When the next Tick is due (s), if nothing happens before; None when finished."""
        if self._finished:
            return None
        deadline = min(self._reported_at + self._settings.status_interval_s, self._retries.next_deadline())
        if self._gathered and self._gathered_until > self._handled_at:
            deadline = min(deadline, self._gathered_until)
        if self._waiting and self._next_admission_at > self._handled_at:
            deadline = min(deadline, self._next_admission_at)
        return deadline

    @property
    def room(self) -> int:
        """Frames that may be offered now without one being refused for it.

        None before a worker first gives credit: a finite input can wait, and its first frames should not look slow
        because the cluster was still starting. After `worker_timeout_s` they are asked for, to be refused.
        """
        if not self._settings.drop and self.is_early:
            return 0
        return max(0, self._settings.waiting_max - len(self._waiting))

    @property
    def is_early(self) -> bool:
        """Whether the cluster is still starting: no worker has given credit yet, and none is given up."""
        if self._ledger.admitted or self._handled_at > self._worker_seen_at + self._settings.worker_timeout_s:
            return False
        outbound = self._entries.target(self._handled_at)
        return outbound is None or not outbound.available

    @property
    def home(self) -> str:
        """The worker that admitted frames enter now."""
        return self._entries.home

    def summary(self) -> dict[str, Any]:
        """The ledger's part of the JSON summary."""
        return self._ledger.summary()

    def waiting_for(self, now: float) -> str | None:
        """What keeps waiting frames from being admitted, in words for the user; None when nothing does."""
        if not self._waiting and (self._settings.drop or not self.is_early):
            return None
        if self._drains:
            return "the last frames of the old model"
        outbound = self._entries.target(now)
        if outbound is None:
            home = self._entries.home
            return f"{home} to answer again" if self._entries.is_heard(home) else f"a first status of {home}"
        return None if outbound.available else f"credit from {outbound.receiver.name}"

    # ---- events ----------------------------------------------------------------------------------------

    def _on_offered(self, event: FramesOffered, now: float) -> None:
        if self._offered_at is not None:
            interval = (now - self._offered_at) / len(event.labels)
            self._offered_interval_s = smooth(self._offered_interval_s, interval, OFFER_SMOOTHING)
        self._offered_at = now
        for sequence, label in enumerate(event.labels, event.sequence):
            frame = self._ledger.offer(sequence, label, now)
            if self._state is State.RUNNING:
                self._waiting.append(frame)
            else:
                self._close(frame, Status.REFUSED, Reason.SHUTDOWN, now)

    def _on_answers(self, event: AnswersReceived, now: float) -> None:
        if event.source != self.setup.me:
            return
        if not event.answers and self._entries.hears(event.worker, now):
            self._reported_at = float("-inf")  # the worker waits for this
        self._entries.acknowledged(event)
        for answer in event.answers:
            self._on_answer(answer, event.worker.name, now)

    def _on_answer(self, answer: Answer, worker: str, now: float) -> None:
        frame = self._ledger.open.get(answer.frame.sequence)
        if frame is None or frame.attempt == 0:
            self._ledger.duplicates += 1
        elif answer.status is Status.OK:
            self._retries.answered(frame, now)
            self._ledger.answer(frame, answer.exit, answer.class_id, now)
            self._actions.append(
                CloseFrame(
                    *(frame.sequence, Status.OK, Reason.NONE, answer.exit, answer.class_id, frame.attempt),
                    *(now - frame.offered_at, worker, answer.confidence),
                )
            )
        elif answer.attempt == frame.attempt:
            frame.reason = answer.reason
            if answer.reason in _FINAL_REASONS or frame.attempt >= self._settings.attempts_max:
                self._close(frame, Status.FAILED, answer.reason, now)
            else:
                self._retries.failed(frame, now)

    def _on_worker_report(self, report: WorkerReport, now: float) -> None:
        entry = self._entries.hear(report, now)
        if entry is None:
            return
        if not entry.fits:
            asked_for = self._policies.current is not None and self._policies.current.model_id != ""
            if entry.is_foreign(now) and not asked_for:
                self._warn(
                    f"model:{report.worker.name}",
                    f"{report.worker.name} runs model {report.model_id}, this source expects {self.setup.model_id}: "
                    "no frames are sent to it; start both with the same model",
                )
        elif not entry.is_open and not self._finished and (outbound := entry.opens(now)) is not None:
            self._actions.append(SendTasks(outbound.receiver, outbound.sent, now, ()))

    def _on_shutdown(self, now: float) -> None:
        self._state = State.STOPPING
        self._ended = True
        for frame in list(self._ledger.open.values()):
            self._close(frame, Status.REFUSED if frame.attempt == 0 else Status.FAILED, Reason.SHUTDOWN, now)
        self._waiting.clear()

    # ---- admission and retries ---------------------------------------------------------------------------

    def _follow_model(self, now: float) -> None:
        """Changes to the model that the policy names, once the frames of the old one have ended."""
        policy = self._policies.current
        self._drains = policy is not None and policy.model_final and policy.model_id not in ("", self.setup.model_id)
        if policy is None or not self._drains or self._ledger.in_flight or self._finished:
            return
        self.setup = dataclasses.replace(self.setup, model_id=policy.model_id)
        self._entries.expect(policy.model_id)
        self._drains = False
        self._worker_seen_at = now
        self._reported_at = float("-inf")  # the workers wait for this
        self._actions.append(ChangeModel(policy.model, policy.model_id))

    def _admit(self, now: float) -> None:
        outbound = self._entries.target(now)
        # A worker that never gives credit is none: frames would wait for it for ever.
        if outbound is not None and (outbound.available or self._ledger.in_flight):
            self._worker_seen_at = now
        elif now > self._worker_seen_at + self._settings.worker_timeout_s:
            while self._waiting:
                self._close(self._waiting.popleft(), Status.REFUSED, Reason.NO_WORKER, now)
        if outbound is None:
            return
        room = outbound.available
        while len(self._gathered) < room and (retried := self._retries.take()) is not None:
            self._gather(retried, now)
        interval = self._interval_s
        while (
            self._waiting
            and not self._drains
            and len(self._gathered) < room
            and now >= self._next_admission_at
            and self._ledger.in_flight < self._settings.in_flight_max
        ):
            frame = self._waiting.popleft()
            self._next_admission_at = max(self._next_admission_at, now - CATCH_UP_S) + interval
            self._ledger.admit(frame, now, self._settings.deadline_s)
            self._gather(frame, now)
        self._send(outbound, now)

    def _send(self, outbound: Outbound, now: float) -> None:
        """Sends what has gathered, when it is enough, has waited long enough, or nothing else is under way."""
        under_way = self._ledger.in_flight - len(self._gathered)
        if now < self._gathered_until and under_way >= BUSY_FRAMES and len(self._gathered) < ENOUGH_FRAMES:
            return
        still_open = (task for task in self._gathered if self._is_open(task))
        while batch := tuple(islice(still_open, min(self._settings.send_batch_max, outbound.available))):
            outbound.sent += len(batch)
            self._actions.append(SendTasks(outbound.receiver, outbound.sent, now, batch))
        self._gathered = list(still_open)  # left where the credit is of another worker than when they gathered
        self._gathered_until = now

    def _is_open(self, task: Task) -> bool:
        """Whether the task is the newest attempt at a frame that has no end yet."""
        frame = self._ledger.open.get(task.frame.sequence)
        return frame is not None and frame.attempt == task.attempt

    def _gather(self, frame: OpenFrame, now: float) -> None:
        if not self._gathered:
            self._gathered_until = now + self._settings.send_wait_s
        self._gathered.append(self._start(frame, now))

    def _start(self, frame: OpenFrame, now: float) -> Task:
        self._retries.begin(frame, now)
        name = FrameId(self.setup.me, frame.sequence)
        return Task(name, frame.attempt, 1, frame.admitted_at, frame.expires_at, self._settings.priority)

    @property
    def _interval_s(self) -> float:
        policy = self._policies.current
        return policy.interval_for(self.setup.me.name) if policy is not None else self.setup.admission_interval_s

    def _expire(self, now: float) -> None:
        for frame in self._retries.look(now):
            self._close(frame, Status.FAILED, frame.reason, now)

    def _drop(self, now: float) -> None:
        """Newest wins: the oldest frame that waits is refused. An input that asks for `room` never comes to that."""
        while len(self._waiting) > self._settings.waiting_max:
            reason = Reason.RATE if now < self._next_admission_at else Reason.STALE
            self._close(self._waiting.popleft(), Status.REFUSED, reason, now)

    def _close(
        self, frame: OpenFrame, status: Literal[Status.REFUSED, Status.FAILED], reason: Reason, now: float
    ) -> None:
        """Ends a frame without an answer."""
        if status is Status.REFUSED:
            self._ledger.refuse(frame, reason)
        else:
            self._ledger.fail(frame, reason)
        self._actions.append(CloseFrame(frame.sequence, status, reason, 0, 0, frame.attempt, now - frame.offered_at))

    # ---- telling others --------------------------------------------------------------------------------

    def _end(self) -> None:
        if self._ended and not self._ledger.open and not self._finished:
            self._state = State.STOPPING
            self._finished = True
            self._reported_at = float("-inf")
            self._actions.append(Finished())

    def _report(self, now: float) -> None:
        if now < self._reported_at + self._settings.status_interval_s:
            return
        self._reported_at = now
        outbound = self._entries.target(now)
        starved = outbound is None or not outbound.available
        report = SourceReport(
            source=self.setup.me,
            model_id=self.setup.model_id,
            state=self._state,
            stamp=now,
            home=self._entries.home,
            counts=self._ledger.counts,
            exits=tuple(self._ledger.exits),
            refused_reasons=tuple((reason.label, count) for reason, count in sorted(self._ledger.refused.items())),
            failed_reasons=tuple((reason.label, count) for reason, count in sorted(self._ledger.failed.items())),
            total=self.setup.total,
            waiting_for_credit=len(self._waiting) if starved and now >= self._next_admission_at else 0,
            offered_interval_s=max(0.0, self._offered_interval_s),
            latency_ms=self._ledger.latency_ms(),
            policy_version=self._policies.current.version if self._policies.current else 0,
            streams=self._entries.streams(now),
        )
        # The report of the end goes out before Finished, after which the shell may stop.
        self._actions.insert(len(self._actions) - self._finished, PublishSourceReport(report))

    def _warn(self, key: str, text: str) -> None:
        self._actions.append(Warn(key, text))
