"""Pickled arrays read without unpickling: nothing of NumPy, torch or Python is called by the file.

Published WSSS code keeps its maps as dictionaries pickled into `.npy` (docs/interchange.md). A pickle is a program: it
names functions and has them called. Here every name is an inert mark, every call is written down instead of made, and
the arrays are built afterwards from the notes, once shapes and sizes fit the bytes there are.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from amn_dist.errors import ShardError, printable, quoted
from amn_dist.shards.format import npy_header

ARRAY = "_reconstruct"
SCALAR = "scalar"
NUMPY = {f"{module}.multiarray.{name}" for module in ("numpy.core", "numpy._core") for name in (ARRAY, SCALAR)}
TENSOR, STORAGE = "torch._utils._rebuild_tensor_v2", "torch.storage._load_from_bytes"
PLAIN = {"numpy.ndarray", "numpy.dtype", "collections.OrderedDict", "_codecs.encode"}
STORAGE_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""torch's storages and what they hold."""
TORCH_STORAGES = {f"{module}.{name}" for module in ("torch", "torch.cuda") for name in STORAGE_DTYPES}
ALLOWED = NUMPY | PLAIN | TORCH_STORAGES | {TENSOR, STORAGE}
"""The names an array's pickle consists of."""
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
"""First object of a storage's own stream of pickles."""


class Name:
    """A name in a pickle. Calling it notes the call."""

    __slots__ = ("text",)
    text: str

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "text", text)

    def __call__(self, *arguments: Any) -> RecordedCall:
        return RecordedCall(self.text, arguments)

    def __setattr__(self, key: str, value: Any) -> None:
        raise AttributeError(key)


class RecordedCall:
    """A call that was not made, and the state the object was to get after it."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.name, self.arguments = name, arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


# The C unpickler sets aside as many slots as a file asks for; the one in Python keeps a dictionary.
class InertUnpickler(pickle._Unpickler):
    """An unpickler that knows no object but ours."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in ALLOWED:
            raise ShardError(
                f"names {printable(f'{module}.{name}')}, which no array needs; nothing of it was run, "
                "expected arrays alone"
            )
        return Name(f"{module}.{name}")

    def persistent_load(self, mark: Any) -> Any:
        return mark


def read_pickled_dict(content: bytes) -> dict[int | str, Any]:
    """The dictionary in an `.npy` of one pickled object: numbers, strings, and arrays np.ndarray; nothing is executed.

    Raises ShardError naming a forbidden name, or saying what was found instead.
    """
    stream = io.BytesIO(content)
    try:
        shape, _, kind = npy_header(stream)
        if shape != () or kind != np.dtype(object):
            raise ShardError(
                f"is an .npy of {printable(kind)}{printable(list(shape))}, expected a pickled dictionary of arrays"
            )
        tree = _single(InertUnpickler(stream).load())
        if not isinstance(tree, dict):
            raise ShardError(f"holds {_named(tree)}, expected a dictionary")
        by_key = {_key(key): _value(value) for key, value in tree.items()}
        if len(by_key) != len(tree):
            raise ShardError(f"has {len(tree)} keys of {len(by_key)} names or classes; expected each once")
        return by_key
    except ShardError:
        raise
    except Exception as error:  # a hostile file makes an unpickler stumble in any way it likes
        raise ShardError(f"is not a pickled dictionary of arrays ({printable(error)})") from error


def _single(tree: Any) -> Any:
    """What an array of one object holds."""
    if not isinstance(tree, RecordedCall) or not tree.name.endswith(ARRAY) or not isinstance(tree.state, tuple):
        return tree
    _, shape, _, _, content = tree.state
    return content[0] if shape == () and isinstance(content, list) and len(content) == 1 else tree


def _key(key: Any) -> int | str:
    value = _value(key)
    if isinstance(value, np.ndarray) and value.shape == () and value.dtype.kind in "iu":
        return int(value)
    if isinstance(value, int | str) and not isinstance(value, bool):
        return value
    raise ShardError(f"has {_named(key)} as a key; expected names or class numbers")


