import gc
import io
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes
from PIL import Image

from amn_dist.errors import ShardError
from amn_dist.shards.format import ENDINGS, check_field, check_key, decode, encode, kind_of


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float16).reshape(2, 3, 4),
        np.array(3.5, np.float32),
        np.zeros((0, 4, 4), np.float32),
        np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3)),
        np.array([True, False]),
        np.arange(3, dtype=">i4"),
    ],
)
def test_npy_returns_what_went_in(array: np.ndarray) -> None:
    decoded = decode("activation.npy", encode("activation.npy", array))
    assert decoded.shape == array.shape
    assert decoded.dtype == array.dtype.newbyteorder("<")
    assert np.array_equal(decoded, array)
    assert decoded.flags.writeable


def test_threads_read_headers_while_garbage_is_collected() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            for _ in range(50):  # a finaliser in Python lets other threads on
                pass

    content = encode("x.npy", np.zeros((2, 3, 4), np.float32))

    def read(_: int) -> None:
        for _ in range(2000):
            Cycle()
            assert decode("x.npy", content).shape == (2, 3, 4)

    before, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(3)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read, range(8)))
    finally:
        gc.set_threshold(*before)
        sys.setswitchinterval(interval)


def test_npy_is_plain_numpy() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(np.load(io.BytesIO(encode("x.npy", array)), allow_pickle=False), array)


def test_labels_return_what_went_in_and_same_bytes() -> None:
    ids = np.random.default_rng(0).integers(0, 256, (31, 47), dtype=np.uint8)
    content = encode("seed.png", ids)
    assert np.array_equal(decode("seed.png", content), ids)
    assert content == encode("seed.png", ids.copy(order="F"))
    assert Image.open(io.BytesIO(content)).mode == "L"


def test_palette_ids_are_read_not_colours() -> None:
    ids = np.array([[0, 1, 2], [255, 7, 1]], np.uint8)
    image = Image.fromarray(ids, "P")
    image.putpalette([90, 20, 200] * 256)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    assert np.array_equal(decode("gt.png", stream.getvalue()), ids)


def test_tags_are_raw_bytes() -> None:
    tags = np.array([1, 0, 1], np.uint8)
    assert encode("tags", tags) == b"\x01\x00\x01"
    assert np.array_equal(decode("tags", b"\x01\x00\x01"), tags)


