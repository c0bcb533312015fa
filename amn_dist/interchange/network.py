"""The segmentation network for programs without this package: as ONNX, or as a program of torch.export."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional

from amn_dist.errors import ConfigError, StageError, quoted
from amn_dist.models.backbones.backbone import Backbone
from amn_dist.models.deeplab import DeepLab, segment_network
from amn_dist.models.weights import load_network
from amn_dist.ops.normalise import COLOURS, is_bgr
from amn_dist.runs.pipeline import Pipeline
from amn_dist.storage.atomic import commit

PACKAGES = ("onnx", "onnxscript")
"""What torch writes ONNX with; the extra `onnx` of this package."""
INPUT, OUTPUT, CLASSES = "image", "probabilities", "classes"
"""Names in the file: what goes in, what comes out, the class names as JSON."""
SMALLEST = 64
"""Pixels a side of the smallest image: the smallest branch of the network then has more than one cell."""
EXAMPLE = (2, 97, 131, 3)
"""Shape of the image that is followed through the network; no other depends on it."""


class StraightBackbone(nn.Module):
    """The layers of a backbone in order, without its switch of gradients: f32[B, 3, H, W] to its last tap alone."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(backbone.features[name] for span in backbone.spans for name in span))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.layers(x),)


class PortableNetwork(nn.Module):
    """A segmentation network from photographs to probabilities: what it is fed is part of it."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: DeepLab) -> None:
        super().__init__()
        colour = network.backbone.colour
        mean, deviation = (torch.from_numpy(values.astype("float32")) for values in COLOURS[colour])
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.is_bgr = is_bgr(colour)
        network.backbone = StraightBackbone(network.backbone)  # type: ignore[assignment]
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """RGB uint8[B, H, W, 3], upright, to class probabilities f32[B, C, H, W]."""
        pixels = image.float()
        pixels = ((pixels.flip(-1) if self.is_bgr else pixels) - self.mean) / self.deviation
        logits = self.network(pixels.permute(0, 3, 1, 2).contiguous())
        fine = functional.interpolate(logits, size=image.shape[1:3], mode="bilinear", align_corners=False)
        return fine.softmax(1)


def export_network(pipeline: Pipeline, out: Path) -> None:
    """Write a run's segmentation network as .onnx or .pt2, for any number of images of any size from SMALLEST on.

    Raises ConfigError for another ending, and where ONNX lacks a package; StageError before the network is trained.
    """
    if out.suffix not in (".onnx", ".pt2"):
        raise ConfigError(f"{out}: found the ending {quoted(out.suffix)}, expected .onnx or .pt2")
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if out.suffix == ".onnx" and missing:
        raise ConfigError(
            f"{out}: ONNX needs the packages {', '.join(missing)}, which are not installed; install amn-dist[onnx], or "
            "write a .pt2"
        )
    stage = pipeline.stage("segment")
    weights = pipeline.run.checkpoint(stage.name)
    if not pipeline.run.is_done(stage):
        raise StageError(f"{weights}: not there yet; finish the run with `amn run` first")
    network = segment_network(pipeline.config, pipeline.num_classes)
    program = traced(load_network(network, str(weights)))
    commit(out, (onnx_of if out.suffix == ".onnx" else pt2_of)(program, pipeline.classes))


def traced(network: DeepLab) -> ExportedProgram:
    """A network as a program of torch.export; it can no longer be trained or saved."""
    portable = PortableNetwork(network).eval().requires_grad_(False)
    shapes = {axis: Dim.DYNAMIC for axis in range(3)}
    return torch.export.export(portable, (torch.zeros(EXAMPLE, dtype=torch.uint8),), dynamic_shapes=(shapes,))


def pt2_of(program: ExportedProgram, classes: Sequence[str]) -> bytes:
    """The file that torch.export.load reads; `classes` among its extra files."""
    stream = io.BytesIO()
    torch.export.save(program, stream, extra_files={CLASSES: json.dumps(list(classes))})
    return stream.getvalue()


def onnx_of(program: ExportedProgram, classes: Sequence[str]) -> bytes:
    """The file that ONNX runtimes read; `classes` among its metadata."""
    portable = torch.onnx.export(program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False)
    assert portable is not None
    portable.model.metadata_props[CLASSES] = json.dumps(list(classes))
    return portable.model_proto.SerializeToString()
