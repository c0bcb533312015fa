"""The methods: small graphs over the same stages, and what each stage makes. Read this page first.

STAGES says what every stage is and yields, `stages` which of them a method consists of and what each reads. A stage's
name is also its section of the configuration, its folder in the run, its argument on the command line and its prefix in
the log. CONTRIBUTING.md shows how one is added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from amn_dist.config import Config, FitSection
from amn_dist.errors import printable
from amn_dist.interfaces import Context, Fit, Map, Needs, crf_needs
from amn_dist.models.published import Kind as Published
from amn_dist.records import ACTIVATION, PROPOSALS
from amn_dist.shards.format import FieldKind, kind_of
from amn_dist.stages.amn import AmnFit, AmnMap
from amn_dist.stages.classify import CamMap, ClassifyFit
from amn_dist.stages.clip import ClipMap
from amn_dist.stages.clip_seed import ClipSeedMap
from amn_dist.stages.icd import IcdFit, IcdMap, icd_colour
from amn_dist.stages.icd_seed import IcdSeedMap
from amn_dist.stages.irn import IrnFit, WalkMap
from amn_dist.stages.predict import PredictMap
from amn_dist.stages.refine import RefineMap
from amn_dist.stages.seed import SeedMap
from amn_dist.stages.segment import SegmentFit
from amn_dist.stages.superpixel import SuperpixelMap
from amn_dist.stages.vote import VoteMap

SetName = Literal["train", "val"]
"""The image set that a stage works over."""
SETS: tuple[SetName, ...] = get_args(SetName)


@dataclass(frozen=True)
class Artefact:
    """What a Map writes for every image: one field of its shards.

    name: in scores and options; no two of all stages share one. title: in tables and pictures. field: its ending says
    the format (shards/format.py).
    """

    name: str
    title: str
    field: str

    @property
    def kind(self) -> FieldKind | None:
        """maps: activations, scored at every threshold. labels: scored as they are. Others are not scored."""
        return kind_of(self.field)

    @property
    def is_activation(self) -> bool:
        return self.kind == "maps"

    @property
    def is_labels(self) -> bool:
        """Whether it holds a class for every pixel."""
        return self.kind == "labels"

    @property
    def is_scored(self) -> bool:
        """Whether it is compared with the truth."""
        return self.is_activation or self.is_labels


@dataclass(frozen=True)
class Stage:
    """One node of a method.

    over: the set it works over. fit, map: how its work is built. checkpoint: the Fit whose network a Map runs. follows:
    the Map whose full-size maps it takes from memory, in the same stream. reads: artefacts it reads beside the images,
    by the name under which it finds them; a Fit finds what it learns from as `label`. outside: the setting of its
    section that names a shard set from outside the run, whose `outside_field` it finds under that name. makes: what it
    yields. published: the published network that a Fit's weights are exchanged with. seeded: whether a Map draws random
    numbers. looks: whether a Map looks at photographs; else they are not decoded.
    """

    name: str
    verb: Literal["fit", "map", "score"]
    over: SetName = "train"
    fit: Callable[[Context], Fit] | None = None
    map: Callable[[Context], Map] | None = None
    checkpoint: str | None = None
    follows: str | None = None
    reads: Mapping[str, str] = field(default_factory=dict)
    outside: str | None = None
    outside_field: str = ACTIVATION
    makes: tuple[Artefact, ...] = ()
    published: Published | None = None
    seeded: bool = False
    looks: bool = True

    def reading(self, **artefacts: str) -> Stage:
        """The stage where these artefacts are what it reads."""
        return replace(self, reads=artefacts)

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Names of the stages whose work it needs."""
        read = [maker_of(artefact).name for artefact in self.reads.values()]
        return tuple(name for name in (self.checkpoint, *read, self.follows) if name is not None)

    def made(self, config: Config) -> tuple[Artefact, ...]:
        """What it yields as configured."""
        if self.map is None:
            return ()
        fields = self.map(Context(config, ())).fields
        made = tuple(artefact for artefact in self.makes if artefact.field in fields)
        if len(made) < len(fields):
            raise TypeError(f"{self.name} writes {', '.join(fields)}; list each among what its Stage makes")
        return made

    def module(self, config: Config) -> str:
        """The module that says how it works, as a dotted name below the package."""
        factory = self.fit or self.map
        if factory is None:
            return "stages.score"
        return type(factory(Context(config, ("background", "object")))).__module__.partition(".")[2]

    def architecture(self, config: Config) -> frozenset[str]:
        """Settings of a Fit that say what its network is."""
        section = getattr(config, self.name)
        return frozenset(section.ARCHITECTURE) if isinstance(section, FitSection) else frozenset()


