# SPDX-License-Identifier: Apache-2.0
"""The real graph among peers that stop, flood, send what is too large, or whose clocks jump."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from graph_harness import graph
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from test_graph import FakeSource

from mdi_exit_msgs.msg import ResultBatch, WorkerStatus
from mdi_exit_ros.codec import ROWS_MAX
from mdi_exit_ros.model.card import load_card
from mdi_exit_ros.nodes import topics
from mdi_exit_ros.task import State

# The timeout is beyond all that one test waits for.
pytestmark = [pytest.mark.graph, pytest.mark.usefixtures("exported"), pytest.mark.timeout(300)]
LONG_S = 30.0  # for what a loaded machine may take long to do
MIB = 1024 * 1024
RSS_GROWTH_MAX = 128 * MIB
COUNT = 10_000  # of made-up names in one flood
# After two floods of other names; measured: 34 for the worker, which makes publishers for 64 sources, 13 for others.
# With all bounds a thousand times as high 158 and 60, with SOURCES_MAX alone 117, with the controller's NODES_MAX 58.
NAMES_GROWTH_MAX = 48 * MIB
MODEL = "mobilenetv2_fast"


@pytest.fixture(scope="module")
def card():
    return load_card(MODEL)


class Cluster:
    """Workers that all share their tasks, a camera that never ends, and what they say of themselves."""

    def __init__(self, start, observer, namespace, folder, *, workers=("worker1",), rate_hz=300.0, **parameters):
        self.observer, self.namespace = observer, namespace
        names = topics.ClusterTopics(namespace)
        self.sources, self.statuses = observer.listen(names.sources), observer.listen(names.workers)
        self.nodes = {
            name: start(
                "segment_worker",
                name,
                model=MODEL,
                neighbours=[other for other in workers if other != name],
                workers_here=len(workers),
                **parameters,
            )
            for name in workers
        }
        self.summary_path = folder / "summary.json"
        self.nodes["camera"] = start(
            *("camera_source", "camera"),
            model=MODEL,
            entries=list(workers),
            input="sample",
            loop=True,
            drop="never",
            rate_hz=rate_hz,
            summary_path=str(self.summary_path),
            **parameters,
        )
        self.wait_until(lambda: set(workers) <= {each.name for each in self.statuses}, "statuses")
        self.wait_until(lambda: self.sources and self.source().ok > 100, "answers")

    def wait_until(self, condition, what):
        self.observer.wait_until(condition, LONG_S, what)

    def pause(self, duration_s):
        self.observer.pause(duration_s)

    def source(self):
        return next(each for each in reversed(self.sources) if each.name == "camera")

    def worker(self, name="worker1"):
        return next(each for each in reversed(self.statuses) if each.name == name)

    def sent(self, name, to):
        """Tasks that a worker says it has sent to the life of another one that it knows."""
        status = self.worker(name)
        return status.sent[status.peers.index(to)]

    def wait_for_answers(self, count):
        wanted = self.source().ok + count
        self.wait_until(lambda: self.source().ok >= wanted, f"{count} more answers")

    def rss(self):
        return {name: psutil.Process(node.process.pid).memory_info().rss for name, node in self.nodes.items()}

    def check_memory(self, before, growth_max=RSS_GROWTH_MAX):
        now = self.rss()
        growth = {name: (now[name] - before[name]) // MIB for name in before}
        assert max(growth.values()) * MIB < growth_max, growth

    def finish(self, *reasons):
        """Stops everything; every frame must have one end, and none may have failed but for the stop or `reasons`."""
        camera = self.nodes.pop("camera")
        assert camera.stop() == 0, camera.said()
        summary = json.loads(self.summary_path.read_text())
        assert summary["unaccounted"] == 0, summary
        assert set(summary["failed"]) | set(summary["refused"]) <= {"shutdown", *reasons}, summary
        for node in self.nodes.values():
            assert node.stop() == 0, node.said()
        return summary


# ---- a receiver that stops reading ------------------------------------------------------------------------------


def test_helper_that_stands_still_is_done_without_and_used_again(tmp_path):
    with graph(tmp_path, "/still") as (start, observer):
        cluster = Cluster(start, observer, "/still", tmp_path, workers=("worker1", "worker2"), rate_hz=0.0)
        helper = cluster.nodes["worker2"].process
        cluster.wait_until(lambda: cluster.worker("worker2").served > 100, "tasks that move")
        before = cluster.rss()
        helper.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        cluster.pause(2.0)  # by now it counts as dead
        sent, served = cluster.sent("worker1", "worker2"), cluster.worker("worker2").served
        while time.monotonic() < began + 4.0:
            cluster.wait_for_answers(100)
        assert cluster.sent("worker1", "worker2") == sent > 0
        cluster.check_memory(before)
        helper.send_signal(signal.SIGCONT)
        cluster.wait_until(lambda: cluster.worker("worker2").served > served + 500, "the helper to be used again")
        assert cluster.sent("worker1", "worker2") > sent
        cluster.check_memory(before)
        cluster.finish()


def test_frames_enter_elsewhere_while_the_home_worker_stands_still(tmp_path):
    with graph(tmp_path, "/home_still") as (start, observer):
        cluster = Cluster(start, observer, "/home_still", tmp_path, workers=("worker1", "worker2"))
        home = cluster.nodes["worker1"].process
        before = cluster.rss()
        home.send_signal(signal.SIGSTOP)
        cluster.wait_until(lambda: cluster.source().home == "worker2", "the source to go elsewhere")
        cluster.wait_for_answers(300)
        served = cluster.worker("worker1").served
        home.send_signal(signal.SIGCONT)
        cluster.wait_until(lambda: cluster.source().home == "worker1", "the source to come back")
        cluster.wait_until(
            lambda: cluster.worker("worker1").served > served + 300, "the home worker to run tasks again"
        )
        cluster.check_memory(before)
        cluster.finish()


def test_source_that_stands_still_loses_no_frame(tmp_path):
    with graph(tmp_path, "/source_still") as (start, observer):
        cluster = Cluster(start, observer, "/source_still", tmp_path)
        camera = cluster.nodes["camera"].process
        before = cluster.rss()
        camera.send_signal(signal.SIGSTOP)
        cluster.wait_until(lambda: "camera" not in cluster.worker().peers, "the worker to forget the source")
        camera.send_signal(signal.SIGCONT)
        cluster.wait_for_answers(200)
        cluster.check_memory(before)
        cluster.finish()


# ---- a sender that floods ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def flood(folder: Path, namespace: str, kind: str, **given):
    """A process that floods; yields a function that says how many messages it has sent, and whether it is done."""
    said = folder / "flood.txt"
    program = Path(__file__).with_name("bad_peer.py")
    with said.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(program), namespace, kind, json.dumps(given)], stdout=out, stderr=subprocess.STDOUT
        )

    def sent() -> tuple[int, bool]:
        lines = said.read_text().split()
        return int(lines[-1]) if lines else 0, process.poll() is not None

    try:
        yield sent
    finally:
        process.kill()
        process.wait()


def test_flood_without_a_stream_is_refused_and_the_source_is_answered_when_it_ends(tmp_path, card):
    with graph(tmp_path, "/flood") as (start, observer):
        cluster = Cluster(start, observer, "/flood", tmp_path)
        before, received = cluster.rss(), cluster.worker().received_total
        life = {"receiver_incarnation": cluster.worker().incarnation, "model_id": card.model_id}
        with flood(tmp_path, "/flood", "batches", sender="stranger", incarnation=5, rows=4, **life) as sent:
            cluster.wait_until(lambda: sent()[0] > 3000, "the flood")
            cluster.wait_until(lambda: cluster.worker().refused > 5000, "refusals")
        cluster.check_memory(before)
        cluster.wait_for_answers(300)
        assert "stranger" not in cluster.worker().peers
        assert cluster.worker().received_total > received
        assert len(cluster.nodes["worker1"].said().splitlines()) < 10, cluster.nodes["worker1"].said()
        cluster.finish("no_answer")  # the flood pushes batches of others out of the worker's reader


def test_flood_beyond_the_credit_of_an_open_stream_is_refused_and_the_stream_goes_on(tmp_path, card):
    with graph(tmp_path, "/greedy") as (start, observer):
        cluster = Cluster(start, observer, "/greedy", tmp_path)
        greedy = FakeSource(observer, "/greedy", card)
        greedy.open_stream()
        before, refused = cluster.rss(), cluster.worker().refused
        life = {"receiver_incarnation": cluster.worker().incarnation, "model_id": card.model_id}
        me = {"sender": greedy.me.name, "incarnation": greedy.me.incarnation}

        def talk(done):
            def spoken():
                greedy.tell()
                cluster.pause(0.1)
                return done()

            return spoken

        with flood(tmp_path, "/greedy", "batches", **me, rows=4, sent=greedy.sent, **life) as sent:
            cluster.wait_until(talk(lambda: sent()[0] > 1000), "the flood")
            cluster.wait_until(talk(lambda: cluster.worker().refused > refused + 1000), "refusals")
        no_credit = (ResultBatch.REFUSED, ResultBatch.REASON_NO_CREDIT)
        assert sum((status, reason) == no_credit for _, status, reason in greedy.answered()) > 500
        cluster.check_memory(before)

        def answered_with_credit():
            greedy.tell()
            if greedy.stream()[3] >= 8:
                greedy.sent = greedy.stream()[2]
                good = greedy.message(1, np.zeros((1, *card.input_shape), np.uint8))
                good.sequence[0] = 1 << 40  # which the flood did not use
                greedy.tasks.publish(good)
            cluster.pause(0.1)
            return (1 << 40, ResultBatch.OK) in {each[:2] for each in greedy.answered()}

        cluster.wait_until(answered_with_credit, "an answer to what was sent with credit")
        cluster.wait_for_answers(300)
        cluster.finish("no_answer")


def test_ten_thousand_made_up_names_take_bounded_memory_and_hide_no_source_that_comes_later(tmp_path, card):
    with graph(tmp_path, "/names") as (start, observer):
        policies = observer.listen(topics.ClusterTopics("/names").policy_in)
        cluster = Cluster(start, observer, "/names", tmp_path)
        cluster.nodes["controller"] = start("controller", "controller", model=MODEL)
        cluster.wait_until(lambda: policies, "a controller")
        before = cluster.rss()
        for first in (0, COUNT):
            with flood(tmp_path, "/names", "strangers", count=COUNT, first=first, model_id=card.model_id) as sent:
                observer.wait_until(lambda sent=sent: sent()[1], 2 * LONG_S, "the flood")
                assert sent()[0] == 2 * COUNT
            cluster.check_memory(before, NAMES_GROWTH_MAX)
            cluster.wait_for_answers(300)
        late = start("camera_source", "late", model=MODEL, entries=["worker1"], input="sample", frames=50)
        cluster.wait_until(lambda: late.process.poll() == 0, "a source that came later")
        assert "50 frames offered, 50 answered" in late.said()
        for node in cluster.nodes.values():
            assert len(node.said().splitlines()) < 20, node.said()
        cluster.finish("no_answer")


# ---- what is too large ------------------------------------------------------------------------------------------


def test_batches_beyond_the_bound_go_back_refused_and_the_worker_lives_on(tmp_path, card):
    with graph(tmp_path, "/large") as (start, observer):
        worker = start("segment_worker", "worker1", model=MODEL)
        source = FakeSource(observer, "/large", card)
        source.open_stream()
        before = psutil.Process(worker.process.pid).memory_info().rss
        images = np.zeros((2, *card.input_shape), np.uint8)

        announced = source.message(2, images)
        announced.shape[0] = 100_000  # of 3 KB each
        more = source.message(2, images)
        more.data.extend(bytes(64))
        rows = ROWS_MAX + 904
        large = source.message(rows, np.zeros((rows, *card.input_shape), np.uint8))
        for message in (announced, more, large):
            source.tasks.publish(message)
        expected = {(sequence, ResultBatch.REFUSED, ResultBatch.REASON_BAD_INPUT) for sequence in range(4 + ROWS_MAX)}
        observer.wait_until(lambda: expected <= set(source.answered()), LONG_S, "refusals")

        first = source.sent
        source.tasks.publish(source.message(2, images))
        wanted = {(sequence, ResultBatch.OK) for sequence in range(first, first + 2)}
        observer.wait_until(lambda: wanted <= {each[:2] for each in source.answered()}, LONG_S, "an answer")
        assert psutil.Process(worker.process.pid).memory_info().rss - before < RSS_GROWTH_MAX
        assert worker.said().count("dropped: ") == 1, "told once per sender"
        assert worker.stop() == 0


def test_bytes_that_are_no_message_harm_nobody(tmp_path):
    with graph(tmp_path, "/garbage") as (start, observer):
        cluster = Cluster(start, observer, "/garbage", tmp_path)
        cluster.nodes["controller"] = start("controller", "controller", model=MODEL)
        names = topics.ClusterTopics("/garbage")
        for topic in (names.tasks("worker1"), names.results("camera"), names.workers, names.sources, names.policy_out):
            publisher = observer.publisher(topic)
            cluster.wait_until(lambda publisher=publisher: publisher.get_subscription_count() > 0, topic.name)
            for data in (b"", b"\0\1\0\0", b"\0\1\0\0" + b"\xff" * 40, b"\0\0\0\0" + b"\xff" * 20, os.urandom(300)):
                publisher.publish(data)
            cluster.wait_for_answers(50)
        cluster.finish()


# ---- clocks that jump -------------------------------------------------------------------------------------------


def test_ros_time_that_jumps_decides_nothing(tmp_path):
    with graph(tmp_path, "/jumps") as (start, observer):
        clock = observer.node.create_publisher(Clock, "/clock", QoSProfile(depth=1))
        cluster = Cluster(start, observer, "/jumps", tmp_path, use_sim_time=True)
        for second in (1_000_000_000, 5, 2_000_000_000, 0, 7):
            message = Clock()
            message.clock.sec = second
            clock.publish(message)
            cluster.wait_for_answers(50)
        assert cluster.finish()["retries"] == 0


def test_stamps_that_jump_neither_stop_a_stream_nor_spoil_what_is_measured(tmp_path, card):
    with graph(tmp_path, "/stamps") as (start, observer):
        worker = start("segment_worker", "worker1", model=MODEL, neighbours=["worker2"])
        source = FakeSource(observer, "/stamps", card)
        neighbour = observer.publisher(topics.ClusterTopics("/stamps").workers)
        source.open_stream()
        images = np.zeros((1, *card.input_shape), np.uint8)
        bad = []
        for stamp in (1e300, -1e300, math.nan, math.inf, 0.0, 3.0):
            message = source.message(1, images)
            message.stamp = stamp
            bad += [] if math.isfinite(stamp) else [source.sent - 1]
            source.tasks.publish(message)
            # What a neighbour says of the time it took to hear from here is no better.
            neighbour.publish(
                WorkerStatus(
                    **{"name": "worker2", "incarnation": 9, "model_id": card.model_id, "state": State.RUNNING},
                    **{"segments": [1, 2, 3, 4, 5], "segment_service_time_s": [0.001] * 5, "service_time_s": 0.001},
                    **{"peers": ["worker1"], "peer_incarnation": [source.worker().incarnation], "open": [True]},
                    **{"received": [0], "credit": [0], "sent": [0], "transfer_delay_s": [-1.0], "moving_s": [-1.0]},
                    **{"stamp": stamp, "echo_stamp": [stamp], "batch_echo_stamp": [stamp]},
                    **{"echo_hold_s": [-3e38], "batch_echo_hold_s": [-3e38]},
                )
            )
            source.tell()
            observer.wait_until(lambda: len({each[0] for each in source.answered()}) == source.sent, LONG_S, str(stamp))
        refused = {sequence for sequence, status, _ in source.answered() if status == ResultBatch.REFUSED}
        assert refused == set(bad)
        status = source.worker()
        assert all(map(math.isfinite, status.transfer_delay_s))
        assert worker.stop() == 0
