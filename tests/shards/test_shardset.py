import json
import pickle
import shutil
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
import webdataset

from amn_dist.errors import ShardError
from amn_dist.shards.format import encode
from amn_dist.shards.index import Index
from amn_dist.shards.names import SourceFile
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.tarcheck import check_tar
from amn_dist.shards.writer import clean_unfinished, read_report, write_index, write_shard

CLASSES = ("background", "disc", "box")
LONG = "long_" + "k" * 195


def rows(number: int, count: int = 5):
    """Samples of a shard, fields in no special order; the second key is as long as keys may be."""
    for i in range(count):
        key = f"k{number}_{i}" if (number, i) != (0, 1) else LONG
        activation = np.full((2, 3, 4), number * 10 + i, np.float16)
        seed = np.full((9, 13), i, np.uint8)
        fields = {"tags": bytes([1, i % 2]), "seed.png": encode("seed.png", seed), "jpg": key.encode() * (i + 1)}
        yield key, (9, 13), {**fields, "activation.npy": encode("activation.npy", activation)}


def write_set(folder: Path, sizes: tuple[int, ...] = (5, 3, 4), kind: str = "cam") -> Index:
    reports = [write_shard(folder, number, rows(number, size)) for number, size in enumerate(sizes)]
    return write_index(folder, kind=kind, classes=CLASSES, reports=reports)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    write_set(folder)
    return folder


def test_every_sample_comes_back(whole: Path) -> None:
    shards = ShardSet.open(whole)
    assert (len(shards), shards.shard_sizes, shards.classes, shards.kind) == (12, (5, 3, 4), CLASSES, "cam")
    assert shards.fields == ("activation.npy", "jpg", "seed.png", "tags")
    expected = [row for number, size in enumerate((5, 3, 4)) for row in rows(number, size)]
    for ordinal, (key, size, fields) in enumerate(expected):
        entry = shards.entry(ordinal)
        assert (entry.key, entry.ordinal, (entry.height, entry.width)) == (key, ordinal, size)
        assert shards.find(key) == ordinal
        assert {field: shards.read(ordinal, field) for field in fields} == fields
        assert shards.image(ordinal) == fields["jpg"]
    assert [entry.ordinal for n in range(3) for entry in shards.shard(n)] == list(range(12))
    assert shards.load(7, "activation.npy").max() == 12
    assert shards.load(9, "tags").tolist() == [1, 1]


def test_any_webdataset_reader_opens_the_tars(whole: Path) -> None:
    found = list(webdataset.WebDataset(str(whole / "000000.tar"), shardshuffle=False))
    for sample, (key, _, fields) in zip(found, rows(0), strict=True):
        assert sample["__key__"] == key
        assert {field: sample[field] for field in fields} == fields


def test_same_input_same_bytes(whole: Path, tmp_path: Path) -> None:
    write_set(tmp_path)
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted([f"00000{n}.{kind}" for n in range(3) for kind in ("json", "tar")] + ["index.json"])
    assert all((whole / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_digest_follows_content_only(whole: Path, tmp_path: Path) -> None:
    assert write_set(tmp_path / "other", (5, 3, 3)).digest != ShardSet.open(whole).digest
    assert write_set(tmp_path / "kind", kind="amn_map").digest != ShardSet.open(whole).digest
    shutil.copytree(whole, tmp_path / "moved")
    assert ShardSet.open(tmp_path / "moved").digest == ShardSet.open(whole).digest


def test_report_offsets_are_those_of_the_tar(whole: Path) -> None:
    report = read_report(whole, 0)
    assert report is not None
    listed = [(f"{p.key}.{name}", *at) for p in report.samples for name, at in p.fields.items()]
    assert sorted(listed) == sorted((m.name, m.offset, m.size) for m in check_tar(whole / "000000.tar"))


def test_threads_read_the_right_bytes(whole: Path) -> None:
    shards = ShardSet.open(whole)
    order = np.random.default_rng(0).integers(0, 12, 400).tolist()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda ordinal: shards.read(ordinal, "jpg"), order))
    assert found == [ShardSet.open(whole).read(ordinal, "jpg") for ordinal in order]


def test_pickled_copy_reads(whole: Path) -> None:
    shards = ShardSet.open(whole)
    shards.read(3, "tags")
    copy = pickle.loads(pickle.dumps(shards))
    assert copy.url == shards.url == str(whole)
    assert copy.read(3, "jpg") == shards.read(3, "jpg")


