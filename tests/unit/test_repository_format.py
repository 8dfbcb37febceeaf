"""The files of a repository: what is written comes back, and a flipped bit never goes unnoticed."""

from __future__ import annotations

import json
import random
import struct
from dataclasses import replace

import pytest
import zstandard
from cryptography.hazmat.primitives.poly1305 import Poly1305
from hypothesis import given
from hypothesis import strategies as st

from holdfast.vaults.repository import compression, config, crypto, index, keys, packs, unpacked
from holdfast.vaults.repository.blobs import (
    LONGEST,
    Kind,
    Located,
    Sealed,
    blob_id,
    check_located,
    seal_blob,
    seal_blobs,
    unseal_blob,
    unseal_blobs,
)
from holdfast.vaults.repository.crypto import OVERHEAD, Key, random_key, seal, unseal
from holdfast.vaults.repository.damage import DamagedError
from holdfast.vaults.repository.packs import MOST_BLOBS, FinishedPack, PackWriter, finish
from holdfast.vaults.repository.table import Table
from tests.restic_world import CHEAP, NOW

KEY = random_key()
OTHER = random_key()


@pytest.fixture(autouse=True)
def _cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "OURS", CHEAP)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def some_bits(data: bytes, seed: int = 0) -> list[int]:
    """Return the first and last bits, and a hundred between."""
    edges = [0, 1, 127, 128, len(data) * 8 - 129, len(data) * 8 - 1]
    return [*edges, *random.Random(seed).sample(range(len(data) * 8), 100)]


# --- crypto --------------------------------------------------------------------------------------


def test_the_vectors_of_poly1305_aes() -> None:
    """From Bernstein's paper, appendix B: the message is 2 bytes, f3 f6."""
    key = Key(
        bytes(31) + b"\1",
        bytes.fromhex("ec074c835580741701425b623235add6"),
        bytes.fromhex("851fc40c3467ac0be05cc20404f3f700"),
    )
    one_time = crypto._Ciphers(key).one_time(bytes.fromhex("fb447350c4e868c52ac3275cf9d4327e"))
    tag = Poly1305.generate_tag(one_time, bytes.fromhex("f3f6"))
    assert tag.hex() == "f4c633c3044fc145f84f335cb81953de"


@given(st.binary(max_size=3000))
def test_what_is_sealed_comes_back(plain: bytes) -> None:
    sealed = seal(KEY, plain)
    assert len(sealed) == len(plain) + OVERHEAD
    assert unseal(KEY, sealed) == plain
    assert seal(KEY, plain) != sealed
    with pytest.raises(DamagedError):
        unseal(OTHER, sealed)


def test_every_flipped_bit_and_every_cut_is_noticed() -> None:
    sealed = seal(KEY, b"content")
    for bit in range(len(sealed) * 8):
        with pytest.raises(DamagedError):
            unseal(KEY, flipped(sealed, bit))
    for length in range(len(sealed)):
        with pytest.raises(DamagedError):
            unseal(KEY, sealed[:length])
        with pytest.raises(DamagedError):
            unseal(KEY, sealed[length + 1 :])


def test_blobs_are_unsealed_together_as_they_are_alone() -> None:
    chance = random.Random(7)
    plains = [b"text " * 9, chance.randbytes(40), b"long " * 50_000, b"more " * 99, b"m" * 99]
    sealed = seal_blobs(KEY, [(Kind.DATA, blob_id(plain), plain) for plain in plains])
    blobs = [
        (Located(one.kind, one.id, 0, len(one.data), one.size, one.compressed), one.data)
        for one in sealed
    ]
    assert dict(unseal_blobs(KEY, blobs)) == {blob_id(plain): plain for plain in plains}
    for at, (blob, stored) in enumerate(blobs):
        others = [(another, data) for another, data in blobs if another is not blob]
        for wrong in (
            (replace(blob, id=blob_id(b"another")), stored),
            (replace(blob, size=0, compressed=True), stored),
            (blob, stored[:-1]),
            (blob, flipped(bytes(stored), 40)),
        ):
            with pytest.raises(DamagedError):
                list(unseal_blobs(KEY, [*others[:at], wrong, *others[at:]]))


