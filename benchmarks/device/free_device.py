"""A device whose work costs nothing: what a Map's host does beside one, and only that, runs and can be measured.

Tensors lie on torch's meta device and say that they are on a GPU. The networks and what follows them there are
replaced at their border by tensors of the same shapes; what comes back are values drawn before. A copy into pinned
memory is made, because a core makes it; the copy from there to a device is not. Launching kernels is not in it either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.ops import multiscale
from amn_dist.records import IGNORE, grid_size
from amn_dist.stages import amn, classify, irn, predict, seed
from benchmarks.device.counting import Patches

DEVICE = torch.device("meta")
DRAWN = 8
"""Different values of every shape that come back."""


class FreeNetwork(nn.Module):
    """Stands for every network: gives back what it is given, or its maps."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.empty(1, device=DEVICE), requires_grad=False)
        self.backbone = SimpleNamespace(colour="imagenet", strides=(16,))

    def forward(self, x: Tensor, *conditions: Tensor, dropout: Any = False) -> Tensor:
        return x

    def maps(self, pairs: Tensor) -> Tensor:
        return pairs


@contextlib.contextmanager
def free_device() -> Iterator[None]:
    """Run Maps as beside a GPU, whose work and copies cost nothing."""
    pinned = _Pinned()
    with Patches() as patch:
        patch.setattr(Tensor, "is_cuda", property(lambda self: self.device.type == "meta"))
        patch.setattr(Tensor, "pin_memory", pinned.holding)
        patch.setattr(Tensor, "copy_", _copied(Tensor.copy_))
        patch.setattr(torch, "empty", _landing(torch.empty))
        patch.setattr(torch.cuda, "Event", lambda: SimpleNamespace(record=_nothing, synchronize=_nothing))
        patch.setattr(torch.cuda, "current_stream", _nothing)
        _replace_work(patch)
        yield


def _replace_work(patch: Patches) -> None:
    """The work of a device, between the copies to it and those back."""
    patch.setattr(multiscale, "resize_batch", lambda pixels, size: pixels)
    patch.setattr(multiscale, "input_pairs", lambda pixels, colour: pixels)
    patch.setattr(multiscale, "sum_flips", lambda maps: [maps] * len(maps))
    patch.setattr(classify, "cam_maps", lambda per_scale, present, size, *, stride: _maps(present, size))
    patch.setattr(amn, "amn_maps", lambda logits, classes, size, *, gates: _maps(classes, size))
    patch.setattr(seed, "confident_seeds", lambda images, maps, classes, **settings: [_labels(one) for one in images])
    patch.setattr(irn, "images_edge", _images_edge)
    patch.setattr(irn, "pseudo_masks", _pseudo_masks)
    patch.setattr(predict, "input_batch", lambda pixels, colour: pixels)
    patch.setattr(predict, "predictions_on_device", _predictions)


def _maps(classes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    count = len(classes)
    return _away(count, *grid_size(*size)), _away(count, *size)


def _labels(image: Tensor) -> Tensor:
    return _away(*image.shape[:2], dtype=torch.uint8)


def _images_edge(model: nn.Module, images: Sequence[np.ndarray], *, pad: int | None) -> list[Tensor]:
    return [_away(*grid_size(*pixels.shape[:2])) for pixels in irn.all_to_device(images, DEVICE)]


def _pseudo_masks(activations: Any, edges: Any, classes: Any, sizes: Any, **settings: Any) -> list[Tensor]:
    return [_away(*size, dtype=torch.uint8) for size in sizes]


def _predictions(images: Sequence[Tensor], logits: Tensor, **settings: Any) -> Iterator[tuple[str, list[Tensor]]]:
    for field in ("raw.png", "mask.png"):
        yield field, [_labels(image) for image in images]


def _away(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype, device=DEVICE)


def _nothing(*arguments: Any) -> None:
    """Wait for nothing."""


class _Pinned:
    """Pinned memory, of which torch keeps what was freed."""

    def __init__(self) -> None:
        self.buffers: dict[int, Tensor] = {}

    @property
    def holding(self) -> Callable[[Tensor], Tensor]:
        def pin(values: Tensor) -> Tensor:
            flat = values.reshape(-1).view(torch.uint8)
            if flat.numel() not in self.buffers:
                self.buffers[flat.numel()] = torch.from_numpy(np.zeros(flat.numel(), np.uint8))
            buffer = self.buffers[flat.numel()]
            np.copyto(buffer.numpy(), flat.numpy())
            return buffer.view(values.dtype).view(values.shape)

        return pin


def _copied(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Copies of the host alone; a device makes its own."""
    return lambda target, source, *options, **named: (
        target if source.device.type == "meta" else real(target, source, *options, **named)
    )


def _landing(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Where a device's results land: they lie there already."""
    turn = iter(range(2**62))

    def empty(*size: Any, pin_memory: bool = False, **options: Any) -> Tensor:
        if not pin_memory:
            return real(*size, **options)
        draw = drawn_maps if options["dtype"] == torch.float32 else drawn_labels
        return draw(tuple(size[0]), next(turn) % DRAWN)

    return empty


@cache
def drawn_maps(shape: tuple[int, int, int], draw: int) -> Tensor:
    """Activation f32[K, h, w] in [0, 1) as networks of stride 16 give it, which deflates to a third as theirs does."""
    count, height, width = shape
    random = torch.Generator().manual_seed(1000 * draw + count)
    noise = torch.randn(count, 1, height // 4 + 2, width // 4 + 2, generator=random)
    smooth = functional.avg_pool2d(noise, 5, stride=1, padding=2, count_include_pad=False)
    coarse = (smooth - 0.15).relu()
    fine = functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    return fine / (fine.amax((1, 2), keepdim=True) + 1e-5) if count else fine


@cache
def drawn_labels(shape: tuple[int, int], draw: int) -> Tensor:
    """Labels uint8[H, W] of three classes, background and undecided pixels, with borders as uneven as a CRF's.

    Their PNGs are as large as those of the published networks' seeds and masks, 3 to 7 kB (results/rehearsal.json).
    """
    random = torch.Generator().manual_seed(draw)
    smooth, rough = (
        functional.interpolate(
            torch.randn(1, 5, shape[0] // cell + 2, shape[1] // cell + 2, generator=random), size=shape, mode="bicubic"
        )[0]
        for cell in (120, 6)
    )
    names = torch.tensor([0, 1, 18, 57, IGNORE], dtype=torch.uint8)
    return names[(smooth + 0.03 * rough).argmax(0)]
