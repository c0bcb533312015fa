"""Tables of labels: CSV, or JSON lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from amn_dist.documents import read_json
from amn_dist.errors import ShardError, printable, quoted
from amn_dist.shards.index import MAX_CLASS
from amn_dist.shards.names import relative, spelling
from data_shards.classes import BACKGROUND, check_classes
from data_shards.source import lines_of, read_text


@dataclass(frozen=True, slots=True)
class Labelled:
    """A row of the table. file: relative to the root, with slashes. line: where it stands."""

    file: str
    labels: tuple[str, ...]
    line: int


def read_table(path: Path) -> tuple[Labelled, ...]:
    """The rows of a label table, in order. Raises ShardError naming file, line and fault."""
    text = read_text(path)
    listed = _json_rows(text, path) if text.lstrip().startswith("{") else _csv_rows(text, path)
    lines: dict[str, int] = {}
    rows = []
    for row in listed:
        where = f"{path}: line {row.line}"
        if not relative(row.file):
            raise ShardError(f"{where}: file {quoted(row.file)} is not a relative path inside the folder of images")
        unfit = next((label for label in row.labels if not label.isprintable() or len(label) > MAX_CLASS), None)
        if unfit is not None:
            raise ShardError(f"{where}: label {quoted(unfit)}, expected at most {MAX_CLASS} printable characters")
        file = PurePosixPath(row.file).as_posix()
        if file in lines:
            raise ShardError(f"{where}: {printable(file)} is a duplicate of line {lines[file]}; list it once")
        lines[file] = row.line
        rows.append(Labelled(file, row.labels, row.line))
    if not rows:
        raise ShardError(f"{path}: lists no images; expected rows of file and labels")
    return tuple(rows)


def collect_classes(rows: tuple[Labelled, ...], path: Path, *, accept: bool = False) -> tuple[str, ...]:
    """Background and the labels of a table, sorted; labels that people read as one are one. accept: take names that
    look like mistakes."""
    spellings: dict[str, set[str]] = {}
    for label in {label for row in rows for label in row.labels}:
        spellings.setdefault(spelling(label), set()).add(label)
    names = sorted(written.pop() if len(written) == 1 else name for name, written in spellings.items())
    if BACKGROUND in names:
        raise ShardError(f"{path}: {BACKGROUND!r} is used as a label; it is id 0 of every set, leave it out")
    return check_classes((BACKGROUND, *names), where=str(path), accept=accept)


def _csv_rows(text: str, path: Path) -> Iterator[Labelled]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if header != ["file", "labels"]:
            raise ShardError(f"{path}: line 1: found {quoted(','.join(header))}, expected the header 'file,labels'")
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != 2:
                raise ShardError(
                    f"{path}: line {reader.line_num}: found {len(cells)} columns, expected 2; "
                    "labels are separated by ; or |"
                )
            labels = (label.strip() for label in cells[1].replace("|", ";").split(";"))
            yield Labelled(cells[0].strip(), tuple(label for label in labels if label), reader.line_num)
    except csv.Error as error:
        raise ShardError(f"{path}: line {reader.line_num}: {printable(error)}; expected CSV") from error


def _json_rows(text: str, path: Path) -> Iterator[Labelled]:
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        try:
            row = read_json(line)
        except ValueError as error:
            raise ShardError(f"{path}: line {number}: {printable(error)}; expected one JSON object a line") from error
        file, labels = (row.get("file"), row.get("labels")) if isinstance(row, dict) else (None, None)
        listed = isinstance(labels, list) and all(isinstance(label, str) and label.strip() for label in labels)
        if not isinstance(file, str) or not isinstance(labels, list) or not listed:
            raise ShardError(f'{path}: line {number}: expected {{"file": "...", "labels": ["...", ...]}}')
        yield Labelled(file, tuple(label.strip() for label in labels), number)
