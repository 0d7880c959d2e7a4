"""What in a hospital's data will keep it from taking part, or make it useless there. Told by ``check`` before a cohort
exists, and by ``prepare``, ``check`` and the readiness page when there is one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from client.checks.findings import Finding, failures
from client.prepare.ecg_links import link_warning
from client.prepare.event_pass import NO_STAY
from client.prepare.stays import DATA_REASONS, JOINED, REPEATED
from client.site import Limits
from lemof_model.errors import TooLittleDataError
from lemof_model.study import Target
from readers.ecg.heights import ENOUGH_RECORDS, LIKELY_MV, MAX_UNLIKELY, USUAL_MV
from readers.tables.unreadable import HANDFUL, is_too_many

MAX_OUT_OF_RANGE = 0.2  # share of a concept's values beyond which its unit is in doubt; po2 in MIMIC-IV has 0.08
MAX_UNREADABLE = 0.1  # share of a concept's values that are no numbers
MAX_REPEATED = 0.2  # share of a concept's values that are there again; in the MIMIC-IV demo resp_rate has 0.025
MAX_REPEATED_TABLE = 0.05  # share of all values of a table: exports that overlap
MAX_LOST = 0.05  # share of ICU stays, or of a table's rows, that lack what they belong to; none in the MIMIC-IV demo
MAX_UNCODED = 0.1  # share of the cohort's admissions without any diagnosis code; 0 in the MIMIC-IV demo
MAX_OTHER_VERSION = 0.01  # share of codes that begin as none of their version does; none in the MIMIC-IV demo
MAX_UNKNOWN_WORDS = 0.05  # share of stays whose word for a category nobody knows; none in the MIMIC-IV demo
MAX_DEAD = 0.5  # share of stays that end in death in the hospital; a tenth in MIMIC-IV
ENOUGH_STAYS = 200  # among so many somebody dies
FITTED = ("train", "stack")  # splits whose sums are held to limits.min_patients; the others' to min_cell
MAX_NOT_GIVEN = 0.5  # share of a treatment table's rows in which nothing was given
MAX_WITHOUT_END = 0.05  # share of those that were given and have no end; none in the MIMIC-IV demo
ENOUGH_VALUES = 100  # a share of fewer says little
ENOUGH_FOR_RANGE = 20  # the same, of values outside of all limits


def concerns_of(
    manifest: Mapping[str, Any], quality: Mapping[str, Any], limits: Limits, *, has_ecg_data: bool
) -> Iterator[Finding]:
    """Every concern of a prepared cohort, by what its manifest and its quality report say."""
    ecg = manifest.get("ecg", {})
    for finding in (
        patients(manifest["num_patients"], manifest.get("num_patients_by_split", {}), limits),
        labels(manifest["num_long_stays"], num_labelled(manifest, quality), Target(**manifest["target"])),
        *stays(manifest["attrition"], quality),
        diagnoses(**quality.get("diagnoses", {})),
        *(icd_versions(name, counts) for name, counts in quality.get("tables", {}).items()),
        ecg_links(manifest["num_stays_with_ecg"], manifest["num_stays"], ecg) if has_ecg_data else None,
        *record_list(ecg),
        ecg_records(ecg.get("records_rejected", {}), ecg.get("records_chosen", 0)),
        *ecg_heights(ecg.get("heights", {})),
        *(absent_columns(name, absent) for name, absent in quality.get("columns_absent", {}).items()),
        *(stays_unknown(name, quality["tables"].get(name, {})) for name in quality.get("joined_by_stay", [])),
        *(
            finding
            for name, counts in quality.get("tables", {}).items()
            for finding in treatments(name, counts, quality.get("statuses", {}).get(name, {}))
        ),
        *_measurements(quality.get("concepts", {})),
        *_repeated(quality.get("concepts", {})),
    ):
        if finding is not None and finding.result != "ok":
            yield finding


def num_labelled(manifest: Mapping[str, Any], quality: Mapping[str, Any]) -> int:
    """Stays that have a label; all of them, where the cohort was prepared without a quality report."""
    return int(quality.get("labels", {}).get("num", manifest["num_stays"]))


def prevalence(manifest: Mapping[str, Any], quality: Mapping[str, Any]) -> float:
    """The share of long stays among those that have a label."""
    return float(manifest["num_long_stays"] / max(num_labelled(manifest, quality), 1))


def patients(num_patients: int, by_split: Mapping[str, int], limits: Limits) -> Finding:
    """Whether there are as many patients as a sum must hold, in all and in each split that something is fitted on."""
    few = {name: num for name, num in by_split.items() if name in FITTED and num < limits.min_patients}
    found = f"{num_patients:,} after exclusions"
    if num_patients < limits.min_patients:
        found += f", limits.min_patients is {limits.min_patients:,}: no update would leave"
    elif few:
        counts = ", ".join(f"{num:,} in {name}" for name, num in few.items())
        found += f", but {counts}, limits.min_patients is {limits.min_patients:,}: no update of that split would leave"
    else:
        return Finding("patients", "ok", found)
    return Finding("patients", "warn", found, "Ask the coordinator, or widen the cohort.", "E901")


def labels(num_long: int, num_stays: int, target: Target) -> Finding:
    """Whether there are stays of both kinds."""
    found = f"{target.unit} stay > {target.threshold_days:g} d: {num_long:,} of {num_stays:,} positive"
    if 0 < num_long < num_stays:
        return Finding("labels", "ok", f"{found} ({num_long / num_stays:.1%})")
    return Finding(
        "labels", "fail", f"{found}; both kinds are needed",
        "Check the ends of stays (all empty?), or ask the coordinator for another threshold.", "E902",
        TooLittleDataError.exit_status,
    )  # fmt: skip


def stays(attrition: Sequence[Mapping[str, Any]], met: Mapping[str, Any]) -> Iterator[Finding]:
    """What is to be said of the stays; ``met`` has what ``statics.told_of_stays`` and ``stays.contradictions_in`` told,
    as far as it is known."""
    if (lost := _lost_stays(attrition)) is not None:
        yield lost
    if told := "; ".join(f"{what}: {num:,}" for what, num in met.get("contradictions", {}).items() if num):
        fix = "Are these columns the right ones? What becomes of such stays: hospital guide, section 4."
        yield Finding("deaths and times", "warn", told, fix, "E113")
    num, num_died = met.get("deaths", {}).get("num", 0), met.get("deaths", {}).get("num_died", 0)
    if num_died > HANDFUL and num_died > MAX_DEAD * num:
        found = f"{num_died:,} of {num:,} stays end in death in the hospital"
        yield Finding("deaths", "warn", found, "Are time and flag of death the right columns?", "E113")
    if num >= ENOUGH_STAYS and not num_died:
        found = f"none of {num:,} stays ends in death: lengths of stay would go on after it"
        yield Finding("deaths", "warn", found, "Are time and flag of death filled?", "E113")
    for name, words in met.get("words_not_understood", {}).items():
        num_all = attrition[-1]["num_stays"]
        if is_too_many(words["num"], num_all, MAX_UNKNOWN_WORDS) or 2 * words["num"] > num_all:
            found = (
                f"{words['num']:,} of {num_all:,} stays ({words['num'] / num_all:.1%}) have a word that no category "
                f"knows (most: form {words['form']!r}): they count as other"
            )
            yield Finding(name, "warn", found, "Use the words of docs/features.md in the export.", "E114")


def _lost_stays(attrition: Sequence[Mapping[str, Any]]) -> Finding | None:
    """Whether many ICU stays are lost to what is wrong in the tables, not to a rule of the plan."""
    num_of = {row["reason"]: row["num_stays"] for row in attrition}
    lost = {reason: num for reason in DATA_REASONS if (num := num_of.get(reason, 0))}
    num_again = sum(num for reason, num in num_of.items() if reason == REPEATED or reason.startswith(JOINED))
    num_lost, num_all = sum(lost.values()), attrition[0]["num_stays"] - num_again
    if not is_too_many(num_lost, num_all, MAX_LOST):
        return None
    reasons = "; ".join(f"{num:,} {reason}" for reason, num in lost.items())
    found = f"{num_lost:,} of {num_all:,} left out for their data, not by the plan: {reasons}"
    return Finding(
        "ICU stays", "warn", found, "Are the tables of stays, patients and admissions whole, of one export?", "E106"
    )


def diagnoses(table: str = "", admissions: int = 0, admissions_coded: int = 0) -> Finding | None:
    """Whether the cohort's admissions have diagnosis codes."""
    num_without = admissions - admissions_coded
    if not is_too_many(num_without, admissions, MAX_UNCODED):
        return None
    found = f"no code for {num_without:,} of the cohort's {admissions:,} admissions: they count as without any disease"
    return Finding(table, "warn", found, "Is the table whole, and are these admissions coded yet?", "E106")


