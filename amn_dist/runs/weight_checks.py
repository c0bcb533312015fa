"""Weights that stages begin with: whether they are there, can be read and fit."""

from __future__ import annotations

from amn_dist.config import BackboneSection, Config
from amn_dist.errors import PLACE, AmnError, ConfigError, printable
from amn_dist.interfaces import Context, Pretrained
from amn_dist.models.weight_files import backbone_shape, check_backbone_weights, is_downloaded
from amn_dist.models.weights import torchvision_cache, torchvision_weights
from amn_dist.runs.findings import Findings, refused
from amn_dist.runs.origins import weights_file
from amn_dist.runs.prospect import Prospect


def check_weights(prospect: Prospect) -> Findings:
    """Initial weights that are not there, cannot be read or do not fit their backbone."""
    stages: dict[BackboneSection, list[str]] = {}
    for stage, section in prospect.fits:
        stages.setdefault(section.backbone.model_copy(update={"frozen_taps": 0}), []).append(stage.name)
    for backbone, names in stages.items():
        keys = ", ".join(f"{name}.backbone.weights" for name in names)
        try:
            if backbone.weights == "torchvision" and not is_downloaded(backbone):
                yield f"{keys}: {_to_fetch(backbone, now=prospect.download)}"
                if prospect.download:
                    torchvision_weights(backbone.name)
            check_initial(prospect.config, backbone)
        except AmnError as error:
            key, separator, rest = str(error).partition(": ")
            if separator and key in ("backbone", "backbone.weights"):
                yield ConfigError(f"{', '.join(f'{name}.{key}' for name in names)}: {rest}")
            else:
                yield ConfigError(f"{keys}: {error}")


def check_initial(config: Config, backbone: BackboneSection) -> None:
    """Raise ConfigError unless the initial weights of a backbone are a file that fits it, or still to be downloaded."""
    weights = config.initial_weights(backbone)
    if "://" in str(backbone.weights):
        raise ConfigError(
            f"backbone.weights: found the URL {printable(backbone.weights, PLACE)}, expected a file; download it and "
            "give its path"
        )
    backbone_shape(backbone)
    if weights == "torchvision" and is_downloaded(backbone):
        check_backbone_weights(backbone, weights)
    elif weights not in (None, "torchvision"):
        weights_file(str(weights))
        check_backbone_weights(backbone, str(weights))


def check_pretrained(prospect: Prospect) -> Findings:
    """Weights that a Map brings along and that are not there or do not fit."""
    classes = prospect.open_sets()["train"].classes
    for stage in prospect.left:
        if stage.map is not None and isinstance(work := stage.map(Context(prospect.config, classes)), Pretrained):
            yield from refused(work.check_weights)


def _to_fetch(backbone: BackboneSection, *, now: bool) -> str:
    file = printable(torchvision_cache(backbone.name), PLACE)
    when = "are downloaded now" if now else "are not on this machine; a run downloads them before its first stage"
    return f"torchvision's weights for {backbone.name} {when} ({file})"
