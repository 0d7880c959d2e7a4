"""Templates: every text is escaped, both pages stand on one base, and no other code makes HTML."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import UndefinedError, meta, nodes

from client.checks.template import TEMPLATE as READINESS
from protocol.page_parts import BASE, PARTS
from protocol.pages import TEMPLATES, Bar, Cell, Interval, Scale, Styled, Table, render
from protocol.source import PACKAGES
from server.report.template import TEMPLATE as REPORT
from tests.pages import HOSTILE, hostile, read, shape

ALL = {"base": BASE, "parts": PARTS, "report": REPORT, "readiness": READINESS}
PART = '{% from "parts" import section, table, items, definitions %}'


def texts(repository: Path) -> Iterator[tuple[str, str]]:
    """Every text in the code of the packages that is no docstring."""
    for path in (path for package in (*PACKAGES, "simulation") for path in (repository / package).rglob("*.py")):
        tree = ast.parse(path.read_text())
        told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
                yield path.relative_to(repository).as_posix(), node.value


def test_the_templates_are_these_and_no_other_code_makes_html(repository: Path) -> None:
    found = {
        (name, text) for name, text in texts(repository) if "{%" in text or re.search(r"</\w|<\w+[^<>]* \w+=", text)
    }
    assert {text for _, text in found} == set(ALL.values())
    assert {name for name, _ in found} == {
        "protocol/page_parts.py", "server/report/template.py", "client/checks/template.py"
    }  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_every_template_escapes(name: str) -> None:
    assert TEMPLATES.autoescape is True
    tree = TEMPLATES.parse(ALL[name])
    assert not list(tree.find_all((nodes.EvalContextModifier, nodes.MarkSafe, nodes.MarkSafeIfAutoescape)))
    assert not {found.name for found in tree.find_all(nodes.Filter)} & {"safe", "xmlattr", "urlize", "tojson"}


@pytest.mark.parametrize("name", ["report", "readiness"])
def test_both_pages_stand_on_one_base(name: str) -> None:
    tree = TEMPLATES.parse(ALL[name])
    assert [found.template.as_const() for found in tree.find_all(nodes.Extends)] == ["base"]
    assert set(meta.find_referenced_templates(tree)) == {"base", "parts"}
    parts = {macro.name for macro in TEMPLATES.parse(PARTS).find_all(nodes.Macro)}
    assert not parts & {macro.name for macro in tree.find_all(nodes.Macro)}


def test_every_part_escapes_every_text() -> None:
    scale = Scale(0.0, 1.0, 0.5)
    cells: list[Cell] = [
        "a",
        Styled("b", "c"),
        Bar(0.5, "d", "e"),
        Interval(scale, 0.5, (0.4, 0.6), "f", "g"),
        ["h", Styled("i", "j")],
    ]
    table = Table(["k", scale, ("l", ["m", scale]), "n"], [cells], "o", (0, 1), (0,))
    template = (
        f"{PART}{{{{ table(it) }}}}{{{{ items(texts) }}}}{{{{ definitions(pairs) }}}}"
        "{% call section(anchor, title, css) %}{{ text }}{% endcall %}"
    )
    values = {"it": table, "texts": ["p"], "pairs": [("q", "r")], "anchor": "s", "title": "t", "css": "u", "text": "v"}
    page, poisoned = render(template, **values), render(template, **hostile(values))
    assert shape(poisoned) == shape(page)
    assert "".join(read(poisoned).text).count(HOSTILE) == len("abhiklmnopqrtv")
    attributes = " ".join(str(value) for _, found in read(poisoned).tags for value in found.values())
    assert attributes.count(HOSTILE) == len("cdefgjsu")


def test_a_bar_without_a_label_says_its_percentage() -> None:
    page = read(render(f"{PART}{{{{ table(it) }}}}", it=Table(["share"], [[Bar(0.25)], [Bar(0.5, "half")]])))
    assert [text for text in page.text if text.strip()] == ["share", "25.0%"]
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert [(found.get("aria-hidden"), found.get("aria-label")) for found in drawings] == [
        ("true", None),
        (None, "half"),
    ]


def test_a_value_that_is_not_given_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="title"):
        render('{% extends "base" %}')
    with pytest.raises(UndefinedError):
        render("{{ answer.verdict }}", answer={})
