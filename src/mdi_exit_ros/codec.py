# SPDX-License-Identifier: Apache-2.0
"""Arrays [B, ...] to bytes and back, little endian, C order: as they are, or float32 in half or a quarter of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdi_exit_ros.errors import MdiExitError

RAW, FP16, INT8 = "raw", "fp16", "int8"
ENCODINGS = (RAW, FP16, INT8)
ROWS_MAX = 4096
NBYTES_MAX = 256 * 1024 * 1024
FP16_MAX = float(np.finfo(np.float16).max)
SMALLEST_SCALE = np.float16(2.0**-24)
DTYPES = {name: np.dtype(name).newbyteorder("<") for name in ("uint8", "float16", "float32")}


class CodecError(MdiExitError):
    """An array that cannot be encoded, or bytes that are not the array they claim to be."""


class Encoded(NamedTuple):
    """An array as it travels.

    Attributes:
        dtype: element type after decoding, a key of DTYPES.
        shape: lengths of the axes, B first.
        encoding: one of ENCODINGS. `fp16` holds float32 as float16. `int8` holds, for float32 of B frames with C
            channels, B * C scales as float16 and then one signed byte per element: its value divided by the scale of
            its frame and channel, the largest of which is 127.
        data: the bytes, in pieces that follow each other; `nbytes` of them.
    """

    dtype: str
    shape: tuple[int, ...]
    encoding: str
    data: tuple[memoryview, ...]


def nbytes(shape: Sequence[int], dtype: str, encoding: str = RAW) -> int:
    """Bytes that an array [B, ...] of `dtype` takes; only float32 with channels is encoded, all else travels raw.

    Raises:
        CodecError: unknown encoding or element type.
    """
    if encoding not in ENCODINGS:
        raise CodecError(f"expected an encoding of {', '.join(ENCODINGS)}, got {encoding!r}")
    if dtype not in DTYPES:
        raise CodecError(f"expected an element type of {', '.join(DTYPES)}, got {dtype!r}")
    elements = math.prod(shape)
    match _applied(encoding, dtype, len(shape)):
        case "fp16":
            return 2 * elements
        case "int8":
            return elements + 2 * shape[0] * shape[1]
        case _:
            return elements * DTYPES[dtype].itemsize


def _applied(encoding: str, dtype: str, axes: int) -> str:
    return encoding if dtype == "float32" and (encoding != INT8 or axes >= 2) else RAW


def encode(parts: Sequence[NDArray[Any]], encoding: str = RAW) -> Encoded:
    """Arrays [b, ...] of any memory order and byte order as one [B, ...]; what is plain already is not copied.

    Images travel raw whatever the encoding. How a frame is encoded does not depend on the others of its batch.

    Raises:
        CodecError: nothing to encode, no axis, an element type that does not travel, parts that differ in either, or an
            unknown encoding.
    """
    if not parts:
        raise CodecError("expected an array, got none")
    first = parts[0]
    name = first.dtype.newbyteorder("=").name
    if name not in DTYPES:
        raise CodecError(f"expected an array of {', '.join(DTYPES)}, got {first.dtype}")
    if first.ndim == 0:
        raise CodecError("expected an array with a batch axis, got a single number")
    row_shape = first.shape[1:]
    if any(part.shape[1:] != row_shape or part.dtype != first.dtype for part in parts):
        raise CodecError(f"expected rows of {first.dtype} of shape {row_shape} throughout, got {_kinds(parts)}")
    if encoding not in ENCODINGS:
        raise CodecError(f"expected an encoding of {', '.join(ENCODINGS)}, got {encoding!r}")
    encoding = _applied(encoding, name, first.ndim)
    match encoding:
        case "fp16":
            pieces = [np.clip(part, -FP16_MAX, FP16_MAX).astype("<f2", order="C") for part in parts]
        case "int8":
            quantized = [_quantize(part) for part in parts]
            pieces = [scale for scale, _ in quantized] + [levels for _, levels in quantized]
        case _:
            pieces = [np.ascontiguousarray(part, dtype=DTYPES[name]) for part in parts]
    data = tuple(piece.data.cast("B") for piece in pieces if piece.size)
    return Encoded(name, (sum(map(len, parts)), *row_shape), encoding, data)


def _quantize(part: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scales [b, C] (NaN where a channel has one) as float16 and levels [b, C, ...] as int8 of float32 [b, C, ...]."""
    inner = tuple(range(2, part.ndim))
    largest = np.abs(part).max(axis=inner, initial=0.0) if inner else np.abs(part)
    broken = np.isnan(largest)
    if not np.isfinite(largest).all():
        part = np.nan_to_num(part, posinf=FP16_MAX, neginf=-FP16_MAX)
        largest = np.abs(part).max(axis=inner, initial=0.0) if inner else np.abs(part)
    scale = np.minimum(largest / 127.0, FP16_MAX).astype("<f2")
    scale[scale == 0] = SMALLEST_SCALE
    divisor = scale.astype(np.float32).reshape(*scale.shape, *(1,) * len(inner))
    levels = np.clip(np.rint(part / divisor), -127.0, 127.0).astype(np.int8)
    scale[broken] = np.nan  # what is no number stays none
    return np.ascontiguousarray(scale), np.ascontiguousarray(levels)


