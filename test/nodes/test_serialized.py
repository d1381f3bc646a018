# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from rclpy.serialization import serialize_message

from mdi_exit_msgs.msg import SourceStatus, WorkerStatus
from mdi_exit_ros.errors import MessageError
from mdi_exit_ros.nodes.serialized import NewestOfEach, leading_string


@pytest.mark.parametrize("kind", [WorkerStatus, SourceStatus])
@pytest.mark.parametrize("name", ["", "w", "worker1", "câmera"])
def test_sender_is_read_without_deserializing(kind, name):
    assert leading_string(serialize_message(kind(name=name, model_id="abc"))) == name


def test_sender_is_read_in_either_byte_order():
    assert leading_string(b"\0\0\0\0" + b"\0\0\0\4" + b"cam\0") == "cam"
    assert leading_string(b"\0\1\0\0" + b"\4\0\0\0" + b"cam\0") == "cam"


@pytest.mark.parametrize("data", [b"", b"\0\1\0\0\5\0\0\0abc", b"\0\1\0\0\3\0\0\0\xff\xff\0", b"\0\1\0\0\0\0\0\0"])
def test_bytes_without_a_name_are_refused(data):
    with pytest.raises(MessageError):
        leading_string(data)


def test_of_each_sender_the_newest_message_is_kept_until_it_is_taken():
    newest = NewestOfEach(WorkerStatus, 2)
    for name, queue in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):  # one sender too many
        newest.put(serialize_message(WorkerStatus(name=name, input_queue=queue)))
    assert [(message.name, message.input_queue) for message, _ in newest.take()] == [("a", 3), ("b", 2)]
    assert list(newest.take()) == []


def test_messages_that_are_none_are_counted_and_dropped():
    newest = NewestOfEach(WorkerStatus, 8)
    whole = serialize_message(WorkerStatus(name="a", peers=["b"]))
    for data in (b"", whole[:40], serialize_message(WorkerStatus(name="c"))):
        newest.put(data)
    assert [message.name for message, _ in newest.take()] == ["c"]
    assert newest.unusable == 2
