"""The stays of a generated hospital as CLIF would tell them: tables of MIMIC-IV read, ``clif_like``'s written."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from client.layouts.mimic_iv import items
from lemof_model.categories import category_of
from lemof_model.items import ItemId

DEVICES = {"invasive_ventilation": "IMV", "noninvasive_ventilation": "NIPPV"}
DIALYSIS: Mapping[ItemId, str] = {
    225441: "ihd",
    225802: "crrt",
    225803: "crrt",
    225805: "ihd",
    225809: "crrt",
    225955: "crrt",
}
RACES = {"white": "White", "asian": "Asian", "black": "Black or African American"}
CATEGORIES = {"mbp": "map", "resp_rate": "respiratory_rate", "temperature": "temp_c", "height": "height_cm",
              "weight": "weight_kg"}  # fmt: skip
FORMS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d")


def write_clif(mimic: Path, folder: Path) -> None:
    """Write ``folder/clif_TABLE.parquet`` and ``ecg_list.csv``; records of ECGs stay where they are."""
    folder.mkdir(parents=True)
    hadm_of = _read(mimic, "icu/icustays").select("stay_id", "hadm_id")
    tables = {
        **_of_stays(mimic),
        "hospital_diagnosis": _read(mimic, "hosp/diagnoses_icd").select(
            hospitalization_id="hadm_id",
            diagnosis_code="icd_code",
            diagnosis_code_format=pl.format("ICD{}CM", "icd_version"),
        ),
        **_measured(mimic, hadm_of),
        **_given(mimic, hadm_of),
    }
    fio2 = tables.pop("fio2")
    tables["respiratory_support"] = _with_devices(tables.pop("devices"), fio2)
    for name, table in tables.items():
        table.write_parquet(folder / f"clif_{name}.parquet")
    if (records := mimic / "ecg/record_list.csv").is_file():
        own = {"subject_id": "patient_id", "study_id": "ecg_id", "ecg_time": "acquired_dttm", "path": "file"}
        pl.read_csv(records, infer_schema=False).select(list(own)).rename(own).write_csv(folder / "ecg_list.csv")


def _read(mimic: Path, name: str) -> pl.DataFrame:
    """A table, its ids as numbers and its times as times."""
    table = pl.read_csv(mimic / f"{name}.csv.gz", infer_schema=False)
    times = [column for column in table.columns if column.endswith("time") or column == "dod"]
    return table.with_columns(
        *(pl.coalesce(pl.col(c).str.to_datetime(form, strict=False, time_unit="us") for form in FORMS) for c in times),
        *(pl.col(c).cast(pl.Int64) for c in table.columns if c.endswith("_id") or c == "itemid"),
        *(pl.col(c).cast(pl.Float64) for c in table.columns if c in ("valuenum", "rate", "amount")),
    )


def _words(column: str, feature: str, names: dict[str, str], otherwise: str) -> pl.Expr:
    """This format's word for what a word of MIMIC-IV means."""

    def word(raw: str) -> str:
        return names.get(category_of(feature, raw), otherwise)

    return pl.col(column).map_elements(word, return_dtype=pl.String)


