# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from graph_harness import graph
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterValue, SetParametersResult
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.qos import ReliabilityPolicy
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from mdi_exit_msgs.msg import Classification, ResultBatch, TaskBatch
from mdi_exit_ros.model.card import load_card
from mdi_exit_ros.nodes import topics
from mdi_exit_ros.nodes.conversions import source_report_to_message, tasks_to_message
from mdi_exit_ros.plan import PlannedNode
from mdi_exit_ros.policy.actions import SendTasks
from mdi_exit_ros.policy.controller import REPEAT_S
from mdi_exit_ros.policy.events import LedgerCounts, SourceReport, StreamReport
from mdi_exit_ros.task import FrameId, PeerId, State, Task

# The timeout is beyond all that one test waits for.
pytestmark = [pytest.mark.graph, pytest.mark.usefixtures("exported"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def card():
    return load_card("mobilenetv2")


def double(name: str, value: float) -> Parameter:
    return Parameter(name=name, value=ParameterValue(type=3, double_value=value))


def test_sample_runs_through_the_graph_and_every_frame_is_accounted_for(tmp_path, card):
    with graph(tmp_path, "/whole") as (start, observer):
        cluster = observer.listen(topics.ClusterTopics("/whole").cluster)
        worker, controller = start("segment_worker", "worker1"), start("controller", "controller")
        path = tmp_path / "summary.json"
        # Not as fast as it can: the controller shall have discovered the source before that has come and gone.
        given = {"entries": ["worker1"], "input": "sample", "frames": 300, "rate_hz": 100.0}
        source = start("camera_source", "camera", **given, summary_path=str(path))
        observer.wait_until(lambda: source.process.poll() is not None, 30.0, "the source to finish")
        assert source.wait() == 0, source.said()
        summary = json.loads(path.read_text())
        assert (summary["offered"], summary["ok"], summary["unaccounted"]) == (300, 300, 0), summary
        assert summary["accuracy"] > 0.5
        assert sum(summary["exits"]) == pytest.approx(1.0)
        assert summary["model_id"] == card.model_id
        assert summary["workers"]["worker1"]["answered"] >= 300
        observer.wait_until(lambda: cluster and cluster[-1].ok == 300, what="the controller's count")
        assert worker.stop(signal.SIGINT) == 0, worker.said()
        assert controller.stop(signal.SIGTERM) == 0, controller.said()


@pytest.mark.parametrize("order_wait_s", [0.0, 10.0])
def test_results_come_in_the_order_of_their_frames_where_asked_for(tmp_path, order_wait_s):
    with graph(tmp_path, f"/ordered{order_wait_s:.0f}") as (start, seen):
        ends = seen.listen(topics.CLASSIFICATION)
        start("segment_worker", "worker1", segments=[1, 2, 3, 4, 5])
        given = {"input": "sample", "frames": 1200, "rate_hz": 200.0, "drop": "never", "order_wait_s": order_wait_s}
        start("camera_source", "camera", entries=["worker1"], **given)
        seen.wait_until(lambda: any(end.sequence >= 1190 for end in ends), timeout_s=60.0, what="the last results")
        numbers = [end.sequence for end in ends]
        assert len(numbers) > 200  # the first may be over before the observer is there
        # Frames that leave early overtake others, so that one has to wait for the other.
        assert (numbers == sorted(numbers)) == (order_wait_s > 0.0)


def composed(**parameters) -> list[PlannedNode]:
    """A worker and a camera of one process, which plays the sample at 200 Hz."""
    worker = {"name": "worker1", "cluster_namespace": "/shared"}
    camera = {"name": "camera", "cluster_namespace": "/shared", "entries": ["worker1"], "retry_burst": 500}
    played = {"input": "sample", "rate_hz": 200.0, "loop": True}
    return [
        PlannedNode("worker1", "segment_worker", "here", "/shared", worker),
        PlannedNode("camera", "camera_source", "here", "/robot", {**camera, **played, **parameters}),
    ]


def test_composed_nodes_hand_over_what_they_send_each_other(tmp_path):
    with graph(tmp_path, "/shared") as (start, observer):
        names = topics.ClusterTopics("/shared")
        sent = observer.listen(names.tasks("worker1")), observer.listen(names.results("camera"))
        path = tmp_path / "summary.json"
        start("controller", "controller")
        both = start(composed(frames=600, summary_path=str(path)))
        observer.wait_until(path.is_file, 30.0, "the source to finish")
        summary = json.loads(path.read_text())
        assert (summary["offered"], summary["ok"], summary["retries"]) == (600, 600, 0), summary
        assert both.process.poll() is None, "the worker goes on"
        assert both.stop() == 0, both.said()
        assert sent == ([], [])


def test_composed_worker_that_is_brought_down_and_up_again_gets_frames_again(tmp_path):
    with graph(tmp_path, "/shared") as (start, observer):
        found = observer.listen(topics.ClusterTopics("/shared").sources)
        start("controller", "controller")
        both = start(composed())
        observer.wait_until(lambda: found and found[-1].ok > 100, 30.0, "answers")
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=transition))
            assert observer.call(ChangeState, "/shared/worker1/change_state", request).success
        before = found[-1].ok
        observer.wait_until(lambda: found[-1].ok > before + 200, 15.0, "answers of the worker's next life")
        assert both.stop() == 0, both.said()


