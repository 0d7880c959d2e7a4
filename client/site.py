"""The site file: what a hospital says about its data, limits and server. Read once, here, and never sent anywhere.

The study itself (window, target, splits) belongs to the coordinator's plan; ``prepare --plan`` reads the three
sections of it that decide what a cohort holds and how it is counted.
"""

import dataclasses
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from client.budget.accounting import Budget
from client.site_items import Items, Units, read_items, read_units
from lemof_model.errors import ConfigError, shown
from lemof_model.items import ItemId
from lemof_model.study import CohortSpec, SplitSpec, Study, Target
from protocol.plan import load_plan
from protocol.problems import keys_of, problems_of
from protocol.yaml_file import read_yaml

SITE_FOLDER = Path("site_configs")
MAX_NAME_BYTES = 255  # of a file, on the disks of all systems

Stage = Literal[
    "census", "statistics", "encoders", "meta", "importance", "attention", "final", "evaluation", "intervals"
]
STAGES: tuple[Stage, ...] = get_args(Stage)


def _of_home(path: Path) -> Path:
    """A path with ``~`` written out; of a user that there is not it stays."""
    if long := [part for part in path.parts if len(os.fsencode(part)) > MAX_NAME_BYTES]:
        raise ConfigError(
            rule="A path must be made of names of up to 255 letters", got=f"one of {len(long[0])}", fix="Correct it."
        )
    return Path(os.path.expanduser(path))


def _beside_site_file(path: Path, info: ValidationInfo) -> Path:
    """A relative path of a site file starts at the folder of that file."""
    context: dict[str, Path] = info.context or {}
    return context["folder"] / _of_home(path)


def _site_name(name: str) -> str:
    """A name that is safe in files, messages and Flower's records."""
    if not re.fullmatch(r"[a-z0-9_-]+", name):
        plain = re.sub(r"[^a-z0-9_-]+", "_", name.lower()).strip("_")
        advice = f"Call it {plain}." if plain else "Choose another."
        raise ConfigError(rule="site.name must be small letters, digits, _ and -", got=shown(name), fix=advice)
    return name


def _address(address: str) -> str:
    """A host and a port."""
    found = re.fullmatch(r"[^\s:/]+:(\d{1,5})", address, re.ASCII)
    if not found or not 0 < int(found[1]) < 65_536:
        raise ConfigError(
            rule="server.address must be HOST:PORT, such as fl.example.org:443",
            got=shown(address),
            fix="Write the name of the coordinator's machine, a colon and a port from 1 to 65535, and nothing before "
            "or behind them.",
        )
    return address


def _without_zone(form: str) -> str:
    """A format of local times: what has a zone would be moved to another clock."""
    if "%" not in form:
        raise ConfigError(
            rule="datetime_format must have its parts as in %Y-%m-%d %H:%M:%S",
            got=shown(form),
            fix="Write %Y for the year, then %m, %d, %H, %M and %S.",
        )
    if zone := re.search(r"%[:#]*[zZ]|%\+", form.replace("%%", "")):
        raise ConfigError(
            rule="datetime_format must be one of local times",
            got=f"a zone ({zone[0]}) in {form!r}",
            fix="Export the times as the clocks of the ward showed them, without a zone.",
        )
    return form


DatetimeFormat = Annotated[str, StringConstraints(min_length=2), AfterValidator(_without_zone)]
OwnPath = Annotated[Path, AfterValidator(_of_home)]
SitePath = Annotated[Path, AfterValidator(_beside_site_file)]


