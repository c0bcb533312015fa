"""What the classes of a set and the background are called, and their text features (clip 2)."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amn_dist.errors import ConfigError, listed, quoted
from amn_dist.models.clip.network import ClipNet, text_features
from amn_dist.models.clip.tokens import Tokeniser


@dataclass(frozen=True)
class Prompts:
    """Words of the classes without background, in the order of their ids, and of the background."""

    templates: tuple[str, ...]
    classes: tuple[str, ...]
    background: tuple[str, ...]

    def sentences(self) -> list[str]:
        """Every phrase in every template, the templates of a phrase behind each other."""
        phrases = (*self.classes, *self.background)
        return [template.replace("{}", phrase) for phrase in phrases for template in self.templates]


@dataclass(frozen=True)
class TextRows:
    """Unit rows f32[C-1, E] of classes and f32[N, E] of background words."""

    classes: Tensor
    background: Tensor

    def of_tags(self, tags: Tensor) -> Tensor:
        """Rows of places i64[K] among the classes, background words behind them: f32[K + N, E]."""
        return torch.cat([self.classes[tags], self.background])


def words_of(classes: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """What classes are called in prompts: as they are, or as `names` says. Raises ConfigError for a name of none."""
    odd = [name for name in names if name not in classes]
    if odd:
        near = difflib.get_close_matches(odd[0], classes, n=1)
        hint = f" (did you mean {quoted(near[0])}?)" if near else ""
        raise ConfigError(
            f"clip_map.names: found {listed([quoted(name) for name in odd])}, expected classes of the set{hint}"
        )
    return tuple(names.get(name, name.replace("_", " ")) for name in classes)


def text_rows(network: ClipNet, tokeniser: Tokeniser, prompts: Prompts) -> TextRows:
    """Features of every phrase in every template, averaged over the templates."""
    ids = torch.from_numpy(tokeniser.rows(prompts.sentences(), network.shape.context))
    rows = text_features(network, ids.unflatten(0, (-1, len(prompts.templates))))
    return TextRows(rows[: len(prompts.classes)], rows[len(prompts.classes) :])
