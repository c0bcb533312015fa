"""Hostile text in everything that is read: what comes of it is one printable line that says where and what to do."""

from __future__ import annotations

import ast
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ray.exceptions import RayError
from rich.console import Console
from safetensors.torch import save_file

from amn_dist import telemetry
from amn_dist.cli import main
from amn_dist.commands.pack.summary import count_table
from amn_dist.commands.predict.photographs import photographs_at, targets_of
from amn_dist.config import Config, parse_config
from amn_dist.errors import MESSAGE, AmnError, printable
from amn_dist.farms.farm import failed_shards
from amn_dist.farms.ray.faults import cause_of_death, last_line, traceback_of
from amn_dist.interchange.folders import claim
from amn_dist.interchange.selection import select_masks
from amn_dist.interchange.weights import convert_weights
from amn_dist.loaders.decoder import check_photo as check_header
from amn_dist.models.weights import read_tensors
from amn_dist.report.contact_sheet import ImageColumns, sheet_row
from amn_dist.report.page import render
from amn_dist.report.run_folder import read_run
from amn_dist.report.stage_metrics import read_stage_metrics
from amn_dist.report.tables import class_table
from amn_dist.runs.inputs import locate, open_images
from amn_dist.runs.origins import weights_digest
from amn_dist.runs.pipeline import reopen
from amn_dist.runs.run import read_config, read_json
from amn_dist.shards.format import check_field, check_key, decode, encode
from amn_dist.shards.index import Index, ShardReport, parse
from amn_dist.shards.photographs import read_photo
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.tarcheck import check_tar
from amn_dist.shards.writer import write_index, write_shard
from amn_dist.storage.lease import read_holder
from amn_dist.storage.paths import path_of
from amn_dist.storage.retry import retried
from amn_dist.training.checkpoints import complete, is_whole
from amn_dist.training.world import join_world
from data_shards.classes import check_classes, multi_hot, read_classes
from data_shards.coco import pack_coco
from data_shards.folder import pack_folder
from data_shards.maps import import_maps
from data_shards.pickles import read_pickled_dict
from data_shards.regions import import_regions
from data_shards.summary import ClassCount, LeftOut, Summary, read_summary, write_summary
from data_shards.synthetic import pack_synthetic
from data_shards.tag_files import read_tags
from data_shards.verify import verify
from data_shards.voc import pack_voc
from data_shards.voc_xml import read_labels

ROOT = Path(__file__).resolve().parents[1]

