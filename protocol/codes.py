"""The failures that have a number: each once, with what it means and what to do. ``check`` and the messages of
``prepare`` show the number; the hospital guide prints the table: python -m protocol.codes
"""

from collections.abc import Iterator
from typing import NamedTuple


class Failure(NamedTuple):
    """What was found, and what to do; ``of`` tells apart what one number means of different things."""

    code: str
    found: str
    fix: str
    of: str = ""


FAILURES = (
    Failure(
        "E101",
        "a root that is not there, or one or two folders too deep or too high (the message names the right one); a "
        "table that is not there, or there twice",
        "`data.ehr.root` or `.tables`",
    ),
    Failure(
        "E102",
        "a column that is not there, or there twice; no header, or no commas",
        "`data.ehr.columns`; export with header and commas, each column named once",
    ),
    Failure(
        "E103",
        "times in another form, or missing; parquet times that are dates, numbers or have a zone; treatments of which "
        "most have no `endtime`",
        "`data.ehr.datetime_format`, `data.ecg.datetime_format`, or export again",
    ),
    Failure(
        "E104",
        "a key, or the path of an ECG, that repeats",
        "mend the export, or `prepare.on_duplicate: first` where the rows say the same",
    ),
    Failure(
        "E104",
        "over 5 % of the values of a table, or 20 % of a measurement, repeat another of the same stay and time",
        "do exports overlap? They are used all the same: sums and counts hold each",
        of="values",
    ),
    Failure(
        "E105",
        "numbers in another form; rows without the time, id or code that they need; ids that were rounded",
        "export again",
    ),
    Failure("E106", "a table, or the list of ECG records, without rows", "does this hospital use another table?"),
    Failure(
        "E106",
        "over 5 % of the ICU stays lack times, patient or admission; over 5 % of a table's rows are of stays that "
        "`icustays` lacks; over 10 % of the admissions have no diagnosis code (more than 10 each)",
        "are the tables whole, and of one export?",
        of="joins",
    ),
    Failure("E107", "a measurement without values", "does this hospital use other item ids?"),
    Failure(
        "E108",
        "a cohort made for another plan, or older than tables, site file or program",
        "`--plan`, or prepare again",
    ),
    Failure("E109", "a cohort whose files were changed", "prepare again"),
    Failure("E110", "a table that is cut short or damaged, or has a stray quotation mark", "export again"),
    Failure(
        "E111",
        "patients in two hospitals (told by `lemof-sim run`)",
        "`lemof-sim split`, or mend the exports",
    ),
    Failure(
        "E112",
        "ICD-9 codes that are numbers, or were: decimal, of one or two digits, or 200 and more of which none begins "
        "with 0, or a third; codes that do not fit their `icd_version`",
        "export `icd_code` from the source as text: 389 is hearing loss, 0389 sepsis",
    ),
    Failure(
        "E113",
        "deaths and times that contradict each other, overlapping stays, nearly everybody dead or nobody",
        "are `deathtime`, `hospital_expire_flag`, `dod` and the times the right columns? section 4 says what becomes "
        "of such stays",
    ),
    Failure(
        "E114",
        "words for sex, race, admission or care unit that no category knows, in over 5 % of the stays",
        "use the words of `docs/features.md`",
    ),
    Failure("E201", "no ECG belongs to any stay", "do both number patients alike?"),
    Failure(
        "E202",
        "an ECG that cannot be read: a file that is missing, a path of the record list in another form, a line or "
        "field of the header (the message names it), samples that do not fit the header or its checksums",
        "what the message says; copy files again only where it says so",
    ),
    Failure("E203", "ECGs at another rate, or not of 10 s", "`data.ecg.accept_hz`; export records of 10 s whole"),
    Failure(
        "E204",
        "ECGs without a lead, or with one twice or without a description",
        "`data.ecg.on_missing_lead`; the descriptions in the headers",
    ),
    Failure(
        "E205",
        "a unit that is not known, a gain that is 0 or negative, a height that no heart has. As a warning, heights "
        "that no hospital has: the median record under 0.5 or over 2 mV in its median lead, over all records or over "
        "those of one gain; or a tenth of them under 0.3 or over 3.2 mV",
        "the headers: are gain and unit the machine's? `data.ecg.units: uV` only where the message says so",
        of="ECGs",
    ),
    Failure(
        "E205",
        "values whose unit is not known for their measurement, or that look like another unit than theirs; much of an "
        "item outside of its limits; rows that contradict the site file (section 2). As a warning: some values of an "
        "unknown unit, a fifth out of range, a median that is unusual in every known unit",
        "`data.ehr.units`, by item or by spelling; or mend the export",
        of="tables",
    ),
    Failure("E206", "ECGs without a signal", "the export, if there are many"),
    Failure(
        "E207",
        "treatments: half of the rows say that nothing was given, over 5 % (and ten) have no end yet, or a status is "
        "not known and counts as given",
        "the export; `data.ehr.not_given`",
    ),
    Failure("E501", "no server", "the firewall; the coordinator"),
    Failure("E502", "a certificate that is no good", "the coordinator"),
    Failure("E601", "too little disk, or one that cannot be written", "free some, or mend permissions"),
    Failure("E602", "too little memory", "close other programs"),
    Failure(
        "E603",
        "no permission; a file that cannot be read; a `prepare.output` with other files in it, or that is a mount",
        "mend permissions, or `prepare.output`",
    ),
    Failure("E604", "another `prepare` is making the same cohort", "wait until it has ended"),
    Failure(
        "E605",
        "a cohort that another privacy ledger counts than the one at `privacy.ledger`: that one was deleted, or the "
        "site file was copied or moved",
        "`privacy.ledger`; section 8",
    ),
    Failure(
        "E606",
        "a memory of what was told (the folder `.told` beside the cohort) that was changed or cut",
        "restore the folder whole from its latest backup; section 9",
    ),
    Failure("E801", "another version than this release needs", "`make install`"),
    Failure("E901", "too few patients, in all or in the split `train` or `stack`", "the coordinator"),
    Failure("E902", "stays of one kind only", "the coordinator"),
    Failure(
        "E903",
        "a plan with groups that differ from what was told before by a few patients, whom a subtraction would show",
        "the coordinator: splits and target as before, or ones that differ by more; else `told allow` (section 9)",
    ),
    Failure(
        "E904",
        "a further run, or a further model, about held-out patients that were told of before",
        "`told allow`, if it is wanted (section 9)",
    ),
)


def table() -> Iterator[str]:
    """The lines of the guide's table.

    Example:
        >>> next(line for line in table() if "E106, of joins" in line)[:44]
        '| E106, of joins | over 5 % of the ICU stays'
    """
    yield "| code | found | what to do |\n|---|---|---|\n"
    for failure in FAILURES:
        code = f"{failure.code}, of {failure.of}" if failure.of else failure.code
        yield f"| {code} | {failure.found} | {failure.fix} |\n"


if __name__ == "__main__":
    print("".join(table()), end="")
