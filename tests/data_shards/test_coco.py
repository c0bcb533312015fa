import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from amn_dist.config import Loader
from amn_dist.errors import ConfigError, ShardError
from amn_dist.farms.local import LocalFarm
from amn_dist.loaders.decode import decode_images
from amn_dist.shards.shardset import ShardSet
from data_shards.allowances import Allowances
from data_shards.coco import pack_coco
from data_shards.verify import verify

SPLIT = "train2014"
JSON = f"instances_{SPLIT}.json"
FIRST = "COCO_train2014_000000000100"
Tree = dict[str, Any]


@pytest.fixture
def root(bad: Path, tmp_path: Path) -> Path:
    """A copy of the valid miniature set."""
    folder = tmp_path / "root"
    (folder / "annotations").mkdir(parents=True)
    shutil.copytree(bad / "coco" / SPLIT, folder / SPLIT)
    (folder / SPLIT).chmod(0o755)
    shutil.copyfile(bad / "coco" / "annotations" / "ok.json", folder / "annotations" / JSON)
    return folder


@pytest.fixture
def change(root: Path) -> Callable[[Callable[[Tree], Any]], None]:
    """Edit the annotation file."""

    def edit(how: Callable[[Tree], Any]) -> None:
        path = root / "annotations" / JSON
        tree = json.loads(path.read_text())
        how(tree)
        path.write_text(json.dumps(tree))

    return edit


def naive_truth(coco: COCO, image_id: int) -> np.ndarray:
    """Class ids painted one annotation after the other, as the published masks were made."""
    labels = {number: position for position, number in enumerate(sorted(coco.getCatIds()), 1)}
    listed = coco.loadImgs(image_id)[0]
    ids = np.zeros((listed["height"], listed["width"]), np.uint8)
    for annotation in coco.imgToAnns[image_id]:
        if not annotation["iscrowd"]:
            ids[coco.annToMask(annotation) == 1] = labels[annotation["category_id"]]
    return ids


@pytest.mark.parametrize("split", ["train2014", "val2014"])
def test_truth_is_that_of_pycocotools(coco_sample: Path, tmp_path: Path, split: str) -> None:
    sample = coco_sample
    messages: list[str] = []
    index = pack_coco(sample, split, tmp_path / "out", tell=messages.append)
    coco = COCO(sample / "annotations" / f"instances_{split}.json")
    assert len(index.classes) == 81 and index.classes[0] == "background"
    assert index.classes[1:] == tuple(category["name"] for category in sorted(coco.dataset["categories"], key=by_id))
    shards = ShardSet.open(tmp_path / "out")
    assert len(shards) == len(coco.imgs)
    for ordinal, listed in enumerate(coco.dataset["images"]):
        name = Path(listed["file_name"])
        assert shards.entry(ordinal).key == name.stem
        assert shards.image(ordinal) == (sample / split / name).read_bytes()
        assert np.array_equal(shards.load(ordinal, "gt.png"), naive_truth(coco, listed["id"]))
        present = {annotation["category_id"] for annotation in coco.imgToAnns[listed["id"]]}
        tags = [number in present for number in sorted(coco.getCatIds())]
        assert shards.load(ordinal, "tags").tolist() == tags
    assert messages == [f"{sample / split}: 28 files are not listed in instances_{split}.json and are left out"]
    assert verify(tmp_path / "out").samples == len(coco.imgs)


def by_id(category: Tree) -> int:
    return int(category["id"])


