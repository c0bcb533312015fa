import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amn_dist.errors import ConfigError, ShardError
from amn_dist.shards.shardset import ShardSet
from data_shards.allowances import Allowances
from data_shards.summary import read_summary
from data_shards.verify import verify
from data_shards.voc import pack_voc

IMAGE = "JPEGImages/shape_01.jpg"
MASK = "SegmentationClass/shape_01.png"
XML = "Annotations/shape_01.xml"
TRAIN = "ImageSets/Segmentation/train.txt"

BAD = [
    ("images/truncated.jpg", IMAGE, ("truncated",)),
    ("images/zero_bytes.jpg", IMAGE, ("empty",)),
    ("images/text_named.jpg", IMAGE, ("text", "JPEG or PNG")),
    ("images/cmyk.jpg", IMAGE, ("CMYK", "convert to RGB")),
    ("images/one_pixel.jpg", IMAGE, ("1x1", "16")),
    ("masks/gray16.png", MASK, ("16-bit gray",)),
    ("masks/rgb.png", MASK, ("8-bit RGB",)),
    ("masks/wrong_size.png", MASK, ("48x32", "96x64")),
    ("masks/ids_beyond_classes.png", MASK, ("id 17",)),
    ("xml/malformed.xml", XML, ("line 19: mismatched tag",)),
    ("xml/unknown_class.xml", XML, ("dragon",)),
    ("xml/external_entity.xml", XML, ("DTD",)),
    ("xml/entity_expansion.xml", XML, ("DTD",)),
]


@pytest.fixture
def root(bad: Path, tmp_path: Path) -> Path:
    """A copy of the valid miniature set."""
    folder = tmp_path / "base"
    shutil.copytree(bad / "base", folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@pytest.fixture
def place(bad: Path, root: Path):
    """Put a bad file in the place of a good one."""

    def put(spoiled: str, good: str) -> None:
        shutil.copyfile(bad / spoiled, root / good)

    return put


def test_the_good_set(root: Path, tmp_path: Path) -> None:
    index = pack_voc(root, "train", tmp_path / "out")
    assert index.classes == ("background", "disc", "box", "wedge")
    shards = ShardSet.open(tmp_path / "out")
    assert [shards.entry(n).key for n in range(3)] == ["shape_01", "shape_02", "shape_03"]
    assert shards.load(0, "tags").tolist() == [1, 1, 0]
    assert shards.image(0) == (root / IMAGE).read_bytes()
    assert np.array_equal(shards.load(0, "gt.png"), np.array(Image.open(root / MASK)))
    assert (shards.entry(0).height, shards.entry(0).width) == (64, 96)
    assert verify(tmp_path / "out").samples == 3
    assert not (tmp_path / "out" / "quarantine.json").exists()


def test_packing_twice_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(root, moved)
    assert pack_voc(root, "train", tmp_path / "a").digest == pack_voc(moved, "train", tmp_path / "b").digest
    assert (tmp_path / "a" / "000000.tar").read_bytes() == (tmp_path / "b" / "000000.tar").read_bytes()


@pytest.mark.parametrize(("spoiled", "good", "message"), BAD)
def test_bad_files_stop_the_pack(root: Path, place, tmp_path: Path, spoiled: str, good: str, message: tuple) -> None:
    place(spoiled, good)
    with pytest.raises(ShardError) as caught:
        pack_voc(root, "train", tmp_path / "out")
    text = str(caught.value)
    assert all(part in text for part in (good, "shape_01", "1 of 3", *message)), text
    assert "\n" not in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("spoiled", "good", "message"), BAD)
def test_bad_files_can_be_left_out(root: Path, place, tmp_path: Path, spoiled: str, good: str, message: tuple) -> None:
    place(spoiled, good)
    out = tmp_path / "out"
    index = pack_voc(root, "train", out, skip_bad=True)
    assert [entry.key for entry in ShardSet.open(out).shard(0)] == ["shape_02", "shape_03"]
    quarantine = json.loads((out / "quarantine.json").read_text())
    assert quarantine["count"] == 1
    assert (quarantine["samples"][0]["key"], quarantine["samples"][0]["file"]) == ("shape_01", IMAGE)
    assert all(part in quarantine["samples"][0]["reason"] for part in (good, *message))
    assert pack_voc(root, "train", out, skip_bad=True) == index
    with pytest.raises(ShardError, match=r"quarantine\.json"):
        pack_voc(root, "train", out)