HOSTILE = {
    "escape": "a\x1b[2J\x1b[31mb",
    "title": "a\x1b]0;owned\x07b",
    "turned": "a\u202egpj.b",
    "hidden": "a\u200b\u2066b\ufeff",
    "line": "a\nFAKE: b\r\tc",
    "breaks": "a\x85b\u2028c\x0bd",
    "half": "a\udcff\ud800b",
    "nul": "a\x00b",
    "markup": "[/red]a[bold]:smile:",
    "long": "a" * 10_000,
    "longer": "a\x1b" * 5_000,
}
SAID = 2000
"""Characters of a message that quotes one or two hostile names: they are bounded where they are quoted."""


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE)
def text(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "train"
    pack_synthetic(folder, images=2, seed=0, classes=2, size=(32, 32), shard_size=2)
    return folder


def fault(call: Callable[[], Any], *, path: bool = False) -> str | None:
    """What a reader says of what it cannot use, checked; None when it can use it. Any other error is a fault of ours.

    path: the reader's own argument is hostile; what it reads else is quoted printable before the base of all errors
    looks at the message.
    """
    try:
        call()
    except AmnError as error:
        said, written = str(error), Exception.__str__(error)
        assert said.isprintable() and 0 < len(said) <= MESSAGE, said
        assert path or (said == written and len(said) < SAID), written
        return said
    return None


def refused(call: Callable[[], Any], where: str, what: str) -> None:
    """Raise AssertionError unless the call is refused by a message that names a place and, behind it, a way out."""
    said = fault(call)
    assert said is not None, "was read"
    assert where in said and what in said[said.index(where) :], said


def loose(text: str) -> bytes:
    """Bytes of a text file that somebody else wrote."""
    return text.encode("utf-8", "surrogatepass")


def npy(content: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(content, dtype=object), allow_pickle=True)
    return stream.getvalue()


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(path)
    return path


def named_file(folder: Path, text: str, ending: str) -> Path:
    """A file name as hostile as the file system takes it."""
    name = (
        text.replace("\x00", "")
        .replace("/", "_")
        .encode("utf-8", "surrogateescape" if "\ud800" not in text else "replace")
    )
    path = folder / os.fsdecode(name[:200] + ending.encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def voc(root: Path, ids: str = "a\n", xml: str = "<annotation/>") -> Path:
    picture(root / "JPEGImages" / "a.jpg")
    for folder in ("Annotations", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_bytes(loose(ids))
    (root / "Annotations/a.xml").write_bytes(loose(xml))
    return root


def test_voc_list(text: str, tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", ids=f"a\n{text}\n")
    refused(lambda: pack_voc(root, "train", tmp_path / "out"), "", "")


def test_voc_classes(text: str, tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", xml="<annotation><object><name>cat</name></object></annotation>")
    (root / "classes.txt").write_bytes(loose(f"background\n{text}\n"))
    refused(lambda: pack_voc(root, "train", tmp_path / "out"), "", "")


@pytest.mark.parametrize(
    "xml",
    [
        "<annotation><object><name>{}</name></object></annotation>",
        "<annotation><{}/></annotation>",
        "<{}>",
        "<?xml version='1.0' encoding='{}'?><annotation/>",
        "<!DOCTYPE x [<!ENTITY a '{}'>]><annotation>&a;</annotation>",
    ],
)
def test_voc_xml(text: str, xml: str, tmp_path: Path) -> None:
    content = loose(xml.replace("{}", text))
    said = fault(lambda: multi_hot(read_labels(content, f"Annotations/{text}.xml"), ("background", "cat")))
    assert said is None or "Annotations/" in said or "unknown class" in said
    root = voc(tmp_path / "voc", xml=xml.replace("{}", text))
    fault(lambda: pack_voc(root, "train", tmp_path / "out"))


def test_voc_pairs_and_masks(text: str, tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", ids=f"/JPEGImages/a.jpg /Masks/a.png\n/JPEGImages/{text}.jpg /Masks/{text}.png\n")
    fault(lambda: pack_voc(root, "train", tmp_path / "out"))
    fault(lambda: pack_voc(root, "train", tmp_path / "masks", masks=text.replace("\x00", "")), path=True)


@pytest.mark.parametrize(
    "content",
    [
        lambda text: {text: np.ones(1)},
        lambda text: {"a": text},
        lambda text: {"a": [text]},
        lambda text: {"a": np.ones(1), "b": np.ones(2), text: np.ones(3)},
        lambda text: text,
    ],
)
def test_tags_of_wsss_code(text: str, content: Callable[[str], Any], tmp_path: Path) -> None:
    path = tmp_path / "cls_labels.npy"
    path.write_bytes(npy(content(text)))
    fault(lambda: read_tags(path, ["a", text], ("background", "cat")))
    picture(tmp_path / "photos" / "a.jpg")
    fault(lambda: pack_folder(tmp_path / "photos", path, tmp_path / "out"))
    root = voc(tmp_path / "voc")
    (tmp_path / "tags.csv").write_bytes(loose(f"file,labels\na.jpg,{text}\n"))
    fault(lambda: pack_voc(root, "train", tmp_path / "set", tags=tmp_path / "tags.csv"))


def test_what_a_summary_says(text: str, images: Path, tmp_path: Path) -> None:
    counts = [ClassCount(text, 1, 0)] * 40
    summary = Summary(1, 1, 0, counts, [text], LeftOut(1, 2, {text: 1}, [text]))
    write_summary(path_of(tmp_path), summary)
    console = Console(file=io.StringIO(), width=80, markup=False, emoji=False)
    console.print(count_table(read_summary(path_of(tmp_path)) or summary))
    assert all(line.isprintable() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]
    (tmp_path / "summary.json").write_bytes(loose(json.dumps({"images": text})))
    assert read_summary(path_of(tmp_path)) is None


def test_masks_that_disagree(text: str, tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", xml="<annotation><object><name>cat</name></object></annotation>")
    (root / "classes.txt").write_bytes(loose(f"background\ncat\n{text.split(chr(10))[0]}\n"))
    (root / "SegmentationClass").mkdir()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(root / "SegmentationClass" / "a.png")
    fault(lambda: pack_voc(root, "train", tmp_path / "out"))


def test_voc_deep_xml(tmp_path: Path) -> None:
    root = voc(tmp_path / "voc", xml="<annotation>" + "<a>" * 100_000 + "</a>" * 100_000 + "</annotation>")
    fault(lambda: pack_voc(root, "train", tmp_path / "out"))


def test_class_names(text: str, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(loose(f"{text}\n"))
    refused(lambda: read_classes(tmp_path / "classes.txt"), "classes.txt: ", "")
    refused(lambda: check_classes(("background", text, text), where="here"), "here: ", "")
    refused(lambda: multi_hot([text], ("background", "cat")), "unknown class", "known: cat")
    refused(lambda: multi_hot(["cat"], ("background", text, "hat")), "unknown class 'cat'", "hat")


def coco(root: Path, **changed: Any) -> Path:
    picture(root / "train2014" / "a.jpg")
    tree = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 20, "width": 20}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9]], "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
        **changed,
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2014.json").write_text(json.dumps(tree))
    return root


@pytest.mark.parametrize(
    "change",
    [
        lambda text: {"images": [{"id": 1, "file_name": text, "height": 20, "width": 20}]},
        lambda text: {"images": [{"id": i, "file_name": text, "height": 20, "width": 20} for i in (1, 2)]},
        lambda text: {"images": [{"id": text, "file_name": "a", "height": 20, "width": 20}]},
        lambda text: {"categories": [{"id": 1, "name": text}, {"id": 2, "name": text}]},
        lambda text: {"categories": [{"id": 1, "name": text}]},
        lambda text: {"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": text}]},
        lambda text: {"annotations": text},
    ],
)
def test_coco(text: str, change: Callable[[str], Any], tmp_path: Path) -> None:
    root = coco(tmp_path / "coco", **change(text))
    fault(lambda: pack_coco(root, "train2014", tmp_path / "out"))
    (tmp_path / "classes.txt").write_text("background\nhat\n")
    fault(lambda: pack_coco(root, "train2014", tmp_path / "other", classes=tmp_path / "classes.txt"))


def test_coco_places(text: str, tmp_path: Path) -> None:
    root = coco(tmp_path / "coco")
    fault(lambda: pack_coco(root, text, tmp_path / "out"), path=True)
    named_file(root / "annotations", text, ".json").write_text("{}")
    (root / "val").mkdir()
    refused(lambda: pack_coco(root, "val", tmp_path / "out"), "no such file", "found")


@pytest.mark.parametrize(
    "table",
    [
        lambda text: f"file,labels\n{text},cat\n",
        lambda text: f"file,labels\n{text},cat\n{text},cat\n",
        lambda text: f"file,labels\na.jpg,{text}\n",
        lambda text: f"{text},labels\na.jpg,cat\n",
        lambda text: f'file,labels\n"a.jpg"{text}",cat\n',
        lambda text: json.dumps({"file": text, "labels": ["cat"]}),
        lambda text: json.dumps({"file": "a.jpg", "labels": [text]}),
        lambda text: json.dumps({"file": "a.jpg", text: ["cat"]}),
        lambda text: '{"file": ' + text,
    ],
)
def test_folder_tables(text: str, table: Callable[[str], str], tmp_path: Path) -> None:
    picture(tmp_path / "root" / "a.jpg")
    (tmp_path / "labels").write_bytes(loose(table(text)))
    (tmp_path / "classes.txt").write_text("background\ncat\n")

    def packed(out: str, **more: Any) -> Callable[[], Any]:
        return lambda: pack_folder(tmp_path / "root", tmp_path / "labels", tmp_path / out, **more)

    fault(packed("out"))
    fault(packed("other", classes=tmp_path / "classes.txt"))
    fault(packed("masked", masks=tmp_path / "root"))


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"file":' * 100_000])
def test_deep_tables(deep: str, tmp_path: Path) -> None:
    picture(tmp_path / "root" / "a.jpg")
    (tmp_path / "labels").write_text(deep if deep.startswith("{") else '{"file": ' + deep)
    refused(lambda: pack_folder(tmp_path / "root", tmp_path / "labels", tmp_path / "out"), "labels: line 1", "expected")


def test_names_of_image_files(text: str, tmp_path: Path) -> None:
    photo = named_file(tmp_path / "photos", text, ".jpg")
    photo.write_bytes(b"no photograph")
    said = fault(lambda: read_photo(photo), path=True)
    assert said is not None and "not a readable photograph" in said
    assert len(targets_of([photo.parent], tmp_path / "out")) == 1
    assert photographs_at(photo, tmp_path / "out")
    table = tmp_path / "labels.csv"
    table.write_bytes(b"file,labels\n" + os.fsencode(photo.name) + b",cat\n")
    fault(lambda: pack_folder(photo.parent, table, tmp_path / "set"))


def test_index_and_reports(text: str, images: Path, tmp_path: Path) -> None:
    index = json.loads((images / "index.json").read_bytes())
    report = json.loads((images / "000000.json").read_bytes())
    trees: list[tuple[Any, Any]] = [(Index, {**index, part: text}) for part in (*index, "classes")]
    trees += [(Index, {**index, text: 1}), (Index, {**index, "classes": ["background", text]})]
    trees += [(Index, {**index, "source_ids": ids}) for ids in (text, [text, 1, 2], [1])]
    trees += [(ShardReport, {**report, part: text}) for part in report]
    sample = report["samples"][0]
    sources = ({"source": text}, {"source": f"../{text}"}, {"source_id": text})
    for change in ({"key": text}, {"fields": {text: [0, 1]}}, {text: 1}, {"fields": text}, {"height": text}, *sources):
        trees.append((ShardReport, {**report, "samples": [{**sample, **change}], "count": 1}))
    for number, (kind, tree) in enumerate(trees):
        content = json.dumps(tree).encode()
        said = fault(lambda kind=kind, content=content: parse(kind, "index.json", content))
        assert said is None or (said.startswith("index.json: ") and said.endswith("make the set again")), said
        folder = tmp_path / str(number)
        folder.mkdir()
        for path in images.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / ("index.json" if kind is Index else "000000.json")).write_bytes(content)
        said = fault(lambda folder=folder: verify(folder))
        assert said is not None or kind is Index
        fault(lambda folder=folder: ShardSet.open(folder).find(text))
    for broken in (b"[" * 100_000, b'{"format":' * 100_000, loose(text)):
        refused(lambda broken=broken: parse(Index, "index.json", broken), "index.json: ", "make the set again")


def test_what_a_set_is_asked_for(text: str, images: Path) -> None:
    made = ShardSet.open(images)
    refused(lambda: made.find(text), "no sample", "keys")
    refused(lambda: check_key(text), "key", "expected 1 to 200")
    fault(lambda: check_field(text))  # any length is legal
    refused(lambda: decode(text, b""), "field", "only tags")
    refused(lambda: encode(text, np.zeros(1)), "field", "arrays are stored as")
    refused(lambda: select_masks(str(images), field=text), "no field", "found")
    for place in (text, f"{text}/x", f"file://{text}", f"{text}://x", f"memory://{text}"):
        assert fault(lambda place=place: ShardSet.open(place), path=True)
        assert fault(lambda place=place: verify(place), path=True)
        assert fault(lambda place=place: reopen(path_of(place)), path=True)


@pytest.mark.parametrize("field", ["tags", "x.png", "x.u16.png", "x.npy", "x.f16", "x.rle"])
def test_fields(text: str, field: str) -> None:
    heads = (b"", b"\x89PNG\r\n\x1a\n", b"f16\x01", b"rle\x01")
    for content in (head + loose(text) for head in heads):
        fault(lambda content=content: decode(field, content))


def test_npy_headers(text: str) -> None:
    for header in (
        "{'descr': " + repr(text) + ", 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), " + repr(text) + ": 1}",
        "{'descr': [(" + repr(text) + ", '<f4')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 3000 + ",)}",
        "(" * 2000,
    ):
        filled = header.encode("latin1", "replace")
        for content in (
            (b"\x93NUMPY\x01\x00" + len(filled).to_bytes(2, "little") + filled,) if len(filled) < 65536 else ()
        ):
            fault(lambda content=content: decode("x.npy", content))
            fault(lambda content=content: read_pickled_dict(content))


