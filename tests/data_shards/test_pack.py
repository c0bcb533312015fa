import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from amn_dist.errors import ConfigError, ShardError
from amn_dist.shards.format import encode
from amn_dist.shards.index import Index
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import read_report, write_index, write_shard
from data_shards.coco import pack_coco
from data_shards.pack import PACK, plan
from data_shards.scenes import draw_scene
from data_shards.source import Content, PackSource, key_of
from data_shards.synthetic import pack_synthetic
from data_shards.verify import verify

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"size": (32, 48)}


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def source(number: int, size: int) -> PackSource:
    return PackSource(f"k{number}", f"{number}.jpg", size, "", lambda: Content(b"", np.zeros(1, np.uint8)))


def test_scenes_depend_on_seed_and_number_only() -> None:
    once = draw_scene(5, seed=3, classes=6, size=(96, 160))
    again = draw_scene(5, seed=3, classes=6, size=(96, 160))
    assert np.array_equal(once.image, again.image) and np.array_equal(once.ids, again.ids)
    other = draw_scene(5, seed=4, classes=6, size=(96, 160))
    assert once.image.shape != other.image.shape or not np.array_equal(once.image, other.image)


def test_scenes_show_what_they_promise() -> None:
    for number in range(36):
        scene = draw_scene(number, seed=1, classes=6, size=(96, 160))
        assert scene.image.shape[:2] == scene.ids.shape
        assert all(96 <= side <= 160 for side in scene.ids.shape)
        present = np.unique(scene.ids)
        assert number % 6 + 1 in present and present.max() <= 6 and 0 in present
        # Objects are neither specks nor the whole picture.
        assert all(0.005 < (scene.ids == kind).mean() < 0.7 for kind in present if kind)


def test_objects_stand_out_from_what_is_around_them() -> None:
    steps = []
    for number in range(24):
        scene = draw_scene(number, seed=2, classes=6, size=(96, 160))
        image = scene.image.astype(float).mean(2)
        edge = scene.ids[:, 1:] != scene.ids[:, :-1]
        across = np.abs(np.diff(image, axis=1))
        steps.append(across[edge].mean() / across[~edge].mean())
    assert np.median(steps) > 3


def test_set_of_scenes_has_truth_and_tags_that_agree(tmp_path: Path) -> None:
    pack_synthetic(tmp_path / "out", images=30, seed=1)
    shards = ShardSet.open(tmp_path / "out")
    assert shards.classes == ("background", "disc", "box", "wedge", "ring", "star", "cross")
    assert (shards.kind, shards.fields, len(shards)) == ("images", ("gt.png", "jpg", "tags"), 30)
    for ordinal in range(30):
        entry, truth = shards.entry(ordinal), shards.load(ordinal, "gt.png")
        assert truth.shape == (entry.height, entry.width)
        present = [kind for kind in np.unique(truth) if kind]
        assert np.flatnonzero(shards.load(ordinal, "tags")).tolist() == [kind - 1 for kind in present]
    assert verify(tmp_path / "out").samples == 30


def test_content_does_not_depend_on_shard_size(tmp_path: Path) -> None:
    pack_synthetic(tmp_path / "a", images=20, shard_size=3, **SMALL)
    pack_synthetic(tmp_path / "b", images=20, shard_size=20, **SMALL)
    a, b = ShardSet.open(tmp_path / "a"), ShardSet.open(tmp_path / "b")
    assert (a.shard_sizes, b.shard_sizes) == ((3, 3, 3, 3, 3, 3, 2), (20,))
    for n in range(20):
        assert all(a.read(n, field) == b.read(n, field) for field in a.fields)


def test_same_call_is_done_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = pack_synthetic(out, images=12, **SMALL)
    stamps = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert pack_synthetic(out, images=12, **SMALL) == first
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == stamps


@pytest.mark.parametrize("change", [{"images": 13}, {"seed": 1}, {"shard_size": 5}, {"classes": 5}, {"size": (32, 49)}])
def test_other_settings_into_a_finished_set_are_refused(tmp_path: Path, change: dict) -> None:
    pack_synthetic(tmp_path, images=12, **SMALL)
    before = contents(tmp_path)
    with pytest.raises(ShardError, match="other inputs or settings"):
        pack_synthetic(tmp_path, **{"images": 12, **SMALL, **change})
    assert contents(tmp_path) == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ShardError, match=r"thesis\.txt"):
        pack_synthetic(tmp_path, images=12)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_unfinished_pack_keeps_its_shards(tmp_path: Path) -> None:
    out = tmp_path / "out"
    digest = pack_synthetic(out, images=20, shard_size=5, **SMALL).digest
    whole = contents(out)
    (out / "index.json").unlink()
    (out / "000003.json").unlink()
    (out / "000002.tar").write_bytes(b"half")
    (out / "000001.tar.tmp-1-ab").write_bytes(b"half")
    mtime_ns = (out / "000000.tar").stat().st_mtime_ns
    assert pack_synthetic(out, images=20, shard_size=5, **SMALL).digest == digest
    assert contents(out) == whole
    assert (out / "000000.tar").stat().st_mtime_ns == mtime_ns


