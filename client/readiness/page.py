"""The readiness page: one HTML file, nothing fetched and nothing run when it is opened, readable on paper.

Written from a cohort's ``manifest.json`` and ``quality.json``. It shows small counts, so it stays in the hospital.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from client.owner_only import write_owner_only
from client.preflight.findings import Finding
from client.readiness import concerns
from client.readiness.markup import Html, bar, definitions, element, section, table
from client.site import SiteConfig
from lemof_model.errors import DataError, DiskError

LISTED = (
    "records_listed", "records_repeated", "records_incomplete", "records_without_readable_time", "records_unlinked",
    "records_linked", "records_chosen", "stays_linked",
)  # fmt: skip
NUMBERS = ("mean", "min", "max")
UNITS = {"icu": "ICU", "hospital": "hospital"}
STYLE = """
:root{--ink:#1c2530;--soft:#5b6675;--line:#d9dfe6;--tint:#f4f7f9;--accent:#0b6b78;--doubt:#9a5b00;--stop:#a3262a}
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:#fff;font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header,main,footer{max-width:72rem;margin:0 auto;padding:0 1.25rem}header{padding-top:2.5rem}
.eyebrow{margin:0;color:var(--accent);font-weight:600;font-size:.85rem;letter-spacing:.04em}
h1{font-size:1.9rem;line-height:1.2;margin:.3rem 0 .6rem;text-wrap:balance}
h2{font-size:1.25rem;margin:2.4rem 0 .6rem;padding-top:.9rem;border-top:1px solid var(--line)}
p,li,dd{max-width:46rem}.note{color:var(--soft);font-size:.88rem;margin:.3rem 0 .8rem}
.stays{display:inline-block;border:1px solid var(--stop);color:var(--stop);border-radius:.3rem;
padding:.1rem .6rem;margin:0}
#answer{background:var(--tint);border-left:4px solid var(--accent);padding:.2rem 1.25rem .8rem;margin-top:1.4rem}
#answer h2{border:0;margin:0}#answer.doubt{border-color:var(--doubt)}#answer.stop{border-color:var(--stop)}
dl{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.3rem 1.2rem;margin:.6rem 0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.warn{color:var(--doubt);font-weight:600}.fail{color:var(--stop);font-weight:600}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;width:100%;font-size:.86rem;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .4rem;text-align:right;border-bottom:1px solid var(--line);vertical-align:middle;
white-space:nowrap}
thead th{color:var(--soft);font-weight:500;vertical-align:bottom;white-space:normal;line-height:1.25}
tbody th{font-weight:400;white-space:normal}th:first-child,th.text,td.text{text-align:left}td.text{white-space:normal}
small{display:block;color:var(--soft);width:9.2rem}
.bar{display:flex;align-items:center;gap:.5rem;justify-content:flex-end}
.bar svg{flex:1;width:0;min-width:2rem;max-width:12rem;height:14px;background:var(--tint)}.bar rect{fill:var(--accent)}
.bar span{min-width:3.2rem}
footer{margin-top:2.5rem;padding-top:1rem;padding-bottom:3rem;border-top:1px solid var(--line);color:var(--soft);
font-size:.82rem}footer dd{max-width:none}
@media(max-width:40rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}h1{font-size:1.5rem}}
@media print{@page{size:A4 landscape;margin:12mm}html{font-size:11px}.scroll{overflow:visible}
header,main,footer{max-width:none;padding:0}tr,dl,#answer{break-inside:avoid}h2{break-after:avoid}thead{display:table-header-group}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


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
            f"quality.json of the cohort must be whole, got a damaged file from {cohort}. "
            "Run: lemof-client --site SITE prepare --plan PLAN.yaml --force."
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
            f"readiness.html must be writable, got {error.strerror} at {path.parent}. "
            "Free space or mend permissions, then run: lemof-client --site SITE check."
        ) from None
    return path


def page(site: SiteConfig, manifest: Mapping[str, Any], quality: Mapping[str, Any]) -> str:
    """The whole page."""
    found = list(concerns.concerns_of(manifest, quality, site.limits, has_ecg_data=site.data.ecg is not None))
    num_all = manifest["attrition"][0]["num_stays"]
    title = f"{site.site.name}: {manifest['num_stays']:,} of {num_all:,} ICU stays are in the cohort"
    sections = (
        _answer(manifest, quality, found, has_ecg_data=site.data.ecg is not None),
        _attrition(manifest["attrition"]),
        _labels(manifest, quality),
        _ecgs(manifest) if site.data.ecg is not None else "",
        _tables(quality),
        _concepts(quality.get("concepts", {})),
        _treatments(quality.get("treatments", {}), manifest["num_stays"]),
        _features(quality.get("features", {})),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"{element('title', title)}<style>{STYLE}</style></head>\n<body>"
        f"<header>{element('p', 'LeMoF data readiness', css='eyebrow')}{element('h1', title)}"
        f"{element('p', 'Stays in the hospital: this page shows small counts.', css='stays')}</header>\n"
        f"{element('main', *sections)}{_footer(manifest)}</body></html>\n"
    )


