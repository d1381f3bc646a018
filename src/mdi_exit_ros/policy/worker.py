# SPDX-License-Identifier: Apache-2.0
"""What one worker decides. Knows no tensors, topics, clocks or threads."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from collections.abc import Iterable
from typing import assert_never

from mdi_exit_ros.parameter import parameter
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
from mdi_exit_ros.policy.credits import Arrival, CreditPool, Inbound
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
from mdi_exit_ros.policy.model_change import CHANGE_PATIENCE_S, PreparedModel
from mdi_exit_ros.policy.neighbourhood import Neighbour, Neighbourhood
from mdi_exit_ros.policy.offloading import moves
from mdi_exit_ros.policy.peers import FORGET_PEER_S, Peer, Peers
from mdi_exit_ros.policy.scheduling import Service, TaskQueue, Waiting, goes_to_input, lane_share
from mdi_exit_ros.policy.selection import PolicySelector
from mdi_exit_ros.task import Answer, FrameId, PeerId, Reason, State, Status, Strategy, Task

GROUP_FACTOR = 3.0  # O_n to I_m from which a group of tasks moves
GROUP_WORTH = 0.4  # own time for a small group, as a share of D_nm, from which it moves
STRANDED = 10.0  # wait of the oldest task, in times of D_nm, from which any group moves
DEFAULT_OUTPUT_THRESHOLD = 24
DEFAULT_SMOOTHING = 0.2
_COUNTED_AS = {Status.REFUSED: "refused", Status.FAILED: "failed"}


@dataclasses.dataclass(frozen=True)
class WorkerSettings:
    """Settings of a worker that users may choose at start."""

    queue_capacity: int = parameter(
        192,
        "most tasks held at once, all queues together; half may come from sources",
        unit="frames",
        low=8,
        high=4096,
    )
    batch_max: int = parameter(32, "most tasks run in one batch", unit="frames", low=1, high=256)
    batch_wait_s: float = parameter(
        0.02, "how long tasks may wait while other segments make fuller batches", unit="s", low=0.0, high=1.0
    )
    group_min: int = parameter(
        8,
        "tasks of a segment that are worth a message to a neighbour, however far",
        unit="frames",
        low=1,
        high=256,
    )
    answer_wait_s: float = parameter(
        0.01, "how long a busy worker gathers answers for one message", unit="s", low=0.0, high=1.0
    )
    status_interval_min_s: float = parameter(
        0.02, "shortest time between two statuses, when others wait for one", unit="s", low=0.001, high=1.0
    )
    status_interval_max_s: float = parameter(
        0.1, "longest time between two statuses: the sign of life", unit="s", low=0.01, high=10.0
    )
    liveness_timeout_s: float = parameter(
        1.5, "age of a peer's newest status beyond which it counts as dead", unit="s", low=0.1, high=60.0
    )
    stall_timeout_s: float = parameter(
        10.0, "time in one batch beyond which a worker counts as stuck and gets no tasks", unit="s", low=0.5, high=600.0
    )
    move_timeout_s: float = parameter(
        1.0, "how long a task that cannot run here waits for a holder with credit", unit="s", low=0.05, high=60.0
    )


@dataclasses.dataclass(frozen=True)
class WorkerSetup:
    """What a worker is: identity, model and place in the topology. Filled by the node from plan and model card.

    Attributes:
        me: name and incarnation of this life.
        model_id: content hash of partition and weights.
        num_segments: K.
        segments: segments held at first, 1..K.
        input_nbytes: bytes per frame of the input of segment 1..K, as sent.
        neighbours: names of the workers that share an edge with this one.
        strategy: which tasks may move.
        exits_enabled: whether frames may leave before exit K.
        exit_thresholds: T_e^1..T_e^(K-1) until a controller is heard.
        service_times: segment, batch size and seconds of runs on one lane measured before, from the smallest batch to
            the largest.
        lanes: threads that each run batches of their own.
    """

    me: PeerId
    model_id: str
    num_segments: int
    segments: frozenset[int]
    input_nbytes: tuple[int, ...]
    neighbours: tuple[str, ...]
    strategy: Strategy
    exits_enabled: bool
    exit_thresholds: tuple[float, ...]
    settings: WorkerSettings = WorkerSettings()
    service_times: tuple[tuple[int, int, float], ...] = ()
    lanes: int = 1


class WorkerCore:
    """What one worker decides: exit, keep or move each task, and whom to give credit.

    `handle` takes one event and the local monotonic time (s) and returns actions in the order in
    which the shell performs them. At most one batch per lane is in service.
    """

    def __init__(self, setup: WorkerSetup, rng: random.Random) -> None:
        self.setup = setup
        self._settings = setup.settings
        self._rng = rng
        self._now = 0.0
        self._backlog_s = 0.0
        self._segments = setup.segments
        self._loading: frozenset[int] = frozenset()
        self._next_model = PreparedModel(setup.model_id)
        self._leaves = False  # takes no more tasks of this model
        self._exit_thresholds = setup.exit_thresholds
        self._wanted: list[WorkerAction] = []
        self._movable = frozenset(filter(setup.strategy.may_move, range(1, setup.num_segments + 1)))
        self._input = TaskQueue()
        self._output = TaskQueue()
        self._running: dict[int, Service] = {}  # by lane
        self._in_service = 0
        self._held: dict[FrameId, tuple[Task, Inbound]] = {}
        self._neighbours = Neighbourhood(
            Neighbour(
                *(name, setup.me, setup.model_id, setup.input_nbytes),
                liveness_timeout_s=self._settings.liveness_timeout_s,
                stall_timeout_s=self._settings.stall_timeout_s,
            )
            for name in setup.neighbours
        )
        source_room = self._settings.queue_capacity // 2
        self._from_sources = CreditPool(source_room)
        self._from_workers = CreditPool(self._settings.queue_capacity - source_room)
        self._peers = Peers(setup.me, setup.neighbours, self._settings.liveness_timeout_s)
        self._policies = PolicySelector()
        self._service = ServiceTimes()
        for measured in setup.service_times:
            self._service.expect(*measured, lanes=setup.lanes)
        self._counts: Counter[str] = Counter()
        self._information = 0  # grows with every status heard and service ended
        self._tossed: dict[int, int] = {}  # segment -> information at which its head lost the toss
        self._too_few: dict[int, tuple[int, int]] = {}  # segment -> information and tasks that were no group
        self._state = State.RUNNING
        self._finished = False
        self._reported_at = float("-inf")
        self._awaited = True  # a sender is likely to wait for the next report, as its credit is low
        self._touched: list[Inbound] = []  # streams whose room has changed in this step
        self._outgoing: dict[str, dict[tuple[int, PeerId], list[Task]]] = {}
        self._answers: dict[PeerId, list[Answer]] = {}
        self._answers_due_at = float("inf")
        self._gone: list[Task] = []
        self._warnings: list[Warn] = []

    # ---- the door --------------------------------------------------------------------------------------

    def handle(self, event: WorkerEvent, now: float) -> list[WorkerAction]:
        """Takes in one event at time `now` (s, never decreasing) and says what to do."""
        self._backlog_s += (self._load + len(self._output)) * (now - self._now)
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
                self._next_model.loaded(event)
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
        self._awaited |= any(stream.is_low for stream in self._touched)
        self._touched.clear()
        return [*served, *self._report(now), *self._end(now)]

    def next_deadline(self) -> float | None:
        """When the next Tick is due (s), if nothing happens before; None when finished."""
        if self._finished:
            return None
        deadline = min(self._reported_at + self._status_interval_s, self._answers_due_at)
        for segment in self._output.segments():
            head = self._output.head(segment)
            if segment not in self._segments and head is not None:
                deadline = min(deadline, head.since + self._settings.move_timeout_s)
        return deadline

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
        is_source = self._peers.is_source(sender)
        pool = self._from_sources if is_source else self._from_workers
        if not event.tasks:
            fits = event.model_id == self.setup.model_id and event.receiver_incarnation == self.setup.me.incarnation
            if fits and self._state is State.RUNNING and self._peers.is_answerable(sender, now):
                pool.open(sender, event.sent_total, now)
                self._awaited = True
            return
        stream = pool.streams.get(sender.name)
        if event.receiver_incarnation != self.setup.me.incarnation:
            self._ignore(event.tasks)
        elif event.model_id != self.setup.model_id or self._leaves:
            self._refuse(event.tasks, Reason.MODEL_MISMATCH)
        elif self._state is not State.RUNNING:
            self._refuse(event.tasks, Reason.SHUTDOWN)
        elif stream is None or stream.sender != sender:
            self._refuse(event.tasks, Reason.NO_CREDIT)
        else:
            self._accept(event, stream, now, from_source=is_source)

    def _accept(self, event: TasksReceived, stream: Inbound, now: float, *, from_source: bool) -> None:
        lost_before = stream.lost
        within = max(0, len(event.tasks) - max(0, event.sent_total - stream.limit))
        if stream.arrive(event.sent_total, len(event.tasks)) is Arrival.DUPLICATE:
            self._gone.extend(task for task in event.tasks if not self._holds(task))
            return
        stream.heard_at = stream.stamp_at = now
        stream.stamp = event.stamp
        self._counts["received_total"] += len(event.tasks)
        self._counts["lost"] += stream.lost - lost_before
        self._refuse(event.tasks[within:], Reason.NO_CREDIT)
        for task in event.tasks[:within]:
            if self._supersedes(task):
                self._held[task.frame] = (task, stream)
                stream.held += 1
                self._place(task, now, offered=from_source)
        self._touched.append(stream)

    def _on_rejected(self, event: TasksRejected, now: float) -> None:
        if event.receiver_incarnation != self.setup.me.incarnation:
            self._ignore(event.tasks)
            return
        stream = self._from_sources.streams.get(event.sender.name) or self._from_workers.streams.get(event.sender.name)
        if stream is None or stream.sender != event.sender:
            # The frames may be in good hands elsewhere: a stranger's nonsense about them must not end them.
            self._ignore(event.tasks)
            return
        stream.arrive(event.sent_total, len(event.tasks))
        stream.heard_at = stream.stamp_at = now
        stream.stamp = event.stamp
        self._touched.append(stream)
        self._refuse(event.tasks, event.reason)

    def _on_service_done(self, event: ServiceDone, now: float) -> None:
        tasks = self._end_service(event.lane)
        assert len(event.confidences) == len(event.class_ids) == len(tasks), "one of each per task of the batch"
        self._information += 1
        segment = tasks[0].segment
        self._service.observe(segment, len(tasks), event.duration_s, self._smoothing, lanes=self.setup.lanes)
        self._counts["served"] += len(tasks)
        self._counts["batches"] += 1
        thresholds = self._thresholds
        for task, confidence, class_id in zip(tasks, event.confidences, event.class_ids, strict=True):
            if not self._holds(task):
                self._gone.append(task)
            elif leaves_here(segment, self.setup.num_segments, confidence, thresholds):
                self._counts["answered"] += 1
                answer = Answer(task.frame, task.attempt, Status.OK, Reason.NONE, segment, class_id, confidence)
                self._tell(task.frame.source, answer, now + self._settings.answer_wait_s)
                self._release(task)
            elif self._state is not State.RUNNING:
                self._end_attempt(task, Status.REFUSED, Reason.SHUTDOWN)
            else:
                following = task.following()
                self._held[task.frame] = (following, self._held[task.frame][1])
                self._place(following, now, offered=True)

    def _on_service_failed(self, event: ServiceFailed) -> None:
        self._information += 1
        for task in self._end_service(event.lane):
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
        if self._peers.hear_worker(report.worker, report.stamp, now) is None:
            return []
        mine = next((stream for stream in report.streams if stream.peer == self.setup.me), None)
        stream = self._from_workers.streams.get(name)
        if stream is not None:
            stream.reserved = max(1, len(self._segments.difference(report.segments)))
        self._hear_stream(stream, report.worker, mine, now)
        neighbour = self._neighbours.get(name)
        if neighbour is None:
            return []
        if neighbour.report is None or neighbour.report.segments != report.segments:
            neighbour.keep(report.segments, self._segments)
        opened = neighbour.hear(report, now)
        self._information += 1
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
        if opened.echo_stamp >= neighbour.measured_from:
            neighbour.delay.status_echoed(now - opened.echo_stamp - opened.echo_hold_s, self._smoothing)
        if opened.batch_echo_stamp >= neighbour.measured_from:
            trip = now - opened.batch_echo_stamp - opened.batch_echo_hold_s
            neighbour.delay.batch_echoed(opened.batch_echo_stamp, trip, self._smoothing)
        neighbour.measured()
        return []

    def _on_source_report(self, report: SourceReport, now: float) -> None:
        name = report.source.name
        if report.state is State.STOPPING:
            self._from_sources.close(name)
            self._peers.sources.pop(name, None)
            return
        source = self._peers.hear_source(report.source, report.stamp, now)
        if source is None:
            return
        source.model_id = report.model_id
        heard_before, source.hears = source.hears, frozenset(each.peer for each in report.streams if each.open)
        if self.setup.me not in source.hears:
            self._tell(report.source, None, now)
            if self.setup.me in heard_before:
                self._from_sources.close(name)
                self._awaited = True
        mine = next((stream for stream in report.streams if stream.peer == self.setup.me), None)
        self._hear_stream(self._from_sources.streams.get(name), report.source, mine, now)

    def _hear_stream(self, stream: Inbound | None, sender: PeerId, mine: StreamReport | None, now: float) -> None:
        if stream is None or stream.sender != sender:
            return
        stream.heard_at = now
        if mine is not None:
            lost_before = stream.lost
            stream.announced(mine.sent, now, self._settings.liveness_timeout_s)
            self._counts["lost"] += stream.lost - lost_before

    def _on_policy(self, policy: AppliedPolicy, now: float) -> None:
        if self._policies.hear(policy, now):
            self._warn(
                "controllers", "several controllers are alive: the highest priority counts, then the lowest name"
            )
        policy = self._policies.current or policy
        # Thresholds belong to a model: until this worker changes, its own hold.
        if policy.thresholds_model_id in ("", self.setup.model_id):
            self._exit_thresholds = policy.exit_thresholds
        if self._state is State.RUNNING and (load := self._next_model.ask(policy, self._segments)) is not None:
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
        dropped, self._segments = self._segments - segments, segments
        for segment in dropped:
            for task in self._input.take(segment, len(self._input)):
                self._output.append(task, now)
        for neighbour in self._neighbours:
            if neighbour.report is not None:
                neighbour.keep(neighbour.report.segments, segments)
        self._information += 1
        self._reported_at = float("-inf")

    def _on_shutdown(self) -> None:
        self._state = State.STOPPING
        self._reported_at = float("-inf")
        for queue in (self._input, self._output):
            for segment in queue.segments():
                for task in queue.take(segment, len(queue)):
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
        self._input.remove(task.frame)
        self._output.remove(task.frame)
        if not any(older in service.tasks for service in self._running.values()):
            self._gone.append(older)
        stream.held -= 1
        del self._held[task.frame]
        return True

    def _place(self, task: Task, now: float, *, offered: bool) -> None:
        """Puts a task into I or O. A task that a neighbour moved here (`offered` false) is run here."""
        held = task.segment in self._segments
        stays = held and (not offered or task.segment not in self._movable)
        if stays or goes_to_input(
            held=held,
            input_length=self._load,
            output_length=len(self._output),
            output_threshold=self._output_threshold,
        ):
            self._input.append(task, now)
        else:
            self._output.append(task, now)

    def _move_tasks(self, now: float) -> None:
        """Offloads from O: per segment the oldest tasks, until one may not or does not move."""
        for segment in self._output.segments():
            if self._is_due(segment, now):
                self._move_segment(segment, now)

    def _move_segment(self, segment: int, now: float) -> None:
        held = segment in self._segments
        delays: list[float] | None = None
        while (head := self._output.head(segment)) is not None:
            if head.task.expires_at <= now:
                self._end_attempt(self._output.pop(segment), Status.FAILED, Reason.EXPIRED)
                continue
            if held and not self._tosses(segment):
                return
            if delays is None:
                longest = self._longest(held=held, begun=bool(self._outgoing))
                delays = self._neighbours.delays_s(segment, now, longest)
            index = self._soonest(delays, segment, held=held)
            if index is not None:
                neighbour = self._neighbours[index]
                if held and not self._pays(head, neighbour, now):
                    self._too_few[segment] = (self._information, self._output.count(segment))
                    return
                if held and not moves(self._load * self._service.mean_s, delays[index], self._rng):
                    self._tossed[segment] = self._information
                    return
                self._send(neighbour, self._output.pop(segment))
                delays[index] = neighbour.delay_s(segment)
            elif not held and now >= head.since + self._settings.move_timeout_s:
                task = self._output.pop(segment)
                if any(each.holds(segment) and each.ready(now) for each in self._neighbours):
                    self._end_attempt(task, Status.REFUSED, Reason.BLOCKED)
                else:
                    self._end_attempt(task, Status.FAILED, Reason.NO_HOLDER)
            else:
                return

    def _soonest(self, delays: list[float], segment: int, *, held: bool) -> int | None:
        """Index of the neighbour that the oldest task of `segment` may go to with the smallest of the delays.

        Who may not take it is struck out: O only gets shorter and queues longer, so that holds for this step.
        """
        while (least := min(delays, default=math.inf)) < math.inf:
            index = delays.index(least)
            neighbour = self._neighbours[index]
            longest = self._longest(held=held, begun=neighbour.name in self._outgoing)
            if neighbour.queued < longest and neighbour.may_take(segment):
                return index
            delays[index] = math.inf
        return None

    def _longest(self, *, held: bool, begun: bool) -> float:
        """Length of a neighbour's queue I_m from which it gets no task: that of O_n, if the task could run here.

        Messages cost, so such tasks move in groups: one is begun only where it can at least double what the neighbour
        has to run, which is when O_n is three times I_m.
        """
        if not held:
            return math.inf
        return len(self._output) if begun else len(self._output) / GROUP_FACTOR

    def _pays(self, head: Waiting, neighbour: Neighbour, now: float) -> bool:
        """Whether as many tasks as the head, which could run here, may go to the neighbour as are worth a message.

        A message costs both sides much the same however many tasks it brings. Fewer than `group_min` (or than a good
        part of what T_O and the room here let wait) are worth it where running them here would take a good part of the
        time that the way there takes, or where that time has gone by several times.
        """
        segment = head.task.segment
        if (segment, head.task.frame.source) in self._outgoing.get(neighbour.name, ()):
            return True
        way_s = neighbour.transfer_s[segment - 1]
        group = self._output.count(segment)
        most = max(1, min(self._output_threshold // 2, self._settings.queue_capacity // 8))
        return (
            group >= min(self._settings.group_min, most)
            or group * self._service.mean_s >= GROUP_WORTH * way_s
            or now - head.since >= STRANDED * way_s
        )

    def _is_due(self, segment: int, now: float) -> bool:
        """Whether anything can become of the oldest task of `segment` in O now."""
        head = self._output.head(segment)
        assert head is not None
        if segment not in self._segments or head.task.expires_at <= now:
            return True
        return self._tosses(segment) and self._too_few.get(segment) != (self._information, self._output.count(segment))

    def _tosses(self, segment: int) -> bool:
        """Whether a task that can run here may be tossed for: once per new information."""
        return segment in self._movable and self._tossed.get(segment) != self._information

    def _send(self, neighbour: Neighbour, task: Task) -> None:
        neighbour.send(self._now)
        groups = self._outgoing.setdefault(neighbour.name, {})
        groups.setdefault((task.segment, task.frame.source), []).append(task)
        self._release(task)
        self._counts["moved"] += 1
        self._counts["moved_bytes"] += self.setup.input_nbytes[task.segment - 1]

    def _start_service(self, now: float) -> list[WorkerAction]:
        """Runs the segment that makes the fullest batch, of tasks in I and, without a better place, in O.

        A task that has waited for `batch_wait_s` has its segment run first, the oldest of such before all others. While
        tasks of a higher priority wait, only their segments count.
        """
        started: list[WorkerAction] = []
        while self._state is State.RUNNING and len(self._running) < self.setup.lanes:
            batch = self._choose_batch(now)
            if not batch:
                break
            lane = next(lane for lane in range(self.setup.lanes) if lane not in self._running)
            self._running[lane] = Service(tuple(batch), now)
            self._in_service += len(batch)
            started.append(RunBatch(batch[0].segment, tuple(batch), lane))
        return started

    def _end_service(self, lane: int) -> tuple[Task, ...]:
        tasks = self._running.pop(lane).tasks
        self._in_service -= len(tasks)
        return tasks

    def _choose_batch(self, now: float) -> list[Task]:
        batch: list[Task] = []
        while not batch:
            heads = [
                (*head.turn, queue is self._output, segment)
                for queue in (self._input, self._output)
                for segment in queue.segments()
                if segment in self._segments and (head := queue.head(segment)) is not None
            ]
            if not heads:
                return []
            turn, since, _, segment = min(heads)
            if now < since + self._settings.batch_wait_s:
                sizes = {
                    each: min(self._settings.batch_max, self._input.count(each) + self._output.count(each))
                    for other, _, _, each in sorted(heads)
                    if other == turn
                }
                segment = max(sizes, key=sizes.__getitem__)  # of equals the oldest
            waiting = self._input.count(segment) + self._output.count(segment)
            free = self.setup.lanes - len(self._running)
            batch = self._next_batch(segment, min(self._settings.batch_max, lane_share(waiting, free)), now)
        return batch

    def _next_batch(self, segment: int, most: int, now: float) -> list[Task]:
        """The first tasks of one segment from I and O together; tasks whose deadline has passed fail."""
        batch: list[Task] = []
        while len(batch) < most:
            here, there = self._input.head(segment), self._output.head(segment)
            if here is not None and (there is None or here.turn <= there.turn):
                task = self._input.pop(segment)
            elif there is not None:
                task = self._output.pop(segment)
            else:
                break
            if task.expires_at <= now:
                self._end_attempt(task, Status.FAILED, Reason.EXPIRED)
            else:
                batch.append(task)
        return batch

    # ---- answers ---------------------------------------------------------------------------------------

    def _end_attempt(self, task: Task, status: Status, reason: Reason) -> None:
        """Gives up a task that is held."""
        self._counts[_COUNTED_AS[status]] += 1
        self._tell(task.frame.source, Answer(task.frame, task.attempt, status, reason), self._now)
        self._release(task)

    def _tell(self, source: PeerId, answer: Answer | None, due_at: float) -> None:
        """Puts an answer among those that go out at `due_at` at the latest; without one the stream is opened."""
        self._answers.setdefault(source, []).extend((answer,) if answer is not None else ())
        self._answers_due_at = min(self._answers_due_at, due_at)

    def _refuse(self, tasks: Iterable[Task], reason: Reason) -> None:
        """Sends back tasks that were never taken in."""
        for task in tasks:
            self._counts["refused"] += 1
            self._tell(task.frame.source, Answer(task.frame, task.attempt, Status.REFUSED, reason), self._now)
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
        stream.held -= 1
        self._touched.append(stream)
        self._gone.append(task)

    def _flush(self, now: float) -> list[WorkerAction]:
        """What has gathered: batches per receiver, answers per source, and then tensors to free."""
        actions: list[WorkerAction] = []
        for name, groups in self._outgoing.items():
            neighbour = self._neighbours.get(name)
            assert neighbour is not None and neighbour.outbound is not None
            total = neighbour.outbound.sent - sum(map(len, groups.values()))
            for (segment, _), tasks in groups.items():
                total += len(tasks)
                neighbour.delay.batch_sent(now, len(tasks) * self.setup.input_nbytes[segment - 1])
                actions.append(SendTasks(neighbour.outbound.receiver, total, now, tuple(tasks)))
        if now >= self._answers_due_at or (not self._running and self._answers):
            actions += [self._send_answers(source, answers, now) for source, answers in self._answers.items()]
            self._answers, self._answers_due_at = {}, float("inf")
        if self._gone:
            actions.append(Forget(tuple(self._gone)))
        actions += [*self._wanted, *self._warnings]
        self._outgoing, self._gone, self._wanted, self._warnings = {}, [], [], []
        return actions

    def _send_answers(self, source: PeerId, answers: list[Answer], now: float) -> SendAnswers:
        """Answers take along the credit for which the source would otherwise wait until the next status."""
        self._from_sources.grant(now, self._peers.sources_expected)
        stream = self._from_sources.streams.get(source.name)  # looked up after: granting may close a stream
        if stream is None or stream.sender != source:
            return SendAnswers(source, tuple(answers))
        return SendAnswers(source, tuple(answers), stream.received, stream.outstanding)

    # ---- telling others --------------------------------------------------------------------------------

    def _report(self, now: float) -> list[WorkerAction]:
        if self._finished or now < self._reported_at + self._status_interval_s:
            return []
        self._reported_at = now
        self._awaited = False
        peers = self._peers
        peers.forget(now)
        for pool, expected in (
            (self._from_sources, peers.sources_expected),
            (self._from_workers, peers.neighbours_expected),
        ):
            for name in [n for n, stream in pool.streams.items() if now - stream.heard_at > FORGET_PEER_S]:
                pool.close(name)
            pool.grant(now, expected)
        segments = tuple(sorted(self._segments))
        return [
            PublishWorkerReport(
                WorkerReport(
                    worker=self.setup.me,
                    model_id=self.setup.model_id,
                    state=self._state,
                    segments=segments,
                    stamp=now,
                    input_queue=self._load,
                    output_queue=len(self._output),
                    service_time_s=self._service.mean_s,
                    segment_service_time_s=tuple(self._service.segment_s(segment) for segment in segments),
                    busy_s=max((max(now - service.since, 1e-9) for service in self._running.values()), default=0.0),
                    policy_version=self._policies.current.version if self._policies.current else 0,
                    counters=WorkerCounters(**self._counts),
                    streams=self._streams(now),
                    backlog_s=self._backlog_s,
                    prepared_model_id=self._next_model.prepared,
                )
            )
        ]

    @property
    def _status_interval_s(self) -> float:
        settings = self._settings
        return settings.status_interval_min_s if self._awaited else settings.status_interval_max_s

    @property
    def _load(self) -> int:
        """I_n: tasks to run, those in service included."""
        return len(self._input) + self._in_service

    def _streams(self, now: float) -> tuple[StreamReport, ...]:
        reports: dict[PeerId, StreamReport] = {}
        for pool, known in ((self._from_sources, self._peers.sources), (self._from_workers, self._peers.workers)):
            for name, stream in pool.streams.items():
                peer = known.get(name)
                if peer is None or peer.life != stream.sender:
                    peer = Peer(stream.sender, since=now, heard_at=now)
                reports[stream.sender] = StreamReport(
                    peer=stream.sender,
                    open=True,
                    received=stream.received,
                    credit=stream.outstanding,
                    echo_stamp=peer.stamp,
                    echo_hold_s=now - peer.heard_at,
                    batch_echo_stamp=stream.stamp,
                    batch_echo_hold_s=now - stream.stamp_at if stream.stamp >= 0.0 else 0.0,
                )
        for neighbour in self._neighbours:
            outbound = neighbour.outbound
            if outbound is not None and outbound.sent:
                nbytes = self.setup.input_nbytes[-1]
                delay = neighbour.delay.seconds(nbytes) if neighbour.delay.known else -1.0
                report = reports.get(outbound.receiver, StreamReport(outbound.receiver))
                moving_s = neighbour.delay.moving_s(nbytes)
                reports[outbound.receiver] = report._replace(
                    sent=outbound.sent, transfer_delay_s=delay, moving_s=moving_s
                )
        return tuple(reports.values())

    def _end(self, now: float) -> list[WorkerAction]:
        policy = self._policies.current
        due_s = self._next_model.due_s(policy, now)
        self._leaves = due_s is not None and due_s > CHANGE_PATIENCE_S
        if self._finished or self._running:
            return []
        if self._state is not State.RUNNING:
            self._finished = True
            return [Finished()]
        if policy is None or due_s is None or self._held:
            return []
        slow = ", ".join(self._peers.need_model(self.setup.model_id, now))
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
    def _thresholds(self) -> tuple[float, ...]:
        return self._exit_thresholds if self.setup.exits_enabled else ()

    @property
    def _is_model_asked_for(self) -> bool:
        """Whether the policy names a model: then nodes of different ones are on their way to it."""
        return self._policies.current is not None and self._policies.current.model_id != ""

    @property
    def _output_threshold(self) -> int:
        policy = self._policies.current
        return policy.output_threshold if policy is not None else DEFAULT_OUTPUT_THRESHOLD

    @property
    def _smoothing(self) -> float:
        policy = self._policies.current
        return policy.smoothing if policy is not None else DEFAULT_SMOOTHING
