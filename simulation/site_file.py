"""The folder and the site file of a hospital that this machine made: its data, and limits that fit its size."""

from pathlib import Path
from typing import Literal

from lemof_model.errors import DiskError

SMALL_HOSPITAL_STAYS = 500
By = Literal["careunit", "year", "dirichlet", "random"]
"""What patients are shared out to hospitals by."""

_LIMITS = """\
# All hospitals of a simulation are in one hand, so totals over one or two of them give nothing away.
# A real hospital must not allow them: what the total holds beyond its own part is the other's.
limits: {few_sites: allow}
"""
_SMALL_LIMITS = """\
# This hospital is a small demonstration, so its limits are far below the defaults (50 and 11; few_sites: refuse).
# A real hospital must not lower them: they keep sums over a few patients, or of one other hospital, from leaving.
limits: {min_patients: 5, min_cell: 1, few_sites: allow}
"""


def write_site_file(
    folder: Path, num_stays: int, ecg_root: str | Path | None, *, record_list: str = "record_list.csv"
) -> None:
    """Write ``folder/site.yaml``; without ``ecg_root`` the hospital has no ECGs. Paths start at the site file's folder.

    Counts are limited by the defaults unless the hospital has fewer than 500 stays; totals over few sites are allowed.
    """
    lines = [
        "version: 1",
        f"site: {{name: {folder.name}}}",
        "data:",
        '  ehr: {root: "."}',
    ]
    if ecg_root is not None:
        lines += ["  ecg:", f"    root: {_quoted(ecg_root)}", f"    record_list: {_quoted(record_list)}"]
    text = "\n".join([*lines, "prepare: {output: cohort}", ""])
    text += _SMALL_LIMITS if num_stays < SMALL_HOSPITAL_STAYS else _LIMITS
    (folder / "site.yaml").write_text(text, encoding="utf-8")


def _quoted(value: str | Path) -> str:
    """A YAML string, whatever the path holds."""
    return "'" + str(value).replace("'", "''") + "'"


def require_empty(out: Path) -> None:
    """Refuse a folder that holds something: hospitals of two runs must not mix.

    Raises:
        DiskError: it does.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DiskError(
            rule="The output must be a new or empty folder", got=f"{out}", fix="Name another one, or remove it."
        )
    out.mkdir(parents=True, exist_ok=True)
