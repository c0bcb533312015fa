"""Imports point downwards; heavy libraries live in one place; nothing is called utils."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import get_args

import pytest

from amn_dist.config import BackboneSection

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "amn_dist"
SOURCES = sorted(path for name in ("amn_dist", "data_shards") for path in (ROOT / name).rglob("*.py"))

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`[^|]+`) \|", ARCHITECTURE.partition("## Rooms")[2].partition("```mermaid")[0], re.MULTILINE)
FLOORS = ({"__main__"}, *(set(re.findall(r"`(\w+)`", row)) for row in ROWS), {"__init__"})
"""The rooms, those above first; those of one row do not import each other."""
BENEATH = {"errors", "documents", "variables", "caches", "__init__", "__main__"}
"""Rooms that the picture leaves out."""
HOMES = {
    "ray": "farms/ray/",
    "deepspeed": "training/engines/deepspeed.py",
    "nvidia": "loaders/dali.py",
    "obstore": "storage/buckets.py",
    "pydensecrf": "ops/crf/dense.py",
    "skimage": "ops/superpixel.py",
    "triton": "ops/kernels/",
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


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def annotations_left_out(path: Path) -> str:
    """Source of a file without what it imports under TYPE_CHECKING alone."""

    class Stripper(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST:
            return ast.Pass() if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)

    return ast.unparse(Stripper().visit(ast.parse(path.read_text(encoding="utf-8"))))


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


def arrows() -> set[tuple[str, str]]:
    """Which rooms import which, without what follows from two others."""
    below: dict[str, set[str]] = {}
    for path in SOURCES:
        here = room_of(path)
        below.setdefault(here, set()).update({there for name in imports(path) if (there := room(name))} - {here})
    below = {here: (there & below.keys()) - BENEATH for here, there in below.items() if here not in BENEATH}
    above = [(here, there) for floor in reversed(FLOORS) for here in floor & below.keys() for there in below[here]]
    reached: dict[str, set[str]] = {}
    for here, there in above:
        reached.setdefault(here, set()).update({there} | reached.get(there, set()))
    behind = {here: set().union(*(reached.get(there, set()) for there in below[here])) for here in below}
    return {(here, there) for here, there in above if there not in behind[here]}


def test_the_picture_of_the_rooms_is_true() -> None:
    drawn = re.findall(r"^    (\w+) --> (\w+)$", ARCHITECTURE, re.MULTILINE)
    wanted = "\n".join(f"    {here} --> {there}" for here, there in sorted(arrows()))
    assert len(drawn) == len(set(drawn)) and set(drawn) == arrows(), f"the picture should have:\n{wanted}"


def test_every_room_has_its_row() -> None:
    rooms = {room_of(path) for path in SOURCES}
    assert rooms == set().union(*FLOORS) and sum(map(len, FLOORS)) == len(rooms)


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


def test_no_module_imports_itself_in_a_circle() -> None:
    modules = {module_of(path): path for path in SOURCES}
    graph = {name: imports(path, annotations_left_out(path)) & modules.keys() for name, path in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("path", sorted((PACKAGE / "stages").glob("*.py")), ids=lambda path: path.stem)
def test_no_stage_imports_another(path: Path) -> None:
    assert not {name for name in imports(path) if name.startswith("amn_dist.stages")}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_how_a_network_is_fed_is_decided_by_its_backbone_alone(path: Path) -> None:
    if name_of(path) in (
        "amn_dist/config.py",
        "amn_dist/models/backbones/architectures.py",
        "amn_dist/ops/normalise.py",
    ):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        inside = [*ast.iter_child_nodes(node)] if isinstance(node, (ast.Compare, ast.IfExp, ast.match_case)) else []
        asked = {inner.value for part in inside for inner in ast.walk(part) if isinstance(inner, ast.Constant)}
        assert not asked & {*get_args(BackboneSection.model_fields["name"].annotation), "caffe", "centred"}, node.lineno


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
