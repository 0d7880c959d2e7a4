"""What a digest of the source covers: all code that decides, and nothing else."""

import ast
import io
import re
import shutil
import tokenize
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest

from client.prepare import program
from client.prepare.program import files_of_preparation
from protocol.source import LEFT_OUT, PACKAGES, code_of, source_digest

LAYOUT = "client/layouts/mimic_iv/layout.py"


@pytest.fixture(scope="module")
def tree(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the packages, of which each file is read once."""
    folder = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(repository / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("protocol.source.code_of", cache(code_of))
        yield folder


@contextmanager
def changed(tree: Path, name: str, change: Callable[[str], str]) -> Iterator[None]:
    """One file of the tree changed for a while."""
    path = tree / name
    before = path.read_text() if path.exists() else None
    path.write_text(change(before or ""))
    assert path.read_text() != before
    yield
    if before is None:
        path.unlink()
    else:
        path.write_text(before)


def digests(tree: Path) -> tuple[str, str]:
    """Of the study and of cohorts, read anew."""
    return source_digest.__wrapped__(tree), program.source_digest.__wrapped__(LAYOUT, tree)


def another_number(source: str) -> str:
    """The last whole number of a file's code, one larger."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    found = [token for token in tokens if token.type == tokenize.NUMBER and token.string.isdigit()]
    (line, start), (_, end) = found[-1].start, found[-1].end
    lines = source.split("\n")
    lines[line - 1] = f"{lines[line - 1][:start]}{int(found[-1].string) + 1}{lines[line - 1][end:]}"
    return "\n".join(lines)


def a_comma(source: str) -> str:
    """A comma more in the last text of a file."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    found = [t for t in tokens if t.type == tokenize.STRING and " " in t.string and t.start[0] == t.end[0]]
    (line, _), (_, end) = found[-1].start, found[-1].end
    lines = source.split("\n")
    lines[line - 1] = f"{lines[line - 1][: end - 1]},{lines[line - 1][end - 1 :]}"
    return "\n".join(lines)


def more_words(source: str) -> str:
    """Another docstring, comments, empty lines."""
    first, _, rest = source.partition("\n")
    return f"# New.\n{first[:3]}Another. {first[3:]}\n{rest}\n\n# The end.\n"


def test_a_copy_has_the_digests_of_the_original(tree: Path) -> None:
    assert digests(tree) == (source_digest(), program.source_digest(LAYOUT))


@pytest.mark.parametrize(
    "name",
    ["server/report/words.py", "server/cli.py", "client/cli.py", "client/checks/check.py", "client/checks/page.py",
     "client/checks/machine.py", "protocol/pages.py"],
)  # fmt: skip
def test_a_comma_in_what_is_told_changes_nothing(tree: Path, name: str) -> None:
    with changed(tree, name, a_comma):
        assert digests(tree) == (source_digest(), program.source_digest(LAYOUT))


@pytest.mark.parametrize("package", PACKAGES)
def test_comments_and_docstrings_of_any_file_change_nothing(tree: Path, package: str) -> None:
    with ExitStack() as all_files:
        for path in (tree / package).rglob("*.py"):
            all_files.enter_context(changed(tree, path.relative_to(tree).as_posix(), more_words))
        assert digests(tree) == (source_digest(), program.source_digest(LAYOUT))


OF_STUDIES = [
    "client/door/egress.py", "client/door/stages.py", "client/budget/accounting.py", "client/budget/ledger.py",
    "client/site.py", "lemof_model/study.py", "lemof_model/training.py", "lemof_model/encoders/ecg_resnet.py",
    "server/aggregation.py", "server/evaluation.py", "server/rounds.py",
]  # fmt: skip
OF_COHORTS = ["lemof_model/concepts.py", "lemof_model/splits.py", "client/cohort/store.py",
              "client/layouts/mimic_iv/tables.py", "client/layouts/mimic_iv/items.py", "client/prepare/stays.py",
              "client/prepare/first_day.py", "readers/ecg/record.py"]  # fmt: skip


@pytest.mark.parametrize("name", OF_STUDIES + OF_COHORTS)
def test_a_number_that_decides_changes_the_digest(tree: Path, name: str) -> None:
    with changed(tree, name, another_number):
        study, cohorts = digests(tree)
    assert study != source_digest()
    assert (cohorts != program.source_digest(LAYOUT)) == (name in OF_COHORTS)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_new_file_counts(tree: Path, package: str) -> None:
    with changed(tree, f"{package}/brand_new.py", lambda _: "X = 1\n"):
        assert digests(tree)[0] != source_digest()


def test_a_new_file_that_preparation_leans_on_counts_for_cohorts(tree: Path) -> None:
    found = []
    for number in (1, 2):
        with (
            changed(
                tree,
                "client/layouts/mimic_iv/tables.py",
                lambda text: f"{text}\nfrom client.layouts.mimic_iv import brand_new\n",
            ),
            changed(tree, "client/layouts/mimic_iv/brand_new.py", f"X = {number}\n{{}}".format),
        ):
            found.append(digests(tree)[1])
    assert len({*found, program.source_digest(LAYOUT)}) == 3


def test_what_is_left_out_is_there_and_nothing_that_counts_leans_on_it(repository: Path) -> None:
    assert [name for name in LEFT_OUT if not (repository / name).exists()] == []
    leaning = set()
    for package in PACKAGES:
        for path in (repository / package).rglob("*.py"):
            name = path.relative_to(repository).as_posix()
            if not name.startswith(LEFT_OUT):
                leaning |= {
                    (name, other) for other in program._imported(name, repository) if other.startswith(LEFT_OUT)
                }
    assert leaning == {("server/run.py", "server/report/page.py")}


def test_a_cohort_leans_on_all_of_its_package_and_on_no_training(repository: Path) -> None:
    files = files_of_preparation(LAYOUT, repository)
    rooms = (repository / "client/layouts", repository / "client/prepare")
    own = {path.relative_to(repository).as_posix() for room in rooms for path in room.rglob("[!_]*.py")}
    assert own - files == set()
    assert {name.split("/")[0] for name in files} == {"client", "lemof_model", "protocol", "readers"}
    assert not [
        name for name in files if re.search(r"encoders|training|stages|privacy|egress|accounting|messages", name)
    ]


def test_code_without_words_is_the_same_program(repository: Path) -> None:
    """Held against the syntax tree, every file of the packages."""
    for package in PACKAGES:
        for path in (repository / package).rglob("*.py"):
            source = path.read_text()
            code = re.sub(
                r"((?:class|def) [^\n]*:\n)(?=(?:@|class|def|[A-Z_a-z]+ ?=|\Z))", r"\1    pass\n", code_of(source)
            )
            try:
                told = ast.dump(without_words(ast.parse(code)))
            except SyntaxError:  # a class in a class of which the docstring was all
                continue
            assert told == ast.dump(without_words(ast.parse(source))), path


def without_words(tree: ast.Module) -> ast.Module:
    """A syntax tree without strings that stand alone."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [one for one in body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
            node.body = kept or ([] if isinstance(node, ast.Module) else [ast.Pass()])  # type: ignore[attr-defined]
    return tree


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ('def f():\n    "doc"\n    return 1\n', "def f():\n    return 1\n"),
        ('def f(): "doc"\n', 'def f(): "doc"\n'),
        ("x = '#'  # no\n", "x = '#'\n"),
        ('x = """a\n\n# b\n  """\n', 'x = """a\n\n# b\n  """\n'),
        ('f(\n    "a"  # b\n)\n', 'f(\n    "a"\n)\n'),
        ('x = 1\n"""of x,\n\nlong"""  # c\n\ny = 2', "x = 1\ny = 2\n"),
        ("f'''{g()}'''\n", "f'''{g()}'''\n"),
        ('"doc"; x = 1\n', '"doc"; x = 1\n'),
    ],
)
def test_what_is_code(source: str, code: str) -> None:
    assert code_of(source) == code
