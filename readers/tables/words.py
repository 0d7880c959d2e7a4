"""The words of a column (how units are spelled, what became of an infusion) as small numbers: Python is asked once what
each of them is, and rows are joined and grouped by numbers."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import polars as pl

from readers.tables.files import collect

NONE = 0
MAX_STRANGE = 256  # MIMIC-IV has a dozen in the laboratory values that are read
MAX_LETTERS = 20
STRANGE_TEXT = "another text"
"""What stands for strange words beyond ``MAX_STRANGE``, for what is too long for a word, and for what has no letter:
free text then neither fills a summary nor gets into a message."""


class Words:
    """Numbers for the words that some texts are: ``NONE`` for none, then the ``known`` ones, then the others.

    ``plain`` says which texts are one word, and that some are none (an empty text).

    Example:
        >>> words = Words(["mg/dL", "%", "mmol/L", "haemolysed, please send again", " "], ["mg/dl", "%"], str.lower)
        >>> {text: words.meant_by(number) for text, number in words.numbers.items()}
        {' ': 'another text', '%': '%', 'haemolysed, please send again': 'another text', 'mg/dL': 'mg/dl', \
'mmol/L': 'mmol/l'}
    """

    def __init__(self, texts: Iterable[str], known: Sequence[str], plain: Callable[[str], str]) -> None:
        met = list(dict.fromkeys((*known, STRANGE_TEXT)))
        word_of = {text: plain(text) for text in sorted(texts)}
        strange = [word for word in sorted({*word_of.values()} - {*met, ""}) if _is_word(word)]
        self.words = [*met, *strange[:MAX_STRANGE]]
        number_of = {"": NONE} | {word: number for number, word in enumerate(self.words, start=1)}
        self.numbers = {text: number_of.get(word, number_of[STRANGE_TEXT]) for text, word in word_of.items()}

    @property
    def num(self) -> int:
        """No number is so large."""
        return len(self.words) + 1

    def number_of(self, word: str) -> int:
        """The number of a known word."""
        return self.words.index(word) + 1

    def meant_by(self, number: int) -> str | None:
        """The word of a number; None for none."""
        return self.words[number - 1] if number else None

    def numbered(self, frame: pl.LazyFrame, column: str, number: str) -> pl.LazyFrame:
        """A frame with the numbers of a column's words in another."""
        table = pl.LazyFrame(
            {column: list(self.numbers), number: list(self.numbers.values())}, {column: pl.String, number: pl.UInt16}
        )
        return frame.join(table, on=column, how="left").with_columns(pl.col(number).fill_null(NONE))

    def in_words(self, frame: pl.DataFrame, number: str) -> pl.DataFrame:
        """A frame with a column of numbers turned into their words."""
        words = dict(enumerate(self.words, start=1))
        return frame.with_columns(pl.col(number).replace_strict(words, default=None, return_dtype=pl.String))


def texts_of(frame: pl.LazyFrame, column: str, path: Path) -> list[str]:
    """The different texts of a column, in one pass over ``path``.

    Raises:
        DataError: the file is damaged.
    """
    return collect(frame.select(column).drop_nulls().unique(), path)[column].to_list()


def _is_word(text: str) -> bool:
    """Whether it may be one: short, with a letter or a percent sign."""
    return len(text) <= MAX_LETTERS and any(letter.isalpha() or letter == "%" for letter in text)