def test_relative_path_gives_a_url_for_other_folders(whole: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(whole.parent)
    shards = ShardSet.open(whole.name)
    monkeypatch.chdir(tmp_path)
    assert len(ShardSet.open(shards.url)) == 12
    assert shards.read(0, "tags") == b"\x01\x00"


def test_remote_set_reads_like_a_local_one(whole: Path) -> None:
    system = fsspec.filesystem("memory")
    for path in whole.iterdir():
        system.pipe_file(f"/bucket/set/{path.name}", path.read_bytes())
    remote, local = ShardSet.open("memory://bucket/set"), ShardSet.open(whole)
    assert remote.digest == local.digest
    assert [remote.read(n, "seed.png") for n in range(12)] == [local.read(n, "seed.png") for n in range(12)]
    assert pickle.loads(pickle.dumps(remote)).image(4) == local.image(4)
    assert len(ShardSet.open(f"file://{whole}")) == 12
    with pytest.raises(ShardError, match="nosuch"):
        ShardSet.open("nosuch://bucket/set")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "index.json").unlink(), "no index.json"),
        (lambda f: (f / "index.json").write_text("{"), "index.json"),
        (lambda f: edit(f / "index.json", format=2), "version"),
        (lambda f: edit(f / "index.json", kind="walk"), "digest"),
        (lambda f: edit(f / "index.json", extra=1), "extra"),
        (lambda f: replace(f / "index.json", '"kind":"cam"', '"kind":"cam","kind":"cam"'), "the key 'kind' twice"),
        (lambda f: replace(f / "index.json", '"count":5', '"count":true'), r"shards\.0\.count: found True"),
        (lambda f: replace(f / "index.json", '"count":5', '"count":5.0'), r"shards\.0\.count: found 5\.0"),
        (lambda f: replace(f / "index.json", '"count":5', '"count":-5'), r"shards\.0\.count: found -5"),
        (lambda f: replace(f / "index.json", '"count":5', '"count":NaN'), "the number NaN"),
        (lambda f: replace(f / "index.json", '"count":5', '"count":' + "9" * 40), "at most 64 bits"),
        (lambda f: (f / "index.json").write_text("[" * 100_000), "more than 64 levels"),
        (lambda f: edit(f / "index.json", classes=[]), "classes: found "),
        (lambda f: edit(f / "index.json", classes=[f"c{n}" for n in range(256)]), "at most 255"),
        (lambda f: edit(f / "index.json", classes=["background", "a", "a"]), "class 'a' is listed twice"),
        (lambda f: edit(f / "index.json", classes=["background", "caf\u00e9", "cafe\u0301"]), "is listed twice"),
        (lambda f: edit(f / "index.json", classes=["background", ""]), "expected 1 to 200 characters"),
        (lambda f: edit(f / "index.json", classes=["background", "a" * 201]), "expected 1 to 200 characters"),
        (lambda f: edit(f / "index.json", kind="../x"), r"kind: found '\.\./x'"),
        (lambda f: edit(f / "index.json", fields=["../x"]), "field"),
        (lambda f: (f / "000001.tar").unlink(), "000001.tar: missing"),
        (lambda f: (f / "000002.tar").write_bytes(b"x" * 700), "000002.tar: found 700 bytes"),
        (lambda f: shutil.rmtree(f), "cannot be listed"),
    ],
)
def test_damaged_sets_do_not_open(whole: Path, tmp_path: Path, damage, message: str) -> None:
    folder = tmp_path / "set"
    shutil.copytree(whole, folder)
    damage(folder)
    with pytest.raises(ShardError, match=message) as caught:
        ShardSet.open(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"key":"k0_0"', '"key":"k0_0","key":"k0_0"', "the key 'key' twice"),
        ('"height":9', '"height":true', r"samples\.0\.height: found True"),
        ('"height":9', '"height":9.0', r"samples\.0\.height: found 9\.0"),
        ('"height":9', '"height":16385', r"samples\.0\.height: found 16385"),
        ('"width":13', '"width":-13', r"samples\.0\.width: found -13"),
        ('"tags":[', '"tags":[0,0],"tags":[', "the key 'tags' twice"),
        ('"samples":[', '"samples":[],"samples":[', "the key 'samples' twice"),
        ('"count":5', '"count":5' + "0" * 30, "at most 64 bits"),
        ('"count":5', '"count":"5"', "count: found '5'"),
    ],
)
def test_reports_say_one_thing(whole: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    folder = tmp_path / "set"
    shutil.copytree(whole, folder)
    replace(folder / "000000.json", old, new)
    assert read_report(folder, 0) is None
    with pytest.raises(ShardError, match=message) as caught:
        ShardSet.open(folder).entry(0)
    assert "000000.json" in str(caught.value) and str(caught.value).isprintable()


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"format":1,"name":"../../x.tar"}', None],
)
def test_damaged_reports_say_so(whole: Path, tmp_path: Path, text: str | None) -> None:
    folder = tmp_path / "set"
    shutil.copytree(whole, folder)
    report = folder / "000001.json"
    report.unlink() if text is None else report.write_text(text)
    assert read_report(folder, 1) is None
    shards = ShardSet.open(folder)
    assert shards.read(0, "tags")
    with pytest.raises(ShardError, match=r"000001\.json"):
        shards.read(6, "tags")


