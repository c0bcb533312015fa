"""Pickled arrays: read as NumPy and torch wrote them, and never run."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from amn_dist.errors import ShardError
from data_shards.pickles import read_pickled_dict

CUBE = np.random.default_rng(0).random((2, 5, 7)).astype(np.float32)


def npy(content: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(content, dtype=object), allow_pickle=True)
    return stream.getvalue()


def around(pickled: bytes) -> bytes:
    """An .npy of one object around any stream of pickle instructions."""
    whole = npy({})
    return whole[: whole.index(b"\n") + 1] + pickled


class Runs:
    """Pickles to a call."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.made = (call, arguments)

    def __reduce__(self) -> Any:
        return self.made


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", ">f4", "i1", "i4", "i8", "u1", "u2", "?"])
def test_arrays_of_every_kind_come_back(kind: str) -> None:
    array = (CUBE * 9).astype(kind)
    dictionary = read_pickled_dict(npy({"a": array, 3: np.asfortranarray(array), "scalar": array[0, 0, 0]}))
    for name in ("a", 3):
        assert dictionary[name].dtype == array.dtype and np.array_equal(dictionary[name], array)
    assert dictionary["scalar"] == array[0, 0, 0]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool])
def test_tensors_of_every_kind_come_back(kind: torch.dtype) -> None:
    whole = (torch.from_numpy(CUBE) * 9).to(kind)
    views = {"whole": whole, "part": whole[1:, ::2, 3:], "turned": whole.permute(2, 0, 1), "none": whole[:0]}
    dictionary = read_pickled_dict(npy(views))
    for name, view in views.items():
        assert dictionary[name].shape == tuple(view.shape) and np.array_equal(dictionary[name], view.numpy())


def test_numpy_numbers_are_keys() -> None:
    dictionary = read_pickled_dict(npy({np.int64(4): CUBE[0], 7: CUBE[1]}))
    assert list(dictionary) == [4, 7] and np.array_equal(dictionary[4], CUBE[0])


def test_a_class_has_one_map() -> None:
    once = npy({1: CUBE[0], np.int64(2): CUBE[1]})
    again = once.replace(np.int64(2).tobytes(), np.int64(1).tobytes())
    assert again != once and list(read_pickled_dict(once)) == [1, 2]
    with pytest.raises(ShardError, match="has 2 keys of 1 names or classes; expected each once"):
        read_pickled_dict(again)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_older_pickles_are_read(protocol: int) -> None:
    boxed = np.empty((), dtype=object)
    boxed[()] = {"keys": np.arange(3), "cam": CUBE}
    dictionary = read_pickled_dict(around(pickle.dumps(boxed, protocol=protocol)))
    assert dictionary["keys"].tolist() == [0, 1, 2] and np.array_equal(dictionary["cam"], CUBE)


def test_a_file_that_runs_code_is_refused_by_name(bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ShardError, match=r"names io\.open, which no array needs"):
        read_pickled_dict((bad / "pickle" / "cls_labels.npy").read_bytes())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Runs(os.system, "touch ran"), r"posix\.system"),
        (Runs(eval, "open('ran', 'w')"), r"builtins\.eval"),
        (Runs(getattr, {}, "pop"), r"builtins\.getattr"),
        (Runs(np.load, "x"), r"numpy\.load"),
        (Runs(torch.load, "x"), r"torch\.serialization\.load"),
        (np.dtype, r"numpy\.dtype"),
    ],
)
def test_whatever_is_no_array_is_named(call: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inside = call if isinstance(call, type) else {"cam": call}
    with pytest.raises(ShardError, match="holds Name" if isinstance(call, type) else name):
        read_pickled_dict(npy(inside))
    assert not list(tmp_path.iterdir())


def test_a_storage_that_runs_code_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inner = pickle.dumps(Runs(os.system, "touch ran"))
    storage = Runs(torch.storage._load_from_bytes, inner)
    tensor = Runs(torch._utils._rebuild_tensor_v2, storage, 0, (1,), (1,), False, {})
    with pytest.raises(ShardError, match=r"posix\.system"):
        read_pickled_dict(npy({"cam": tensor}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("offset", "shape", "steps"),
    [(0, (24,), (1,)), (20, (4,), (1,)), (0, (2, 2), (30, 1)), (-1, (2,), (1,)), (0, (9, 9, 9), (0, 0, 0))],
)
def test_a_tensor_beyond_its_storage_is_refused(offset: int, shape: tuple[int, ...], steps: tuple[int, ...]) -> None:
    storage = torch.arange(23.0).storage().__reduce__()
    lying = Runs(torch._utils._rebuild_tensor_v2, Runs(*_flat(storage)), offset, shape, steps, False, {})
    with pytest.raises(ShardError, match="does not lie inside its 23 numbers"):
        read_pickled_dict(npy({"cam": lying}))


def _flat(reduced: Any) -> tuple[Any, ...]:
    call, arguments = reduced
    return (call, *arguments)


def test_an_array_that_lies_about_its_size_is_refused() -> None:
    whole = npy({"cam": CUBE[0]})
    lying = whole.replace(b"K\x05K\x07\x86", b"K\x05K\x09\x86")
    assert lying != whole
    with pytest.raises(ShardError, match=r"declares float32\[5, 9\] but holds 140 bytes"):
        read_pickled_dict(lying)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x04}r\xff\xff\xff\x7f.",  # asks for 2^31 slots of memory
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes that are not there
        b"\x80\x04" + b"(" * 5000 + b".",
        b"\x80\x04\x82\x01.",
        b"",
    ],
)
def test_streams_made_to_exhaust_end_in_one_line(pickled: bytes) -> None:
    try:
        assert read_pickled_dict(around(pickled)) == {}
    except ShardError as error:
        assert "\n" not in str(error)


WHOLE = npy({"keys": torch.tensor([1, 4]), "cam": torch.from_numpy(CUBE), "high_res": CUBE})


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.booleans())
@example(WHOLE.index(b"numpy._core.multiarray"), ord("\n"), False)
@example(WHOLE.index(b"numpy._core.multiarray"), 0x1B, False)
def test_damage_is_read_or_refused(place: int, value: int, cut: bool) -> None:
    damaged = WHOLE[:place] if cut else WHOLE[:place] + bytes([value]) + WHOLE[place + 1 :]
    try:
        dictionary = read_pickled_dict(damaged)
    except ShardError as error:
        assert Exception.__str__(error).isprintable() and len(str(error)) < 1000
    else:
        assert isinstance(dictionary, dict)


def test_a_plain_array_is_no_dictionary() -> None:
    stream = io.BytesIO()
    np.save(stream, CUBE)
    with pytest.raises(ShardError, match=r"float32\[2, 5, 7\], expected a pickled dictionary"):
        read_pickled_dict(stream.getvalue())
