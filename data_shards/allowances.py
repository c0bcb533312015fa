"""What packers let pass on request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Trust = Literal["masks", "tags"]


@dataclass(frozen=True, slots=True)
class Allowances:
    """What is let pass. trust: which side is believed where tags and truth of images differ, without a complaint;
    `masks`: tags are made of the masks. convert: photographs of other kinds become RGB. links: links that lead out of
    their folder are followed. names: class names that look like mistakes are taken.
    """

    trust: Trust | None = None
    convert: bool = False
    links: bool = False
    names: bool = False

    @property
    def moving(self) -> tuple[str, ...]:
        """Those that change what is packed of the same inputs."""
        return tuple(word for word, so in (("masks", self.trust == "masks"), ("convert", self.convert)) if so)


STRICT = Allowances()
