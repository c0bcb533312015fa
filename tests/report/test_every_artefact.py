"""Nothing that is scored is left out of what shows scores: every method, and artefacts no table has heard of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.table import Table
from rich.text import Text

from amn_dist.methods import ACTIVATION, scored, title_of
from amn_dist.report.classes import class_grids, object_grids
from amn_dist.report.columns import columns_of
from amn_dist.report.contact_sheet import even_samples, open_image_columns, sheet_row
from amn_dist.report.curves import threshold_charts
from amn_dist.report.gallery import gallery
from amn_dist.report.grids import Grid, summary_grid, threshold_grid
from amn_dist.report.page import write_report
from amn_dist.report.run_folder import read_run
from amn_dist.report.tables import class_table, comparison, readable, score_table, threshold_table
from amn_dist.runs.run import read_config, read_json
from benchmarks.seeds import markdown, protocols
from benchmarks.seeds import spread as over_seeds

METHODS = ("irn", "amn", "icd", "icd_amn", "refine")
ENDS: tuple[dict[str, Any], ...] = ({"data": {"val": None}}, {"predict": {"crf": "off"}}, {})
"""Without validation images; with, without a CRF; with both."""


VOTED: tuple[Any, ...] = (("irn", "vote", {}), ("refine", "vote", {"data": {"val": None}}))


@pytest.fixture(scope="module", params=[*product(METHODS, ("walk", "seed"), ENDS), *VOTED], ids=str)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_run: Any) -> Path:
    method, mask, end = request.param
    more = {"refine": {"maps": "maps"}} if method == "refine" else {}
    more |= {"vote": {"labels": "walk", "proposals": "proposals"}} if mask == "vote" else {}
    return make_run(tmp_path_factory.mktemp("r"), method, method=method, pseudo_mask=mask, **end, **more)


def wanted(run: Path) -> dict[str, tuple[str, str, str]]:
    """Stage, field and image set of every artefact that is scored, by its name."""
    config = read_config(run / "config.yaml")
    names = {artefact.name: (stage.name, artefact.field, stage.over) for stage, artefact in scored(config)}
    assert names
    return names


def cells(table: Table) -> list[list[str]]:
    """The rows of a table as text."""
    return [list(map(str, row)) for row in zip(*(column.cells for column in table.columns), strict=True)]


def test_every_artefact_stands_in_the_tables(run: Path) -> None:
    scores = read_json(run / "score" / "score.json")
    names = wanted(run)
    assert {(over, name) for over, found in scores["sets"].items() for name in found["rows"]} == {
        (over, name) for name, (_, _, over) in names.items()
    }
    rows = {tuple(row[:2]) for row in cells(score_table(scores))}
    assert rows == {(over, title_of(name)) for name, (_, _, over) in names.items()}
    curves = {tuple(row[:2]) for row in cells(threshold_table(scores))}
    assert curves == {(over, title_of(name)) for name, (_, field, over) in names.items() if field == ACTIVATION}
    for over in scores["sets"]:
        columns = {str(column.header) for column in class_table(scores, over).columns}
        assert columns == {"class", *(title_of(name) for name, (_, _, where) in names.items() if where == over)}
    beside = {row[0] for row in cells(comparison({"a": scores}))}
    assert beside == {f"{title_of(name)} ({over})" for name, (_, _, over) in names.items()}


def test_every_artefact_stands_in_the_report(run: Path) -> None:
    record = read_run(run, label="a")
    names = wanted(run)
    curves = {(title_of(name), over) for name, (_, field, over) in names.items() if field == ACTIVATION}
    assert record.missing == ()
    assert firsts(summary_grid([record])) == {f"{title_of(name)} ({over})" for name, (_, _, over) in names.items()}
    assert firsts(threshold_grid([record])) == {f"{title} (a), {over}" for title, over in curves}
    assert {grid.caption for grid in object_grids([record])} == {
        f"Inside true objects: {title} (a), {over}" for title, over in curves
    }
    drawn = {line.label for chart in threshold_charts([record]) for line in chart.lines}
    assert drawn == {f"{title} (a)" for title, _ in curves}
    by_class = {head for grid in class_grids([record]) for head in grid.heads[1:]}
    assert by_class == {title_of(name) for name in names}
    for over in record.sets:
        found = {title_of(name) for name, (_, _, where) in names.items() if where == over}
        assert {column.title for column in columns_of([record], over)} == found
        (image, *_) = gallery([record], over, 1).images
        assert {picture.title for picture in image.thumbnails} == {"photo", "truth", *found}


@pytest.mark.parametrize(
    "run", [(*both, {}) for both in (*product(METHODS, ("walk", "seed")), ("irn", "vote"))], indirect=True, ids=str
)
def test_every_artefact_is_shown_exported_and_averaged(run: Path, amn: Any, tmp_path: Path) -> None:
    names = wanted(run)
    sets, missing = open_image_columns(run)
    titles = [title for sample in even_samples(sets, 1) for title, _ in sheet_row(*sample)]
    assert not missing and {title_of(name) for name in names} <= set(titles)
    averaged = over_seeds([run])
    assert averaged.keys() == {f"{over} {name}" for name, (_, _, over) in names.items()} and all(averaged.values())
    assert all(f"| {name} |" in markdown("g", averaged, 1, protocols([run])) for name in averaged)
    for name, (stage, field, _) in names.items():
        to, what = tmp_path / name, ("maps",) if field == ACTIVATION else ("masks", "--field", field)
        done = amn("export", what[0], run, "--stage", stage, *what[1:], "--out", to)
        assert done.code == 0, done.err
        assert len([*to.glob("*.npy"), *to.glob("*.png")]) in (6, 3)


def firsts(grid: Grid) -> set[str]:
    """What the rows of a table are of."""
    return {first for first, _ in grid.rows}


@pytest.fixture
def strange(make_run: Any, tmp_path: Path) -> Path:
    """A run whose scores hold an activation, labels and something else that no table has heard of."""
    run = make_run(tmp_path, "strange")
    path = run / "score" / "score.json"
    scores = json.loads(path.read_text())
    rows = scores["sets"]["train"]["rows"]
    rows |= {"[b]heat\x1b": rows["cam"], "mist": rows["walk"], "odour": {"nose": 3}}
    path.write_text(json.dumps(scores))
    return run


def test_an_artefact_without_a_title_is_shown_under_its_own_name(strange: Path, tmp_path: Path) -> None:
    scores, said = readable(read_json(strange / "score" / "score.json"))
    heat = "[b]heat\\x1b"
    tables = [score_table(scores), threshold_table(scores), class_table(scores, "train"), comparison({"a": scores})]
    shown = [" ".join(told(table)) for table in tables]
    assert all(heat in text for text in shown) and all("mist" in text for text in (shown[0], *shown[2:]))
    assert said == ["score: odour (train) has scores of a form that no table here has"]
    record = read_run(strange, label="a")
    grids = [summary_grid([record]), threshold_grid([record]), *class_grids([record])[:1]]
    assert all(heat in " ".join((*firsts(grid), *grid.heads)) for grid in grids)
    assert any(line.label == f"{heat} (a)" for chart in threshold_charts([record]) for line in chart.lines)
    assert said[0] in record.missing
    assert {"train [b]heat\x1b", "train mist", "train odour"} <= over_seeds([strange]).keys()
    assert write_report([strange], tmp_path / "r.html") and "odour (train)" in (tmp_path / "r.html").read_text()


def told(table: Table) -> Iterable[str]:
    """The cells and headings of a table as a terminal shows them."""
    for column in table.columns:
        for part in (column.header, *column.cells):
            yield (part if isinstance(part, Text) else Text.from_markup(str(part))).plain


def test_columns_of_what_a_stage_made_need_no_title(make_run: Any, tmp_path: Path) -> None:
    record = read_run(make_run(tmp_path, "a"), label="a")
    more = replace(record, outputs={**record.outputs, "fog": record.outputs["walk"]})
    assert [column.title for column in columns_of([more], "train")][-1] == "fog"
    (image, *_) = gallery([more], "train", 1).images
    assert image.thumbnails[-1].title == "fog"


def test_shards_that_do_not_fit_their_images_are_named(make_run: Any, tmp_path: Path, amn: Any) -> None:
    run = make_run(tmp_path, "a")
    shutil.rmtree(run / "walk")
    shutil.copytree(run / "predict", run / "walk")
    told = "walk: its shards do not lie over the images of train; --redo walk"
    assert told in read_run(run, label="a").missing
    shown = amn("show", run, "--out", tmp_path / "a.png")
    assert shown.code == 0 and told in shown.err and len(shown.err.splitlines()) == 1


def test_sets_of_one_shape_are_not_confused(make_run: Any, tmp_path: Path, amn: Any) -> None:
    run = make_run(tmp_path, "even", images={"train": 3, "val": 3})
    widths = {}
    for over in ("train", "val"):
        done = amn("show", run, f"{over}1", "--out", tmp_path / f"{over}.png")
        assert done.code == 0, done.err
        with Image.open(tmp_path / f"{over}.png") as picture:
            widths[over] = picture.width
    # Photo, truth, CAM, CAM seed, pseudo-mask; photo, truth, prediction with and without a CRF.
    assert widths["train"] * 4 == pytest.approx(widths["val"] * 5, rel=0.02)