def test_photo_headers(text: str) -> None:
    for content in (loose(text), b"\xff\xd8\xff" + loose(text), b"\x89PNG\r\n\x1a\n" + loose(text)):
        refused(lambda content=content: check_header("k0", content), "k0: the photo", "pack the set again")


def tar_of(path: Path, name: str, pax: dict[str, str]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo(name)
        member.pax_headers = pax
        tar.addfile(member, io.BytesIO())
    return path


def test_tar_headers(text: str, tmp_path: Path) -> None:
    for number, (name, pax) in enumerate(
        [
            (text, {}),
            (f"{text}.jpg", {}),
            (f"/{text}.jpg", {}),
            (f"../{text}.jpg", {}),
            ("a.jpg", {text.replace("=", "").replace("\x00", "") or "x": "1"}),
            ("a.jpg", {"path": text}),
            ("a.jpg", {"GNU.sparse.name": text}),
        ]
    ):
        try:
            tar = tar_of(tmp_path / f"{number}.tar", name, pax)
        except (UnicodeEncodeError, ValueError):
            continue  # a name that tarfile cannot write
        said = fault(lambda tar=tar: verify(tar))
        assert said is None or f"{number}.tar: " in said
    for kind in (tarfile.SYMTYPE, tarfile.DIRTYPE, b"\x1b"):
        header = tarfile.TarInfo("a" + printable(text, 60))
        header.type, header.linkname = kind, "x"
        path = tmp_path / "kind.tar"
        path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
        refused(lambda path=path: check_tar(path), "kind.tar: ", "expected regular files")


def test_tars_that_repeat_themselves(text: str, tmp_path: Path) -> None:
    name = "".join(letter for letter in text if letter.isprintable() and letter not in "/\\.") or "a"
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo(f"{name}.jpg"), io.BytesIO())
    refused(lambda: check_tar(tmp_path / "x.tar"), "x.tar: ", "must be unique" if len(name) < 200 else "too long path")


