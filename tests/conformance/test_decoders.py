"""DALI and torchvision: the same crops and labels, pixels within 2/255, the same errors."""

from __future__ import annotations

import gc
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from amn_dist.config import Loader
from amn_dist.errors import ShardError
from amn_dist.loaders.crops import cut_image, cut_label, draw_crop
from amn_dist.loaders.decode import crop_decoder, decode_images
from amn_dist.loaders.decoder import Encoded, normalisation
from amn_dist.records import CropRule
from amn_dist.shards.format import encode as encode_array

RULES = {
    "classify": CropRule(size=96, long_side=(60, 140)),
    "amn": CropRule(size=96, rescale=(0.3, 1.2)),
    "segment": CropRule(size=96, scales=(0.5, 0.75, 1.5), place="corner", interpolation="linear", colour="caffe"),
}
NAMES = ("torchvision", "dali")


def loader(name: str, threads: int = 2, ahead: int = 2) -> Loader:
    return Loader(name=name, threads=threads, ahead=ahead)  # type: ignore[arg-type]


def photo(seed: int, height: int, width: int) -> Image.Image:
    """A smooth picture with some noise, as photographs are."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), 3)
    noise = random.normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8))


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def kinds() -> dict[str, bytes]:
    picture = photo(0, 60, 90)
    return {
        "jpeg": encode(picture, quality=92),
        "progressive": encode(picture, progressive=True),
        "gray": encode(picture.convert("L")),
        "cmyk": encode(picture.convert("CMYK")),
        **{f"turned{value}": encode(picture, exif=orientation(value)) for value in range(2, 9)},
        "png": encode(picture, "PNG"),
        "png_gray": encode(picture.convert("L"), "PNG"),
        "png_palette": encode(picture.convert("P"), "PNG"),
        "png_alpha": encode(picture.convert("RGBA"), "PNG"),
    }


def upright(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def training_samples(rule: CropRule, photos: dict[str, bytes], labelled: bool = True) -> list[Encoded]:
    samples = []
    for ordinal, (key, content) in enumerate(photos.items()):
        height, width = upright(content).shape[:2]
        ids = np.random.default_rng(ordinal).integers(0, 21, (height, width), dtype=np.uint8)
        crop = draw_crop(rule, height, width, seed=0, epoch=0, ordinal=ordinal)
        samples.append(Encoded(key, content, crop, encode(Image.fromarray(ids), "PNG") if labelled else None))
    return samples


def cut_all(
    name: str, rule: CropRule, batches: list[list[Encoded]], **options: int
) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    return list(crop_decoder(rule, loader=loader(name, **options))(batches))


def real_photos(folder: Path, count: int) -> dict[str, bytes]:
    paths = sorted((folder / "msrc-voc" / "JPEGImages").glob("*.jpg"))[:count]
    return {path.stem: path.read_bytes() for path in paths}


def compare(rule: CropRule, samples: list[Encoded]) -> None:
    """Both twins against each other, and torchvision's against the crop made step by step."""
    batches = [samples[:8], samples[8:13], samples[13:]] if len(samples) > 13 else [samples[:8], samples[8:]]
    deviation = torch.from_numpy(normalisation(rule.colour)[1])[:, None, None]
    for (ours, labels), (other, others) in zip(
        cut_all("torchvision", rule, batches), cut_all("dali", rule, batches), strict=True
    ):
        assert ours.shape == other.shape and ours.dtype == other.dtype == torch.float32
        assert labels is not None and others is not None and torch.equal(labels, others)
        difference = ((ours - other) * deviation).abs()
        assert difference.mean(dim=(1, 2, 3)).max() < 2
        assert difference.max() < 40
        assert torch.equal(ours == 0, other == 0) or ((ours == 0) ^ (other == 0)).float().mean() < 1e-3


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_twins_cut_the_same(rule: CropRule) -> None:
    compare(rule, training_samples(rule, {**kinds(), "large": encode(photo(3, 300, 210))}))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_twins_cut_the_same_from_real_photos(rule: CropRule, shared_data: Path) -> None:
    compare(rule, training_samples(rule, real_photos(shared_data, 12)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_crop_is_resized_normalised_flipped_and_cut(name: str, rule: CropRule) -> None:
    samples = training_samples(rule, {str(seed): encode(photo(seed, 100, 70 + 9 * seed)) for seed in range(8)})
    ((images, labels),) = cut_all(name, rule, [samples])
    assert labels is not None
    mean, deviation = normalisation(rule.colour)
    for sample, image, label in zip(samples, images.numpy(), labels.numpy(), strict=True):
        height, width = sample.crop.resized
        method = Image.Resampling.BICUBIC if rule.interpolation == "cubic" else Image.Resampling.BILINEAR
        resized = np.asarray(Image.fromarray(upright(sample.image)).resize((width, height), method))
        resized = resized[:, :, ::-1] if rule.colour == "caffe" else resized
        expected = cut_image((resized - mean) / deviation, sample.crop, rule.size).transpose(2, 0, 1)
        assert np.abs((image - expected) * deviation[:, None, None]).mean() < 2
        outside = cut_label(np.zeros(sample.crop.size, np.uint8), sample.crop, rule.size) == 255
        assert (image[:, outside] == 0).all() and (label[outside] == 255).all()
        assert (label[~outside] != 255).all()


@pytest.mark.parametrize("name", NAMES)
def test_without_labels_there_are_none(name: str) -> None:
    samples = training_samples(RULES["classify"], {"a": encode(photo(1, 40, 50))}, labelled=False)
    ((images, labels),) = cut_all(name, RULES["classify"], [samples])
    assert images.shape == (1, 3, 96, 96) and labels is None


@pytest.mark.parametrize("name", NAMES)
def test_threads_and_depth_change_nothing(name: str) -> None:
    rule = RULES["amn"]
    batches = [[sample] for sample in training_samples(rule, kinds())]
    first = cut_all(name, rule, batches, threads=1, ahead=1)
    second = cut_all(name, rule, batches, threads=4, ahead=3)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_photos_are_decoded_upright_in_order(name: str) -> None:
    images = list(decode_images(kinds().items(), loader=loader(name)))
    for (kind, content), image in zip(kinds().items(), images, strict=True):
        expected = upright(content)
        assert image.shape == expected.shape and image.dtype == np.uint8, kind
        assert np.abs(image.astype(int) - expected).mean() < 0.5, kind
        image[0, 0] = 0  # the caller owns it


@pytest.mark.parametrize("name", NAMES)
def test_no_photos_are_no_work(name: str) -> None:
    assert list(decode_images([], loader=loader(name))) == []
    assert list(crop_decoder(RULES["amn"], loader=loader(name))([])) == []


def damaged() -> dict[str, bytes]:
    jpeg, png = encode(photo(0, 60, 90)), encode(photo(0, 60, 90), "PNG")
    return {
        "truncated_jpeg": jpeg[: len(jpeg) // 2],
        "truncated_png": png[: len(png) // 2],
        "changed_png": png[:200] + bytes([png[200] ^ 1]) + png[201:],
        "text": b"<html>not found</html>",
        "empty": b"",
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", damaged())
def test_a_damaged_photo_is_named(name: str, fault: str) -> None:
    good = encode(photo(1, 60, 90))
    photos = {**{f"good{i}": good for i in range(11)}, fault: damaged()[fault], "after": good}
    with pytest.raises(ShardError, match=f"^{fault}: "):
        list(decode_images(photos.items(), loader=loader(name)))
    crop = draw_crop(RULES["amn"], 60, 90, seed=0, epoch=0, ordinal=0)
    samples = [Encoded(key, content, crop) for key, content in photos.items()]
    with pytest.raises(ShardError, match=f"^{fault}: "):
        cut_all(name, RULES["amn"], [samples[:3], samples[3:6], samples[6:9], samples[9:12], samples[12:]])


@pytest.mark.parametrize("name", NAMES)
def test_a_photo_of_another_size_is_named(name: str) -> None:
    for shape in ((60, 91), (90, 60)):
        crop = draw_crop(RULES["amn"], *shape, seed=0, epoch=0, ordinal=0)
        with pytest.raises(ShardError, match="odd: the photo has 60x90 pixels"):
            cut_all(name, RULES["amn"], [[Encoded("odd", encode(photo(0, 60, 90)), crop)]])


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_label_is_named(name: str) -> None:
    crop = draw_crop(RULES["amn"], 60, 90, seed=0, epoch=0, ordinal=0)
    colour = encode(photo(0, 60, 90), "PNG")
    small = encode(Image.new("L", (90, 59)), "PNG")
    for label, match in ((colour, "odd: the label is a 8-bit RGB PNG"), (small, "odd: the label has 59x90 pixels")):
        with pytest.raises(ShardError, match=match):
            cut_all(name, RULES["amn"], [[Encoded("odd", encode(photo(0, 60, 90)), crop, label)]])


@pytest.mark.parametrize("name", NAMES)
def test_closing_ends_the_threads(name: str) -> None:
    sample = training_samples(RULES["amn"], {"a": encode(photo(1, 40, 50))})
    threads = count_threads()

    def endless() -> Iterator[list[Encoded]]:
        while True:
            yield sample

    decoded = crop_decoder(RULES["amn"], loader=loader(name, threads=3))(endless())
    next(decoded)
    assert count_threads() > threads
    decoded.close()
    gc.collect()
    assert count_threads() <= threads
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())


def count_threads() -> int:
    """Threads of this process, DALI's own among them."""
    return len(list(Path("/proc/self/task").iterdir()))


REGIONS = CropRule(
    size=96,
    scales=(0.5, 0.75, 1.5),
    place="corner",
    interpolation="linear",
    rounding="half_up",
    label="regions",
    colour="centred",
)


def test_twins_cut_regions_of_16_bits_the_same() -> None:
    samples = []
    for ordinal, (key, content) in enumerate({**kinds(), "large": encode(photo(3, 301, 211))}.items()):
        height, width = upright(content).shape[:2]
        ids = (65_535 - np.arange(height * width)).astype(np.uint16).reshape(height, width)
        crop = draw_crop(REGIONS, height, width, seed=0, epoch=0, ordinal=ordinal)
        samples.append(Encoded(key, content, crop, encode_array("a.u16.png", ids)))
    ((ours, first),), ((other, second),) = (cut_all(name, REGIONS, [samples]) for name in NAMES)
    assert first is not None and second is not None and torch.equal(first, second)
    assert first.dtype == torch.int32 and first.max() > 2**15 and first.min() == -1
    assert (ours - other).abs().mean() < 2
    for sample, image, regions in zip(samples, ours, first, strict=True):
        (top, left), (height, width) = sample.crop.target, sample.crop.extent
        inside = torch.zeros(96, 96, dtype=torch.bool)
        inside[top : top + height, left : left + width] = True
        assert torch.equal(regions >= 0, inside) and not image[:, ~inside].any()


@pytest.mark.parametrize("name", NAMES)
def test_regions_in_8_bits_are_refused(name: str) -> None:
    crop = draw_crop(REGIONS, 60, 90, seed=0, epoch=0, ordinal=0)
    label = encode_array("a.png", np.zeros((60, 90), np.uint8))
    with pytest.raises(ShardError, match="odd: the label is a 8-bit gray PNG; expected ids in a 16-bit gray PNG"):
        cut_all(name, REGIONS, [[Encoded("odd", encode(photo(0, 60, 90)), crop, label)]])
