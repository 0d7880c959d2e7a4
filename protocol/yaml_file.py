"""A YAML file as people write it, read so that nothing in it goes wrong in silence.

YAML has readings that nobody means: ``no`` is false, ``010`` is 8, ``12:30`` is 750, of a key that comes twice the
last counts, ``"C:\\new"`` holds a line break. Here a value is text, a number or nothing (``null``); what could mean
something else is refused in plain words, with its line.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lemof_model.errors import ConfigError, Problem

MAX_BYTES = 100_000
MAX_VALUES = 10_000
MAX_DEPTH = 20
INVISIBLE = re.compile("[\u0085\u00a0\u00ad\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff]")
NO_BLANK = re.compile(r"^\s*(?:- )?[A-Za-z_][\w.-]*:[^\s\\/:]")
QUOTE_IT = "Put the whole text in single quotes."


class _Loader(yaml.SafeLoader):
    """Text, numbers and nothing. What YAML 1.1 takes for booleans, dates, octal and sexagesimal numbers is text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    """Writes what ``_Loader`` reads back: a text that looks like a number is put in quotes."""


_RESOLVED = {
    "null": (r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    "int": (r"[-+]?(?:0|[1-9][0-9]{0,17})$", list("-+0123456789")),
    "float": (
        r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$"
        r"|\.(?:nan|NaN|NAN)$",
        list("-+.0123456789"),
    ),
}
for _kind, (_pattern, _first) in _RESOLVED.items():
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), _first)


class _Broken(NamedTuple):
    """A rule that something in the file breaks, what is there, and what to do."""

    rule: str
    got: str
    fix: str

    def by(self, what: str) -> Problem:
        """The problem of ``what``."""
        return Problem(f"{what} must {self.rule}", self.got, self.fix)


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, Problem]]:
    """The sections of a YAML file as plain values; and by key the problems of what they say and cannot mean. Where
    there is one, the values are for finding more problems only.

    Raises:
        ConfigError: it cannot be read at all.
    """
    text = _read_text(path)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        problems = {} if node is None else dict(_Walk(path.name).problems(node))
        content = None if node is None else loader.construct_document(node)
    except RecursionError:
        raise ConfigError(_NESTED.by(path.name)) from None
    except yaml.YAMLError as error:
        raise ConfigError(_in_words(error, text).by(path.name)) from None
    if isinstance(content, dict):
        return content, problems
    found = {None: "nothing", list: "a list"}.get(content if content is None else type(content), "a single text")
    raise ConfigError(_Broken("hold sections", found, "site_configs/ has examples.").by(path.name))


def write_yaml(content: Any) -> str:
    """Plain values as the text of a YAML file, in their order."""
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def _read_text(path: Path) -> str:
    """The file as text, without the mark that some editors put first."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            rule=f"{path} must be a readable file", got=f"{error.strerror}", fix="Check the path."
        ) from None
    if len(content) > MAX_BYTES:
        limit = f"over {MAX_BYTES // 1000} kB"
        raise ConfigError(_Broken("be a short text file", limit, "Is it the right file?").by(path.name))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found = f"letters of another encoding in line {line}"
        raise ConfigError(_Broken("be UTF-8 text", found, "Save it as UTF-8.").by(path.name)) from None


_NESTED = _Broken("hold plain sections", "too many inside one another", "Write every value once, without & and *.")


class _Walk:
    """A walk through the parts of a file that looks for what they cannot mean; parts that stand for others (``&``,
    ``*``) are walked as often as they are meant, up to a limit."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._num_values = 0

    def problems(self, node: yaml.Node, key: str = "", depth: int = 0) -> Iterator[tuple[str, Problem]]:
        """Key and problem of each, in the order of the file."""
        self._num_values += 1
        if self._num_values > MAX_VALUES or depth > MAX_DEPTH:
            raise ConfigError(_NESTED.by(self._file))
        if isinstance(node, yaml.MappingNode):
            yield from self._problems_of_section(node, key, depth)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                yield from self.problems(item, f"{key}.{index}".strip("."), depth + 1)
        elif isinstance(node, yaml.ScalarNode) and (problem := _problem_of_text(node)):
            yield key, self._said(problem, node, key)

    def _problems_of_section(self, section: yaml.MappingNode, key: str, depth: int) -> Iterator[tuple[str, Problem]]:
        """Keys that are no words or come twice, and the problems of the values."""
        line_of: dict[str, int] = {}
        for name, value in section.value:
            if not isinstance(name, yaml.ScalarNode):
                problem = _Broken("be a word", "a section or a list", f"Does a text begin with {{ or [? {QUOTE_IT}")
                raise ConfigError(self._said(problem, name, "a key"))
            own_key = f"{key}.{name.value}".strip(".")
            if (name.value or name.style is None) and (wrong := _problem_of_text(name)):  # '' is what nothing means
                yield own_key, self._said(wrong, name, "a key")
            elif name.value in line_of:
                found = f"it in line {line_of[name.value]} and again in line {_line(name)} of {self._file}"
                yield own_key, _Broken("stand once", found, "Remove one of them.").by(own_key)
            line_of.setdefault(name.value, _line(name))
            yield from self.problems(value, own_key, depth + 1)

    def _said(self, problem: _Broken, node: yaml.Node, what: str) -> Problem:
        """The problem, with the line."""
        got = f"{problem.got} from {self._file}, line {_line(node)}"
        return problem._replace(got=got).by(what or "a value")


