"""Shard sets, checked: `amn verify`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from amn_dist.commands.printing import print_line
from amn_dist.storage.paths import path_of

SetOrTar = Annotated[
    Any, typer.Argument(parser=path_of, metavar="DIR|URL", help="A shard set, or a tar of somebody else's.")
]


def verify(place: SetOrTar) -> None:
    """Check every shard against its report and decode every image."""
    from data_shards.verify import verify as check

    print_line(check(place))
