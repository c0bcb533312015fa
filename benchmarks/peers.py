"""What would people use instead: Ray Data, webdataset's and torchdata's loaders, DDP and FSDP2, other dense CRFs?

Four races on one machine, each after a check that results are equal: our farm against Ray Data, our reader of training
crops against webdataset and torchdata, DeepSpeed and our plain engine against torch's own, our dense CRF against the
packages there are (rivals/). Beside the speeds: what survives deaths, whole epochs, resuming, memory. What races and
is no part of the package is installed into a folder of its own first (rivals/packages.lock).

    python -m benchmarks.peers [--part farm|reader|training|crf ...] [--rounds 5] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.harness import RESULTS, write_result
from benchmarks.rivals import packages

RESULT = "peers"


class Part(NamedTuple):
    """A race, and what makes rows for people of its record."""

    measured: Callable[..., dict[str, Any]]
    rows: Callable[[dict[str, Any]], Iterator[tuple[str, ...]]]


def part(name: str) -> Part:
    """A part by its name; only its libraries are imported."""
    if name == "farm":
        from benchmarks.rivals import farming as chosen
    elif name == "reader":
        from benchmarks.rivals import reading as chosen  # type: ignore[no-redef]
    elif name == "training":
        from benchmarks.rivals import training as chosen  # type: ignore[no-redef]
    else:
        from benchmarks.rivals import crfs as chosen  # type: ignore[no-redef]
    return Part(chosen.measured, chosen.rows)


PARTS = ("crf", "reader", "training", "farm")


def asked_part(name: str, *, quick: bool, rounds: int) -> dict[str, Any]:
    """The record of a part, with its seconds and the machine's load before it; its rows are printed."""
    load, start = round(os.getloadavg()[0], 2), time.perf_counter()
    chosen = part(name)
    record = chosen.measured(quick=quick, rounds=rounds)
    for row in chosen.rows(record):
        print("| " + " | ".join(row) + " |", file=sys.stderr)
    return {"load_1min_before": load, "seconds": round(time.perf_counter() - start, 1), "rounds": rounds, **record}


def kept_parts() -> dict[str, Any]:
    """What was measured before, by part."""
    path = RESULTS / f"{RESULT}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))["parts"]) if path.is_file() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="this one alone; the others' figures are kept")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: whether it works, not how fast")
    asked = parser.parse_args()
    packages.find() if asked.quick else packages.bring()
    names, rounds = asked.part or PARTS, 1 if asked.quick else asked.rounds
    parts = {name: asked_part(name, quick=asked.quick, rounds=rounds) for name in names}
    if asked.quick:
        print(json.dumps(parts, indent=1))
        return
    write_result(RESULT, {"parts": {**kept_parts(), **parts}})


if __name__ == "__main__":
    main()