def icd_versions(table: str, counts: Mapping[str, Any]) -> Finding | None:
    """Whether many codes are not of the version that stands beside them."""
    num, num_rows = counts.get("codes_of_another_version", 0), counts.get("rows", 0)
    if not is_too_many(num, num_rows, MAX_OTHER_VERSION):
        return None
    found = f"{num:,} of {num_rows:,} codes begin as none of their version of ICD does: they are in no disease"
    return Finding(table, "warn", found, "Is the version right, 9 or 10?", "E112")


def stays_unknown(table: str, counts: Mapping[str, Any]) -> Finding | None:
    """Whether many rows of an event table that is joined by stay are of stays that nobody knows."""
    num, wanted = counts.get(NO_STAY, 0), counts.get("wanted", 0)
    if not is_too_many(num, wanted, MAX_LOST):
        return None
    found = f"{num:,} of {wanted:,} wanted rows are of stays that the table of stays does not have"
    return Finding(table, "warn", found, "Are both tables whole, of one export?", "E106")


def ecg_links(num_linked: int, num_stays: int, counts: Mapping[str, int]) -> Finding:
    """Whether stays have ECGs in the record list; ``counts`` are those of ``link_ecgs``."""
    if num_linked:
        outside = f"; {counts['records_unlinked']:,} of {counts['records_listed']:,} records are outside every stay"
        found = f"{num_linked / num_stays:.1%} of stays have an ECG{outside if counts['records_unlinked'] else ''}"
        return Finding("ECG to stay links", "ok", found)
    why = link_warning(counts)
    assert why is not None, "no stay has an ECG"
    (finding,) = failures("ECG to stay links", TooLittleDataError(why))
    return finding