def calling(module: str, name: str) -> bytes:
    """An `.npy` whose pickle calls module.name."""
    whole = npy({})
    strings = b"".join(b"X" + len(part).to_bytes(4, "little") + part for part in (loose(module), loose(name)))
    return whole[: whole.index(b"\n") + 1] + b"\x80\x04" + strings + b"\x93)R."


def test_pickled_dictionaries(text: str, images: Path, tmp_path: Path) -> None:
    contents = [calling(text, "x"), calling("numpy", text), calling("numpy", "dtype")]
    contents += [npy({text: 1}), npy({"keys": text}), npy({"keys": np.array([text]), "cam": 1}), npy([text]), npy(text)]
    contents += [npy({(text,): 1}), npy({10**5000: np.zeros((2, 2))}), npy({"keys": np.array([1]), "cam": text})]
    made = ShardSet.open(images)
    for number, content in enumerate(contents):
        fault(lambda content=content: read_pickled_dict(content))
        folder = tmp_path / str(number)
        folder.mkdir()
        for ordinal in range(len(made)):
            (folder / f"{made.entry(ordinal).key}.npy").write_bytes(content)
        said = fault(lambda folder=folder: import_maps(folder, images, tmp_path / "out"))
        assert said is not None and ".npy: " in said and "Mend them" in said


