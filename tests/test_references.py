"""What code and documents point at is there: sections, files, links, commands with their options, settings."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from amn_dist.cli import app
from amn_dist.commands.bench import questions
from amn_dist.config import Config, Strict

ROOT = Path(__file__).resolve().parents[1]
METHOD = ROOT / "docs" / "method.md"
HERE = Path(__file__).resolve()
DATA = ("tests/conftest.py", "benchmarks/harness.py", "tests/test_references.py")
"""Files that say where test data lie, beside the project."""

ENDINGS = (".py", ".md", ".yaml", ".sh", ".sbatch", ".toml", ".html", ".js", ".css")
LISTED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
FOLDERS = ("amn_dist", "data_shards", "benchmarks", "configs", "docs", "launch", "tests")
FOUND = [ROOT / path for path in LISTED] or [
    ROOT / "README.md",
    *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*")),
]
FILES = [path for path in FOUND if path.name.endswith(ENDINGS) and path.is_file()]
TEXTS = {path: path.read_text(encoding="utf-8") for path in FILES}
DOCUMENTS = [path for path in FILES if path.suffix == ".md"]
CITATION = re.compile(r"\b(amn|icd|clip) (\d+(?:\.\d+)?(?:(?:,| and| or)\s+\d+(?:\.\d+)?\b)*)")
OUTSIDE = re.compile(r"\b(?:spec[ /]\w+\.md|FACTS\.md|DESIGN\.md|STYLE\.md)|(?<![/\w])(?:shared|spec)/\w")
PLACE = re.compile(
    r"\b(?:amn_dist|data_shards|benchmarks|configs|docs|launch|tests)/[\w./-]*\.(?:py|md|ya?ml|sh|sbatch|png|json)\b"
)
"""A file of the project, by its path."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def sections() -> dict[str, set[str]]:
    """Numbers of the sections of docs/method.md, of every part."""
    pattern = re.compile(r"^## (?:icd |clip )?(\d+) |\*\*(\d+\.\d+)(?: [^*]+)?\*\*", re.MULTILINE)
    return {part: {a or b for a, b in pattern.findall(text)} for part, text in parts().items()}


def parts() -> dict[str, str]:
    """The parts of docs/method.md, by what their sections are cited as."""
    texts = re.split(r"\n# (?=ICD|CLIP)", METHOD.read_text(encoding="utf-8"))
    return dict(zip(("amn", "icd", "clip"), texts, strict=True))


def unknown_sections(text: str) -> list[str]:
    """Cited sections that docs/method.md does not have; a list of them may run over lines and comment marks."""
    return [
        f"{part} {number}"
        for part, numbers in CITATION.findall(re.sub(r"\s*\n\s*(?:#+ )?", " ", text))
        for number in re.findall(r"\d+(?:\.\d+)?", numbers)
        if number not in sections()[part]
    ]


def test_cited_sections_exist() -> None:
    assert not {name(path): found for path, text in TEXTS.items() if path != HERE and (found := unknown_sections(text))}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("(amn 1.2, 3.1, 99.1)", ["amn 99.1"]),
        ("as published (icd 4.2,\n    # 4.99)", ["icd 4.99"]),
        ("amn 77", ["amn 77"]),
        ("(amn 5.2, icd 1.3)", []),
        ("(clip 5.1, 9.9)", ["clip 9.9"]),
        ("irn, amn 1.5 and 3.44", ["amn 3.44"]),
    ],
)
def test_a_section_that_is_not_there_is_found(text: str, found: list[str]) -> None:
    assert unknown_sections(text) == found


def test_sections_that_cite_each_other_exist() -> None:
    for part, text in parts().items():
        bare = re.findall(r"\((\d\.\d|[1-9])\)|\b(?:in|of|on|sections?) (\d\.\d)\b(?! points)", text)
        cited = {a or b for a, b in bare}
        assert cited <= sections()[part], cited - sections()[part]
        assert len(cited) > 2 or part == "clip"


def test_nothing_outside_the_project_is_cited() -> None:
    found = {name(path): OUTSIDE.findall(text) for path, text in TEXTS.items() if name(path) not in DATA}
    assert not {where: cited for where, cited in found.items() if cited}


def test_files_that_are_named_exist() -> None:
    found = {
        name(path): [place for place in PLACE.findall(text) if not (ROOT / place).is_file()]
        for path, text in TEXTS.items()
    }
    assert not {where: missing for where, missing in found.items() if missing}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_modules_that_documents_name_exist(path: Path) -> None:
    known = [name(file) for file in FILES if file.suffix == ".py"]
    for module in re.findall(r"`([\w/]+\.py)`", path.read_text(encoding="utf-8")):
        assert any(f"/{file}".endswith(f"/{module}") for file in known), module


