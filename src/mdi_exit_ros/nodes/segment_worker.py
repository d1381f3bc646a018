# SPDX-License-Identifier: Apache-2.0
"""The worker node: holds segments of the network, runs tasks, and decides whether frames exit, stay or move."""

from __future__ import annotations

import dataclasses
import os
import random
import sys
import time
from typing import Any, assert_never

import psutil
from rclpy.publisher import Publisher

from mdi_exit_msgs.msg import Policy, SourceStatus, WorkerStatus
from mdi_exit_ros.codec import CodecError
from mdi_exit_ros.errors import BrokenError, ConfigurationError, MdiExitError, MessageError
from mdi_exit_ros.model.backends.interface import SegmentOutput
from mdi_exit_ros.model.backends.registry import resolve_backend
from mdi_exit_ros.model.card import load_card
from mdi_exit_ros.node_settings import WorkerNodeSettings, travelling_as
from mdi_exit_ros.nodes import entry
from mdi_exit_ros.nodes.compute import Compute
from mdi_exit_ros.nodes.conversions import (
    TASK_BATCH,
    answers_received,
    answers_to_message,
    policy_from_message,
    rejection_of,
    source_report_from_message,
    tasks_from_message,
    tasks_to_message,
    tensor_from_message,
    worker_report_from_message,
    worker_report_to_message,
)
from mdi_exit_ros.nodes.lifecycle import STOP_TIMEOUT_S, Core, CoreNode
from mdi_exit_ros.nodes.loaded_model import Backend, LoadedModel, load_model, load_wanted
from mdi_exit_ros.nodes.local_delivery import LocalDelivery, TasksHandedOver
from mdi_exit_ros.nodes.parameters import NodeConfig, declare
from mdi_exit_ros.nodes.tensors import TensorStore, spans
from mdi_exit_ros.parameter import parameter
from mdi_exit_ros.policy.actions import (
    ChangeModel,
    Forget,
    LoadModel,
    LoadSegments,
    PublishWorkerReport,
    RunBatch,
    SendAnswers,
    SendTasks,
    WorkerAction,
)
from mdi_exit_ros.policy.events import AppliedPolicy, ModelLoaded, SegmentsLoaded, ServiceDone, ServiceFailed
from mdi_exit_ros.policy.worker import WorkerCore
from mdi_exit_ros.policy.worker_setup import WorkerSettings, WorkerSetup
from mdi_exit_ros.profile import times_here
from mdi_exit_ros.task import PeerId, Reason, Strategy

MEMORY_POLL_S = 1.0
FAILURES_MAX = 10  # batches in a row, after which the process ends
PATIENCE_S = 10.0  # without a source, after which the node says so
SOURCES_MAX = 64  # answered at once; a publisher takes milliseconds to make and 50 KB
SOURCE_SILENT_S = 10.0  # after which a source's publisher is taken back


@dataclasses.dataclass(frozen=True)
class SegmentWorkerConfig(WorkerNodeSettings, NodeConfig):
    """Parameters of a worker besides those of its core."""

    segments: list[int] = parameter([], "segments held, 1..K; empty: all")
    neighbours: list[str] = parameter([], "workers that share an edge with this one")
    strategy: str = parameter("mdi_exit", "which tasks may move", choices=tuple(Strategy))
    exits: bool = parameter(True, "frames may leave before the last exit")
    workers_here: int = parameter(1, "workers that share this computer's processors", low=1, high=1024)
    workers_elsewhere: int = parameter(0, "workers of the cluster on other computers", low=0, high=100000)
    processors: list[int] = parameter([], "processors that the worker may use; empty: all")

    @property
    def features_travel_as(self) -> str:
        """One of codec.ENCODINGS."""
        return travelling_as(self.encoding, self.workers_elsewhere)