def test_report_of_another_tar_is_refused(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(whole, folder)
    edit(folder / "000000.json", sha256="0" * 64)
    with pytest.raises(ShardError, match="another tar"):
        ShardSet.open(folder).entry(0)


def test_offsets_beyond_the_tar_are_refused(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(whole, folder)
    tree = json.loads((folder / "000000.json").read_text())
    tree["samples"][0]["fields"]["jpg"] = [512, 1 << 60]
    (folder / "000000.json").write_text(json.dumps(tree))
    with pytest.raises(ShardError, match="beyond the tar"):
        ShardSet.open(folder).entry(0)


def test_wrong_questions_are_answered_in_words(whole: Path) -> None:
    shards = ShardSet.open(whole)
    with pytest.raises(ShardError, match="nobody"):
        shards.find("nobody")
    with pytest.raises(ShardError, match=r"k1_1\.gt\.png: no such field"):
        shards.read(6, "gt.png")
    with pytest.raises(ShardError, match=r"k1_1\.jpg"):
        shards.load(6, "jpg")
    with pytest.raises(IndexError):
        shards.entry(12)


def test_join_names_the_first_key_that_differs(whole: Path, tmp_path: Path) -> None:
    shards = ShardSet.open(whole)
    shards.join(ShardSet.open(whole))
    swapped = list(rows(1, 3))
    swapped[1], swapped[2] = swapped[2], swapped[1]
    reports = [
        write_shard(tmp_path / "swap", n, list(rows(n, s)) if n != 1 else swapped) for n, s in enumerate((5, 3, 4))
    ]
    write_index(tmp_path / "swap", kind="cam", classes=CLASSES, reports=reports)
    with pytest.raises(ShardError, match=r"sample 6 is k1_2, but k1_1"):
        shards.join(ShardSet.open(tmp_path / "swap"))
    write_set(tmp_path / "cut", (5, 4, 3))
    with pytest.raises(ShardError, match="12 samples"):
        shards.join(ShardSet.open(tmp_path / "cut"))


def test_shard_is_done_only_when_whole(tmp_path: Path) -> None:
    report = write_shard(tmp_path, 7, rows(7))
    assert read_report(tmp_path, 7) == report
    assert read_report(str(tmp_path), 7) == report
    tar = tmp_path / "000007.tar"
    content = tar.read_bytes()
    tar.write_bytes(content[:-512])
    assert read_report(tmp_path, 7) is None
    tar.unlink()
    assert read_report(tmp_path, 7) is None
    assert read_report(tmp_path, 8) is None


def test_rewriting_replaces_a_shard(tmp_path: Path) -> None:
    write_shard(tmp_path, 0, rows(0))
    report = write_shard(tmp_path, 0, rows(3))
    assert read_report(tmp_path, 0) == report
    assert report.samples[0].key == "k3_0"


def test_a_failing_source_leaves_nothing(tmp_path: Path) -> None:
    def broken():
        yield from rows(0, 2)
        raise OSError("camera on fire")

    with pytest.raises(OSError, match="camera"):
        write_shard(tmp_path, 0, broken())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([("a", (1, 1), {"tags": b""}), ("a", (1, 1), {"tags": b""})], "key a comes twice"),
        ([("a.b", (1, 1), {"tags": b""})], "key 'a.b'"),
        ([("a", (1, 1), {"Tags": b""})], "field 'Tags'"),
        ([("a", (1, 1), {"tags": b""}), ("b", (1, 1), {"jpg": b""})], "sample b has the fields"),
    ],
)
def test_bad_samples_are_refused(tmp_path: Path, samples: list, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        write_shard(tmp_path, 0, samples)
    assert not list(tmp_path.iterdir())


def test_a_png_may_stand_for_a_jpg_in_a_set(tmp_path: Path) -> None:
    report = write_shard(tmp_path, 0, [("a", (1, 1), {"jpg": b"1"}), ("b", (1, 1), {"png": b"22"})])
    write_index(tmp_path, kind="images", classes=CLASSES, reports=[report])
    shards = ShardSet.open(tmp_path)
    assert [shards.image(0), shards.image(1)] == [b"1", b"22"]


def test_keys_are_unique_over_the_set(tmp_path: Path) -> None:
    reports = [write_shard(tmp_path, n, [("same", (1, 1), {"tags": b"\x01"})]) for n in range(2)]
    with pytest.raises(ShardError, match="key same"):
        write_index(tmp_path, kind="images", classes=CLASSES, reports=reports)
    assert not (tmp_path / "index.json").exists()


def test_leftovers_of_killed_writers_go(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "000009.tar.tmp-123-ab").write_bytes(b"half")
    assert clean_unfinished(tmp_path) == ["000009.tar.tmp-123-ab"]
    assert len(ShardSet.open(tmp_path)) == 12


def test_no_room_for_the_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ShardError, match=r"000000\.tar: cannot be written"):
        write_shard(tmp_path / "file", 0, rows(0))


