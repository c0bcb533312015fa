"""Imports point downwards; heavy libraries live in one place; nothing is called utils."""

import ast
from pathlib import Path
from typing import get_args

import pytest

from amn_dist.config import Backbone

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "amn_dist"

FLOORS = (
    {"__main__"},
    {"cli"},
    {"commands"},
    {"demo", "checkup", "trial"},
    {"plan", "doctor", "predict", "interchange"},
    {"report"},
    {"pipeline"},
    {"fitting", "scoring", "inputs", "unfinished"},
    {"runs", "gangs", "remote"},
    {"methods"},
    {"stages", "engines", "farms"},
    {"models", "loaders"},
    {"shards", "ops"},
    {"verbs"},
    {"config", "telemetry", "records", "sources"},
    {"errors", "__init__"},
)
HOMES = {
    "ray": "farms/ray/",
    "deepspeed": "engines/deepspeed.py",
    "nvidia": "loaders/dali.py",
    "obstore": "shards/s3.py",
    "pydensecrf": "ops/crf.py",
    "skimage": "ops/superpixel.py",
    "triton": "ops/walk_gpu.py",
    "webdataset": "shards/",
    "typer": ("cli.py", "commands/"),
}


def imports(path: Path) -> set[str]:
    """Dotted names of every module a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def floor(name: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if name in rooms)


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_downwards(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "amn_dist" or len(parts) < 2:
            continue
        there = parts[1]
        assert floor(there) > floor(here) or there == here, f"{path} (floor {floor(here)}) imports {name} above it"


@pytest.mark.parametrize("path", sorted((PACKAGE / "stages").glob("*.py")), ids=lambda path: path.stem)
def test_no_stage_imports_another(path: Path) -> None:
    assert not {name for name in imports(path) if name.startswith("amn_dist.stages")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_how_a_network_is_fed_is_decided_by_its_backbone_alone(path: Path) -> None:
    if path.relative_to(PACKAGE).as_posix() in ("config.py", "models/backbone.py", "ops/normalise.py"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        inside = [*ast.iter_child_nodes(node)] if isinstance(node, (ast.Compare, ast.IfExp, ast.match_case)) else []
        asked = {inner.value for part in inside for inner in ast.walk(part) if isinstance(inner, ast.Constant)}
        assert not asked & {*get_args(Backbone.model_fields["name"].annotation), "caffe", "centred"}, node.lineno


@pytest.mark.parametrize("library", sorted(HOMES))
def test_heavy_libraries_have_one_home(library: str) -> None:
    places = [
        path.relative_to(PACKAGE).as_posix()
        for path in SOURCES
        if any(name.split(".")[0] == library for name in imports(path))
    ]
    assert places and all(place.startswith(HOMES[library]) for place in places), places


def test_recipes_and_package_hold_no_utils() -> None:
    names = {
        path.stem for folder in ("amn_dist", "data_shards", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    }
    assert not names & {"utils", "util", "helpers", "helper", "misc", "common"}
