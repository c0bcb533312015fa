"""Decoding with NVIDIA DALI, on the CPU or (device="gpu") with its mixed decoder; the only place that imports it."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
import torch
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline
from PIL import Image
from torch import Tensor

from amn_dist.errors import PLACE, ShardError, printable
from amn_dist.loaders.crops import canvas_corner
from amn_dist.loaders.decoder import Encoded, check_photo, normalisation, read_label, wrong_size
from amn_dist.loaders.prefetch import map_ahead
from amn_dist.ops.normalise import is_bgr
from amn_dist.records import CropRule
from amn_dist.shards.format import BROKEN

GROUP = 8
"""Whole photos decoded in one go, at least; a pair for every thread."""

Item = TypeVar("Item")
Labelled = tuple[Encoded, np.ndarray | None]
"""A training sample and its label, cut."""
Columns = tuple[list[np.ndarray], ...]
"""A batch as DALI takes it: one list per input, one array per sample."""


@dataclass(frozen=True)
class DaliCrops:
    """CropDecoder of one DALI pipeline; no batch is larger than the first. Labels are cut outside DALI, exactly."""

    rule: CropRule
    threads: int = 2
    ahead: int = 2
    device: str = "cpu"
    raw: bool = False

    def __call__(self, batches: Iterable[Sequence[Encoded]]) -> Generator[tuple[Tensor, Tensor | None]]:
        prepare = partial(_prepare, rule=self.rule)
        with closing(map_ahead(prepare, batches, threads=self.threads, depth=1)) as prepared:
            build = partial(_crop_pipeline, self.rule, raw=self.raw, **self._settings())
            for group, (images, shapes) in _outputs(build, prepared, partial(_crop_columns, side=self.rule.size)):
                _check_shapes([sample for sample, _ in group], _host(shapes).as_array())
                labels = [label for _, label in group if label is not None]
                yield _tensor(images), torch.from_numpy(np.stack(labels)) if labels else None

    def _settings(self) -> dict[str, Any]:
        return {"threads": self.threads, "ahead": self.ahead, "device": self.device}


def dali_images(
    encoded: Iterable[tuple[str, bytes]], *, threads: int, ahead: int, device: str = "cpu"
) -> Iterator[np.ndarray]:
    """Decode (key, bytes) to uint8[H, W, 3] RGB, upright, in order."""
    build = partial(_photo_pipeline, threads=threads, ahead=ahead, device=device)
    checked = ((key, check_photo(key, content)) for key, content in encoded)
    for _, (images,) in _outputs(build, _groups(checked, max(GROUP, 2 * threads)), _photo_columns):
        host = _host(images)
        for position in range(len(host)):
            yield np.array(host[position])


def _prepare(sample: Encoded, rule: CropRule) -> Labelled:
    check_photo(sample.key, sample.image, sample.crop.size)
    return sample, read_label(sample, rule)


def _groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


def _crop_columns(group: Sequence[Labelled], side: int) -> Columns:
    """Encoded bytes, resized (h, w), flip, and the crop's place as DALI's share of the room it has, y and x."""
    crops = [sample.crop for sample, _ in group]
    positions = [
        [corner / (length - side) if length != side else 0.0 for corner, length in zip(corners, lengths, strict=True)]
        for corners, lengths in ((canvas_corner(crop, side), crop.resized) for crop in crops)
    ]
    return (
        [np.frombuffer(sample.image, np.uint8) for sample, _ in group],
        [np.array(crop.resized, np.float32) for crop in crops],
        [np.array(crop.flip, np.int32) for crop in crops],
        [np.array(y, np.float32) for y, _ in positions],
        [np.array(x, np.float32) for _, x in positions],
    )


def _photo_columns(group: Sequence[tuple[str, bytes]]) -> Columns:
    return ([np.frombuffer(content, np.uint8) for _, content in group],)


def _crop_pipeline(
    rule: CropRule, source: Iterator[Columns], *, batch: int, threads: int, ahead: int, device: str, raw: bool
) -> Pipeline:
    pipeline = _pipeline(batch, threads, ahead, device)
    with pipeline:
        encoded, size, flip, y, x = fn.external_source(source=source, num_outputs=5, batch=True)
        colour = types.DALIImageType.BGR if is_bgr(rule.colour) else types.DALIImageType.RGB
        photo = fn.decoders.image(encoded, device=_decoder(device), output_type=colour)
        resized = _resize(photo, size, rule.interpolation)
        mean, deviation = (np.zeros(3), np.ones(3)) if raw else normalisation(rule.colour)
        cut = fn.crop_mirror_normalize(
            resized,
            crop=(rule.size, rule.size),
            crop_pos_y=y,
            crop_pos_x=x,
            rounding="round",
            out_of_bounds_policy="pad",
            fill_values=[0.0, 0.0, 0.0],
            mirror=flip,
            mean=mean.tolist(),
            std=deviation.tolist(),
            dtype=types.DALIDataType.UINT8 if raw else types.DALIDataType.FLOAT,
            output_layout="CHW",
        )
        pipeline.set_outputs(cut, photo.shape())
    return pipeline


def _resize(photo: Any, size: Any, interpolation: str) -> Any:
    """Antialiased bicubic in uint8; or plain bilinear in float, as OpenCV does it for DeepLab (amn 5.3)."""
    if interpolation == "cubic":
        return fn.resize(photo, size=size, interp_type=types.DALIInterpType.INTERP_CUBIC, antialias=True)
    return fn.resize(
        photo,
        size=size,
        interp_type=types.DALIInterpType.INTERP_LINEAR,
        antialias=False,
        dtype=types.DALIDataType.FLOAT,
    )


def _photo_pipeline(source: Iterator[Columns], *, batch: int, threads: int, ahead: int, device: str) -> Pipeline:
    pipeline = _pipeline(batch, threads, ahead, device)
    with pipeline:
        (encoded,) = fn.external_source(source=source, num_outputs=1, batch=True)
        pipeline.set_outputs(fn.decoders.image(encoded, device=_decoder(device), output_type=types.DALIImageType.RGB))
    return pipeline


def _pipeline(batch: int, threads: int, ahead: int, device: str) -> Pipeline:
    return Pipeline(
        batch_size=batch,
        num_threads=threads,
        device_id=torch.cuda.current_device() if device == "gpu" else None,
        prefetch_queue_depth=ahead,
    )


def _decoder(device: str) -> str:
    return "mixed" if device == "gpu" else "cpu"


def _outputs(
    build: Callable[..., Pipeline], groups: Iterable[list[Any]], columns: Callable[[list[Any]], Columns]
) -> Iterator[tuple[list[Any], tuple[Any, ...]]]:
    """Every group with what the pipeline made of it; DALI asks for groups ahead and gives results in order."""
    iterator = iter(groups)
    first = next(iterator, None)
    if first is None:
        return
    pending: deque[list[Any]] = deque()

    def source() -> Iterator[Columns]:
        for group in chain([first], iterator):
            pending.append(group)
            yield columns(group)

    pipeline = build(source=source(), batch=len(first))
    while True:
        try:
            outputs = pipeline.run()
        except StopIteration:
            return
        except RuntimeError as error:
            raise _damage_error(pending, error) from error
        yield pending.popleft(), outputs


def _damage_error(pending: Iterable[list[Any]], error: Exception) -> ShardError:
    """DALI does not say which sample it failed on: look for it."""
    keys = []
    for key, content in (_photo(item) for group in pending for item in group):
        keys.append(key)
        try:
            with Image.open(io.BytesIO(content), formats=["JPEG", "PNG"]) as image:
                image.load()
        except BROKEN as fault:
            return ShardError(f"{key}: the photo is damaged ({printable(fault)}); pack the set again")
    named = printable(", ".join(keys), PLACE)
    return ShardError(
        f"{named}: DALI cannot decode one of these photos ({printable(error)}); set loader.name=torchvision"
    )


def _photo(item: Any) -> tuple[str, bytes]:
    sample = item[0]
    return (sample.key, sample.image) if isinstance(sample, Encoded) else item


def _check_shapes(samples: Sequence[Encoded], shapes: np.ndarray) -> None:
    for sample, shape in zip(samples, shapes, strict=True):
        if tuple(shape[:2]) != sample.crop.size:
            raise wrong_size(sample.key, shape, sample.crop.size)


def _host(batch: Any) -> Any:
    return batch.as_cpu()


def _tensor(images: Any) -> Tensor:
    """A batch of equal shapes as a tensor of its own, where DALI made it."""
    if "GPU" in type(images).__name__:
        return torch.from_dlpack(images.as_tensor()).clone()
    return torch.from_numpy(np.array(images.as_array()))