def _crf_needs(context: Context, name: str) -> Needs:
    """Which workers the CRF of a stage belongs on."""
    return crf_needs(getattr(context.config, name).crf, context.accelerated)


def seed_stage(name: str, title: str, *, follows: str) -> Stage:
    """Confident labels, by two thresholds and two CRFs, of the activation that a Map has made."""
    return Stage(
        name,
        "map",
        map=lambda c: SeedMap(name, getattr(c.config, name), _crf_needs(c, name)),
        follows=follows,
        makes=(Artefact(name, title, "seed.png"),),
    )


CLASSIFY = Stage("classify", "fit", fit=lambda c: ClassifyFit(c.config, c.num_classes), published="cam")
CAM = Stage(
    "cam",
    "map",
    map=lambda c: CamMap(c.config, c.num_classes, c.weights),
    checkpoint="classify",
    makes=(Artefact("cam", "CAM", ACTIVATION),),
)
CAM_SEED = seed_stage("cam_seed", "CAM seed", follows="cam")
SUPERPIXEL = Stage(
    "superpixel",
    "map",
    map=lambda c: SuperpixelMap(c.config.superpixel),
    makes=(Artefact("superpixel", "superpixels", "superpixel.u16.png"),),
)
DISCRIMINATE = Stage(
    "discriminate",
    "fit",
    fit=lambda c: IcdFit(c.config, c.num_classes),
    reads={"label": "superpixel"},
    published="icd",
)
ICD_MAP = Stage(
    "icd_map",
    "map",
    map=lambda c: IcdMap(c.config, c.num_classes, c.weights),
    checkpoint="discriminate",
    makes=(Artefact("icd_map", "ICD", ACTIVATION),),
)
ICD_SEED = Stage(
    "icd_seed",
    "map",
    map=lambda c: IcdSeedMap(c.config.icd_seed, c.num_classes, needs=_crf_needs(c, "icd_seed")),
    follows="icd_map",
    makes=(Artefact("icd_seed", "ICD seed", "seed.png"),),
)
CLIP_MAP = Stage(
    "clip_map",
    "map",
    map=lambda c: ClipMap(c.config, c.classes),
    makes=(Artefact("clip_map", "CLIP", ACTIVATION),),
)
CLIP_SEED = Stage(
    "clip_seed",
    "map",
    map=lambda c: ClipSeedMap(c.config.clip_seed, needs=_crf_needs(c, "clip_seed")),
    follows="clip_map",
    makes=(Artefact("clip_seed", "CLIP seed", "seed.png"),),
)
REFINE = Stage(
    "refine",
    "map",
    map=lambda c: RefineMap(needs=_crf_needs(c, "refine_seed")),
    outside="maps",
    makes=(Artefact("refine", "maps given", ACTIVATION),),
)
REFINE_SEED = seed_stage("refine_seed", "their seed", follows="refine")
AMN = Stage("amn", "fit", fit=lambda c: AmnFit(c.config, c.num_classes), published="amn")
AMN_MAP = Stage(
    "amn_map",
    "map",
    map=lambda c: AmnMap(c.config, c.num_classes, c.weights),
    checkpoint="amn",
    makes=(Artefact("amn_map", "AMN", ACTIVATION),),
    seeded=True,
)
AMN_SEED = seed_stage("amn_seed", "AMN seed", follows="amn_map")
IRN = Stage("irn", "fit", fit=lambda c: IrnFit(c.config, c.num_classes), published="irn")
WALK = Stage(
    "walk",
    "map",
    map=lambda c: WalkMap(c.config, c.num_classes, c.weights),
    checkpoint="irn",
    makes=(Artefact("walk", "pseudo-mask", "mask.png"),),
)
VOTE = Stage(
    "vote",
    "map",
    map=lambda c: VoteMap(c.config.vote),
    makes=(Artefact("vote", "voted mask", "mask.png"),),
    looks=False,
)
SEGMENT = Stage("segment", "fit", fit=lambda c: SegmentFit(c.config, c.num_classes), published="deeplab")
PREDICT = Stage(
    "predict",
    "map",
    over="val",
    map=lambda c: PredictMap(c.config, c.num_classes, c.weights, c.accelerated),
    checkpoint="segment",
    makes=(Artefact("predict_raw", "prediction", "raw.png"), Artefact("predict", "prediction + CRF", "mask.png")),
)
SCORE = Stage("score", "score")

