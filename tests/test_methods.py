"""What stages make and read is said once, and holds for every method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest

from amn_dist.config import BackboneSection, Config
from amn_dist.errors import ConfigError
from amn_dist.interfaces import Context, Needs
from amn_dist.methods import ARTEFACTS, CAM, STAGES, Stage, in_order, maker_of, stages, title_of
from amn_dist.models.backbones.architectures import ARCHITECTURES
from amn_dist.records import ACTIVATION, Sample
from amn_dist.runs.origins import origin_of

METHODS = get_args(Config.model_fields["method"].annotation)
MASKS = get_args(Config.model_fields["pseudo_mask"].annotation)
NAMES = ("background", "cat", "dog")


def configured(method: str, mask: str, **sections: Any) -> Config:
    if method == "refine":
        sections["refine"] = {"maps": "maps"}
    if mask == "vote":
        sections["vote"] = {"labels": "walk"}
    return Config.model_validate({"name": "x", "method": method, "pseudo_mask": mask, **sections})


@pytest.mark.parametrize(("method", "mask", "crf"), product(METHODS, MASKS, ("off", "auto")))
def test_every_field_a_map_writes_is_an_artefact(method: str, mask: str, crf: str) -> None:
    config = configured(method, mask, predict={"crf": crf})
    for stage in stages(config):
        if stage.map is not None:
            fields = {artefact.field for artefact in stage.made(config)}
            assert fields == set(stage.map(Context(config, NAMES)).fields)
        assert all(maker_of(artefact.name).name == stage.name for artefact in stage.made(config))


@pytest.mark.parametrize(("method", "mask"), product(METHODS, MASKS))
def test_what_a_stage_reads_is_made_before_over_the_same_images(method: str, mask: str) -> None:
    config = configured(method, mask)
    made: dict[str, str] = {}
    for stage in stages(config):
        assert all(made[artefact] == stage.over for artefact in stage.reads.values())
        assert stage.verb != "fit" or stage.reads.keys() <= {"label"}
        made |= {artefact.name: stage.over for artefact in stage.made(config)}


def test_names_and_titles_of_artefacts_are_their_own() -> None:
    made = [artefact for stage in STAGES for artefact in stage.makes]
    assert len({artefact.name for artefact in made}) == len(made) == len(ARTEFACTS)
    assert all(title_of(artefact.name) == artefact.title for artefact in made)
    assert title_of("of\x1b[2Jlater") == r"of\x1b[2Jlater"
    assert in_order(["z", "walk", "cam", "z", "amn_map"]) == ["cam", "amn_map", "walk", "z"]


def test_regions_are_not_scored_and_the_rest_is() -> None:
    assert [a.name for a in ARTEFACTS.values() if not a.is_scored] == ["superpixel"]
    assert ARTEFACTS["walk"].is_labels and ARTEFACTS["cam"].is_activation


def test_the_backbones_of_the_configuration_are_those_there_are() -> None:
    named = get_args(BackboneSection.model_fields["name"].annotation)
    assert set(named) == set(ARCHITECTURES)


@dataclass(frozen=True)
class Told:
    """A Map made of a file of weights that no stage has trained."""

    file: str
    name: str = "cam"
    needs: Needs = "cpu"
    fields: tuple[str, ...] = (ACTIVATION,)

    @property
    def weight_files(self) -> Mapping[str, str]:
        return {"text weights": self.file}

    def check_weights(self) -> None:
        return None

    def open(self) -> None:
        return None

    def run(self, opened: Any, samples: Iterator[Sample]) -> Iterator[Sample]:
        return samples


def test_weights_from_outside_are_in_the_origin(tmp_path: Path) -> None:
    file = tmp_path / "text.safetensors"
    stage = replace(CAM, map=lambda c: Told(str(file)), checkpoint=None)
    context = Context(configured("irn", "walk"), NAMES)
    with pytest.raises(ConfigError, match=r"text.safetensors: no such weights file"):
        origin_of(stage, context, {})
    origins = []
    for content in (b"a", b"a", b"b"):
        file.write_bytes(content)
        origins.append(origin_of(stage, context, {"train set": "1"}))
    assert origins[0] == origins[1] != origins[2]
    assert set(origins[0].inputs) == {"train set", "text weights"}


def test_a_field_that_no_artefact_is_of_is_an_error() -> None:
    stage: Stage = replace(CAM, map=lambda c: Told("w", fields=(ACTIVATION, "more.png")))
    with pytest.raises(TypeError, match=r"cam writes activation.f16, more.png; list each"):
        stage.made(configured("irn", "walk"))
