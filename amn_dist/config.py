"""One file is one experiment: every setting, its unit, its source. Defaults are the published VOC 2012 settings.

`amn N` is section N of docs/method.md.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from amn_dist.errors import ConfigError

Scales = tuple[float, ...]


class Strict(BaseModel):
    """A frozen section; a key nobody reads is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Backbone(Strict):
    """Feature extractor shared by name between stages, never by weights."""

    name: Literal["resnet50", "resnet101", "vgg16", "small"] = "resnet50"
    """resnet101 is the Caffe-style one of DeepLab (BGR input); small trains from scratch in minutes on a CPU."""
    stride: Literal[8, 16] = 16
    """Pixels per feature cell of the last tap. resnet50: 16; resnet101 and small: 8; vgg16: either."""
    weights: str | None = "torchvision"
    """`torchvision` (downloaded by name), a .pth or .safetensors file, or none for random initial weights."""
    frozen_taps: int = Field(default=1, ge=0, le=5)
    """Leading taps of five without gradient. CAM: 3 (conv1 to layer2), AMN: 1 (conv1), IRN: 5 (amn 2.1)."""


class FitSection(Strict):
    """What every learned stage has in common."""

    backbone: Backbone = Backbone()
    batch: int = Field(default=16, ge=1)
    """Images a step, over all processes."""
    micro_batch: int = Field(default=0, ge=0)
    """Images a process holds at once; the rest is accumulated. 0: no accumulation."""
    epochs: int = Field(default=5, ge=1)
    """Passes over the set; an incomplete last batch is dropped."""
    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps, in place of epochs."""
    crop: int = Field(default=512, ge=16)
    """Side of a training crop, pixels."""
    lr: float = Field(default=0.1, gt=0)
    """Learning rate of the backbone."""
    lr_head: float = Field(default=1.0, gt=0)
    """Learning rate of the layers that start from random weights."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """L2, coupled, on every trained parameter (norm gains included, as published)."""
    optimiser: Literal["sgd", "adam"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """SGD momentum; without effect while momentum_slip is on."""
    momentum_slip: bool = True
    """Published runs of CAM and IRN pass the weight decay where SGD expects momentum: momentum is then 1e-4, not 0.9,
    and the learning rates are tuned to that. On reproduces them; off uses `momentum` (divide the rates by about 10)."""
    schedule: Literal["poly", "constant"] = "poly"
    """poly: lr * (1 - step / steps) ** 0.9, by global step."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Optimiser steps between two checkpoints."""
    log_every: int = Field(default=10, ge=1)
    """Optimiser steps between two lines of metrics."""


class Classify(FitSection):
    """Multi-label classifier behind CAM (amn 2.2, 3.1, 4.1)."""

    backbone: Backbone = Backbone(frozen_taps=3)
    long_side: tuple[int, int] = (320, 640)
    """Range of the long side after resizing, pixels, uniform."""


class Cam(Strict):
    """Class activation maps (amn 1.2)."""

    scales: Scales = (1.0, 0.5, 1.5, 2.0)
    """Image scales; each is seen with its mirror image."""


class Seed(Strict):
    """Activation to confident labels through two CRFs (amn 1.3)."""

    foreground: float = Field(default=0.30, gt=0, lt=1)
    """Threshold above which a class is claimed."""
    background: float = Field(default=0.05, gt=0, lt=1)
    """Threshold below which background is claimed; between the two pixels are ignored."""
    crf: Literal["auto", "pydensecrf"] = "auto"
    """Backend of the dense CRF."""

    @model_validator(mode="after")
    def _ordered(self) -> Seed:
        if self.background > self.foreground:
            raise ValueError(f"background {self.background} lies above foreground {self.foreground}")
        return self


class Amn(FitSection):
    """Activation manipulation network (amn 2.3, 3.2, 4.1)."""

    backbone: Backbone = Backbone(frozen_taps=1)
    optimiser: Literal["sgd", "adam"] = "adam"
    lr: float = Field(default=5e-6, gt=0)
    lr_head: float = Field(default=1e-4, gt=0)
    schedule: Literal["poly", "constant"] = "constant"
    rescale: tuple[float, float] = (0.5, 1.5)
    """Range of the scale factor, uniform."""
    smoothing: float = Field(default=0.4, ge=0, lt=1)
    """Label smoothing of the per-pixel loss."""
    condition: bool = True
    """Label conditioning: the tags gate the features. Off leaves the per-pixel loss alone."""


