# SPDX-License-Identifier: Apache-2.0
"""A camera and a listener in one process: images on a topic, one message per frame, and what answers them.

For a cluster that is up. After a warm-up come a time at full rate, in which each answer lets the next image go so that
a bounded number is in flight, and a time at a low rate with one image in flight. Latency counts from just before
`publish` of an image to the callback of its `Classification`, matched by the header's stamp, on this process's clock.

    python benchmark/camera_topic.py --namespace /robot --json out/camera_topic.json
"""

from __future__ import annotations

import argparse
import array
import json
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import Image

from mdi_exit_msgs.msg import Classification
from mdi_exit_ros.benchmark.bare import archive_files
from mdi_exit_ros.errors import DataError
from mdi_exit_ros.images import decode
from mdi_exit_ros.nodes.entry import make_executor, spin_for
from mdi_exit_ros.nodes.topics import CLASSIFICATION, IMAGE
from mdi_exit_ros.resources import sample_archive

JOIN_TIMEOUT_S = 60.0
WARM_UP_HZ, WARM_UP_S = 50.0, 2.0
RAMP_S = 1.0  # at full rate before it counts
FILL_S = 0.001  # between two images that no answer has let go
LOOK_S = 0.02  # between two looks whether images were lost
GIVE_UP_S = 1.0  # without an answer, after which an image counts as lost and another may go
IMAGES_DEPTH = 1024  # more than are ever in flight: what is lost, is lost at the source
LISTENING_DEPTH = 1024  # more than are ever in flight: no answer is lost here


class Camera(Node):
    """Publishes images and takes their answers; everything on the executor's thread."""

    def __init__(self, namespace: str, images: list[np.ndarray[Any, Any]]) -> None:
        super().__init__("benchmark_camera", namespace=namespace)
        self._messages = [_message(image) for image in images]
        self._images = self.create_publisher(Image, IMAGE.name, IMAGES_DEPTH)
        self._answers = self.create_subscription(Classification, CLASSIFICATION.name, self._on_answer, LISTENING_DEPTH)
        self._open: dict[int, tuple[int, float]] = {}  # by stamp (ns): number, and when it was published (s)
        self._sent = self._lag = self._given_up = 0
        self.target = 0  # images in flight that answers keep up
        self.begin()

    def begin(self) -> None:
        """Counts anew."""
        self._sent_before = self._sent
        self._statuses = dict.fromkeys((Classification.OK, Classification.REFUSED, Classification.FAILED), 0)
        self._latency_s: list[float] = []
        self._began_at = self._heard_at = time.monotonic()

    @property
    def joined(self) -> bool:
        """Whether a source is there, both ways."""
        return self._images.get_subscription_count() > 0 and self.count_publishers(self._answers.topic_name) > 0

    @property
    def in_flight(self) -> int:
        """Images published that are neither answered nor known to be lost."""
        return len(self._open) - max(0, self._lag - self._given_up)

    def send(self) -> None:
        """Publishes the next image."""
        message = self._messages[self._sent % len(self._messages)]
        now = self.get_clock().now()
        message.header.stamp = now.to_msg()
        self._open[now.nanoseconds] = (self._sent, time.monotonic())
        self._sent += 1
        self._images.publish(message)

    def _on_answer(self, answer: Classification) -> None:
        now = time.monotonic()
        number, sent_at = self._open.pop(Time.from_msg(answer.header.stamp).nanoseconds, (None, 0.0))
        if number is None:
            return
        # The source numbers images as they come: by how much its number is behind, so many were overwritten before.
        self._lag = max(self._lag, number - answer.sequence)
        self._heard_at = now
        self._statuses[answer.status] += 1
        if answer.status == Classification.OK:
            self._latency_s.append(now - sent_at)
        if self.in_flight < self.target:
            self.send()

    def give_up(self) -> None:
        """Expects no answers any more to images that are long under way."""
        late = time.monotonic() - GIVE_UP_S
        for stamp in [stamp for stamp, (_, sent_at) in self._open.items() if sent_at < late]:
            del self._open[stamp]
            self._given_up += 1

    def found(self) -> dict[str, Any]:
        """What happened since `begin`; frames/s from then to the last answer."""
        latency_ms = 1000.0 * np.array(self._latency_s)
        answered = self._statuses[Classification.OK]
        published = self._sent - self._sent_before
        return {
            "published": published,
            "answered": answered,
            "refused": self._statuses[Classification.REFUSED],
            "failed": self._statuses[Classification.FAILED],
            "lost": published - sum(self._statuses.values()),
            "fps": answered / max(self._heard_at - self._began_at, 1e-9),
            "latency_ms": {
                f"p{share}": float(np.percentile(latency_ms, share)) if answered else None for share in (50, 95, 99)
            },
        }