@pytest.mark.parametrize(
    ("field", "array", "message"),
    [
        ("mask.png", np.zeros((3, 3), np.int32), "uint8"),
        ("mask.png", np.zeros((3, 3, 3), np.uint8), "uint8"),
        ("tags", np.array([0, 2], np.uint8), "2"),
        ("tags", np.zeros((2, 2), np.uint8), "uint8"),
        ("x.npy", np.array([{}], object), "object"),
        ("x.jpg", np.zeros((3, 3), np.uint8), "x.jpg"),
    ],
)
def test_wrong_arrays_are_refused(field: str, array: np.ndarray, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        encode(field, array)


KINDS = {
    "tags": np.array([0, 1], np.uint8),
    "labels": np.full((2, 3), 255, np.uint8),
    "regions": np.full((2, 3), 999, np.uint16),
    "maps": np.ones((1, 2, 3), np.float16),
    "masks": np.array([2, 3, 1, 5, 0, 2, 4], np.int32),
    "array": np.ones(3),
}


@pytest.mark.parametrize("field", ["tags", *(f"x{ending}" for ending in ENDINGS)])
def test_whatever_has_a_kind_is_encoded_and_decoded(field: str) -> None:
    array = KINDS[str(kind_of(field))]
    decoded = decode(field, encode(field, array))
    assert decoded.dtype == array.dtype and np.array_equal(decoded, array)


@pytest.mark.parametrize("field", ["json", "x.json", "jpg", "png", "f16", "x.png.gz", "my_tags"])
def test_what_has_no_kind_is_bytes_alone(field: str) -> None:
    assert kind_of(field) is None
    with pytest.raises(ShardError, match=rf"field {field}: only tags and \*\.u16\.png"):
        decode(field, b"")


def gray(bits: int) -> bytes:
    """A 2x2 gray PNG of a bit depth that Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + name + content + zlib.crc32(name + content).to_bytes(4)

    head = (2).to_bytes(4) + (2).to_bytes(4) + bytes([bits, 0, 0, 0, 0])
    rows = zlib.compress(b"\0\x80\0\x40")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gray_that_decoders_stretch_is_refused(bits: int) -> None:
    with pytest.raises(ShardError, match=f"{bits}-bit gray"):
        decode("mask.png", gray(bits))


def test_damaged_labels_are_refused() -> None:
    content = encode("mask.png", np.random.default_rng(0).integers(0, 9, (64, 64), dtype=np.uint8))
    for damaged in (b"", content[:20], content[: len(content) // 2], b"hello there, not a picture at all......"):
        with pytest.raises(ShardError):
            decode("mask.png", damaged)


def test_npy_that_lies_about_its_size_is_refused_before_allocation() -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (1 << 50, 8)})
    with pytest.raises(ShardError, match="declares"):
        decode("x.npy", stream.getvalue() + b"\0" * 64)


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


def described(descr: str = "'<f4'", shape: str = "(2,)", more: str = "") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}{more}}}"


@pytest.mark.parametrize(
    "content",
    [
        npy(described(shape="(True, 3)"), bytes(12)),
        npy(described(shape=f"(0, {10**30})")),
        npy(described(shape=f"(0, {2**31 - 1}, {2**31 - 1}, {2**31 - 1})")),
        npy(described(shape=f"({'1,' * 70})"), bytes(4)),
        npy(described(shape="(1,)", more=", 'shape': (2,)"), bytes(8)),
        npy(described(descr="('<f4',)")),
        npy(described(descr="'<f16'", shape="(1,)"), bytes(16)),
        npy("{[]: 1}"),
        npy("{" * 90 + "}" * 90),
        npy("-" * 5000 + "1"),
        npy("(" * 3000),
    ],
)
def test_npy_headers_that_nobody_means_are_refused(content: bytes) -> None:
    assert decode("x.npy", npy(described(), bytes(8))).shape == (2,)
    with pytest.raises(ShardError, match=r"is an \.npy|is not an \.npy") as caught:
        decode("x.npy", content)
    assert str(caught.value).isprintable()


def test_npy_with_objects_is_never_unpickled(bad, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ShardError, match="object"):
        decode("x.npy", (bad / "pickle" / "cls_labels.npy").read_bytes())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["a", "2007_000032", "9_28_s", "A-b", "_x", "k" * 200])
def test_legal_keys(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "-a", "a b", "é", "k" * 201, "a\n", "..", "a\0"])
def test_illegal_keys(key: str) -> None:
    with pytest.raises(ShardError, match="key"):
        check_key(key)


@pytest.mark.parametrize("field", ["", "Gt.png", "_x", "a/b", "a..b", ".png", "png."])
def test_illegal_fields(field: str) -> None:
    with pytest.raises(ShardError, match="field"):
        check_field(field)


def test_ids_of_16_bits_return_what_went_in() -> None:
    ids = np.random.default_rng(0).integers(0, 2**16, (31, 47), dtype=np.uint16)
    content = encode("superpixel.u16.png", ids)
    decoded = decode("superpixel.u16.png", content)
    assert decoded.dtype == np.uint16 and np.array_equal(decoded, ids) and decoded.flags.writeable
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), ids)


def test_a_field_says_how_wide_its_ids_are() -> None:
    wide, narrow = np.zeros((2, 3), np.uint16), np.zeros((2, 3), np.uint8)
    with pytest.raises(ShardError, match=r"expected uint16\[H, W\]"):
        encode("superpixel.u16.png", narrow)
    with pytest.raises(ShardError, match=r"expected uint8\[H, W\]"):
        encode("seed.png", wide)
    with pytest.raises(ShardError, match="8-bit gray PNG; expected ids in a 16-bit"):
        decode("superpixel.u16.png", encode("seed.png", narrow))
    with pytest.raises(ShardError, match="16-bit gray PNG; expected ids in an 8-bit"):
        decode("seed.png", encode("superpixel.u16.png", wide))


@given(
    arrays(scalar_dtypes().filter(lambda kind: kind.kind in "biuf" and kind.itemsize <= 8), array_shapes(min_dims=0))
)
def test_any_array_returns(array: np.ndarray) -> None:
    decoded = decode("x.npy", encode("x.npy", array))
    assert decoded.shape == array.shape and decoded.dtype == array.dtype.newbyteorder("<")
    assert decoded.tobytes() == array.astype(decoded.dtype).tobytes()


@given(st.data(), st.sampled_from(["gt.png", "superpixel.u16.png"]), array_shapes(min_dims=2, max_dims=2, max_side=30))
def test_any_ids_return(data: st.DataObject, field: str, shape: tuple[int, ...]) -> None:
    ids = data.draw(arrays(np.uint16 if "u16" in field else np.uint8, shape))
    decoded = decode(field, encode(field, ids))
    assert decoded.dtype == ids.dtype and np.array_equal(decoded, ids)


WHOLE = {
    "tags": b"\0\1\1\0",
    "gt.png": encode("gt.png", np.arange(99, dtype=np.uint8).reshape(9, 11)),
    "ids.u16.png": encode("ids.u16.png", np.arange(99, dtype=np.uint16).reshape(9, 11) * 600),
    "activation.f16": encode("activation.f16", np.linspace(0, 1, 60).reshape(3, 4, 5).astype(np.float16)),
    "x.npy": encode("x.npy", np.arange(30.0).reshape(5, 6)),
}
"""A small one of every kind of field."""


@given(st.data(), st.sampled_from(sorted(WHOLE)))
def test_damaged_fields_are_read_or_refused(data: st.DataObject, field: str) -> None:
    content = bytearray(WHOLE[field])
    for _ in range(data.draw(st.integers(1, 3))):
        place, length = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 8))
        content[place : place + length] = data.draw(st.binary(max_size=8))
    try:
        decoded = decode(field, bytes(content))
    except ShardError as error:
        assert str(error).isprintable() and len(str(error)) < 500
    else:
        assert isinstance(decoded, np.ndarray)
