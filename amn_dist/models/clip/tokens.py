"""CLIP's byte pair tokeniser, from OpenAI's file of merges (clip 2.2)."""

from __future__ import annotations

import gzip
import html
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from amn_dist.errors import PLACE, ConfigError, printable, quoted

END = "</w>"
"""Glued to the last symbol of a piece."""
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
LONGEST = 2**24
"""Bytes of a vocabulary at most; OpenAI's has 3.2 MB unpacked."""


class Tokeniser:
    """Texts to ids: 256 bytes, the same with END, one id a merge, start and end."""

    def __init__(self, merges: Sequence[tuple[str, str]]) -> None:
        symbols = list(_byte_symbols().values())
        words = [*symbols, *(symbol + END for symbol in symbols), *map("".join, merges), *SPECIAL]
        self._ids = {word: number for number, word in enumerate(words)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._bytes = _byte_symbols()

    def encode(self, text: str) -> list[int]:
        """Ids of a text, start and end included. Letters lose their case; odd encodings are not repaired."""
        cleaned = " ".join(html.unescape(html.unescape(text)).split()).lower()
        ids = [self._ids[SPECIAL[0]]]
        for piece in _pieces(cleaned):
            ids += [self._ids[piece]] if piece in SPECIAL else self._of_piece(piece)
        return [*ids, self._ids[SPECIAL[1]]]

    def rows(self, texts: Iterable[str], context: int) -> np.ndarray:
        """Ids int64[N, context], zeros behind the end. Raises ConfigError naming a text that is too long."""
        rows = []
        for text in texts:
            ids = self.encode(text)
            if len(ids) > context:
                raise ConfigError(
                    f"clip_map: the prompt {quoted(text)} has {len(ids)} tokens, expected {context} at most; shorten it"
                )
            rows.append(ids + [0] * (context - len(ids)))
        return np.array(rows, np.int64).reshape(-1, context)

    def _of_piece(self, piece: str) -> list[int]:
        symbols = [self._bytes[byte] for byte in piece.encode()]
        symbols[-1] += END
        while len(symbols) > 1:
            first = min(pairwise(symbols), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if first not in self._ranks:
                break
            symbols = _merged(symbols, first)
        return [self._ids[symbol] for symbol in symbols]


def read_tokeniser(path: str | os.PathLike[str], vocabulary: int) -> Tokeniser:
    """The tokeniser of a file of merges (text, or .gz), one pair a line behind a heading, for so many ids.

    Raises ConfigError naming the file when it cannot be read or holds fewer merges than a network of so many ids needs.
    """
    where, wanted = printable(os.fspath(path), PLACE), vocabulary - 2 * 256 - len(SPECIAL)
    try:
        packed = Path(path).suffix == ".gz"
        with gzip.open(path) if packed else open(path, "rb") as file:
            lines = file.read(LONGEST).decode("utf-8").split("\n")[1 : wanted + 1]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: cannot be read as CLIP's vocabulary ({printable(error)})") from error
    merges = [(pair[0], pair[1]) for line in lines if len(pair := line.split()) == 2]
    if wanted < 0 or len(merges) != wanted:
        raise ConfigError(
            f"{where}: found {len(merges)} merges, expected {wanted}, one a line behind a heading, for a network of "
            f"{vocabulary} tokens; give the vocabulary of these weights"
        )
    return Tokeniser(merges)


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Symbols with every occurrence of a pair joined, from left to right."""
    joined: list[str] = []
    waiting = False
    for symbol in symbols:
        if waiting and (joined[-1], symbol) == pair:
            joined[-1] += symbol
            waiting = False
        else:
            joined.append(symbol)
            waiting = True
    return joined


def _byte_symbols() -> dict[int, str]:
    """A printable character for every byte; those that print stand for themselves and come first."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(shown)]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + number) for number, byte in enumerate(others)}


def _pieces(text: str) -> Iterator[str]:
    """Special tokens, contractions, runs of letters, single digits, and runs of anything else but blanks."""
    place = 0
    while place < len(text):
        for fixed in (*SPECIAL, *CONTRACTIONS):
            if text.startswith(fixed, place):
                break
        else:
            fixed = _run(text, place)
        if fixed.strip():
            yield fixed
        place += len(fixed)


def _run(text: str, place: int) -> str:
    kind = _kind(text[place])
    if kind in ("number", "blank"):
        return text[place]
    end = place + 1
    while end < len(text) and _kind(text[end]) == kind:
        end += 1
    return text[place:end]


def _kind(character: str) -> str:
    if re.match(r"\s", character):
        return "blank"
    category = unicodedata.category(character)[0]
    return {"L": "letter", "N": "number"}.get(category, "other")
