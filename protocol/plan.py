"""The study plan: read once, checked as a whole, and from then on a ``Study`` with a digest. A hospital that
prepares, checks or tries a plan reads it as the coordinator will."""

import dataclasses
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from lemof_model.errors import ConfigError, DoorError, LemofError, Problem, nearest
from lemof_model.study import MODALITIES, Study
from protocol.problems import keys_of, problems_of, sections_of
from protocol.yaml_file import read_yaml, write_yaml

PLANS = Path("site_configs/plans")
SOURCE = Path(__file__).resolve().parent.parent
for _section in sections_of(Study):
    _section.__pydantic_config__ = {"extra": "forbid"}
_STUDY = TypeAdapter(Study)
OF_A_SITE_FILE = ("version", "site", "data", "prepare", "limits", "server", "privacy")


def find_plan(path_or_name: Path, asked: str = "--plan") -> Path:
    """The plan that ``--plan`` means: a path, else NAME or NAME.yaml in ``./site_configs/plans``, else among the plans
    that came with the program. ``asked`` names what gave it.

    Raises:
        ConfigError: there is none of that name; the message lists where it was looked for.
    """
    name = str(path_or_name)
    if path_or_name.name != name:
        return path_or_name
    folders = [PLANS, SOURCE / PLANS]
    candidates = [path_or_name, *(folder / file for folder in folders for file in (name, f"{name}.yaml"))]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    close = nearest(name, sorted({path.stem for folder in folders for path in folder.glob("*.yaml")}))
    looked, question = ", ".join(map(str, candidates)), f" Did you mean {close}?" if close else ""
    raise ConfigError(rule=f"{asked} must name a study plan", got=f"{name!r}", fix=f"Looked for {looked}.{question}")


def load_plan(path_or_name: Path, asked: str = "--plan") -> Study:
    """Read a plan; what it leaves out has the defaults of ``lemof_model/study.py``. ``asked`` names what gave its path.

    An empty file is none: it is what a copy that failed leaves. The default study is that of ``{}``.

    Raises:
        ConfigError: lists every problem of the file with its key.
    """
    path = find_plan(path_or_name, asked)
    content, problems = read_yaml(path)
    if found := [key for key in OF_A_SITE_FILE if key in content and {"site", "data"} & content.keys()]:
        raise ConfigError(
            rule=f"{path.name} must be a study plan",
            got=f"a site file (it has {', '.join(found)})",
            fix=f"The plan comes from the coordinator; its sections are {', '.join(keys_of(Study))}.",
        )
    try:
        study = _STUDY.validate_python(content)
    except ValidationError as error:
        raise ConfigError(*problems_of(error.errors(include_url=False), path.name, Study, problems)) from None
    if problems:
        raise ConfigError(*problems.values())
    _check_encoders(study, path.name)
    return study


def study_from_json(text: str) -> Study:
    """Read the study of a message: types, words and limits must be those of a plan, nothing is turned into another.

    Raises:
        DoorError: names every key that is not as it must be.
    """
    try:
        _STUDY.validate_json(text, strict=True)
    except ValidationError as error:
        found = problems_of(error.errors(include_url=False), "the coordinator", Study, {})
        raise DoorError(*found, Problem("Nothing was sent.")) from None
    return Study.from_json(text)


def dump_plan(study: Study) -> str:
    """The resolved plan as YAML: every value that was used, defaults included."""
    return write_yaml(dataclasses.asdict(study))


def _check_encoders(study: Study, file: str) -> None:
    """Build each network once, so that a wrong name or size is told before any hospital is asked."""
    from lemof_model.encoders.registry import build_network  # torch takes two seconds, and only a plan needs it here

    problems: list[Problem] = []
    for modality in MODALITIES:
        try:
            build_network(modality, getattr(study, modality))
        except LemofError as error:
            problems += [dataclasses.replace(problem, place=file) for problem in error.problems]
    if problems:
        raise ConfigError(*problems)
