"""HTML and SVG in small pieces. Text is escaped unless it is ``Html`` already.

Drawings scale with their column: positions are percentages, so lines and dots keep their size on any screen. Each says
in words what it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


class Html(str):
    """Text that is markup already."""


Columns = Sequence[str | tuple[str, Sequence[str]]]
"""Column titles; a pair is a title over several columns."""


def html(text: str) -> Html:
    """Markup as it is, anything else escaped.

    Example:
        >>> html("a < b"), html(Html("<b>"))
        ('a &lt; b', '<b>')
    """
    return text if isinstance(text, Html) else Html(escape(text))


def element(tag: str, *content: str, css: str = "") -> Html:
    """An element around its content.

    Example:
        >>> element("p", "1 < 2", css="note")
        '<p class="note">1 &lt; 2</p>'
    """
    return Html(f"{_opening(tag, css)}{''.join(html(part) for part in content)}</{tag}>")


def _opening(tag: str, css: str = "", **attributes: str | int) -> str:
    given = {**({"class": css} if css else {}), **attributes}
    return "".join((f"<{tag}", *(f' {name}="{value}"' for name, value in given.items()), ">"))


def note(*content: str) -> Html:
    """A paragraph in small print."""
    return element("p", *content, css="note")


def section(anchor: str, title: str, *content: str) -> Html:
    """A titled part of the page."""
    return Html(f'<section id="{anchor}">{element("h2", title)}{"".join(html(part) for part in content)}</section>\n')


def items(texts: Sequence[str], css: str = "") -> Html:
    """A list."""
    return element("ul", *(element("li", text) for text in texts), css=css)


def definitions(pairs: Sequence[tuple[str, str]]) -> Html:
    """Terms and what they stand for."""
    return element("dl", *(part for term, text in pairs for part in (element("dt", term), element("dd", text))))


def table(
    caption: str,
    columns: Columns,
    rows: Sequence[Sequence[str]],
    text_columns: Sequence[int] = (),
    strong_rows: Sequence[int] = (),
) -> Html:
    """A table that scrolls within itself on a narrow screen."""
    top, below = [], []
    has_groups = any(not isinstance(column, str) for column in columns)
    for index, column in enumerate(columns):
        if isinstance(column, str):
            css = "text" if index in text_columns else ""
            top.append(f"{_opening('th', css, scope='col', rowspan=1 + has_groups)}{html(column)}</th>")
        else:
            title, parts = column
            top.append(f"{_opening('th', 'group', scope='colgroup', colspan=len(parts))}{html(title)}</th>")
            below += [f'<th scope="col">{html(part)}</th>' for part in parts]
    head = f"<tr>{''.join(top)}</tr>" + (f"<tr>{''.join(below)}</tr>" if has_groups else "")
    body = "".join(_row(row, text_columns, index in strong_rows) for index, row in enumerate(rows))
    return Html(
        f'<div class="scroll" tabindex="0"><table>{element("caption", element("span", caption))}'
        f"<thead>{head}</thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def _row(cells: Sequence[str], text_columns: Sequence[int], is_strong: bool) -> str:
    first, *rest = cells
    others = (element("td", cell, css="text" if i in text_columns else "") for i, cell in enumerate(rest, start=1))
    return f'{_opening("tr", "strong" if is_strong else "")}<th scope="row">{html(first)}</th>{"".join(others)}</tr>\n'


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
        share = (value - self.low) / (self.high - self.low)
        return f"{100.0 * min(max(share, 0.0), 1.0):.1f}%"


def interval(scale: Scale, point: float, ends: Sequence[float] | None, label: str, css: str = "") -> Html:
    """A point with its interval over the line of reference."""
    reference = scale.percent(scale.reference)
    line = ""
    if ends is not None:
        low, high = (scale.percent(end) for end in ends)
        line = f'<line x1="{low}" x2="{high}" y1="7" y2="7" class="range"/>'
    return _drawing(
        f'<line x1="{reference}" x2="{reference}" y1="0" y2="14" class="reference"/>{line}'
        f'<circle cx="{scale.percent(point)}" cy="7" r="3.5" class="point"/>',
        label, f"interval {css}".strip(),
    )  # fmt: skip


def bar(share: float, label: str, css: str = "") -> Html:
    """A bar of a share from 0 to 1."""
    return _drawing(
        f'<rect width="{100 * share:.1f}%" height="10" y="2" rx="1.5" class="fill"/>', label, f"bar {css}".strip()
    )


def curve(values: Sequence[float | None], best: int, label: str) -> Html:
    """A line over rounds from 0 on, the kept round marked; rounds without a value are skipped."""
    known = [(index, value) for index, value in enumerate(values) if value is not None]
    if not known:
        return note("no tuning stays")
    low, high = min(value for _, value in known), max(value for _, value in known)

    def place(index: int, value: float) -> tuple[float, float]:
        across = index / max(len(values) - 1, 1)
        down = (high - value) / (high - low) if high > low else 0.5
        return 100.0 * across, 6.0 + 88.0 * down

    places = {index: place(index, value) for index, value in known}
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places.values())
    marks = "".join(f'<circle cx="{x:.1f}%" cy="{y:.1f}%" r="1.8" class="dot"/>' for x, y in places.values())
    if best in places:
        x, y = places[best]
        marks += f'<circle cx="{x:.1f}%" cy="{y:.1f}%" r="4.5" class="point"/>'
    line = (
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">'
        f'<polyline points="{points}" vector-effect="non-scaling-stroke"/></svg>'
    )
    return _drawing(line + marks, label, "curve")


def _drawing(content: str, label: str, css: str) -> Html:
    """An SVG with its meaning in words."""
    return Html(f'<svg role="img" aria-label="{escape(label)}" class="{css}">{content}</svg>')
