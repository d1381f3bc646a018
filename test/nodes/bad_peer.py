# SPDX-License-Identifier: Apache-2.0
"""A program that floods one topic of a cluster until it is stopped; says on each line how many messages it sent."""

from __future__ import annotations

import array
import json
import sys
import time

import rclpy

from mdi_exit_msgs.msg import SourceStatus, TaskBatch, WorkerStatus
from mdi_exit_ros.nodes.topics import ClusterTopics

FRAME_NBYTES = 3072
SAY_EVERY_S = 0.2


def batches(names, *, sender, incarnation, receiver_incarnation, model_id, sent=0, rows=32):
    """Batches of images for worker1, whether or not there is credit for them."""
    numbers = array.array("Q", range(rows))
    while True:
        sent += rows
        yield (
            names.tasks("worker1"),
            TaskBatch(
                **{"sender": sender, "sender_incarnation": incarnation, "receiver_incarnation": receiver_incarnation},
                **{"source": sender, "source_incarnation": incarnation, "model_id": model_id, "next_segment": 1},
                sent_total=sent,
                sequence=array.array("Q", (sent + number for number in numbers)),
                attempt=array.array("H", [1] * rows),
                elapsed_s=array.array("f", [0.0] * rows),
                remaining_s=array.array("f", [5.0] * rows),
                dtype="uint8",
                shape=array.array("I", [rows, 32, 32, 3]),
                encoding="raw",
                data=array.array("B", bytes(rows * FRAME_NBYTES)),
            ),
        )


def strangers(names, *, count, model_id, first=0):
    """Statuses of workers and sources that do not exist, each heard once; numbered from `first` on."""
    for number in range(first, first + count):
        yield names.workers, WorkerStatus(name=f"worker_{number}", incarnation=number, model_id=model_id, state=1)
        yield names.sources, SourceStatus(name=f"source_{number}", incarnation=number, model_id=model_id, state=1)


def main(namespace: str, kind: str, given: str) -> None:
    rclpy.init()
    node = rclpy.create_node("bad_peer", namespace=namespace)
    publishers = {}
    said_at, count = 0.0, 0
    for topic, message in {"batches": batches, "strangers": strangers}[kind](
        ClusterTopics(namespace), **json.loads(given)
    ):
        if topic.name not in publishers:
            publishers[topic.name] = node.create_publisher(topic.type, topic.name, topic.qos)
            while not publishers[topic.name].get_subscription_count():
                time.sleep(0.02)
        publishers[topic.name].publish(message)
        count += 1
        if time.monotonic() > said_at + SAY_EVERY_S:
            said_at = time.monotonic()
            print(count, flush=True)
    print(count, flush=True)
    time.sleep(1.0)  # for the last ones to arrive


if __name__ == "__main__":
    main(*sys.argv[1:])