def test_proposals(text: str, images: Path, tmp_path: Path) -> None:
    key = ShardSet.open(images).entry(0).key
    runs = {"size": [32, 32], "counts": text}
    trees = [{text: []}, {key: text}, {key: [{"segmentation": text}]}, {key: [{"segmentation": runs}]}, [text]]
    trees += [{key: [{"segmentation": {"size": text, "counts": [1]}}]}, {key: [{text: 1}]}]
    trees += [[{"image_id": text, "segmentation": runs}], [{"file_name": [text]}], [{"image": {text: text}}]]
    for number, tree in enumerate(trees):
        for content in (json.dumps(tree).encode(), loose(json.dumps(tree, ensure_ascii=False))):
            for ending in (".json", ".jsonl"):
                file = tmp_path / f"{number}{ending}"
                file.write_bytes(content)
                said = fault(lambda file=file: import_regions(file, images, tmp_path / "out"))
                assert said is not None and file.name in said
    path = named_file(tmp_path / "sam", text, ".json")
    path.write_bytes(loose(text))
    refused(lambda: import_regions(path.parent, images, tmp_path / "out"), "none of 1 files", "expected such as")
    (path.parent / f"{key}.json").write_bytes(loose(text))
    refused(lambda: import_regions(path.parent, images, tmp_path / "out"), f"{key}.json: ", "Mend them")


def test_names_of_maps(text: str, images: Path, tmp_path: Path) -> None:
    path = named_file(tmp_path / "maps", text, ".npy")
    path.write_bytes(b"x")
    refused(lambda: import_maps(path.parent, images, tmp_path / "out"), "none of 1 files", "expected such as")
    other = named_file(tmp_path / "maps" / "sub", text, ".npy")
    other.write_bytes(b"x")
    refused(lambda: import_maps(path.parent, images, tmp_path / "out"), "none of 2 files", "expected such as")
    named_file(tmp_path / "out", text, "").write_bytes(b"x")
    made = ShardSet.open(images)
    for ordinal in range(len(made)):
        (path.parent / f"{made.entry(ordinal).key}.npy").write_bytes(b"x")
    refused(lambda: import_maps(path.parent, images, tmp_path / "out"), "holds other files", "choose an empty")
    refused(lambda: claim(tmp_path / "out", {}), "holds something else", "choose an empty")


