"""The readiness page: what a cohort's files say, put into the template.

Written from a cohort's ``manifest.json`` and ``quality.json``. It shows small counts, so it stays in the hospital.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from client.checks import concerns
from client.checks.findings import Finding
from client.checks.template import TEMPLATE
from client.site import SiteConfig
from lemof_model.errors import DataError, DiskError
from protocol.owner_only import write_owner_only
from protocol.pages import Bar, Cell, Styled, Table, render

LISTED = (
    "records_listed", "records_repeated", "records_incomplete", "records_without_readable_time", "records_unlinked",
    "records_linked", "records_chosen", "stays_linked",
)  # fmt: skip
NUMBERS = ("mean", "min", "max")
UNITS = {"icu": "ICU", "hospital": "hospital"}


def read_quality(cohort: Path) -> dict[str, Any]:
    """The quality report of a cohort; nothing where the cohort was prepared without one.

    Raises:
        DataError: the file is damaged.
    """
    path = cohort / "quality.json"
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise DataError(
            rule="quality.json of the cohort must be whole",
            got=f"a damaged file from {cohort}",
            fix="Run: lemof-client --site SITE prepare --plan PLAN.yaml --force.",
        ) from None


def write_page(site: SiteConfig, manifest: Mapping[str, Any], quality: Mapping[str, Any]) -> Path:
    """Write ``readiness.html`` beside the cohort. Equal cohorts give equal pages.

    Raises:
        DiskError: it cannot be written.
    """
    path = site.prepare.output.parent / "readiness.html"
    try:
        write_owner_only(path, page(site, manifest, quality))
    except OSError as error:
        raise DiskError(
            rule="readiness.html must be writable",
            got=f"{error.strerror} at {path.parent}",
            fix="Free space or mend permissions, then run: lemof-client --site SITE check.",
        ) from None
    return path


def page(site: SiteConfig, manifest: Mapping[str, Any], quality: Mapping[str, Any]) -> str:
    """The whole page."""
    has_ecg_data = site.data.ecg is not None
    found = list(concerns.concerns_of(manifest, quality, site.limits, has_ecg_data=has_ecg_data))
    num_all = manifest["attrition"][0]["num_stays"]
    return render(
        TEMPLATE,
        title=f"{site.site.name}: {manifest['num_stays']:,} of {num_all:,} ICU stays are in the cohort",
        answer=_answer(manifest, quality, found, has_ecg_data=has_ecg_data),
        outcome=_outcome(manifest, quality),
        attrition=_attrition(manifest["attrition"]),
        labels=_labels(manifest, quality),
        ecgs=_ecgs(manifest) if has_ecg_data else None,
        tables=_tables(quality),
        concepts=_concepts(quality.get("concepts", {})),
        treatments=_treatments(quality.get("treatments", {}), manifest["num_stays"]),
        features=_features(quality.get("features", {})),
        footer=_footer(manifest),
    )


def _answer(
    manifest: Mapping[str, Any], quality: Mapping[str, Any], found: Sequence[Finding], *, has_ecg_data: bool
) -> dict[str, Any]:
    """Whether the hospital is ready, and what stands in the way."""
    css, verdict = "", "Ready: nothing that was checked stands in the way of taking part."
    if any(concern.result == "fail" for concern in found):
        css, verdict = "stop", "Not ready."
    elif found:
        css, verdict = "doubt", "Ready, with doubts that a person should settle."
    rows = [(one.check, Styled(one.result, one.result), one.found, one.fix) for one in found]
    ecg = f"{manifest['num_stays_with_ecg']:,} stays linked, {manifest['num_stays_with_readable_ecg']:,} usable"
    facts = [
        ("Cohort", f"{manifest['num_stays']:,} stays, {manifest['num_patients']:,} patients"),
        ("Outcome", _outcome(manifest, quality)),
        ("ECG", ecg if has_ecg_data else "none: the site file has no data.ecg"),
    ]
    table = Table(("What", "", "Found", "How to fix"), rows, text_columns=(1, 2, 3))
    return {"css": css, "verdict": verdict, "concerns": table, "facts": facts}


def _outcome(manifest: Mapping[str, Any], quality: Mapping[str, Any]) -> str:
    """The target in words, with its prevalence among the stays that have a label."""
    target, num, num_labelled = manifest["target"], manifest["num_long_stays"], concerns.num_labelled(manifest, quality)
    among = "" if num_labelled == manifest["num_stays"] else f" of the {num_labelled:,} with a label"
    deaths = {"keep": "deaths kept", "exclude": "deaths left out"}[target["deaths"]]
    longer = f"{UNITS[target['unit']]} stay longer than {target['threshold_days']:g} days"
    return f"{longer} ({deaths}): {num:,} stays, {concerns.prevalence(manifest, quality):.1%}{among}"


def _attrition(rows: Sequence[Mapping[str, Any]]) -> Table:
    """From all ICU stays down to the cohort: every stay is in one row."""
    num_all = max(rows[0]["num_stays"], 1)
    lines = [(row["reason"], f"{row['num_stays']:,}", Bar(row["num_stays"] / num_all)) for row in rows]
    return Table(("ICU stays", "number", "share"), lines)


def _labels(manifest: Mapping[str, Any], quality: Mapping[str, Any]) -> Table:
    """The outcome's prevalence and the splits."""
    num = max(manifest["num_stays"], 1)
    lines = [("long stays", f"{manifest['num_long_stays']:,}", Bar(concerns.prevalence(manifest, quality)))]
    lines += [(f"split {name}", f"{count:,}", Bar(count / num)) for name, count in manifest["splits"].items()]
    return Table(("", "stays", "share"), lines)


