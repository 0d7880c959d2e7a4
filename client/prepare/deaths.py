"""When a stay ends, and how: a length of stay does not go on after death.

``deathtime`` is the truth: in the MIMIC-IV demo every patient who dies in intensive care leaves it 1 to 5 h later.
Where only the day of death is known (``dod``, a column of ``deathtime`` without times, or a flag of death and the
discharge), the patient died on that day at the latest: a stay that goes on after it has a length that nobody knows, any
other keeps its own.

A discharge of midnight is a day too: 4 of the demo's 15 deaths have one 21 to 23 h before ``deathtime``, and in the
hospital the stay then ends at ``deathtime``. What contradicts itself is counted (``contradictions_of``) and told.
"""

import polars as pl

from client.prepare.courses import MAX_STAY_DAYS

DAY = pl.duration(days=1)
ENOUGH_DEATHS = 10


def with_ends(stays: pl.DataFrame, admissions: pl.DataFrame) -> pl.DataFrame:
    """Add from and until when the patient died (equal where the time is known, null where nothing is), whether in this
    admission, and the ends of the stay in intensive care and in the hospital (null where they are unknown).

    A death counts for all stays of the patient, of whichever admission it is: a body that donates is admitted again
    (MIT-LCP/mimic-code, issue 1194).
    """
    first_death = admissions.group_by("subject_id").agg(first_death=pl.col("deathtime").min())
    stays = stays if "dod" in stays.columns else stays.with_columns(dod=pl.lit(None, pl.Datetime("us")))
    stays = stays.join(first_death, on="subject_id", how="left").with_columns(
        discharged_until=pl.when(_is_midnight("dischtime")).then(pl.col("dischtime") + DAY).otherwise("dischtime"),
        dod=pl.col("dod").dt.truncate("1d"),
    )
    is_day = pl.lit(_are_days(admissions["deathtime"])) & _is_midnight("first_death", seconds=1)
    is_flagged = (pl.col("hospital_expire_flag") == 1).fill_null(False)
    day = pl.when(~(is_flagged & (pl.col("dod") > pl.col("discharged_until"))).fill_null(False)).then("dod")
    last_day = pl.min_horizontal(day + DAY, pl.when(is_flagged).then("discharged_until"))
    stays = stays.with_columns(
        died_from=pl.coalesce("first_death", day),
        died_until=pl.when(is_day).then(pl.col("first_death") + DAY).otherwise(pl.coalesce("first_death", last_day)),
        died_in_hospital=is_flagged | _is_of_admission() | _is_day_within_admission(),
    )
    return stays.with_columns(icu_end=_icu_end()).with_columns(hospital_end=_hospital_end())


def is_exact() -> pl.Expr:
    """Whether the time of death is known, not its day alone."""
    return (pl.col("died_from") == pl.col("died_until")).fill_null(False)


def hours_at_most() -> pl.Expr:
    """Hours from ICU admission to the end of the stay, or to the end of the day on which the patient died."""
    return (pl.min_horizontal("outtime", "died_until") - pl.col("intime")).dt.total_seconds() / 3600


def with_outcomes(stays: pl.DataFrame) -> pl.DataFrame:
    """Add lengths of stay and deaths, as ``cohort.store.STAY_COLUMNS`` has them, to stays of ``with_ends``. A length
    that is impossible, or whose times contradict each other, is unknown. Who died at an unknown time, and may have died
    in intensive care, counts as dead there: to leave out deaths is then to leave out too many, not too few."""
    days = 24 * 3600
    hospital_los_days = (pl.col("hospital_end") - pl.col("admittime")).dt.total_seconds() / days
    is_known = hospital_los_days.is_between(0, MAX_STAY_DAYS) & ~_is_outside_admission()
    may_have = (pl.col("died_until") >= pl.col("intime")) & (pl.col("died_from") <= pl.col("outtime"))
    is_dead = pl.col("died_in_hospital") | is_exact()
    return stays.with_columns(
        icu_los_days=(pl.col("icu_end") - pl.col("intime")).dt.total_seconds() / days,
        hospital_los_days=pl.when(is_known).then(hospital_los_days),
        died_in_icu=is_dead & may_have.fill_null(True),
    )


