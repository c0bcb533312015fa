"""One file is one experiment: every setting, its unit, its source. Defaults are the published VOC 2012 settings.

`amn N` and `icd N` are sections of docs/method.md.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from amn_dist.documents import LONGEST, read_yaml, write_yaml
from amn_dist.errors import ConfigError, listed, printable, quoted

FAULTS = 8
"""Wrong keys an error message spells out."""
SIDE = 16384
"""Pixels of a side at most, as of any picture that is decoded (shards/format.py)."""
WEEK_S = 7 * 86_400
"""Seconds of any waiting at most."""


def _off(value: Any) -> Any:
    """YAML reads a bare `off` as false."""
    return "off" if value is False else value


def _auto(value: Any) -> Any:
    """A number whose 0 stands for what the machine has."""
    return 0 if value == "auto" else value


def _listed(value: Any) -> Any:
    """YAML knows lists alone."""
    return tuple(value) if isinstance(value, list) else value


def _whole(value: Any) -> Any:
    """Literal takes true for 1 and 8.0 for 8, as Python's == does."""
    if type(value) is not int:
        raise ValueError("expected a whole number")
    return value


def _in_order(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"expected the lower bound first, as in [{bounds[1]}, {bounds[0]}]")
    return bounds


def _some(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values:
        raise ValueError("expected at least one")
    return values


Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Side = Annotated[int, Field(ge=16, le=SIDE)]
"""Pixels."""
Rate = Annotated[float, Field(gt=0, le=1000)]
"""A learning rate."""
Share = Annotated[float, Field(gt=0, lt=1)]
Scale = Annotated[float, Field(gt=0, le=16)]
AnyScales = Annotated[tuple[Scale, ...], Field(max_length=16), BeforeValidator(_listed)]
Scales = Annotated[AnyScales, AfterValidator(_some)]
Rescale = Annotated[tuple[Scale, Scale], BeforeValidator(_listed), AfterValidator(_in_order)]
"""Range of a scale factor."""
Place = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A path or URL."""


class Strict(BaseModel):
    """A frozen section; a key nobody reads is an error, and no value is converted but whole numbers to others."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        strict=True,
        allow_inf_nan=False,
        str_max_length=1024,
    )


class BackboneSection(Strict):
    """Feature extractor shared by name between stages, never by weights."""

    name: Literal["resnet50", "resnet101", "vgg16", "vgg16_deeplab", "small"] = "resnet50"
    """resnet101 is the Caffe-style one of DeepLab (BGR input); vgg16_deeplab has DeepLab's 3x3 pools (icd 4.1); small
    trains from scratch in minutes on a CPU."""
    stride: Annotated[Literal[8, 16], BeforeValidator(_whole)] = 16
    """Pixels per feature cell of the last tap. resnet50: 16; resnet101, vgg16_deeplab and small: 8; vgg16: either."""
    weights: Place | None = "torchvision"
    """`torchvision` (downloaded by name), a .pth or .safetensors file, or none for random initial weights."""
    frozen_taps: int = Field(default=1, ge=0, le=5)
    """Leading taps of five without gradient. CAM: 3 (conv1 to layer2), AMN: 1 (conv1), IRN: 5 (amn 2.1)."""


