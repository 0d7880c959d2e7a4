"""The study plan: read once, checked as a whole, and from then on a ``Study`` with a digest."""

import dataclasses
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from lemof_model.encoders.registry import build_network
from lemof_model.errors import ConfigError, LemofError, problem_sentence
from lemof_model.study import MODALITIES, Study


def load_plan(path: Path, asked: str = "--plan") -> Study:
    """Read a plan; what it leaves out has the defaults of ``lemof_model/study.py``. ``asked`` names what gave its path.

    Raises:
        ConfigError: lists every problem of the file with its key.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The plan must be a readable file, got {path}: {error.strerror}. Check {asked}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} must be YAML, got: {error}. Mend that line.") from None
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{path.name} must hold sections, got {type(content).__name__}. See site_configs/plans/.")
    try:
        study = TypeAdapter(Study).validate_python(content or {})
    except ValidationError as error:
        problems = [problem_sentence(dict(problem), path.name, _keys_at) for problem in error.errors(include_url=False)]
        raise ConfigError("\n".join(problems)) from None
    _check_encoders(study, path.name)
    return study


def dump_plan(study: Study) -> str:
    """The resolved plan as YAML: every value that was used, defaults included."""
    return yaml.safe_dump(dataclasses.asdict(study), sort_keys=False, allow_unicode=True)


def _check_encoders(study: Study, file: str) -> None:
    """Build each network once, so that a wrong name or size is told before any hospital is asked."""
    problems = []
    for modality in MODALITIES:
        try:
            build_network(modality, getattr(study, modality))
        except LemofError as error:
            problems += [f"{line} (from {file})" for line in str(error).splitlines()]
    if problems:
        raise ConfigError("\n".join(problems))


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys that a section of the plan knows."""
    kind: Any = Study
    for part in location:
        kind = {f.name: f.type for f in dataclasses.fields(kind)}.get(str(part), kind)
    return [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