def test_a_key_is_never_shown() -> None:
    for text in (repr(KEY), str(KEY), f"{KEY}", repr([KEY])):
        assert "encrypt" not in text
        assert KEY.encrypt.hex() not in text
        assert repr(KEY.encrypt) not in text


@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_of_other_sizes_and_zero_keys_are_refused(size: int) -> None:
    with pytest.raises(DamagedError):
        Key(b"x" * size, b"k" * 16, b"r" * 16)
    for zero in range(3):
        parts = [b"x" * 32, b"k" * 16, b"r" * 16]
        parts[zero] = bytes(len(parts[zero]))
        with pytest.raises(DamagedError):
            Key(*parts)


# --- compression ---------------------------------------------------------------------------------


@given(st.binary(max_size=5000))
def test_what_is_compressed_comes_back(plain: bytes) -> None:
    assert compression.expand(compression.compress(plain), len(plain)) == plain


def test_frames_that_do_not_say_their_size_come_back() -> None:
    plain = bytes(100_000) + b"x"
    streaming = zstandard.ZstdCompressor().compressobj()
    frame = streaming.compress(plain) + streaming.flush()
    assert zstandard.frame_content_size(frame) == -1
    assert compression.expand(frame, len(plain)) == plain
    with pytest.raises(DamagedError):
        compression.expand(frame, len(plain) - 1)


def test_expansion_is_bounded_before_memory_is_given() -> None:
    bomb = compression.compress(bytes(1 << 30))
    assert len(bomb) < 100_000
    with pytest.raises(DamagedError):
        compression.expand(bomb, 1 << 20)
    liar = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 62) + b"\0" * 20
    with pytest.raises(DamagedError):
        compression.expand(liar, 1 << 20)


@pytest.mark.parametrize("frame", [b"", b"x", b"\x28\xb5\x2f\xfd", bytes(100)])
def test_what_is_no_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(DamagedError):
        compression.expand(frame, 100)
    with pytest.raises(DamagedError):
        compression.expand(compression.compress(b"abc") + b"more", 100)


@given(st.lists(st.binary(max_size=500), max_size=6))
def test_what_is_unpacked_together_is_what_it_is_alone(plains: list[bytes]) -> None:
    frames = [compression.compress(plain) for plain in plains]
    assert compression.expand_all(frames, [*map(len, plains)]) == plains


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"x",
        b"\x28\xb5\x2f\xfd",
        bytes(100),
        compression.compress(bytes(1 << 20)),
        compression.compress(b"x" * 100)[:-3],
        b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 62) + b"\0" * 20,
    ],
)
def test_one_frame_that_lies_is_refused_in_any_company(place: int, frame: bytes) -> None:
    frames = [compression.compress(b"ab" * 50) for _ in range(2)]
    frames.insert(place, frame)
    with pytest.raises(DamagedError):
        compression.expand_all(frames, [100, 100, 100])


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [True, False])
def test_documents_come_back_under_their_name(*, compressed: bool) -> None:
    document = unpacked.to_json({"ä": ["<&>", None, 1]})
    name, stored = unpacked.encode(KEY, document, compressed=compressed)
    assert unpacked.decode(KEY, stored, name, 1000) == document
    with pytest.raises(DamagedError, match="named"):
        unpacked.decode(KEY, stored, "0" * 64, 1000)
    for bit in some_bits(stored):
        with pytest.raises(DamagedError):
            unpacked.decode(KEY, flipped(stored, bit), name, 1000)
        with pytest.raises(DamagedError):
            unpacked.decode(KEY, flipped(stored, bit), None, 1000)


