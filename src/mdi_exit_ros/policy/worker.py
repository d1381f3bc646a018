# SPDX-License-Identifier: Apache-2.0
"""What one worker decides. Knows no tensors, topics, clocks or threads."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable
from typing import assert_never

from mdi_exit_ros.policy.actions import (
    ChangeModel,
    Finished,
    Forget,
    LoadModel,
    LoadSegments,
    PublishWorkerReport,
    RunBatch,
    SendAnswers,
    SendTasks,
    Warn,
    WorkerAction,
)
from mdi_exit_ros.policy.answers import GatheredAnswers
from mdi_exit_ros.policy.credits import Inbound
from mdi_exit_ros.policy.early_exit import leaves_here
from mdi_exit_ros.policy.estimation import ServiceTimes
from mdi_exit_ros.policy.events import (
    AppliedPolicy,
    ModelLoaded,
    SegmentsLoaded,
    ServiceDone,
    ServiceFailed,
    Shutdown,
    SourceReport,
    StreamReport,
    TasksReceived,
    TasksRejected,
    Tick,
    WorkerCounters,
    WorkerEvent,
    WorkerReport,
)
from mdi_exit_ros.policy.inflow import Inflow
from mdi_exit_ros.policy.model_change import CHANGE_PATIENCE_S, PreparedModel
from mdi_exit_ros.policy.neighbourhood import Neighbour, Neighbourhood
from mdi_exit_ros.policy.offloader import Offloader
from mdi_exit_ros.policy.scheduling import goes_to_input
from mdi_exit_ros.policy.selection import PolicySelector
from mdi_exit_ros.policy.worker_setup import WorkerSetup
from mdi_exit_ros.policy.workload import Workload
from mdi_exit_ros.task import Answer, FrameId, Reason, State, Status, Task

DEFAULT_SMOOTHING = 0.2
_COUNTED_AS = {Status.REFUSED: "refused", Status.FAILED: "failed"}


class WorkerCore:
    """What one worker decides: exit, keep or move each task, and whom to give credit.

    `handle` takes one event and the local monotonic time (s) and returns actions in the order in
    which the shell performs them. At most one batch per lane is in service.
    """

    def __init__(self, setup: WorkerSetup, rng: random.Random) -> None:
        self.setup = setup
        self._settings = setup.settings
        self._now = 0.0
        self._backlog_s = 0.0
        self._loading: frozenset[int] = frozenset()
        self._next_model = PreparedModel(setup.model_id)
        self._leaves = False  # takes no more tasks of this model
        self._exit_thresholds = setup.exit_thresholds
        self._wanted: list[WorkerAction] = []
        self._workload = Workload(
            lanes=setup.lanes, batch_max=self._settings.batch_max, batch_wait_s=self._settings.batch_wait_s
        )
        self._held: dict[FrameId, tuple[Task, Inbound]] = {}
        self._neighbours = Neighbourhood(
            Neighbour(
                *(name, setup.me, setup.model_id, setup.input_nbytes),
                liveness_timeout_s=self._settings.liveness_timeout_s,
                stall_timeout_s=self._settings.stall_timeout_s,
            )
            for name in setup.neighbours
        )
        self._inflow = Inflow(setup)
        self._policies = PolicySelector()
        self._service = ServiceTimes()
        for measured in setup.service_times:
            self._service.expect(*measured, lanes=setup.lanes)
        self._offloader = Offloader(setup, self._workload, self._neighbours, self._inflow, self._service, rng)
        self._counts: Counter[str] = Counter()
        self._fit_room()
        self._state = State.RUNNING
        self._finished = False
        self._reported_at = float("-inf")
        self._answers = GatheredAnswers()
        self._gone: list[Task] = []
        self._warnings: list[Warn] = []

    # ---- the door --------------------------------------------------------------------------------------

    def handle(self, event: WorkerEvent, now: float) -> list[WorkerAction]:
        """Takes in one event at time `now` (s, never decreasing) and says what to do."""
        self._backlog_s += self._workload.total * (now - self._now)
        self._now = now
        opened: list[WorkerAction] = []
        match event:
            case TasksReceived():
                self._on_tasks(event, now)
            case TasksRejected():
                self._on_rejected(event, now)
            case ServiceDone():
                self._on_service_done(event, now)
            case ServiceFailed():
                self._on_service_failed(event)
            case SegmentsLoaded():
                self._on_segments_loaded(event, now)
            case ModelLoaded():
                self._next_model.loaded(event, now)
                self._reported_at = float("-inf")
            case WorkerReport():
                opened = self._on_worker_report(event, now)
            case SourceReport():
                self._on_source_report(event, now)
            case AppliedPolicy():
                self._on_policy(event, now)
            case Shutdown():
                self._on_shutdown()
            case Tick():
                pass
            case _:
                assert_never(event)
        self._move_tasks(now)
        started = self._start_service(now)
        served = [*opened, *self._flush(now), *started]
        self._inflow.settle()
        return [*served, *self._report(now), *self._end(now)]

    def next_deadline(self) -> float | None:
        """When the next Tick is due (s), if nothing happens before; None when finished."""
        if self._finished:
            return None
        reported_at = self._reported_at + self._status_interval_s
        return min(reported_at, self._answers.due_at, self._offloader.next_deadline())

    @property
    def policy(self) -> AppliedPolicy | None:
        """The policy in force."""
        return self._policies.current

    def wants(self, load: LoadModel) -> bool:
        """Whether what this asked for is still wanted."""
        return self._next_model.asked == load.model_id

    @property
    def held(self) -> int:
        """Tasks held, all queues and the running batch together."""
        return len(self._held)

    # ---- events ----------------------------------------------------------------------------------------

    def _on_tasks(self, event: TasksReceived, now: float) -> None:
        sender = event.sender
        if not event.tasks:
            fits = event.model_id == self.setup.model_id and event.receiver_incarnation == self.setup.me.incarnation
            if fits and self._state is State.RUNNING:
                self._inflow.open(sender, event.sent_total, now)
            return
        stream = self._inflow.stream(sender)
        if event.receiver_incarnation != self.setup.me.incarnation:
            self._ignore(event.tasks)
        elif event.model_id != self.setup.model_id or self._leaves:
            self._refuse(event.tasks, Reason.MODEL_MISMATCH)
        elif self._state is not State.RUNNING:
            self._refuse(event.tasks, Reason.SHUTDOWN)
        elif stream is None:
            self._refuse(event.tasks, Reason.NO_CREDIT)
        else:
            self._accept(event, stream, now)

    def _accept(self, event: TasksReceived, stream: Inbound, now: float) -> None:
        within = self._inflow.arrive(stream, event.sent_total, len(event.tasks), stamp=event.stamp, now=now)
        if within is None:
            self._gone.extend(task for task in event.tasks if not self._holds(task))
            return
        self._counts["received_total"] += len(event.tasks)
        self._refuse(event.tasks[within:], Reason.NO_CREDIT)
        is_new = self._inflow.peers.is_source(event.sender)  # what a neighbour moved here is run here
        for task in event.tasks[:within]:
            if self._supersedes(task):
                self._held[task.frame] = (task, stream)
                stream.held += 1
                self._place(task, now, offered=is_new)

    def _on_rejected(self, event: TasksRejected, now: float) -> None:
        if event.receiver_incarnation != self.setup.me.incarnation:
            self._ignore(event.tasks)
            return
        stream = self._inflow.stream(event.sender)
        if stream is None:
            # The frames may be in good hands elsewhere: a stranger's nonsense about them must not end them.
            self._ignore(event.tasks)
            return
        self._inflow.arrive(stream, event.sent_total, len(event.tasks), stamp=event.stamp, now=now)
        self._refuse(event.tasks, event.reason)

    def _on_service_done(self, event: ServiceDone, now: float) -> None:
        tasks = self._workload.end(event.lane)
        assert len(event.confidences) == len(event.class_ids) == len(tasks), "one of each per task of the batch"
        self._offloader.learn()
        segment = tasks[0].segment
        self._service.observe(segment, len(tasks), event.duration_s, self._smoothing, lanes=self.setup.lanes)
        self._counts["served"] += len(tasks)
        self._counts["batches"] += 1
        thresholds = self._thresholds
        for task, confidence, class_id in zip(tasks, event.confidences, event.class_ids, strict=True):
            if not self._holds(task):
                self._gone.append(task)
            elif segment == self.setup.num_segments and not math.isfinite(confidence):
                self._warn(f"nan:{segment}", f"segment {segment} gives confidence {confidence}: such frames fail")
                self._end_attempt(task, Status.FAILED, Reason.COMPUTE)
            elif leaves_here(segment, self.setup.num_segments, confidence, thresholds):
                self._counts["answered"] += 1
                answer = Answer(task.frame, task.attempt, Status.OK, Reason.NONE, segment, class_id, confidence)
                self._answers.add(task.frame.source, answer, now + self._settings.answer_wait_s)
                self._release(task)
            elif self._state is not State.RUNNING:
                self._end_attempt(task, Status.REFUSED, Reason.SHUTDOWN)
            else:
                following = task.following()
                self._held[task.frame] = (following, self._held[task.frame][1])
                self._place(following, now, offered=True)
        self._fit_room()

    def _fit_room(self) -> None:
        """Holds no more frames than can be run within `queue_wait_max_s`."""
        left = self._counts["answered"] + self._counts["moved"]
        tasks_per_frame = max(1.0, self._counts["served"] / left) if left else 1.0
        frame_s = self._service.mean_s * tasks_per_frame
        if frame_s > 0.0:
            self._inflow.resize(self._settings.queue_wait_max_s / frame_s)

    def _on_service_failed(self, event: ServiceFailed) -> None:
        self._offloader.learn()
        for task in self._workload.end(event.lane):
            if self._holds(task):
                self._end_attempt(task, Status.FAILED, Reason.COMPUTE)
            else:
                self._gone.append(task)

    def _on_worker_report(self, report: WorkerReport, now: float) -> list[WorkerAction]:
        name = report.worker.name
        if name == self.setup.me.name:
            if report.worker != self.setup.me:
                self._warn(
                    f"twin:{name}",
                    f"another worker is named {name}: give it another name, or its cluster another ROS_DOMAIN_ID",
                )
            return []
        if not self._inflow.hear_worker(report, self._segments, now):
            return []
        neighbour = self._neighbours.get(name)
        if neighbour is None:
            return []
        if neighbour.report is None or neighbour.report.segments != report.segments:
            neighbour.keep(report.segments, self._segments)
        opened = neighbour.hear(report, now)
        self._offloader.learn()
        if not neighbour.fits:
            if neighbour.is_foreign(now) and not self._is_model_asked_for:
                self._warn(
                    f"model:{name}",
                    f"{name} runs model {report.model_id}, this worker {self.setup.model_id}: "
                    "they exchange no tasks; start both with the same model",
                )
            return []
        if opened is None:
            outbound = neighbour.opens(now)
            return [SendTasks(outbound.receiver, outbound.sent, now, ())] if outbound is not None else []
        neighbour.measure(opened, now, self._smoothing)
        return []

    def _on_source_report(self, report: SourceReport, now: float) -> None:
        if report.state is State.STOPPING:
            self._inflow.forget_source(report.source.name)
        elif self._inflow.hear_source(report, now):
            self._answers.add(report.source, None, now)

    def _on_policy(self, policy: AppliedPolicy, now: float) -> None:
        if self._policies.hear(policy, now):
            self._warn(
                "controllers", "several controllers are alive: the highest priority counts, then the lowest name"
            )
        policy = self._policies.current or policy
        self._offloader.output_threshold = policy.output_threshold
        # Thresholds belong to a model: until this worker changes, its own hold.
        if policy.thresholds_model_id in ("", self.setup.model_id):
            self._exit_thresholds = policy.exit_thresholds
        if self._state is State.RUNNING and (load := self._next_model.ask(policy, self._segments, now)) is not None:
            self._wanted.append(load)
        self._follow_allocation(now)

    def _on_segments_loaded(self, event: SegmentsLoaded, now: float) -> None:
        self._loading -= frozenset(event.segments)
        if event.loaded:
            self._hold(self._segments | frozenset(event.segments), now)
            self._follow_allocation(now)

    def _follow_allocation(self, now: float) -> None:
        """Loads what the policy in force says that this worker shall hold, and drops the rest when that is final."""
        policy = self._policies.current
        wanted = dict(policy.allocation).get(self.setup.me.name) if policy is not None else None
        if wanted is None or policy is None or self._state is not State.RUNNING:
            return
        target = frozenset(wanted)
        missing = target - self._segments - self._loading
        if missing:
            self._loading |= missing
            self._wanted.append(LoadSegments(tuple(sorted(missing))))
        if policy.allocation_final and target < self._segments:
            self._hold(target, now)

    def _hold(self, segments: frozenset[int], now: float) -> None:
        """Holds `segments` from now on; waiting tasks of others have to move."""
        for segment in segments - self._segments:
            self._service.forget(segment)
        dropped, self._offloader.segments = self._segments - segments, segments
        waiting = self._workload.input
        for segment in dropped:
            for task in waiting.take(segment, len(waiting)):
                self._workload.output.append(task, now)
        for neighbour in self._neighbours:
            if neighbour.report is not None:
                neighbour.keep(neighbour.report.segments, segments)
        self._offloader.learn()
        self._reported_at = float("-inf")

    def _on_shutdown(self) -> None:
        self._state = State.STOPPING
        self._reported_at = float("-inf")
        for task in self._workload.drain():
            self._end_attempt(task, Status.REFUSED, Reason.SHUTDOWN)

    # ---- tasks -----------------------------------------------------------------------------------------

    def _holds(self, task: Task) -> bool:
        entry = self._held.get(task.frame)
        return entry is not None and entry[0].attempt == task.attempt

    def _supersedes(self, task: Task) -> bool:
        """Whether the task is new here; an older attempt at the same frame is dropped for it."""
        entry = self._held.get(task.frame)
        if entry is None:
            return True
        self._counts["superseded"] += 1
        older, stream = entry
        if older.attempt >= task.attempt:
            if older.attempt > task.attempt:
                self._gone.append(task)
            return False
        if self._workload.remove(older):
            self._gone.append(older)
        self._inflow.release(stream)
        del self._held[task.frame]
        return True

    def _place(self, task: Task, now: float, *, offered: bool) -> None:
        """Puts a task into I or O. A task that a neighbour moved here (`offered` false) is run here."""
        held = task.segment in self._segments
        stays = held and (not offered or not self._offloader.may_move(task.segment))
        if stays or goes_to_input(
            held=held,
            input_length=self._workload.load,
            output_length=len(self._workload.output),
            output_threshold=self._offloader.output_threshold,
        ):
            self._workload.input.append(task, now)
        else:
            self._workload.output.append(task, now)

    def _move_tasks(self, now: float) -> None:
        for task, reason in self._offloader.move(now):
            if reason is Reason.NONE:
                self._counts["moved"] += 1
                self._counts["moved_bytes"] += self.setup.input_nbytes[task.segment - 1]
                self._release(task)
            else:
                # Another worker may take what is only blocked here.
                status = Status.REFUSED if reason is Reason.BLOCKED else Status.FAILED
                self._end_attempt(task, status, reason)

    def _start_service(self, now: float) -> list[WorkerAction]:
        started: list[WorkerAction] = []
        while self._state is State.RUNNING and self._workload.has_free_lane:
            batch, expired = self._workload.next_batch(self._segments, now)
            for task in expired:
                self._end_attempt(task, Status.FAILED, Reason.EXPIRED)
            if not batch:
                break
            started.append(RunBatch(batch[0].segment, tuple(batch), self._workload.begin(batch, now)))
        return started

    # ---- answers ---------------------------------------------------------------------------------------

    def _end_attempt(self, task: Task, status: Status, reason: Reason) -> None:
        """Gives up a task that is held."""
        self._counts[_COUNTED_AS[status]] += 1
        self._answers.add(task.frame.source, Answer(task.frame, task.attempt, status, reason), self._now)
        self._release(task)

    def _refuse(self, tasks: Iterable[Task], reason: Reason) -> None:
        """Sends back tasks that were never taken in."""
        for task in tasks:
            self._counts["refused"] += 1
            self._answers.add(task.frame.source, Answer(task.frame, task.attempt, Status.REFUSED, reason), self._now)
            if not self._holds(task):
                self._gone.append(task)

    def _ignore(self, tasks: Iterable[Task]) -> None:
        """Drops tasks meant for another life: a namesake may be working on them, so no answer goes out from here."""
        for task in tasks:
            self._counts["refused"] += 1
            if not self._holds(task):
                self._gone.append(task)

    def _release(self, task: Task) -> None:
        _, stream = self._held.pop(task.frame)
        self._inflow.release(stream)
        self._gone.append(task)

    def _flush(self, now: float) -> list[WorkerAction]:
        """What has gathered: batches per receiver, answers per source, and then tensors to free."""
        actions: list[WorkerAction] = [*self._offloader.batches(now)]
        if now >= self._answers.due_at or (self._answers and not self._workload.running):
            # Answers take along the credit for which the source would otherwise wait until the next status.
            self._inflow.grant_to_sources(now)
            for source, answers in self._answers.take():
                received, credit = self._inflow.credit(source)
                actions.append(SendAnswers(source, tuple(answers), received, credit))
        if self._gone:
            actions.append(Forget(tuple(self._gone)))
        actions += [*self._wanted, *self._warnings]
        self._gone, self._wanted, self._warnings = [], [], []
        return actions

    # ---- telling others --------------------------------------------------------------------------------

    def _report(self, now: float) -> list[WorkerAction]:
        if self._finished or now < self._reported_at + self._status_interval_s:
            return []
        self._reported_at = now
        self._inflow.grant(now)
        segments = tuple(sorted(self._segments))
        return [
            PublishWorkerReport(
                WorkerReport(
                    worker=self.setup.me,
                    model_id=self.setup.model_id,
                    state=self._state,
                    segments=segments,
                    stamp=now,
                    input_queue=self._workload.load,
                    output_queue=len(self._workload.output),
                    service_time_s=self._service.mean_s,
                    segment_service_time_s=tuple(self._service.segment_s(segment) for segment in segments),
                    busy_s=self._workload.busy_s(now),
                    policy_version=self._policies.current.version if self._policies.current else 0,
                    counters=WorkerCounters(lost=self._inflow.lost, **self._counts),
                    streams=self._streams(now),
                    backlog_s=self._backlog_s,
                    prepared_model_id=self._next_model.prepared,
                )
            )
        ]

    @property
    def _status_interval_s(self) -> float:
        settings = self._settings
        return settings.status_interval_min_s if self._inflow.awaited else settings.status_interval_max_s

    def _streams(self, now: float) -> tuple[StreamReport, ...]:
        reports = self._inflow.reports(now)
        for neighbour in self._neighbours:
            outbound = neighbour.outbound
            if outbound is not None and outbound.sent:
                report = reports.get(outbound.receiver, StreamReport(outbound.receiver))
                reports[outbound.receiver] = neighbour.described(report)
        return tuple(reports.values())

    def _end(self, now: float) -> list[WorkerAction]:
        policy = self._policies.current
        due_s = self._next_model.due_s(policy, now)
        self._leaves = due_s is not None and due_s > CHANGE_PATIENCE_S
        if self._finished or self._workload.running:
            return []
        if self._state is not State.RUNNING:
            self._finished = True
            return [Finished()]
        if policy is None or due_s is None or self._held:
            return []
        slow = ", ".join(self._inflow.peers.need_model(self.setup.model_id, now))
        if slow and not self._leaves:
            return []
        self._finished = True
        change = ChangeModel(policy.model, policy.model_id)
        if not slow:
            return [change]
        text = f"changes to model {policy.model}; frames of {slow}, still of model {self.setup.model_id}, are refused"
        return [Warn(f"slow:{slow}", text), change]

    def _warn(self, key: str, text: str) -> None:
        self._warnings.append(Warn(key, text))

    # ---- policy in force -------------------------------------------------------------------------------

    @property
    def _segments(self) -> frozenset[int]:
        return self._offloader.segments

    @property
    def _thresholds(self) -> tuple[float, ...]:
        return self._exit_thresholds if self.setup.exits_enabled else ()

    @property
    def _is_model_asked_for(self) -> bool:
        """Whether the policy names a model: then nodes of different ones are on their way to it."""
        return self._policies.current is not None and self._policies.current.model_id != ""

    @property
    def _smoothing(self) -> float:
        policy = self._policies.current
        return policy.smoothing if policy is not None else DEFAULT_SMOOTHING