def _message(image: np.ndarray[Any, Any]) -> Image:
    height, width, channels = image.shape
    message = Image(height=height, width=width, step=width * channels, encoding="rgb8")
    message.header.frame_id = "benchmark_camera"
    message.data = array.array("B", image.tobytes())
    return message


class Measurement:
    """The three times of one run."""

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._executor = make_executor()
        self._executor.add_node(camera)

    def join(self) -> None:
        """Waits for a source that answers, and warms it up."""
        end = time.monotonic() + JOIN_TIMEOUT_S
        while not self._camera.joined:
            if time.monotonic() > end:
                sys.exit(f"error: no camera source within {JOIN_TIMEOUT_S:.0f} s")
            spin_for(self._executor, FILL_S)
        while not self.low_rate(WARM_UP_HZ, WARM_UP_S)["answered"]:
            if time.monotonic() > end:
                sys.exit(f"error: no image was answered within {JOIN_TIMEOUT_S:.0f} s")

    def full_rate(self, in_flight: int, duration_s: float) -> dict[str, Any]:
        """As many as come through with `in_flight` images under way."""
        self._keep(in_flight, min(RAMP_S, duration_s))
        self._drain()
        self._camera.begin()
        self._keep(in_flight, duration_s)
        self._drain()
        return self._camera.found()

    def low_rate(self, rate_hz: float, duration_s: float) -> dict[str, Any]:
        """One image after the other."""
        self._camera.begin()
        due = time.monotonic()
        for _ in range(max(1, round(rate_hz * duration_s))):
            self._camera.send()
            due = max(due, time.monotonic() - 1.0 / rate_hz) + 1.0 / rate_hz
            spin_for(self._executor, max(0.0, due - time.monotonic()))
            self._drain()
        return self._camera.found()

    def _keep(self, in_flight: int, duration_s: float) -> None:
        camera, end = self._camera, time.monotonic() + duration_s
        camera.target = in_flight
        while time.monotonic() < end:
            camera.give_up()
            missing = camera.in_flight < in_flight
            if missing:
                camera.send()
            spin_for(self._executor, FILL_S if missing else LOOK_S)
        camera.target = 0

    def _drain(self) -> None:
        while self._camera.in_flight > 0:
            spin_for(self._executor, FILL_S)
            self._camera.give_up()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--namespace", default="", help="of `image` and `classification`")
    parser.add_argument(
        "--archive", type=Path, default=sample_archive(), metavar="ZIP", help="images to publish  [the shipped ones]"
    )
    parser.add_argument("--in-flight", type=int, default=64, help="images in flight at full rate  [%(default)s]")
    parser.add_argument("--seconds", type=float, default=5.0, help="at full rate  [%(default)s]")
    parser.add_argument("--low-rate", type=float, default=20.0, metavar="HZ", help="[%(default)s]")
    parser.add_argument("--low-seconds", type=float, default=10.0, help="at the low rate  [%(default)s]")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where the result goes")
    options = parser.parse_args()
    images = _images(parser, options.archive)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    rclpy.init()
    camera = Camera(options.namespace, images)
    try:
        measurement = Measurement(camera)
        measurement.join()
        full = measurement.full_rate(options.in_flight, options.seconds)
        low = measurement.low_rate(options.low_rate, options.low_seconds)
    finally:
        camera.destroy_node()
        rclpy.try_shutdown()
    options.json.write_text(json.dumps({"full_rate": full, "low_rate": low}, indent=1) + "\n", encoding="utf-8")


def _images(parser: argparse.ArgumentParser, archive: Path) -> list[np.ndarray[Any, Any]]:
    try:
        images = [decode(data, "image") for data in archive_files(archive)]
    except (OSError, zipfile.BadZipFile, DataError) as error:
        parser.error(f"--archive: expected a zip archive of images, {archive} is none: {error}")
    if not images:
        parser.error(f"--archive: expected images *.jpg in {archive}, found none")
    return images


if __name__ == "__main__":
    main()
