"""The problems of a configuration file: what must hold, what came, and what to do.

Whoever reads the file (pydantic, at a hospital's and at the coordinator's edge) describes a problem by a type, a place
and a value. Here it becomes words that name the file's own keys; the reader's words, and its patterns, stay out.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lemof_model.errors import Problem, nearest, plain, problems_in, shown

Place = tuple[int | str, ...]

_RULES = {
    "int": "be a whole number",
    "float": "be a number",
    "finite_number": "be a finite number",
    "string": "be text",
    "path": "be a path",
    "tuple": "be a list",
    "dict": "be a section with keys of its own",
    "dataclass": "be a section with keys of its own",
    "model": "be a section with keys of its own",
    "greater_than_equal": "be at least {ge:g}",
    "greater_than": "be greater than {gt:g}",
    "less_than_equal": "be at most {le:g}",
    "less_than": "be less than {lt:g}",
    "string_too_short": "have at least {min_length} letters",
    "literal_error": "be {expected}",
}
_ADVICE = {"string": "Put it in quotes.", "tuple": "Write it in brackets: [500]."}


def problems_of(
    described: Sequence[Mapping[str, Any]], file: str, model: Any, told: Mapping[str, Problem]
) -> list[Problem]:
    """The problems of a file, as pydantic describes them; ``model`` is what the file is read as, and ``told`` has
    those, by key, that say more than pydantic could."""
    found = list(told.values())
    for problem in described:
        place = tuple(problem["loc"])
        if problem["type"].startswith(("int_", "float_")) and place[-1:] in (("int",), ("float",)):
            place, problem = place[:-1], {**problem, "type": "float_type"}  # one of two kinds of number, told twice
        if ".".join(map(str, place)) not in told:
            found += _problems(problem, place, file, model)
    return list(dict.fromkeys(found))


def keys_of(model: Any) -> dict[str, Any]:
    """The keys that a section knows, with what each is read as: fields of a dataclass or of a pydantic model.

    Example:
        >>> from lemof_model.study import Target
        >>> list(keys_of(Target))
        ['unit', 'threshold_days', 'deaths']
    """
    model = _section(model)
    if dataclasses.is_dataclass(model):
        return {field.name: field.type for field in dataclasses.fields(model)}
    return {name: field.annotation for name, field in getattr(model, "model_fields", {}).items()}


def sections_of(model: Any) -> Iterator[Any]:
    """The class that a file is read as, and those of all sections in it."""
    if _is_section(_section(model)):
        yield _section(model)
        for kind in keys_of(model).values():
            yield from sections_of(kind)


def _section(kind: Any) -> Any:
    """The section among what a key may hold."""
    return next((one for one in getattr(kind, "__args__", ()) if _is_section(one)), kind)


def _is_section(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind) or hasattr(kind, "model_fields")


def _problems(problem: Mapping[str, Any], place: Place, file: str, model: Any) -> Sequence[Problem]:
    """What one description means; several where our own check found several."""
    kind, key = problem["type"], ".".join(map(str, place))
    if kind == "value_error":
        said = f"{file}:{key}" if key else file
        return [dataclasses.replace(one, place=said) for one in problems_in(problem["ctx"]["error"])]
    if kind == "missing":
        return [Problem(f"{key} must be given", f"nothing from {file}", "Add it.")]
    if kind in ("extra_forbidden", "unexpected_keyword_argument", "invalid_key"):
        return [_unknown_key(place, file, model)]
    if place[-1:] == ("[key]",):
        return [_wrong_key(problem, place[:-1], file)]
    name = kind if kind in _RULES else kind.split("_")[0]
    rule = _RULES.get(name, "be what site_configs/ shows").format(**problem.get("ctx") or {})
    return [Problem(f"{key} must {rule}", f"{shown(problem['input'])} from {file}", _advice(name, problem))]


def _advice(name: str, problem: Mapping[str, Any]) -> str:
    """What to do about a value."""
    value = problem["input"]
    if name == "literal_error" and isinstance(value, str):
        close = nearest(value, re.findall(r"'([^']*)'", problem["ctx"]["expected"]))
        return f"Did you mean {close}?" if close else "Correct it."
    if name in ("dict", "dataclass", "model") and isinstance(value, str) and re.match(r"[A-Za-z_]\w*:\S", value):
        return "Is a blank missing after the colon?"
    if name == "string" and not isinstance(value, int | float):
        return "Correct it."
    return _ADVICE.get(name, "Correct it.")


def _unknown_key(place: Place, file: str, model: Any) -> Problem:
    """A key that its section does not know: the nearest one of the section, else the same one of another section."""
    *above, name = place
    section = model
    for part in above:
        section = keys_of(section).get(str(part))
    known, name = list(keys_of(section)), str(name).split(":")[0]
    elsewhere = {path.rpartition(".")[2]: path for path in reversed(list(_paths(model)))}
    close = nearest(name, known) or elsewhere.get(plain(name))
    advice = f"Did you mean {close}?" if close else f"Known: {', '.join(known)}."
    if close == name:  # "Did you mean ecg?" of encoders.ecg
        advice = f"{name} is a section of its own, beside {above[0]}. Known in {above[-1]}: {', '.join(known)}."
    if ":" in str(place[-1]):
        advice = f"Is a blank missing after the colon? {advice}"
    return Problem(f"{'.'.join(map(str, place))} must be a known key", f"an unknown one from {file}", advice)


def _paths(model: Any, above: str = "") -> Iterator[str]:
    """Every key of a file, with the sections that it stands in."""
    for name, kind in keys_of(model).items():
        yield f"{above}{name}"
        yield from _paths(kind, f"{above}{name}.")


def _wrong_key(problem: Mapping[str, Any], place: Place, file: str) -> Problem:
    """A key that must be one of some names, or of some kind."""
    key, name = ".".join(map(str, place)), str(place[-1])
    if problem["type"] != "literal_error":
        kind = _RULES[problem["type"].split("_")[0]].removeprefix("be ")
        return Problem(f"{key} must have {kind} as its key", f"{shown(problem['input'])} from {file}", "Correct it.")
    known = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
    close = nearest(name, known)
    advice = f"Did you mean {close}?" if close else f"Known: {', '.join(known)}."
    return Problem(f"{key} must be a known key", f"an unknown one from {file}", advice)