def test_paused_source_writes_its_summary_when_it_ends_and_not_before(tmp_path):
    path = tmp_path / "summary.json"
    with graph(tmp_path, "/shared") as (start, observer):
        found = observer.listen(topics.ClusterTopics("/shared").sources)
        start("controller", "controller")
        both = start(composed(summary_path=str(path)))
        observer.wait_until(lambda: found and found[-1].ok > 100, 30.0, "answers")
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
        assert observer.call(ChangeState, "/robot/camera/change_state", request).success
        assert not path.exists()
        assert both.stop() == 0, both.said()
    assert json.loads(path.read_text())["unaccounted"] == 0


@pytest.mark.parametrize(
    ("worker_signal", "source_signal"), [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)]
)
def test_nodes_stopped_in_full_run_end_quietly_with_every_frame_closed(tmp_path, worker_signal, source_signal):
    with graph(tmp_path, "/stopped") as (start, observer):
        sources = observer.listen(topics.ClusterTopics("/stopped").sources)
        classified = observer.listen(topics.CLASSIFICATION)
        workers = [
            start("segment_worker", "worker1", neighbours=["worker2"]),
            start("segment_worker", "worker2", neighbours=["worker1"]),
        ]
        controller = start("controller", "controller")
        path = tmp_path / "summary.json"
        source = start(
            "camera_source",
            "camera",
            entries=["worker1", "worker2"],
            input="sample",
            loop=True,
            summary_path=str(path),
            attempt_timeout_s=0.3,
        )
        observer.wait_until(lambda: sources and sources[-1].ok > 200, what="answers")
        assert workers[0].stop(worker_signal) == 0, workers[0].said()
        before = sources[-1].ok
        observer.wait_until(lambda: sources[-1].ok > before + 200, what="answers of the worker that is left")
        assert workers[1].stop(worker_signal) == 0, workers[1].said()
        observer.wait_until(lambda: sources[-1].in_flight + sources[-1].waiting > 0, what="frames without an end")
        assert source.stop(source_signal) == 0, source.said()
        assert controller.stop(source_signal) == 0, controller.said()
        summary = json.loads(path.read_text())
        assert summary["unaccounted"] == 0
        assert summary["offered"] == summary["ok"] + sum(summary["refused"].values()) + sum(summary["failed"].values())
        assert summary["refused"].get("shutdown", 0) + summary["failed"].get("shutdown", 0) > 0, summary
        observer.wait_until(lambda: sources[-1].state == State.STOPPING, what="the source's last status")
        assert sources[-1].in_flight == sources[-1].waiting == 0
        observer.wait_until(lambda: any(each.reason == "shutdown" for each in classified), what="the last words")


class FakeSource:
    """Speaks the source's protocol by hand, to send what no source of ours would."""

    def __init__(self, observer, namespace, card):
        self.observer, self.card = observer, card
        self.me = PeerId("by_hand", 77)
        names = topics.ClusterTopics(namespace)
        self.answers = observer.listen(names.results("by_hand"))
        self.statuses = observer.listen(names.workers)
        self.sources = observer.publisher(names.sources)
        self.tasks = observer.publisher(names.tasks("worker1"))
        self.sent = 0

    def worker(self):
        return next((each for each in reversed(self.statuses) if each.name == "worker1"), None)

    def stream(self):
        worker = self.worker()
        rows = list(zip(worker.peers, worker.open, worker.received, worker.credit, strict=True)) if worker else []
        return next((row for row in rows if row[0] == "by_hand"), ("", False, 0, 0))

    def tell(self):
        worker = self.worker()
        heard = any(not each.sequence and each.source_incarnation == self.me.incarnation for each in self.answers)
        streams = (StreamReport(PeerId("worker1", worker.incarnation), heard, sent=self.sent),) if worker else ()
        report = SourceReport(
            self.me, self.card.model_id, State.RUNNING, time.monotonic(), "worker1", LedgerCounts(), (0,) * 5,
            (), (), 0, 0, 0.0, (0.0, 0.0, 0.0), 0, streams,
        )  # fmt: skip
        self.sources.publish(source_report_to_message(report))

    def message(self, count, values):
        now = time.monotonic()
        receiver = PeerId("worker1", self.worker().incarnation)
        tasks = tuple(Task(FrameId(self.me, self.sent + index), 1, 1, now, now + 5.0) for index in range(count))
        self.sent += count
        action = SendTasks(receiver, self.sent, now, tasks)
        data = tasks_to_message(action, self.me, self.card.model_id, now, [values] if count else [])
        return deserialize_message(data, TaskBatch)

    def open_stream(self):
        def opened():
            if self.worker() is not None and not self.stream()[1]:
                self.tell()
                self.tasks.publish(self.message(0, []))
                self.observer.pause(0.1)
            return self.stream()[3] >= 8

        self.observer.wait_until(opened, what="credit")

    def answered(self):
        return [
            (sequence, status, reason)
            for batch in self.answers
            for sequence, status, reason in zip(batch.sequence, batch.status, batch.reason, strict=True)
        ]