def test_weights(text: str, tmp_path: Path) -> None:
    written = text.replace("\ud800", "").replace("\udcff", "")
    save_file({f"classifier.{written}": torch.zeros(2)}, tmp_path / "x.safetensors")
    torch.save({f"a.{text}": torch.zeros(2), "classifier.weight": torch.zeros(1, 2)}, tmp_path / "x.pth")
    (tmp_path / "y.pth").write_bytes(b"\x80\x02c" + loose(text.replace("\n", "")) + b"\nsystem\n)R.")
    (tmp_path / "z.safetensors").write_bytes(len(loose(text)).to_bytes(8, "little") + loose(text))
    torch.save({"state": text}, tmp_path / "w.pth")
    for path in sorted(tmp_path.glob("?.*")):
        said = fault(lambda path=path: convert_weights(path, "cam", tmp_path / "out.safetensors"))
        assert said is not None and path.name in said
        fault(lambda path=path: read_tensors(path))
    said = fault(lambda: read_tensors(f"x.{text[:50].replace('/', '_')}"), path=True)
    assert said is not None and ("found the ending" in said or "no path can" in said)


@pytest.mark.parametrize(
    "write",
    [
        lambda text: f"{json.dumps(text)}: 1\n",
        lambda text: f"name: {json.dumps(text)}\n",
        lambda text: f"name: x\nclassify:\n  {json.dumps(text)}: 1\n",
        lambda text: f"name: x\nclassify:\n  epochs: {json.dumps(text)}\n",
        lambda text: f"name: x\nclassify:\n  backbone:\n    {json.dumps(text)}: 1\n",
        lambda text: f"name: x\ncam:\n  scales: [{json.dumps(text)}]\n",
        lambda text: f"name: {text}\n",
        lambda text: f"name: !!{json.dumps(text)} x\n",
        lambda text: f"name: *{text}\n",
        lambda text: f"? [{json.dumps(text)}]\n: 1\n",
    ],
)
def test_configurations(text: str, write: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(loose(write(text)))
    said = fault(lambda: read_config(tmp_path / "c.yaml"))
    assert said is None or "c.yaml: " in said
    fault(lambda: parse_config("name: x\n", (f"classify.{text}=1",), where="c.yaml"))
    fault(lambda: parse_config("name: x\n", (f"name={text}",), where="c.yaml"))
    fault(lambda: parse_config("name: x\n", (text,), where="c.yaml"))


def written_run(folder: Path, images: Path) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(f"name: x\nmethod: irn\ndata: {{train: {images.name}, val: null}}\n")
    (folder / "data.json").write_text(json.dumps({"data": str(images.parent)}))
    return folder


@pytest.mark.parametrize("file", ["data.json", "classify/done.json", "classify/origin.json", "cam/index.json"])
def test_records_of_a_run(text: str, file: str, images: Path, tmp_path: Path) -> None:
    made_of = {"settings": {"classify": {text: text}, text: text}, "inputs": {text: text}, "code": text}
    for number, content in enumerate([loose(text), json.dumps({"data": text, "digest": text, **made_of}).encode()]):
        run = written_run(tmp_path / str(number), images)
        (run / file).parent.mkdir(exist_ok=True)
        (run / file).write_bytes(content)
        (run / "classify").mkdir(exist_ok=True)
        (run / "classify" / "done.json").touch()
        fault(lambda run=run: reopen(run).execute(until="classify"), path=True)
        fault(lambda run=run: reopen(run).open("cam"), path=True)
        fault(lambda run=run: read_json(run / file))
        record = read_run(run, label="x")
        assert all(said.isprintable() and len(said) <= MESSAGE for said in record.missing)


def test_telemetry_and_scores(text: str, images: Path, tmp_path: Path) -> None:
    run = written_run(tmp_path / "run", images)
    (run / "classify").mkdir()
    records_of = [
        {"step": 1, "steps": 2, "total": 1.0, text: 1.0, "busy": {text: 1.0}, "warning": text},
        {"step": text},
    ]
    lines = (
        b"".join(json.dumps(record).encode() + b"\n" for record in records_of) + b"[" * 100_000 + b"\n" + loose(text)
    )
    (run / "classify" / "metrics.jsonl").write_bytes(lines)
    read_stage_metrics(run / "classify" / "metrics.jsonl", verb="fit")
    (run / "score").mkdir()
    rows = {"walk": {"miou": 0.5, "decided": 0.5, "iou": [0.5, None], "confusion": [[1, 2], [0, 1]]}}
    scores = {"classes": ["background", text], "sets": {"train": {"images": 1, "rows": rows}}, "missing": [text]}
    (run / "score" / "score.json").write_text(json.dumps(scores))
    record = read_run(run, label="x")
    assert all(said.isprintable() for said in (*record.missing, *record.classes))
    render([record], images=0).encode("utf-8", "backslashreplace")
    screen = io.StringIO()
    Console(file=screen, width=200).print(class_table(scores, "train"))
    assert all(line.isprintable() for line in screen.getvalue().splitlines())
    assert printable(text, 20)[:5] in screen.getvalue()


def test_lines_of_progress(text: str, tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=200, force_terminal=False)
    with telemetry.stage_log(tmp_path / "stage", "x", console) as log:
        log({"step": 1, "steps": 2, "total": 1.0, "busy": {text: 1.0}, "warning": text})
        log.last_said = -1e9
        log({"step": 2, "steps": 2, "busy": {text: 1.0}})
    assert all(line.isprintable() for line in screen.getvalue().splitlines())
    assert "busy: " in screen.getvalue()


def test_marks_of_others(text: str, tmp_path: Path) -> None:
    tree = {"host": text, "machine": text, "pid": 1, "started": text, "token": text, "time": 0.0}
    assert str(read_holder((json.dumps(tree).encode(), "tag"))).isprintable()
    for content in (json.dumps({"files": {text: 1}}).encode(), loose(text)):
        place = tmp_path / "000001"
        place.mkdir(exist_ok=True)
        (place / "state.json").write_bytes(content)
        assert not any(is_whole(path) for path in complete(tmp_path))


def test_the_environment_of_a_launcher(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "\x00" in text or "\ud800" in text:
        return  # no variable can hold it
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        with monkeypatch.context() as variables:
            variables.setenv(name, text)
            refused(join_world, name, "expected a whole number")


def test_what_storage_and_workers_say(text: str) -> None:
    def broken() -> None:
        raise PermissionError(f"first\n{text}\nlast {text}")

    refused(lambda: retried("s3://b/k", "read", broken), "s3://b/k: cannot be read", "check the URL")
    error = RayError(f"first\n{text}\nlast {text}")
    for tell in (cause_of_death, traceback_of, last_line):
        assert tell(error).isprintable() and len(tell(error)) < SAID
    assert "last a" in last_line(RayError(f"{text}\nlast a"))
    said = str(failed_shards("cam", {3: text * 9}))
    assert said.startswith("cam: 1 shard(s) failed (3); shard 3: ") and said.endswith("the same command goes on")


def test_places_in_a_configuration(text: str, images: Path) -> None:
    refused(lambda: weights_digest(text), "no such weights file", "give a")
    fault(lambda: locate(images, text))
    data = Config(name="x").data.model_copy(update={"train": text, "val": None})
    assert fault(lambda: open_images(Config(name="x").model_copy(update={"data": data}), images), path=True)


def test_pictures_titled_by_class_names(text: str, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(stream, "PNG")
    fields = {"png": stream.getvalue(), "tags": encode("tags", np.ones(1, np.uint8))}
    report = write_shard(tmp_path, 0, [("k0", (16, 16), fields)])
    try:
        write_index(tmp_path, kind="images", classes=("background", text), reports=[report])
        made = ShardSet.open(tmp_path)
    except AmnError:
        return
    assert sheet_row(ImageColumns(made), 0)[0][0].isprintable()


def amn(*arguments: str | bytes, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "COLUMNS": "160", "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "amn_dist", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, timeout=300, env=environment, check=False)


HOSTILE_ARGUMENT = b"a\x1b[2J\xe2\x80\xae\xff\nb[/red]"


@pytest.mark.parametrize(
    "arguments",
    [
        (HOSTILE_ARGUMENT,),
        (b"--" + HOSTILE_ARGUMENT,),
        (b"pack", HOSTILE_ARGUMENT),
        (b"pack", b"voc", HOSTILE_ARGUMENT, b"--out", b"o"),
        (b"pack", b"voc", b"a" * 10_000, b"--out", b"o"),
        (b"pack", b"folder", b".", b"--labels", HOSTILE_ARGUMENT, b"--out", b"o"),
        (b"pack", b"synthetic", b"--images", HOSTILE_ARGUMENT, b"--out", b"o"),
        (b"run", HOSTILE_ARGUMENT),
        (b"run", b"a" * 10_000),
        (b"verify", HOSTILE_ARGUMENT),
        (b"verify", b"a" * 10_000),
        (b"show", HOSTILE_ARGUMENT, HOSTILE_ARGUMENT),
        (b"show", b"a" * 10_000),
        (b"score", b"a" * 10_000),
        (b"predict", b".", b"a" * 10_000),
        (b"import", b"weights", b"x", b"--as", HOSTILE_ARGUMENT),
        (b"import", b"weights", HOSTILE_ARGUMENT, b"--as", b"cam", b"--out", b"x.safetensors"),
        (b"import", b"maps", HOSTILE_ARGUMENT, b"--images", HOSTILE_ARGUMENT, b"--out", b"o"),
        (b"export", b"masks", HOSTILE_ARGUMENT, b"--out", b"o"),
        (b"bench", HOSTILE_ARGUMENT),
    ],
)
def test_mistakes_on_the_command_line_are_one_printable_line(
    arguments: tuple[bytes, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["amn", *map(os.fsdecode, arguments)])
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        signal.signal(signal.SIGTERM, terminated)
    shown, said = capsys.readouterr()
    assert ended.value.code == 2 and not shown, said
    assert said.startswith("error: ") and said.endswith("\n") and said[:-1].isprintable() and len(said) <= MESSAGE + 10


def test_what_commands_print_of_a_hostile_set(tmp_path: Path) -> None:
    folder = os.fsdecode(b"set\x1b[2J\xff")
    photo, name = picture(tmp_path / "root" / "a.png"), "[/red] :cat:"
    assert photo.is_file()
    (tmp_path / "labels.jsonl").write_text(json.dumps({"file": "a.png", "labels": [name]}))
    packed = amn("pack", "folder", "root", "--labels", "labels.jsonl", "--out", folder, "--accept-names", cwd=tmp_path)
    shown = amn("verify", folder, cwd=tmp_path)
    drawn = amn("show", folder, "a", "--out", folder + ".png", cwd=tmp_path)
    for done in (packed, shown, drawn):
        assert done.returncode == 0 and not done.stderr, done
        lines = done.stdout.decode().splitlines()
        assert all(line.isprintable() for line in lines) and b"set\\x1b[2J\\udcff" in done.stdout
        assert len(lines) == (1 if done is not packed else 3) and (done is not packed or "[/red] :cat:" in lines[2])


SOURCES = sorted([*(ROOT / "amn_dist").rglob("*.py"), *(ROOT / "data_shards").rglob("*.py")])
OURS = {"AmnError", "ConfigError", "ShardError", "StageError", "PeerLost"}
"""Their texts are printable lines already."""
WRITERS = {"printable", "quoted", "listed", "last_line", "cause_of_death", "traceback_of", "_explain", "type"}
"""What makes a printable text of an error."""


def quotes(node: ast.AST, name: str) -> bool:
    """Whether a text is made of what a name holds without errors.printable."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in WRITERS:
        return False
    if isinstance(node, ast.Attribute) and node.attr in ("position", "start", "line"):  # numbers
        return False
    return (isinstance(node, ast.Name) and node.id == name) or any(
        quotes(part, name) for part in ast.iter_child_nodes(node)
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_errors_of_libraries_are_quoted_by_printable_alone(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ExceptHandler) or node.name is None or node.type is None:
            continue
        kinds = {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)}
        if kinds <= OURS:
            continue
        for part in ast.walk(ast.Module(node.body, [])):
            if isinstance(part, ast.JoinedStr):
                assert not quotes(part, node.name), f"{path.name}:{part.lineno}: {ast.unparse(part)}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_else_makes_one_line_of_an_error(path: Path) -> None:
    if path.name in ("errors.py", "faults.py"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args:
            what = ast.unparse(node.func)
            assert not what.startswith("str(") or not what.endswith((".split", ".splitlines")), f"{path}:{node.lineno}"
