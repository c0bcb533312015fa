"""Tables for people: headings and words stay whole, however narrow the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from amn_dist.commands.printing import print_table
from amn_dist.report.tables import class_table, score_table, threshold_table

ROW = {"iou": [0.5, 0.4], "miou": 0.45, "decided": 0.9, "boundary_miou": 0.3, "protocol": "voc"}
ACTIVATION = {
    **{"iou": [[0.5, 0.4]], "miou": [0.45], "thresholds": [0.25], "default_threshold": 0.25, "default_miou": 0.45},
    **{"best_miou": 0.5, "best_threshold": 0.7, "width_1": 0.1, "width_2": 0.2, "mean_miou": 0.4, "protocol": "voc"},
    "images": {"own_quartiles": [0.6, 0.7, 0.9], "near": 0.4, "oracle_miou": 0.5},
    "objects": {name: {"mean": 0.4} for name in ("cv", "gini", "gap")},
}
SCORES = {
    "classes": ["background", "a very long name of a class"],
    "sets": {"train": {"rows": {"cam": ACTIVATION, "walk": ROW}}, "val": {"rows": {"predict": ROW}}},
}


@pytest.mark.parametrize("make", [score_table, threshold_table, lambda scores: class_table(scores, "train")])
@pytest.mark.parametrize(("columns", "terminal"), [(80, True), (80, False), (20, True), (200, True), (None, False)])
def test_headings_and_words_are_whole(
    make, columns: int | None, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", str(columns))
    table = make(SCORES)
    words = {word for column in table.columns for cell in (column.header, *column.cells) for word in str(cell).split()}
    screen = io.StringIO()
    print_table(Console(file=screen, force_terminal=terminal, markup=False, emoji=False, color_system=None), table)
    shown = {word.strip("│┃") for word in screen.getvalue().split()}
    assert words <= shown, words - shown
    assert "…" not in screen.getvalue()
    if columns == 80:
        assert max(map(len, screen.getvalue().splitlines())) <= 80, screen.getvalue()


def test_a_path_is_folded_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = "/somebody/" + "a_folder_with_a_long_name/" * 4 + "weights.safetensors"
    table = Table("setting", "because")
    table.add_row("backbone", path)
    screen = io.StringIO()
    print_table(Console(file=screen, markup=False, emoji=False), table)
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert path in "".join(line.removeprefix("backbone").strip() for line in lines)