def _are_days(deathtimes: pl.Series) -> bool:
    """Whether a column of times of death holds days: half of them or more, and ten, are midnight."""
    times = deathtimes.drop_nulls()
    num_midnight = int((times == times.dt.truncate("1d")).sum())
    return num_midnight >= ENOUGH_DEATHS and 2 * num_midnight >= times.len()


def contradictions_of(stays: pl.DataFrame) -> dict[str, int]:
    """What of the ICU stays (of ``with_ends``) whose own times can be right contradicts itself, with how many."""
    is_flagged = pl.col("hospital_expire_flag") == 1
    has_time = pl.col("deathtime").is_not_null()
    is_day = _is_midnight("died_from", seconds=1) & ~is_exact()
    is_longer = pl.col("outtime") > pl.col("died_until") + DAY
    told = {
        "death before ICU admission, left out": pl.col("died_until") < pl.col("intime"),
        "ICU stay that goes on more than a day after death, ended there or of unknown length": is_longer,
        "deathtime without a time of day, which ends no stay": is_day & has_time,
        "deathtime more than a day after the discharge": pl.col("deathtime") > pl.col("dischtime") + DAY,
        "hospital_expire_flag 1 without a deathtime": is_flagged & ~has_time,
        "hospital_expire_flag 0 with a deathtime": (pl.col("hospital_expire_flag") == 0) & has_time,
        "dod on another day than deathtime": (pl.col("deathtime").dt.truncate("1d") - pl.col("dod")).abs() > DAY,
        "dod before the discharge, without a flag of death": _is_day_within_admission() & ~is_flagged.fill_null(False)
        & ~has_time,
        "dischtime before admittime": pl.col("dischtime") < pl.col("admittime"),
        "ICU stay more than a day outside its admission, of unknown length in the hospital": _is_outside_admission()
        & (pl.col("dischtime") >= pl.col("admittime")),
    }  # fmt: skip
    sound = stays.filter(pl.col("outtime") >= pl.col("intime"))
    (counts,) = sound.select(is_so.fill_null(False).sum().alias(what) for what, is_so in told.items()).to_dicts()
    return {what: int(num) for what, num in counts.items()}


def _is_midnight(time: str, seconds: int = 120) -> pl.Expr:
    """Whether a time only tells the day: it is so few seconds after midnight. The demo has a discharge of 00:01."""
    of_day = pl.col(time) - pl.col(time).dt.truncate("1d")
    return (of_day.dt.total_seconds() < seconds).fill_null(False)


def _is_of_admission() -> pl.Expr:
    """Whether the admission's ``deathtime`` lies in it, a day of grace included."""
    latest = pl.coalesce(pl.col("discharged_until") + DAY, "deathtime")
    return (pl.col("deathtime") <= latest).fill_null(False)


def _is_day_within_admission() -> pl.Expr:
    """Whether the patient died on a day before that of the discharge."""
    discharge_day = pl.col("dischtime").dt.truncate("1d")
    return ((pl.col("dod") >= pl.col("admittime").dt.truncate("1d")) & (pl.col("dod") < discharge_day)).fill_null(False)


def _icu_end() -> pl.Expr:
    """The end in intensive care: death, if its time is known; ``outtime`` unless the patient died on a day before."""
    is_later = (pl.col("outtime") > pl.col("died_until")).fill_null(False)
    at_death = pl.when(is_exact() & (pl.col("died_from") >= pl.col("intime"))).then("died_from")
    return pl.when(is_later).then(at_death).otherwise("outtime")


def _hospital_end() -> pl.Expr:
    """The same in the hospital; a discharge of midnight is the day of the death that follows."""
    is_in_time = is_exact() & (pl.col("died_from") <= pl.coalesce("discharged_until", "died_from"))
    at_death = pl.when(is_in_time & (pl.col("died_from") >= pl.col("admittime"))).then("died_from")
    is_unknown = (~is_exact() & (pl.col("dischtime") > pl.col("died_until"))).fill_null(False)
    return pl.when(is_in_time).then(at_death).when(~is_unknown).then("dischtime")


def _is_outside_admission() -> pl.Expr:
    """Whether the stay in intensive care begins before the admission, or ends after it, by more than a day. In the
    MIMIC-IV demo one patient leaves intensive care 13 h after the discharge, and lives."""
    is_early = pl.col("intime") < pl.col("admittime") - DAY
    return (is_early | (pl.coalesce("icu_end", "outtime") > pl.col("discharged_until") + DAY)).fill_null(False)