def record_list(counts: Mapping[str, int]) -> Iterator[Finding]:
    """Records of the list that could not be used; ``counts`` are those of ``link_ecgs``."""
    for count, code in (("repeated", "E104"), ("incomplete", "E105"), ("without_readable_time", "E103")):
        if num := counts.get(f"records_{count}"):
            found = f"{num:,} records {count.replace('_', ' ')}"
            yield Finding("ECG record list", "warn", found, "Such records are skipped.", code)


def absent_columns(table: str, columns: Sequence[str]) -> Finding:
    """Optional columns that a table does not have: times of storing, all of them."""
    found = f"no {', '.join(columns)}: results reported after the prediction count as known before it"
    return Finding(table, "warn", found, "Export it if this hospital has it.", "E102")


def ecg_records(rejected: Mapping[str, int], num_chosen: int) -> Finding:
    """Whether the chosen records could all be read."""
    if not rejected:
        return Finding("ECG records", "ok", f"{num_chosen:,} whole")
    reasons = ", ".join(f"{num:,} {reason}" for reason, num in rejected.items())
    found = f"{sum(rejected.values()):,} of {num_chosen:,} not used: {reasons}"
    fix = "The stay's next ECG is used, if there is one. See rejects.csv.gz."
    return Finding("ECG records", "warn", found, fix, "E202")


