# SPDX-License-Identifier: Apache-2.0
"""The shared network as plain ROS 2 nodes: one frame per message, standard messages, each node spun by rclpy.

Reliable topics whose depth is the number of frames in flight, so that none is overwritten. A frame's number travels in
its header; features are an Image of floats.
"""

from __future__ import annotations

import array
import os
import time
from typing import Any

import numpy as np
from common import PIPELINE, Job, Stage, measure, processes, run
from numpy.typing import NDArray

from mdi_exit_ros.benchmark.peers import GET_ROS
from mdi_exit_ros.errors import MdiExitError

START_TIMEOUT_S = 60.0
SETTLE_S = 1.0  # a matched publisher may still speak to a subscription that does not hear it


def quality(job: Job) -> Any:
    """Reliable, with room for every frame in flight."""
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    return QoSProfile(depth=job.in_flight, reliability=ReliabilityPolicy.RELIABLE)


def image_message(number: str, rows: NDArray[Any]) -> Any:
    """One frame (H, W, 3) uint8, or its features (C, H, W) float32."""
    from sensor_msgs.msg import Image

    message = Image()
    message.header.frame_id = number
    if rows.dtype == np.uint8:
        message.encoding, message.height, message.width = "rgb8", rows.shape[0], rows.shape[1]
    else:
        message.encoding, message.height, message.width = "32FC1", rows.shape[0] * rows.shape[1], rows.shape[2]
    message.step = rows.nbytes // message.height
    message.data = array.array("B", rows.tobytes())
    return message


def worker(job: Job, span: tuple[int, int], namespace: str) -> None:
    """One node: takes a frame, answers it or passes its features on."""
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from sensor_msgs.msg import Image
    from std_msgs.msg import Int64MultiArray

    stage = Stage(job, span)
    rclpy.init()
    node = rclpy.create_node(f"stage{span[0]}", namespace=namespace)
    answers = node.create_publisher(Int64MultiArray, "answers", quality(job))
    onward = node.create_publisher(Image, "features", quality(job)) if span[0] == 1 else None

    def on_image(message: Any) -> None:
        rows = np.frombuffer(message.data, stage.dtype).reshape(1, *stage.row_shape)
        output = stage.run(np.array([int(message.header.frame_id)]), rows)
        if len(output.answers):
            answers.publish(Int64MultiArray(data=output.answers[0].tolist()))
        elif onward is not None:
            onward.publish(image_message(message.header.frame_id, output.features[0]))

    node.create_subscription(Image, "frames" if span[0] == 1 else "features", on_image, quality(job))
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        return


class RclpyLink:
    """The source's node, spun while answers are waited for."""

    def __init__(self, job: Job, namespace: str) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from sensor_msgs.msg import Image
        from std_msgs.msg import Int64MultiArray

        self._node = rclpy.create_node("source", namespace=namespace)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._frames = self._node.create_publisher(Image, "frames", quality(job))
        self._came: list[NDArray[np.int64]] = []
        self._node.create_subscription(Int64MultiArray, "answers", self._on_answer, quality(job))
        self._wait_for_stages(len(job.spans))

    def _on_answer(self, message: Any) -> None:
        self._came.append(np.array([message.data], np.int64))

    def _wait_for_stages(self, stages: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while (
            self._node.count_publishers("answers") < stages
            or self._node.count_subscribers("features") < 1
            or self._frames.get_subscription_count() < 1
        ):
            if time.monotonic() > deadline:
                raise MdiExitError(f"the stages' nodes did not appear within {START_TIMEOUT_S:.0f} s")
            self._executor.spin_once(timeout_sec=0.1)
        time.sleep(SETTLE_S)

    def offer(self, ids: NDArray[np.int64], frames: NDArray[np.uint8]) -> None:
        """See `common.Link`."""
        for number, frame in zip(ids, frames, strict=True):
            self._frames.publish(image_message(str(number), frame))

    def answers(self, timeout_s: float) -> list[NDArray[np.int64]]:
        """See `common.Link`."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._executor.spin_once(timeout_sec=max(deadline - time.monotonic(), 0.0))
            if self._came or time.monotonic() >= deadline:
                came, self._came = self._came, []
                return came


def serve(job: Job) -> None:
    """Source and sink in this process, stages in their own."""
    if job.batch != 1:
        raise MdiExitError(f"--batch: one frame per message here, got {job.batch}; leave it at 1")
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    import rclpy

    namespace = f"/peer_{os.getpid()}"
    with processes(worker, [(job, span, namespace) for span in job.spans]):
        rclpy.init()
        try:
            measure(job, RclpyLink(job, namespace), ["ros-rclpy"])
        finally:
            rclpy.try_shutdown()


if __name__ == "__main__":
    run(
        serve,
        name="plain_rclpy_pipeline",
        needs=GET_ROS,
        modes=(PIPELINE,),
        batch=1,
        in_flight=32,
    )
