"""The readiness report in a few lines, for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from client.checks.concerns import concerns_of, prevalence
from client.checks.findings import STYLES
from client.prepare.event_pass import BAD_ITEM
from client.site import SiteConfig

LEFT_OUT = {
    "unit_unknown": "in a unit that is not known for them",
    "code_for_no_value": "that are codes for no value",
}
NOT_GIVEN = {
    "cancelled": "rows cancelled",
    "nothing_given": "rows with a rate or an amount of 0",
    "used_without_end": "rows that have no end run until the prediction",
}


def show_summary(site: SiteConfig, manifest: Mapping[str, Any], quality: Mapping[str, Any], console: Console) -> int:
    """Print who is in, the outcome, the ECGs, what was measured seldom, and every concern; the exit status of these."""
    first, *dropped, _ = manifest["attrition"]
    num = manifest["num_stays"]
    reasons = ", ".join(f"{row['num_stays']:,} {row['reason']}" for row in dropped if row["num_stays"])
    has_ecg = site.data.ecg is not None
    ecg = f"; ECG of {manifest['num_stays_with_readable_ecg'] / num:.1%} of stays" if has_ecg else ""
    if (height := manifest.get("ecg", {}).get("heights", {}).get("median_mv")) is not None:
        ecg += f", median height {height:.2f} mV"
    lines = [
        f"kept {num:,} of {first['num_stays']:,} ICU stays{f' (dropped: {reasons})' if reasons else ''}",
        f"{manifest['num_patients']:,} patients; long stays {prevalence(manifest, quality):.1%}{ecg}",
    ]
    measured = {name: counts for name, counts in quality.get("concepts", {}).items() if counts["used"]}
    coverage = {name: counts["coverage"] for name, counts in measured.items()}
    if seldom := sorted(coverage, key=lambda name: coverage[name])[:3]:
        lines.append(f"measured least: {', '.join(f'{name} {coverage[name]:.0%}' for name in seldom)} of stays")
    tables = quality.get("tables", {})
    unread = {
        name: sum(num for key, num in counts.items() if key.endswith("_unreadable") and key != BAD_ITEM)
        for name, counts in tables.items()
    }
    first_bad = quality.get("first_bad", {})
    if told := ", ".join(f"{num:,} in {name}{_first(first_bad.get(name))}" for name, num in unread.items() if num):
        lines.append(f"could not be read: {told}; see rejects.csv.gz")
    if told := ", ".join(f"{num:,} in {name}" for name in tables if (num := tables[name].get(BAD_ITEM))):
        lines.append(f"without a readable item, counted only: {told}")
    for name, counted in (("concepts", LEFT_OUT), ("tables", NOT_GIVEN)):
        nums = {key: sum(counts.get(key, 0) for counts in quality.get(name, {}).values()) for key in counted}
        if told := ", ".join(f"{num:,} {counted[key]}" for key, num in nums.items() if num):
            lines.append(f"{'values left out' if name == 'concepts' else 'treatments'}: {told}")
    for line in lines:
        console.print(Text(line))
    concerns = list(concerns_of(manifest, quality, site.limits, has_ecg_data=has_ecg))
    for concern in concerns:
        kind = Text("error" if concern.result == "fail" else "warning", style=STYLES[concern.result])
        found = concern.found.removesuffix(".")
        console.print(kind.append(f": {concern.check}: {found}. {concern.fix}  [{concern.code}]", style="default"))
    return min((concern.exit_status for concern in concerns if concern.result == "fail"), default=0)


def _first(first_bad: Mapping[str, Mapping[str, Any]] | None) -> str:
    """Line and form of the first row of a table that could not be read."""
    if not first_bad:
        return ""
    first = min(first_bad.values(), key=lambda one: one["line"])
    return f" (first: line {first['line']:,}, form {first['form']!r})"
