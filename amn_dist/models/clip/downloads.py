"""Files of CLIP that people download for themselves (docs/operations.md)."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from amn_dist.errors import PLACE, ConfigError, printable


@dataclass(frozen=True)
class Download:
    """A published file, and the digest it had when its numbers were compared (clip 7)."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def command(self, folder: Path) -> str:
        """What fetches it into a folder."""
        return f"curl --create-dirs -Lo {shlex.quote(str(folder / self.name))} {self.url}"

    def require(self, setting: str, path: str | os.PathLike[str]) -> None:
        """Raise ConfigError where a setting names a file that is not there, saying how to get this one."""
        if not Path(path).is_file():
            raise ConfigError(
                f"{setting}: {printable(os.fspath(path), PLACE)}: no such file; download OpenAI's {self.name} by "
                f"`{self.command(Path(path).parent)}` (sha256 {self.sha256}; docs/operations.md), or name another one"
            )


VIT_B_16 = "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"
SOURCES = {
    "weights": Download(f"https://openaipublic.azureedge.net/clip/models/{VIT_B_16}/ViT-B-16.pt", VIT_B_16),
    "vocabulary": Download(
        "https://github.com/openai/CLIP/raw/main/clip/bpe_simple_vocab_16e6.txt.gz",
        "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
    ),
}
"""By setting of clip_map."""