def test_every_bad_sample_is_named_at_once(root: Path, place, tmp_path: Path) -> None:
    place("images/truncated.jpg", IMAGE)
    place("masks/rgb.png", "SegmentationClass/shape_02.png")
    place("xml/malformed.xml", "Annotations/shape_03.xml")
    with pytest.raises(ShardError, match="3 of 3") as caught:
        pack_voc(root, "train", tmp_path / "out", shard_size=1)
    assert all(f"[shape_0{n}]" in str(caught.value) for n in (1, 2, 3))
    with pytest.raises(ShardError, match="every sample is bad"):
        pack_voc(root, "train", tmp_path / "out", shard_size=1, skip_bad=True)
    assert not (tmp_path / "out").exists()


def test_mending_goes_on_from_the_good_shards(root: Path, place, tmp_path: Path) -> None:
    out = tmp_path / "out"
    good = (root / "JPEGImages" / "shape_02.jpg").read_bytes()
    place("images/truncated.jpg", "JPEGImages/shape_02.jpg")
    with pytest.raises(ShardError, match="shape_02"):
        pack_voc(root, "train", out, shard_size=1)
    assert not (out / "index.json").exists() and (out / "000000.json").exists()
    mtime_ns = (out / "000000.tar").stat().st_mtime_ns
    (root / "JPEGImages" / "shape_02.jpg").write_bytes(good)
    digest = pack_voc(root, "train", out, shard_size=1).digest
    assert (out / "000000.tar").stat().st_mtime_ns == mtime_ns
    assert digest == pack_voc(root, "train", tmp_path / "fresh", shard_size=1).digest


def test_a_shard_of_bad_samples_only_is_left_out(root: Path, place, tmp_path: Path) -> None:
    out = tmp_path / "out"
    place("images/zero_bytes.jpg", "JPEGImages/shape_02.jpg")
    index = pack_voc(root, "train", out, shard_size=1, skip_bad=True)
    assert [shard.name for shard in index.shards] == ["000000.tar", "000002.tar"]
    shards = ShardSet.open(out)
    assert [shards.entry(n).key for n in range(2)] == ["shape_01", "shape_03"]
    assert shards.image(1) == (root / "JPEGImages" / "shape_03.jpg").read_bytes()
    (out / "index.json").unlink()
    assert pack_voc(root, "train", out, shard_size=1, skip_bad=True) == index
    assert verify(out).samples == 2


def test_a_changed_input_is_other_input(root: Path, place, tmp_path: Path) -> None:
    pack_voc(root, "train", tmp_path / "out")
    place("images/gray.jpg", IMAGE)
    with pytest.raises(ShardError, match="other inputs"):
        pack_voc(root, "train", tmp_path / "out")


@pytest.mark.parametrize(("spoiled", "field"), [("images/gray.jpg", "jpg"), ("images/png_named.jpg", "png")])
def test_legal_oddities_are_packed_untouched(root: Path, place, tmp_path: Path, spoiled: str, field: str) -> None:
    place(spoiled, IMAGE)
    pack_voc(root, "train", tmp_path / "out")
    shards = ShardSet.open(tmp_path / "out")
    assert set(shards.entry(0).fields) == {field, "tags", "gt.png"}
    assert shards.image(0) == (root / IMAGE).read_bytes()
    assert verify(tmp_path / "out").samples == 3


def test_exif_orientation_counts(root: Path, place, tmp_path: Path) -> None:
    place("images/exif_orientation_6.jpg", IMAGE)
    pack_voc(root, "train", tmp_path / "out")
    shards = ShardSet.open(tmp_path / "out")
    assert (shards.entry(0).height, shards.entry(0).width) == (64, 96)
    assert verify(tmp_path / "out").samples == 3
    Image.fromarray(np.zeros((96, 64), np.uint8)).save(root / MASK)
    with pytest.raises(ShardError, match=r"shape_01\.png: is 64x96, its image 96x64"):
        pack_voc(root, "train", tmp_path / "out2")


