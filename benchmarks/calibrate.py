"""How far from the best threshold do a few drawn masks lead, and an estimate without any?

Of finished runs whose training images have a truth: masks are drawn from it by chance, many times, and choose a
threshold each time as `amn calibrate` does. Its regret is mIoU of the whole set at its best threshold
less mIoU at the chosen one. Beside it stand the regret of the run's own threshold, and of estimates without masks. The
walk is done again for every image; --stored leaves it out.

    python -m benchmarks.calibrate RUN... [--draws 200] [--masks 5 10 20 50] [--stored] [--figure FILE.svg] [--out NAME]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from amn_dist.commands.calibrate.drawn import grid_position
from amn_dist.commands.calibrate.estimate import CRITERIA, estimates
from amn_dist.commands.calibrate.maps import CutMaps, StoredMaps, count_maps, cut_maps
from amn_dist.config import Protocol
from amn_dist.errors import AmnError, ConfigError
from amn_dist.ops.metrics.threshold_analysis import GRID
from amn_dist.ops.metrics.threshold_choice import Choice, ThresholdCounts, choose, miou_curves
from amn_dist.report.charts import Axis, Chart, Line, fitted
from amn_dist.report.run_folder import labels_of
from amn_dist.runs.pipeline import Pipeline, reopen
from benchmarks.chart_svg import charts_svg
from benchmarks.harness import write_result

LOOKED_AT = 48
"""Images an estimate without masks looks at, as `amn calibrate` does."""


def whole_curve(counts: ThresholdCounts, protocol: Protocol) -> np.ndarray:
    """mIoU f64[99] of the whole set at every threshold."""
    return miou_curves(counts, np.ones((1, len(counts))), protocol)[0]


def drawn(
    counts: ThresholdCounts, protocol: Protocol, masks: int, draws: int, resamples: int
) -> tuple[list[Choice], list[int]]:
    """What masks choose that are drawn by chance, every draw by a seed of its own; and the peaks of their curves."""
    choices = []
    for draw in range(draws):
        images = np.random.default_rng((masks, draw)).choice(len(counts), masks, replace=False)
        choice = choose(counts.take(images), protocol, resamples=resamples, seed=draw)
        if choice is not None:
            choices.append(choice)
    return choices, [int(choice.curve.argmax()) for choice in choices]


def figures(curve: np.ndarray, choices: Sequence[Choice], peaks: Sequence[int]) -> dict[str, Any]:
    """What chosen thresholds lose against the best, in points of mIoU; how often intervals hold the best."""
    best, chosen = int(curve.argmax()), np.array([choice.best for choice in choices])
    regrets = 100 * (curve[best] - curve[chosen])
    thresholds = np.array(GRID)[chosen]
    return {
        "draws": len(choices),
        "threshold": {"mean": rounded(thresholds.mean()), "deviation": rounded(thresholds.std())},
        "regret": {
            "mean": rounded(regrets.mean()),
            "p90": rounded(np.quantile(regrets, 0.9)),
            "most": rounded(regrets.max()),
        },
        "regret_of_peak": rounded(100 * (curve[best] - curve[list(peaks)]).mean()),
        "expected_regret": rounded(100 * np.mean([choice.regret for choice in choices])),
        "interval": {
            "holds_best": rounded(np.mean([choice.low <= best <= choice.high for choice in choices])),
            "width": rounded(np.mean([choice.width for choice in choices])),
        },
    }


def rounded(value: Any) -> float:
    return round(float(value), 4)


def of_maps(pipeline: Pipeline, maps: CutMaps, asked: argparse.Namespace) -> dict[str, Any]:
    """Everything about one of a run's maps."""
    images, protocol = pipeline.sets["train"], pipeline.config.score.by("train")
    ordinals = range(len(images))
    start = time.monotonic()
    counts = count_maps(maps, images, ordinals, (images.load(ordinal, "gt.png") for ordinal in ordinals))
    curve = whole_curve(counts, protocol)
    (estimate,) = estimates(pipeline, [maps], count=LOOKED_AT, seed=0, criteria=CRITERIA)
    best = int(curve.argmax())
    return {
        "images": len(images),
        "protocol": protocol,
        "best": {"threshold": GRID[best], "miou": rounded(100 * curve[best])},
        "now": regret_at(curve, maps.now),
        "estimate": {name: regret_at(curve, value) for name, value in estimate.by_criterion.items()},
        "masks": {
            str(number): figures(curve, *drawn(counts, protocol, number, asked.draws, asked.resamples))
            for number in asked.masks
            if number <= len(images)
        },
        "seconds": round(time.monotonic() - start, 1),
    }


def regret_at(curve: np.ndarray, threshold: float) -> dict[str, float]:
    """A threshold, and the points of mIoU it loses."""
    at = grid_position(threshold)
    return {"threshold": GRID[at], "regret": rounded(100 * (curve.max() - curve[at]))}


def chart(title: str, row: Mapping[str, Any]) -> Chart:
    """Regret by the number of masks, beside that of the run's threshold and of the estimate."""
    masks = [int(number) for number in row["masks"]]
    ends = (0, max(masks))
    level = {"the run's threshold": row["now"], **{f"no masks, {k}": v for k, v in row["estimate"].items()}}
    lines = [
        Line(f"masks, {name}", [(n, row["masks"][str(n)]["regret"][key]) for n in masks])
        for name, key in (("mean", "mean"), ("90th percentile", "p90"))
    ]
    lines += [
        Line(f"{name} ({at['threshold']:.2f})", [(end, at["regret"]) for end in ends]) for name, at in level.items()
    ]
    best = row["best"]
    return Chart(
        title=title,
        description=f"{row['images']} images, best {best['miou']:.1f} at {best['threshold']:.2f}",
        x=Axis("drawn masks", *ends),
        y=fitted("mIoU lost, points", [y for line in lines for _, y in line.points], zero=True),
        lines=tuple(lines),
    )


def titles(runs: Sequence[Path]) -> list[str]:
    """Names of runs, as a report has them. Raises ConfigError for a run named twice: one row would stand for both."""
    paths = [run.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise ConfigError(f"{', '.join(map(str, runs))}: a run is named twice")
    return labels_of(paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--masks", type=int, nargs="+", default=[5, 10, 20, 50])
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--stored", action="store_true", help="leave the walk out")
    parser.add_argument("--figure", type=Path, help="an .svg to draw")
    parser.add_argument("--out", default="calibrate", help="name of the result")
    asked = parser.parse_args()
    try:
        rows = {
            f"{title} {maps.name}": of_maps(pipeline, maps, asked)
            for run, title in zip(asked.runs, titles(asked.runs), strict=True)
            for pipeline in [reopen(run)]
            for maps in cut_maps(pipeline)
            if isinstance(maps, StoredMaps) or not asked.stored
        }
    except (AmnError, OSError) as error:
        parser.error(str(error))
    write_result(asked.out, {"draws": asked.draws, "resamples": asked.resamples, "rows": rows})
    if asked.figure is not None:
        asked.figure.write_text(charts_svg([chart(name, row) for name, row in rows.items()]), encoding="utf-8")


if __name__ == "__main__":
    main()
