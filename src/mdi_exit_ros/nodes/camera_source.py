# SPDX-License-Identifier: Apache-2.0
"""The source node: a camera, its admission, and the ledger in which every frame gets exactly one end."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mdi_exit_msgs.msg import Policy, ResultBatch, WorkerStatus
from mdi_exit_ros.errors import ConfigurationError, MessageError
from mdi_exit_ros.model.card import load_card
from mdi_exit_ros.node_settings import SourceNodeSettings
from mdi_exit_ros.nodes import entry
from mdi_exit_ros.nodes.conversions import (
    answers_from_message,
    classification_to_message,
    policy_from_message,
    source_report_to_message,
    tasks_received,
    tasks_to_message,
    worker_report_from_message,
)
from mdi_exit_ros.nodes.images.inputs import CameraFrame, TopicInput, is_live, open_input
from mdi_exit_ros.nodes.images.reader import Arrivals, Pace, Reader
from mdi_exit_ros.nodes.lifecycle import Core, CoreNode
from mdi_exit_ros.nodes.local_delivery import LocalDelivery, TasksHandedOver
from mdi_exit_ros.nodes.parameters import NodeConfig, declare
from mdi_exit_ros.nodes.serialized import SENDERS_MAX, NewestOfEach, deserialized, leading_string
from mdi_exit_ros.nodes.summary import worker_statistics, write
from mdi_exit_ros.nodes.topics import CLASSIFICATION, IMAGE, compressed
from mdi_exit_ros.parameter import parameter
from mdi_exit_ros.policy.actions import ChangeModel, CloseFrame, PublishSourceReport, SendTasks, SourceAction
from mdi_exit_ros.policy.cadence import LINGER_S, LOOK_S
from mdi_exit_ros.policy.events import FramesOffered, FrameUnreadable, InputEnded
from mdi_exit_ros.policy.ordering import InOrder
from mdi_exit_ros.policy.source import SourceCore
from mdi_exit_ros.policy.source_setup import SourceSettings, SourceSetup
from mdi_exit_ros.summary import SteadyRate, summarise, with_workers
from mdi_exit_ros.task import Status

PATIENCE_S = 5.0  # without progress, after which the node says what it waits for


@dataclasses.dataclass(frozen=True)
class CameraSourceConfig(SourceNodeSettings, NodeConfig):
    """Parameters of a source besides those of its core."""

    entries: list[str] = parameter([], "workers that frames may enter, the home worker first")
    summary_path: str = parameter("", "JSON file written at the end; empty: none")
    exit_when_finished: bool = parameter(True, "end the process when a finite input is played and every frame closed")


class CameraSource(CoreNode):
    """Offers a camera's frames to the cluster.

    Subscribes: image or image/compressed, <name>/results, workers, policy. Publishes: classification, sources,
    <entry>/tasks. Services: lifecycle and parameters. Parameters: CameraSourceConfig and SourceSettings.
    """

    core: SourceCore | None

    def __init__(self, local: LocalDelivery | None = None) -> None:
        super().__init__("camera_source", local)
        self._unwritten: dict[str, Any] | None = None
        self.config = self.declare_config(CameraSourceConfig)
        settings = declare(self, SourceSettings, leave_out=frozenset({"drop"}))
        drop = self.config.drop == "oldest" or (self.config.drop == "auto" and is_live(self.config.input))
        self.settings = settings.of_input(drop=drop)

    def open(self) -> None:
        """Opens camera and endpoints."""
        config = self.config
        if not config.entries:
            raise ConfigurationError("entries: expected at least the name of the home worker, got none")
        self.card = load_card(config.model)
        self._model_name, self._model_id = self.card.name, self.card.model_id
        self._input = open_input(config.input, self.card.class_names)
        self._classification = self.open_publisher(CLASSIFICATION, overridable=True)
        self._status = self.open_publisher(self.topics.sources, last_words=True)
        self._tasks = {name: self.open_publisher(self.topics.tasks(name)) for name in config.entries}
        results = self.topics.results(self.cluster_name)
        self.open_subscription(results, self._on_results)
        self.receive_here(results, self.feed)
        self._other_workers = NewestOfEach(WorkerStatus)
        self.open_subscription(self.topics.workers, self._on_worker, raw=True)
        self.open_subscription(self.topics.policy_in, self._on_policy)
        self._image_topic = ""
        if isinstance(self._input, TopicInput):
            base = self.resolve_topic_name(IMAGE.name)
            topic = IMAGE if config.image_transport == "raw" else compressed(base)
            self._image_topic = self.resolve_topic_name(topic.name)
            self.open_subscription(topic, self._on_image, overridable=True)
        self.get_logger().info(f"{self.cluster_name}: {config.input}, home worker {config.entries[0]}")

    def start(self) -> SourceCore:
        """A new core and its reader thread."""
        self._me = self.new_life()
        self._frames: dict[int, tuple[NDArray[np.uint8] | None, Header | Time]] = {}
        self._workers: dict[str, WorkerStatus] = {}
        self._other_workers = NewestOfEach(WorkerStatus)  # without what came while the node was inactive
        self._looked_at = float("-inf")
        self._listeners = 0
        self._order: InOrder[tuple[CloseFrame, Header | Time]] = InOrder(self.config.order_wait_s)
        self._sequence = self._closed = self._closed_before = 0
        self._input_over = False
        self._began_at: float | None = None
        self._finished_at: float | None = None
        self._closed_at = time.monotonic()
        self._patience_over = time.monotonic() + PATIENCE_S
        paced = self.config.rate_hz > 0.0 and not self._input.live
        self._pace = Pace(self.config.rate_hz if paced else 0.0)
        self._asks = not self.settings.drop or not (paced or self._input.live)
        height, width, _ = self.card.input_shape
        size, limit = (height, width), self.config.frames
        self._reader: Reader | Arrivals
        self._reader_thread = None
        if isinstance(self._input, TopicInput):
            self._reader = Arrivals(size, limit=limit, ahead_max=self.settings.waiting_max)
        else:
            self._reader = Reader(self._input, size, limit=limit, loop=self.config.loop, ready=self.wake)
            self._reader_thread = self.run_thread(self._reader.loop, name="reader")
        self._steady = SteadyRate(self._reader.total)
        return SourceCore(
            SourceSetup(
                me=self._me,
                model_id=self._model_id,
                num_segments=self.card.num_segments,
                entries=tuple(self.config.entries),
                total=self._reader.total,
                settings=self.settings,
            )
        )

    def halt(self, core: Core) -> None:
        """Ends the reader thread; the summary is written when the input is over or the node ends, not in a pause."""
        self._reader.stop()
        if self._reader_thread is not None:
            self._reader_thread.join(2.0)
        if self.config.summary_path and isinstance(core, SourceCore):
            self._unwritten = self._summary(core)
        if self.done or self._input_over:
            self._write_summary()

    def close(self) -> None:
        """Writes the summary of a life that was paused and will not go on."""
        self._write_summary()

    def _write_summary(self) -> None:
        found, self._unwritten = self._unwritten, None
        if found is None:
            return
        try:
            write(found, Path(self.config.summary_path).expanduser())
        except OSError as error:
            raise ConfigurationError(
                f"summary_path: {self.config.summary_path} cannot be written: {error.strerror}"
            ) from error

    # ---- messages in -----------------------------------------------------------------------------------------

    def _on_results(self, message: ResultBatch) -> None:
        self.feed(answers_from_message(message, self.card.num_segments, len(self.card.class_names)))

    def _on_worker(self, data: bytes) -> None:
        """What the home worker says counts at once; to the others a look now and then is enough."""
        core = self.core
        if core is None or leading_string(data) != core.home:
            self._other_workers.put(data)
            return
        message = deserialized(data, WorkerStatus)
        report = worker_report_from_message(message)
        with self.condition:
            self._workers[message.name] = message
            self.feed(report)

    def _look_around(self) -> None:
        """Takes in what the other workers have said, and looks whether anybody listens for classifications."""
        self._listeners = self._classification.get_subscription_count()
        for message, _ in self._other_workers.take():
            try:
                report = worker_report_from_message(message)
            except MessageError as error:
                self.say_once(f"report:{message.name}", f"dropped: {error}")
                continue
            self._workers.pop(message.name, None)
            self._workers[message.name] = message
            if len(self._workers) > SENDERS_MAX:
                del self._workers[next(iter(self._workers))]
            self.step(report)

    def _on_image(self, message: Image | CompressedImage) -> None:
        assert isinstance(self._input, TopicInput)
        frame = self._input.frame(message)
        with self.condition:
            if self.core is not None and isinstance(self._reader, Arrivals):
                self._reader.put(frame)
                self.settle()

    def _on_policy(self, message: Policy) -> None:
        self.feed(policy_from_message(message, self.card.num_segments))

    # ---- frames in -------------------------------------------------------------------------------------------

    def housekeeping(self, now: float) -> float:
        """Offers the frames that are due, ends the process when all is done, and says what it waits for."""
        if now >= self._looked_at + LOOK_S:
            self._looked_at = now
            self._look_around()
        due = min(self._offer(now), self._looked_at + LOOK_S, self._publish_due(now))
        if self.finished.is_set():
            if self._finished_at is None:
                self._finished_at = now
                self._say_result()
            due = self._finished_at + LINGER_S
            if now >= due:
                self.done, due = self.config.exit_when_finished, float("inf")
        if now >= self._patience_over:
            self._patience_over = now + PATIENCE_S
            self._say_what_for(now)
        return min(due, self._patience_over)

    def _offer(self, now: float) -> float:
        assert self.core is not None
        frame = self._reader.peek()
        stamp = self.get_clock().now()
        waits = not self._input.live and self.core.is_early
        while not waits and frame is not None and self._pace.due_at <= now:
            first = self._sequence
            labels: list[int | None] = []
            room = max(self.core.room, self._reader.excess) if self._asks else sys.maxsize
            while frame is not None and frame.image is not None and len(labels) < room and self._pace.due_at <= now:
                self._take(frame, now, stamp)
                labels.append(frame.label)
                frame = self._reader.peek()
            if labels:
                self.step(FramesOffered(first, tuple(labels)))
            elif frame is not None and frame.image is None:
                self._take(frame, now, stamp)
                self.say_once("unreadable", f"refused an unreadable frame: {frame.problem}")
                self.step(FrameUnreadable(self._sequence - 1))
                frame = self._reader.peek()
            else:
                break
        if self._reader.ended and not self._input_over:
            self._input_over = True
            self.step(InputEnded())
        return self._pace.due_at if frame is not None and self._pace.due_at > now else float("inf")

    def _take(self, frame: CameraFrame, now: float, stamp: Time) -> None:
        self._reader.take()
        self._pace.next(now)
        self._began_at = now if self._began_at is None else self._began_at
        self._frames[self._sequence] = (frame.image, frame.header or stamp)
        self._sequence += 1

    def _say_what_for(self, now: float) -> None:
        assert self.core is not None
        closed, self._closed_before = self._closed_before, self._closed
        if closed != self._closed or self._input_over:
            return
        waiting_for = self.core.waiting_for(now)
        if waiting_for is None and self._image_topic:
            waiting_for = f"images on {self._image_topic} ({self.count_publishers(self._image_topic)} publishers)"
        if waiting_for is not None:
            self.get_logger().info(f"waiting for {waiting_for}")

    def _say_result(self) -> None:
        assert self.core is not None
        found = self.core.summary()
        ends = {"refused": found["refused"], "failed": found["failed"]}
        why = "".join(f", {end}: {dict(reasons)}" for end, reasons in ends.items() if reasons)
        self.get_logger().info(f"finished: {found['offered']} frames offered, {found['ok']} answered{why}")

    # ---- actions ---------------------------------------------------------------------------------------------

    def perform(self, action: SourceAction) -> None:
        """Does what the core asks."""
        match action:
            case SendTasks():
                images = (self._frames[task.frame.sequence][0] for task in action.tasks)
                values = [image[np.newaxis] for image in images if image is not None]
                tasks = self._tasks[action.receiver.name]
                event = tasks_received(action, self._me, self._model_id)
                if self.local.send(tasks.topic_name, TasksHandedOver(event, values)):
                    return
                message = tasks_to_message(action, self._me, self._model_id, time.monotonic(), values)
                tasks.publish(message)
            case ChangeModel():
                self._model_name, self._model_id = Path(action.model).name, action.model_id
                self.get_logger().info(f"{self.cluster_name}: goes on with model {self._model_name}")
            case CloseFrame():
                _, header = self._frames.pop(action.sequence)
                self._closed += 1
                self._closed_at = time.monotonic()
                self._steady.note(answered=action.status is Status.OK, now=self._closed_at)
                for end in self._order.put(action.sequence, (action, header), self._closed_at):
                    self._publish(*end)
            case PublishSourceReport():
                self._status.publish(source_report_to_message(action.report))
            case _:
                assert_never(action)  # type: ignore[arg-type]  # Finished and Warn end in CoreNode

    def _publish(self, end: CloseFrame, header: Header | Time) -> None:
        # Who has joined since the last look would miss the answer to a question: images of a topic may be few.
        if self._listeners or (self._input.live and self._classification.get_subscription_count()):
            if isinstance(header, Time):
                header = Header(stamp=header.to_msg(), frame_id=self.cluster_name)
            self._classification.publish(
                classification_to_message(end, header, self.cluster_name, self.card.class_names)
            )

    def _publish_due(self, now: float) -> float:
        """Publishes ends that have waited long enough for earlier ones; answers when the next have."""
        for end in self._order.due(now):
            self._publish(*end)
        return self._order.next_deadline()

    def _summary(self, core: SourceCore) -> dict[str, Any]:
        began = self._began_at if self._began_at is not None else self._closed_at
        facts = {
            "source": self.cluster_name,
            "input": self.config.input,
            "input_hash": self._input.content_hash,
            "model": self._model_name,
            "model_id": self._model_id,
        }
        mine = summarise(core.summary(), self._closed_at - began, self._steady.fps, facts)
        return with_workers(mine, {name: worker_statistics(status) for name, status in self._workers.items()})


def main() -> None:
    """Runs the node as a process."""
    sys.exit(entry.run("camera_source"))


if __name__ == "__main__":
    main()
