# SPDX-License-Identifier: Apache-2.0
"""Arrays [B, ...] to bytes and back: raw, little endian, C order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdi_exit_ros.errors import MdiExitError

RAW = "raw"
ROWS_MAX = 4096
NBYTES_MAX = 256 * 1024 * 1024
DTYPES = {name: np.dtype(name).newbyteorder("<") for name in ("uint8", "float16", "float32")}


class CodecError(MdiExitError):
    """An array that cannot be encoded, or bytes that are not the array they claim to be."""


class Encoded(NamedTuple):
    """An array as it travels.

    Attributes:
        dtype: element type after decoding, a key of DTYPES.
        shape: lengths of the axes, B first.
        encoding: `raw`.
        data: product(shape) * itemsize bytes, in pieces that follow each other.
    """

    dtype: str
    shape: tuple[int, ...]
    encoding: str
    data: tuple[memoryview, ...]


def encode(parts: Sequence[NDArray[Any]]) -> Encoded:
    """Arrays [b, ...] of any memory order and byte order as one [B, ...]; what is plain already is not copied.

    Raises:
        CodecError: nothing to encode, no axis, an element type that does not travel, or parts that differ in either.
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
    plain = (np.ascontiguousarray(part, dtype=DTYPES[name]) for part in parts)
    data = tuple(part.data.cast("B") for part in plain if part.size)
    return Encoded(name, (sum(map(len, parts)), *row_shape), RAW, data)


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
    """The array [B, ...] that `data` holds, without copying it.

    Raises:
        CodecError: unknown encoding or element type, a negative or too large shape, or a byte count that does not fit.
    """
    if encoding != RAW:
        raise CodecError(f"expected encoding {RAW!r}, got {encoding!r}")
    if dtype not in DTYPES:
        raise CodecError(f"expected an element type of {', '.join(DTYPES)}, got {dtype!r}")
    lengths = tuple(int(length) for length in shape)
    if not 1 <= len(lengths) <= 8 or min(lengths) < 0:
        raise CodecError(f"expected 1 to 8 axes of length 0 or more, got shape {lengths}")
    if lengths[0] > rows_max:
        raise CodecError(f"expected at most {rows_max} frames in a batch, got {lengths[0]}")
    expected = math.prod(lengths) * DTYPES[dtype].itemsize
    if expected > nbytes_max:
        raise CodecError(f"expected at most {nbytes_max} bytes, shape {lengths} of {dtype} has {expected}")
    found = memoryview(data).nbytes
    if found != expected:
        raise CodecError(f"expected {expected} bytes for shape {lengths} of {dtype}, got {found}")
    return np.frombuffer(data, dtype=DTYPES[dtype]).reshape(lengths)