def _of_stays(mimic: Path) -> dict[str, pl.DataFrame]:
    """adt, hospitalization, patient."""
    stays, patients = _read(mimic, "icu/icustays"), _read(mimic, "hosp/patients")
    admissions = _read(mimic, "hosp/admissions").join(patients, on="subject_id", how="left")
    kinds = {kind: f"{kind}_icu" for kind in ("neuro", "trauma", "cardiac", "medical", "surgical")}
    in_icu = stays.select(
        hospitalization_id="hadm_id",
        in_dttm="intime",
        out_dttm="outtime",
        location_category=pl.lit("icu"),
        location_type=_words("first_careunit", "careunit_kind", kinds, "general_icu"),
    )
    on_ward = stays.join(admissions, on="hadm_id").select(
        hospitalization_id="hadm_id",
        in_dttm="admittime",
        out_dttm="intime",
        location_category=pl.lit("ward"),
        location_type=pl.lit(None, pl.String),
    )
    expired = pl.col("hospital_expire_flag") == "1"
    years = [pl.col(name).cast(pl.Int64) for name in ("anchor_age", "anchor_year")]
    first = admissions.group_by("subject_id", maintain_order=True).agg(
        pl.col("race").first(), pl.col("deathtime").min(), pl.col("dod").first(), pl.col("gender").first()
    )
    return {
        "adt": pl.concat([on_ward, in_icu]),
        "hospitalization": admissions.select(
            patient_id="subject_id",
            hospitalization_id="hadm_id",
            admission_dttm="admittime",
            discharge_dttm="dischtime",
            age_at_admission=years[0] + pl.col("admittime").dt.year() - years[1],
            admission_type_name="admission_type",
            discharge_category=pl.when(expired).then(pl.lit("Expired")).otherwise(pl.lit("Home")),
            admission_source_name="admission_location",
            insurance_name="insurance",
            marital_status_name="marital_status",
        ),
        "patient": first.select(
            patient_id="subject_id",
            sex_category=_words("gender", "sex", {"female": "Female", "male": "Male"}, "Unknown"),
            race_category=_words("race", "race", RACES, "Unknown"),
            ethnicity_category=_words("race", "race", {"hispanic": "Hispanic"}, "Non-Hispanic"),
            death_dttm=pl.coalesce("deathtime", "dod"),
        ),
    }