def _answer(
    manifest: Mapping[str, Any], quality: Mapping[str, Any], found: Sequence[Finding], *, has_ecg_data: bool
) -> Html:
    """Whether the hospital is ready, and what stands in the way."""
    if not found:
        css, said = "", element("p", "Ready: nothing that was checked stands in the way of taking part.")
    else:
        is_stopped = any(concern.result == "fail" for concern in found)
        css = "stop" if is_stopped else "doubt"
        verdict = "Not ready." if is_stopped else "Ready, with doubts that a person should settle."
        rows = [
            (concern.check, element("span", concern.result, css=concern.result), concern.found, concern.fix)
            for concern in found
        ]
        said = Html(element("p", verdict) + table(("What", "", "Found", "How to fix"), rows, (1, 2, 3)))
    ecg = f"{manifest['num_stays_with_ecg']:,} stays linked, {manifest['num_stays_with_readable_ecg']:,} usable"
    facts = definitions(
        [
            ("Cohort", f"{manifest['num_stays']:,} stays, {manifest['num_patients']:,} patients"),
            ("Outcome", _outcome(manifest, quality)),
            ("ECG", ecg if has_ecg_data else "none: the site file has no data.ecg"),
        ]
    )
    return Html(f'<section id="answer" class="{css}">{element("h2", "Is it ready?")}{said}{facts}</section>\n')


def _outcome(manifest: Mapping[str, Any], quality: Mapping[str, Any]) -> str:
    """The target in words, with its prevalence among the stays that have a label."""
    target, num, num_labelled = manifest["target"], manifest["num_long_stays"], concerns.num_labelled(manifest, quality)
    among = "" if num_labelled == manifest["num_stays"] else f" of the {num_labelled:,} with a label"
    deaths = {"keep": "deaths kept", "exclude": "deaths left out"}[target["deaths"]]
    longer = f"{UNITS[target['unit']]} stay longer than {target['threshold_days']:g} days"
    return f"{longer} ({deaths}): {num:,} stays, {concerns.prevalence(manifest, quality):.1%}{among}"


def _attrition(rows: Sequence[Mapping[str, Any]]) -> Html:
    """From all ICU stays down to the cohort: every stay is in one row."""
    num_all = max(rows[0]["num_stays"], 1)
    lines = [(row["reason"], f"{row['num_stays']:,}", bar(row["num_stays"] / num_all)) for row in rows]
    told = element(
        "p",
        "Each row of icustays is counted once: in the cohort, or under the first rule that it breaks. A length of stay "
        "ends at death, and who is dead at the prediction is not in the cohort.",
        css="note",
    )
    return section("attrition", "Who is in", told, table(("ICU stays", "number", "share"), lines))


def _labels(manifest: Mapping[str, Any], quality: Mapping[str, Any]) -> Html:
    """The outcome's prevalence and the splits."""
    num = max(manifest["num_stays"], 1)
    lines = [("long stays", f"{manifest['num_long_stays']:,}", bar(concerns.prevalence(manifest, quality)))]
    lines += [(f"split {name}", f"{count:,}", bar(count / num)) for name, count in manifest["splits"].items()]
    told = element("p", f"{_outcome(manifest, quality)}. All stays of a patient are in one split.", css="note")
    return section("labels", "Outcome and splits", told, table(("", "stays", "share"), lines))


def _ecgs(manifest: Mapping[str, Any]) -> Html:
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
    return section("ecg", "ECGs", element("p", told), table(("", "number"), rows + rejected))


