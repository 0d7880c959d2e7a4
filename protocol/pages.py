"""Pages: what a hospital's readiness page and a run's report are made of. Python prepares these plain values, templates
lay them out, and every text that comes into one is escaped.

Templates are Python files, because Flower's bundle, from which a coordinator runs, takes no HTML.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import DictLoader, Environment, StrictUndefined

from protocol.page_parts import BASE, PARTS


@dataclass(frozen=True)
class Styled:
    """Text with a class of the style."""

    text: str
    css: str


@dataclass(frozen=True)
class Bar:
    """A share from 0 to 1; without a label its percentage stands beside it."""

    share: float
    label: str = ""
    css: str = ""

    @property
    def percent(self) -> str:
        """How long it is."""
        return f"{self.share:.1%}"


@dataclass(frozen=True)
class Scale:
    """A horizontal axis that several drawings share, with one line of reference."""

    low: float
    high: float
    reference: float

    def percent(self, value: float) -> str:
        """Where a value stands, kept within the drawing.

        Example:
            >>> Scale(0.0, 2.0, 1.0).percent(1.5), Scale(0.0, 2.0, 1.0).percent(9.0)
            ('75.0%', '100.0%')
        """
        return f"{min(max((value - self.low) / (self.high - self.low), 0.0), 1.0):.1%}"

    @property
    def marks(self) -> list[str]:
        """Both ends with the reference between them, signed where it goes both ways.

        Example:
            >>> Scale(0.4, 1.0, 0.5).marks, Scale(-0.1, 0.1, 0.0).marks[1:]
            (['0.4', '0.5', '1'], ['0', '+0.1'])
        """
        values = (self.low, self.reference, self.high)
        return [f"{value:{'+' if self.low < 0 and value else ''}g}".replace("-", "\N{MINUS SIGN}") for value in values]


@dataclass(frozen=True)
class Interval:
    """A point on a scale, with its interval if it has one."""

    scale: Scale
    point: float
    ends: Sequence[float] | None
    label: str
    css: str = ""


Cell = str | Styled | Bar | Interval | Sequence["Cell"]
Column = str | Scale | tuple[str, Sequence[str | Scale]]
"""A title, the scale over drawings, or a title over several columns."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under their columns; the first cell names its row."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    text_columns: Sequence[int] = ()
    strong_rows: Sequence[int] = ()


TEMPLATES = Environment(
    loader=DictLoader({"base": BASE, "parts": PARTS}),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
for _kind in (Styled, Bar, Scale, Interval):
    TEMPLATES.tests[_kind.__name__] = lambda value, kind=_kind: isinstance(value, kind)


def render(template: str, **values: object) -> str:
    """The page that a template makes of values. A value that it asks for and that is not given is an error.

    Example:
        >>> render("<p>{{ text }}</p>", text="1 < 2")
        '<p>1 &lt; 2</p>'
    """
    return TEMPLATES.from_string(template).render(values)
