"""What a process and its children hold, watched while they work."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

EVERY_S = 0.5


def anonymous_mib(process: int) -> float:
    """Memory of a process's own, without files and shared memory; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:")), 0.0)


def family(process: int) -> list[int]:
    """A process and all that came of it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(path.name))
    found = [process]
    for one in found:
        found += children.get(one, [])
    return found


class Watch:
    """Samples the memory of this process's family, with the stage of a run that wrote last."""

    def __init__(self, run: Path) -> None:
        self.samples: list[tuple[str, float]] = []
        self._run, self._over = run, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(EVERY_S):
            stage = max(self._run.glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime, default=None)
            if stage is not None:
                self.samples.append((stage.parent.name, sum(map(anonymous_mib, family(os.getpid())))))


def peak_by(samples: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Most memory by stage, GiB."""
    found: dict[str, float] = {}
    for stage, mib in samples:
        found[stage] = max(found.get(stage, 0.0), round(mib / 1024, 3))
    return found


@dataclass(frozen=True)
class Held:
    """What somebody held at a time. life: whoever starts again has another. at: seconds."""

    life: int
    at: float
    mib: float


def growth(held: Iterable[Held], *, warm_s: float) -> dict[str, float]:
    """MiB a minute by which lives grew after their first seconds: one slope for all, each at its level; their most."""
    lives: dict[int, list[Held]] = {}
    for one in held:
        lives.setdefault(one.life, []).append(one)
    warm = [[one for one in life if one.at >= life[0].at + warm_s] for life in lives.values()]
    over = squares = seconds = 0.0
    for life in (life for life in warm if len(life) > 1):
        middle = sum(one.at for one in life) / len(life)
        over += sum((one.at - middle) * one.mib for one in life)
        squares += sum((one.at - middle) ** 2 for one in life)
        seconds += life[-1].at - life[0].at
    return {
        "mib_per_minute": round(60 * over / squares, 3) if squares else 0.0,
        "most_mib": round(max((one.mib for life in lives.values() for one in life), default=0.0), 1),
        "lives": len(lives),
        "watched_s": round(seconds, 1),
    }
