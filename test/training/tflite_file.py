# SPDX-License-Identifier: Apache-2.0
"""Writes TensorFlow Lite files of one convolution behind the other, without TensorFlow.

Numbers are those of TensorFlow Lite's schema, version 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flatbuffers
import numpy as np
from numpy.typing import NDArray

CONV_2D, DEPTHWISE_CONV_2D = 3, 4
RELU6 = 3


class _Writer(flatbuffers.Builder):
    def table(self, fields: int, *adds: Callable[[], None]) -> int:
        self.StartObject(fields)
        for add in adds:
            add()
        return int(self.EndObject())

    def offset(self, slot: int, offset: int) -> Callable[[], None]:
        return lambda: self.PrependUOffsetTRelativeSlot(slot, offset, 0)

    def byte(self, slot: int, value: int) -> Callable[[], None]:
        return lambda: self.PrependInt8Slot(slot, value, 0)

    def integer(self, slot: int, value: int) -> Callable[[], None]:
        return lambda: self.PrependInt32Slot(slot, value, 0)

    def numbers(self, values: Sequence[int]) -> int:
        return int(self.CreateNumpyVector(np.asarray(values, np.int32)))

    def tables(self, offsets: Sequence[int]) -> int:
        self.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.PrependUOffsetTRelative(offset)
        return int(self.EndVector())


def tflite_of(convolutions: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], *, side: int = 4) -> bytes:
    """A network of convolutions with ReLU6, stride 1, of images (1, side, side, channels of the first).

    Args:
        convolutions: weight (out, in, height, width) and bias (out,) of each; with one input channel it is depthwise.
    """
    writer = _Writer()
    tensors, buffers, operators = [], [writer.table(1)], []

    def tensor(shape: Sequence[int], data: NDArray[np.float32] | None) -> int:
        name = writer.CreateString(f"t{len(tensors)}")
        shape_at, buffer = writer.numbers(shape), 0
        if data is not None:
            values = writer.CreateNumpyVector(np.frombuffer(data.tobytes(), np.uint8))
            buffers.append(writer.table(1, writer.offset(0, values)))
            buffer = len(buffers) - 1
        tensors.append(writer.table(5, writer.offset(0, shape_at), writer.integer(2, buffer), writer.offset(3, name)))
        return len(tensors) - 1

    images = first = tensor((1, side, side, convolutions[0][0].shape[1]), None)
    for weight, bias in convolutions:
        depthwise = weight.shape[1] == 1
        values = weight.transpose(1, 2, 3, 0) if depthwise else weight.transpose(0, 2, 3, 1)
        inputs = writer.numbers((images, tensor(values.shape, values), tensor(bias.shape, bias)))
        images = tensor((1, side, side, len(bias)), None)
        outputs = writer.numbers((images,))
        strides = writer.integer(1, 1), writer.integer(2, 1)
        if depthwise:
            dilations = writer.integer(5, 1), writer.integer(6, 1)
            options = writer.table(7, *strides, writer.integer(3, 1), writer.byte(4, RELU6), *dilations)
        else:
            dilations = writer.integer(4, 1), writer.integer(5, 1)
            options = writer.table(6, *strides, writer.byte(3, RELU6), *dilations)
        kind = int(depthwise)
        operators.append(
            writer.table(
                5,
                *(writer.integer(0, kind), writer.offset(1, inputs), writer.offset(2, outputs)),
                *(writer.byte(3, 1 + kind), writer.offset(4, options)),
            )
        )
    codes = [
        writer.table(4, writer.byte(0, code), writer.integer(2, 1), writer.integer(3, code))
        for code in (CONV_2D, DEPTHWISE_CONV_2D)
    ]
    lists = writer.tables(tensors), writer.numbers((first,)), writer.numbers((images,)), writer.tables(operators)
    graph = writer.table(5, *(writer.offset(slot, offset) for slot, offset in enumerate(lists)))
    parts = writer.tables(codes), writer.tables([graph]), writer.CreateString("test"), writer.tables(buffers)
    model = writer.table(
        5, writer.integer(0, 3), *(writer.offset(slot, offset) for slot, offset in enumerate(parts, 1))
    )
    writer.Finish(model, b"TFL3")
    return bytes(writer.Output())
