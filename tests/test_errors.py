"""Errors in fields: what must hold, what came, what to do, and a number that the hospital guide explains."""

import ast
import pickle
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from client.checks.findings import failures
from lemof_model.errors import ConfigError, DataError, LemofError, Problem
from protocol.codes import FAILURES, table

PACKAGES = ("lemof_model", "protocol", "readers", "client", "server", "simulation")
OF_DISEASES = ("comorbidities.py", "diagnoses.py")  # their E11 is diabetes


def trees(repository: Path) -> Iterator[tuple[str, ast.Module]]:
    """Every source file of the packages, as Python reads it."""
    for package in PACKAGES:
        for path in (repository / package).rglob("*.py"):
            yield path.relative_to(repository).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def own_errors(repository: Path) -> set[str]:
    """The names of our errors, wherever they are declared."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for _, tree in trees(repository)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {"LemofError"}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found


def codes_in(repository: Path) -> dict[str, str]:
    """Every number that the packages show, and one place that does."""
    return {
        (match[1] or match[2]): f"{name}:{node.lineno}"
        for name, tree in trees(repository)
        if not name.endswith((*OF_DISEASES, "protocol/codes.py"))
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if (match := re.search(r"^(E\d{3})(?: |$)|\[(E\d{3})\]$", node.value))
    }


def test_every_number_is_in_the_catalogue_and_each_of_the_catalogue_is_shown_somewhere(repository: Path) -> None:
    shown, listed = codes_in(repository), {failure.code for failure in FAILURES}
    assert {code: place for code, place in shown.items() if code not in listed} == {}, "not in protocol/codes.py"
    assert listed - shown.keys() == set(), "nothing shows them: take them out of protocol/codes.py"


def test_the_catalogue_has_every_meaning_once_and_in_order() -> None:
    meanings = [(failure.code, failure.of) for failure in FAILURES]
    assert len(set(meanings)) == len(meanings)
    codes = [failure.code for failure in FAILURES]
    assert codes == sorted(codes)
    assert all(two.of for one, two in pairwise(FAILURES) if one.code == two.code)


def test_the_guide_prints_the_catalogue(repository: Path) -> None:
    guide = (repository / "docs/hospital_guide.md").read_text(encoding="utf-8")
    assert "".join(table()) in guide, "print it anew: python -m protocol.codes"
    listed = {failure.code for failure in FAILURES}
    for document in (repository / "docs").glob("*_guide.md"):
        named = set(re.findall(r"\bE\d{3}\b", document.read_text(encoding="utf-8")))
        assert named <= listed, document.name


def test_every_error_is_raised_in_fields(repository: Path) -> None:
    errors = own_errors(repository)
    in_strings = [
        f"{name}:{node.lineno}"
        for name, tree in trees(repository)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in errors
        if any(isinstance(one, ast.Constant | ast.JoinedStr) for one in node.args)
    ]
    assert in_strings == []


def test_a_message_is_composed_of_its_fields() -> None:
    error = DataError(rule="a must be b", got="c from d.csv", fix="Do e.", code="E101")
    assert (error.rule, error.got, error.fix, error.code) == ("a must be b", "c from d.csv", "Do e.", "E101")
    assert str(error) == "a must be b, got c from d.csv. Do e. [E101]"
    assert str(Problem("a must be b", "c", place="plan.yaml:a")) == "a must be b, got c. (from plan.yaml:a)"
    assert str(Problem("a must be b", "c", "Name one:\n d\n e")) == "a must be b, got c. Name one:\n d\n e"
    assert str(Problem("a must be b", "c", "\n d\n e")) == "a must be b, got c.\n d\n e"


def test_an_error_comes_whole_out_of_another_process() -> None:
    error = DataError(rule="a must be b", got="c", fix="Do e.", code="E101")
    error.told_outside = "nothing"
    for sent in (error, ConfigError(*error.problems, Problem("f must be g", "h"))):
        came = pickle.loads(pickle.dumps(sent))
        assert (type(came), came.problems, str(came)) == (type(sent), sent.problems, str(sent))
        assert came.told_outside == sent.told_outside


@pytest.mark.parametrize("damage", ["\x1b[2J", "\r", "\x00", "\n", "\x9b1m", "\u202e", "\udcff"])
def test_what_a_damaged_file_holds_steers_no_terminal(damage: str) -> None:
    name = f"sub{damage}ject_id"
    error = LemofError(rule=f"{name} must be there", got=f"{name} from x", fix=f"Name {name}.".replace("\n", " "))
    (finding,) = failures(name, error)
    for text in (str(error), error.got, finding.check, finding.found, finding.fix):
        assert text.isprintable(), ascii(text)
