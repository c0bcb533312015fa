"""Imports point downwards; heavy libraries live in one place; nothing is called utils."""

import ast
from pathlib import Path
from typing import get_args

import pytest

from amn_dist.config import Backbone

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "amn_dist"
SOURCES = sorted(path for name in ("amn_dist", "data_shards") for path in (ROOT / name).rglob("*.py"))

FLOORS = (
    {"__main__"},
    {"cli"},
    {"commands"},
    {"interchange"},
    {"report", "data_shards"},
    {"runs"},
    {"methods"},
    {"stages"},
    {"training", "farms"},
    {"models", "loaders"},
    {"shards", "ops"},
    {"interfaces", "storage"},
    {"config", "telemetry", "records"},
    {"documents", "variables"},
    {"errors", "__init__"},
)
HOMES = {
    "ray": "farms/ray/",
    "deepspeed": "training/engines/deepspeed.py",
    "nvidia": "loaders/dali.py",
    "obstore": "storage/buckets.py",
    "pydensecrf": "ops/crf/dense.py",
    "skimage": "ops/superpixel.py",
    "triton": "ops/walk/gpu.py",
    "webdataset": "shards/",
    "typer": ("cli.py", "commands/"),
}


def name_of(path: Path) -> str:
    """A path from the root as people write it, for messages."""
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, source: str | None = None) -> set[str]:
    """Dotted names of every module a file imports, anywhere in it; of `from a import b` both a and a.b.

    Names of a relative import begin with the file's own package.
    """
    package = path.relative_to(ROOT).parts[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8") if source is None else source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def room(module: str) -> str | None:
    """The room a dotted name lies in; None for other packages and for amn_dist itself."""
    parts = module.split(".")
    if parts[0] == "data_shards":
        return "data_shards"
    return parts[1] if parts[0] == "amn_dist" and len(parts) > 1 else None


def room_of(path: Path) -> str:
    here = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert here is not None
    return here


def floor(name: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if name in rooms)


def upward(path: Path, source: str | None = None) -> list[str]:
    """Imports of a file that do not point downwards."""
    here = room_of(path)
    rooms = {name: there for name in imports(path, source) if (there := room(name)) not in (None, here)}
    exists = {path.stem for path in PACKAGE.iterdir()} | {"data_shards"}
    return sorted(name for name, there in rooms.items() if there in exists and floor(there) <= floor(here))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_downwards(path: Path) -> None:
    assert not upward(path), f"{name_of(path)} imports {upward(path)} above or beside it"


@pytest.mark.parametrize(
    "line",
    [
        "import amn_dist.runs.pipeline",
        "from amn_dist.runs.pipeline import Pipeline",
        "from amn_dist import runs",
        "from amn_dist import errors, runs as below",
        "from .. import runs",
        "from ..runs.pipeline import Pipeline",
        "from data_shards import pack",
        "import data_shards.pack",
        "def late():\n    from amn_dist import runs",
    ],
)
def test_every_way_to_import_upwards_is_seen(line: str) -> None:
    assert upward(PACKAGE / "ops" / "walk.py", line)


def test_imports_inside_a_room_and_downwards_pass() -> None:
    source = "from . import affinity\nfrom .affinity import pair_affinity\nfrom ..errors import ShardError"
    assert not upward(PACKAGE / "ops" / "walk.py", source)
    assert upward(ROOT / "data_shards" / "pack.py", "from amn_dist.commands import pack")
    assert not upward(ROOT / "data_shards" / "pack.py", "from amn_dist.shards import index")


@pytest.mark.parametrize("path", sorted((PACKAGE / "stages").glob("*.py")), ids=lambda path: path.stem)
def test_no_stage_imports_another(path: Path) -> None:
    assert not {name for name in imports(path) if name.startswith("amn_dist.stages")}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_how_a_network_is_fed_is_decided_by_its_backbone_alone(path: Path) -> None:
    if name_of(path) in ("amn_dist/config.py", "amn_dist/models/backbones/backbone.py", "amn_dist/ops/normalise.py"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        inside = [*ast.iter_child_nodes(node)] if isinstance(node, (ast.Compare, ast.IfExp, ast.match_case)) else []
        asked = {inner.value for part in inside for inner in ast.walk(part) if isinstance(inner, ast.Constant)}
        assert not asked & {*get_args(Backbone.model_fields["name"].annotation), "caffe", "centred"}, node.lineno


@pytest.mark.parametrize("library", sorted(HOMES))
def test_heavy_libraries_have_one_home(library: str) -> None:
    places = [
        name_of(path).removeprefix("amn_dist/")
        for path in SOURCES
        if any(name.split(".")[0] == library for name in imports(path))
    ]
    assert places and all(place.startswith(HOMES[library]) for place in places), places


def test_recipes_and_package_hold_no_utils() -> None:
    names = {
        path.stem for folder in ("amn_dist", "data_shards", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    }
    assert not names & {"utils", "util", "helpers", "helper", "misc", "common"}