@pytest.fixture(scope="module")
def sample(coco_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    out = tmp_path_factory.mktemp("sample") / "out"
    pack_coco(coco_sample, SPLIT, out)
    return ShardSet.open(out)


def test_a_gray_photograph_is_kept_and_loads_in_three_channels(sample: ShardSet, coco_sample: Path) -> None:
    ordinal = sample.find("COCO_train2014_000000000086")
    with Image.open(coco_sample / SPLIT / "COCO_train2014_000000000086.jpg") as image:
        assert image.mode == "L"
        gray = np.array(image)
    (pixels,) = decode_images(iter([("86", sample.image(ordinal))]), loader=Loader(name="torchvision"))
    assert np.array_equal(pixels, np.stack([gray] * 3, axis=-1))


def test_unlabelled_images_are_kept_or_left_out(sample: ShardSet, coco_sample: Path, tmp_path: Path) -> None:
    empty = ["COCO_train2014_000000000250", "COCO_train2014_000000000508"]
    for key in empty:
        ordinal = sample.find(key)
        assert not sample.load(ordinal, "tags").any() and not sample.load(ordinal, "gt.png").any()
    messages: list[str] = []
    pack_coco(coco_sample, SPLIT, tmp_path / "out", unlabelled=False, tell=messages.append)
    fewer = ShardSet.open(tmp_path / "out")
    assert len(fewer) == len(sample) - 2 and "2 images without annotations are left out" in messages[0]
    assert all(fewer.load(ordinal, "tags").any() for ordinal in range(len(fewer)))


def test_boxes_alone_give_tags_without_truth(coco_sample: Path, tmp_path: Path) -> None:
    boxes = coco_sample / "annotations" / "boxes_val2014.json"
    index = pack_coco(coco_sample, "val2014", tmp_path / "out", annotations=boxes)
    assert (index.fields, len(index.classes)) == (("jpg", "tags"), 81)
    shards = ShardSet.open(tmp_path / "out")
    assert len(shards) == 28 and sum(int(shards.load(n, "tags").sum()) for n in range(28)) > 28


def test_the_good_set(root: Path, tmp_path: Path) -> None:
    index = pack_coco(root, SPLIT, tmp_path / "out")
    assert index.classes[0] == "background" and len(index.classes) == 5
    shards = ShardSet.open(tmp_path / "out")
    assert [shards.load(n, "tags").tolist() for n in range(3)] == [[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0]]
    truth = shards.load(0, "gt.png")
    assert truth.shape == (64, 96) and (truth[30, 20], truth[30, 70], truth[5, 5]) == (2, 1, 0)


BAD = [
    ("truncated", "cut off|truncated at byte [0-9]+"),
    ("duplicate_image_id", "image id 100 is a duplicate, listed 2 times"),
    ("duplicate_annotation_id", "annotation id 10001 is a duplicate, listed 2 times"),
    ("missing_image_file", r"COCO_train2014_000000000999\.jpg: not there"),
    ("polygon_out_of_bounds", "annotation 10001: has a polygon from .* outside of its 96x64 picture"),
    ("unknown_category", "annotation 10001 is of category 12, which is not listed"),
]
OF_ONE_SAMPLE = {"missing_image_file": 3, "polygon_out_of_bounds": 2, "unknown_category": 2}


@pytest.mark.parametrize(("name", "message"), BAD)
def test_bad_annotation_files(root: Path, bad: Path, tmp_path: Path, name: str, message: str) -> None:
    shutil.copyfile(bad / "coco" / "annotations" / f"{name}.json", root / "annotations" / JSON)
    out = tmp_path / "out"
    with pytest.raises(ShardError, match=message) as caught:
        pack_coco(root, SPLIT, out)
    assert (JSON in str(caught.value) or "999.jpg" in str(caught.value)) and "\n" not in str(caught.value)
    assert not out.exists()
    if name not in OF_ONE_SAMPLE:
        with pytest.raises(ShardError, match=message):
            pack_coco(root, SPLIT, out, skip_bad=True)
        return
    pack_coco(root, SPLIT, out, skip_bad=True)
    assert len(ShardSet.open(out)) == OF_ONE_SAMPLE[name]
    assert json.loads((out / "quarantine.json").read_text())["count"] == 1


def test_outlines_beyond_the_picture_can_be_cut(root: Path, bad: Path, tmp_path: Path) -> None:
    path = bad / "coco" / "annotations" / "polygon_out_of_bounds.json"
    shutil.copyfile(path, root / "annotations" / JSON)
    pack_coco(root, SPLIT, tmp_path / "out", clip=True)
    coco = COCO(path)
    shards = ShardSet.open(tmp_path / "out")
    for ordinal, image in enumerate(coco.dataset["images"]):
        assert np.array_equal(shards.load(ordinal, "gt.png"), naive_truth(coco, image["id"]))


HOSTILE = [
    (lambda t: t["images"][0].update(file_name="../secret.jpg"), "image 100: file_name '../secret.jpg'"),
    (lambda t: t["images"][0].update(file_name="/etc/passwd"), "image 100: file_name '/etc/passwd'"),
    (lambda t: t["images"][0].update(file_name="a/../../b.jpg"), "image 100: file_name"),
    (lambda t: t["images"][0].update(file_name="a\\b.jpg"), "image 100: file_name"),
    (lambda t: t["images"][0].update(file_name="a\x00b.jpg"), "image 100: file_name"),
    (lambda t: t["images"][0].update(file_name=""), "image 100: file_name ''"),
    (lambda t: t["images"][0].update(file_name=t["images"][1]["file_name"]), "images 100 and 107 are both"),
    (lambda t: t["images"][0].update(id="100"), r"Expected `int`, got `str` - at `\$\.images\[0\]\.id`"),
    (lambda t: t["images"][0].update(id=-1), "images"),
    (lambda t: t["images"][0].update(id=2**70), "images"),
    (lambda t: t["images"][0].update(id=100.5), r"Expected `int`, got `float` - at `\$\.images\[0\]\.id`"),
    (lambda t: t["images"][0].update(id=True), r"Expected `int`, got `bool` - at `\$\.images\[0\]\.id`"),
    (lambda t: t["images"][0].update(file_name="x" * 300 + ".jpg"), "image 100: file_name 'xxx"),
    (lambda t: t["images"][0].update(file_name="./" + t["images"][1]["file_name"]), "images 100 and 107 are both COCO"),
    (lambda t: t["categories"][0].update(name="a\x1b[31mb"), "printable"),
    (lambda t: t["categories"][0].update(name="a" * 300), "expected 1 to 200 characters"),
    (lambda t: t["images"][0].pop("height"), "missing required field `height`"),
    (lambda t: t["images"][0].update(width=0), "width"),
    (lambda t: t["annotations"][0].update(image_id=5), "annotation 10001 of image 5; list the images"),
    (lambda t: t["annotations"][0].update(iscrowd=2), "iscrowd"),
    (lambda t: t["annotations"].append(7), "annotations"),
    (lambda t: t["categories"][0].update(id=18), "category id 18 is a duplicate"),
    (lambda t: t["categories"][0].update(name="dog"), "class 'dog' is listed twice"),
    (lambda t: t["categories"][0].update(name="background"), "class 'background' is listed twice"),
    (lambda t: t.update(categories=[]), "found 1 classes"),
    (lambda t: t.pop("annotations"), "missing required field `annotations`"),
    (lambda t: t.update(images=[], annotations=[]), "no samples found"),
    (lambda t: t["annotations"][0].update(segmentation=[[float("nan")] * 6]), r"invalid character \(byte [0-9]+\)"),
]


TWICE = [
    ('"image_id": 100', '"image_id": 107, "image_id": 100', "has the key 'image_id' twice, with 107 and 100"),
    ('"category_id": 3', '"category_id": 18, "category_id": 3', "has the key 'category_id' twice"),
    ('"iscrowd": 0', '"iscrowd": 1, "iscrowd": 0', "has the key 'iscrowd' twice"),
    ('"segmentation": ', '"segmentation": [[0, 0, 9, 0, 9, 9]], "segmentation": ', "has the key 'segmentation' twice"),
    ('"file_name": ', '"file_name": "a.jpg", "file_name": ', "has the key 'file_name' twice"),
    ('"annotations": ', '"annotations": [], "annotations": ', "has the key 'annotations' twice"),
    ('"images": ', '"images": [], "images": ', "has the key 'images' twice"),
    ('"iscrowd": 0', '"iscrowd": 0, "attributes": {"a": 1, "a": 2}', "has the key 'a' twice"),
]


@pytest.mark.parametrize(("old", "new", "message"), TWICE)
def test_an_annotation_file_says_everything_once(root: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    path = root / "annotations" / JSON
    text = json.dumps(json.loads(path.read_text()))
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ShardError, match=message) as caught:
        pack_coco(root, SPLIT, tmp_path / "out", skip_bad=True)
    assert JSON in str(caught.value) and str(caught.value).isprintable()


def test_run_lengths_say_everything_once(root: Path, change, tmp_path: Path) -> None:
    change(lambda t: t["annotations"][0].update(segmentation={"size": [64, 96], "counts": [6144]}))
    path = root / "annotations" / JSON
    path.write_text(path.read_text().replace('"counts": [6144]', '"counts": [0, 6144], "counts": [6144]'))
    with pytest.raises(ShardError, match="annotation 10001: segmentation: has the key 'counts' twice"):
        pack_coco(root, SPLIT, tmp_path / "out")


@pytest.mark.parametrize(("how", "message"), HOSTILE)
def test_hostile_annotation_files(root: Path, change, tmp_path: Path, how: Any, message: str) -> None:
    change(how)
    with pytest.raises(ShardError, match=message) as caught:
        pack_coco(root, SPLIT, tmp_path / "out", skip_bad=True)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", [b"", b"[]", b"[" * 200_000, b"\xff\xfe{}", b'{"images": [{"file_name": "\xff"}]}'])
def test_files_that_are_not_json(root: Path, tmp_path: Path, text: bytes) -> None:
    (root / "annotations" / JSON).write_bytes(text)
    with pytest.raises(ShardError, match=JSON):
        pack_coco(root, SPLIT, tmp_path / "out")


SAMPLE_FAULTS = [
    (lambda t: t["annotations"][0].update(segmentation=[]), "annotation 10001: has an empty segmentation"),
    (lambda t: t["annotations"][0].pop("segmentation"), "annotation 10001: has no segmentation"),
    (lambda t: t["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5]]), "annotation 10001: .*5 numbers"),
    (lambda t: t["annotations"][0].update(segmentation=[[1, "x"]]), "annotation 10001: segmentation: Expected"),
    (lambda t: t["images"][0].update(height=96, width=64), "image 100: is 64x96, its image 96x64"),
    (lambda t: t["images"][0].update(height=2**30, width=2**30), f"has {2**30}x{2**30} pixels; at most"),
    (lambda t: t["images"][0].update(file_name="none.jpg"), r"none\.jpg: not there"),
]


@pytest.mark.parametrize(("how", "message"), SAMPLE_FAULTS)
def test_faults_of_one_sample_leave_out_that_one(root: Path, change, tmp_path: Path, how: Any, message: str) -> None:
    change(how)
    if "96x64" in message:  # outlines that would leave the turned picture are another fault
        change(lambda tree: tree.update(annotations=[a for a in tree["annotations"] if a["image_id"] != 100]))
    with pytest.raises(ShardError, match=message):
        pack_coco(root, SPLIT, tmp_path / "out")
    pack_coco(root, SPLIT, tmp_path / "out", skip_bad=True)
    assert FIRST not in [entry.key for entry in ShardSet.open(tmp_path / "out").shard(0)]


def test_a_link_out_of_the_folder_is_refused(root: Path, tmp_path: Path) -> None:
    picture = root / SPLIT / f"{FIRST}.jpg"
    picture.rename(tmp_path / "secret.jpg")
    picture.symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(ShardError, match="leads outside"):
        pack_coco(root, SPLIT, tmp_path / "out")


def test_crowds_are_tags_and_stay_background(root: Path, change, tmp_path: Path) -> None:
    def crowd(tree: Tree) -> None:
        runs = {"counts": [0, 64 * 96], "size": [64, 96]}
        first = tree["annotations"][0]
        tree["annotations"] += [
            {**first, "id": 1, "iscrowd": 1, "category_id": 62, "segmentation": runs},
            {**first, "id": 2, "iscrowd": 1, "category_id": 62},
        ]

    pack_coco(root, SPLIT, tmp_path / "before")
    change(crowd)
    pack_coco(root, SPLIT, tmp_path / "after")
    before, after = ShardSet.open(tmp_path / "before"), ShardSet.open(tmp_path / "after")
    assert np.array_equal(before.load(0, "gt.png"), after.load(0, "gt.png"))
    assert (before.load(0, "tags").tolist(), after.load(0, "tags").tolist()) == ([1, 1, 0, 0], [1, 1, 0, 1])


def test_later_annotations_lie_over_earlier_ones_in_any_order_of_ids(root: Path, change, tmp_path: Path) -> None:
    def cover(tree: Tree) -> None:
        first = tree["annotations"][0]
        tree["annotations"].append({**first, "id": 3, "category_id": 44})
        tree["images"].reverse()

    change(cover)
    pack_coco(root, SPLIT, tmp_path / "out")
    shards = ShardSet.open(tmp_path / "out")
    assert (shards.entry(2).key, shards.load(2, "gt.png")[30, 20]) == (FIRST, 3)


def test_a_class_list_orders_the_classes_and_knows_every_category(root: Path, tmp_path: Path) -> None:
    tree = json.loads((root / "annotations" / JSON).read_text())
    names = [category["name"] for category in tree["categories"]]
    listed = tmp_path / "classes.txt"
    listed.write_text("\n".join(["background", "unicorn", *reversed(names)]))
    pack_coco(root, SPLIT, tmp_path / "out", classes=listed)
    shards = ShardSet.open(tmp_path / "out")
    assert shards.classes == ("background", "unicorn", *reversed(names))
    assert shards.load(0, "tags").tolist() == [0, 0, 0, 1, 1] and shards.load(0, "gt.png")[30, 20] == 4
    listed.write_text("\n".join(["background", *names[1:]]))
    with pytest.raises(ShardError, match=f"category 3, '{names[0]}', is not among the 3 classes"):
        pack_coco(root, SPLIT, tmp_path / "other", classes=listed)


def test_a_changed_annotation_file_is_other_input(root: Path, change, tmp_path: Path) -> None:
    pack_coco(root, SPLIT, tmp_path / "out")
    for settings in ({"clip": True}, {"shard_size": 1}):
        with pytest.raises(ShardError, match="other inputs or settings"):
            pack_coco(root, SPLIT, tmp_path / "out", **settings)
    change(lambda tree: tree["annotations"].pop())
    with pytest.raises(ShardError, match="other inputs or settings"):
        pack_coco(root, SPLIT, tmp_path / "out")


def test_a_file_that_changes_while_shards_are_packed_is_noticed(root: Path, change, tmp_path: Path) -> None:
    class LateFarm(LocalFarm):
        def run(self, task, numbers):
            change(lambda tree: tree["annotations"].pop(0))
            return super().run(task, numbers)

    with pytest.raises(ShardError, match="has changed since the shards were planned"):
        pack_coco(root, SPLIT, tmp_path / "out", farm=LateFarm())


def test_wrong_places_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="val2014: no such folder"):
        pack_coco(root, "val2014", tmp_path / "out")
    with pytest.raises(ShardError, match=f"none.json: no such file; found {JSON}"):
        pack_coco(root, SPLIT, tmp_path / "out", annotations=root / "annotations" / "none.json")
    for split in ("", "../train2014", "a/b", ".hidden", "a\nb"):
        with pytest.raises(ConfigError, match="split: found"):
            pack_coco(root, split, tmp_path / "out")


def test_the_command_line_packs_and_says_what_it_left_out(root: Path, tmp_path: Path) -> None:
    (root / SPLIT / "stray.jpg").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-m", "amn_dist", "pack", "coco", root, "--split", SPLIT, "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert f"1 files are not listed in {JSON} and are left out" in done.stdout
    assert "3 samples in 1 shards, 5 classes" in done.stdout


@pytest.mark.parametrize("name", ["background", "_background_", "Background", "__BACKGROUND__"])
def test_category_0_may_be_background(root: Path, change, tmp_path: Path, name: str) -> None:
    plain = pack_coco(root, SPLIT, tmp_path / "plain")
    change(lambda t: t["categories"].insert(0, {"id": 0, "name": name}))
    index = pack_coco(root, SPLIT, tmp_path / "out")
    assert index.digest == plain.digest and index.source_ids == (0, *plain.source_ids[1:])
    assert "named background, is background; its 0 annotations" in (tmp_path / "out" / "summary.json").read_text()
    (tmp_path / "names.txt").write_text("\n".join(plain.classes))
    assert pack_coco(root, SPLIT, tmp_path / "listed", classes=tmp_path / "names.txt").digest == plain.digest
    first = json.loads((root / "annotations" / JSON).read_text())["annotations"][0]
    change(lambda t: t["annotations"][0].update(category_id=0))
    pack_coco(root, SPLIT, tmp_path / "painted")
    shards, before = ShardSet.open(tmp_path / "painted"), ShardSet.open(tmp_path / "plain")
    number = plain.source_ids.index(first["category_id"])
    assert (before.load(0, "gt.png") == number).any() and not (shards.load(0, "gt.png") == number).any()


def test_whole_numbers_may_have_a_point_and_crowds_be_booleans(root: Path, change, tmp_path: Path) -> None:
    plain = pack_coco(root, SPLIT, tmp_path / "plain")

    def loosen(tree: Tree) -> None:
        for image in tree["images"]:
            image.update({name: float(image[name]) for name in ("id", "height", "width")})
        for annotation in tree["annotations"]:
            annotation.update({name: float(annotation[name]) for name in ("id", "image_id", "category_id")})
            annotation["iscrowd"] = bool(annotation["iscrowd"])
        tree["categories"][0]["id"] = float(tree["categories"][0]["id"])

    change(loosen)
    index = pack_coco(root, SPLIT, tmp_path / "out")
    assert (index.digest, index.source_ids) == (plain.digest, plain.source_ids)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda t: t["images"][0].update(height=48.5), r"Expected `int`, got `float` - at `\$\.images\[0\]\.height`"),
        (lambda t: t["images"][0].update(height="48"), r"Expected `int`, got `str`"),
        (lambda t: t["annotations"][0].update(iscrowd="false"), "iscrowd"),
        (lambda t: t["categories"].append({"id": 999, "name": "Car"}), "'car' and 'Car' differ in case alone"),
        (lambda t: t["categories"].append({"id": 999, "name": "nan"}), "categories: class 'nan' reads like no label"),
    ],
)
def test_what_stays_refused(root: Path, change, tmp_path: Path, how: Any, message: str) -> None:
    change(how)
    with pytest.raises(ShardError, match=message):
        pack_coco(root, SPLIT, tmp_path / "out")


def test_the_sources_ids_and_names_are_kept(root: Path, tmp_path: Path) -> None:
    index = pack_coco(root, SPLIT, tmp_path / "out")
    tree = json.loads((root / "annotations" / JSON).read_text())
    assert index.source_ids == (None, *sorted(category["id"] for category in tree["categories"]))
    entries = ShardSet.open(tmp_path / "out").shard(0)
    listed = [(image["file_name"], image["id"]) for image in tree["images"]]
    assert [(entry.source, entry.source_id) for entry in entries] == listed
    assert verify(tmp_path / "out").samples == len(listed)


def test_links_lead_out_on_request_alone(root: Path, tmp_path: Path) -> None:
    digest = pack_coco(root, SPLIT, tmp_path / "plain").digest
    shutil.move(root / SPLIT, tmp_path / "photos")
    (root / SPLIT).mkdir()
    for file in (tmp_path / "photos").iterdir():
        (root / SPLIT / file.name).symlink_to(file)
    with pytest.raises(ShardError, match=r"leads outside of .*--follow-links"):
        pack_coco(root, SPLIT, tmp_path / "out")
    assert pack_coco(root, SPLIT, tmp_path / "out", allow=Allowances(links=True)).digest == digest
