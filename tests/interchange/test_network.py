"""The network as other programs run it: equal to ours on images of any size."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from amn_dist.config import Config
from amn_dist.interchange.network import SMALLEST, onnx_of, pt2_of, traced
from amn_dist.models.deeplab import DeepLab, segment_network
from amn_dist.stages.predict import image_probabilities

pytestmark = pytest.mark.slow  # following a network through every size takes torch a minute

SIZES = [(1, SMALLEST, SMALLEST), (2, 97, 131), (1, 130, 71)]
CLASSES = ("background", "cat", "кот")


@pytest.fixture
def network() -> DeepLab:
    """A network whose labels differ from place to place; fed as ResNet-101's published weights are."""
    tree = {"name": "x", "segment": {"backbone": {"name": "small", "stride": 8, "weights": None, "frozen_taps": 1}}}
    torch.manual_seed(0)
    network = segment_network(Config.model_validate(tree), len(CLASSES)).eval()
    for conv in network.aspp.convs:
        torch.nn.init.normal_(conv.weight, std=0.03)  # type: ignore[arg-type]
    network.backbone.colour = "caffe"
    return network


def images(size: tuple[int, int, int]) -> np.ndarray:
    """Photograph-like pixels uint8[B, H, W, 3]."""
    number, height, width = size
    random = np.random.default_rng(height)
    coarse = [Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8)) for _ in range(number)]
    return np.stack([np.asarray(of_image.resize((width, height))) for of_image in coarse])


def test_the_program_of_torch_gives_our_probabilities(network: DeepLab) -> None:
    wanted = {size: [image_probabilities(network, image) for image in images(size)] for size in SIZES}
    extra = {"classes": ""}
    program = torch.export.load(io.BytesIO(pt2_of(traced(network), CLASSES)), extra_files=extra).module()
    assert json.loads(extra["classes"]) == list(CLASSES)
    for size, ours in wanted.items():
        theirs = program(torch.from_numpy(images(size))).numpy()
        assert theirs.shape == np.shape(ours) and np.abs(theirs - ours).max() < 1e-5
        assert len(np.unique(theirs.argmax(1))) > 1


def test_onnx_gives_our_probabilities(network: DeepLab) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    ours = {size: np.stack([image_probabilities(network, image) for image in images(size)]) for size in SIZES}
    session = runtime.InferenceSession(onnx_of(traced(network), CLASSES), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)
    for size in SIZES:
        (theirs,) = session.run(None, {"image": images(size)})
        assert np.abs(theirs - ours[size]).max() < 1e-4