@pytest.mark.parametrize("name", ["blank_lines", "crlf"])
def test_lists_with_harmless_oddities(root: Path, place, tmp_path: Path, name: str) -> None:
    place(f"lists/{name}.txt", TRAIN)
    pack_voc(root, "train", tmp_path / "out")
    keys = [entry.key for entry in ShardSet.open(tmp_path / "out").shard(0)]
    assert keys == ["shape_01", "shape_02", "shape_03"]


def test_a_duplicate_id_is_refused(root: Path, place, tmp_path: Path) -> None:
    place("lists/duplicate_id.txt", TRAIN)
    with pytest.raises(ShardError, match=r"train\.txt: line 4: id 'shape_01' is a duplicate of line 1"):
        pack_voc(root, "train", tmp_path / "out", skip_bad=True)
    assert not (tmp_path / "out").exists()


def test_a_missing_image_is_named(root: Path, place, tmp_path: Path) -> None:
    place("lists/id_not_on_disk.txt", TRAIN)
    with pytest.raises(ShardError, match=r"\[shape_99\] JPEGImages/shape_99\.jpg: not there"):
        pack_voc(root, "train", tmp_path / "out")
    pack_voc(root, "train", tmp_path / "out", skip_bad=True)
    assert len(ShardSet.open(tmp_path / "out")) == 3


def test_missing_annotation_and_mask_are_bad_samples(root: Path, tmp_path: Path) -> None:
    (root / XML).unlink()
    (root / "SegmentationClass" / "shape_02.png").unlink()
    with pytest.raises(ShardError) as caught:
        pack_voc(root, "train", tmp_path / "out")
    assert f"{XML}: not there" in str(caught.value)
    assert "SegmentationClass/shape_02.png: not there" in str(caught.value)


def test_truth_is_optional(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "SegmentationClass")
    assert pack_voc(root, "train", tmp_path / "out").fields == ("jpg", "tags")


@pytest.mark.parametrize(
    "line",
    ["../shape_01", "/etc/passwd", "shape_01 1", ".hidden", "a\\b", "..", "x" * 100_000, "é" * 126, "a\0b", "a\x1b[2Jb",
     "shape_01\x0cshape_03", "shape_01\u2028shape_03"],
)  # fmt: skip
def test_ids_are_file_names(root: Path, tmp_path: Path, line: str) -> None:
    (root / TRAIN).write_text(f"shape_02\n{line}\n")
    with pytest.raises(ShardError, match=r"train\.txt: line 2") as caught:
        pack_voc(root, "train", tmp_path / "out")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


@pytest.mark.parametrize("split", ["../train", "a/b", ".", "", "x" * 1000, "a\nb", "a\\b"])
def test_a_split_is_the_name_of_a_file(root: Path, tmp_path: Path, split: str) -> None:
    with pytest.raises(ConfigError, match="split: found '") as caught:
        pack_voc(root, split, tmp_path / "out")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_an_image_has_one_file(root: Path, tmp_path: Path) -> None:
    shutil.copyfile(root / IMAGE, (root / IMAGE).with_suffix(".JPG"))
    with pytest.raises(ShardError, match=r"shape_01\.jpg and shape_01\.JPG are both image shape_01"):
        pack_voc(root, "train", tmp_path / "out")


@pytest.mark.parametrize("marked", ["2", "yes", "true", "-1", "1.0", "١"])
def test_difficult_is_0_or_1(root: Path, tmp_path: Path, marked: str) -> None:
    text = (root / XML).read_text().replace("<difficult>0</difficult>", f"<difficult>{marked}</difficult>", 1)
    (root / XML).write_text(text)
    with pytest.raises(ShardError, match=rf"{XML}: object 1: difficult: found '{marked}', expected 0 or 1"):
        pack_voc(root, "train", tmp_path / "out")