class AmnMap(Strict):
    """AMN inference (amn 1.4)."""

    scales: Scales = (1.0, 0.5, 1.5, 2.0)
    dropout: bool = True
    """Published inference leaves dropout on; drawn per image key, so maps do not depend on workers."""
    seed_gate: bool = True
    """Keep raw probabilities where the first seed says background, stretch the rest (published). Off stretches all."""


class Irn(FitSection):
    """Inter-pixel relation network, edge head (amn 2.4, 3.3, 4.1)."""

    backbone: Backbone = Backbone(frozen_taps=5)
    batch: int = Field(default=32, ge=1)
    epochs: int = Field(default=3, ge=1)
    rescale: tuple[float, float] = (0.5, 1.5)
    radius: int = Field(default=10, ge=2)
    """Pairs closer than this many stride-4 cells are trained on."""
    lr_head: float = Field(default=0.1, gt=0)
    """Learning rate of the edge head (published 0.1; the backbone is frozen)."""


class Walk(Strict):
    """Edge inference and random walk (amn 1.5, 3.4)."""

    radius: int = Field(default=5, ge=2)
    beta: float = Field(default=10.0, gt=0)
    steps: int = Field(default=256, ge=1)
    background: float = Field(default=0.25, gt=0, lt=1)
    """Threshold on the walked map; COCO 0.22."""
    power: float = Field(default=1.3, gt=0)
    """The activation is raised to this before the walk: 1.3 in AMN, 1.0 in plain IRN."""
    pad: int | None = 512
    """Side the edge network's input is padded to, as on VOC; none on COCO."""


class Segment(FitSection):
    """DeepLabV2 on the pseudo-masks (amn 2.6, 3.5, 4.2)."""

    backbone: Backbone = Backbone(name="resnet101", stride=8, frozen_taps=0)
    batch: int = Field(default=10, ge=1)
    steps: int | None = Field(default=20_000, ge=1)
    crop: int = Field(default=321, ge=16)
    scales: Scales = (0.5, 0.75, 1.0, 1.25, 1.5)
    """Factors a training image is resized by, one drawn a sample."""
    lr: float = Field(default=2.5e-4, gt=0)
    lr_head: float = Field(default=2.5e-3, gt=0)
    """Head weights; head biases learn at twice this rate without decay."""
    weight_decay: float = Field(default=5e-4, ge=0)
    momentum_slip: bool = False
    schedule_every: int = Field(default=10, ge=1)
    """Steps between two changes of the poly rate."""
    loss: Literal["ce", "balanced"] = "balanced"
    """Cross-entropy over all pixels, or the mean of its foreground and background means."""
    branches: Scales = (0.5, 0.75)
    """Scales seen beside the full image; their maximum is a fourth output. Empty: one branch only."""


class Predict(Strict):
    """Segmentation of the validation images, raw and after the test-time CRF (amn 4.2, 6)."""

    crf: Literal["auto", "pydensecrf", "off"] = "auto"
    wrap_image: bool = False
    """Published test code hands the CRF a mean-subtracted image whose negative values wrap; on reproduces it."""


class Score(Strict):
    """IoU in the VOC protocol (amn 1.6)."""

    threshold: float = Field(default=0.25, gt=0, lt=1)
    """Default background threshold at which activation maps are compared."""


class Data(Strict):
    """Shard sets to learn from and to predict on."""

    train: str = "train"
    """Folder or URL of the training set; relative to --data (or to the working directory without it)."""
    val: str | None = "val"
    """Set that predict and score use; none leaves prediction out."""


class Engine(Strict):
    """Who steps the optimiser."""

    name: Literal["deepspeed", "torch"] = "deepspeed"
    processes: int = Field(default=1, ge=1)
    """Training processes, over all machines; the most there are when some are lost."""
    min_processes: int = Field(default=1, ge=1)
    """Fewest processes a Fit goes on with after machines are lost."""
    launcher: Literal["ray", "torchrun"] = "ray"
    """Who starts more than one process: Ray Train in the cluster of the farm, or torchrun on this machine."""
    retries: int = Field(default=3, ge=0)
    """Times in a row the processes are started again after some died, without a new checkpoint in between."""
    rejoin_s: float = Field(default=60, ge=0)
    """Seconds that lost machines get to come back before a Fit goes on without them."""
    timeout_s: float = Field(default=600, gt=0)
    """Seconds a process waits for the others before it gives up."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 autocast where the device computes it natively, else fp32."""
    zero: Literal[0, 1, 2] = 0
    """ZeRO stage of DeepSpeed."""