def _ecgs(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """From the record list to usable ECGs."""
    facts = manifest.get("ecg", {})
    rows = [(name.replace("_", " "), f"{count:,}") for name, count in facts.items() if name in LISTED]
    rejected = [(f"not used: {reason}", f"{count:,}") for reason, count in facts.get("records_rejected", {}).items()]
    if (height := facts.get("heights", {}).get("median_mv")) is not None:
        rows.append(("median height in the median lead", f"{height:.2f} mV"))
    match = manifest["num_stays_with_ecg"] / max(manifest["num_stays"], 1)
    spec = manifest["cohort"]
    told = (
        f"{match:.1%} of the cohort's stays have an ECG from {spec['ecg_before_hours']:g} h before ICU admission to "
        f"the prediction, {spec['window_hours']} h after it; the {spec['ecg_rule']} usable one counts."
    )
    return {"told": told, "records": Table(("", "number"), rows + rejected)}


def _tables(quality: Mapping[str, Any]) -> dict[str, Any]:
    """Every table that was read, what became of its rows, what was there twice, and how many admissions are coded."""
    tables, duplicates, coded = (quality.get(part, {}) for part in ("tables", "duplicates", "diagnoses"))
    rows = []
    for name, counts in tables.items():
        others = {key: num for key, num in counts.items() if key not in ("file", "rows", "used", "wanted") and num}
        fates = ", ".join(f"{num:,} {key.replace('_', ' ')}" for key, num in others.items())
        rows.append((name, counts["file"], f"{counts['rows']:,}", f"{counts['used']:,}", fates))
    return {
        "read": Table(("table", "file", "rows", "used", "other rows"), rows, text_columns=(1, 4)),
        "repeated": "; ".join(f"{num:,} {name}" for name, num in duplicates.items() if num),
        "coded": f"{coded['admissions_coded']:,} of {coded['admissions']:,}" if coded else "",
    }


def _concepts(concepts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Every measured concept with its unit, limits and counts."""
    rows: list[Sequence[Cell]] = []
    for name, counts in concepts.items():
        used, outside = counts["used"], counts["out_of_range"]
        found = f"{_number(counts['min'])} to {_number(counts['max'])}" if used else ""
        rows.append(
            (
                [name, Styled(", ".join(map(str, counts["item_ids"])), "items")],
                counts["unit"],
                f"{_number(counts['low'])} to {_number(counts['high'])}",
                found,
                _number(counts["mean"]) if used else "",
                f"{used:,}",
                f"{outside:,} ({outside / (used + outside):.2%})" if outside else "0",
                f"{counts.get('unit_unknown', 0):,}",
                f"{counts.get('code_for_no_value', 0):,}",
                f"{counts.get('value_unreadable', 0):,}",
                f"{counts['time_unreadable']:,}",
                Bar(counts["coverage"]),
            )
        )
    columns = (
        "concept and item ids", "unit", "limits", "found", "mean", "used", "out of limits", "unit unknown",
        "code for no value", "value unreadable", "time unreadable", "stays with a value",
    )  # fmt: skip
    below = [(name, f"{num:,}") for name, counts in concepts.items() if (num := counts.get("below_zero", 0))]
    return {"measured": Table(columns, rows, text_columns=(1,)), "units": _units(concepts), "below_zero": below}


def _units(concepts: Mapping[str, Mapping[str, Any]]) -> Table:
    """In which unit the values of the items came, where it was not the same for all of a concept's."""
    rows = [
        (name, item_id, ", ".join(f"{unit} {num:,}" for unit, num in units.items()))
        for name, counts in concepts.items()
        if len({unit for units in counts.get("units", {}).values() for unit in units}) > 1
        for item_id, units in counts["units"].items()
    ]
    return Table(("concept", "item id", "values by unit"), rows, text_columns=(2,))


def _treatments(treatments: Mapping[str, Mapping[str, Any]], num_stays: int) -> Table:
    """Every treatment with the stays that had it on their first day."""
    rows: list[Sequence[Cell]] = []
    for name, facts in treatments.items():
        given = facts["num_stays_given"]
        shown = ("table not there", "") if given is None else (f"{given:,}", Bar(given / max(num_stays, 1)))
        rows.append((name, facts["table"], ", ".join(map(str, facts["item_ids"])), *shown))
    return Table(("", "table", "item ids", "stays", "share"), rows, text_columns=(1, 2))


def _features(features: Mapping[str, Mapping[str, Any]]) -> Table:
    """Every column that models read."""
    rows: list[Sequence[Cell]] = []
    for name, facts in features.items():
        numbers = [_number(facts.get(key)) for key in NUMBERS]
        shares = {key: share for key, share in facts.items() if key not in ("coverage", *NUMBERS) and share}
        rows.append((name, Bar(facts["coverage"]), *numbers, ", ".join(f"{k} {v:.1%}" for k, v in shares.items())))
    return Table(("", "stays with a value", *NUMBERS, "categories"), rows, text_columns=(5,))


def _number(value: float | None) -> str:
    """A number as people read it; nothing for none.

    Example:
        >>> _number(12345.6), _number(0.123456), _number(None)
        ('12,346', '0.1235', '')
    """
    if value is None:
        return ""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"


def _footer(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the cohort was made for, and by what."""
    made_for = ", ".join(f"{key} {value}" for key, value in manifest["cohort"].items())
    versions = ", ".join(f"{name} {number}" for name, number in manifest.get("versions", {}).items())
    return [("Made for", made_for), ("Made with", versions), ("Cohort digest", manifest["digests"]["cohort"])]