def _value(value: Any) -> Any:
    if isinstance(value, list | tuple) and value:
        return _listed_numbers(value)
    if not isinstance(value, RecordedCall):
        return value
    if value.name in NUMPY:
        return _scalar(value) if value.name.endswith(SCALAR) else _array(value)
    if value.name == TENSOR:
        return _tensor(value)
    raise ShardError(f"holds {value.name}; expected an array")


def _listed_numbers(values: Sequence[Any]) -> Any:
    """A list of numbers, NumPy's and torch's among them, as an array; of anything else it stays what it is."""
    numbers = [_value(value) if isinstance(value, RecordedCall) else value for value in values]
    single = (
        isinstance(value, int | float) or (isinstance(value, np.ndarray) and not value.shape) for value in numbers
    )
    return np.array([np.asarray(value)[()] for value in numbers]) if all(single) else values


def _array(call: RecordedCall) -> np.ndarray:
    _, shape, kind, fortran, content = call.state
    flat = _flat(_bytes(content), _dtype(kind), shape)
    return flat.reshape(shape, order="F" if fortran else "C").copy()


def _scalar(call: RecordedCall) -> np.ndarray:
    kind, content = call.arguments
    return _flat(_bytes(content), _dtype(kind), ()).reshape(()).copy()


def _flat(content: bytes, kind: np.dtype, shape: Any) -> np.ndarray:
    sides = tuple(shape)
    if not all(type(side) is int and side >= 0 for side in sides) or prod(sides) * kind.itemsize != len(content):
        raise ShardError(f"has an array that declares {kind}{printable(list(sides))} but holds {len(content)} bytes")
    return np.frombuffer(content, kind)


def _dtype(call: Any) -> np.dtype:
    """The dtype of numbers a noted call describes."""
    if not isinstance(call, RecordedCall) or call.name != "numpy.dtype":
        raise ShardError(f"has an array of {_named(call)}; expected numbers")
    text = str(call.arguments[0])
    order = call.state[1] if isinstance(call.state, tuple) and call.state[1] in ("<", ">") else ""
    if text not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
        raise ShardError(f"has an array of dtype {quoted(text, 20)}; expected numbers")
    return np.dtype(order + text)


def _bytes(content: Any) -> bytes:
    if isinstance(content, RecordedCall) and content.name == "_codecs.encode" and content.arguments[1:] == ("latin1",):
        content = str(content.arguments[0]).encode("latin1")
    if not isinstance(content, bytes):
        raise ShardError(f"has an array over {_named(content)}; expected bytes")
    return content


def _tensor(call: RecordedCall) -> np.ndarray:
    storage, offset, shape, steps = call.arguments[:4]
    flat = _storage(storage)
    numbers = (offset, *shape, *steps)
    last = offset + sum((side - 1) * step for side, step in zip(shape, steps, strict=True))
    if min(numbers) < 0 or prod(shape) > flat.size or (prod(shape) and last >= flat.size):
        raise ShardError(f"has a tensor {printable(list(shape))} that does not lie inside its {flat.size} numbers")
    strides = tuple(step * flat.itemsize for step in steps)
    return np.lib.stride_tricks.as_strided(flat[offset:], tuple(shape), strides).copy()


def _storage(call: Any) -> np.ndarray:
    """The numbers of a torch storage: magic, version, machine, what it is, its name; then count and bytes."""
    if not isinstance(call, RecordedCall) or call.name != STORAGE:
        raise ShardError(f"has a tensor over {_named(call)}; expected its storage")
    stream = io.BytesIO(_bytes(call.arguments[0]))
    magic, _, machine, mark, _ = (InertUnpickler(stream).load() for _ in range(5))
    if magic != TORCH_MAGIC or not machine["little_endian"] or not isinstance(mark[1], Name):
        raise ShardError("has a tensor whose storage is not one of torch's")
    kind = np.dtype(STORAGE_DTYPES[mark[1].text.rsplit(".", 1)[-1]])
    count = int.from_bytes(stream.read(8), "little")
    return _flat(stream.read(), kind, (count,))


def _named(value: Any) -> str:
    return value.name if isinstance(value, RecordedCall) else type(value).__name__