class _Section(BaseModel):
    """Every section is immutable and refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class SiteName(_Section):
    """Who the site is: the name under which the study lists it."""

    name: Annotated[str, AfterValidator(_site_name)]


class EhrData(_Section):
    """Where the tables are (csv, csv.gz or parquet), which ``layout`` they have (``client/layouts``), and what in them
    is not as it has it.

    ``tables`` lie elsewhere than the layout has them; a relative path starts at the root. ``columns`` is, by table, the
    layout's name of a column and the site's own. ``items`` is, by concept or treatment,
    further item ids and their unit or drug (none: the usual one). ``units`` is, by item id, the unit of all of its
    values where it is not the usual one, or what each spelling of a unit means (an empty one: values without), or
    ``drop``. ``not_given`` are statuses of treatments that were not given, in the hospital's words.
    """

    root: SitePath
    layout: str = "mimic_iv"
    tables: dict[str, OwnPath] = {}
    columns: dict[str, dict[str, str]] = {}
    items: Items = {}
    units: Units = {}
    not_given: tuple[str, ...] = ()
    datetime_format: DatetimeFormat = "%Y-%m-%d %H:%M:%S"

    @field_validator("items", mode="before")
    @classmethod
    def _read_items(cls, said: Any) -> Items:
        return read_items(said)

    @field_validator("units", mode="before")
    @classmethod
    def _read_units(cls, said: Any) -> Units:
        return read_units(said)

    @field_validator("not_given", mode="before")
    @classmethod
    def _must_be_words(cls, said: Any) -> Any:
        if not isinstance(said, list | tuple) or not all(isinstance(word, str) for word in said):
            raise ConfigError(
                rule="data.ehr.not_given must be a list of words", got=shown(said), fix="For example: [storniert]."
            )
        return said

    def items_of(self, name: str) -> dict[ItemId, str | None]:
        """The site's own item ids of a concept or treatment, with their unit or drug."""
        return self.items.get(name, {})


class EcgData(_Section):
    """Where the MIMIC-IV-ECG records are, and what is made of those that differ from MIMIC-IV-ECG's own.

    ``record_list`` starts at the folder of the site file if such a file exists there, else at ``root``; where it is not
    there as csv, as csv.gz or parquet. Sampling rates in ``accept_hz`` are resampled, others refused. With
    ``on_missing_lead: zero`` up to 5 leads may be missing. Each signal has the unit that its header says; ``units: uV``
    takes the numbers of the whole site as microvolts instead.
    """

    root: SitePath
    record_list: Path = Path("record_list.csv")
    datetime_format: DatetimeFormat = "%Y-%m-%d %H:%M:%S"
    accept_hz: tuple[Annotated[int, Field(ge=50, le=20_000)], ...] = (500,)
    on_missing_lead: Literal["skip", "zero"] = "skip"
    units: Literal["mV", "uV"] = "mV"

    @field_validator("record_list")
    @classmethod
    def _find_record_list(cls, path: Path, info: ValidationInfo) -> Path:
        root = info.data.get("root", Path())
        others = (path.with_name(f"{path.name}.gz"), path.with_suffix(".parquet")) if path.name else ()
        for name in (path, *others):
            for file in (_beside_site_file(name, info), root / _of_home(name)):
                if file.is_file():
                    return Path(file)
        return Path(root / _of_home(path))


class Data(_Section):
    """The raw data of the site. A hospital without ECGs leaves ``ecg`` out."""

    ehr: EhrData
    ecg: EcgData | None = None


class Prepare(_Section):
    """Where the cohort is written, and how much of the raw data may be unusable.

    More than ``max_bad_fraction`` of a table's times (or of the chosen ECG records), and more than ten, stop the
    preparation. A key that repeats stops it too, unless ``on_duplicate`` says to keep the first row.
    """

    output: SitePath = Path("cohort")
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    on_duplicate: Literal["first", "refuse"] = "refuse"

    @field_validator("output")
    @classmethod
    def _has_a_name(cls, output: Path) -> Path:
        if not output.name:
            raise ConfigError(
                rule="prepare.output must be a folder with a name", got=f"{output}", fix="Name one in it."
            )
        return output


class Limits(_Section):
    """What the site never lets out: sums over fewer patients, groups of fewer patients, larger answers than these; any
    answer to a stage that is not among ``stages``, or in a study where fewer than three sites stand behind a total."""

    min_patients: PositiveInt = 50
    min_cell: PositiveInt = 11
    max_update_mb: PositiveInt = 100
    stages: tuple[Stage, ...] = STAGES
    few_sites: Literal["refuse", "allow"] = "refuse"