def ecg_heights(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the beats are as high as anywhere: over all records, those of one gain, or a part of them that no header
    tells apart; ``facts`` are those of ``height_facts``."""
    name, fix = "ECG heights", "Are gain and unit in the headers those of the machine?"
    num, usually = facts.get("records", 0), f"usually {USUAL_MV[0]:g} to {USUAL_MV[1]:g} mV"
    if num < ENOUGH_RECORDS:
        return
    if not _is_usual(facts["median_mv"]):
        found = f"median {facts['median_mv']:.3g} mV in the median lead of {num:,} records, {usually}"
        yield Finding(name, "warn", found, fix, "E205")
        return
    if odd := {gain: told for gain, told in facts["by_gain"].items() if not _is_usual(told[1])}:
        for gain, (part, median) in odd.items():
            found = f"median {median:.3g} mV in the {part:,} of {num:,} records with a gain of {gain}, {usually}"
            yield Finding(name, "warn", found, fix, "E205")
        return
    for part, limit, where in ((facts["low"], LIKELY_MV[0], "under"), (facts["high"], LIKELY_MV[1], "over")):
        if part >= ENOUGH_RECORDS and part > MAX_UNLIKELY * num:
            found = f"{part:,} of {num:,} records {where} {limit:g} mV in the median lead; medians are {usually}"
            yield Finding(name, "warn", found, f"Do they come from one machine? {fix}", "E205")
            return
    yield Finding(name, "ok", f"median {facts['median_mv']:.3g} mV in the median lead of {num:,} records")


def _is_usual(median_mv: float) -> bool:
    """Whether a site's median height is one that sites have."""
    return USUAL_MV[0] <= median_mv <= USUAL_MV[1]


def _measurements(concepts: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Concepts that were never measured, or whose values are no numbers, out of range too often, or unusual."""
    unreadable = {name: num for name, counts in concepts.items() if (num := counts.get("value_unreadable", 0))}
    if absent := [name for name, counts in concepts.items() if not counts["used"] and name not in unreadable]:
        fix = "Does this hospital use other item ids, or units?"
        yield Finding("measurements", "warn", f"no value of {', '.join(absent)}", fix, "E107")
    for name, num in unreadable.items():
        total = num + concepts[name]["used"] + concepts[name]["out_of_range"]
        if num > MAX_UNREADABLE * total:
            found = f"{name}: {num:,} of {total:,} values are no numbers"
            yield Finding("measurements", "warn", found, "Export them as numbers, with a decimal point.", "E105")
    yield from units(concepts, "measurements")


def units(concepts: Mapping[str, Mapping[str, Any]], where: str) -> Iterator[Finding]:
    """Concepts whose values have units that are not known, lie out of range too often, or have an unusual median."""
    for name, counts in concepts.items():
        if num := counts.get("unit_unknown", 0):
            total = num + counts["used"] + counts["out_of_range"]
            spelled = {unit for of_item in counts.get("units", {}).values() for unit in of_item if ": " in unit}
            told = f" ({', '.join(sorted(unit.split(': ')[1] for unit in spelled)[:3])})" if spelled else ""
            found = f"{name}: {num:,} of {total:,} values are in a unit that is not known for it{told}, and left out"
            fix = "Say what it means in data.ehr.units, if it can be converted."
            yield Finding(where, "warn", found, fix, "E205")
        total = counts["used"] + counts["out_of_range"]
        if counts["used"] and total >= ENOUGH_FOR_RANGE and counts["out_of_range"] > MAX_OUT_OF_RANGE * total:
            limits = f"{counts['low']:g} to {counts['high']:g} {counts['unit']}".rstrip()
            found = f"{name}: {counts['out_of_range'] / total:.1%} of values outside {limits}"
            yield Finding(where, "warn", found, "Are its unit and item ids this hospital's?", "E205")
        for item_id, told in counts.get("unusual_medians", {}).items():
            usual = f"usually {told['low']:,g} to {told['high']:,g}"
            found = f"{name}: item {item_id} has a median of {told['median']:,g} {told['unit']}, {usual}"
            yield Finding(where, "warn", found, "Is its unit this hospital's?", "E205")


def treatments(table: str, counts: Mapping[str, Any], statuses: Mapping[str, int]) -> Iterator[Finding]:
    """What of a table of treatments does not count as given, has no end, or a status that nobody knows."""
    used, num_open = counts.get("used", 0), counts.get("used_without_end", 0)
    not_given = {key: num for key in ("cancelled", "nothing_given") if (num := counts.get(key, 0))}
    num, total = sum(not_given.values()), used + sum(not_given.values())
    if is_too_many(num, total, MAX_NOT_GIVEN):
        told = ", ".join(f"{num:,} {key.replace('_', ' ')}" for key, num in not_given.items())
        found = f"{num:,} of {total:,} rows say that nothing was given: {told}"
        fix = "Do its status, rate and amount mean what they do in the layout?"
        yield Finding(table, "warn", found, fix, "E207")
    if is_too_many(num_open, used, MAX_WITHOUT_END):
        found = f"{num_open:,} of {used:,} rows have no end: they count as running until the prediction"
        yield Finding(table, "warn", found, "Is the end exported of all that has ended?", "E207")
    if statuses:
        told = ", ".join(f"{status!r} {num:,}" for status, num in list(statuses.items())[:3])
        found = f"{sum(statuses.values()):,} rows have a status that is not known, and count as given: {told}"
        yield Finding(table, "warn", found, "List those that mean not given in data.ehr.not_given.", "E207")


def _repeated(concepts: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Tables, or single concepts, of which many values are there again at the same time of the same stay."""
    fix = "Do exports overlap? Sums and counts hold every row."
    for table in dict.fromkeys(counts["table"] for counts in concepts.values()):
        mine = {name: counts for name, counts in concepts.items() if counts["table"] == table}
        parts = {name: (counts.get("repeated", 0), counts["used"]) for name, counts in mine.items()}
        whole = sum(num for num, _ in parts.values()), sum(used for _, used in parts.values())
        of_parts = {name: part for name, part in parts.items() if _is_repeated(*part, MAX_REPEATED)}
        for name, (num, used) in ({table: whole} if _is_repeated(*whole, MAX_REPEATED_TABLE) else of_parts).items():
            found = f"{name}: {num:,} of {used:,} values repeat another of the same stay and time"
            yield Finding("measurements", "warn", found, fix, "E104")


def _is_repeated(num: int, used: int, share: float) -> bool:
    """Whether too many of so many values repeat another."""
    return used >= ENOUGH_VALUES and num > share * used
