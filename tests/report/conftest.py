"""Small runs made by hand with the real writers, whole or with parts missing."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from amn_dist.config import Config, dump_config
from amn_dist.methods import stages
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import LAST_FILE, Run, write_json, write_text
from amn_dist.shards.format import encode
from amn_dist.shards.writer import write_index, write_shard
from amn_dist.telemetry import stage_log

QUIET = Console(quiet=True)
SIZE = (30, 41)
IMAGES = {"train": 6, "val": 3}
MakeRun = Callable[..., Path]


def scene(number: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photo, its truth with a box of one class and a void rim, its tags."""
    random = np.random.default_rng(number)
    photo = random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    truth, label = np.zeros(SIZE, np.uint8), number % (classes - 1) + 1
    truth[4:20, 6 : 20 + number] = label
    truth[:2] = 255
    tags = np.zeros(classes - 1, np.uint8)
    tags[label - 1] = 1
    return photo, truth, tags


def write_set(
    folder: Path, kind: str, classes: Sequence[str], rows: Sequence[dict[str, np.ndarray | bytes]], over: str
) -> None:
    """Shards of two samples each, over the images of a set."""
    reports = []
    for number in range(0, len(rows), 2):
        some = [
            (f"{over}{i}", SIZE, {name: v if isinstance(v, bytes) else encode(name, v) for name, v in rows[i].items()})
            for i in range(number, min(number + 2, len(rows)))
        ]
        reports.append(write_shard(folder, number // 2, some))
    write_index(folder, kind=kind, classes=classes, reports=reports)


def png(photo: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG")
    return file.getvalue()


def made(fields: Sequence[str], number: int, classes: int, tagged: bool, error: int) -> dict[str, np.ndarray | bytes]:
    """What a stage makes of a scene: the truth, with more mistakes in odd scenes and in runs of a larger error."""
    _, truth, _ = scene(number, classes)
    random = np.random.default_rng(number)
    coarse = (truth[None, ::4, ::4] % 255 > 0) * 0.7 + 0.3 * random.random((1, 8, 11))
    labels = np.roll(truth, (number % 2) * 3 + error, axis=1)
    forms = {
        "activation.f16": coarse[: int(tagged)].astype(np.float16),
        "raw.png": np.where(labels == 255, 0, labels).astype(np.uint8),
        "superpixel.u16.png": labels.astype(np.uint16),
    }
    return {field: forms.get(field, labels) for field in fields}


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """Write a run, of method irn unless told otherwise, and score it; until: the stage before which it ends."""

    def make(
        root: Path,
        name: str,
        *,
        classes: Sequence[str] = ("background", "cat", "dog"),
        truth: bool = True,
        tagged: bool = True,
        until: str = "",
        error: int = 0,
        images: dict[str, int] = IMAGES,
        **config: object,
    ) -> Path:
        sections = {"name": "made", "method": "irn", "farm": {"name": "local"}, "loader": {"name": "torchvision"}}
        for over, count in images.items():
            rows: list[dict[str, np.ndarray | bytes]] = []
            for number in range(count):
                photo, ids, tags = scene(number, len(classes))
                rows.append({"png": png(photo), "tags": tags * tagged, **({"gt.png": ids} if truth else {})})
            write_set(root / "data" / over, "images", classes, rows, over)
        line = Pipeline(Config.model_validate(sections | config), Run(root / name), root / "data", console=QUIET)
        line.run.folder.mkdir(parents=True)
        write_text(line.run.folder / "config.yaml", dump_config(line.config))
        write_json(line.run.folder / "data.json", {"data": str(root / "data")})
        write_json(line.run.folder / "environment.json", {"cpu": "one", "packages": {"torch": "2"}})
        for stage in stages(line.config):
            if stage.name == until:
                return line.run.folder
            folder = line.run.stage(stage.name)
            if stage.verb == "score":
                line.execute(only="score")
                break
            with stage_log(folder, stage.name, QUIET) as log:
                if stage.verb == "map":
                    count = images[stage.over]
                    fields = tuple(artefact.field for artefact in stage.made(line.config))
                    found = [made(fields, number, len(classes), tagged, error) for number in range(count)]
                    write_set(folder, stage.name, classes, found, stage.over)
                    log({"step": count, "steps": count, "images_per_s": 4.5})
                for step in (10, 20, 30) if stage.verb == "fit" else ():
                    log(
                        {"step": step, "steps": 30, "total": 9 / step, "part": 4 / step, "lr": 0.1, "images_per_s": 7.0}
                    )
                log({"done": True, "seconds": 12.0})
            write_json(folder / "origin.json", {"settings": {}, "inputs": {}, "code": "c0de"})
            if stage.verb == "fit":
                write_json(folder / LAST_FILE["fit"], {"digest": f"{stage.name}-digest"})
        return line.run.folder

    return make