NAMES = ("IMG 001 (2).jpg", "a/x.1.jpg", "b/x.1.jpg", unicodedata.normalize("NFD", "café.jpg"), "猫.png")


@pytest.fixture(scope="module")
def sourced(tmp_path_factory) -> Path:
    """Samples k0 to k4, whose report says which files they were made from."""
    folder = tmp_path_factory.mktemp("sourced")
    samples = [(f"k{n}", (4, 4), {"tags": b"\x01\x00"}) for n in range(len(NAMES))]
    sources = {f"k{n}": SourceFile(name, 100 + n if n else None) for n, name in enumerate(NAMES)}
    report = write_shard(folder, 0, samples, sources=sources)
    write_index(folder, kind="images", classes=CLASSES, reports=[report], source_ids=(None, 3, 7))
    return folder


def test_sources_are_kept_and_no_content(sourced: Path, tmp_path: Path) -> None:
    shards = ShardSet.open(sourced)
    assert [entry.name for entry in shards.shard(0)] == list(NAMES)
    assert [entry.source_id for entry in shards.shard(0)] == [None, 101, 102, 103, 104]
    assert shards.index.source_ids == (None, 3, 7)
    plain = write_shard(tmp_path, 0, [(f"k{n}", (4, 4), {"tags": b"\x01\x00"}) for n in range(len(NAMES))])
    index = write_index(tmp_path, kind="images", classes=CLASSES, reports=[plain])
    assert index.digest == shards.digest and index.source_ids is None
    assert {"source", "source_ids"} & set((tmp_path / "000000.json").read_text().split('"')) == set()
    assert "source_ids" not in (tmp_path / "index.json").read_text()
    assert ShardSet.open(tmp_path).entry(0).name == "k0"


def test_samples_are_found_by_the_names_of_their_files(sourced: Path) -> None:
    shards = ShardSet.open(sourced)
    names = {"k1": 1, "IMG 001 (2)": 0, "IMG 001 (2).jpg": 0, "a/x.1": 1, "b/x.1.jpg": 2, "café": 3, "猫": 4}
    assert {name: shards.find(name) for name in names} == names
    with pytest.raises(ShardError, match=r"'x\.1' may be 2 samples \(a/x\.1\.jpg, b/x\.1\.jpg\); write more of it"):
        shards.find("x.1")
    with pytest.raises(ShardError, match=r"no sample 'IMG 001 \(3\)' \(did you mean 'IMG 001 \(2\)'\?\)"):
        shards.find("IMG 001 (3)")


@pytest.mark.parametrize("source", ["../a.jpg", "/a.jpg", "a\x1b.jpg", "", "a" * 2000])
def test_a_source_that_leads_outside_is_refused(sourced: Path, tmp_path: Path, source: str) -> None:
    shutil.copytree(sourced, tmp_path / "set")
    tree = json.loads((tmp_path / "set" / "000000.json").read_text())
    tree["samples"][0]["source"] = source
    (tmp_path / "set" / "000000.json").write_text(json.dumps(tree))
    with pytest.raises(ShardError, match="expected a relative path inside the folder of images"):
        ShardSet.open(tmp_path / "set").entry(0)
