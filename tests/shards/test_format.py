import io
import zlib

import numpy as np
import pytest
from PIL import Image

from amn_dist.errors import ShardError
from amn_dist.shards.format import check_field, check_key, decode, encode


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
    found = decode("activation.npy", encode("activation.npy", array))
    assert found.shape == array.shape
    assert found.dtype == array.dtype.newbyteorder("<")
    assert np.array_equal(found, array)
    assert found.flags.writeable


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
    ("field", "array", "told"),
    [
        ("mask.png", np.zeros((3, 3), np.int32), "uint8"),
        ("mask.png", np.zeros((3, 3, 3), np.uint8), "uint8"),
        ("tags", np.array([0, 2], np.uint8), "2"),
        ("tags", np.zeros((2, 2), np.uint8), "uint8"),
        ("x.npy", np.array([{}], object), "object"),
        ("x.jpg", np.zeros((3, 3), np.uint8), "x.jpg"),
    ],
)
def test_wrong_arrays_are_refused(field: str, array: np.ndarray, told: str) -> None:
    with pytest.raises(ShardError, match=told):
        encode(field, array)


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
    found = decode("superpixel.u16.png", content)
    assert found.dtype == np.uint16 and np.array_equal(found, ids) and found.flags.writeable
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
