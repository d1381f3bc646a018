# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import array
import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message

from mdi_exit_msgs.msg import ResultBatch, TaskBatch
from mdi_exit_ros.errors import MessageError
from mdi_exit_ros.nodes.wire import Wire

WIRES = {TaskBatch: Wire(TaskBatch, blobs=["data"]), ResultBatch: Wire(ResultBatch)}
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
NUMBERS = {
    "uint8": st.integers(0, 2**8 - 1),
    "uint16": st.integers(0, 2**16 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
}


def values_of(kind):
    """Any values of the fields of a message class."""
    values = {}
    for name, type_ in kind.get_fields_and_field_types().items():
        if type_ == "string":
            values[name] = WORDS
        elif type_ in NUMBERS:
            values[name] = NUMBERS[type_]
        else:
            values[name] = st.lists(NUMBERS[type_.removeprefix("sequence<").removesuffix(">")], max_size=5)
    return st.fixed_dictionaries(values)


@pytest.mark.parametrize("kind", WIRES)
@given(data=st.data())
def test_the_middleware_reads_what_is_written_and_what_it_writes_is_read(kind, data):
    values = data.draw(values_of(kind))
    message = kind(**values)
    blob = {"data": [memoryview(bytes(values["data"]))]} if kind is TaskBatch else {}
    assert deserialize_message(WIRES[kind].write(**(values | blob)), kind) == message
    found = WIRES[kind].read(serialize_message(message))._asdict()
    assert {name: list(value) if isinstance(value, tuple | memoryview) else value
            for name, value in found.items()} == values  # fmt: skip


def task_batch():
    return serialize_message(
        TaskBatch(sender="camera", sequence=[1, 2, 3], attempt=[1, 1, 1], dtype="uint8", data=array.array("B", b"abc"))
    )


def test_pieces_of_a_blob_follow_each_other():
    pieces = [memoryview(b"ab"), memoryview(b""), memoryview(b"c")]
    data = WIRES[TaskBatch].write(data=pieces)
    assert deserialize_message(data, TaskBatch).data.tobytes() == b"abc"


def test_a_blob_is_a_view_of_the_bytes_that_came():
    data = task_batch()
    assert WIRES[TaskBatch].read(data).data.obj is data


def test_message_that_ends_early_is_refused_wherever_it_ends():
    data = task_batch()
    for end in range(len(data)):
        with pytest.raises(MessageError, match=f"{end} bytes are no TaskBatch"):
            WIRES[TaskBatch].read(data[:end])


@pytest.mark.parametrize("at", [4, 76, len(task_batch()) - 7])  # lengths of `sender`, of an array, of `data`
@pytest.mark.parametrize("count", [2**32 - 1, 2**31, 10**6])
def test_length_beyond_the_message_is_refused_without_the_memory_for_it(at, count):
    data = bytearray(task_batch())
    data[at : at + 4] = struct.pack("<I", count)
    with pytest.raises(MessageError, match="are no TaskBatch"):
        WIRES[TaskBatch].read(bytes(data))


@pytest.mark.parametrize("name", [b"\5\0\0\0\xff\xff\xff\xff\0", b"\0\0\0\0"])
def test_string_that_is_none_is_refused(name):
    with pytest.raises(MessageError):
        WIRES[TaskBatch].read(b"\0\1\0\0" + name + bytes(200))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    for start in (b"\0\1\0\0", b""):
        with contextlib.suppress(MessageError):
            WIRES[TaskBatch].read(start + data)


def test_other_layouts_are_left_to_the_middleware():
    big_endian = b"\0\0\0\0" + b"\0\0\0\4cam\0" + bytes(300)
    assert WIRES[TaskBatch].read(big_endian).sender == "cam"


def test_field_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="TaskBatch has no colour"):
        WIRES[TaskBatch].write(colour=3)