def _tables(quality: Mapping[str, Any]) -> Html | str:
    """Every table that was read, what became of its rows, what was there twice, and how many admissions are coded."""
    tables, duplicates, coded = (quality.get(part, {}) for part in ("tables", "duplicates", "diagnoses"))
    if not tables:
        return ""
    rows = []
    for name, counts in tables.items():
        others = {key: num for key, num in counts.items() if key not in ("file", "rows", "used", "wanted") and num}
        fates = ", ".join(f"{num:,} {key.replace('_', ' ')}" for key, num in others.items())
        rows.append((name, counts["file"], f"{counts['rows']:,}", f"{counts['used']:,}", fates))
    told = "A row of a patient with several stays counts again for each. Lines that cannot be read: rejects.csv.gz."
    shown = table(("table", "file", "rows", "used", "other rows"), rows, (1, 4))
    twice = "; ".join(f"{num:,} {name}" for name, num in duplicates.items() if num)
    notes = [element("p", f"Repeated: {twice or 'none'}.")]
    if coded:
        found = f"{coded['admissions_coded']:,} of {coded['admissions']:,}"
        notes.append(element("p", f"Admissions of the cohort with a diagnosis code: {found}."))
    return section("tables", "Tables", element("p", told, css="note"), shown, *notes)


def _concepts(concepts: Mapping[str, Mapping[str, Any]]) -> Html | str:
    """Every measured concept with its unit, limits and counts."""
    if not concepts:
        return ""
    rows = []
    for name, counts in concepts.items():
        used, outside = counts["used"], counts["out_of_range"]
        found = f"{_number(counts['min'])} to {_number(counts['max'])}" if used else ""
        rows.append(
            (
                Html(element("span", name) + element("small", ", ".join(map(str, counts["item_ids"])))),
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
                bar(counts["coverage"]),
            )
        )
    columns = (
        "concept and item ids", "unit", "limits", "found", "mean", "used", "out of limits", "unit unknown",
        "code for no value", "value unreadable", "time unreadable", "stays with a value",
    )  # fmt: skip
    told = "Values of the first day. A value out of its limits is left out, never clipped."
    below = {name: num for name, counts in concepts.items() if (num := counts.get("below_zero", 0))}
    notes = [element("p", f"A sum below 0 counts as 0: {name} in {num:,} stays.") for name, num in below.items()]
    shown = table(columns, rows, (1,))
    return section("concepts", "Measurements", element("p", told, css="note"), shown, *_units(concepts), *notes)


def _units(concepts: Mapping[str, Mapping[str, Any]]) -> list[Html]:
    """In which unit the values of the items came, where it was not the same for all of a concept's."""
    rows = [
        (name, item_id, ", ".join(f"{unit} {num:,}" for unit, num in units.items()))
        for name, counts in concepts.items()
        if len({unit for units in counts.get("units", {}).values() for unit in units}) > 1
        for item_id, units in counts["units"].items()
    ]
    title = element("p", "Units that stand in the rows, where a concept's values have more than one:", css="note")
    return [title, table(("concept", "item id", "values by unit"), rows, (2,))] if rows else []


def _treatments(treatments: Mapping[str, Mapping[str, Any]], num_stays: int) -> Html | str:
    """Every treatment with the stays that had it on their first day."""
    if not treatments:
        return ""
    rows = []
    for name, facts in treatments.items():
        given = facts["num_stays_given"]
        shown = ("table not there", "") if given is None else (f"{given:,}", bar(given / max(num_stays, 1)))
        rows.append((name, facts["table"], ", ".join(map(str, facts["item_ids"])), *shown))
    columns = ("", "table", "item ids", "stays", "share")
    return section("treatments", "Treatments on the first day", table(columns, rows, (1, 2)))


def _features(features: Mapping[str, Mapping[str, Any]]) -> Html | str:
    """Every column that models read."""
    if not features:
        return ""
    rows = []
    for name, facts in features.items():
        numbers = [_number(facts.get(key)) for key in NUMBERS]
        shares = {key: share for key, share in facts.items() if key not in ("coverage", *NUMBERS) and share}
        rows.append((name, bar(facts["coverage"]), *numbers, ", ".join(f"{k} {v:.1%}" for k, v in shares.items())))
    columns = ("", "stays with a value", *NUMBERS, "categories")
    return section("features", "Features", table(columns, rows, (5,)))


def _number(value: float | None) -> str:
    """A number as people read it; nothing for none.

    Example:
        >>> _number(12345.6), _number(0.123456), _number(None)
        ('12,346', '0.1235', '')
    """
    if value is None:
        return ""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"


def _footer(manifest: Mapping[str, Any]) -> Html:
    """What the cohort was made for, and by what."""
    made_for = ", ".join(f"{key} {value}" for key, value in manifest["cohort"].items())
    versions = ", ".join(f"{name} {number}" for name, number in manifest.get("versions", {}).items())
    facts = [("Made for", made_for), ("Made with", versions), ("Cohort digest", manifest["digests"]["cohort"])]
    return element("footer", definitions(facts))