def test_encodings_of_the_future_and_expansions_are_refused() -> None:
    with pytest.raises(DamagedError, match="newer"):
        unpacked.decode(KEY, seal(KEY, b"\x03abc"), None, 1000)
    with pytest.raises(DamagedError, match="more than"):
        unpacked.decode(KEY, unpacked.encode(KEY, b"[" * 1001)[1], None, 1000)


@pytest.mark.parametrize("document", [b"", b"[]", b"1", b"\xff", b"{", b"[" * 100_000])
def test_documents_must_be_objects(document: bytes) -> None:
    with pytest.raises(DamagedError):
        unpacked.from_json(document)


# --- config --------------------------------------------------------------------------------------


def test_a_config_comes_back() -> None:
    made = config.new_config()
    stored = config.encode_config(KEY, made)
    assert config.decode_config(KEY, stored) == made
    assert made.version == 2
    assert made.polynomial.bit_length() == 54
    for bit in some_bits(stored):
        with pytest.raises(DamagedError):
            config.decode_config(KEY, flipped(stored, bit))


def test_irreducible_polynomials_are_told_from_others() -> None:
    # restic's own tests: its default polynomial, and products.
    for one in (0b10, 0b111, 0b1011, 0x3DA3358B4DC173, 0x25B468838DCB75):
        assert config.is_irreducible(one)
    for one in (0b101, 0b110, 0b10101, 0x38F1E565E288DF, 0x3DA3358B4DC173 << 1):
        assert not config.is_irreducible(one)


@pytest.mark.parametrize(
    "change",
    [{"id": "x"}, {"id": 7}, {"version": "2"}, {"version": None}, {"chunker_polynomial": "xyz"}],
)
def test_a_config_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    good = {"version": 2, "id": "ab" * 32, "chunker_polynomial": "25b468838dcb75"}
    document = unpacked.to_json(good | change)
    with pytest.raises(DamagedError):
        config.decode_config(KEY, unpacked.encode(KEY, document, compressed=False)[1])


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("password", ["correct horse", "", "ä€😀\udcff", "x" * 10_000])
def test_a_password_opens_its_key_and_no_other(password: str) -> None:
    name, stored = keys.make_key_file(password, KEY, NOW, "me")
    assert keys.open_key_file(name, stored, password) == KEY
    assert keys.open_key_file(name, stored, password + "x") is None
    assert keys.describe(name, stored).username == "me"
    assert KEY.encrypt.hex() not in stored.decode()


def test_flipped_bits_of_a_key_file_are_noticed() -> None:
    name, stored = keys.make_key_file("pw", KEY, NOW, "me")
    for bit in some_bits(stored):
        with pytest.raises(DamagedError, match="named for"):
            keys.open_key_file(name, flipped(stored, bit), "pw")
        with pytest.raises(DamagedError):
            keys.describe(name, flipped(stored, bit))


def key_file(change: dict[str, object]) -> tuple[str, bytes]:
    _name, stored = keys.make_key_file("pw", KEY, NOW, "me")
    changed = unpacked.to_json(json.loads(stored) | change)
    return unpacked.name_of(changed), changed


@pytest.mark.parametrize(
    "change",
    [
        {"kdf": "md5"}, {"N": 1 << 30}, {"N": 1 << 20}, {"N": 1}, {"N": 0}, {"N": -2}, {"N": 1000},
        {"r": 0},
        {"r": 1 << 20}, {"p": 1 << 30}, {"p": 0}, {"N": "x"}, {"N": None}, {"N": 1024.0},
        {"salt": ""}, {"salt": "?"}, {"salt": None}, {"data": "?"}, {"salt": "QUJD"},
    ],
)  # fmt: skip
def test_key_files_that_cannot_be_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(DamagedError):
        keys.open_key_file(*key_file(change), "pw")


def test_a_key_file_with_another_password_s_data_does_not_open() -> None:
    assert keys.open_key_file(*key_file({"data": ""}), "pw") is None


