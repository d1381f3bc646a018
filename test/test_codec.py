# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mdi_exit_ros.codec import CodecError, decode, encode, nbytes


def round_trip(values):
    encoded = encode([values])
    return decode(encoded.dtype, encoded.shape, encoded.encoding, b"".join(encoded.data))


PLAIN = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
AWKWARD = {
    "transposed": PLAIN.transpose(2, 0, 1),
    "every second": PLAIN[:, ::2],
    "backwards": PLAIN[::-1],
    "fortran": np.asfortranarray(PLAIN),
    "big endian": PLAIN.astype(">f4"),
    "half": PLAIN.astype(np.float16),
    "big endian half": PLAIN.astype(">f2"),
    "bytes": PLAIN.astype(np.uint8),
    "no frames": PLAIN[:0],
    "no pixels": np.empty((3, 0, 2), np.uint8),
    "one axis": np.array([1, 2, 3], np.uint8),
    "broadcast": np.broadcast_to(np.float32(7), (3, 4)),
    "not a number": np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float32),
}


@pytest.mark.parametrize("values", AWKWARD.values(), ids=AWKWARD.keys())
def test_awkward_arrays_come_back_as_they_were(values):
    found = round_trip(values)
    assert found.shape == values.shape
    assert found.dtype == values.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, values)


@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.dtype("<f2"), np.dtype(">f4"), np.float32]),
        arrays.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=5),
    )
)
def test_any_array_comes_back_as_it_was(values):
    np.testing.assert_array_equal(round_trip(values), values)


FEATURES = np.random.default_rng(1).normal(size=(5, 7, 4, 3)).astype(np.float32) * 3.0


def sent(values, encoding):
    encoded = encode([values[:2], values[2:]], encoding)
    data = b"".join(encoded.data)
    assert len(data) == nbytes(values.shape, "float32", encoding)
    return decode(encoded.dtype, encoded.shape, encoded.encoding, data)


@pytest.mark.parametrize(("encoding", "share"), [("raw", 1.0), ("fp16", 0.5), ("int8", (12 + 2) / 48)])
def test_encodings_say_how_many_bytes_they_take(encoding, share):
    assert nbytes(FEATURES.shape, "float32", encoding) == pytest.approx(share * FEATURES.nbytes)


def test_half_precision_keeps_three_digits_and_what_is_too_large_its_sign():
    np.testing.assert_allclose(sent(FEATURES, "fp16"), FEATURES, rtol=1e-3, atol=1e-6)
    assert sent(np.full((3, 1), -1e9, np.float32), "fp16").tolist() == [[-65504.0]] * 3


@pytest.mark.parametrize("encoding", ["raw", "fp16", "int8"])
def test_features_of_any_memory_order_are_encoded(encoding):
    np.testing.assert_array_equal(sent(np.asfortranarray(FEATURES), encoding), sent(FEATURES, encoding))


def test_a_byte_keeps_the_largest_of_each_frame_and_channel_and_the_rest_within_half_a_level():
    found = sent(FEATURES, "int8")
    largest = np.abs(FEATURES).max(axis=(2, 3), keepdims=True)
    assert found.dtype == np.float32
    assert (np.abs(found - FEATURES) <= 0.51 * largest / 127.0 + 1e-6).all()
    np.testing.assert_array_equal(sent(FEATURES[1:4], "int8"), found[1:4])


@given(arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=4)))
def test_any_features_come_back_in_a_byte_and_what_is_no_number_as_none(values):
    encoded = encode([values], "int8")
    found = decode(encoded.dtype, encoded.shape, encoded.encoding, b"".join(encoded.data))
    assert found.shape == values.shape
    inner = tuple(range(2, values.ndim))
    broken = np.isnan(values).any(axis=inner, keepdims=True) & np.ones(values.shape, bool)
    assert np.isfinite(found[~broken]).all()
    assert np.isnan(found[broken]).all()


def test_images_travel_raw_whatever_the_encoding():
    encoded = encode([PLAIN.astype(np.uint8)], "int8")
    assert encoded.encoding == "raw"
    assert encode([PLAIN[0, 0]], "int8").encoding == "raw"


def test_bytes_are_little_endian_and_in_c_order():
    encoded = encode([np.array([[1.0, 2.0]], ">f4").T])
    assert b"".join(encoded.data) == np.array([1.0, 2.0], "<f4").tobytes()
    assert encoded.shape == (2, 1)


def test_plain_arrays_are_not_copied():
    (data,) = encode([PLAIN]).data
    assert np.shares_memory(data, PLAIN)
    assert np.shares_memory(decode("float32", PLAIN.shape, "raw", data), PLAIN)


def test_parts_come_back_as_one_array():
    encoded = encode([PLAIN[:1], PLAIN[1:].copy(), PLAIN[:0]])
    assert encoded.shape == PLAIN.shape
    found = decode(encoded.dtype, encoded.shape, encoded.encoding, b"".join(encoded.data))
    np.testing.assert_array_equal(found, PLAIN)


@pytest.mark.parametrize("parts", [[], [PLAIN, PLAIN[:, :2]], [PLAIN, PLAIN.astype(np.uint8)]])
def test_parts_that_are_not_of_one_array_are_refused(parts):
    with pytest.raises(CodecError):
        encode(parts)


@pytest.mark.parametrize(
    ("dtype", "shape", "encoding", "nbytes", "message"),
    [
        ("float32", (2, 3), "raw", 23, "expected 24 bytes"),
        ("float32", (2, 3), "raw", 25, "expected 24 bytes"),
        ("float32", (2, 3), "raw", 0, "expected 24 bytes"),
        ("float64", (2, 3), "raw", 48, "element type"),
        ("object", (1,), "raw", 8, "element type"),
        ("", (), "", 0, "encoding"),
        ("uint8", (2,), "zip", 2, "encoding"),
        ("uint8", (2, 3), "int8", 10, "expected encoding 'raw' for uint8"),
        ("float32", (2,), "int8", 6, "expected encoding 'raw' for float32 of shape"),
        ("float32", (2, 3), "fp16", 24, "expected 12 bytes"),
        ("float32", (2, 3), "int8", 24, "expected 18 bytes"),
        ("uint8", (), "raw", 1, "axes"),
        ("uint8", (1,) * 9, "raw", 1, "axes"),
        ("uint8", (-1, 2), "raw", 2, "axes"),
        ("uint8", (2, -1, -1), "raw", 2, "axes"),
        ("uint8", (5000,), "raw", 5000, "frames in a batch"),
        ("float32", (2**31, 2**31, 2**31), "raw", 0, "frames in a batch"),
        ("float32", (1, 2**32 - 1, 2**32 - 1), "raw", 0, "bytes"),
    ],
)
def test_bytes_that_are_not_what_they_claim_are_refused(dtype, shape, encoding, nbytes, message):
    with pytest.raises(CodecError, match=message):
        decode(dtype, shape, encoding, bytes(nbytes))


@pytest.mark.parametrize("values", [np.float32(1.0), np.array(1, np.uint8), np.zeros(2, np.int64), np.array(["a"])])
def test_arrays_that_do_not_travel_are_refused(values):
    with pytest.raises(CodecError):
        encode([np.asarray(values)])


def test_an_unknown_encoding_is_refused():
    with pytest.raises(CodecError, match="expected an encoding of raw, fp16, int8, got 'zip'"):
        encode([PLAIN], "zip")
    with pytest.raises(CodecError, match="expected an encoding of raw, fp16, int8, got 'zip'"):
        nbytes((2, 3), "float32", "zip")
