"""What tests of both pages need: a page read into its elements, and values that would break one that did not escape."""

import dataclasses
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

VOID = ("meta", "line", "circle", "rect", "polyline", "br")
HOSTILE = "</span></svg></td><script>alert(1)</script><b onclick='x' class=\"x\">&amp;"
"""Breaks out of an element, and of an attribute in either kind of quotes."""


class Outline(HTMLParser):
    """Checks that elements close in order, and collects text, tags and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(page: str) -> Outline:
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    return outline


def hostile(value: Any) -> Any:
    """The same value with something hostile in every text."""
    if isinstance(value, str):
        return f"{value}{HOSTILE}" if value else ""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(
            value, **{field.name: hostile(getattr(value, field.name)) for field in dataclasses.fields(value)}
        )
    if isinstance(value, Mapping):
        return {key: hostile(one) for key, one in value.items()}
    return type(value)(map(hostile, value)) if isinstance(value, (list, tuple)) else value


def shape(page: str) -> list[tuple[str, list[str]]]:
    """The elements of a page with the names of their attributes: what no text may change."""
    return [(tag, sorted(attributes)) for tag, attributes in read(page).tags]