def test_of_many_keys_those_that_open_are_given() -> None:
    files = dict(keys.make_key_file(word, KEY, NOW, "me") for word in ("one", "two", "two"))
    assert len(list(keys.opened_by("two", files, files.__getitem__))) == 2
    assert list(keys.opened_by("three", files, files.__getitem__)) == []
    broken = {name: stored + b" " for name, stored in files.items()}
    with pytest.raises(DamagedError):
        list(keys.opened_by("two", broken, broken.__getitem__))
    name = next(iter(files))
    mixed = files | {name: b"x"}
    assert list(keys.opened_by("two", mixed, mixed.__getitem__))


def test_a_folder_full_of_keys_does_not_take_minutes() -> None:
    tried = []

    def read(name: str) -> bytes:
        tried.append(name)
        return b"x"

    with pytest.raises(DamagedError):
        list(keys.opened_by("pw", [str(number) for number in range(1000)], read))
    assert len(tried) == keys.MOST_TRIED


# --- packs ---------------------------------------------------------------------------------------


def packed(*plain: bytes, kind: Kind = Kind.DATA) -> tuple[FinishedPack, bytes]:
    writer = PackWriter()
    for one in plain:
        writer.add(seal_blob(KEY, kind, blob_id(one), one))
    pack = finish(KEY, writer.take())
    return pack, b"".join(pack.chunks())


def header_of(stored: bytes) -> list[Located]:
    def part(start: int, length: int) -> bytes:
        assert 0 <= start <= start + length <= len(stored)
        return stored[start : start + length]

    return packs.read_header(KEY, len(stored), part)


@given(st.lists(st.one_of(st.binary(max_size=300), st.just(bytes(5000))), max_size=8))
def test_packs_come_back(plain: list[bytes]) -> None:
    pack, stored = packed(*plain)
    assert pack.size == len(stored)
    assert pack.pack.id.hex() == unpacked.name_of(stored)
    assert pack.name == f"data/{pack.pack.id.hex()[:2]}/{pack.pack.id.hex()}"
    assert packs.pack_of(pack.name) == pack.pack.id
    located = header_of(stored)
    assert located == list(pack.pack.blobs)
    read = [unseal_blob(KEY, one, stored[one.offset : one.offset + one.length]) for one in located]
    assert read == plain


def test_headers_longer_than_the_tail_are_read_too() -> None:
    pack, stored = packed(*(b"%d" % number for number in range(1000)))
    assert header_of(stored) == list(pack.pack.blobs)


@pytest.mark.parametrize("name", ["data/00/" + "ab" * 32, "data/x", "index/" + "ab" * 32, "data"])
def test_other_files_are_no_packs(name: str) -> None:
    assert packs.pack_of(name) is None


def test_flipped_bits_of_a_pack_are_noticed() -> None:
    plain = [bytes(3000), b"abc", random.Random(1).randbytes(500)]
    pack, stored = packed(*plain)
    first = pack.pack.blobs[-1].offset + pack.pack.blobs[-1].length
    for bit in some_bits(stored):
        changed = flipped(stored, bit)
        if bit // 8 >= first:
            with pytest.raises(DamagedError):
                header_of(changed)
        else:
            wrong = 0
            for blob in pack.pack.blobs:
                try:
                    unseal_blob(KEY, blob, changed[blob.offset : blob.offset + blob.length])
                except DamagedError:
                    wrong += 1
            assert wrong == 1


@pytest.mark.parametrize("length", [0, 3, 31, 35, 36])
def test_cut_packs_are_noticed(length: int) -> None:
    _pack, stored = packed(b"abc")
    with pytest.raises(DamagedError):
        header_of(stored[:length])
    with pytest.raises(DamagedError):
        header_of(stored[length + 1 :])


@pytest.mark.parametrize(
    "header",
    [
        b"\4" + bytes(36), b"\0" + bytes(35), b"\2" + bytes(39), b"\xff",
        struct.pack("<BI32s", 0, 31, bytes(32)),
        struct.pack("<BI32s", 0, 0xFFFFFFFF, bytes(32)),
        struct.pack("<BII32s", 2, 100, 0xFFFFFFFF, bytes(32)),
    ],
)  # fmt: skip
def test_headers_that_cannot_be_are_refused(header: bytes) -> None:
    with pytest.raises(DamagedError):
        packs.parse_header(header)


