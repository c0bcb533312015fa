"""Where the masks of a VOC devkit lie: the official ones, SBD's beside them, or those of labelling tools."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from amn_dist.errors import ShardError, printable
from data_shards.source import on_disk

FOLDERS = ("SegmentationClass", "SegmentationClassAug", "SegmentationClassPNG")
"""Looked into without --masks: VOC's own, where people unpack SBD's, and labelme's."""
FEW = 8
"""Masks that may be missing as bad samples; more, and another folder is meant."""


@dataclass(frozen=True)
class MaskFolder:
    """Where masks are. folder: None without truth. named: masks that the list says, by the name of their image.

    notes: what there is to say of the choice.
    """

    folder: Path | None
    named: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def path(self, name: str) -> Path | None:
        """The mask of an image, where truth is packed; it need not be there."""
        if self.folder is None:
            return None
        return self.named.get(name) or self.folder / on_disk(self.folder, f"{name}.png")


def find_masks(
    root: Path,
    images: Sequence[tuple[str, str]],
    masks: str | os.PathLike[str] | None,
    truth: bool,
    skip_bad: bool,
) -> MaskFolder:
    """The masks of images, given as (name, mask that the list says, or nothing).

    masks: the folder that is asked for, in the devkit or anywhere. truth: whether it is wanted. skip_bad: images
    without a mask may be left out. Raises ShardError when many images have none.
    """
    if not truth:
        return MaskFolder(None)
    if masks is None and images and images[0][1]:
        named = {name: root / mask for name, mask in images}
        missing = [str(path.relative_to(root)) for path in named.values() if not os.path.isfile(path)]
        return _checked(MaskFolder(root, named), "the list", missing, len(images), skip_bad)
    names = [name for name, _ in images]
    if masks is not None:
        folder = root / masks if os.path.isdir(root / masks) else Path(masks).absolute()
        if not os.path.isdir(folder):
            raise ShardError(f"{folder}: no such folder; expected masks there, or in {root / masks}")
        return _checked(MaskFolder(folder), str(folder), _missing(folder, names), len(names), skip_bad)
    absent = {folder: _missing(root / folder, names) for folder in FOLDERS}
    best = min(FOLDERS, key=lambda folder: len(absent[folder]))  # the first of equal ones
    if len(absent[best]) == len(names):
        said = f"no truth found: none of {', '.join(FOLDERS)} holds a mask of these images; --masks says another folder"
        return MaskFolder(None, notes=(said,))
    notes = () if best == FOLDERS[0] else (f"masks are those of {best}, which has more of them than {FOLDERS[0]}",)
    return _checked(MaskFolder(root / best, notes=notes), str(root / best), absent[best], len(names), skip_bad)


def _missing(folder: Path, names: Sequence[str]) -> list[str]:
    """The names that have no mask in a folder."""
    present = frozenset(os.listdir(folder)) if os.path.isdir(folder) else frozenset()
    return [name for name in names if f"{name}.png" not in present and on_disk(folder, f"{name}.png") not in present]


def _checked(masks: MaskFolder, where: str, missing: Sequence[str], of: int, skip_bad: bool) -> MaskFolder:
    if len(missing) <= FEW or skip_bad:
        return masks
    shown = ", ".join(printable(name) for name in missing[:FEW])
    raise ShardError(
        f"{printable(where)}: has no mask of {len(missing)} of {of} images ({shown} and {len(missing) - FEW} more); "
        "name the folder that has all with --masks, or pack without truth (--no-truth), or without these (--skip-bad)"
    )
