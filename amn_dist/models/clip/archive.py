"""Tensors of a TorchScript archive, as OpenAI published CLIP, read without running anything that stands in it.

torch.load with weights_only refuses such archives, and torch.jit.load runs their code. An archive is a zip: data.pkl
builds nested modules out of tensors, whose values lie in data/NUMBER.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amn_dist.errors import PLACE, ConfigError, printable

TYPES = {
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}
"""Storages of an archive by the name of their kind."""


class Member:
    """A module of an archive: nothing but what it holds by name."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.held = state if isinstance(state, dict) else {}


def is_archive(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.split("/", 1)[-1] == "constants.pkl" for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read_archive(path: Path, *, shapes_only: bool = False) -> dict[str, Tensor]:
    """Tensors of an archive by their dotted names. Raises ConfigError naming the file and what it would not touch.

    shapes_only: no values are read, and tensors lie on torch's meta device.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (listing,) = (name for name in archive.namelist() if name.split("/", 1)[-1] == "data.pkl")
            with archive.open(listing) as file:
                root = Reader(file, archive, listing.removesuffix("data.pkl"), shapes_only=shapes_only).load()
            return dict(_tensors(root, ""))
    except Exception as error:  # a foreign pickle stumbles in many ways
        raise ConfigError(
            f"{printable(path, PLACE)}: cannot be read as a TorchScript archive of weights ({printable(error)})"
        ) from error


class Reader(pickle.Unpickler):
    """Knows modules as Members, tensors, ordered dictionaries, and nothing else."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str, *, shapes_only: bool = False) -> None:
        super().__init__(file)
        self._archive, self._folder, self._shapes_only = archive, folder, shapes_only

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return Member
        if module == "torch" and name in TYPES:
            return TYPES[name]
        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it names {printable(f'{module}.{name}')}; nothing of it was run")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        _, kind, key, _, _ = pid
        if self._shapes_only:
            size = self._archive.getinfo(f"{self._folder}data/{key}").file_size
            return torch.empty(size // kind.itemsize, dtype=kind, device="meta")
        values = bytearray(self._archive.read(f"{self._folder}data/{key}"))
        return torch.frombuffer(values, dtype=kind) if values else torch.empty(0, dtype=kind)


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *more: Any) -> Tensor:
    return storage.as_strided(size, stride, offset).clone()


def _tensors(member: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in member.held.items():
        if isinstance(value, Tensor):
            yield f"{path}{name}", value
        elif isinstance(value, Member):
            yield from _tensors(value, f"{path}{name}.")
