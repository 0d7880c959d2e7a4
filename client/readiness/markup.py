"""HTML in small pieces. Text is escaped unless it is ``Html`` already."""

from collections.abc import Sequence
from html import escape


class Html(str):
    """Text that is markup already."""


def html(text: str) -> str:
    """Markup as it is, anything else escaped.

    Example:
        >>> html("a < b"), html(Html("<b>"))
        ('a &lt; b', '<b>')
    """
    return text if isinstance(text, Html) else escape(text)


def element(tag: str, *content: str, css: str = "") -> Html:
    """An element around its content.

    Example:
        >>> element("p", "1 < 2", css="note")
        '<p class="note">1 &lt; 2</p>'
    """
    opening = f'{tag} class="{css}"' if css else tag
    return Html(f"<{opening}>{''.join(map(html, content))}</{tag}>")


def section(anchor: str, title: str, *content: str) -> Html:
    """A titled part of the page."""
    return Html(f'<section id="{anchor}">{element("h2", title)}{"".join(map(html, content))}</section>\n')


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], text_columns: Sequence[int] = ()) -> Html:
    """A table that scrolls within itself on a narrow screen; the first column names the row."""
    css = ["text" if index in text_columns else "" for index in range(len(columns))]
    head = "".join(
        f'<th scope="col" class="{kind}">{html(column)}</th>' for column, kind in zip(columns, css, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row">{html(first)}</th>'
        f"{''.join(element('td', cell, css=kind) for cell, kind in zip(rest, css[1:], strict=True))}</tr>\n"
        for first, *rest in rows
    )
    return Html(
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n'
    )


def bar(share: float) -> Html:
    """A share from 0 to 1 as a bar with its percentage.

    Example:
        >>> "50.0%" in bar(0.5)
        True
    """
    return Html(
        f'<span class="bar"><svg aria-hidden="true"><rect width="{100 * share:.1f}%" height="10" y="2" rx="1.5"/></svg>'
        f"<span>{share:.1%}</span></span>"
    )


def definitions(pairs: Sequence[tuple[str, str]]) -> Html:
    """Terms and what they stand for."""
    return element("dl", *(part for term, text in pairs for part in (element("dt", term), element("dd", text))))
