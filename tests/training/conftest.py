"""Gangs of real processes, started as torchrun would; what each says is kept and shown when it ends otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

PATIENCE_S = 300


@dataclass(frozen=True)
class Rank:
    """A process of a gang, and the file with all it has said."""

    process: subprocess.Popen[bytes]
    said: Path

    def end(self) -> int:
        """Its exit status."""
        try:
            return self.process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"no end within {PATIENCE_S} s: {self}") from None

    def __str__(self) -> str:
        return f"{self.said.name}: {self.process.returncode}\n{self.said.read_text(errors='replace')}"


@dataclass(frozen=True)
class Ranks:
    """The processes of a gang, in the order of ranks."""

    ranks: Sequence[Rank]
    port: int

    def end(self, *expected: int) -> list[int]:
        """The exit statuses; when others are expected, the test fails with what the processes said."""
        found = [rank.end() for rank in self.ranks]
        assert not expected or found == list(expected), "\n".join(map(str, self.ranks))
        return found


Launch = Callable[..., Ranks]


@pytest.fixture(scope="session")
def launch(reserve_port: Callable[[], int]) -> Iterator[Launch]:
    """Starts a script once for every rank: launch(script, [arguments of a rank, ...], into=folder, ...)."""
    started: list[Rank] = []

    def begin(
        script: Path,
        arguments: Sequence[Path],
        *,
        into: Path,
        size: int | None = None,
        first: int = 0,
        more: Mapping[int, Mapping[str, str]] | None = None,
    ) -> Ranks:
        """into: where what they say is kept. size: of the gang, if not all are started, from rank `first` on. more:
        environment by rank."""
        port, ranks = reserve_port(), []
        into.mkdir(parents=True, exist_ok=True)
        for rank, argument in enumerate(arguments, first):
            told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size or len(arguments)}
            told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            environment = {name: value for name, value in os.environ.items() if name not in told}
            environment |= {"OMP_NUM_THREADS": "1", **(more or {}).get(rank, {})}
            if told["WORLD_SIZE"] != 1:
                environment |= {name: str(value) for name, value in told.items()}
            said = into / f"said-{argument.stem}-{rank}.txt"
            command = [sys.executable, str(script), str(argument)]
            with said.open("ab") as out:
                process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
            ranks.append(Rank(process, said))
        started.extend(ranks)
        return Ranks(ranks, port)

    yield begin
    for rank in started:
        rank.process.kill()
        rank.process.wait()
