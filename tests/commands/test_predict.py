"""New photographs: every size, mode and orientation; what cannot be read stops nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from amn_dist.cli import app
from amn_dist.commands.predict.photographs import Predicted, predict_files, targets_of
from amn_dist.config import Config
from amn_dist.errors import ConfigError, ShardError
from amn_dist.interchange.weights import adopt_weights, untrained_network
from amn_dist.loaders import bounded
from amn_dist.loaders.bounded import working_size
from amn_dist.models.weights import save_network
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import Run
from amn_dist.shards.photographs import read_photo
from data_shards.synthetic import pack_synthetic

SMALL = {"name": "small", "stride": 8, "weights": None, "frozen_taps": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose segmentation network was taken from a file."""
    root = tmp_path_factory.mktemp("run")
    pack_synthetic(root / "data" / "train", images=4, seed=0, classes=2, shard_size=2)
    tree = {
        "name": "x",
        "method": "irn",
        "data": {"val": None},
        "segment": {"backbone": SMALL},
        "predict": {"crf": "off"},
    }
    line = Pipeline(Config.model_validate(tree), Run(root / "run"), root / "data")
    torch.manual_seed(0)
    network = untrained_network(line, line.stage("segment"))
    torch.nn.init.normal_(network.aspp.convs[0].weight, std=1.0)  # so that labels differ from place to place
    save_network(network, root / "segment.safetensors")
    adopt_weights(line, "segment", root / "segment.safetensors")
    return line.run.folder


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(
        0, 256, (max(height // 16, 1), max(width // 16, 1), 3), dtype=np.uint8
    )
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def labels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "P"
        return np.array(picture)


def made(run: Path, places: list[Path], out: Path) -> dict[str, Predicted]:
    return {done.photo.name: done for done in predict_files(run, places, out)}


def test_photographs_of_every_size_get_masks_of_theirs(run: Path, tmp_path: Path) -> None:
    sizes = {"a": (1, 1), "b": (1, 200), "c": (90, 3), "d": (17, 16), "e": (96, 130)}
    for name, size in sizes.items():
        Image.fromarray(photo(*size)).save(tmp_path / f"{name}.png")
    found = made(run, [tmp_path / f"{name}.png" for name in sizes], tmp_path / "out")
    for name, size in sizes.items():
        done = found[f"{name}.png"]
        assert done.mask == tmp_path / "out" / f"{name}.png" and not done.note
        assert labels(done.mask).shape == size
        with Image.open(tmp_path / "out" / f"{name}.overlay.jpg") as shown:
            assert shown.size == size[::-1]
    assert len(np.unique(labels(tmp_path / "out" / "e.png"))) > 1


def test_a_large_photograph_is_segmented_smaller_and_says_so(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(photo(120, 200)).save(tmp_path / "large.png")
    whole = labels(made(run, [tmp_path / "large.png"], tmp_path / "whole")["large.png"].mask)
    monkeypatch.setattr(bounded, "WORKING_VALUES", 3 * 60 * 100)
    done = made(run, [tmp_path / "large.png"], tmp_path / "small")["large.png"]
    assert "200x120 pixels, segmented at 100x60" in done.note
    assert labels(done.mask).shape == (120, 200)
    with Image.open(tmp_path / "small" / "large.overlay.jpg") as shown:
        assert shown.size == (100, 60)
    assert whole.shape == (120, 200)


@pytest.mark.parametrize("size", [(8000, 8000), (1, 16000), (8000, 4), (375, 500)])
def test_the_working_size_is_bounded_and_keeps_the_shape(size: tuple[int, int]) -> None:
    height, width = working_size(size, 21)
    assert height >= 1 and width >= 1 and height * width * 21 <= bounded.WORKING_VALUES
    if min(size) > 100:
        assert height / width == pytest.approx(size[0] / size[1], rel=0.01)
    assert working_size((375, 500), 81) == (375, 500)


def test_the_mask_lies_as_a_viewer_shows_the_photograph(run: Path, tmp_path: Path) -> None:
    pixels = photo(64, 96)
    Image.fromarray(pixels).save(tmp_path / "upright.png")
    turned = Image.fromarray(np.rot90(pixels).copy())  # a viewer turns it clockwise: orientation 6
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    found = made(run, [tmp_path / "upright.png", tmp_path / "turned.png"], tmp_path / "out")
    assert np.array_equal(labels(found["upright.png"].mask), labels(found["turned.png"].mask))


def test_every_mode_is_seen_as_a_viewer_shows_it(tmp_path: Path) -> None:
    pixels = photo(40, 50)
    picture = Image.fromarray(pixels)
    gray = np.array(picture.convert("L"))
    for name, of in {
        "palette": picture.quantize(256),
        "gray": picture.convert("L"),
        "bits": picture.convert("1"),
    }.items():
        of.save(tmp_path / f"{name}.png")
        assert read_photo(tmp_path / f"{name}.png").shape == (40, 50, 3)
    assert np.array_equal(read_photo(tmp_path / "gray.png"), np.repeat(gray[..., None], 3, 2))
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert np.array_equal(read_photo(tmp_path / "deep.png"), np.repeat(gray[..., None], 3, 2))
    picture.convert("CMYK").save(tmp_path / "print.jpg", quality=98)
    assert np.abs(read_photo(tmp_path / "print.jpg").astype(int) - pixels).mean() < 8
    holes = np.dstack([pixels, np.where(np.arange(50) < 25, 0, 255)[None].repeat(40, 0).astype(np.uint8)])
    Image.fromarray(holes).save(tmp_path / "holes.png")
    seen = read_photo(tmp_path / "holes.png")
    assert (seen[:, :25] == 255).all() and np.array_equal(seen[:, 25:], pixels[:, 25:])


def test_a_cmyk_photograph_is_no_negative(bad: Path) -> None:
    good = read_photo(bad / "base" / "JPEGImages" / "shape_01.jpg").astype(int)
    for name in ("cmyk.jpg", "exif_orientation_6.jpg", "png_named.jpg"):
        found = read_photo(bad / "images" / name)
        assert found.shape == good.shape and np.abs(found - good).mean() < 12, name


def test_bad_files_are_named_and_the_rest_is_done(run: Path, bad: Path, tmp_path: Path) -> None:
    photos = bad / "images"
    places = [photos / "truncated.jpg", photos / "zero_bytes.jpg", photos / "text_named.jpg", tmp_path / "nowhere.jpg"]
    found = made(run, [*places, photos / "gray.jpg"], tmp_path / "out")
    for place in places:
        done = found[place.name]
        assert done.mask is None and str(place) in done.note and "\n" not in done.note
    assert labels(found["gray.jpg"].mask).shape == (64, 96)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"gray.png", "gray.overlay.jpg"}


def test_the_command_ends_with_1_after_all_that_could_be_read(run: Path, bad: Path, tmp_path: Path) -> None:
    places = [str(bad / "images" / name) for name in ("text_named.jpg", "gray.jpg")]
    ended = CliRunner().invoke(app, ["predict", str(run), *places, "--out", str(tmp_path / "out")])
    assert ended.exit_code == 1 and str(tmp_path / "out" / "gray.png") in ended.stdout
    assert f"error: {places[0]}: not a readable photograph" in ended.stderr
    ended = CliRunner().invoke(app, ["predict", str(run), places[1], "--out", str(tmp_path / "out")])
    assert ended.exit_code == 0 and not ended.stderr


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    with pytest.raises(ShardError, match=r"bomb\.png: has 9000x9000 pixels"):
        read_photo(tmp_path / "bomb.png")


def test_folders_keep_their_paths_and_names_stay_apart(tmp_path: Path) -> None:
    for name in ("in/a.jpg", "in/a.png", "in/sub/a.jpg", "in/sub/notes.txt", "in/out/old.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    out = tmp_path / "in" / "out"
    found = targets_of([tmp_path / "in"], out)
    assert [target.relative_to(out).as_posix() for target in found.values()] == ["a.jpg.png", "a.png.png", "sub/a.png"]
    with pytest.raises(ConfigError, match="a second photograph for"):
        targets_of([tmp_path / "in" / "a.jpg", tmp_path / "in" / "sub" / "a.jpg"], out)
    with pytest.raises(ConfigError, match="would be overwritten"):
        targets_of([tmp_path / "in" / "a.png"], tmp_path / "in")
    with pytest.raises(ConfigError, match="holds no photographs"):
        targets_of([out], out)


def test_a_warning_of_a_library_names_the_photograph(run: Path, tmp_path: Path) -> None:
    broken = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\xff\xff\xff\x7f\x06\0\0\0"
    Image.fromarray(photo(40, 50)).save(tmp_path / "a.jpg", exif=broken)
    done = made(run, [tmp_path / "a.jpg"], tmp_path / "out")["a.jpg"]
    assert done.mask is not None and "a.jpg: Corrupt EXIF data" in done.note
