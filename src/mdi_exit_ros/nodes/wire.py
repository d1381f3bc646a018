# SPDX-License-Identifier: Apache-2.0
"""Large messages as the bytes that travel, written and read without an object of the message's class in between.

That object costs three more copies of what it holds. Small messages are as fast with it.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from rclpy.serialization import deserialize_message

from mdi_exit_ros.errors import MessageError

_HEADER = b"\0\1\0\0"  # plain CDR, little endian, no options
_FORMATS = {
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float": "f",
    "double": "d",
}


# What a field, or a run of numbers, is written and read with. `at` counts the bytes behind the header, from which
# alignment counts. Writing appends to `parts` and returns the next `at`; reading returns the values and the next `at`.
_Write = Callable[[list[Any], int, Any], int]
_Read = Callable[[memoryview, int], tuple[Any, int]]


class _Field(NamedTuple):
    names: tuple[str, ...]  # several where numbers follow each other
    write: _Write
    read: _Read


def _numbers(names: Sequence[str], codes: Sequence[str]) -> _Field:
    """A run of numbers as one struct, which is another for each of the eight places that it may begin at."""
    structs = []
    for start in range(8):
        layout, at = "<", start
        for code in codes:
            size = struct.calcsize(code)
            layout += f"{-at % size}x{code}"
            at += -at % size + size
        structs.append(struct.Struct(layout))

    def write(parts: list[Any], at: int, values: Any) -> int:
        layout = structs[at % 8]
        parts.append(layout.pack(*values))
        return at + int(layout.size)

    def read(data: memoryview, at: int) -> tuple[Any, int]:
        layout = structs[at % 8]
        return layout.unpack_from(data, at), at + layout.size

    return _Field(tuple(names), write, read)


def _sequence(name: str, code: str) -> _Field:
    size = struct.calcsize(code)

    def write(parts: list[Any], at: int, values: Any) -> int:
        count = len(values[0])
        before = -at % 4
        between = -(at + before + 4) % size if count else 0
        parts.append(struct.pack(f"<{before}xI{between}x{count}{code}", count, *values[0]))
        return at + before + 4 + between + size * count

    def read(data: memoryview, at: int) -> tuple[Any, int]:
        count, at = _read_count(data, at)
        at += -at % size if count else 0
        return (struct.unpack_from(f"<{count}{code}", data, at),), at + size * count

    return _Field((name,), write, read)


def _read_count(data: memoryview, at: int) -> tuple[int, int]:
    at += -at % 4
    count = int.from_bytes(data[at : at + 4], "little")
    if at + 4 + count > len(data):  # every element takes a byte or more
        raise MessageError(f"expected {count} elements or characters in {len(data)} bytes")
    return count, at + 4


def _string(name: str) -> _Field:
    def write(parts: list[Any], at: int, values: Any) -> int:
        encoded = values[0].encode()
        before, length = -at % 4, len(encoded) + 1
        parts.append(struct.pack(f"<{before}xI{length}s", length, encoded))
        return at + before + 4 + length

    def read(data: memoryview, at: int) -> tuple[Any, int]:
        length, at = _read_count(data, at)
        if length < 1:
            raise MessageError("expected a string that ends with a zero")
        return (str(data[at : at + length - 1], "utf-8"),), at + length

    return _Field((name,), write, read)


def _blob(name: str) -> _Field:
    def write(parts: list[Any], at: int, values: Any) -> int:
        before = -at % 4
        nbytes: int = sum(part.nbytes for part in values[0])
        parts.append(struct.pack(f"<{before}xI", nbytes))
        parts.extend(values[0])
        return at + before + 4 + nbytes

    def read(data: memoryview, at: int) -> tuple[Any, int]:
        nbytes, at = _read_count(data, at)
        return (data[at : at + nbytes],), at + nbytes

    return _Field((name,), write, read)


def _fields(kinds: Mapping[str, str], blobs: Iterable[str]) -> Iterator[_Field]:
    for is_number, run in groupby(kinds.items(), key=lambda item: item[1] in _FORMATS):
        if is_number:
            names, codes = zip(*((name, _FORMATS[kind]) for name, kind in run), strict=True)
            yield _numbers(names, codes)
            continue
        for name, kind in run:
            if name in blobs:
                yield _blob(name)
            elif kind == "string":
                yield _string(name)
            else:
                yield _sequence(name, _FORMATS[kind.removeprefix("sequence<").removesuffix(">")])


class Wire:
    """How messages of one type travel, in plain CDR (OMG DDS-RTPS 10).

    For types whose fields are numbers, strings and sequences of numbers. A message that is read has the fields of the
    message's class; sequences are tuples, and those named in `blobs` are views of the bytes that came.

    Args:
        kind: the message's class.
        blobs: fields of type uint8[] that are written from memoryviews of bytes, one after the other.
    """

    def __init__(self, kind: Any, *, blobs: Sequence[str] = ()) -> None:
        self.kind = kind
        kinds: dict[str, str] = kind.get_fields_and_field_types()
        self._fields = list(_fields(kinds, blobs))
        self._make: Callable[[list[Any]], Any] = namedtuple(kind.__name__, kinds)._make  # type: ignore[attr-defined]
        blank = kind()
        self._defaults = {name: getattr(blank, name) for name in kinds} | dict.fromkeys(blobs, ())

    def write(self, **fields: Any) -> bytes:
        """The message with those fields, the others at their defaults.

        Raises:
            TypeError: it has no such field.
            struct.error: a number that its field cannot hold.
        """
        filled = self._defaults | fields
        if len(filled) > len(self._defaults):
            raise TypeError(f"{self.kind.__name__} has no {', '.join(sorted(fields.keys() - self._defaults.keys()))}")
        parts: list[Any] = [_HEADER]
        at = 0
        for names, write, _ in self._fields:
            at = write(parts, at, [filled[name] for name in names])
        return b"".join(parts)

    def read(self, data: bytes) -> Any:
        """The message; bytes of another layout than plain little endian CDR are left to the middleware.

        Raises:
            MessageError: the bytes are none.
        """
        try:
            if data[:2] != _HEADER[:2]:
                return deserialize_message(data, self.kind)
            body, at = memoryview(data)[4:], 0
            found: list[Any] = []
            for _, _, read in self._fields:
                values, at = read(body, at)
                found += values
            return self._make(found)
        except (MessageError, UnicodeDecodeError, struct.error, RuntimeError) as error:  # the last: rclpy's RMWError
            raise MessageError(f"{len(data)} bytes are no {self.kind.__name__}: {error}") from error