class Privacy(_Section):
    """The privacy budget of the site's patients, over all studies; a site without this section keeps no ledger.

    ``study_epsilon`` is the most that one study may spend: by default all of it.
    """

    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    delta: Annotated[float, Field(gt=0, lt=1e-3)]
    study_epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    ledger: SitePath = Path("ledger.jsonl")

    @field_validator("study_epsilon")
    @classmethod
    def _within_epsilon(cls, study_epsilon: float | None, info: ValidationInfo) -> float | None:
        if study_epsilon is not None and study_epsilon > info.data.get("epsilon", study_epsilon):
            raise ConfigError(
                rule=f"privacy.study_epsilon must be at most privacy.epsilon = {info.data['epsilon']:g}",
                got=f"{study_epsilon:g}",
                fix="Lower it, or leave it out.",
            )
        return study_epsilon

    @property
    def budget(self) -> Budget:
        """The limits as values."""
        return Budget(self.epsilon, self.delta, self.study_epsilon or self.epsilon)


class Server(_Section):
    """The coordinator's fleet door."""

    address: Annotated[str, AfterValidator(_address)] = "127.0.0.1:9092"
    root_certificates: SitePath | None = None


class SiteConfig(_Section):
    """A whole site file, checked."""

    version: Literal[1]
    site: SiteName
    data: Data
    # Not Prepare(): its default path is checked, and then starts at the site file's folder.
    prepare: Prepare = Field(default_factory=dict)  # type: ignore[assignment]
    limits: Limits = Limits()
    server: Server = Server()
    privacy: Privacy | None = None

    @property
    def memory(self) -> Path:
        """The folder of what the site's patients were told of in, budget or not. It lies beside the cohort that they
        are in, whichever site file names that."""
        cohort = Path(os.path.realpath(self.prepare.output))
        return cohort.with_name(f"{cohort.name}.told")


@dataclasses.dataclass(frozen=True)
class PlanSections:
    """The sections of a study plan that ``prepare`` reads: what a cohort holds, and how its stays are counted."""

    cohort: CohortSpec = dataclasses.field(default_factory=CohortSpec)
    target: Target = dataclasses.field(default_factory=Target)
    splits: SplitSpec = dataclasses.field(default_factory=SplitSpec)


def find_site_file(path_or_name: str) -> Path:
    """The site file that ``--site`` means: a path (of the file, or of the folder of a ``site.yaml``), else
    ``./site_configs/NAME`` or ``./site_configs/NAME.yaml``.

    Raises:
        ConfigError: there is none; the message lists where it was looked for.
    """
    candidates = [Path(path_or_name)]
    if candidates[0].is_dir():
        candidates.append(candidates[0] / "site.yaml")
    if candidates[0].name == path_or_name:
        candidates += [SITE_FOLDER / path_or_name, SITE_FOLDER / f"{path_or_name}.yaml"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = ", ".join(str(candidate) for candidate in candidates)
    raise ConfigError(rule="--site must name a site file", got=f"{path_or_name!r}", fix=f"Looked for {looked}.")


def load_site(path_or_name: str | Path) -> SiteConfig:
    """Read and check a site file; relative paths start at its folder.

    Raises:
        ConfigError: lists every problem of the file with its key.
    """
    path = find_site_file(str(path_or_name))
    content, problems = read_yaml(path)
    of_a_plan = [key for key in keys_of(Study) if key in content]
    if of_a_plan and not content.keys() & keys_of(SiteConfig):
        raise ConfigError(
            rule=f"{path.name} must be a site file",
            got=f"a study plan (it has {', '.join(of_a_plan)})",
            fix="Give the plan with --plan, and with --site this hospital's own file.",
        )
    try:
        site = SiteConfig.model_validate(content, context={"folder": path.resolve().parent})
    except ValidationError as error:
        raise ConfigError(*problems_of(error.errors(include_url=False), path.name, SiteConfig, problems)) from None
    if problems:
        raise ConfigError(*problems.values())
    return site


def load_plan_sections(plan: Path | None) -> PlanSections:
    """The sections ``cohort``, ``target`` and ``splits`` of a plan, of which the whole must hold; without a plan, the
    default ones.

    Raises:
        ConfigError: lists every problem of the plan with its key.
    """
    study = load_study(plan)
    return PlanSections(study.cohort, study.target, study.splits)


def load_study(plan: Path | None) -> Study:
    """Read a whole plan, as the coordinator does; without one, the default study.

    Raises:
        ConfigError: lists every problem of the plan with its key.
    """
    return Study() if plan is None else load_plan(plan)
