"""Proposals of a foundation model (class-agnostic masks) to a shard set over the images they belong to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from amn_dist.errors import PLACE, ShardError, printable
from amn_dist.records import PROPOSALS
from amn_dist.shards.shardset import Entry, ShardSet
from amn_dist.storage.paths import RemotePath, path_of
from data_shards.json_pieces import MOST_BYTES
from data_shards.maps import IMPORT
from data_shards.overlay import Imported, count_others, file_of, file_states, files_by_key, write_overlay
from data_shards.proposals import ProposalFile, read_proposal_file, read_proposals
from data_shards.resumable import ResumableSet, stamp_of_inputs
from data_shards.source import read_file

RULES = 1
"""Raised when the same files give other proposals."""
ENDING = ".json"


@dataclass(frozen=True)
class ProposalFolder:
    """A file an image. files: by key."""

    files: dict[str, Path]

    def texts(self, entry: Entry) -> list[bytes]:
        """JSON of an image. Raises ShardError where there is none."""
        path = file_of(self.files, entry, ENDING, "proposals")
        content = read_file(path, path.name)
        if len(content) > MOST_BYTES:
            raise ShardError(f"{len(content)} bytes; expected at most {MOST_BYTES}")
        return [content]


@dataclass(frozen=True)
class ProposalOverlay:
    """Proposals over the images of a set."""

    source: ProposalFolder | ProposalFile
    images: ShardSet
    field: str = PROPOSALS
    what: str = "images' proposals"

    def stamp(self, number: int) -> str:
        """Changes when the inputs of a shard do."""
        if isinstance(self.source, ProposalFile):
            return stamp_of_inputs(RULES, self.images.digest, self.source.file.stamp)
        return stamp_of_inputs(RULES, self.images.digest, file_states(self.source.files, self.images, number))

    def array(self, entry: Entry) -> np.ndarray:
        """The proposals int32[2 + M] of an image. Raises ShardError naming the file."""
        name = printable(self._name(entry), PLACE)
        try:
            return read_proposals(self.source.texts(entry), (entry.height, entry.width))
        except ShardError as error:
            raise ShardError(str(error) if str(error).startswith(name) else f"{name}: {error}") from error

    def empty(self, entry: Entry) -> np.ndarray:
        """No proposals."""
        return np.array([entry.height, entry.width], np.int32)

    def _name(self, entry: Entry) -> str:
        if isinstance(self.source, ProposalFile):
            return os.path.basename(self.source.file.path)
        return self.source.files[entry.key].name if entry.key in self.source.files else f"{entry.key}{ENDING}"


def import_regions(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str],
    out: str | os.PathLike[str] | RemotePath,
    *,
    skip_bad: bool = False,
) -> Imported:
    """Write proposals as a shard set of kind `proposals` over an image set; the same call again resumes.

    path: folder with KEY.json anywhere below, or one file for all images, as docs/interchange.md describes. skip_bad:
    an image without usable proposals gets none, and is listed in quarantine.json. Raises ShardError naming bad images,
    or saying that `out` holds something else.
    """
    photos, folder, root = ShardSet.open(images), path_of(out), Path(path)
    source: ProposalFolder | ProposalFile
    if os.path.isfile(root):
        source = read_proposal_file(root, photos)
        others = source.others
    else:
        source = ProposalFolder(files_by_key(root, ENDING))
        others = count_others(source.files, photos, root, ENDING)
    overlay = ProposalOverlay(source, photos)
    stamps = [overlay.stamp(number) for number in range(len(photos.shard_sizes))]
    making = ResumableSet(folder, stamps, IMPORT, RULES, other="finished proposals of other files")
    return write_overlay(overlay, making, kind="proposals", skip_bad=skip_bad, others=others)
