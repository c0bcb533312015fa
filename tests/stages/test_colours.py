"""What a network is fed: as its backbone wants it, in training crops of both decoders and in inference."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from amn_dist.config import Config, Loader
from amn_dist.errors import ConfigError
from amn_dist.interfaces import Context
from amn_dist.loaders.crops import draw_crop
from amn_dist.loaders.decode import crop_decoder
from amn_dist.loaders.decoder import Encoded
from amn_dist.methods import Stage, stages
from amn_dist.models.backbones.architectures import ARCHITECTURES
from amn_dist.models.backbones.backbone import build_backbone
from amn_dist.models.deeplab import segment_network
from amn_dist.models.inference import prepare
from amn_dist.ops.normalise import network_input
from amn_dist.stages.amn import amn_network, image_amn
from amn_dist.stages.classify import cam_network, image_cam
from amn_dist.stages.icd import icd_network, image_icd
from amn_dist.stages.irn import edge_network, image_edge
from amn_dist.stages.predict import image_probabilities

FITS = ("classify", "amn", "irn", "segment", "discriminate")
CLASSES = ("background", "cat", "dog")
RGB = (200, 100, 50)
FED = {
    "caffe": (50 - 104.008, 100 - 116.669, 200 - 122.675),
    "imagenet": tuple(
        (v / 255 - m) / d for v, m, d in zip(RGB, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
    ),
    "centred": (73.0, -27.0, -77.0),
}


def configured(name: str, **discriminate: str) -> Config:
    """Every Fit over one architecture."""
    stride = ARCHITECTURES[name].strides[-1]
    section = {"backbone": {"name": name, "stride": stride, "weights": None, "frozen_taps": 0}, "crop": 40}
    tree = {fit: {**section, **(discriminate if fit == "discriminate" else {})} for fit in FITS}
    return Config.model_validate({"name": "x", "method": "icd_amn", **tree, "icd_map": {"pad": None}})


def fits(config: Config) -> list[Stage]:
    made = [*stages(config), *stages(config.model_copy(update={"method": "amn"}))]
    return [stage for stage in made if stage.verb == "fit"]


def crop(config: Config, stage: Stage, decoder: str) -> Tensor:
    """A training crop f32[3, S, S] of a photo of one colour, without its fill."""
    assert stage.fit is not None
    rule, stream = stage.fit(Context(config, CLASSES)).rule, io.BytesIO()
    Image.new("RGB", (90, 80), RGB).save(stream, "PNG")
    sample = Encoded("k", stream.getvalue(), draw_crop(rule, 80, 90, seed=0, epoch=0, ordinal=0))
    (made,) = crop_decoder(rule, loader=Loader(name=decoder))([[sample]])
    image = made[0][0]
    return image[:, (image != 0).any(0)]


@pytest.mark.parametrize("decoder", ["dali", "torchvision"])
@pytest.mark.parametrize("name", ["resnet101", "resnet50"])
def test_training_crops_are_as_the_backbone_wants_them(name: str, decoder: str) -> None:
    config = configured(name)
    assert {stage.name for stage in fits(config)} == set(FITS)
    for stage in fits(config):
        found, expected = crop(config, stage, decoder), FED[ARCHITECTURES[name].colours[0]]
        assert found.shape[1] > 0
        for channel, value in zip(found, expected, strict=True):
            np.testing.assert_allclose(channel.numpy(), value, atol=2e-3, err_msg=stage.name)


IMAGE = np.random.default_rng(0).integers(0, 256, (33, 41, 3), dtype=np.uint8)
TAGS, SEED = np.array([0, 1]), np.zeros((33, 41), np.uint8)
INFERENCE: dict[str, tuple[Callable[[Config], nn.Module], Callable[[nn.Module], object]]] = {
    "classify": (lambda c: cam_network(c, 3), lambda network: image_cam(network, IMAGE, TAGS, scales=(1.0,))),
    "amn": (lambda c: amn_network(c, 3), lambda network: image_amn(network, IMAGE, TAGS, SEED, scales=(1.0,))),
    "irn": (edge_network, lambda network: image_edge(network, IMAGE, pad=None)),
    "segment": (lambda c: segment_network(c, 3).eval(), lambda network: image_probabilities(network, IMAGE)),
    "discriminate": (lambda c: icd_network(c, 3), lambda network: image_icd(network, IMAGE, TAGS, pad=None)),
}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("stage", FITS)
@pytest.mark.parametrize("name", ["resnet101", "small"])
def test_inference_is_fed_as_training_is(name: str, stage: str, precision: torch.dtype) -> None:
    torch.manual_seed(0)
    build, infer = INFERENCE[stage]
    network, seen = build(configured(name)), []
    network = prepare(network, "cpu", precision=precision)
    network.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    infer(network)
    expected = network_input(IMAGE, ARCHITECTURES[name].colours[0])
    np.testing.assert_allclose(seen[0][0, :, :33, :41].numpy(), expected, atol=1e-5)


def test_every_backbone_has_a_colour_and_says_it() -> None:
    for name, architecture in ARCHITECTURES.items():
        with torch.device("meta"):
            assert build_backbone(configured(name).classify.backbone).colour == architecture.colours[0]


def discriminator(config: Config) -> str:
    (fit,) = [stage.fit for stage in stages(config) if stage.name == "discriminate"]
    assert fit is not None
    return fit(Context(config, CLASSES)).rule.colour


def test_the_discriminator_may_be_fed_as_its_published_weights_want() -> None:
    assert discriminator(configured("vgg16_deeplab", colour="centred")) == "centred"
    assert discriminator(configured("vgg16_deeplab", colour="imagenet")) == "imagenet"
    assert discriminator(configured("resnet101")) == "caffe"


@pytest.mark.parametrize("name", ["resnet101", "resnet50"])
def test_an_input_that_no_weights_of_the_backbone_want_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"discriminate\.colour: found centred, expected imagenet: {name} is fed"):
        stages(configured(name, colour="centred"))