def _kinds(parts: Sequence[NDArray[Any]]) -> str:
    return ", ".join(sorted({f"{part.dtype} of shape {part.shape[1:]}" for part in parts}))


def decode(
    dtype: str,
    shape: Sequence[int],
    encoding: str,
    data: bytes | bytearray | memoryview,
    *,
    rows_max: int = ROWS_MAX,
    nbytes_max: int = NBYTES_MAX,
) -> NDArray[Any]:
    """The array [B, ...] that `data` holds; a raw one is not copied.

    Raises:
        CodecError: unknown encoding or element type, a negative or too large shape, or a byte count that does not fit.
    """
    if encoding not in ENCODINGS:
        raise CodecError(f"expected an encoding of {', '.join(ENCODINGS)}, got {encoding!r}")
    if dtype not in DTYPES:
        raise CodecError(f"expected an element type of {', '.join(DTYPES)}, got {dtype!r}")
    lengths = tuple(int(length) for length in shape)
    if not 1 <= len(lengths) <= 8 or min(lengths) < 0:
        raise CodecError(f"expected 1 to 8 axes of length 0 or more, got shape {lengths}")
    if lengths[0] > rows_max:
        raise CodecError(f"expected at most {rows_max} frames in a batch, got {lengths[0]}")
    if _applied(encoding, dtype, len(lengths)) != encoding:
        raise CodecError(f"expected encoding {RAW!r} for {dtype} of shape {lengths}, got {encoding!r}")
    decoded = math.prod(lengths) * DTYPES[dtype].itemsize
    if decoded > nbytes_max:
        raise CodecError(f"expected at most {nbytes_max} bytes, shape {lengths} of {dtype} has {decoded}")
    expected = nbytes(lengths, dtype, encoding)
    found = memoryview(data).nbytes
    if found != expected:
        raise CodecError(f"expected {expected} bytes for shape {lengths} of {dtype} in {encoding}, got {found}")
    match encoding:
        case "fp16":
            return np.frombuffer(data, "<f2").reshape(lengths).astype(np.float32)
        case "int8":
            scales = lengths[0] * lengths[1]
            scale = np.frombuffer(data, "<f2", scales).astype(np.float32)
            levels = np.frombuffer(data, np.int8, offset=2 * scales).reshape(lengths)
            return levels * scale.reshape(*lengths[:2], *(1,) * (len(lengths) - 2))
        case _:
            return np.frombuffer(data, dtype=DTYPES[dtype]).reshape(lengths)
