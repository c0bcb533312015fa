"""A shard set that is being made: which of its shards still hold after a stop, and what was left out of it.

What every shard is made from is known before the first one is written, and stands beside them as a stamp a shard. The
same call after any stop drops shards of other stamps and goes on with the rest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amn_dist.documents import read_json
from amn_dist.errors import ShardError, listed, printable
from amn_dist.shards.index import INDEX
from amn_dist.storage.atomic import UNFINISHED, clean_unfinished, commit_json, json_bytes
from amn_dist.storage.paths import AnyPath

QUARANTINE = "quarantine.json"
"""The samples that were left out, with reasons."""
SUMMARY = "summary.json"
"""What was packed, in figures."""
SHOWN = 8
"""Bad samples a message names."""


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that cannot be taken. file: what messages call it, where the key does not say it."""

    key: str
    reason: str
    file: str = ""


@dataclass(frozen=True)
class StampRecord:
    """What the file of stamps says: one of every shard's inputs."""

    shards: list[str]


@dataclass(frozen=True)
class QuarantineRecord:
    """What QUARANTINE says."""

    samples: list[BadSample]


@dataclass(frozen=True)
class ResumableSet:
    """A folder in which a set is made. stamps: of every shard's inputs. record: the file that holds them.

    rules: format of that file. other: what messages call a finished set of other inputs.
    """

    folder: AnyPath
    stamps: Sequence[str]
    record: str
    rules: int
    other: str

    def recorded(self) -> list[str]:
        """The stamps an earlier call has left."""
        try:
            record: StampRecord = read_json((self.folder / self.record).read_bytes(), StampRecord)
        except (OSError, ValueError):
            return []
        return record.shards

    def prepare(self) -> None:
        """Drop unfinished work of other inputs and write the stamps. Raises ShardError when it holds something else."""
        names = self._names()
        self._check_ours(names)
        if INDEX in names:
            self.check_finished()
        if names:
            clean_unfinished(self.folder)
            recorded = self.recorded()
            for name in names:
                number = int(name[:6]) if name[:6].isdigit() else None
                if number is not None and recorded[number : number + 1] != list(self.stamps[number : number + 1]):
                    (self.folder / name).unlink(missing_ok=True)
        commit_json(self.folder / self.record, {"format": self.rules, "shards": list(self.stamps)})

    def check_finished(self) -> None:
        """Raise ShardError unless what is finished here was made from these inputs."""
        if self.recorded() != list(self.stamps):
            raise ShardError(f"{self.folder}: holds {self.other}; remove it or choose another folder")

    def discard_if_empty(self) -> None:
        """Remove what was begun, unless there are finished shards, which spare the next try their work."""
        if not any(self.folder.glob("[0-9]*.json")):
            self.discard()

    def discard(self) -> None:
        """Remove what was begun."""
        for name in filter(self._is_ours, self._names()):
            (self.folder / name).unlink(missing_ok=True)
        if not self._names():
            self.folder.rmdir()

    def quarantined(self) -> list[BadSample]:
        """The samples an earlier call has left out."""
        try:
            record: QuarantineRecord = read_json((self.folder / QUARANTINE).read_bytes(), QuarantineRecord)
        except (OSError, ValueError):
            return []
        return record.samples

    def quarantine(self, bad: Sequence[BadSample]) -> None:
        """Write down which samples are left out; nothing when there are none."""
        if not bad:
            return (self.folder / QUARANTINE).unlink(missing_ok=True)
        samples = [
            {"key": sample.key, "reason": sample.reason, **({"file": sample.file} if sample.file else {})}
            for sample in bad
        ]
        commit_json(self.folder / QUARANTINE, {"count": len(bad), "samples": samples})

    def _names(self) -> list[str]:
        try:
            return sorted(path.name for path in self.folder.iterdir()) if self.folder.exists() else []
        except OSError as error:
            raise ShardError(f"{self.folder}: cannot be written to ({printable(error)})") from error

    def _check_ours(self, names: list[str]) -> None:
        foreign = [name for name in names if not self._is_ours(name)]
        if foreign or (names and not any(name.startswith(self.record) for name in names)):
            shown = printable(", ".join((foreign or names)[:3]))
            raise ShardError(f"{self.folder}: holds other files ({shown}); choose an empty or new folder")

    def _is_ours(self, name: str) -> bool:
        kinds = rf"[0-9]{{6}}\.(tar|json)|{re.escape(self.record)}|{QUARANTINE}|{SUMMARY}|{INDEX}"
        return re.match(rf"({kinds})(\Z|{re.escape(UNFINISHED)})", name) is not None


def stamp_of_inputs(*inputs: Any) -> str:
    """A digest that changes when what a shard is made from does."""
    return hashlib.sha256(json_bytes(list(inputs))).hexdigest()


def explain(bad: Sequence[BadSample], total: int, what: str) -> str:
    """Why samples stop a set, and the way out."""
    return f"{len(bad)} of {total} {what} are bad: {reasons(bad)}. Mend them, or leave them out with --skip-bad"


def reasons(bad: Sequence[BadSample]) -> str:
    """The first bad samples and what is wrong with each; the others are counted."""
    shown = listed(f"[{sample.key}] {printable(sample.reason, 400)}" for sample in bad[:SHOWN])
    return f"{shown}; and {len(bad) - SHOWN} more" if len(bad) > SHOWN else shown
