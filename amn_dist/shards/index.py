"""The two JSON records of a shard set: a report beside every tar, an index over all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from amn_dist.documents import read_json
from amn_dist.errors import ShardError, printable, quoted
from amn_dist.shards.format import MAX_SIDE, PHOTOS, check_field, check_key
from amn_dist.shards.names import check_source, spelling
from amn_dist.storage.atomic import json_bytes

VERSION: Final = 1
INDEX = "index.json"
MAX_CLASSES = 255
"""Ids are 8 bits wide and 255 is void."""
MAX_CLASS = 200
"""Characters of a class name."""
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Pixels = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
TarName = Annotated[str, Field(pattern=r"^[0-9]{6}\.tar$")]
Record = TypeVar("Record", bound=BaseModel)


class StrictRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SampleLocation(StrictRecord):
    """Where a sample lies in its tar. height, width: upright pixels. fields: offset and size of the bytes, by name.

    source: the file its image came from, relative to the folder of images; source_id: its id there. None: not said.
    """

    key: str
    height: Pixels
    width: Pixels
    fields: dict[str, tuple[Count, Count]]
    source: str | None = None
    source_id: Count | None = None


class ShardReport(StrictRecord):
    """What a tar holds; written after it."""

    format: Literal[1] = VERSION
    name: TarName
    sha256: Sha256
    bytes: Count
    samples: tuple[SampleLocation, ...]
    count: Count

    @model_validator(mode="after")
    def _consistent(self) -> ShardReport:
        if self.count != len(self.samples):
            raise ValueError(f"count is {self.count}, but {len(self.samples)} samples are listed")
        if len({sample.key for sample in self.samples}) != self.count:
            raise ValueError("a key is listed twice")
        for sample in self.samples:
            check_key(sample.key)
            if sample.source is not None:
                check_source(sample.source)
            for field, (offset, size) in sample.fields.items():
                check_field(field)
                if offset + size > self.bytes:
                    raise ValueError(f"{sample.key}.{field} ends beyond the tar")
        same_fields(self.name, [(sample.key, tuple(sample.fields)) for sample in self.samples])
        return self

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, sorted; both photo fields where samples differ in that."""
        return tuple(sorted({field for sample in self.samples for field in sample.fields}))


class ShardInfo(StrictRecord):
    """One line of the index."""

    name: TarName
    count: Annotated[int, Field(ge=1, le=2**31 - 1)]
    bytes: Count
    sha256: Sha256


class Index(StrictRecord):
    """A shard set. kind: `images` or a stage. classes: names in id order, background first. digest: of the content.

    source_ids: the source's own id of every class, None where it has none; as a whole None where it has no ids of its
    own. They are told, and not content: the digest does not cover them.
    """

    format: Literal[1] = VERSION
    kind: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,100}$")]
    classes: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_CLASSES)]
    fields: tuple[str, ...]
    shards: tuple[ShardInfo, ...]
    digest: Sha256
    source_ids: tuple[Count | None, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Index:
        if len({shard.name for shard in self.shards}) != len(self.shards):
            raise ValueError("a shard is listed twice")
        for field in self.fields:
            check_field(field)
        check_names(self.classes)
        if self.source_ids is not None and len(self.source_ids) != len(self.classes):
            raise ValueError(f"source_ids has {len(self.source_ids)} ids for {len(self.classes)} classes")
        if self.digest != content_digest(self.kind, self.classes, self.fields, self.shards):
            raise ValueError("the digest does not fit the content")
        return self


def check_names(classes: Sequence[str]) -> None:
    """Raise ShardError unless class names are different and of 1 to 200 characters."""
    unfit = next((name for name in classes if not 0 < len(name) <= MAX_CLASS), None)
    if unfit is not None:
        raise ShardError(f"found the class '{printable(unfit, 80)}', expected 1 to {MAX_CLASS} characters")
    spellings: dict[str, str] = {}
    for name in classes:
        if spelling(name) in spellings:
            raise ShardError(f"class '{printable(name, 80)}' is listed twice; list it once")
        spellings[spelling(name)] = name


def content_digest(kind: str, classes: Sequence[str], fields: Sequence[str], shards: Sequence[ShardInfo]) -> str:
    """sha256 over what a set says and holds; where it lies, when and by which run it was made do not enter."""
    tars = [[shard.count, shard.sha256] for shard in shards]
    return hashlib.sha256(json_bytes([VERSION, kind, list(classes), list(fields), tars])).hexdigest()


def make_index(
    kind: str,
    classes: Sequence[str],
    reports: Iterable[ShardReport],
    source_ids: Sequence[int | None] | None = None,
) -> Index:
    """The index over reports, held one at a time. Raises ShardError when samples differ in fields or keys repeat."""
    shard_of: dict[str, str] = {}
    first_samples: list[tuple[str, tuple[str, ...]]] = []
    names: set[str] = set()
    shards: list[ShardInfo] = []
    for report in reports:
        for sample in report.samples:
            if shard_of.setdefault(sample.key, report.name) != report.name:
                raise ShardError(
                    f"{report.name}: key {sample.key} is already in {shard_of[sample.key]}; keys are unique in a set"
                )
        first_samples += [(f"{report.name}: {sample.key}", tuple(sample.fields)) for sample in report.samples[:1]]
        names.update(report.fields)
        shards.append(ShardInfo(name=report.name, count=report.count, bytes=report.bytes, sha256=report.sha256))
    same_fields("the set", first_samples)
    fields = tuple(sorted(names))
    digest = content_digest(kind, classes, fields, shards)
    return Index(
        kind=kind,
        classes=tuple(classes),
        fields=fields,
        shards=tuple(shards),
        digest=digest,
        source_ids=None if source_ids is None else tuple(source_ids),
    )


def record_bytes(record: StrictRecord) -> bytes:
    """A record as its file holds it. What it does not say is left out: older programs do not know those keys."""
    return json_bytes(record.model_dump(mode="json", exclude_none=True))


def same_fields(where: str, samples: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Raise ShardError unless all samples have the same fields; a jpg in one may be a png in another."""
    needs = [(key, required(fields)) for key, fields in samples]
    for key, need in needs:
        if need != needs[0][1]:
            raise ShardError(
                f"{where}: sample {printable(key)} has the fields {printable(sorted(need))}, sample "
                f"{printable(needs[0][0])} {printable(sorted(needs[0][1]))}; every sample needs the same"
            )


def required(fields: Sequence[str]) -> frozenset[str]:
    """The fields of a sample with its photo, where there is one, named `photo`."""
    photos = [field for field in fields if field in (*PHOTOS, "jpeg")]
    return frozenset(fields) if len(photos) != 1 else frozenset(fields) - {photos[0]} | {"photo"}


def parse(record: type[Record], where: str, text: bytes) -> Record:
    """A record from JSON. Raises ShardError naming the place, the first fault and the way out."""
    try:
        read_json(text)  # of two values of a key the validator takes the last
        return record.model_validate_json(text)
    except ShardError as error:
        raise ShardError(f"{where}: {error}; make the set again") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = printable(".".join(str(part) for part in first["loc"])) or "it"
        found = f"found {quoted(first.get('input'), 60)}, " if first["loc"] else ""
        raise ShardError(f"{where}: {key}: {found}{printable(first['msg'])}; make the set again") from error
    except ValueError as error:
        raise ShardError(f"{where}: {printable(error)}; make the set again") from error