def test_bad_batches_go_back_refused_and_the_worker_lives_on(tmp_path, card):
    with graph(tmp_path, "/bad") as (start, observer):
        worker = start("segment_worker", "worker1")
        source = FakeSource(observer, "/bad", card)
        source.open_stream()
        images = np.zeros((2, *card.input_shape), np.uint8)

        cut = source.message(2, images)
        cut.data = cut.data[:-1]
        wrong_shape = source.message(2, np.zeros((2, 5, 5, 3), np.uint8))
        wrong_type = source.message(2, images.astype(np.float32))
        short = source.message(2, images)
        short.attempt = short.attempt[:1]
        nowhere = source.message(2, images)
        nowhere.next_segment = 200
        stranger = source.message(2, images)
        stranger.model_id = "another"
        for message in (cut, wrong_shape, wrong_type, short, nowhere, stranger):
            source.tasks.publish(message)
        bad = ResultBatch.REASON_BAD_INPUT
        expected = [(sequence, ResultBatch.REFUSED, bad) for sequence in range(10)]
        expected += [(sequence, ResultBatch.REFUSED, ResultBatch.REASON_MODEL_MISMATCH) for sequence in (10, 11)]
        observer.wait_until(lambda: len(source.answered()) >= 12, what="refusals")
        assert sorted(source.answered()) == expected

        source.tasks.publish(source.message(2, images))
        observer.wait_until(lambda: len(source.answered()) >= 14, what="an answer to a good batch")
        assert [status for _, status, _ in source.answered()[12:]] == [ResultBatch.OK] * 2
        observer.wait_until(lambda: source.stream()[2] == source.sent, what="every frame acknowledged")
        assert source.worker().refused == 12
        assert worker.said().count("dropped: TaskBatch of by_hand") == 1, "told once per sender"
        assert worker.stop() == 0


def test_controller_applies_parameters_at_once_and_mirrors_them(tmp_path):
    with graph(tmp_path, "/tuned") as (start, observer):
        policies = observer.listen(topics.ClusterTopics("/tuned").policy_in)
        controller = start("controller", "controller", use_sim_time=True)
        observer.wait_until(lambda: policies, what="the first policy")
        change = observer.service(SetParameters, "/tuned/controller/set_parameters")
        ask = observer.service(GetParameters, "/tuned/controller/get_parameters")
        for service, kind in ((change, SetParameters), (ask, GetParameters)):
            service(kind.Request())  # what takes long the first time is over
        request = SetParameters.Request(parameters=[double("exit_threshold.1", 0.42), double("alpha", 0.3)])
        began = time.monotonic()
        reply = change(request)
        assert [each.successful for each in reply.results] == [True, True]
        observer.wait_until(lambda: policies[-1].exit_threshold[0] == pytest.approx(0.42), 1.0, "the new policy")
        assert time.monotonic() - began < 1.0

        def mirrored():
            reply = ask(GetParameters.Request(names=["applied.exit_threshold.1", "applied.version"]))
            return (
                reply.values[0].double_value == pytest.approx(0.42)
                and reply.values[1].integer_value == policies[-1].version
            )

        observer.wait_until(mirrored, 3.0, "applied.*")
        refused = SetParameters.Request(parameters=[double("applied.exit_threshold.1", 0.9), double("alpha", 0.305)])
        assert [each.successful for each in change(refused).results] == [False, False]
        assert controller.stop(signal.SIGTERM) == 0