def test_an_unfinished_pack_of_other_settings_starts_anew(tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack_synthetic(out, images=20, shard_size=5, **SMALL)
    (out / "index.json").unlink()
    pack_synthetic(out, images=9, seed=8, shard_size=5, **SMALL)
    pack_synthetic(tmp_path / "fresh", images=9, seed=8, shard_size=5, **SMALL)
    assert contents(out) == contents(tmp_path / "fresh")


def kill_after(program: str, sign: Path) -> None:
    """Kill a packing process once a file is there."""
    child = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (seen := sign.exists()) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.kill()
    _, output = child.communicate()
    assert seen and child.returncode == -signal.SIGKILL, f"{sign} {'seen' if seen else 'never seen'}: {output}"


def test_killed_pack_goes_on_to_the_same_set(tmp_path: Path) -> None:
    out, scenes = tmp_path / "out", {"images": 120, "shard_size": 4, "size": (64, 80)}
    program = f"from data_shards.synthetic import pack_synthetic as p; p({str(out)!r}, **{scenes})"
    check_a_killed_pack(program, out, partial(pack_synthetic, **scenes))


def test_killed_pack_of_coco_goes_on_to_the_same_set(coco_sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = (
        f"from data_shards.coco import pack_coco as p; p({str(coco_sample)!r}, 'train2014', {str(out)!r}, shard_size=4)"
    )
    check_a_killed_pack(program, out, partial(pack_coco, coco_sample, "train2014", shard_size=4))


def check_a_killed_pack(program: str, out: Path, pack: Callable[..., Index]) -> None:
    kill_after(program, out / "000002.json")
    assert not (out / "index.json").exists()
    done = [number for number in range(30) if read_report(out, number)]
    assert 3 <= len(done) < 25
    mtimes_ns = {number: (out / f"{number:06d}.tar").stat().st_mtime_ns for number in done}
    digest = pack(out=out).digest
    assert all((out / f"{number:06d}.tar").stat().st_mtime_ns == time_ns for number, time_ns in mtimes_ns.items())
    assert pack(out=out.with_name("whole")).digest == digest
    assert contents(out) == contents(out.with_name("whole"))


@pytest.mark.slow
def test_full_disk_is_one_line_and_leaves_nothing_that_counts(
    tmp_path: Path, small_disk: Callable[[Path, str], Path]
) -> None:
    disk = small_disk(tmp_path / "disk", "512k")
    with pytest.raises(ShardError, match=r"0000\d\d\.tar: cannot be written \(No space left on device\)"):
        pack_synthetic(disk / "out", images=120, shard_size=8)
    assert not (disk / "out" / "index.json").exists()
    assert not list((disk / "out").glob("*.tmp-*"))
    done = [number for number in range(15) if read_report(disk / "out", number)]
    assert 0 < len(done) < 15
    subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
    digest = pack_synthetic(disk / "out", images=120, shard_size=8).digest
    assert digest == pack_synthetic(tmp_path / "whole", images=120, shard_size=8).digest


def test_automatic_shard_sizes() -> None:
    sizes = {n: [len(shard) for shard in plan([source(i, 1) for i in range(n)], None)] for n in (3, 8, 200, 9000)}
    assert sizes[3] == [3]
    assert sizes[8] == [8]
    assert sizes[200] == [13] * 15 + [5]
    assert sizes[9000] == [512] * 17 + [296]


def test_a_shard_closes_at_its_bytes() -> None:
    big = [source(n, 100 * 2**20) for n in range(5)]
    assert [len(shard) for shard in plan(big, 512)] == [2, 2, 1]


@pytest.mark.parametrize(
    "change", [{"images": 0}, {"seed": -1}, {"classes": 1}, {"classes": 7}, {"size": (8, 20)}, {"shard_size": 0}]
)
def test_settings_that_cannot_be_meant(tmp_path: Path, change: dict) -> None:
    with pytest.raises(ConfigError, match="expected"):
        pack_synthetic(tmp_path / "out", **{"images": 4, **change})
    assert not (tmp_path / "out").exists()


def test_keys_of_paths() -> None:
    assert key_of("2007_000032") == "2007_000032"
    assert key_of("cats/a") == "cats_a"
    strange = ["a b", "a.b", "a_b", "-a", "é", "ö", "x" * 300, "x" * 301, "cats/.."]
    keys = [key_of(stem) for stem in strange]
    assert len(set(keys)) == len(strange)
    assert keys == [key_of(stem) for stem in strange]
    assert all(len(key) <= 200 and not key.startswith("-") and key.isascii() and "." not in key for key in keys)


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "out"
    pack_synthetic(out, images=16, shard_size=8, **SMALL)
    return out


def test_verify_counts(packed: Path) -> None:
    verified = verify(packed)
    assert (verified.samples, verified.shards, verified.decoded) == (16, 2, True)
    assert verified.bytes == sum(path.stat().st_size for path in packed.glob("*.tar"))
    assert "16 samples in 2 shards" in str(verified)


def test_verify_notices_every_flipped_bit(packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(packed, folder)
    content = bytearray((folder / "000001.tar").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "000001.tar").write_bytes(content)
    with pytest.raises(ShardError, match=r"000001\.tar: sha256"):
        verify(folder)


def test_verify_lists_all_faults(packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shutil.copytree(packed, folder)
    tree = json.loads((folder / "000000.json").read_text())
    first, second = tree["samples"][:2]
    first["height"] += 1
    second["fields"]["tags"][0] += 512
    (folder / "000000.json").write_text(json.dumps(tree))
    (folder / "000001.json").write_text("{")
    with pytest.raises(ShardError) as caught:
        verify(folder)
    for message in (f"{first['key']}.jpg: is", f"{second['key']}.tags is at", "000001.json"):
        assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def made_set(folder: Path, fields: dict[str, bytes]) -> Path:
    """A set of one sample of 2x2 pixels, as a Map would write it."""
    report = write_shard(folder, 0, [("k", (2, 2), fields)])
    write_index(folder, kind="made", classes=("background", "a"), reports=[report])
    return folder


@pytest.mark.parametrize(
    "field", ["activation.f16", "proposals.rle", "x.npy", "superpixel.u16.png", "seed.png", "tags", "gt.png", "jpg"]
)
def test_verify_decodes_every_kind_of_field(tmp_path: Path, field: str) -> None:
    with pytest.raises(ShardError, match=rf"1 faults: 000000\.tar: k\.{field}: "):
        verify(made_set(tmp_path / "set", {field: b"neither a picture nor numbers"}))


def test_verify_compares_masks_with_the_size_of_their_image(tmp_path: Path) -> None:
    fields = [encode("x.rle", np.array(numbers, np.int32)) for numbers in ([2, 2, 1, 3], [1, 4, 1, 3])]
    assert verify(made_set(tmp_path / "a", {"x.rle": fields[0]})).decoded
    with pytest.raises(ShardError, match=r"k\.x\.rle: holds masks of 4x1 pixels, the report says 2x2"):
        verify(made_set(tmp_path / "b", {"x.rle": fields[1]}))


def test_verify_names_what_it_does_not_decode(tmp_path: Path) -> None:
    sound = {"tags": b"\x01", "activation.f16": encode("activation.f16", np.ones((1, 1, 1), np.float16))}
    assert "every sample read and decoded" in str(verify(made_set(tmp_path / "a", sound)))
    verified = verify(made_set(tmp_path / "b", {**sound, "meta.json": b"{", "words": b"any"}))
    assert verified.plain == ("meta.json", "words")
    assert "every sample read; not decoded, only compared with the digest: meta.json words" in str(verified)


def test_verify_of_foreign_tars(bad: Path, tmp_path: Path) -> None:
    tars = bad / "tar"
    verified = verify(tars / "ok.tar")
    assert (verified.samples, verified.fields, verified.decoded) == (4, ("jpg", "png"), False)
    with pytest.raises(ShardError) as caught:
        verify(tars)
    bad = {path.name for path in tars.glob("*.tar")} - {"ok.tar"}
    assert bad and all(name in str(caught.value) for name in bad)
    shutil.copy(tars / "ok.tar", tmp_path / "a.tar")
    shutil.copy(tars / "ok.tar", tmp_path / "b.tar")
    with pytest.raises(ShardError, match="twice"):
        verify(tmp_path)


def test_verify_of_a_tar_with_two_spellings_of_a_name(packed: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a.jpg", "./a.jpg"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(ShardError, match=r"member './a\.jpg' has more than one spelling"):
        verify(tmp_path)
    folder = tmp_path / "set"
    shutil.copytree(packed, folder)
    respell(folder / "000000.tar")
    with pytest.raises(ShardError, match=r"000000\.tar: member './[^']*' has more than one spelling"):
        verify(folder)


def respell(path: Path) -> None:
    """Put `./` before the name of a tar's first member, whose header stays in order."""
    content = bytearray(path.read_bytes())
    info = tarfile.TarInfo.frombuf(bytes(content[:512]), "utf-8", "strict")
    info.name = f"./{info.name}"
    content[:512] = info.tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(content)


def test_shards_have_numbers_of_six_digits() -> None:
    source = PackSource("a", "a", 0, "", lambda: None)
    with pytest.raises(ConfigError, match="shard size 1: makes 1000001 shards, expected at most 1000000; enlarge it"):
        plan([source] * 1_000_001, 1)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"shards": [], "shards": []}', '{"shards": [1]}', "\xff"])
def test_a_plan_that_cannot_be_read_is_made_anew(packed: Path, tmp_path: Path, text: str) -> None:
    folder = tmp_path / "set"
    shutil.copytree(packed, folder)
    (folder / "index.json").unlink()
    (folder / PACK).write_bytes(text.encode("latin1"))
    assert pack_synthetic(folder, images=16, shard_size=8, **SMALL).digest == ShardSet.open(packed).digest


def test_verify_of_nothing(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(ShardError, match="neither"):
            verify(place)
