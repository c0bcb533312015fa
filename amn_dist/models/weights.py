"""Weights in and out of networks: pretrained backbones, and our own safetensors files. No pickle runs code."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from zipfile import is_zipfile

import numpy
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor, nn

from amn_dist.errors import ConfigError, printable, quoted
from amn_dist.models.backbones.architectures import ARCHITECTURES
from amn_dist.models.backbones.backbone import Backbone
from amn_dist.storage.atomic import atomic_file
from amn_dist.storage.paths import RemotePath, path_of

Network = TypeVar("Network", bound=nn.Module)

HEAD = re.compile(r"(base\.)?(fc|classifier|aspp)\.")
"""Layers of full models that no backbone has."""

FORBIDDEN = re.compile(r"Unsupported global: GLOBAL (\S+)")
"""Where torch's reader says which name in a pickle it would not touch."""

ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".pth.tar")
"""Of files with weights; all but the first are pickles."""
WRAPPERS = ("state_dict", "model", "model_state_dict", "network", "ema", "weights")
"""Keys under which training programs keep the weights beside other things."""
PREFIXES = ("module.", "model.", "net.", "network.", "_orig_mod.")
"""What saving a network inside another (DataParallel, Lightning, torch.compile) puts before every name."""
SCALAR = numpy.float64(0).__reduce__()[0]
NUMBERS: list[Any] = [
    *((SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    numpy.dtype,
    *(type(numpy.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")),
]
"""What a NumPy scalar is pickled with: types of numbers, and the function that makes one of bytes, as NumPy 1 and 2
call it."""

COUNTER = "num_batches_tracked"
"""A buffer of ordinary batch norm that fixed statistics have no use for."""

LISTED = 4
"""Names an error message spells out."""


def load_backbone_weights(backbone: Backbone, weights: str | None) -> None:
    """Fill a backbone in place; None leaves its random weights.

    weights: `torchvision`, or a .pth, .pt or .safetensors file of a full torchvision model, of its convolutions, or
    (resnet101) of deeplab-pytorch's names. Heads are left out; half precision is widened.
    Raises ConfigError naming the file and the names that are missing, unknown or misshapen.
    """
    if weights is None:
        return
    tensors = torchvision_weights(backbone.name) if weights == "torchvision" else read_tensors(weights)
    fill(backbone.features, backbone_layers(tensors), where=f"{weights} (for {backbone.name})")


def backbone_layers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model that belong to its backbone, by a backbone's names."""
    return {
        re.sub(r"^(features|base)\.", "", name): tensor
        for name, tensor in tensors.items()
        if not HEAD.match(name) and not name.endswith(COUNTER)
    }


def read_tensors(path: str | os.PathLike[str] | RemotePath, *, shapes_only: bool = False) -> dict[str, Tensor]:
    """Tensors of a file of weights (ENDINGS) by name, on the CPU; a pickle may hold nothing but tensors. Behind a URL
    a .safetensors.

    shapes_only: of a .safetensors on this machine the header alone is read, and tensors lie on torch's meta device.
    """
    file = path_of(path)
    if isinstance(file, RemotePath):
        return _fetched(file)
    if not file.name.endswith(ENDINGS):
        raise ConfigError(f"{file}: found the ending {quoted(file.suffix)}, expected weights as {', '.join(ENDINGS)}")
    try:
        with file.open("rb"):  # safetensors would call a file that may not be read one that is not there
            pass
        if file.suffix == ".safetensors":
            tensors: object = _shapes(file) if shapes_only else load_file(file)
        else:
            tensors = _unpickled(file, mapped=shapes_only and is_zipfile(file))
    except Exception as error:  # readers of foreign files raise whatever a broken one makes them stumble over
        named = FORBIDDEN.search(str(error))
        reason = printable(error) if named is None else _foreign(printable(named[1]))
        raise ConfigError(f"{file}: cannot be read as weights, expected tensors by name ({reason})") from error
    return unwrapped(tensors, where=str(file))


def unwrapped(tree: object, *, where: str) -> dict[str, Tensor]:
    """The tensors by name in a checkpoint: it itself, or what lies under one of WRAPPERS beside other things.

    What a network around the network (PREFIXES) puts before every name is left out. Raises ConfigError for anything
    else, saying what was found.
    """
    inner = [tree[key] for key in WRAPPERS if key in tree and _are_tensors(tree[key])] if isinstance(tree, dict) else []
    tensors = inner[0] if len(inner) == 1 and not _are_tensors(tree) else tree
    if not _are_tensors(tensors) and tensors != {}:
        found = listed_keys(tree) if isinstance(tree, dict) else f"a {printable(type(tree).__name__)}"
        raise ConfigError(
            f"{where}: found something else than tensors by name ({found}); save the network's state_dict alone, as by "
            "torch.save(network.state_dict(), FILE)"
        )
    assert isinstance(tensors, dict)
    while prefix := next((p for p in PREFIXES if tensors and all(str(name).startswith(p) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def listed_keys(tree: Mapping[object, object]) -> str:
    """The keys of a checkpoint, in words."""
    return f"the keys {_some(str(key) for key in tree)}"


def _are_tensors(tree: object) -> bool:
    """Whether something is a non-empty dictionary of tensors by name."""
    return isinstance(tree, dict) and bool(tree) and all(isinstance(value, Tensor) for value in tree.values())


def _shapes(file: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors without values; the reader compares the size of the file with its header."""
    with safe_open(file, "pt") as header:  # values are mapped, and read by nobody
        return {name: header.get_tensor(name).to("meta") for name in header.keys()}  # noqa: SIM118


def _unpickled(file: Path, *, mapped: bool = False) -> object:
    """A pickle's content; NumPy's scalars and plain arrays may stand beside tensors, and nothing else is called.

    mapped: values are read when they are looked at.
    """
    with torch.serialization.safe_globals(NUMBERS):
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)


def _foreign(name: str) -> str:
    """What is to be said of a pickle that names something that is no tensor."""
    return f"it names {name}; nothing of it was run; load it where it was made and save the state_dict alone"


def _fetched(file: RemotePath) -> dict[str, Tensor]:
    try:
        return load(b"".join(file.pieces(file.size())))
    except (FileNotFoundError, SafetensorError) as error:
        raise ConfigError(f"{file}: cannot be read as weights, expected a .safetensors ({printable(error)})") from error


def fill(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Copy tensors into a module whose names and shapes must agree exactly. Raises ConfigError naming the odd ones."""
    check_fit(module.state_dict(), tensors, where=where)
    module.load_state_dict(dict(tensors))


def check_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], *, where: str) -> None:
    """Raise ConfigError unless both hold the same names with the same shapes and kinds of finite numbers."""
    faults = {
        "missing": expected.keys() - found.keys(),
        "unknown": found.keys() - expected.keys(),
        "misshapen": [
            f"{printable(name)} {list(found[name].shape)} instead of {list(tensor.shape)}"
            for name, tensor in expected.items()
            if name in found and found[name].shape != tensor.shape
        ],
        "of another kind": [
            f"{name} {found[name].dtype} instead of {tensor.dtype}"
            for name, tensor in expected.items()
            if name in found and _kind(found[name]) != _kind(tensor)
        ],
        "not finite": [name for name, tensor in found.items() if tensor.is_floating_point() and not _is_finite(tensor)],
    }
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {_some(names)}" for kind, names in faults.items() if names)
        raise ConfigError(f"{where}: the weights do not fit; {listed}; give the weights of this very architecture")


def _is_finite(tensor: Tensor) -> bool:
    return tensor.is_meta or bool(tensor.float().isfinite().all())


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex()


def save_network(network: nn.Module, path: str | os.PathLike[str] | RemotePath) -> None:
    """Write a network's parameters and buffers as safetensors; the file appears whole or not at all."""
    file = path_of(path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if isinstance(file, RemotePath):
        return file.write_bytes(save(tensors))
    with atomic_file(file) as temporary:
        save_file(tensors, temporary)


def load_network(network: Network, path: str | os.PathLike[str]) -> Network:
    """Fill a network from a file of save_network, names and shapes exact, and return it."""
    fill(network, read_tensors(path), where=str(path))
    return network


def torchvision_cache(name: str) -> Path:
    """Where torchvision keeps its weights for a backbone once they are downloaded. Raises ConfigError for one that it
    has none for."""
    return Path(torch.hub.get_dir()) / "checkpoints" / _torchvision_names(name)[1]


def torchvision_weights(name: str) -> dict[str, Tensor]:
    """Torchvision's ImageNet weights for a backbone, downloaded where they are not on this machine."""
    published, _ = _torchvision_names(name)
    import torchvision  # five seconds of imports that only this needs

    try:
        weights = torchvision.models.get_weight(f"{published}.IMAGENET1K_V1")
        return dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except Exception as error:  # no network, a broken file in the cache, a changed hash
        raise ConfigError(
            f"backbone.weights: torchvision's weights for {name} could not be had ({printable(error)}); "
            f"download them elsewhere and give the path"
        ) from error


def _torchvision_names(name: str) -> tuple[str, str]:
    known = ARCHITECTURES[name].torchvision
    if known is None:
        raise ConfigError(
            f"backbone.weights: torchvision has no weights for {name}; give a .pth or .safetensors path, or none"
        )
    return known


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - LISTED} more" if len(ordered) > LISTED else ""
    return ", ".join(printable(name) for name in ordered[:LISTED]) + more
