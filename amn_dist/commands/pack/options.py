"""Options of `amn pack` that several layouts share, and what they come to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amn_dist.errors import ConfigError

if TYPE_CHECKING:  # annotations alone: `amn --help` does not wait for NumPy
    from data_shards.allowances import Allowances

Workers = Annotated[
    int | None,
    typer.Option("--workers", min=0, max=65536, help="Processes to pack with, 0: one a core; threads here without it."),
]
Classes = Annotated[Path | None, typer.Option(help="Class names, one a line in id order, background first.")]
TrustMasks = Annotated[bool, typer.Option("--trust-masks", help="Make the tags of the masks.")]
TrustTags = Annotated[bool, typer.Option("--trust-tags", help="Take tags and masks as they are, though they differ.")]
Convert = Annotated[
    bool, typer.Option("--convert", help="Bring photographs of other kinds to RGB, as predict does; else they are bad.")
]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Follow links that lead out of their folder; else such a sample is bad.")
]
AcceptNames = Annotated[bool, typer.Option("--accept-names", help="Take class names that look like mistakes.")]


def allowances(
    *,
    trust_masks: bool = False,
    trust_tags: bool = False,
    convert: bool = False,
    follow_links: bool = False,
    accept_names: bool = False,
) -> Allowances:
    """What is let pass. Raises ConfigError when both sides are to be believed."""
    from data_shards.allowances import Allowances

    if trust_masks and trust_tags:
        raise ConfigError("--trust-masks, --trust-tags: found both, expected one")
    return Allowances("masks" if trust_masks else "tags" if trust_tags else None, convert, follow_links, accept_names)
