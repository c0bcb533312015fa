"""The fixtures, file by file: `python -m tests.golden.manifest`, in the project's root, writes MANIFEST.json anew."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
NAME = "MANIFEST.json"


def describe(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every .npz and .json by its path, and dtype and shape of every array in it."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".npz", ".json") and path.name != NAME)
    return {path.relative_to(folder).as_posix(): _entry(path) for path in paths}


def _entry(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    entry: dict[str, Any] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            entry["arrays"] = {name: _form(arrays[name]) for name in arrays.files if name != "meta"}
    return entry


def _form(array: np.ndarray) -> str:
    return f"{array.dtype} {'x'.join(map(str, array.shape)) or 'scalar'}"


def main() -> None:
    lines = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in describe(FOLDER).items()]
    (FOLDER / NAME).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