@pytest.mark.parametrize("element", ["<name>wedge</name>", "<difficult>1</difficult>"])
def test_an_object_has_one_name_and_one_mark(root: Path, tmp_path: Path, element: str) -> None:
    (root / XML).write_text((root / XML).read_text().replace("</object>", f"{element}</object>", 1))
    with pytest.raises(ShardError, match=rf"{XML}: object 1 has 2 elements <{element[1:].partition('>')[0]}>"):
        pack_voc(root, "train", tmp_path / "out")


def test_difficult_objects(root: Path, tmp_path: Path) -> None:
    text = (root / XML).read_text().replace("<difficult>0</difficult>", "<difficult>1</difficult>", 1)
    (root / XML).write_text(text)
    pack_voc(root, "train", tmp_path / "all")
    pack_voc(root, "train", tmp_path / "easy", difficult=False)
    assert ShardSet.open(tmp_path / "all").load(0, "tags").tolist() == [1, 1, 0]
    assert ShardSet.open(tmp_path / "easy").load(0, "tags").tolist() == [0, 1, 0]
    with pytest.raises(ShardError, match="other inputs or settings"):
        pack_voc(root, "train", tmp_path / "all", difficult=False)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("disc\nbox\nwedge\n", "background"),
        ("background\ndisc\nbox\ndisc\n", "twice"),
        ("background\n", "1 classes"),
        ("", "background"),
        ("background\ndisc\nBackground\n", "class 'Background' is listed twice"),
        ("background\ndisc\n__background__\n", "is listed twice"),
        ("background\nbig  disc\nbig disc\n", "'big disc' is listed twice"),
        ("background\ncaf\u00e9\ncafe\u0301\n", "is listed twice"),
        ("background\na\x1b[31mb\n", "printable"),
        ("background\ndisc\x85box\n", "printable"),
        ("background\n" + "a" * 201, "expected 1 to 200 characters"),
        ("background\n" + "\n".join(f"c{n}" for n in range(255)), "256 classes, expected 2 to 255"),
    ],
)
def test_wrong_class_lists(root: Path, tmp_path: Path, names: str, message: str) -> None:
    (root / "classes.txt").write_text(names)
    with pytest.raises(ShardError, match=rf"classes\.txt.*{message}"):
        pack_voc(root, "train", tmp_path / "out")


@pytest.mark.parametrize("text", ["\ufeffbackground\ndisc\nbox\nwedge\n", "background\r\ndisc\rbox\r\n\r\nwedge"])
def test_marks_and_line_ends_of_other_systems_are_no_part_of_a_name(root: Path, tmp_path: Path, text: str) -> None:
    (root / "classes.txt").write_bytes(text.encode())
    assert pack_voc(root, "train", tmp_path / "out").classes == ("background", "disc", "box", "wedge")


def test_without_a_class_list_the_classes_are_those_of_voc(root: Path, tmp_path: Path) -> None:
    (root / "classes.txt").unlink()
    with pytest.raises(ShardError, match="unknown class 'disc'"):
        pack_voc(root, "train", tmp_path / "out")
    for path in (root / "Annotations").iterdir():
        text = path.read_text()
        for ours, theirs in (("disc", "aeroplane"), ("box", "bicycle"), ("wedge", "bird")):
            text = text.replace(f"<name>{ours}<", f"<name>{theirs}<")
        path.write_text(text)
    assert len(pack_voc(root, "train", tmp_path / "out").classes) == 21


def test_near_names_are_offered(root: Path, tmp_path: Path) -> None:
    (root / XML).write_text((root / XML).read_text().replace("wedge", "wege").replace("disc", "disk"))
    with pytest.raises(ShardError, match=r"unknown class 'disk' \(did you mean 'disc'\?\)"):
        pack_voc(root, "train", tmp_path / "out")


def test_wrong_places_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="JPEGImages: no such folder"):
        pack_voc(tmp_path, "train", tmp_path / "out")
    with pytest.raises(ShardError, match=r"test\.txt: no such split; found train, val"):
        pack_voc(root, "test", tmp_path / "out")