def slug(heading: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"`", "", heading).lower()).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {slug(found) for found in re.findall(r"^#+ (.+?)\s*$", path.read_text(encoding="utf-8"), re.MULTILINE)}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        place, _, anchor = target.partition("#")
        there = (path.parent / place).resolve() if place else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def commands(path: Path) -> Iterator[list[str]]:
    """The words of every `amn` command in a text: in code, and where a line begins with one."""
    joined = re.sub(r"\\\n\s*(?:[#>] )?\s*", "", TEXTS[path])
    for found in re.findall(
        r"`amn ([^`\n]+)`|^[#>$\s]*(?:Command:\s+)?(?:\S*/)?amn ((?!\w+,)[a-z].*)$", joined, re.MULTILINE
    ):
        line = re.split(r"\s+#|\s{3,}|;|\s\(|\)\s|&&|\||: ", found[0] or found[1])[0]
        words = re.sub(r"[\[\]\"']", " ", re.sub(r"\{[^}]*\}", "NAME", line)).split()
        if re.match(r"[a-z-]", words[0]):  # else a section, or a placeholder for any command
            yield words


@cache
def top() -> Any:
    return typer.main.get_command(app)


def known_options(words: list[str]) -> tuple[str, set[str], list[str]]:
    """The command that some words begin with, the options it has, the words behind its name; none for a wrong name.

    `...` in the place of a command stands for any.
    """
    command: Any = top()
    context = command.make_context("amn", [], resilient_parsing=True)
    while hasattr(command, "commands") and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    several = list(command.commands.values()) if hasattr(command, "commands") and words[:1] == ["..."] else [command]
    if several == [command] and hasattr(command, "commands") and words and re.match(r"\w", words[0]):
        return "", set(), words
    parameters = [parameter for one in several for parameter in one.get_params(context)]
    options = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
    return command.name or "amn", options, words


def benchmark_options(words: list[str]) -> set[str]:
    """The options of the benchmark that `amn bench` is given; fails for a name there is not."""
    if not words or words[0].startswith("-"):
        return set()
    source = ROOT / "benchmarks" / f"{words[0]}.py"
    assert words[0] in (*questions(ROOT / "benchmarks"), "all", "NAME"), words
    return set(re.findall(r'"(--[\w-]+)"', source.read_text(encoding="utf-8"))) if source.is_file() else set()


def test_commands_are_found() -> None:
    """The search sees what the README shows."""
    found = [" ".join(words) for words in commands(ROOT / "README.md")]
    assert "verify data/voc12/train" in found and "run configs/voc12_amn.yaml --data data/voc12" in found
    assert "show runs/voc12_amn 2007_000032" in found and "bench rehearsal --images 500 --steps-cap 20" in found


def test_commands_exist_with_their_options() -> None:
    for where, words in ((name(path), words) for path in FILES if path != HERE for words in commands(path)):
        command, options, rest = known_options(words)
        assert command, f"{where}: amn {' '.join(words)}: no such command"
        given = {word.partition("=")[0] for word in rest if re.match(r"--\w", word)}
        known = options | (benchmark_options(rest) if command == "bench" else set())
        assert given <= known, f"{where}: amn {' '.join(words)}: no {', '.join(sorted(given - known))}"


@pytest.mark.parametrize(
    ("words", "options"),
    [(["frobnicate"], None), (["pack", "vok"], None), (["run", "--shard"], {"--data", "--set"}), (["pack"], set())],
)
def test_what_is_not_there_is_not_known(words: list[str], options: set[str] | None) -> None:
    command, known, _ = known_options(words)
    assert bool(command) == (options is not None)
    assert "--shard" not in known and (options or set()) <= known


SUFFIXES = ("py", "png", "npz", "json", "jsonl", "yaml")
SETTING = re.compile(r"(?:--set |`)([a-z_]+(?:\.[a-z_]+)+)(?==|`)")


def test_settings_that_are_named_exist() -> None:
    named = {(name(path), tuple(found.split("."))) for path, text in TEXTS.items() for found in SETTING.findall(text)}
    known = {(where, keys) for where, keys in named if keys[0] in Config.model_fields and keys[-1] not in SUFFIXES}
    assert len(known) > 40 and not {(where, keys) for where, keys in known if not has_key(keys)}


def has_key(keys: Sequence[str]) -> bool:
    """Whether the configuration has such a setting."""
    section: object = Config
    for key in keys:
        if not (isinstance(section, type) and issubclass(section, Strict) and key in section.model_fields):
            return False
        section = section.model_fields[key].annotation
    return True