def test_a_header_describes_all_of_its_pack() -> None:
    _pack, stored = packed(b"abc")
    with pytest.raises(DamagedError, match="before it"):
        header_of(b"x" + stored)


def test_a_pack_writer_tells_when_it_is_full() -> None:
    writer = PackWriter(target=100)
    blob = seal_blob(KEY, Kind.TREE, blob_id(b"x" * 30), b"x" * 30)
    writer.add(blob)
    assert not writer.full
    writer.add(blob)
    assert writer.full == (2 * len(blob.data) >= 100)
    assert len(writer.take()) == 2
    assert (writer.size, writer.full) == (0, False)
    assert MOST_BLOBS * 41 < packs.LARGEST_HEADER


def test_another_blob_in_its_place_is_noticed() -> None:
    one, other = (seal_blob(KEY, Kind.DATA, blob_id(p), p) for p in (b"one", b"two"))
    where = Located(Kind.DATA, one.id, 0, len(one.data), one.size, compressed=False)
    with pytest.raises(DamagedError, match="other content"):
        unseal_blob(KEY, where, other.data)
    bomb = compression.compress(bytes(1 << 20))
    sealed = seal(KEY, bomb)
    where = Located(Kind.DATA, one.id, 0, len(sealed), 3, compressed=True)
    with pytest.raises(DamagedError, match="unpacks"):
        unseal_blob(KEY, where, sealed)


@pytest.mark.parametrize(
    "change",
    [{"offset": -1}, {"offset": 1 << 32}, {"length": 31}, {"size": -1}, {"id": b""},
     {"length": 1 << 31}, {"size": LONGEST[Kind.DATA] + 1}],
)  # fmt: skip
def test_places_that_cannot_be_are_refused(change: dict[str, object]) -> None:
    good = Located(Kind.DATA, bytes(32), 0, 100, 200, compressed=True)
    assert check_located(good) is good
    with pytest.raises(DamagedError):
        check_located(replace(good, **change))  # type: ignore[arg-type]


# --- index ---------------------------------------------------------------------------------------


def sealed(number: int, kind: Kind = Kind.DATA) -> Sealed:
    plain = b"%d" % number * 20
    return seal_blob(KEY, kind, blob_id(plain), plain)


def test_an_index_knows_what_was_added_and_saved() -> None:
    one = index.Index()
    made = [finish(KEY, [sealed(n * 10 + i) for i in range(5)]) for n in range(4)]
    trees_ = finish(KEY, [sealed(n, Kind.TREE) for n in range(3)])
    for pack in (*made, trees_):
        one.add(pack.pack)
    documents: list[bytes] = []
    one.save(documents.append, everything=False)
    assert documents == []
    one.save(documents.append, everything=True)
    one.save(documents.append, everything=True)
    assert len(documents) == 1
    other = index.Index()
    for _again in range(2):
        other.load(documents[0])
    assert len(other) == len(one) == 23
    for pack in (*made, trees_):
        for blob in pack.pack.blobs:
            for known in (one, other):
                assert known.has(blob.kind, blob.id)
                assert known.lookup(blob.kind, blob.id) == index.Place(pack.pack.id, blob)
    assert sorted(place.blob.id for place in other.everything()) == sorted(
        blob.id for pack in (*made, trees_) for blob in pack.pack.blobs
    )
    assert set(other.packs()) == {pack.pack.id for pack in (*made, trees_)}
    assert not other.has(Kind.TREE, blob_id(b"no such"))


def test_a_blob_in_two_packs_has_two_places() -> None:
    known = index.Index()
    twice = [finish(KEY, [sealed(1), sealed(2 + n)]) for n in range(2)]
    for pack in twice:
        known.add(pack.pack)
    id_ = sealed(1).id
    assert [place.pack for place in known.places(Kind.DATA, id_)] == [p.pack.id for p in twice]