@pytest.mark.parametrize(
    ("mode", "message"), [("RGBA", "RGBA"), ("P", "palette"), ("LA", "alpha"), ("I;16", "16-bit gray")]
)
def test_other_modes_are_refused_by_name(root: Path, tmp_path: Path, mode: str, message: str) -> None:
    stream = io.BytesIO()
    Image.new(mode, (96, 64)).save(stream, "PNG")
    (root / IMAGE).write_bytes(stream.getvalue())
    with pytest.raises(ShardError, match=f"{message}.*convert to RGB"):
        pack_voc(root, "train", tmp_path / "out")


@pytest.mark.parametrize("size", [(16400, 16), (9000, 9000), (15, 200)])
def test_sizes_are_bounded_before_decoding(root: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    stream = io.BytesIO()
    Image.new("L", size).save(stream, "PNG")
    (root / IMAGE).write_bytes(stream.getvalue())
    with pytest.raises(ShardError, match=f"{size[0]}x{size[1]}"):
        pack_voc(root, "train", tmp_path / "out")


def test_real_photographs(shared_data: Path, tmp_path: Path) -> None:
    index = pack_voc(shared_data / "msrc-voc", "val", tmp_path / "out")
    assert sum(shard.count for shard in index.shards) == 60
    assert verify(tmp_path / "out").samples == 60
    shards = ShardSet.open(tmp_path / "out")
    for ordinal in range(60):
        present = [kind for kind in np.unique(shards.load(ordinal, "gt.png")) if kind not in (0, 255)]
        assert np.flatnonzero(shards.load(ordinal, "tags")).tolist() == [kind - 1 for kind in present]


def test_unreadable_output_is_one_line(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ShardError, match="file"):
        pack_voc(root, "train", tmp_path / "file" / "out")
    with pytest.raises(ShardError, match="file"):
        pack_voc(root, "train", os.fspath(tmp_path / "file"))


def test_an_image_of_difficult_objects_alone_keeps_them(root: Path, tmp_path: Path) -> None:
    (root / XML).write_text((root / XML).read_text().replace("<difficult>0</difficult>", "<difficult>1</difficult>"))
    pack_voc(root, "train", tmp_path / "out", difficult=False)
    assert ShardSet.open(tmp_path / "out").load(0, "tags").tolist() == [1, 1, 0]


def notes(out: Path) -> list[str]:
    summary = read_summary(out)
    assert summary is not None
    return summary.notes


def test_files_are_named_in_the_report(root: Path, tmp_path: Path) -> None:
    pack_voc(root, "train", tmp_path / "out")
    assert [entry.source for entry in ShardSet.open(tmp_path / "out").shard(0)] == [
        f"shape_0{n}.jpg" for n in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    "form",
    ["{0} 1\n", "{0}  -1\n", "{0} 15\n", "{0}\t0\n", "{0}.jpg\n", "/JPEGImages/{0}.jpg\n",
     "JPEGImages/{0}.jpg SegmentationClass/{0}.png\n",
     "/VOC2012/JPEGImages/{0}.jpg /VOC2012/SegmentationClass/{0}.png\r\n"],
)  # fmt: skip
def test_lists_as_other_code_writes_them(root: Path, tmp_path: Path, form: str) -> None:
    digest = pack_voc(root, "train", tmp_path / "plain").digest
    names = (root / TRAIN).read_text().split()
    (root / TRAIN).write_text("".join(form.format(name) for name in names))
    assert pack_voc(root, "train", tmp_path / "out").digest == digest
    numbers = form.split()[-1].lstrip("-").isdigit()
    assert notes(tmp_path / "out") == (["train.txt: the numbers behind ids are not read"] if numbers else [])


@pytest.mark.parametrize(
    "line",
    ["JPEGImages/../a.jpg", "Annotations/shape_01.jpg", "/JPEGImages/shape_01.jpg ../a.png", "JPEGImages/shape_01",
     "/JPEGImages/shape_01.jpg /SegmentationClass/shape_01.npy", "shape_01", "JPEGImages/a.jpg x/../b.png c"],
)  # fmt: skip
def test_all_lines_are_of_the_first_ones_kind(root: Path, tmp_path: Path, line: str) -> None:
    (root / TRAIN).write_text(f"/JPEGImages/shape_02.jpg /SegmentationClass/shape_02.png\n{line}\n")
    with pytest.raises(ShardError, match=r"train\.txt: line 2: found '.*as in the lines before"):
        pack_voc(root, "train", tmp_path / "out")


def test_a_list_in_main_is_found(root: Path, tmp_path: Path) -> None:
    (root / "ImageSets" / "Segmentation").rename(root / "ImageSets" / "Main")
    assert len(pack_voc(root, "train", tmp_path / "out").shards) == 1


def test_masks_of_sbd_are_found_beside_the_official_ones(root: Path, tmp_path: Path) -> None:
    digest = pack_voc(root, "train", tmp_path / "plain").digest
    shutil.copytree(root / "SegmentationClass", root / "SegmentationClassAug")
    assert pack_voc(root, "train", tmp_path / "out").digest == digest and notes(tmp_path / "out") == []
    (root / MASK).unlink()
    assert pack_voc(root, "train", tmp_path / "aug").digest == digest
    assert notes(tmp_path / "aug") == [
        "masks are those of SegmentationClassAug, which has more of them than SegmentationClass"
    ]
    shutil.move(root / "SegmentationClassAug", tmp_path / "elsewhere")
    assert pack_voc(root, "train", tmp_path / "moved", masks=tmp_path / "elsewhere").digest == digest
    with pytest.raises(ShardError, match="nowhere: no such folder"):
        pack_voc(root, "train", tmp_path / "no", masks="nowhere")


def test_many_missing_masks_are_one_short_line(root: Path, tmp_path: Path) -> None:
    names = [f"more_{number:03d}" for number in range(40)]
    for name in names:
        shutil.copy(root / IMAGE, root / "JPEGImages" / f"{name}.jpg")
        shutil.copy(root / XML, root / "Annotations" / f"{name}.xml")
    (root / TRAIN).write_text("shape_01\n" + "\n".join(names))
    with pytest.raises(
        ShardError, match=r"SegmentationClass: has no mask of 40 of 41 images \(more_000, .* and 32 more\)"
    ) as caught:
        pack_voc(root, "train", tmp_path / "out")
    assert len(str(caught.value)) < 500 and "--masks" in str(caught.value) and "--no-truth" in str(caught.value)
    pack_voc(root, "train", tmp_path / "skip", skip_bad=True)
    left = read_summary(tmp_path / "skip").left_out  # type: ignore[union-attr]
    assert (left.count, left.of, left.reasons) == (40, 41, {"not there": 40}) and len(left.names) == 8
    assert pack_voc(root, "train", tmp_path / "bare", truth=False).fields == ("jpg", "tags")


def test_no_truth_is_said(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "SegmentationClass")
    pack_voc(root, "train", tmp_path / "out")
    assert notes(tmp_path / "out")[0].startswith("no truth found: none of SegmentationClass, ")
    pack_voc(root, "train", tmp_path / "bare", truth=False)
    assert notes(tmp_path / "bare") == []
    with pytest.raises(ConfigError, match="--trust-masks: found no masks"):
        pack_voc(root, "train", tmp_path / "masks", allow=Allowances(trust="masks"))


def test_tags_come_from_a_file_or_the_masks_where_there_is_no_xml(root: Path, tmp_path: Path) -> None:
    digest = pack_voc(root, "train", tmp_path / "plain").digest
    tags = {f"shape_0{n}": ShardSet.open(tmp_path / "plain").load(n - 1, "tags").astype(np.float32) for n in (1, 2, 3)}
    shutil.rmtree(root / "Annotations")
    with pytest.raises(ShardError, match=r"Annotations: no such folder.*--tags cls_labels\.npy or --trust-masks"):
        pack_voc(root, "train", tmp_path / "out")
    np.save(root / "cls_labels.npy", np.array(tags, dtype=object), allow_pickle=True)
    assert pack_voc(root, "train", tmp_path / "out", tags=root / "cls_labels.npy").digest == digest
    assert pack_voc(root, "train", tmp_path / "inside", tags="cls_labels.npy").digest == digest
    with pytest.raises(ShardError, match=r"^absent\.npy: not there$"):
        pack_voc(root, "train", tmp_path / "absent", tags="absent.npy")
    assert pack_voc(root, "train", tmp_path / "masks", allow=Allowances(trust="masks")).digest == digest
    names = ("disc", "box", "wedge")
    rows = [
        f"{key}.jpg,{';'.join(name for name, tag in zip(names, row, strict=True) if tag)}" for key, row in tags.items()
    ]
    (root / "tags.csv").write_text("file,labels\n" + "\n".join(rows[1:]))
    with pytest.raises(ShardError, match=r"1 of 3 samples are bad: \[shape_01\] .*tags\.csv: has no tags of shape_01"):
        pack_voc(root, "train", tmp_path / "csv", tags=root / "tags.csv")


def test_images_without_xml_have_no_tags_on_request(root: Path, tmp_path: Path) -> None:
    (root / XML).unlink()
    with pytest.raises(ShardError, match="not there; --unlabelled takes such images"):
        pack_voc(root, "train", tmp_path / "out")
    pack_voc(root, "train", tmp_path / "out", unlabelled=True, truth=False)
    assert ShardSet.open(tmp_path / "out").load(0, "tags").tolist() == [0, 0, 0]


def test_links_lead_out_on_request_alone(root: Path, tmp_path: Path) -> None:
    digest = pack_voc(root, "train", tmp_path / "plain").digest
    for folder in ("JPEGImages", "Annotations", "SegmentationClass"):
        shutil.move(root / folder, tmp_path / folder)
        (root / folder).symlink_to(tmp_path / folder)
    assert pack_voc(root, "train", tmp_path / "folders").digest == digest
    for folder, path in (("JPEGImages", IMAGE), ("Annotations", XML), ("SegmentationClass", MASK)):
        (root / folder).unlink()
        (root / folder).mkdir()
        for file in (tmp_path / folder).iterdir():
            (root / folder / file.name).symlink_to(file)
        with pytest.raises(ShardError, match=f"{Path(path).name}: leads outside of .*{folder}; .*--follow-links"):
            pack_voc(root, "train", tmp_path / "out")
        assert pack_voc(root, "train", tmp_path / folder / "out", allow=Allowances(links=True)).digest == digest
        shutil.rmtree(tmp_path / folder / "out")
        shutil.rmtree(root / folder)
        (root / folder).symlink_to(tmp_path / folder)


def test_photographs_of_other_kinds_come_in_converted(root: Path, tmp_path: Path) -> None:
    with Image.open(root / IMAGE) as picture:
        pixels = np.array(picture)
    (root / IMAGE).unlink()
    Image.fromarray(pixels).save(root / "JPEGImages" / "shape_01.bmp")
    with pytest.raises(ShardError, match=r"JPEGImages/shape_01\.bmp: is a BMP; .*--convert"):
        pack_voc(root, "train", tmp_path / "out")
    pack_voc(root, "train", tmp_path / "out", allow=Allowances(convert=True))
    shards = ShardSet.open(tmp_path / "out")
    assert (
        shards.entry(0).source == "shape_01.bmp" and shards.image(1) == (root / "JPEGImages/shape_02.jpg").read_bytes()
    )
    with Image.open(io.BytesIO(shards.read(0, "png"))) as packed:
        assert packed.mode == "RGB" and np.array_equal(np.array(packed), pixels)


def test_names_other_than_vocs_have_their_places_told(root: Path, tmp_path: Path) -> None:
    names = (root / "classes.txt").read_text()
    (root / "classes.txt").unlink()
    with pytest.raises(ShardError, match=r"unknown class 'disc' .*ROOT/classes\.txt, or --classes FILE"):
        pack_voc(root, "train", tmp_path / "out")
    (tmp_path / "names.txt").write_text(names)
    assert pack_voc(root, "train", tmp_path / "out", classes=tmp_path / "names.txt").classes[1] == "disc"
