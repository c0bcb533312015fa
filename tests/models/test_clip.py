"""CLIP on fresh random weights: closed form against autograd, words, and weights under three kinds of names."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.errors import ConfigError
from amn_dist.models.clip.archive import is_archive, read_archive
from amn_dist.models.clip.last_block import last_pass
from amn_dist.models.clip.layers import Activation
from amn_dist.models.clip.network import ClipNet, text_features
from amn_dist.models.clip.relevance import feature_gradients, relevances
from amn_dist.models.clip.texts import Prompts, text_rows, words_of
from amn_dist.models.clip.tokens import Tokeniser, read_tokeniser
from amn_dist.models.clip.weights import load_clip
from amn_dist.ops.clip.refine import balance, box_masks, spread
from tests.drawn.clip import SMALL, draw_clip, write_vocabulary


def by_autograd(network: ClipNet, x: Tensor, texts: Tensor, tags: int) -> tuple[Tensor, Tensor]:
    """Channel weights [K, D] and maps [K, P] of tokens [1, L, D], one backward pass a tag."""
    vision, block = network.visual, network.visual.last
    z = block.ln_1(x).detach().requires_grad_()
    y = x + block.attn(z)
    last = vision.ln_post(y + block.mlp(block.ln_2(y)))
    feature = last[0, 1:].mean(0) @ vision.proj
    logits = network.logit_scale.exp() * functional.normalize(feature, dim=0) @ texts.T
    rows = [torch.autograd.grad(p, z, retain_graph=True)[0][0, 1:].mean(0) for p in logits.softmax(0)[:tags]]
    weights = torch.stack(rows)
    return weights, weights @ z[0, 1:].T.detach()


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@given(size=st.tuples(st.integers(1, 5), st.integers(1, 5)), tags=st.integers(1, 4), seed=st.integers(0, 9))
def test_the_closed_form_is_what_autograd_finds(
    activation: Activation, size: tuple[int, int], tags: int, seed: int
) -> None:
    network = draw_clip(activation=activation, seed=seed).double()
    x, _ = network.visual.tokens(torch.randn(1, 3, 16 * size[0], 16 * size[1], dtype=torch.float64))
    texts = functional.normalize(torch.randn(tags + 5, SMALL.embed, dtype=torch.float64), dim=1)
    (found,) = relevances(network, last_pass(network, x), [texts], [tags])
    weights, maps = by_autograd(network, x, texts, tags)
    assert (found.channels - weights).abs().max() <= 1e-10 * weights.abs().max()
    assert (found.maps - maps).abs().max() <= 1e-10 * maps.abs().max()


def test_the_gradient_of_a_sure_tag_does_not_cancel() -> None:
    feature, texts = torch.randn(24, dtype=torch.float64), functional.normalize(torch.randn(6, 24).double(), dim=1)
    feature = 5 * texts[0] + 0.1 * feature
    for scale in (10.0, 20.0, 30.0):
        exact, single = (
            feature_gradients(
                f, t, (scale * functional.normalize(f, dim=0) @ t.T).softmax(0), 1, torch.tensor(scale, dtype=f.dtype)
            )
            for f, t in ((feature, texts), (feature.float(), texts.float()))
        )
        assert (single - exact).abs().max() <= 1e-3 * exact.abs().max()


def test_a_scale_free_gradient_is_the_gradient_over_the_probability() -> None:
    network, texts = draw_clip().double(), functional.normalize(torch.randn(7, SMALL.embed).double(), dim=1)
    seen = last_pass(network, network.visual.tokens(torch.randn(1, 3, 48, 32).double())[0])
    (usual,) = relevances(network, seen, [texts], [2])
    (free,) = relevances(network, seen, [texts], [2], scale_free=True)
    assert torch.allclose(free.maps * usual.probabilities[:2, None], usual.maps, rtol=1e-9)


def test_a_batch_is_its_images() -> None:
    network, images = draw_clip().double(), torch.randn(3, 3, 48, 64).double()
    texts = [functional.normalize(torch.randn(tags + 4, SMALL.embed).double(), dim=1) for tags in (2, 0, 3)]
    tokens, total = network.visual.tokens(images, attention_blocks=2)
    together = relevances(network, last_pass(network, tokens), texts, [2, 0, 3])
    for place, of_tags in enumerate(texts):
        x, attention = network.visual.tokens(images[place : place + 1], attention_blocks=2)
        (alone,) = relevances(network, last_pass(network, x), [of_tags], [len(of_tags) - 4])
        assert torch.allclose(attention[0], total[place], rtol=1e-12)
        assert torch.allclose(together[place].maps, alone.maps, rtol=1e-9, atol=1e-12)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=2, max_size=4),
    seed=st.integers(0, 9),
    single=st.booleans(),
)
def test_a_padded_batch_is_its_images(sizes: list[tuple[int, int]], seed: int, single: bool) -> None:
    network = draw_clip(seed=seed)
    vision, images = network.visual, [torch.randn(3, 16 * height, 16 * width) for height, width in sizes]
    if not single:
        network.double()
    images = images if single else [image.double() for image in images]
    texts = [
        functional.normalize(torch.randn(number + 4, SMALL.embed).to(images[0]), dim=1) for number in range(len(sizes))
    ]
    tags, patches = list(range(len(sizes))), [height * width for height, width in sizes]
    tokens, total, own = vision.padded_tokens(images, attention_blocks=2)
    assert own.sum(1).tolist() == [1 + number for number in patches]
    tokens = torch.where(own[..., None], tokens, 1e3)  # junk in the padding
    together = relevances(network, last_pass(network, tokens, own), texts, tags, patches=patches)
    for place, image in enumerate(images):
        x, attention = vision.tokens(image[None], attention_blocks=2)
        (alone,) = relevances(network, last_pass(network, x), [texts[place]], [tags[place]])
        near, inside = 1e-5 if single else 1e-10, total[place, : patches[place], : patches[place]]
        assert torch.allclose(attention[0], inside, rtol=near, atol=near)
        assert torch.allclose(together[place].probabilities, alone.probabilities, atol=near)
        # A map sums products of channel weights and of a norm's values, of order one: the sum may cancel to nothing.
        summed = alone.channels.abs().sum(1).max() if alone.maps.numel() else 0
        assert torch.allclose(together[place].maps, alone.maps, rtol=0, atol=float(near * summed))


def test_attention_is_summed_over_the_last_blocks() -> None:
    network, image = draw_clip(), torch.randn(1, 3, 32, 48)
    vision = network.visual
    x, expected = vision.embedded(image), torch.zeros(6, 6)
    for number, block in enumerate(vision.transformer.resblocks[:-1]):
        q, k, _ = block.attn.project(block.ln_1(x))
        weights = torch.softmax(q @ k.transpose(-1, -2) / 8, -1)[0].sum(0)[1:, 1:]
        expected = expected + weights if number >= 1 else expected
        x = block(x)
    tokens, total = vision.tokens(image, attention_blocks=2)
    assert torch.allclose(total[0], expected, atol=1e-5) and torch.allclose(tokens, x, atol=1e-4)


def test_factors_in_float16_leave_sums_in_float32() -> None:
    network, image = draw_clip(), torch.randn(1, 3, 32, 48)
    with torch.inference_mode():
        tokens, total = network.visual.tokens(image)
        network.visual.lower(torch.float16)
        rough, rough_total = network.visual.tokens(image)
    assert rough.dtype == rough_total.dtype == torch.float32
    assert 0 < (rough - tokens).abs().max() <= 0.02 * tokens.abs().max()
    assert (rough_total - total).abs().max() <= 0.02 * total.abs().max()


def test_maps_move_as_along_the_product_of_the_matrix() -> None:
    weights, maps = torch.rand(12, 12).double() ** 3, torch.rand(2, 12).double()
    inside = torch.rand(2, 12) > 0.4
    dense = weights.clone()
    for _ in range(3):
        dense = dense / dense.sum(0, keepdim=True)
        dense = dense / dense.sum(1, keepdim=True)
    rows, columns = balance(weights)
    assert torch.allclose(rows[:, None] * weights * columns, dense, rtol=1e-12)
    affinity = (dense + dense.T) / 2
    assert torch.allclose(spread(weights, maps, inside), (maps * inside) @ (affinity @ affinity), rtol=1e-12)


def test_boxes_reach_the_edge_where_they_are_not_cut() -> None:
    maps = np.zeros((2, 4, 5), np.float32)
    maps[0, 3, 2:] = 1
    maps[1, 1, 1] = maps[1, 2, 2] = 1
    cut, whole = box_masks(maps, 0.4), box_masks(maps, 0.4, cut=False)
    assert not cut[0].any() and whole[0].sum() == 3 and whole[0, 3, 2:].all()
    assert np.array_equal(cut[1], whole[1]) and whole[1].sum() == 4 and whole[1, 1:3, 1:3].all()
    assert box_masks(maps[:0], 0.4).shape == (0, 4, 5)


def test_texts_are_split_as_published(golden: Path) -> None:
    listed = json.loads((golden / "clip_merges.json").read_text())
    merges = [("\0", str(rank)) for rank in range(listed["count"])]
    for rank, pair in listed["merges"].items():
        merges[int(rank)] = tuple(pair.split(" "))
    with np.load(golden / "clip_tokens_0.npz") as arrays:
        meta, expected = json.loads(str(arrays["meta"])), arrays["out_tokens"]
    repaired = set(meta["changed_by_ftfy"])
    places = [place for place in range(len(meta["texts"])) if place not in repaired]
    rows = Tokeniser(merges).rows([meta["texts"][place] for place in places], 77)
    assert np.array_equal(rows, expected[places]) and len(places) > 150


def test_vocabularies_and_prompts_that_do_not_fit(tmp_path: Path) -> None:
    file = write_vocabulary(tmp_path)
    tokeniser = read_tokeniser(file, SMALL.vocabulary)
    assert tokeniser.encode("Cat  dogs") == [516, 513, 514, ord("g") - 33, ord("s") - 33 + 256, 517]
    with pytest.raises(
        ConfigError, match=r"merges.txt.gz: found 4 merges, expected 48894.*vocabulary of these weights"
    ):
        read_tokeniser(file, 49408)
    with pytest.raises(ConfigError, match=r"absent.txt: cannot be read as CLIP's vocabulary"):
        read_tokeniser(tmp_path / "absent.txt", SMALL.vocabulary)
    with pytest.raises(ConfigError, match=r"the prompt 'zzzz.*' has 32 tokens, expected 16 at most; shorten it"):
        tokeniser.rows(["z" * 30], 16)
    with pytest.raises(ConfigError, match=r"clip_map.names: found 'catt', expected classes.*did you mean 'cat'"):
        words_of(("cat", "dog"), {"catt": "cat"})


def test_features_of_texts_are_means_over_templates(tmp_path: Path) -> None:
    network, tokeniser = draw_clip(), read_tokeniser(write_vocabulary(tmp_path), SMALL.vocabulary)
    both = text_rows(network, tokeniser, Prompts(("a {}", "no {}"), ("cat",), ("dog", "car")))
    one, other = (
        text_rows(network, tokeniser, Prompts((template,), ("cat",), ("dog", "car"))) for template in ("a {}", "no {}")
    )
    expected = functional.normalize(one.background + other.background, dim=1)
    assert both.classes.shape == (1, 24) and torch.allclose(both.background, expected, atol=1e-5)
    # What stands behind the end does not matter.
    ids = torch.from_numpy(tokeniser.rows(["cat", "cat dog"], 16))[:, None]
    assert torch.allclose(text_features(network, ids)[0], text_features(network, ids[:1])[0], atol=1e-5)


def test_three_kinds_of_names_are_one_network(tmp_path: Path) -> None:
    network = draw_clip()
    ours = {name: one.clone().contiguous() for name, one in network.state_dict().items()}
    kinds = {
        "openai.safetensors": ours,
        "open_clip.safetensors": {
            name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}": one
            for name, one in ours.items()
        },
        "hugging_face.safetensors": {
            **of_hugging_face(ours),
            "text_model.embeddings.position_ids": torch.arange(16)[None],
            "vision_model.embeddings.position_ids": torch.arange(10)[None],
        },
    }
    for name, tensors in kinds.items():
        save_file(tensors, tmp_path / name)
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": one for name, one in ours.items()}}
    torch.save(wrapped, tmp_path / "checkpoint.pt")
    for name in (*kinds, "checkpoint.pt"):
        state = load_clip(tmp_path / name, half_weights=False).state_dict()
        assert all(torch.equal(state[part], one) for part, one in ours.items()), name
    rounded = load_clip(tmp_path / "openai.safetensors").state_dict()
    halved = {part for part, one in ours.items() if not torch.equal(rounded[part], one)}
    assert halved and all(torch.equal(rounded[part], ours[part].half().float()) for part in halved)
    assert not any(".ln_" in part or "embedding" in part or part == "logit_scale" for part in halved)
    assert {"visual.proj", "text_projection", "visual.conv1.weight"} < halved


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    tensors = {name: one.clone().contiguous() for name, one in draw_clip().state_dict().items()}
    del tensors["visual.ln_post.bias"]
    save_file({**tensors, "visual.more": torch.ones(2)}, tmp_path / "odd.safetensors")
    with pytest.raises(
        ConfigError, match=r"odd.safetensors: the weights do not fit; missing: visual.ln_post.bias; unk"
    ):
        load_clip(tmp_path / "odd.safetensors")
    save_file({"layer.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=r"other.safetensors: found no weights of a CLIP with a vision transformer"):
        load_clip(tmp_path / "other.safetensors")


def test_archives_are_read_and_not_run(tmp_path: Path) -> None:
    module, file = Archived(draw_clip()), tmp_path / "ViT-B-16.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such archives are old
        torch.jit.script(module).save(file)
    tensors = read_archive(file)
    assert is_archive(file) and tensors.keys() == module.state_dict().keys()
    assert all(torch.equal(tensors[name], one) for name, one in module.state_dict().items())
    assert tensors["halved"].dtype == torch.float16
    with pytest.raises(ConfigError, match=r"ViT-B-16.pt: found no weights of a CLIP"):
        load_clip(file)
    with zipfile.ZipFile(tmp_path / "bad.pt", "w") as archive:
        archive.writestr("bad/constants.pkl", b"")
        archive.writestr("bad/data.pkl", b"cos\nsystem\n(S'touch " + str(tmp_path / "run").encode() + b"'\ntR.")
    with pytest.raises(ConfigError, match=r"bad.pt: cannot be read .*it names os.system; nothing of it was run"):
        load_clip(tmp_path / "bad.pt")
    assert not (tmp_path / "run").exists()


class Archived(nn.Module):
    """What an archive is made of: parameters under OpenAI's names."""

    def __init__(self, network: ClipNet) -> None:
        super().__init__()
        self.inner = network.visual.ln_post
        self.register_buffer("scalar", torch.tensor(7))
        self.halved = nn.Parameter(network.text_projection.half(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def of_hugging_face(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a network under Hugging Face's names, one rule after the other."""
    fixed = {
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "logit_scale": "logit_scale",
    }
    named: dict[str, Tensor] = {}
    for name, one in tensors.items():
        side = "vision_model" if name.startswith("visual.") else "text_model"
        part = name.removeprefix("visual.")
        if name in fixed:
            named[fixed[name]] = one
        elif name in ("text_projection", "visual.proj"):
            named["text_projection.weight" if name[0] == "t" else "visual_projection.weight"] = one.T.contiguous()
        elif ".resblocks." in name:
            _, _, number, *rest = part.split(".")
            where, last = f"{side}.encoder.layers.{number}", ".".join(rest)
            if last.startswith("attn.in_proj_"):
                for letter, third in zip("qkv", one.chunk(3), strict=True):
                    named[f"{where}.self_attn.{letter}_proj.{last[13:]}"] = third.contiguous()
            else:
                for theirs, mine in (
                    ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("attn.", "self_attn."), ("c_fc", "fc1"),
                    ("c_proj", "fc2"),
                ):  # fmt: skip
                    last = last.replace(theirs, mine)
                named[f"{where}.{last}"] = one
        else:
            norm = {"ln_final": "final_layer_norm", "ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}
            named[f"{side}.{norm[part.split('.')[0]]}.{part.split('.')[1]}"] = one
    return named