class SegmentWorker(CoreNode):
    """Runs segments of the network.

    Subscribes: <name>/tasks, workers, sources, policy. Publishes: workers, <neighbour>/tasks, <source>/results.
    Services: lifecycle and parameters. Parameters: SegmentWorkerConfig and WorkerSettings.
    """

    core: WorkerCore | None

    def __init__(self, local: LocalDelivery | None = None) -> None:
        super().__init__("segment_worker", local)
        self.config = self.declare_config(SegmentWorkerConfig)
        self.settings = declare(self, WorkerSettings)
        self._tensors = TensorStore()
        self._results: dict[str, Publisher[Any]] = {}
        self._heard_at: dict[str, float] = {}
        self._measured_at = float("-inf")
        self._rss_bytes = 0

    def open(self) -> None:
        """Loads the segments and opens the endpoints."""
        config = self.config
        card = load_card(config.model)
        lanes = _bind(config)
        segments = tuple(config.segments) or tuple(range(1, card.num_segments + 1))
        if self.cluster_name in config.neighbours:
            raise ConfigurationError(f"neighbours: {self.cluster_name} cannot be its own neighbour")
        self.get_logger().info(
            f"{self.cluster_name}: loading segments {list(segments)} of {card.name} ({card.model_id}), "
            f"{config.strategy}, neighbours {config.neighbours or 'none'}"
        )
        self._backend = Backend(config.backend, config.precision, config.device, lanes, self.settings.batch_max)
        self._model = load_model(card, segments, self._backend)
        self._next_model: LoadedModel | None = None
        self._wanted: LoadModel | None = None
        self._lives: set[PeerId] = set()
        self._status = self.open_publisher(self.topics.workers, last_words=True)
        self._tasks = {name: self.open_publisher(self.topics.tasks(name)) for name in config.neighbours}
        tasks = self.topics.tasks(self.cluster_name, self.settings.queue_capacity)
        self.open_subscription(tasks, self._on_tasks, raw=True)
        self.receive_here(tasks, self._on_tasks_here)
        self.open_subscription(self.topics.workers, self._on_worker)
        self.open_subscription(self.topics.sources, self._on_source)
        self.open_subscription(self.topics.policy_in, self._on_policy)
        self.get_logger().info(f"{self.cluster_name}: ready")

    def _setup_of(self, model: LoadedModel, me: PeerId) -> WorkerSetup:
        config, card = self.config, model.card
        return WorkerSetup(
            me=me,
            model_id=card.model_id,
            num_segments=card.num_segments,
            segments=frozenset(model.segments),
            input_nbytes=tuple(
                card.input_nbytes_of(segment, config.features_travel_as) for segment in range(1, card.num_segments + 1)
            ),
            neighbours=tuple(config.neighbours),
            strategy=Strategy(config.strategy),
            exits_enabled=config.exits,
            exit_thresholds=card.default_thresholds,
            settings=self.settings,
            service_times=self._expected_times(model),
            lanes=self._backend.lanes,
        )

    def _load_beside(self, model: LoadedModel, segments: tuple[int, ...]) -> None:
        """On a thread of its own: loads more segments of the model while the others go on."""
        while True:
            try:
                more = load_model(model.card, tuple(sorted({*model.segments, *segments})), self._backend)
            except Exception as error:  # a backend may raise anything
                self.get_logger().error(f"{self.cluster_name}: cannot load segments {list(segments)}: {error!r}")
                self.feed(SegmentsLoaded(segments, loaded=False))
                return
            with self.condition:
                if self._model is model:
                    self._model = more
                    self._compute.runner = more.runner
                    self.feed(SegmentsLoaded(segments))
                    break
                if self._model.card.model_id != model.card.model_id:
                    return  # another life, which asks for what it needs
                model = self._model  # other segments were loaded meanwhile
        self.get_logger().info(f"{self.cluster_name}: holds segments {list(segments)} too")

    def _load_wanted(self, wanted: LoadModel) -> None:
        """On a thread of its own: loads another model while this one goes on."""
        self.get_logger().info(f"{self.cluster_name}: loading model {wanted.model} ({wanted.model_id}) beside")
        try:
            model = load_wanted(wanted, self._model.card, self._backend)
        except Exception as error:  # a backend may raise anything
            said = str(error) if isinstance(error, MdiExitError) else repr(error)
            self.get_logger().error(f"{self.cluster_name}: cannot change to model {wanted.model}: {said}")
            self.feed(ModelLoaded(wanted.model_id, loaded=False))
            return
        with self.condition:
            if self._wanted is wanted:
                self._next_model = model
                self.feed(ModelLoaded(wanted.model_id))

    def _change_model(self, policy: AppliedPolicy | None) -> None:
        """A new life with the model that was loaded beside; the core has ended and holds nothing."""
        assert self._next_model is not None
        self._model, self._next_model, self._wanted = self._next_model, None, None
        self._compute.runner = self._model.runner
        self._tensors = TensorStore()
        self.carry_on(self._new_core())
        if policy is not None:
            self.step(policy)
        self.get_logger().info(f"{self.cluster_name}: runs model {self._model.card.name} now")

    def _expected_times(self, model: LoadedModel) -> tuple[tuple[int, int, float], ...]:
        """Times of the profile of this computer, where there is one; see `WorkerSetup.service_times`."""
        config = self.config
        backend = resolve_backend(config.backend)
        try:
            times = times_here(model.card.model_id, backend, config.precision, config.device)
        except ConfigurationError as error:
            self.get_logger().warning(f"{self.cluster_name}: starts without measured times: {error}")
            return ()
        if times is None:
            return ()
        return times.first_estimates(model.segments, self.settings.batch_max)

    def start(self) -> WorkerCore:
        """A new core and its compute thread."""
        self._tensors = TensorStore()
        self._patient_until = time.monotonic() + PATIENCE_S
        self._next_model, self._wanted = None, None
        compute = self._compute = Compute(
            self._model.runner,
            # What a lane of a life before ends late is nobody's any more.
            lambda *done: self._on_computed(*done) if self._compute is compute else None,
            lambda *failed: self._on_failed(*failed) if self._compute is compute else None,
        )
        self._lanes = [self.run_thread(self._compute.loop, name=f"lane{lane}") for lane in range(self._backend.lanes)]
        return self._new_core()

    def _new_core(self) -> WorkerCore:
        self._me = self.new_life()
        self._lives.add(self._me)
        return WorkerCore(self._setup_of(self._model, self._me), random.Random(self._me.incarnation))

    def halt(self, core: Core) -> None:
        """Ends the compute thread."""
        for _ in self._lanes:
            self._compute.stop()
        until = time.monotonic() + STOP_TIMEOUT_S
        for lane in self._lanes:
            lane.join(max(0.0, until - time.monotonic()))

    def close(self) -> None:
        """Forgets the publishers that are gone."""
        self._results.clear()
        self._heard_at.clear()

    # ---- messages in -----------------------------------------------------------------------------------------

    def _on_tasks(self, data: bytes) -> None:
        now = time.monotonic()
        message = TASK_BATCH.read(data)
        model = self._model
        try:
            event = tasks_from_message(message, now, model.card.num_segments)
            batch = None
            if event.tasks and event.model_id == model.card.model_id:
                shape, dtype = model.inputs[message.next_segment - 1]
                batch = tensor_from_message(message, shape, dtype)
        except (MessageError, CodecError):
            self.feed(rejection_of(message, now, Reason.BAD_INPUT))
            raise
        with self.condition:
            if batch is not None and self.core is not None:
                self._tensors.keep(event.tasks, batch)
            self.feed(event)

    def _on_tasks_here(self, handed_over: TasksHandedOver) -> None:
        event, values = handed_over
        if self.core is not None and event.model_id == self._model.card.model_id:
            self._tensors.keep_each(event.tasks, values)
        self.feed(event)

    def _on_worker(self, message: WorkerStatus) -> None:
        if PeerId(message.name, message.incarnation) not in self._lives:
            self.feed(worker_report_from_message(message))

    def _on_source(self, message: SourceStatus) -> None:
        report = source_report_from_message(message)
        with self.condition:
            name = report.source.name
            if name not in self._results:
                if len(self._results) >= SOURCES_MAX:
                    # Unheard it gets no credit, so that no answer to it is lost.
                    self.say_once("sources", f"{name} is not heard: {SOURCES_MAX} sources are already")
                    return
                self._results[name] = self.open_publisher(self.topics.results(name), last_words=True)
            self._heard_at[name] = time.monotonic()
            self.feed(report)

    def _on_policy(self, message: Policy) -> None:
        policy = policy_from_message(message, self._model.card.num_segments)
        with self.condition:
            self.feed(policy)
            if self.core is not None and self._wanted is not None and not self.core.wants(self._wanted):
                self._next_model, self._wanted = None, None  # the wish was taken back

    # ---- compute ---------------------------------------------------------------------------------------------

    def _on_computed(self, batch: RunBatch, output: SegmentOutput, duration_s: float) -> None:
        event = ServiceDone(tuple(output.confidence.tolist()), tuple(output.class_id.tolist()), duration_s, batch.lane)
        with self.condition:
            if output.features is not None:
                self._tensors.replace(batch.tasks, output.features)
            self.feed(event)

    def _on_failed(self, batch: RunBatch, error: Exception) -> None:
        segment = batch.segment
        self.say_once(f"compute:{segment}", f"segment {segment} failed on {len(batch.tasks)} frames: {error!r}")
        with self.condition:
            if self._compute.failures >= FAILURES_MAX:  # its empty queue would draw all frames here
                self.crash = BrokenError(f"{FAILURES_MAX} batches in a row have failed, the last with {error!r}")
            self.feed(ServiceFailed(batch.lane))

    # ---- actions ---------------------------------------------------------------------------------------------

    def perform(self, action: WorkerAction) -> None:
        """Does what the core asks."""
        match action:
            case RunBatch():
                self._compute.submit(action, self._tensors.rows(action.tasks))
            case SendTasks():
                values = spans(self._tensors.rows(action.tasks))
                message = tasks_to_message(
                    *(action, self._me, self._model.card.model_id, time.monotonic(), values),
                    self.config.features_travel_as,
                )
                self._tasks[action.receiver.name].publish(message)
            case SendAnswers():
                self._answer(action)
            case LoadSegments():
                self.run_thread(self._load_beside, self._model, action.segments, name="load")
            case LoadModel():
                self._wanted, self._next_model = action, None
                self.run_thread(self._load_wanted, action, name="load")
            case ChangeModel():
                self._change_model(self.core.policy if self.core is not None else None)
            case Forget():
                self._tensors.forget(action.tasks)
            case PublishWorkerReport():
                self._status.publish(worker_report_to_message(action.report, self._rss_bytes, time.process_time()))
            case _:
                assert_never(action)  # type: ignore[arg-type]  # Finished and Warn end in CoreNode

    def _answer(self, action: SendAnswers) -> None:
        publisher = self._results.get(action.source.name)
        if publisher is None:
            self.say_once(f"source:{action.source.name}", f"no answer possible to unknown source {action.source.name}")
            return
        if not self.local.send(publisher.topic_name, answers_received(self._me, action)):
            publisher.publish(answers_to_message(self._me, action))

    def housekeeping(self, now: float) -> float:
        """Looks how much memory is used, and whether anybody is there at all."""
        if now >= self._measured_at + MEMORY_POLL_S:
            self._measured_at = now
            self._rss_bytes = psutil.Process().memory_info().rss
            for name in [each for each, at in self._heard_at.items() if now - at > SOURCE_SILENT_S]:
                del self._heard_at[name]
                self.close_publisher(self._results.pop(name))
            if not self._results and now >= self._patient_until:
                self._patient_until = now + 3 * PATIENCE_S
                topic = self.topics.sources.name
                self.get_logger().info(
                    f"waiting for a camera source on {topic} ({self.count_publishers(topic)} publishers)"
                )
        return self._measured_at + MEMORY_POLL_S


def _bind(config: SegmentWorkerConfig) -> int:
    """Keeps this process to its processors; returns the threads that run batches.

    Raises:
        ConfigurationError: a processor that this process may not use.
    """
    allowed = os.sched_getaffinity(0)
    if config.processors:
        if not allowed.issuperset(config.processors):
            raise ConfigurationError(
                f"processors: expected some of {sorted(allowed)}, which this process may use, got {config.processors}"
            )
        os.sched_setaffinity(0, config.processors)
        return config.threads or len(set(config.processors))
    return config.threads or max(1, len(allowed) // config.workers_here)


def main() -> None:
    """Runs the node as a process."""
    sys.exit(entry.run("segment_worker"))


if __name__ == "__main__":
    main()