def _problem_of_text(node: yaml.ScalarNode) -> _Broken | None:
    """Why a text cannot mean what it says."""
    text, is_plain = str(node.value), node.style is None
    if node.end_mark.line > node.start_mark.line:
        if is_plain and NO_BLANK.match(text):
            return _Broken("have a blank after its colon", "none", "Put one there.")
        advice = "Mend the indentation of the line below." if is_plain else "Write it in one."
        return _Broken("be a text of one line", "one that goes on below", advice)
    if not text:
        return _Broken("have a value", "nothing", "Write one, or take the line out.")
    if is_plain and (seen := INVISIBLE.search(text)):
        return _Broken("hold visible letters", f"the invisible U+{ord(seen[0]):04X}", "Type the blank anew.")
    if is_plain and re.fullmatch(r"[-+]?0[0-9]+", text):
        return _Broken("be a number without a leading 0", text, "Leave it out, or put a text in single quotes.")
    if re.search(r"[\x00-\x1f\x7f]", text):
        if node.style == '"':
            advice = "Use single quotes: in them a backslash is one."
            return _Broken("mean what it shows", "a backslash in double quotes", advice)
        return _Broken("hold visible letters", "one that no screen shows", "Type the text anew.")
    return None


def _line(node: yaml.Node) -> int:
    """The line of the file that a part begins in, from 1."""
    return int(node.start_mark.line) + 1


def _in_words(error: yaml.YAMLError, text: str) -> _Broken:
    """What the parser stumbled over, as somebody who writes the file sees it."""
    lines = text.splitlines()
    if isinstance(error, yaml.reader.ReaderError):
        line = text[: error.position].count("\n") + 1
        return _Broken("be text", f"a character that no text holds in line {line}", "Save it as UTF-8 text.")
    problem = str(getattr(error, "problem", ""))
    mark, context = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    index = min(mark.line if mark else 0, len(lines) - 1)
    begun = context.line + 1 if context else index + 1
    return (
        _layout(problem, lines, index)
        or _quoting(problem, f"line {index + 1}", f"line {begun}")
        or _Broken("be YAML", f"what cannot be read in line {index + 1}", "site_configs/ has examples.")
    )


def _layout(problem: str, lines: Sequence[str], index: int) -> _Broken | None:
    """Blanks, colons and indentation. A line that is not as it must be is often noticed in the next one only."""
    written = [i for i in range(index) if lines[i].strip() and not lines[i].lstrip().startswith("#")]
    before = written[-1] if written else index
    for i in (before, index):
        if "\t" in lines[i]:
            return _Broken("have blanks between words", f"a tab in line {i + 1}", "Put blanks in its place.")
        if seen := INVISIBLE.search(lines[i]):
            found = f"the invisible U+{ord(seen[0]):04X} in line {i + 1}"
            return _Broken("hold visible letters", found, "Type the blank anew.")
    is_no_pair = problem.startswith(("mapping values are not", "could not find expected ':'"))
    for i in (before, index):
        if is_no_pair and NO_BLANK.match(lines[i]):
            return _Broken("have a blank after each colon", f"none in line {i + 1}", "Put one there.")
        if is_no_pair and ":" not in lines[i] and not lines[i].lstrip().startswith("-"):
            return _Broken("have KEY: VALUE in a line", f"no colon in line {i + 1}", "Put one after the key.")
    if problem.startswith("mapping values are not") and len(re.findall(r":(?:\s|$)", lines[index])) > 1:
        return _Broken("have one colon with a blank in a line", f"two in line {index + 1}", QUOTE_IT)
    if is_no_pair or problem.endswith(("'<block mapping start>'", "'<block sequence start>'", "but found '-'", "'?'")):
        advice = "Keys of one section begin in one column, further right than the section's name."
        return _Broken("be indented like a list of keys", f"another indentation in line {index + 1}", advice)
    return None


def _quoting(problem: str, line: str, begun: str) -> _Broken | None:
    """Quotes, brackets, and letters that mean something at the beginning of a text."""
    if "unexpected end of stream" in problem or "unexpected document separator" in problem:
        return _Broken("end every quote that it begins", f"one without an end in {begun}", "Put the quote there.")
    if "escape" in problem:
        advice = "Use single quotes: in them a backslash is one."
        return _Broken("mean what it shows", f"a backslash in double quotes in {line}", advice)
    if "another document" in problem:
        return _Broken("be one document", f"a second one (---) in {line}", "Keep one, and remove the other.")
    if starts := re.search(r"character '(.+)' that cannot start", problem):
        return _Broken("have in quotes what begins with %, @ or `", f"{starts[1]} in {line}", QUOTE_IT)
    if re.search(r"alias|anchor|alphabetic or numeric", problem):
        return _Broken("have in quotes what begins with *, & or %", f"one without in {line}", QUOTE_IT)
    if re.search(r"\btag\b|expected URI", problem):
        return _Broken("have in quotes what begins with !", f"one without in {line}", QUOTE_IT)
    if "chomping" in problem or "comment or a line break" in problem:
        return _Broken("have in quotes what begins with | or >", f"one without in {line}", QUOTE_IT)
    if re.search(r"expected ',' or|node content|but found '[\]},]'|'<stream end>'", problem):
        found = f"another order between {begun} and {line}" if begun != line else f"another order in {line}"
        advice = f"Is a bracket, comma or blank missing? {QUOTE_IT.removesuffix('.')} where it holds one of them."
        return _Broken("have { and } or [ and ] in pairs, with commas between", found, advice)
    if "'<scalar>'" in problem or "not allowed here" in problem:
        return _Broken("have one value in a line", f"more in {line}", QUOTE_IT)
    return None
