"""The dense CRF's inputs and limits; its numbers are held by the parity tests."""

import numpy as np
import pytest
import torch

from amn_dist.errors import ConfigError
from amn_dist.ops.crf.dense import _bgr, _deeplab_on_device, _moved, deeplab_crf, dense_crf, hard_label_unary


@pytest.fixture
def image() -> np.ndarray:
    """Two flat halves, red and blue."""
    halves = np.zeros((20, 30, 3), np.uint8)
    halves[:, :15, 0], halves[:, 15:, 2] = 220, 220
    return halves


def test_unary_of_hard_labels() -> None:
    unary = hard_label_unary(np.array([[0, 2]]), 4, 0.7)
    assert unary.dtype == np.float32
    np.testing.assert_allclose(np.exp(-unary[:, 0, 0]), [0.7, 0.1, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(np.exp(-unary[:, 0, 1]), [0.1, 0.1, 0.7, 0.1], rtol=1e-6)


def test_a_single_label_is_certain(image: np.ndarray) -> None:
    unary = hard_label_unary(np.zeros((20, 30), np.uint8), 1)
    assert (dense_crf(image, unary) == 1).all()


def test_labels_snap_to_colours(image: np.ndarray) -> None:
    labels = np.zeros((20, 30), np.uint8)
    labels[:, 17:] = 1
    marginals = dense_crf(image, hard_label_unary(labels, 2))
    np.testing.assert_allclose(marginals.sum(0), 1, atol=1e-5)
    refined = marginals.argmax(0)
    assert (refined[:, :15] == 0).all() and (refined[:, 15:] == 1).all()


def test_no_iteration_is_the_softmax_of_the_unary(image: np.ndarray) -> None:
    unary = np.random.default_rng(0).random((3, 20, 30), np.float32)
    expected = torch.softmax(-torch.from_numpy(unary), 0)
    np.testing.assert_allclose(dense_crf(image, unary, iterations=0), expected, atol=1e-6)


def test_views_and_torch_give_the_same(image: np.ndarray) -> None:
    unary = np.random.default_rng(1).random((3, 20, 30), np.float32)
    expected = dense_crf(image, unary)
    view = np.asfortranarray(unary)
    view.flags.writeable = False
    assert np.array_equal(dense_crf(np.asfortranarray(image), view), expected)
    marginals = dense_crf(torch.from_numpy(image), torch.from_numpy(unary))
    assert isinstance(marginals, torch.Tensor) and np.array_equal(marginals.numpy(), expected)


def test_wrapping_changes_what_the_crf_sees() -> None:
    random = np.random.default_rng(2)
    image = random.integers(60, 180, (16, 20, 3), dtype=np.uint8)
    logits = torch.from_numpy(random.normal(size=(4, 16, 20)).astype(np.float32))
    probabilities = logits.softmax(0).numpy()
    plain, wrapped = (deeplab_crf(image, probabilities, wrap_image=wrap) for wrap in (False, True))
    assert plain.shape == wrapped.shape == (4, 16, 20) and np.abs(plain - wrapped).max() > 1e-3


@pytest.mark.parametrize("wrap", [False, True])
def test_the_form_for_devices_gives_the_same(wrap: bool) -> None:
    random = np.random.default_rng(3)
    image = random.integers(0, 256, (18, 21, 3), dtype=np.uint8)[:, ::-1]
    image.flags.writeable = False
    probabilities = torch.from_numpy(random.normal(scale=3, size=(4, 18, 21))).softmax(0).float().numpy()
    moved = _moved(image, torch.device("cpu")), _moved(probabilities[::-1], torch.device("cpu"))
    refined = _deeplab_on_device(*moved, wrap)
    expected = deeplab_crf(image, probabilities[::-1], wrap_image=wrap)
    np.testing.assert_allclose(refined, expected, atol=2e-4)
    assert (_deeplab_on_device(moved[0], moved[1][:1], wrap) == 1).all()
    with pytest.raises(ConfigError, match=r"found image uint8 \(17, 21, 3\)"):
        _deeplab_on_device(moved[0][1:], moved[1], wrap)


def test_the_published_input_is_wrapped_as_numpy_would() -> None:
    colours = np.arange(256, dtype=np.uint8)
    image = np.stack([colours, colours[::-1], np.roll(colours, 100)], -1)[None]
    shifted = image[..., ::-1].astype(np.float32) - np.array([104.008, 116.669, 122.675], np.float32)
    expected = (np.trunc(shifted).astype(np.int32) % 256).astype(np.uint8)
    assert np.array_equal(_bgr(torch.from_numpy(image), True).numpy(), expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device is at hand")
def test_backend_gpu_without_a_device_is_refused(image: np.ndarray) -> None:
    probabilities = np.full((2, 20, 30), 0.5, np.float32)
    for call in (dense_crf, deeplab_crf):
        with pytest.raises(ConfigError, match="found no CUDA device for backend gpu"):
            call(image, probabilities, backend="gpu")


@pytest.mark.gpu
@pytest.mark.parametrize("where", ["numpy", "cuda"])
def test_deeplab_on_a_device(image: np.ndarray, where: str) -> None:
    probabilities = np.random.default_rng(4).dirichlet(np.ones(5), (20, 30)).astype(np.float32).transpose(2, 0, 1)
    expected = deeplab_crf(image, probabilities, backend="cpu")
    if where == "numpy":
        found = deeplab_crf(image[:, ::1], probabilities, backend="gpu")
    else:
        refined = deeplab_crf(torch.from_numpy(image).cuda(), torch.tensor(probabilities).cuda())
        assert refined.is_cuda
        found = refined.cpu().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_impossible_arguments_are_refused(image: np.ndarray) -> None:
    unary = np.zeros((2, 20, 30), np.float32)
    with pytest.raises(ConfigError, match="found backend 'numpy'"):
        dense_crf(image, unary, backend="numpy")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"found image uint8 \(20, 29, 3\)"):
        dense_crf(image[:, :-1], unary)
    with pytest.raises(ConfigError, match="found image float64"):
        dense_crf(image / 255, unary)
