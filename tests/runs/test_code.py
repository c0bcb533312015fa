"""Digests of source: what moves them and what does not, on every Python there is, and which modules a stage uses."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from amn_dist.config import Config
from amn_dist.methods import Stage, stages
from amn_dist.runs.code import PACKAGE, code_digests, digest_of, source_digest
from amn_dist.runs.origins import code_of

SOURCE = '''
"""What it does."""
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

LIMIT = 3
"""Of something."""


def scaled(x: float, *, by: float = 2.0) -> str:
    """Scale."""
    if x < LIMIT:
        return f"{x * by:>{LIMIT}} of {LIMIT}" f"{x!r}" "."
    with open("a") as a, open("b") as b:
        return {**vars(a), "b": b, 'none': None}[f'']
'''
SAME = {
    "a comment": ("LIMIT = 3", "LIMIT = 3  # of old"),
    "a docstring": ('"""Scale."""', '"""Scale it,\n\n    by so much.\n    """'),
    "no docstring": ('    """Scale."""\n', ""),
    "no docstring of a module": ('"""What it does."""', ""),
    "a docstring of a constant": ('"""Of something."""', '"""Of this and that."""'),
    "a line": ("float, *, by", "float,\n    *,\n    by"),
    "quotes": ("'none'", '"none"'),
    "digits": ("= 2.0", "= 2.00"),
    "brackets": ("x < LIMIT", "(x < LIMIT)"),
    "joined strings": ('{LIMIT}} of {LIMIT}" f"{x!r}" "."', '{LIMIT}}" f" of {LIMIT}{x!r}."'),
    "an import for annotations": ("    import numpy", "    import numpy\n    import torch"),
}
OTHER = {
    "a constant": ("LIMIT = 3", "LIMIT = 4"),
    "a type of constant": ("LIMIT = 3", "LIMIT = 3.0"),
    "an operator": ("x < LIMIT", "x <= LIMIT"),
    "a default": ("= 2.0", "= 2.5"),
    "a name": ("x * by", "x * LIMIT"),
    "a conversion": ("{x!r}", "{x!s}"),
    "a width": (":>{LIMIT}", ":<{LIMIT}"),
    "a statement": ("LIMIT = 3", "LIMIT = 3\nLIMIT += 0"),
    "none": ("'none': None", "'none': 'None'"),
}


def changed(change: tuple[str, str]) -> str:
    old, new = change
    assert SOURCE.count(old) == 1, old
    return source_digest(SOURCE.replace(old, new))


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_does_nothing_leaves_the_digest(change: tuple[str, str]) -> None:
    assert changed(change) == source_digest(SOURCE)


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_what_does_something_moves_the_digest(change: tuple[str, str]) -> None:
    assert changed(change) != source_digest(SOURCE)


def interpreters() -> list[str]:
    """Other Pythons of this machine from 3.11 on."""
    beside = sorted(Path(sys.base_prefix).parent.glob("3.1[1-9]*/bin/python3"))
    on_path = [shutil.which(f"python3.{minor}") for minor in range(11, 20)]
    found = {str(Path(python).resolve()) for python in [*map(str, beside), *on_path] if python}
    found -= {str(Path(sys.executable).resolve())}
    return [python for python in sorted(found) if not subprocess.run([python, "-c", ""], check=False).returncode]


def test_every_python_finds_the_same_digests() -> None:
    modules = [path.relative_to(PACKAGE).with_suffix("") for path in sorted(PACKAGE.rglob("*.py"))]
    names = [".".join(path.parts) for path in modules]
    asked = f"import runpy; m = runpy.run_path({str(PACKAGE / 'runs' / 'code.py')!r}); "
    asked += f"print(m['digest_of'](m['code_digests'](*{names!r})), m['source_digest']({SOURCE!r}))"
    expected = f"{digest_of(code_digests(*names))} {source_digest(SOURCE)}"
    others = interpreters()
    if not others:
        pytest.skip("no other Python on this machine")
    for python in others:
        found = subprocess.run([python, "-B", "-c", asked], capture_output=True, text=True, check=False)
        assert (found.returncode, found.stdout.strip()) == (0, expected), (python, found.stderr)


def modules_of(name: str, method: str = "amn") -> set[str]:
    config = Config.model_validate({"name": "x", "method": method})
    return set(code_of(config, next(stage for stage in stages(config) if stage.name == name))[1])


def test_a_stage_is_made_of_the_modules_it_uses_and_no_others() -> None:
    classify, walk, seed = (modules_of(name) for name in ("classify", "walk", "cam_seed"))
    assert {
        "stages/classify.py",
        "models/cam.py",
        "models/backbones/resnet.py",
        "ops/group_norm.py",
        "records.py",
    } <= classify
    assert {
        "loaders/dali.py",
        "loaders/torchvision.py",
        "training/engines/torch.py",
        "training/engines/deepspeed.py",
    } <= classify
    assert not any(path.startswith(("ops/walk", "ops/crf", "farms/", "storage/lease")) for path in classify)
    assert {"stages/irn.py", "ops/walk/walk.py", "ops/walk/gpu.py", "ops/kernels/walk.py", "farms/stream.py"} <= walk
    assert not any(path.startswith(("stages/classify", "models/amn", "engines/")) for path in walk)
    assert {"ops/crf/dense.py", "ops/crf/mean_field.py", "ops/crf/gpu.py", "ops/kernels/lattice.py"} <= seed
    assert not any(path.startswith("models/") for path in seed)
    every = classify | walk | seed
    assert not {path for path in every if Path(path).stem in ("config", "errors", "telemetry", "sources", "cli")}


@pytest.mark.parametrize("method", ["irn", "amn", "icd", "icd_amn"])
def test_every_stage_has_its_own_module(method: str) -> None:
    config = Config.model_validate({"name": "x", "method": method})

    def own(stage: Stage) -> set[str]:
        return {path for path in code_of(config, stage)[1] if path.startswith("stages/") and "__init__" not in path}

    for stage in stages(config):
        assert own(stage) == {f"{stage.module(config).replace('.', '/')}.py"}, stage.name


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A package of this name that may be changed."""
    return Path(shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__")))


CLASSIFY = ("training.loop", "loaders.batches", "stages.classify")


def edit(package: Path, name: str, old: str, new: str) -> None:
    text = (package / name).read_text()
    assert old in text
    (package / name).write_text(text.replace(old, new, 1))


def test_a_copy_of_the_package_has_its_digests(copy: Path) -> None:
    assert code_digests(*CLASSIFY, package=copy) == code_digests(*CLASSIFY)


@pytest.mark.parametrize(
    ("name", "old", "new", "moved"),
    [
        ("models/cam.py", "Backbone and a 1x1", "Backbone, then a 1x1", set()),
        ("models/cam.py", "num_classes - 1", "num_classes", {"models/cam.py"}),
        ("ops/walk/walk.py", "import numpy", "import os\nimport numpy", set()),
        ("training/engines/deepspeed.py", "import torch", "import os\nimport torch", {"training/engines/deepspeed.py"}),
    ],
    ids=["a docstring", "a classifier", "the walk", "a backend that is imported late"],
)
def test_a_change_moves_what_classify_is_made_of(copy: Path, name: str, old: str, new: str, moved: set[str]) -> None:
    edit(copy, name, old, new)
    found, expected = code_digests(*CLASSIFY, package=copy), code_digests(*CLASSIFY)
    assert {path for path in expected if found[path] != expected[path]} == moved
    assert (digest_of(found) != digest_of(expected)) == bool(moved)


def test_modules_are_found_however_they_are_imported(tmp_path: Path) -> None:
    package = tmp_path / "amn_dist"
    (package / "room").mkdir(parents=True)
    (package / "room" / "__init__.py").write_text("from amn_dist import above\n")
    for name in ("above", "late", "named", "annotated", "unused", "config"):
        (package / f"{name}.py").touch()
    for name in ("beside", "submodule", "deep"):
        (package / "room" / f"{name}.py").touch()
    (package / "room" / "one.py").write_text(
        "import typing\nfrom . import beside\nfrom .. import config\nfrom amn_dist.room import submodule\n"
        "if typing.TYPE_CHECKING:\n    import amn_dist.annotated\n"
        "def f():\n    from amn_dist.late import g\n    import amn_dist.room.deep\n    return 'amn_dist.named'\n"
    )
    found = code_digests("room.one", package=package)
    names = ("__init__", "beside", "deep", "one", "submodule")
    assert set(found) == {"above.py", "late.py", "named.py", *(f"room/{name}.py" for name in names)}
