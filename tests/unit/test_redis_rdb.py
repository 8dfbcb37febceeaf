"""RDB files are read as the servers write them: types, checksums, damage, and what is too new."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.sources._redis_crc import _TABLE, crc64
from holdfast.sources._redis_lzf import expanded
from holdfast.sources._redis_rdb import (
    RdbDamaged,
    RdbTooNew,
    Summary,
    module_name,
    rdb_items,
    read_rdb,
)
from holdfast.sources._redis_scan import length
from holdfast.sources._redis_view import matcher

NUMBER = 0xC0


def string(data: bytes) -> bytes:
    return length(len(data)) + data


def rdb(body: bytes, head: bytes = b"REDIS0012", crc: bytes | None = None) -> bytes:
    data = head + body + b"\xff"
    return data + (crc64(data).to_bytes(8, "little") if crc is None else crc)


def key(kind: int, value: bytes, name: bytes = b"key") -> bytes:
    return bytes([kind]) + string(name) + value


def in_pieces(data: bytes, size: int = 1 << 20) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def read(data: bytes, size: int = 1 << 20) -> Summary:
    return read_rdb(in_pieces(data, size))


# --- the checksum ---


def plainly(data: bytes, crc: int = 0) -> int:
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc


def test_the_checksum_is_the_published_one() -> None:
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA


@given(st.integers(0, 200_000), st.integers(0, 2**64 - 1), st.integers(0, 100))
def test_the_fast_checksum_is_the_plain_one(size: int, before: int, seed: int) -> None:
    data = random.Random(seed).randbytes(size)
    assert crc64(data, before) == plainly(data, before)


@given(st.binary(max_size=3000), st.binary(max_size=3000))
def test_a_checksum_goes_on(one: bytes, other: bytes) -> None:
    assert crc64(other, crc64(one)) == crc64(one + other)


# --- compressed strings ---


def test_compressed_strings_are_expanded() -> None:
    assert expanded(b"\x00a\xe0\x59\x00", 99) == b"a" * 99
    assert expanded(b"\x02abc\x20\x02", 6) == b"abcabc"
    assert expanded(b"", 0) == b""


@given(st.binary(max_size=60), st.integers(0, 200))
def test_what_is_not_compressed_is_refused_and_nothing_worse(data: bytes, size: int) -> None:
    with suppress(ValueError):
        assert len(expanded(data, size)) == size


# --- every kind of value ---

ID = bytes(16)
PENDING = length(1) + ID + bytes(8) + length(2)
STREAM_1 = length(1) + string(ID) + string(b"listpack") + length(3) + length(1) + length(0)
STREAM_2 = STREAM_1 + length(1) * 5
GROUP_1 = length(1) + string(b"group") + length(1) + length(0) + PENDING
GROUP_2 = length(1) + string(b"group") + length(1) + length(0) + length(2**64 - 1) + PENDING
CONSUMER_2 = length(1) + string(b"one") + bytes(8) + length(1) + ID
CONSUMER_3 = length(1) + string(b"one") + bytes(16) + length(1) + ID
SCORE = struct.pack("<d", 1.5)
MODULE = length(module := 0x0123456789ABCDEF) + length(2) + length(7) + length(3) + bytes(4)
MODULE += length(4) + bytes(8) + length(5) + string(b"text") + length(1) + length(9) + length(0)
VALUES = {
    0: string(b"value"),
    1: length(2) + string(b"a") + string(b"b" * 70),
    2: length(1) + bytes([NUMBER, 5]),
    3: length(3) + string(b"a") + b"\x031.5" + string(b"b") + b"\xfd" + string(b"c") + b"\xfe",
    4: length(1) + string(b"field") + b"\xc3" + length(5) + length(99) + b"\x00a\xe0\x59\x00",
    5: length(2) + (string(b"a") + SCORE) * 2,
    7: MODULE,
    **dict.fromkeys((9, 10, 11, 12, 13, 16, 17, 20, 23), string(b"packed" * 50)),
    14: length(2) + string(b"ziplist") * 2,
    15: STREAM_1 + GROUP_1 + CONSUMER_2,
    18: length(2) + (length(2) + string(b"listpack")) * 2,
    19: STREAM_2 + GROUP_2 + CONSUMER_2,
    21: STREAM_2 + GROUP_2 + CONSUMER_3,
    22: length(1) + length(3) + string(b"field") + string(b"value"),
    24: bytes(8) + length(1) + length(3) + string(b"field") + string(b"value"),
    25: bytes(8) + string(b"listpack"),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_every_kind_of_value_is_stepped_over(kind: int, size: int) -> None:
    before, after = key(0, string(b"x"), b"before"), key(0, string(b"y"), b"after")
    data = rdb(b"\xfe\x00\xfb\x03\x00" + before + key(kind, VALUES[kind]) + after)
    assert read(data, size).keys == {0: 3}
    items = list(rdb_items(in_pieces(data, size)))
    assert [item.key for item in items] == [b"before", b"key", b"after"]
    assert data[items[1].start : items[1].end] == VALUES[kind]
    for cut in range(len(data)):
        with pytest.raises(RdbDamaged):
            read(data[:cut])


def test_the_hash_of_valkey_9_is_another() -> None:
    value = length(1) + string(b"field") + string(b"value") + bytes(8)
    assert read(rdb(key(22, value), b"VALKEY080")).keys == {0: 1}


def test_records_between_keys_are_understood() -> None:
    body = b"\xfa" + string(b"redis-ver") + string(b"7.0.15")
    body += b"\xfa" + string(b"ctime") + b"\xc2" + (1_700_000_000).to_bytes(4, "little")
    body += b"\xf7" + MODULE  # data of a module apart from the keys
    body += b"\xf5" + string(b"#!lua name=one") + b"\xf5" + string(b"#!lua name=two")
    body += b"\xfe\x00\xfb\x02\x01" + b"\xf4\x05\x02\x01"
    body += b"\xfc" + (123).to_bytes(8, "little") + b"\xf9\x07" + key(0, string(b"x"), b"a")
    body += b"\xfd" + (4).to_bytes(4, "little") + b"\xf8\x40\x90" + key(0, string(b"x"), b"b")
    body += b"\xfe\x40\x80" + key(0, string(b"x" * 100), b"c" * 100) + key(0, string(b"x"), b"d")
    found = read(rdb(body))
    assert (found.keys, found.expiring) == ({0: 2, 128: 2}, {0: 2})
    assert (found.functions, found.modules) == (2, {module_name(module)})
    assert found.aux == {"redis-ver": "7.0.15", "ctime": "1700000000"}
    items = list(rdb_items(in_pieces(rdb(body), 3)))
    assert [(item.key[:1], item.database, item.expires) for item in items] == [
        (b"", 0, None),
        (b"", 0, None),
        (b"a", 0, 123),
        (b"b", 0, 4000),
        (b"c", 128, None),
        (b"d", 128, None),
    ]


def test_encoded_keys_are_read() -> None:
    names = [bytes([NUMBER, 0xFF]), b"\xc1\x00\x80", b"\xc2\x00\x00\x00\x80"]
    names.append(b"\xc3" + length(5) + length(99) + b"\x00a\xe0\x59\x00")
    body = b"".join(b"\x00" + name + string(b"x") for name in names)
    items = list(rdb_items(in_pieces(rdb(body))))
    assert [item.key for item in items] == [b"-1", b"-32768", b"-2147483648", b"a" * 99]
    assert read(rdb(body)).keys == {0: 4}


def test_many_keys_are_counted_whatever_the_pieces() -> None:
    chance = random.Random(7)
    body = bytearray()
    for number in range(1000):
        name = b"%d" % number * chance.randrange(1, 30)
        if number % 5 == 0:
            body += b"\xfc" + bytes(8)
        body += key(0, string(b"v" * chance.choice([0, 5, 63, 64, 300, 3000])), name)
    data = rdb(bytes(body))
    for size in (13, 4096, 1 << 20):
        found = read(data, size)
        assert (found.keys[0], found.expiring[0], found.size) == (1000, 200, len(data))
        assert sum(1 for _item in rdb_items(in_pieces(data, size))) == 1000


# --- what is refused ---


@given(st.integers(0, 1 << 30), st.integers(0, 7))
def test_every_flipped_bit_is_found(place: int, bit: int) -> None:
    data = bytearray(rdb(b"".join(key(kind, value) for kind, value in VALUES.items())))
    data[place % len(data)] ^= 1 << bit
    with pytest.raises((RdbDamaged, RdbTooNew)):
        read(bytes(data))


@given(st.binary(max_size=300))
def test_anything_else_is_refused_and_nothing_worse(data: bytes) -> None:
    for whole in (data, b"REDIS0012" + data):
        with pytest.raises((RdbDamaged, RdbTooNew)):
            read(whole)


@pytest.mark.parametrize("head", [b"REDIS0013", b"VALKEY081", b"VALKEY079", b"REDIS0099"])
def test_later_versions_are_not_guessed_at(head: bytes) -> None:
    with pytest.raises(RdbTooNew):
        read(rdb(b"", head))


def test_unknown_types_and_records_are_not_guessed_at() -> None:
    for body in (key(26, string(b"x")), key(6, string(b"x")), b"\xf3\x00"):
        with pytest.raises(RdbTooNew):
            read(rdb(body))


def test_a_server_may_write_no_checksum() -> None:
    assert not read(rdb(key(0, string(b"x")), crc=bytes(8))).checksummed


def test_a_length_that_cannot_be_is_not_believed() -> None:
    for body in (b"\xfa\x81" + b"\x10" * 8, b"\xfa\x80\x10\x00\x00\x00"):
        with pytest.raises(RdbDamaged, match="a name of"):
            read(rdb(body + bytes(100)))


def test_what_follows_the_end_is_damage() -> None:
    with pytest.raises(RdbDamaged, match="follows"):
        read(rdb(b"") + b"x")


# --- patterns ---


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*", ["", "a", "a\nb"], []),
        ("job:*", ["job:", "job:1"], ["jo", "xjob:1"]),
        ("h?llo", ["hello", "h\nllo"], ["hllo", "heello"]),
        ("h[ae]llo", ["hello", "hallo"], ["hillo"]),
        ("h[^e]llo", ["hallo"], ["hello"]),
        ("h[a-c]llo", ["hbllo"], ["hdllo"]),
        ("h[c-a]llo", ["hbllo"], ["hdllo"]),
        (r"h\*llo", ["h*llo"], ["hello"]),
        (r"h[\]x]llo", ["h]llo", "hxllo"], ["h\\llo"]),
        ("[", [], ["["]),
        ("a.b", ["a.b"], ["axb"]),
        ("a\\", ["a\\"], ["a"]),
    ],
)
def test_patterns_are_those_of_redis(pattern: str, matching: list[str], others: list[str]) -> None:
    match = matcher(pattern).fullmatch
    assert [text for text in matching if not match(text.encode())] == []
    assert [text for text in others if match(text.encode())] == []