class Farm(Strict):
    """Who runs a Map over shards."""

    name: Literal["ray", "local"] = "ray"
    workers: int = Field(default=0, ge=0)
    """Workers; 0: as many as there are cores (Ray: in the cluster)."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of a worker."""
    retries: int = Field(default=3, ge=0)
    """Times a shard is tried again after its worker or node died."""


class Loader(Strict):
    """Who decodes and crops."""

    name: Literal["dali", "torchvision"] = "dali"
    threads: int = Field(default=2, ge=1)
    ahead: int = Field(default=2, ge=1)
    """Batches prepared ahead of the network."""


class Config(Strict):
    """One experiment."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the run's folder under runs/."""
    method: Literal["irn", "amn"] = "amn"
    """irn: CAM seeds into IRN (the baseline). amn: CAM seeds train AMN, AMN's seeds go into IRN."""
    seed: int = Field(default=0, ge=0)
    """Initial weights, sample order, crops and dropout follow from it."""
    weights: str = "weights"
    """Folder that relative weight files of the backbones lie in."""
    data: Data = Data()
    classify: Classify = Classify()
    cam: Cam = Cam()
    cam_seed: Seed = Seed()
    amn: Amn = Amn()
    amn_map: AmnMap = AmnMap()
    amn_seed: Seed = Seed(foreground=0.45, background=0.15)
    irn: Irn = Irn()
    walk: Walk = Walk()
    segment: Segment = Segment()
    predict: Predict = Predict()
    score: Score = Score()
    engine: Engine = Engine()
    farm: Farm = Farm()
    loader: Loader = Loader()

    def initial_weights(self, backbone: Backbone) -> str | None:
        """Where a backbone's initial weights come from: `torchvision`, a path, or none."""
        if backbone.weights in (None, "torchvision"):
            return backbone.weights
        return str(Path(self.weights) / str(backbone.weights))


def load_config(path: str | os.PathLike[str], settings: tuple[str, ...] = ()) -> Config:
    """Read a YAML file, apply `section.key=value` settings, check everything.

    Raises ConfigError naming file, key, what was found and what was expected.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as a configuration ({error})") from error
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not plain YAML ({' '.join(str(error).split())})") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: found {type(tree).__name__}, expected sections such as `name:` and `method:`")
    tree = _unshared(tree)
    for setting in settings:
        _apply(tree, setting)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{file}: {_explain(error)}") from error


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that load_config reads back unchanged."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _unshared(node: Any) -> Any:
    """A copy in which no two sections are one object, as YAML anchors make them."""
    if isinstance(node, dict):
        return {key: _unshared(value) for key, value in node.items()}
    return [_unshared(value) for value in node] if isinstance(node, list) else node


def _apply(tree: dict[str, Any], setting: str) -> None:
    path, equals, value = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {setting}: expected section.key=value, for example classify.epochs=8")
    node = tree
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {setting}: {key} is a value, not a section")
    try:
        node[keys[-1]] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: the value is not plain YAML") from error


def _explain(error: ValidationError) -> str:
    faults = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            faults.append(f"unknown key {key}{_nearest(fault['loc'])}")
        elif fault["type"] == "missing":
            faults.append(f"{key} is missing")
        else:
            found = repr(fault["input"])
            found = found if len(found) <= 80 else found[:77] + "..."
            faults.append(f"{key or 'configuration'}: found {found}, {fault['msg'][0].lower()}{fault['msg'][1:]}")
    return "; ".join(faults)


def _nearest(loc: tuple[int | str, ...]) -> str:
    section: Any = Config
    for part in loc[:-1]:
        annotation = section.model_fields[str(part)].annotation
        section = next((a for a in get_args(annotation) if isinstance(a, type)), annotation)
    names = list(section.model_fields)
    near = difflib.get_close_matches(str(loc[-1]), names, n=1)
    return f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(names)})"