STAGES = (
    *(CLASSIFY, CAM, CAM_SEED),
    *(SUPERPIXEL, DISCRIMINATE, ICD_MAP, ICD_SEED),
    *(CLIP_MAP, CLIP_SEED),
    *(REFINE, REFINE_SEED),
    *(AMN, AMN_MAP, AMN_SEED),
    *(IRN, WALK, VOTE),
    *(SEGMENT, PREDICT, SCORE),
)
"""Every stage of every method, in the order in which a method has them."""

ARTEFACTS = {artefact.name: artefact for stage in STAGES for artefact in stage.makes}
"""Everything that any stage makes, by name, in that order."""


def stages(config: Config) -> tuple[Stage, ...]:
    """The stages of the configured method, each after everything it reads."""
    first, activation, seed = _first_stages(config)
    chosen, first_seed = list(first), seed
    if config.method in ("amn", "icd_amn", "clip_amn", "refine"):
        chosen += [AMN.reading(label=seed), AMN_MAP.reading(seed=seed), AMN_SEED]
        activation, seed = "amn_map", "amn_seed"
    if "walk" in (config.pseudo_mask, config.vote.labels):
        chosen += [IRN.reading(label=seed), WALK.reading(activation=activation)]
    labels = {"first_seed": first_seed, "seed": seed, "walk": "walk", "vote": "vote"}
    if config.vote.labels != "off":
        chosen += _voting(config, labels[config.vote.labels], chosen)
    chosen.append(SEGMENT.reading(label=labels[config.pseudo_mask]))
    if config.data.val is not None:
        chosen.append(PREDICT)
    return (*chosen, SCORE)


def _first_stages(config: Config) -> tuple[tuple[Stage, ...], str, str]:
    """Where the first activation and the first seed come from, and their names."""
    if config.method in ("icd", "icd_amn"):
        icd_colour(config)  # what cannot be is refused before anything is made
        return (SUPERPIXEL, DISCRIMINATE, ICD_MAP, ICD_SEED), "icd_map", "icd_seed"
    if config.method in ("clip", "clip_amn"):
        return (CLIP_MAP, CLIP_SEED), "clip_map", "clip_seed"
    if config.method == "refine":
        return (REFINE, REFINE_SEED), "refine", "refine_seed"
    return (CLASSIFY, CAM, CAM_SEED), "cam", "cam_seed"


def _voting(config: Config, labels: str, before: Iterable[Stage]) -> tuple[Stage, ...]:
    """The vote on some labels: by proposals from outside, or by superpixels, which may be there before."""
    if config.vote.proposals is not None:
        return (replace(VOTE.reading(labels=labels), outside="proposals", outside_field=PROPOSALS),)
    superpixels = () if SUPERPIXEL in before else (SUPERPIXEL,)
    return (*superpixels, VOTE.reading(labels=labels, regions="superpixel"))


def scored(config: Config) -> Iterator[tuple[Stage, Artefact]]:
    """What score looks at: every activation and all labels of the method, with the stage that makes them."""
    for stage in stages(config):
        yield from ((stage, artefact) for artefact in stage.made(config) if artefact.is_scored)


def maker_of(artefact: str) -> Stage:
    """The stage that makes an artefact. Raises KeyError for one that no stage makes."""
    return _MAKERS[artefact]


_MAKERS = {artefact.name: stage for stage in STAGES for artefact in stage.makes}


def title_of(artefact: str) -> str:
    """What people call an artefact; one of another version goes by its own name."""
    return ARTEFACTS[artefact].title if artefact in ARTEFACTS else printable(artefact)


def in_order(artefacts: Iterable[str]) -> list[str]:
    """Names of artefacts, each once, in the order in which they are made; unknown ones behind them as they come."""
    names = dict.fromkeys(artefacts)
    return [*(name for name in ARTEFACTS if name in names), *(name for name in names if name not in ARTEFACTS)]
