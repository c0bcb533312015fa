"""What do runs of several seeds score on average, and how far do they lie apart?

Reads score.json of finished runs. Runs whose configurations differ in their seed alone stand in one group, named after
the configuration or as asked; a group's figures are means with standard deviations over its runs.

    python -m benchmarks.seeds RUN... [--out NAME]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.harness import write_result

FIGURES = {
    "default_miou": "at default",
    "best_miou": "best",
    "best_threshold": "at",
    "width_1": "within 1 point",
    "width_2": "within 2 points",
    "mean_miou": "mean of thresholds",
    "miou": "mIoU",
    "decided": "decided",
}
"""Figures of a row of score.json, and what a table calls them."""
THRESHOLDS = ("best_threshold", "own_mean", "width_1", "width_2")
"""On the axis of thresholds; all other figures are fractions, told in percent."""


def grouped(runs: Iterable[Path]) -> dict[str, dict[int, Path]]:
    """Runs by configuration and seed; raises ValueError for a name with two configurations or one seed twice."""
    groups: dict[str, dict[int, Path]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for run in runs:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        name, seed = config["name"], config.pop("seed")
        if settings.setdefault(name, config) != config:
            first = next(iter(groups[name].values()))
            raise ValueError(f"{run}: found other settings than in {first}; expected another seed alone")
        if seed in groups.setdefault(name, {}):
            raise ValueError(f"{run}: found seed {seed} twice in {name}; expected runs of different seeds")
        groups[name][seed] = run
    return groups


def spread(runs: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation of every figure, by set and artefact; every artefact that any of the runs scored."""
    tables = [read_rows(run / "score" / "score.json") for run in runs]
    return {
        name: {
            figure: told([table[name][figure] for table in tables if has(table, name, figure)])
            for figure in FIGURES
            if any(has(table, name, figure) for table in tables)
        }
        for name in dict.fromkeys(name for table in tables for name in table)
    }


def read_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Rows of a score.json by set and artefact; raises ValueError where it holds none."""
    sets = json.loads(path.read_text(encoding="utf-8")).get("sets")
    if not isinstance(sets, dict):
        raise ValueError(f"{path}: found no scores, expected `sets`; `amn score` makes it")
    return {f"{over} {name}": row for over, scores in sets.items() for name, row in scores["rows"].items()}


def has(table: dict[str, dict[str, Any]], name: str, figure: str) -> bool:
    """Whether a row has a figure; of maps `miou` is a list by threshold, and without truth a figure is null."""
    return isinstance(table.get(name, {}).get(figure), int | float)


def told(values: Sequence[float]) -> dict[str, Any]:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.mean(values), 5), "deviation": round(deviation, 5), "values": list(values)}


def protocols(runs: Sequence[Path]) -> dict[str, str]:
    """By whose protocol the mIoU of every row is computed, by set and artefact; scores of older versions follow voc.

    Raises ValueError where runs differ: their mean would be of nothing.
    """
    found: dict[str, str] = {}
    for run in runs:
        for name, row in read_rows(run / "score" / "score.json").items():
            protocol = row.get("protocol", "voc")
            if found.setdefault(name, protocol) != protocol:
                raise ValueError(
                    f"{run}: found {name} by the protocol {protocol}, expected {found[name]}; amn score it"
                )
    return found


def markdown(group: str, rows: dict[str, dict[str, Any]], count: int, by: dict[str, str]) -> str:
    """A table of a group, percent or thresholds, each figure as mean ± deviation. by: the protocol of every row."""
    heads = ("", "protocol", *FIGURES.values())
    lines = [f"{group}, n = {count}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, row in rows.items():
        cells = [cell(figure, row[figure], count) if figure in row else "" for figure in FIGURES]
        lines.append(f"| {name} | {by[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(figure: str, found: dict[str, Any], count: int) -> str:
    """Mean ± deviation, and the number of runs that have the figure where not all have."""
    digits, factor = (2, 1) if figure in THRESHOLDS else (1, 100)
    text = f"{factor * found['mean']:.{digits}f}"
    if len(found["values"]) > 1:
        text += f" ± {factor * found['deviation']:.{digits}f}"
    return text if len(found["values"]) == count else f"{text} (n = {len(found['values'])})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", default="seeds", help="name of the result")
    asked = parser.parse_args()
    try:
        groups = {name: list(by_seed.values()) for name, by_seed in grouped(asked.runs).items()}
        found = {
            name: {"n": len(runs), "protocols": protocols(runs), "rows": spread(runs)} for name, runs in groups.items()
        }
    except (OSError, ValueError) as error:
        parser.error(str(error))
    write_result(asked.out, {"groups": found})
    for name, runs in groups.items():
        print(f"\n{markdown(name, found[name]['rows'], len(runs), found[name]['protocols'])}")


if __name__ == "__main__":
    main()