class FitSection(Strict):
    """What every learned stage has in common."""

    ARCHITECTURE: ClassVar[tuple[str, ...]] = ("backbone",)
    """Settings that say what the network is: weights fit where they are equal."""

    backbone: BackboneSection = BackboneSection()
    batch: Count = 16
    """Images a step, over all processes."""
    micro_batch: int = Field(default=0, ge=0, le=2**31 - 1)
    """Images a process holds at once; the rest is accumulated. 0: no accumulation."""
    epochs: Count = 5
    """Passes over the set; an incomplete last batch is dropped."""
    steps: Count | None = None
    """Optimiser steps, in place of epochs."""
    crop: Side = 512
    """Side of a training crop, pixels."""
    lr: Rate = 0.1
    """Learning rate of the backbone."""
    lr_head: Rate = 1.0
    """Learning rate of the layers that start from random weights."""
    weight_decay: float = Field(default=1e-4, ge=0, lt=1)
    """L2, coupled, on every trained parameter (norm gains included, as published)."""
    optimiser: Literal["sgd", "adam"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """SGD momentum; without effect while momentum_slip is on."""
    momentum_slip: bool = True
    """Published runs of CAM and IRN pass the weight decay where SGD expects momentum: momentum is then 1e-4, not 0.9,
    and the learning rates are tuned to that. On reproduces them; off uses `momentum` (divide the rates by about 10)."""
    schedule: Literal["poly", "poly_epoch", "constant"] = "poly"
    """poly: lr * (1 - step / steps) ** 0.9, by global step; poly_epoch: the same, changed once an epoch."""
    checkpoint_every: Count = 200
    """Optimiser steps between two checkpoints."""
    log_every: Count = 10
    """Optimiser steps between two lines of metrics."""

    @model_validator(mode="before")
    @classmethod
    def _in_part(cls, tree: Any) -> Any:
        """What is not said of the backbone is as this stage has it: all, or of another architecture the frozen taps."""
        given = tree.get("backbone") if isinstance(tree, dict) else None
        if not isinstance(given, dict):
            return tree
        usual = cls.model_fields["backbone"].default
        inherited = {} if given.get("name", usual.name) != usual.name else usual.model_dump()
        return {**tree, "backbone": {**inherited, "frozen_taps": usual.frozen_taps, **given}}


class Classify(FitSection):
    """Multi-label classifier behind CAM (amn 2.2, 3.1, 4.1)."""

    backbone: BackboneSection = BackboneSection(frozen_taps=3)
    long_side: Annotated[tuple[Side, Side], BeforeValidator(_listed), AfterValidator(_in_order)] = (320, 640)
    """Range of the long side after resizing, pixels, uniform."""


class Infer(Strict):
    """How cam, amn_map, walk and predict run their networks."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the backbone; heads and merging stay in fp32. auto: bf16 where the device computes it natively, else fp32."""
    batch_pixels: int = Field(default=0, ge=0, le=2**40)
    """Pixels of resized images in one forward pass, mirror images not counted; only images of one size go together.
    Results move by rounding alone: libraries choose an algorithm by the size of a batch. 0: 8 Mpx on an accelerator,
    one image at a time on a CPU, where batches do not pay."""


class Cam(Strict):
    """Class activation maps (amn 1.2)."""

    scales: Scales = (1.0, 0.5, 1.5, 2.0)
    """Image scales; each is seen with its mirror image."""


class Seed(Strict):
    """Activation to confident labels through two CRFs (amn 1.3)."""

    foreground: Share = 0.30
    """Threshold above which a class is claimed."""
    background: Share = 0.05
    """Threshold below which background is claimed; between the two pixels are ignored."""
    crf: Literal["auto", "cpu", "gpu", "pydensecrf"] = "auto"
    """Backend of the dense CRF. auto: gpu, beside the network, where the farm has one; else cpu."""

    @model_validator(mode="after")
    def _ordered(self) -> Seed:
        if self.background > self.foreground:
            raise ValueError(f"background {self.background} lies above foreground {self.foreground}")
        return self


Words = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Part of a prompt."""
Phrases = Annotated[tuple[Words, ...], Field(max_length=1024), BeforeValidator(_listed)]


def _with_a_gap(templates: tuple[str, ...]) -> tuple[str, ...]:
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError("expected {} once in each, where the name of a class goes")
    return _some(templates)  # type: ignore[arg-type, return-value]


class ClipMapSection(Strict):
    """Activation maps of a frozen CLIP, without training (clip 2 to 5)."""

    weights: Place = "ViT-B-16.pt"
    """Weights of CLIP with a vision transformer, in the folder `weights`: OpenAI's archive, or .safetensors, .pt or
    .pth with the names of OpenAI, open_clip or Hugging Face (clip 7)."""
    vocabulary: Place = "bpe_simple_vocab_16e6.txt.gz"
    """OpenAI's file of byte pairs, in the same folder."""
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    """Of the MLPs: quick_gelu in OpenAI's weights and those trained like them, gelu in most others of open_clip."""
    templates: Annotated[Phrases, AfterValidator(_with_a_gap)] = ("a clean origami {}.",)
    """Sentences that words are put into; features of several are averaged."""
    names: dict[str, Words] = {}
    """Words for classes in the place of their names, synonyms included: `bird: bird avian`."""
    background: Phrases = (
        *("ground", "land", "grass", "tree", "building", "wall", "sky", "lake", "water", "river", "sea", "railway"),
        *("railroad", "keyboard", "helmet", "cloud", "house", "mountain", "ocean", "road", "rock", "street", "valley"),
        *("bridge", "sign"),
    )
    """Words that compete with the tags of an image. Published: these on VOC, without keyboard and sign on COCO."""
    box: float = Field(default=0.4, ge=0, lt=1)
    """Share of its peak above which a map is strong; boxes around strong parts are sources of refinement. COCO 0.7."""
    cut_boxes: bool = True
    """Published boxes end before the last row and column of patches, and tags that live there vanish. Off mends it."""
    attention_blocks: int = Field(default=8, ge=1, le=256)
    """Last blocks whose attention is averaged."""
    sinkhorn: int = Field(default=3, ge=1, le=1000)
    """Rounds in which columns, then rows, of the attention are made to sum to one."""
    scale_free: bool = False
    """Leave the probability of a tag out of its gradient, so that one of next to none (1e-9) keeps its map. Off as
    published."""
    half_weights: bool = True
    """Round linear layers to float16, as the published code does with any file on any device."""
    half_position: bool = True
    """Round the resized position table to float16, as published."""
    precision: Literal["auto", "fp32", "fp16"] = "auto"
    """Factors of products in all blocks but the last, which is fp32. auto: fp16 on a GPU, fp32 on a CPU. Published:
    everything in fp16. bf16 is too coarse here."""


class ClipSeed(Strict):
    """Maps of CLIP to labels: one CRF, and 255 where it is not sure (clip 6)."""

    confidence: float = Field(default=0.95, ge=0, le=1)
    """Least marginal of a label that is decided."""
    half: bool = True
    """Maps and energies in float16, as published."""
    wrap_image: bool = True
    """Published code hands the CRF a mean-subtracted image whose negative values wrap; off hands it the photograph."""
    crf: Annotated[Literal["auto", "cpu", "gpu", "pydensecrf", "off"], BeforeValidator(_off)] = "auto"
    """Backend of the dense CRF, as of other seeds. Off takes the largest map, or background where all are below 1/2,
    and leaves nothing undecided."""


class Refine(Strict):
    """Activation maps of another method, in the place of classify and cam."""

    maps: Place | None = None
    """Shard set with `activation.f16` over the training set, of `amn import maps` or a stage of another run: folder or
    URL, relative to --data. Its content, not its place, decides what may be reused."""


class Amn(FitSection):
    """Activation manipulation network (amn 2.3, 3.2, 4.1)."""

    ARCHITECTURE = ("backbone", "condition")
    backbone: BackboneSection = BackboneSection(frozen_taps=1)
    optimiser: Literal["sgd", "adam"] = "adam"
    lr: Rate = 5e-6
    lr_head: Rate = 1e-4
    schedule: Literal["poly", "poly_epoch", "constant"] = "constant"
    rescale: Rescale = (0.5, 1.5)
    """Range of the scale factor, uniform."""
    smoothing: float = Field(default=0.4, ge=0, lt=1)
    """Label smoothing of the per-pixel loss."""
    condition: bool = True
    """Label conditioning: the tags gate the features. Off leaves the per-pixel loss alone."""


class AmnMapSection(Strict):
    """AMN inference (amn 1.4)."""

    scales: Scales = (1.0, 0.5, 1.5, 2.0)
    dropout: bool = True
    """Published inference leaves dropout on; drawn per image key, so maps do not depend on workers."""
    seed_gate: bool = True
    """Keep raw probabilities where the first seed says background, stretch the rest (published). Off stretches all."""


class Superpixel(Strict):
    """Graph-based superpixels of every photograph (icd 2)."""

    scale: float = Field(default=75.0, gt=0, le=1e6)
    """Larger means larger regions; on colours 0..255."""
    sigma: float = Field(default=0.8, ge=0, le=100)
    """Deviation of the blur before segmentation, pixels."""
    min_size: Count = 75
    """Pixels below which a region joins a neighbour."""


class Discriminate(FitSection):
    """Intra-class discriminator: classifier, directions and top-down head, trained together (icd 4)."""

    ARCHITECTURE = ("backbone", "cam_head", "width", "colour")
    backbone: BackboneSection = BackboneSection(name="vgg16_deeplab", stride=8, frozen_taps=0)
    batch: Count = 32
    epochs: Count = 20
    crop: Side = 321
    """Side of a training crop, pixels; one more than a multiple of the stride lets superpixels be sampled exactly."""
    scales: Scales = (0.5, 0.75, 1.0, 1.25, 1.5)
    """Factors a training image is resized by, one drawn a sample."""
    lr: Rate = 1e-3
    lr_hidden: Rate = 1e-3
    """Learning rate of hidden layers, directions and the norm's shift. Published: hidden layers start pretrained."""
    lr_head: Rate = 1e-2
    """Learning rate of the two layers that yield classes."""
    weight_decay: float = Field(default=5e-4, ge=0, lt=1)
    """L2, coupled, on weights; biases and the norm's shift have none."""
    momentum_slip: bool = False
    schedule: Literal["poly", "poly_epoch", "constant"] = "poly_epoch"
    warmup: int = Field(default=661, ge=0, le=2**31 - 1)
    """Optimiser steps until the top-down loss has its full weight; published: two epochs, 661 on VOC train_aug."""
    cam_head: Literal["deep", "linear"] = "deep"
    """deep: pools and two hidden layers before the classes, as published on VGG-16. linear: one 1x1 convolution."""
    width: int = Field(default=1024, ge=1, le=65536)
    """Channels of hidden layers."""
    mask_padding: bool = False
    """Leave cells outside the photograph out of losses and statistics. Off counts them, as published, and is no worse
    (docs/reproduce.md)."""
    resolve_signs: bool = True
    """Turn every direction to the side where CAM is stronger. Off leaves its sign to chance: an ablation."""
    refine: bool = True
    """Average the top-down head's targets inside superpixels. Off takes them cell by cell: an ablation."""
    colour: Literal["imagenet", "centred"] = "imagenet"
    """Input: as the backbone's ImageNet weights want it; or minus 127, as published ones of vgg16_deeplab do."""


class IcdMapSection(Strict):
    """Inference of the intra-class discriminator (icd 5)."""

    scales: Scales = (1.0,)
    """Image scales whose signed logits are averaged. Signs are told from the mean feature of training, so these belong
    about the mean of discriminate.scales."""
    flip: bool = False
    """See each scale with its mirror image too."""
    pad: int | None = Field(default=513, ge=1, le=SIDE)
    """Side the photograph is padded to at scale 1, as published; larger ones, and none, to whole cells."""
    head: Literal["top_down", "bottom_up"] = "top_down"
    """Whose signed maps: the top-down head's, as published; or the scores along the directions, an ablation."""


class IcdSeed(Strict):
    """Signed maps to labels (icd 5.1, 5.3)."""

    rule: Literal["signed", "threshold"] = "signed"
    """signed: the sign decides (published). threshold: as seeds from CAM, on positive parts over their peaks."""
    foreground: Share = 0.30
    """Threshold above which a class is claimed; rule threshold only."""
    background: Share = 0.05
    """Threshold below which background is claimed; rule threshold only."""
    crf: Annotated[Literal["auto", "cpu", "gpu", "pydensecrf", "off"], BeforeValidator(_off)] = "auto"
    """Backend of the dense CRF, as of other seeds. Off keeps what the rule leaves undecided."""

    @model_validator(mode="after")
    def _ordered(self) -> IcdSeed:
        if self.background > self.foreground:
            raise ValueError(f"background {self.background} lies above foreground {self.foreground}")
        return self


class Irn(FitSection):
    """Inter-pixel relation network, edge head (amn 2.4, 3.3, 4.1)."""

    backbone: BackboneSection = BackboneSection(frozen_taps=5)
    batch: Count = 32
    epochs: Count = 3
    rescale: Rescale = (0.5, 1.5)
    radius: int = Field(default=10, ge=2, le=64)
    """Pairs closer than this many stride-4 cells are trained on."""
    lr_head: Rate = 0.1
    """Learning rate of the edge head (published 0.1; the backbone is frozen)."""


class Walk(Strict):
    """Edge inference and random walk (amn 1.5, 3.4)."""

    radius: int = Field(default=5, ge=2, le=64)
    beta: float = Field(default=10.0, gt=0, le=1000)
    steps: int = Field(default=256, ge=1, le=2**20)
    background: Share = 0.25
    """Threshold on the walked map; COCO 0.22."""
    power: float = Field(default=1.3, gt=0, le=100)
    """The activation is raised to this before the walk: 1.3 in AMN, 1.0 in plain IRN."""
    pad: int | None = Field(default=512, ge=1, le=SIDE)
    """Side the edge network's input is padded to, as on VOC; none on COCO."""


class Vote(Strict):
    """Labels sharpened by proposals (amn 1.7)."""

    labels: Annotated[Literal["off", "first_seed", "seed", "walk"], BeforeValidator(_off)] = "off"
    """Whose: the first seed of the method, its last, or the walk's masks. Off: no vote. The segmentation network learns
    from what was voted with `pseudo_mask: vote`."""
    proposals: Place | None = None
    """Shard set of `amn import regions` over the training set: folder or URL, relative to --data. Its content, not its
    place, decides what may be reused. None: superpixels vote (`superpixel`)."""
    overlap: float = Field(default=0.5, ge=0, le=1)
    """A proposal is accepted for the class that covers most of it where that is more than this share of it."""
    coverage: float = Field(default=0.85, gt=0, le=1)
    """Or where it holds at least this share of the class's pixels in the image."""
    background: float = Field(default=0.5, ge=0, le=1)
    """Share of background above which a proposal stays untouched, whatever it holds. Published: 1."""
    clear: bool = False
    """Make background of a class where only proposals that were not accepted lie, as published. Off keeps it."""


class Segment(FitSection):
    """DeepLabV2 on the pseudo-masks (amn 2.6, 3.5, 4.2)."""

    ARCHITECTURE = ("backbone", "branches")
    backbone: BackboneSection = BackboneSection(name="resnet101", stride=8, frozen_taps=0)
    batch: Count = 10
    steps: Count | None = 20_000
    crop: Side = 321
    scales: Scales = (0.5, 0.75, 1.0, 1.25, 1.5)
    """Factors a training image is resized by, one drawn a sample."""
    lr: Rate = 2.5e-4
    lr_head: Rate = 2.5e-3
    """Head weights; head biases learn at twice this rate without decay."""
    weight_decay: float = Field(default=5e-4, ge=0, lt=1)
    momentum_slip: bool = False
    schedule_every: Count = 10
    """Steps between two changes of the poly rate."""
    loss: Literal["ce", "balanced", "confidence"] = "balanced"
    """ce: cross-entropy over all decided pixels. balanced: the mean of its foreground and background means. confidence:
    ce by the name it has in CLIP-ES, where pixels of a label below clip_seed.confidence are undecided (clip 6.3)."""
    branches: AnyScales = (0.5, 0.75)
    """Scales seen beside the full image; their maximum is a fourth output. Empty: one branch only."""


class Predict(Strict):
    """Segmentation of the validation images, raw and after the test-time CRF (amn 4.2, 6)."""

    crf: Annotated[Literal["auto", "cpu", "gpu", "pydensecrf", "off"], BeforeValidator(_off)] = "auto"
    """Backend of the dense CRF. auto: gpu, beside the network, where the farm has one; else cpu, by the CPU workers."""
    wrap_image: bool = False
    """Published test code hands the CRF a mean-subtracted image whose negative values wrap; on reproduces it."""


Protocol = Literal["voc", "coco", "deeplab", "icd"]
"""Whose evaluation an mIoU follows (amn 1.6). They differ in pixels of label 255 and in classes that do not occur."""


class Score(Strict):
    """How what a run makes is compared with the truth (amn 1.6)."""

    protocol: Protocol = "voc"
    """The protocol of maps, seeds and masks, made of the training set. voc: AMN and IRN on VOC. coco: AMN on COCO.
    deeplab: deeplab-pytorch. icd: ICD's seeds. score.json has the mIoU by all four."""
    val_protocol: Protocol | None = None
    """The protocol of predictions, made of the validation set; none: the same. DeepLabV2's published ones are deeplab,
    which is voc where every class occurs, as it does on VOC."""
    threshold: float = Field(default=0.25, ge=0.01, le=0.99)
    """Default background threshold at which activation maps are compared, to the hundredth."""
    images: Place | None = None
    """Text file of the training images that count, a key a line, such as VOC's ImageSets/Segmentation/train.txt: a path
    or URL, relative to --data. Published figures of maps, seeds and masks on VOC are of train's 1,464 images, not of
    train_aug's 10,582. None: all."""

    def by(self, over: str) -> Protocol:
        """The protocol of what is made of a set."""
        return self.val_protocol if over == "val" and self.val_protocol is not None else self.protocol


class Data(Strict):
    """Shard sets to learn from and to predict on."""

    train: Place = "train"
    """Folder or URL of the training set; relative to --data (or to the working directory without it)."""
    val: Place | None = "val"
    """Set that predict and score use; none leaves prediction out."""


class EngineSection(Strict):
    """Who steps the optimiser."""

    name: Literal["deepspeed", "torch"] = "deepspeed"
    device: Literal["auto", "gpu"] = "auto"
    """auto: a GPU where a training process has one, else the CPU. gpu: a process without one ends with an error."""
    processes: Annotated[int, Field(ge=0, le=65536), BeforeValidator(_auto)] = 1
    """Training processes, over all machines; the most there are when some are lost. auto, or 0: one for every GPU of
    this machine, one on a machine without."""
    min_processes: int = Field(default=1, ge=1, le=65536)
    """Fewest processes a Fit goes on with after machines are lost."""
    launcher: Literal["ray", "torchrun"] = "ray"
    """Who starts more than one process: Ray Train in the cluster of the farm, or torchrun on this machine."""
    retries: int = Field(default=3, ge=0, le=1_000_000)
    """Times in a row the processes are started again after some died, without a new checkpoint in between."""
    checkpoint_minutes: Annotated[float, Field(ge=0, le=WEEK_S / 60)] | Literal["auto"] = "auto"
    """Minutes between two checkpoints at least; those of checkpoint_every that come sooner are left out. auto: 5 on a
    GPU, which makes 200 steps in seconds; 0 on a CPU."""
    rejoin_s: float = Field(default=60, ge=0, le=WEEK_S)
    """Seconds that lost machines get to come back before a Fit goes on without them."""
    timeout_s: float = Field(default=600, gt=0, le=WEEK_S)
    """Seconds a process waits for the others before it gives up."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 autocast where the device computes it natively, else fp32."""
    deterministic: bool = False
    """Make every run of a Fit on one kind of device the same to the last bit, as a CPU does anyway. A GPU then takes
    algorithms with a fixed order of sums, which are slower, and a Fit with an operation that has none ends."""
    zero: Annotated[Literal[0, 1, 2], BeforeValidator(_whole)] = 0
    """ZeRO stage of DeepSpeed."""

    @model_validator(mode="before")
    @classmethod
    def _without_retired(cls, settings: Any) -> Any:
        """Runs of earlier versions go on: `winograd` moved last bits alone."""
        return {k: v for k, v in settings.items() if k != "winograd"} if isinstance(settings, dict) else settings

    @model_validator(mode="after")
    def _enough(self) -> EngineSection:
        if self.processes and self.min_processes > self.processes:
            raise ValueError(f"min_processes {self.min_processes} lies above processes {self.processes}")
        return self


class FarmSection(Strict):
    """Who runs a Map over shards."""

    name: Literal["ray", "local"] = "ray"
    workers: int = Field(default=0, ge=0, le=65536)
    """Workers; 0: as many as there are cores (Ray: in the cluster). With two pools, those of the CPU pool."""
    threads: int = Field(default=1, ge=1, le=1024)
    """CPU threads of a worker. Last bits of maps depend on them (they cut products of matrices), not on workers."""
    chunk: Count = 32
    """Samples that are scheduled, tried again and passed on together; smaller ones spread a shard wider. A worker with
    a GPU is given several at once, 256 samples in all."""
    pools: Literal["auto", "one", "two"] = "auto"
    """one: every worker takes a chunk through a whole stream. two: networks and CPU work (CRF) have workers of their
    own, maps pass through Ray's object store. auto: two where the cluster has GPUs."""
    network_workers: int = Field(default=0, ge=0, le=65536)
    """Workers of the network pool; 0: as many as the GPUs hold, or 1 without GPUs."""
    gpus_per_worker: float = Field(default=1.0, ge=0.01, le=1)
    """Share of a GPU for a worker that runs networks; 0.5 lets two take turns on one."""
    ahead: int = Field(default=2, ge=1, le=65536)
    """Chunks of full-size maps that may wait for each CPU worker before the networks pause."""
    evidence_gib: float = Field(default=0.0, ge=0, le=1e6)
    """Most memory those maps may take in all, GiB; 0: half of Ray's object store."""
    retries: int = Field(default=3, ge=0, le=1_000_000)
    """Times a chunk is tried again after its worker or node died."""


class Loader(Strict):
    """Who decodes and crops."""

    name: Literal["dali", "torchvision"] = "dali"
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """Threads that read and decode. auto: 2; beside a GPU the cores there are for it, half of them in a Map, at most
    16."""
    ahead: int = Field(default=2, ge=1, le=1024)
    """Batches prepared ahead of the network."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where training crops are decoded. gpu: by DALI, on the GPU that trains. auto: there, if a GPU trains and DALI
    decodes; else on the CPU."""

    @model_validator(mode="after")
    def _decodable(self) -> Loader:
        if self.device == "gpu" and self.name != "dali":
            raise ValueError(f"device gpu: {self.name} decodes on the CPU; expected name dali, or device auto or cpu")
        return self


class Config(Strict):
    """One experiment."""

    name: str = Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name of the run's folder under runs/."""
    method: Literal["irn", "amn", "icd", "icd_amn", "clip", "clip_amn", "refine"] = "amn"
    """irn: CAM seeds into IRN (the baseline). amn: CAM seeds train AMN, AMN's seeds go into IRN. icd, icd_amn: the same
    two with seeds and maps of the intra-class discriminator in the place of CAM's. clip, clip_amn: the same two with
    those of a frozen CLIP. refine: amn on maps made elsewhere (`refine.maps`)."""
    pseudo_mask: Literal["walk", "seed", "vote"] = "walk"
    """Labels of the segmentation network: the walk's masks; or the last seed, without IRN, as ICD and CLIP-ES are
    published; or what proposals made of either (`vote.labels`)."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Initial weights, sample order, crops and dropout follow from it."""
    weights: Place = "weights"
    """Folder that relative weight files of the backbones and of CLIP lie in."""
    data: Data = Data()
    classify: Classify = Classify()
    infer: Infer = Infer()
    cam: Cam = Cam()
    cam_seed: Seed = Seed()
    superpixel: Superpixel = Superpixel()
    discriminate: Discriminate = Discriminate()
    icd_map: IcdMapSection = IcdMapSection()
    icd_seed: IcdSeed = IcdSeed()
    clip_map: ClipMapSection = ClipMapSection()
    clip_seed: ClipSeed = ClipSeed()
    refine: Refine = Refine()
    refine_seed: Seed = Seed()
    amn: Amn = Amn()
    amn_map: AmnMapSection = AmnMapSection()
    amn_seed: Seed = Seed(foreground=0.45, background=0.15)
    irn: Irn = Irn()
    walk: Walk = Walk()
    vote: Vote = Vote()
    segment: Segment = Segment()
    predict: Predict = Predict()
    score: Score = Score()
    engine: EngineSection = EngineSection()
    farm: FarmSection = FarmSection()
    loader: Loader = Loader()

    @model_validator(mode="after")
    def _begun(self) -> Config:
        if self.method == "refine" and self.refine.maps is None:
            raise ValueError("method refine begins with maps made elsewhere; name their shard set in refine.maps")
        if self.pseudo_mask == "vote" and self.vote.labels == "off":
            raise ValueError("pseudo_mask vote needs labels to vote on; set vote.labels to walk, seed or first_seed")
        return self

    def weights_path(self, file: str) -> str:
        """Where a file of the folder of weights lies."""
        return str(Path(self.weights) / file)

    def initial_weights(self, backbone: BackboneSection) -> str | None:
        """Where a backbone's initial weights come from: `torchvision`, a path, or none."""
        if backbone.weights in (None, "torchvision"):
            return backbone.weights
        return self.weights_path(str(backbone.weights))


def load_config(path: str | os.PathLike[str], settings: tuple[str, ...] = ()) -> Config:
    """Read a YAML file, apply `section.key=value` settings, check everything.

    Raises ConfigError naming file, key, what was found and what was expected.
    """
    file = Path(path)
    try:
        with file.open(encoding="utf-8") as stream:
            text = stream.read(LONGEST + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read as a configuration ({printable(error)})") from error
    return parse_config(text, settings, where=str(file))


def parse_config(text: str, settings: tuple[str, ...] = (), *, where: str) -> Config:
    """As load_config, of a file's text."""
    try:
        tree = read_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{where}: not plain YAML ({printable(error)})") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: found {type(tree).__name__}, expected sections such as `name:` and `method:`")
    tree = _unshared(tree)
    for setting in _once_each(settings):
        _apply(tree, setting)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(error)}") from error


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that load_config reads back unchanged."""
    return write_yaml(config.model_dump(mode="json"))


def _unshared(node: Any) -> Any:
    """A copy in which no two sections are one object, as YAML anchors make them."""
    if isinstance(node, dict):
        return {key: _unshared(value) for key, value in node.items()}
    return [_unshared(value) for value in node] if isinstance(node, list) else node


def _once_each(settings: tuple[str, ...]) -> tuple[str, ...]:
    """The settings. Raises ConfigError when two are of one key."""
    first: dict[str, str] = {}
    for setting in settings:
        key = setting.partition("=")[0].strip()
        if key in first:
            both = f"{printable(first[key])} and {printable(setting)}"
            raise ConfigError(f"--set: found {both}, expected {printable(key)} once")
        first[key] = setting
    return settings


def _apply(tree: dict[str, Any], setting: str) -> None:
    where = f"--set {printable(setting)}"
    path, equals, value = setting.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"{where}: expected section.key=value, for example classify.epochs=8")
    if not value.strip():
        raise ConfigError(f"{where}: found no value, expected one; null stands for none")
    node = tree
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{where}: {printable(key)} is a value, not a section")
    try:
        node[keys[-1]] = _unshared(read_yaml(value))
    except ValueError as error:
        raise ConfigError(f"{where}: the value is not plain YAML ({printable(error)})") from error


def _explain(error: ValidationError) -> str:
    faults = []
    for fault in error.errors()[:FAULTS]:
        key = printable(".".join(str(part) for part in fault["loc"]))
        if fault["type"] == "extra_forbidden":
            faults.append(f"unknown key {key}{_nearest(fault['loc'])}")
        elif fault["type"] == "missing":
            faults.append(f"{key} is missing")
        else:
            told = printable(fault["msg"].removeprefix("Value error, "))
            found = quoted(fault["input"])
            faults.append(f"{key or 'configuration'}: found {found}, {told[:1].lower()}{told[1:]}")
    more = error.error_count() - len(faults)
    return listed([*faults, f"and {more} more"] if more else faults)


def _nearest(loc: tuple[int | str, ...]) -> str:
    section: Any = Config
    for part in loc[:-1]:
        annotation = section.model_fields[str(part)].annotation
        section = next((a for a in get_args(annotation) if isinstance(a, type)), annotation)
    names = list(section.model_fields)
    near = difflib.get_close_matches(str(loc[-1]), names, n=1)
    return f" (did you mean {near[0]}?)" if near else f" (known: {', '.join(names)})"
