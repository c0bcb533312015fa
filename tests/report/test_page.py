"""The report of whole, half-done and hostile runs, read as a browser would."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from amn_dist.errors import ConfigError
from amn_dist.report.page import write_report
from amn_dist.report.tables import class_table, score_table, threshold_table

VOID = {"meta", "link", "img"}
EVIL = (
    "\"'></title></pre></desc></script><script>document.documentElement.dataset.hit=1</script><img src=x onerror=hit()>"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Reader(HTMLParser):
    """Elements with their attributes, and the text; fails where tags do not match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, Any]]] = []
        self.text: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.found if name == tag]

    @property
    def said(self) -> str:
        return " ".join(" ".join(self.text).split())


def report(out: Path, *runs: Path, images: int = 200) -> Reader:
    write_report(runs, out / "report.html", images=images)
    return Reader((out / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, make_run: Any) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("two")
    return make_run(root, "first"), make_run(root, "second", error=2)


@pytest.fixture(scope="module")
def page(two: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return report(tmp_path_factory.mktemp("page"), *two)


def test_two_runs_stand_side_by_side(page: Reader, two: tuple[Path, Path]) -> None:
    for run in two:
        rows = json.loads((run / "score" / "score.json").read_text())["sets"]["train"]["rows"]
        assert f"{100 * rows['walk']['miou']:.1f}" in page.said
    assert "CAM (first, second), train" in page.said and "pseudo-mask (second)" in page.said
    assert all(f"Losses of {name}: first, second" in page.said for name in ("classify", "irn", "segment"))
    assert "No " not in page.said and "Missing" not in page.said


def test_the_file_stands_alone_and_only_its_own_script_may_run(page: Reader, tmp_path: Path) -> None:
    assert len(page.all("script")) == 1
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    script = (Path(__file__).parents[2] / "amn_dist" / "report" / "page.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy
    for tag, attributes in page.found:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value.startswith(("data:", "#")), (tag, value)
    assert "@import" not in page.said and "url(" not in page.said


def test_what_a_screen_reader_needs_is_there(page: Reader) -> None:
    assert page.all("html") == [{"lang": "en"}]
    names = Counter(attributes["id"] for _, attributes in page.found if "id" in attributes)
    assert max(names.values()) == 1
    for _, attributes in page.found:
        for name in attributes.get("aria-labelledby", "").split():
            assert name in names
    pictures = page.all("img")
    assert len(pictures) == 6 * 7 + 3 * 6 and all(picture["loading"] == "lazy" for picture in pictures)
    assert len({picture["alt"] for picture in pictures}) > len(pictures) / 3 and all(p["alt"] for p in pictures)
    assert all(head["scope"] in ("row", "col") for head in page.all("th"))
    assert page.said.count("worst first") == 2 and all(button["type"] == "button" for button in page.all("button"))


def test_images_come_worst_first_with_their_figures(page: Reader) -> None:
    cards = [card for card in page.all("article")]
    mious = [float(card["data-miou"]) for card in cards]
    assert len(cards) > 6
    assert mious[:6] == sorted(mious[:6]) and mious[6:] == sorted(mious[6:])
    assert all(0 <= float(card["data-change"]) <= 1 for card in cards)


def test_fewer_images_on_request(two: tuple[Path, Path], tmp_path: Path) -> None:
    shown = report(tmp_path, *two, images=4)
    assert len(shown.all("article")) == 4 and "2 of 6 images: the worst, the best and the most changed" in shown.said
    assert not report(tmp_path, *two, images=0).all("img")


def test_hostile_strings_stay_text(make_run: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path, "<b>run", classes=("background", EVIL, "\ud800\u202e"[1:] + "rtl"), weights=EVIL)
    (run / "environment.json").write_text(json.dumps({EVIL: {EVIL: EVIL}, "half": "\ud800"}))
    with (run / "classify" / "metrics.jsonl").open("a") as lines:
        lines.write(json.dumps({"step": 30, EVIL: 2.0}) + "\n")
    scores = json.loads((run / "score" / "score.json").read_text())
    (run / "score" / "score.json").write_text(json.dumps(scores | {"missing": [EVIL]}))
    shown = report(tmp_path, run)
    assert len(shown.all("script")) == 1 and all("onerror" not in attributes for _, attributes in shown.found)
    assert shown.said.count(EVIL) > 10 and "\\ud800" in shown.said and "<b>run" in shown.said


@pytest.mark.parametrize("until", ["classify", "cam_seed", "irn", "segment", "score"])
def test_a_half_done_run_shows_what_there_is(make_run: Any, tmp_path: Path, until: str) -> None:
    shown = report(tmp_path, make_run(tmp_path, "half", until=until))
    assert "score: not made yet" in shown.said and "No scores." in shown.said
    assert (f"{until}: not made yet" in shown.said) and bool(shown.all("img")) == (until not in ("classify", "cam"))


def test_without_truth_there_are_pictures_and_changes_but_no_scores(make_run: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path, "blind", truth=False)
    shown = report(tmp_path, run)
    assert "train: its images have no truth" in shown.said and "No scores." in shown.said
    cards = shown.all("article")
    assert len(cards) == 9 and not any("data-miou" in card for card in cards)
    assert all("data-change" in card for card in cards)
    scores = json.loads((run / "score" / "score.json").read_text())
    assert scores["sets"] == {} and len(scores["missing"]) == 2
    assert score_table(scores).row_count == threshold_table(scores).row_count == 0


def test_images_without_tags_are_background(make_run: Any, tmp_path: Path) -> None:
    shown = report(tmp_path, make_run(tmp_path, "untagged", tagged=False))
    assert shown.said.count("no tags") == 9 and len(shown.all("article")) == 9


def test_damage_is_named_and_the_rest_is_shown(make_run: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path, "damaged")
    with (run / "classify" / "metrics.jsonl").open("ab") as lines:
        lines.write(b'{"step": 40, "total": NaN}\n{"step": 5\xff\n[1]\n' + b"[" * 100_000 + b"\n")
    (run / "environment.json").write_text("[]")
    (run / "walk" / "index.json").write_text("{}")
    tar = bytearray((run / "cam" / "000001.tar").read_bytes())
    tar[512:] = bytes(len(tar) - 512)
    (run / "cam" / "000001.tar").write_bytes(tar)
    shown = report(tmp_path, run)
    for text in ("classify: 4 damaged line(s)", "environment.json: found list", "walk:", "2 cannot be read"):
        assert text in shown.said, text
    assert len(shown.all("article")) == 7 and "Losses of classify" in shown.said
    (run / "score" / "score.json").write_text('{"sets": []}')
    (run / "data.json").write_text('{"data": "/nowhere"}')
    shown = report(tmp_path, run)
    assert "score.json is damaged" in shown.said and "/nowhere" in shown.said and "Losses of classify" in shown.said


def test_of_ten_thousand_classes_the_extremes_are_shown(make_run: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path, "wide", until="classify")
    values = [((i * 7919) % 10_000) / 10_000 for i in range(10_000)]
    row = {"miou": 0.5, "miou_decided": 0.5, "iou": values, "decided": 1.0, "accuracy_decided": 1.0, "confusion": []}
    scores = {"classes": [f"c{i}" for i in range(10_000)], "sets": {"train": {"images": 1, "rows": {"walk": row}}}}
    (run / "score").mkdir()
    (run / "score" / "score.json").write_text(json.dumps({**scores, "missing": []}))
    shown = report(tmp_path, run)
    assert "100 of 10000 classes: the 50 lowest and highest by IoU of the pseudo-mask" in shown.said
    assert len([head for head in shown.all("th") if head["scope"] == "row"]) < 130
    table = class_table(scores, "train")
    assert table.row_count == 100 and "50 worst and best" in str(table.title)
    worst = {f"c{i}" for i in range(10_000) if values[i] < 0.005}
    assert worst < set(map(str, table.columns[0].cells))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a run"):
        write_report([tmp_path], tmp_path / "report.html")


def test_equal_names_are_told_apart(two: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(two[0], tmp_path / "other" / "first")
    assert "other/first" in report(tmp_path, two[0], tmp_path / "other" / "first", images=0).said


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (320, True)])
def test_a_browser_shows_it_and_runs_nothing_of_others(make_run: Any, tmp_path: Path, width: int, dark: bool) -> None:
    run = make_run(tmp_path, "hostile", classes=("background", EVIL, "dog"), weights=EVIL)
    report(tmp_path, run)
    probe = "<script>const d=document.documentElement;onload=()=>d.dataset.over=d.scrollWidth-innerWidth</script>"
    page = (tmp_path / "report.html").read_text()
    # The probe is ours; with the policy in place it could not run.
    (tmp_path / "probed.html").write_text(
        re.sub(r"<meta http-equiv[^>]*>", "", page).replace("</body>", probe + "</body>")
    )
    plain, shot = browse(tmp_path, "report.html", width, dark)
    assert (
        "data-hit" not in plain.split(">", 2)[1]
        and 'class="orders" role="group"' in plain
        and "hidden" not in orders(plain)
    )
    assert shot.stat().st_size > 10_000
    probed, _ = browse(tmp_path, "probed.html", width, dark)
    head = probed[: probed.index("<head")]
    assert "data-hit" not in head and re.search(r'data-over="-?\d+"', head)
    assert int(re.findall(r'data-over="(-?\d+)"', head)[0]) <= 0


def orders(page: str) -> str:
    """The tag around the buttons."""
    start = page.index('<div class="orders"')
    return page[start : page.index(">", start)]


def browse(folder: Path, name: str, width: int, dark: bool) -> tuple[str, Path]:
    """The document after scripts ran, and a picture of it; fails on an error in the console."""
    shot = folder / f"{name}.png"
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width},3000"]
    command += ["--blink-settings=preferredColorScheme=0"] if dark else []
    url = (folder / name).as_uri()
    dumped = subprocess.run([*command, "--dump-dom", url], capture_output=True, text=True, timeout=300, check=True)
    console = [line for line in dumped.stderr.splitlines() if "CONSOLE" in line]
    assert not console, console
    subprocess.run([*command, f"--screenshot={shot}", url], capture_output=True, timeout=300, check=True)
    return dumped.stdout, shot