def test_late_joiner_gets_the_last_policy_of_a_controller_that_repeats_it_no_more(tmp_path):
    with graph(tmp_path, "/late") as (start, observer):
        policies = observer.listen(topics.ClusterTopics("/late").policy_in)
        controller = start("controller", "controller")
        observer.wait_until(lambda: policies, what="the first policy")
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
        assert observer.call(ChangeState, "/late/controller/change_state", request).success
        observer.pause(0.5)  # for one that is under way
        heard = len(policies)
        observer.pause(2.0 * REPEAT_S)
        assert len(policies) == heard
        late = observer.listen(topics.ClusterTopics("/late").policy_in)
        observer.wait_until(lambda: late, what="the policy of before")
        assert late == policies[-1:]
        assert controller.stop(signal.SIGTERM) == 0


def test_camera_topic_is_classified_with_its_header(tmp_path):
    with graph(tmp_path, "/robot1") as (start, observer):
        camera = observer.publisher(topics.IMAGE)
        classified = observer.listen(topics.CLASSIFICATION)
        # nobody publishes /clock: time stands still for those who look at it
        worker = start("segment_worker", "worker1", use_sim_time=True)
        source = start("camera_source", "camera", entries=["worker1"], use_sim_time=True)
        observer.wait_until(lambda: camera.get_subscription_count() > 0, what="the source")
        observer.wait_until(lambda: "waiting for images on /robot1/image (1 publishers)" in source.said())
        encodings = {"bgr8": 3, "mono8": 1, "16UC1": 2, "rgba8": 4, "bayer_rggb8": 1, "broken": 1}

        def answered(encoding):
            return [each for each in classified if each.header.frame_id == encoding]

        for encoding, nbytes in encodings.items():
            image = Image(height=48, width=64, step=64 * nbytes, encoding=encoding, data=bytes(48 * 64 * nbytes))
            image.header.frame_id = encoding
            image.header.stamp.sec = 1234

            def seen(image=image, encoding=encoding):
                camera.publish(image)
                observer.pause(0.1)
                return answered(encoding)

            observer.wait_until(seen, what=f"an answer to {encoding}")
        for encoding in encodings:
            first = answered(encoding)[0]
            assert first.header.stamp.sec == 1234
            if encoding == "broken":
                assert (first.status, first.reason) == (Classification.REFUSED, "unreadable")
            elif first.status == Classification.OK:
                assert first.class_name
                assert first.worker == "worker1"
        assert any(each.status == Classification.OK for each in classified)
        assert source.said().count("refused an unreadable frame") == 1
        assert source.stop(signal.SIGTERM) == 0
        assert worker.stop(signal.SIGINT) == 0


def test_quality_of_service_of_a_robots_topics_comes_from_a_parameter_file(tmp_path):
    namespace = "/qos_graph"
    file = tmp_path / "robot.yaml"
    overrides = {
        f"{namespace}/image": {"subscription": {"reliability": "reliable", "depth": 3}},
        f"{namespace}/classification": {"publisher": {"reliability": "best_effort"}},
    }
    file.write_text(yaml.safe_dump({"/**": {"ros__parameters": {"qos_overrides": overrides}}}))
    with graph(tmp_path, namespace) as (start, seen):
        source = start("camera_source", "camera", params_file=file, entries=["worker1"], input="topic")
        node = seen.node

        def ends():
            images = node.get_subscriptions_info_by_topic(f"{namespace}/image")
            answers = node.get_publishers_info_by_topic(f"{namespace}/classification")
            return [end.qos_profile.reliability for end in (*images, *answers)]

        seen.wait_until(lambda: len(ends()) == 2, what=source.said())
        assert ends() == [ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT]
        request = GetParameters.Request(names=[f"qos_overrides.{namespace}/image.subscription.depth"])
        answer = seen.call(GetParameters, f"{namespace}/camera/get_parameters", request)
        assert answer.values[0].integer_value == 3
        source.stop()


def test_lifecycle_services_lead_a_node_through_several_lives(tmp_path):
    with graph(tmp_path, "/lives") as (start, observer):
        statuses = observer.listen(topics.ClusterTopics("/lives").workers)
        worker = start("segment_worker", "worker1", autostart=False)

        def change(transition: int) -> bool:
            request = ChangeState.Request(transition=Transition(id=transition))
            return observer.call(ChangeState, "/lives/worker1/change_state", request).success

        lives = set()
        for _ in range(2):
            assert change(Transition.TRANSITION_CONFIGURE)
            for _ in range(2):
                assert change(Transition.TRANSITION_ACTIVATE)
                observer.wait_until(lambda: statuses and statuses[-1].state == State.RUNNING, what="a status")
                lives.add(statuses[-1].incarnation)
                assert change(Transition.TRANSITION_DEACTIVATE)
                observer.wait_until(lambda: statuses[-1].state == State.STOPPING, what="the last status")
            assert change(Transition.TRANSITION_CLEANUP)
        assert len(lives) == 4
        assert change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
        assert worker.wait(5.0) == 0, worker.said()


