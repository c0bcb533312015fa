"""Do the kept results reach thresholds.yaml? One line for each that does not.

    python -m benchmarks.check [NAME ...]

thresholds.yaml names, for every file of results/, the benchmark that writes it and what its figures must be: `least`,
`most`, `exact`. A figure is a dotted path into the file; `*` stands for every key or element. A result that is absent
falls short when its benchmark is named; without names it is only mentioned, because not every machine runs everything.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from amn_dist.documents import read_yaml
from amn_dist.errors import AmnError, ConfigError, printable
from benchmarks.harness import RESULTS

THRESHOLDS = Path(__file__).resolve().parent / "thresholds.yaml"
Rule = Literal["least", "most", "exact"]


@dataclass(frozen=True)
class Threshold:
    """What the figures at a path of results/RESULT.json must be."""

    benchmark: str
    result: str
    rule: Rule
    path: str
    value: Any

    def holds(self, found: Any) -> bool:
        """Whether a figure is as it must be; what is no number is neither least nor most."""
        if self.rule == "exact":
            return type(found) is type(self.value) and found == self.value
        if isinstance(found, bool) or not isinstance(found, int | float):
            return False
        return bool(found >= self.value if self.rule == "least" else found <= self.value)

    @property
    def expected(self) -> str:
        """The rule in words."""
        return {"least": "at least ", "most": "at most ", "exact": ""}[self.rule] + repr(self.value)


def read_thresholds(file: Path) -> tuple[Threshold, ...]:
    """The thresholds of a file. Raises ConfigError naming what is not understood."""
    try:
        tree = read_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read ({printable(error)}); mend it") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: found {type(tree).__name__}, expected results by name")
    return tuple(found for result, entry in tree.items() for found in _entry(file, str(result), entry))


def _entry(file: Path, result: str, entry: Any) -> Iterator[Threshold]:
    known = {"benchmark", *get_args(Rule)}
    if not isinstance(entry, dict) or "benchmark" not in entry or not entry.keys() <= known:
        raise ConfigError(
            f"{file}: {result}: found {entry!r:.120}, expected benchmark, and {', '.join(get_args(Rule))}"
        )
    for rule in get_args(Rule):
        for path, value in entry.get(rule, {}).items():
            if rule != "exact" and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ConfigError(f"{file}: {result}: {rule}: {path}: found {value!r}, expected a number")
            yield Threshold(str(entry["benchmark"]), result, rule, str(path), value)


def figures(tree: Any, path: str) -> list[tuple[str, Any]]:
    """Every figure a path stands for, with its own path; none where it leads nowhere."""
    found = [("", tree)]
    for step in path.split("."):
        found = [(f"{before}.{key}".lstrip("."), value) for before, node in found for key, value in _below(node, step)]
    return found


def _below(node: Any, step: str) -> list[tuple[str, Any]]:
    items = node if isinstance(node, dict) else dict(enumerate(node)) if isinstance(node, list) else {}
    return [(str(key), value) for key, value in items.items() if step in ("*", str(key))]


def shortfalls(thresholds: Sequence[Threshold], tree: Any) -> list[str]:
    """A line for every figure of one result that is not as it must be, or is not there."""
    lines = []
    for wanted in thresholds:
        found = figures(tree, wanted.path)
        where = f"{wanted.benchmark}: {wanted.result}.json:"
        if not found:
            lines.append(f"{where} {wanted.path}: not there, expected {wanted.expected}; measure again")
        lines += [
            f"{where} {path}: found {value!r:.80}, expected {wanted.expected}"
            for path, value in found
            if not wanted.holds(value)
        ]
    return lines


def check(thresholds: Sequence[Threshold], folder: Path, names: Sequence[str]) -> tuple[list[str], list[str], int]:
    """Shortfalls, results that are absent, and how many figures' thresholds were compared. names: benchmarks; all
    without."""
    unknown = sorted(set(names) - {wanted.benchmark for wanted in thresholds})
    if unknown:
        raise ConfigError(f"{', '.join(unknown)}: no thresholds; expected some in {THRESHOLDS.name}")
    lines, absent, compared = [], [], 0
    wanted = [one for one in thresholds if not names or one.benchmark in names]
    for result in dict.fromkeys(one.result for one in wanted):
        mine = [one for one in wanted if one.result == result]
        path = folder / f"{result}.json"
        if not path.is_file():
            absent.append(f"{mine[0].benchmark}: no {path.name}, run `amn bench {mine[0].benchmark}`")
            continue
        lines += shortfalls(mine, _read(path))
        compared += len(mine)
    return lines, absent, compared


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({printable(error)}); measure again") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    names = parser.parse_args().names
    try:
        lines, absent, compared = check(read_thresholds(THRESHOLDS), RESULTS, names)
    except AmnError as error:
        print(f"amn: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    lines += absent if names or not compared else []
    for line in lines:
        print(line)
    print(f"{compared} thresholds compared; not measured here: {len(absent)} results")
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
