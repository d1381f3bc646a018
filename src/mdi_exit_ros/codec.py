# SPDX-License-Identifier: Apache-2.0
"""Arrays [B, ...] to bytes and back: raw, little endian, C order."""

from __future__ import annotations

import array
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
        data: product(shape) * itemsize bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    encoding: str
    data: array.array[int]


def encode(values: NDArray[Any]) -> Encoded:
    """Bytes of an array [B, ...] of any memory order and byte order.

    Raises:
        CodecError: no axis, or an element type that does not travel.
    """
    name = values.dtype.newbyteorder("=").name
    if name not in DTYPES:
        raise CodecError(f"expected an array of {', '.join(DTYPES)}, got {values.dtype}")
    if values.ndim == 0:
        raise CodecError("expected an array with a batch axis, got a single number")
    plain = np.ascontiguousarray(values, dtype=DTYPES[name])
    data = array.array("B")
    data.frombytes(plain.data.cast("B") if plain.size else b"")
    return Encoded(name, values.shape, RAW, data)


def decode(
    dtype: str,
    shape: Sequence[int],
    encoding: str,
    data: bytes | bytearray | memoryview | array.array[int],
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