def _measured(mimic: Path, hadm_of: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """vitals, patient_assessments, labs, output, and the settings of oxygen."""
    charts = _read(mimic, "icu/chartevents").drop("hadm_id").join(hadm_of, on="stay_id").join(_units(), on="itemid")
    value = pl.col("valuenum") * pl.col("factor") + pl.col("offset")
    rows = charts.select(
        "concept",
        hospitalization_id="hadm_id",
        recorded_dttm="charttime",
        category=pl.col("concept").replace(CATEGORIES),
        value=pl.when(pl.col("concept") == "fio2").then("valuenum").otherwise(value),
        unit="valueuom",
    )
    is_score = pl.col("concept").str.contains("gcs|rass")
    at_bedside = pl.col("concept").is_in(["glucose", "fio2"])
    labs = _read(mimic, "hosp/labevents").join(_units(), on="itemid").sort("charttime")
    # A value of the emergency room has no admission here; there it is of the one that follows.
    admissions = (
        _read(mimic, "hosp/admissions").select("subject_id", "admittime", next_hadm="hadm_id").sort("admittime")
    )
    labs = labs.join_asof(
        admissions,
        left_on="charttime",
        right_on="admittime",
        by="subject_id",
        strategy="forward",
        check_sortedness=False,
    )
    known = ["hospitalization_id", "lab_category", "lab_collect_dttm", "lab_result_dttm", "lab_value_numeric", "unit"]
    in_laboratory = labs.select(
        pl.coalesce("hadm_id", "next_hadm").alias(known[0]),
        pl.col("concept").str.strip_suffix("_lab").alias(known[1]),
        pl.col("charttime").alias(known[2]),
        pl.col("storetime").alias(known[3]),
        pl.col("valuenum").alias(known[4]),
        pl.col("valueuom").alias(known[5]),
    )
    by_meter = rows.filter(pl.col("concept") == "glucose").select(
        known[0],
        pl.lit("glucose_fingerstick").alias(known[1]),
        pl.col("recorded_dttm").alias(known[2]),
        pl.lit(None, pl.Datetime("us")).alias(known[3]),
        pl.col("value").alias(known[4]),
        known[5],
    )
    outputs = _read(mimic, "icu/outputevents").drop("hadm_id").join(hadm_of, on="stay_id").join(_units(), on="itemid")
    assert (outputs["itemid"] != items.IRRIGANT_IN).all()
    of_value = rows.select("hospitalization_id", "recorded_dttm", "concept", "category", "value")
    return {
        "vitals": of_value.filter(~is_score & ~at_bedside)
        .drop("concept")
        .rename({"category": "vital_category", "value": "vital_value"}),
        "patient_assessments": of_value.filter(is_score)
        .drop("concept")
        .rename({"category": "assessment_category", "value": "numerical_value"}),
        "labs": pl.concat([in_laboratory, by_meter]).rename({"unit": "reference_unit"}),
        "output": outputs.select(
            hospitalization_id="hadm_id",
            recorded_dttm="charttime",
            output_group="concept",
            output_volume=pl.col("value").cast(pl.Float64),
        ),
        "fio2": of_value.filter(pl.col("concept") == "fio2").select(
            "hospitalization_id",
            "recorded_dttm",
            fio2_set=pl.when(pl.col("value") > 1).then(pl.col("value") / 100).otherwise("value"),
        ),
    }


def _units() -> pl.DataFrame:
    """Each item of MIMIC-IV: its concept, and how it becomes the concept's unit."""
    rows = [
        (item.item_id, concept.name, item.factor, item.offset) for concept in items.MEASURED for item in concept.items
    ]
    return pl.DataFrame(rows, ["itemid", "concept", "factor", "offset"], orient="row").unique("itemid", keep="first")


def _given(mimic: Path, hadm_of: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """What ran, as rows of change: medication_admin_continuous, dialysis, and devices."""
    drugs = {item_id: drug for one in items.TREATMENTS for drug, ids in one.drugs for item_id in ids if drug}
    devices = {
        item_id: DEVICES[one.name] for one in items.TREATMENTS if one.name in DEVICES for item_id in one.item_ids
    }
    drips, procedures = (
        _read(mimic, f"icu/{name}").drop("hadm_id").join(hadm_of, on="stay_id")
        for name in ("inputevents", "procedureevents")
    )
    doses = _changes(drips, drugs, ["hadm_id", "what"], "rate")
    return {
        "medication_admin_continuous": doses.filter(pl.col("what").is_not_null()).select(
            hospitalization_id="hadm_id", admin_dttm="time", med_category="what", med_dose="rate"
        ),
        "dialysis": _ended(_changes(procedures, DIALYSIS, ["hadm_id"]), "none").rename({"what": "mode_category"}),
        "devices": _ended(_changes(procedures, devices, ["hadm_id"]), "Nasal Cannula").rename(
            {"what": "device_category"}
        ),
    }


def _changes(
    rows: pl.DataFrame, meaning: Mapping[ItemId, str], of: Sequence[str], rate: str | None = None
) -> pl.DataFrame:
    """Intervals as rows of change: one at each beginning, and one (of no rate) at each end at which nothing begins."""
    mine = rows.with_columns(what=pl.col("itemid").replace_strict(meaning, default=None, return_dtype=pl.String))
    mine = mine.drop_nulls("what").sort(*of, "starttime")
    after = mine.select(late=pl.col("endtime") > pl.col("starttime").shift(-1).over(of))["late"]
    assert not after.fill_null(False).any(), "what overlaps cannot be told by changes"
    value = pl.col(rate) if rate else pl.lit(1.0)
    begins = mine.select("hadm_id", "what", time="starttime", rate=value)
    ends = mine.select("hadm_id", "what", time="endtime", rate=pl.lit(0.0))
    return pl.concat([begins, ends.join(begins, on=[*of, "time"], how="anti")])


def _ended(changes: pl.DataFrame, word: str) -> pl.DataFrame:
    """Changes with a word of their own where something ends."""
    what = pl.when(pl.col("rate") > 0).then("what").otherwise(pl.lit(word)).alias("what")
    return changes.select("hadm_id", what, "time").rename({"hadm_id": "hospitalization_id", "time": "recorded_dttm"})


def _with_devices(devices: pl.DataFrame, fio2: pl.DataFrame) -> pl.DataFrame:
    """Changes of a device, and settings of oxygen with the device of the time."""
    by = "hospitalization_id"
    settings = fio2.sort("recorded_dttm").join_asof(
        devices.sort("recorded_dttm"), on="recorded_dttm", by=by, check_sortedness=False
    )
    return pl.concat([devices, settings.with_columns(pl.col("device_category").fill_null("Face Mask"))], how="diagonal")