def test_model_is_changed_while_frames_come_and_none_is_lost(tmp_path, card):
    fast = load_card("mobilenetv2_fast")
    with graph(tmp_path, "/changed") as (start, observer):
        workers = observer.listen(topics.ClusterTopics("/changed").workers)
        sources = observer.listen(topics.ClusterTopics("/changed").sources)
        start("segment_worker", "worker1", neighbours=["worker2"])
        start("segment_worker", "worker2", neighbours=["worker1"])
        controller = start("controller", "controller")
        path = tmp_path / "summary.json"
        given = {"entries": ["worker1", "worker2"], "input": "sample", "rate_hz": 200.0, "loop": True, "drop": "never"}
        source = start("camera_source", "camera", **given, summary_path=str(path))
        observer.wait_until(lambda: sources and sources[-1].ok > 100, what="answers of the first model")

        def wish(model: str) -> SetParametersResult:
            value = ParameterValue(type=4, string_value=model)
            request = SetParameters.Request(parameters=[Parameter(name="model", value=value)])
            return observer.call(SetParameters, "/changed/controller/set_parameters", request).results[0]

        assert "no model 'no_such'" in wish("no_such").reason
        assert wish("mobilenetv2_fast").successful
        observer.wait_until(lambda: sources[-1].model_id == fast.model_id, 30.0, what="the source to change")
        before = sources[-1].ok
        observer.wait_until(lambda: sources[-1].ok > before + 100, what="answers of the second model")

        def newest() -> dict[str, str]:
            return {status.name: status.model_id for status in workers}

        changed = {"worker1": fast.model_id, "worker2": fast.model_id}
        observer.wait_until(lambda: newest() == changed, what="both workers' statuses")
        names = ["model", *(f"exit_threshold.{number}" for number in range(1, 5))]

        def shown() -> list[ParameterValue]:
            request = GetParameters.Request(names=names)
            return observer.call(GetParameters, "/changed/controller/get_parameters", request).values

        observer.wait_until(lambda: shown()[1].double_value == fast.default_thresholds[0], what="its thresholds")
        assert shown()[0].string_value == "mobilenetv2_fast"
        assert source.stop(signal.SIGINT) == 0, source.said()
        assert controller.stop(signal.SIGINT) == 0, controller.said()
        summary = json.loads(path.read_text())
        assert (summary["unaccounted"], summary["retries"]) == (0, 0), summary
        assert set(summary["failed"]) <= {"shutdown"}, summary
        assert (summary["model"], summary["model_id"]) == ("mobilenetv2_fast", fast.model_id)


@pytest.mark.parametrize(
    ("kind", "number"),
    [("camera_source", signal.SIGINT), ("segment_worker", signal.SIGTERM), ("controller", signal.SIGINT)],
)
def test_node_stopped_while_it_starts_is_quiet(tmp_path, kind, number):
    with graph(tmp_path, "/early") as (start, _):
        nodes = []
        for index, delay_s in enumerate((0.3, 0.2, 0.2)):
            nodes.append(start(kind, f"node{index}", entries=["worker1"]))
            time.sleep(delay_s)
        for node in nodes:
            assert node.stop(number) in (0, -number), node.said()


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("camera_source", ["entries:=[worker1]", "input:=EMPTY"], "no images in"),
        ("camera_source", ["input:=sample"], "entries: expected at least the name of the home worker"),
        ("segment_worker", ["model:=no_such_model"], "no model 'no_such_model'"),
        ("segment_worker", ["segments:=[9]"], "has segments 1 to 5"),
        ("segment_worker", ["threads:=-1"], "threads: expected int such as 0 in 0..256"),
        ("segment_worker", ["processors:=[4096]"], "processors: expected some of"),
        ("controller", ["model:=no_such_model"], "no model 'no_such_model'"),
    ],
)
def test_mistake_is_one_clear_line_and_a_failed_exit(tmp_path, kind, parameters, message):
    given = [part for each in parameters for part in ("-p", each.replace("EMPTY", str(tmp_path)))]
    ended = subprocess.run(
        [sys.executable, "-m", "mdi_exit_ros.nodes.entry", kind, "--ros-args", *given],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    said = ended.stdout + ended.stderr
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if "error: " in line]
    assert len(errors) == 1, said
    assert message in errors[0]