def test_a_blob_is_claimed_once() -> None:
    known = index.Index()
    blob = sealed(1)
    assert known.claim(Kind.DATA, blob.id)
    assert not known.claim(Kind.DATA, blob.id)
    assert known.claim(Kind.TREE, blob.id)
    known.add(finish(KEY, [blob]).pack)
    assert not known.claim(Kind.DATA, blob.id)


def test_what_could_not_be_saved_is_saved_next_time() -> None:
    known = index.Index()
    known.add(finish(KEY, [sealed(1)]).pack)

    def fail(_document: bytes) -> None:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - the one above
        known.save(fail, everything=True)
    documents: list[bytes] = []
    known.save(documents.append, everything=True)
    assert len(documents) == 1


def test_index_files_are_ended_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "BLOBS_PER_FILE", 4)
    known = index.Index()
    documents: list[bytes] = []
    for number in range(5):
        known.add(finish(KEY, [sealed(number * 2), sealed(number * 2 + 1)]).pack)
    known.save(documents.append, everything=False)
    assert len(documents) == 2
    known.save(documents.append, everything=True)
    assert len(documents) == 3


BLOB = {"id": "ab" * 32, "type": "data", "offset": 0, "length": 100}


@pytest.mark.parametrize(
    "packs_",
    [
        7, [7], [{}], [{"id": "x"}], [{"id": "00" * 32}], [{"id": "00" * 31, "blobs": []}],
        [{"id": "00" * 32, "blobs": [7]}], [{"id": "00" * 32, "blobs": [BLOB | {"type": "x"}]}],
        [{"id": "00" * 32, "blobs": [BLOB | {"offset": -1}]}],
        [{"id": "00" * 32, "blobs": [BLOB | {"length": 1 << 32}]}],
        [{"id": "00" * 32, "blobs": [BLOB | {"length": "x"}]}],
        [{"id": "00" * 32, "blobs": [BLOB | {"uncompressed_length": 1.5}]}],
        [{"id": "00" * 32, "blobs": [BLOB | {"id": None}]}],
        [{"id": None, "blobs": []}],
    ],
)  # fmt: skip
def test_an_index_that_cannot_be_is_refused(packs_: object) -> None:
    with pytest.raises(DamagedError):
        index.Index().load(json.dumps({"packs": packs_}).encode())


@pytest.mark.parametrize(
    "change", [{"length": 31}, {"offset": (1 << 32) - 5}, {"uncompressed_length": (1 << 32) - 1}]
)
def test_a_place_that_cannot_be_is_refused_when_it_is_asked_for(change: dict[str, int]) -> None:
    known = index.Index()
    known.load(json.dumps({"packs": [{"id": "00" * 32, "blobs": [BLOB | change]}]}).encode())
    with pytest.raises(DamagedError):
        known.lookup(Kind.DATA, bytes.fromhex("ab" * 32))


def test_bytes_across_two_fields_are_no_id() -> None:
    record = bytes(6) + b"\1" * 26 + b"rest"
    table = Table(4)
    table.add(record)
    assert table.has(record[:32])
    assert not table.has(record[4:])


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=40), st.randoms())
def test_a_table_gives_what_was_added(found: list[bytes], chance: random.Random) -> None:
    """Also where records look like each other when they are not read from their beginning."""
    short = [bytes((0, 0)) + id_[:1] * 30 for id_ in found]
    table = Table(4)
    records = [id_ + chance.choice([b"\0" * 4, id_[:4]]) for id_ in (*found, *short)]
    for record in records:
        table.add(record)
    assert len(table) == len(records)
    assert sorted(table.records()) == sorted(records)
    for record in records:
        assert list(table.find(record[:32])) == [r for r in records if r[:32] == record[:32]]
    assert not table.has(b"\xff" * 32) or b"\xff" * 32 in found
