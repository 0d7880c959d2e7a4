"""Charts and labs of generated stays: what they may show, when they are measured, and how they are measured back."""

import dataclasses
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from client.layouts.mimic_iv import items
from lemof_model.features import CONCEPTS
from simulation.synthetic.courses import (
    LABS,
    SHOWN,
    VITALS,
    Array,
    draw_coefficients,
    draw_courses,
    functions_at,
    heart_rate_at,
    measured,
)
from simulation.synthetic.events import (
    ARTERIAL_ITEMS,
    BEDSIDE,
    GASES,
    PANELS,
    PRESSURE,
    ROUNDS,
    chart_events,
    lab_events,
)
from simulation.synthetic.posterior import Values, measured_back, posterior
from simulation.synthetic.process import ECG_LATENTS, EHR_LATENTS, LATENTS, CaseMix, Process, draw_latents
from simulation.synthetic.records import RECORDS

PROCESS = Process()
PLAIN = Process(case_mixes=(dataclasses.replace(PROCESS.case_mixes[0], means=()),))
MIX = PROCESS.case_mixes[0]
NUM_STAYS = 400


def make_stays(los_days: Array, care_units: tuple[str, ...] = MIX.care_units) -> pl.DataFrame:
    """The columns that events need; admitted to intensive care 5 h after the hospital, one stay a day."""
    number = np.arange(len(los_days))
    stays = pl.DataFrame(
        {"subject_id": 1000 + number, "hadm_id": 2000 + number, "stay_id": 3000 + number, "los_days": los_days}
        | {"careunit": np.array(care_units)[number % len(care_units)]}
    )
    return stays.with_columns(
        intime=datetime(2150, 1, 1, 7, 30) + pl.duration(days=100 * pl.int_range(pl.len()))
    ).with_columns(
        admittime=pl.col("intime") - pl.duration(hours=5),
        outtime=pl.col("intime") + pl.duration(seconds=(pl.col("los_days") * 86_400).cast(pl.Int64)),
    )


def draw(
    stays: pl.DataFrame, latents_ND: Array, mix: CaseMix = MIX, seed: int = 3
) -> tuple[pl.DataFrame, pl.DataFrame, Array]:
    """Chart, laboratory and the heart rate's coefficients."""
    rng = np.random.default_rng(seed)
    heart_rate_NB = draw_coefficients("heart_rate", latents_ND, rng)
    courses = draw_courses(latents_ND, heart_rate_NB, rng)
    charts = chart_events(stays, latents_ND, courses, mix, rng)
    return charts, lab_events(stays, latents_ND, courses, mix, 5000, rng), heart_rate_NB


@pytest.fixture(scope="module")
def latents_ND() -> Array:
    return draw_latents(PLAIN, PLAIN.hospital(0, 1, 0), NUM_STAYS, np.random.default_rng(2)).values_ND


@pytest.fixture(scope="module")
def stays() -> pl.DataFrame:
    return make_stays(np.random.default_rng(1).uniform(0.3, 4.0, NUM_STAYS))


@pytest.fixture(scope="module")
def events(stays: pl.DataFrame, latents_ND: Array) -> tuple[pl.DataFrame, pl.DataFrame, Array]:
    return draw(stays, latents_ND)


def test_every_concept_is_shown_by_an_item_of_the_schema_and_measured_in_one_habit() -> None:
    assert [*SHOWN] == [shown.name for shown in VITALS + LABS] and set(SHOWN) == {concept.name for concept in CONCEPTS}
    for concept in (*items.VITALS, *items.LABS):
        assert SHOWN[concept.name].item_id in concept.item_ids, concept.name
        assert (SHOWN[concept.name] in LABS) == (concept in items.LABS)
    habits = (ROUNDS, *BEDSIDE, *PANELS, *GASES)
    together = [habit.concepts for habit in habits] + [PRESSURE]
    assert sorted(name for names in together for name in names) == sorted(SHOWN)
    for names in together:
        for name in names:  # what a value follows is measured before it in the same sample
            assert {other for other, _ in SHOWN[name].follows} <= set(names[: names.index(name)]), name


def test_tables_show_nothing_of_the_latents_that_only_the_ecg_shows(stays: pl.DataFrame, latents_ND: Array) -> None:
    hidden = [name for name in ECG_LATENTS if name not in EHR_LATENTS]
    assert set(hidden) == {"conduction", "repolarisation", "rhythm"}
    columns = [LATENTS.index(name) for name in hidden]
    for shown in SHOWN.values():
        assert not shown.slopes_BD[:, columns].any(), shown.name
    for habit in (ROUNDS, *BEDSIDE, *PANELS, *GASES):
        assert {name for name, _ in habit.loads} <= set(EHR_LATENTS)


def test_nothing_but_the_end_of_events_depends_on_the_length_of_stay(latents_ND: Array) -> None:
    short, long = (draw(make_stays(np.full(NUM_STAYS, days)), latents_ND) for days in (1.6, 40.0))
    assert short[0].equals(long[0]) and short[1].equals(long[1])


def test_same_seed_same_events(
    events: tuple[pl.DataFrame, pl.DataFrame, Array], stays: pl.DataFrame, latents_ND: Array
) -> None:
    charts, labs, _ = draw(stays, latents_ND)
    assert charts.equals(events[0]) and labs.equals(events[1])
    charts, labs, _ = draw(stays, latents_ND, seed=4)
    assert not charts.equals(events[0]) and not labs.equals(events[1])


@pytest.mark.parametrize(
    ("latent", "hours", "beats"),
    [
        ("rate", (0.0, 24.0), (10.5, 10.5)),
        ("trend", (0.0, 12.0, 24.0), (-4.5, 0.0, 4.5)),
        ("response", (0.0, 8.0, 16.0), (-0.13, -4.5, -0.13)),
        ("relapse", (20.0, 21.0, 23.0), (0.0, 2.25, 4.5)),
    ],
)
def test_latents_move_the_heart_rate_when_they_should(
    latent: str, hours: tuple[float, ...], beats: tuple[float, ...]
) -> None:
    shown = SHOWN["heart_rate"]
    coefficients_NB = np.tile(shown.slopes_BD[:, LATENTS.index(latent)], (len(hours), 1))
    np.testing.assert_allclose(heart_rate_at(coefficients_NB, np.array(hours)) - shown.base, beats, atol=0.01)


def test_events_lie_within_their_stay(events: tuple[pl.DataFrame, pl.DataFrame, Array], stays: pl.DataFrame) -> None:
    charts, labs, _ = events
    keys = stays.select("stay_id", "subject_id", "intime", "outtime", "admittime")
    for table, first_hour in ((charts.join(keys, on="stay_id"), 0.0), (labs.join(keys, on="subject_id"), -8.0)):
        hours = table.select((pl.col("charttime") - pl.col("intime")).dt.total_seconds() / 3600).to_series()
        first, last = hours.to_numpy().min(), hours.to_numpy().max()
        assert first_hour - 0.02 <= first < first_hour + 2 and 35 < last <= 36
        assert (table["charttime"] <= table["outtime"]).all() and (table["storetime"] >= table["charttime"]).all()
        assert table["value"].null_count() == table["valuenum"].null_count() == 0
    assert set(charts["stay_id"]) == set(stays["stay_id"])
    before = labs.join(keys, on="subject_id").select(pl.col("charttime") < pl.col("admittime")).to_series()
    assert before.any() and (labs["hadm_id"].is_null() == before).all()
    assert labs["labevent_id"].is_unique().all()
    samples = labs.select("subject_id", "charttime", "specimen_id").unique()
    assert len(samples) == labs["specimen_id"].n_unique() == len(samples.unique(["subject_id", "charttime"]))
    for table, key in ((charts, "stay_id"), (labs, "subject_id")):  # the rows come by stay and by time
        assert table.select(key, "charttime").equals(table.select(key, "charttime").sort(key, "charttime"))


def test_heart_rate_in_the_chart_is_the_one_that_the_ecg_gets(
    events: tuple[pl.DataFrame, pl.DataFrame, Array], stays: pl.DataFrame
) -> None:
    charts, _, heart_rate_NB = events
    rows = charts.filter((pl.col("itemid") == 220045) & (pl.col("valuenum") < 300))
    rows = rows.join(stays.select("stay_id", "intime"), on="stay_id")
    hours = rows.select((pl.col("charttime") - pl.col("intime")).dt.total_seconds() / 3600).to_series().to_numpy()
    apart = rows["valuenum"].to_numpy() - heart_rate_at(heart_rate_NB[rows["stay_id"].to_numpy() - 3000], hours)
    assert abs(apart.mean()) < 0.15 and apart.std() == pytest.approx(SHOWN["heart_rate"].measurement_sd, rel=0.03)


def test_the_sicker_are_measured_more(events: tuple[pl.DataFrame, pl.DataFrame, Array], latents_ND: Array) -> None:
    charts, labs, _ = events
    numbers = {
        name: np.bincount(table.filter(pl.col("itemid").is_in(items))[key].to_numpy() - start, minlength=NUM_STAYS)
        for name, table, key, start, items in (
            ("severity", charts, "stay_id", 3000, [220045]),
            ("shock", charts, "stay_id", 3000, list(ARTERIAL_ITEMS.values())),
            ("respiratory", labs, "subject_id", 1000, [50821]),
            ("strain", labs, "subject_id", 1000, [51003, 50911]),
            ("liver", labs, "subject_id", 1000, [50885]),
        )
    }
    for name, number_N in numbers.items():
        assert np.corrcoef(number_N, latents_ND[:, LATENTS.index(name)])[0, 1] > 0.12, name


def test_blood_pressures_and_texts_are_in_order(events: tuple[pl.DataFrame, pl.DataFrame, Array]) -> None:
    charts, _, _ = events
    cuff = charts.filter(pl.col("itemid").is_in([220179, 220180, 220181]) & (pl.col("valuenum") < 300))
    wide = cuff.pivot(on="itemid", index=["stay_id", "charttime"], values="valuenum").drop_nulls()
    assert (wide["220180"] < wide["220181"]).to_numpy().mean() > 0.95 and (
        wide["220181"] < wide["220179"]
    ).to_numpy().mean() > 0.98
    motor = charts.filter(pl.col("itemid") == 223901).select("value", "valuenum").unique()
    assert dict(motor.iter_rows())["Obeys Commands"] == 6 and motor["value"].is_unique().all()


def draw_values(latents_ND: Array, every_hours: float, rng: np.random.Generator) -> dict[str, Values]:
    """Unrounded values of every concept in every stay, at the same hours."""
    num_stays = len(latents_ND)
    courses = draw_courses(latents_ND, draw_coefficients("heart_rate", latents_ND, rng), rng)
    hours_V = np.tile(np.arange(-5.0, 24.0, every_hours), num_stays)
    stay_V = np.repeat(np.arange(num_stays), len(hours_V) // num_stays)
    values = {}
    for name, shown in SHOWN.items():
        own = dataclasses.replace(shown, follows=())
        values_V = measured(own, courses[name][stay_V], functions_at(hours_V), {}, rng)
        values[name] = Values(stay_V, hours_V, values_V, np.full(len(hours_V), max(shown.measurement_sd, 0.1) ** 2))
    return values


def draw_ages(process: Process, latents_ND: Array, rng: np.random.Generator) -> Array:
    """Unrounded ages."""
    alone = np.sqrt(1 - RECORDS.age_frailty**2) * rng.standard_normal(len(latents_ND))
    spread = RECORDS.age_frailty * latents_ND[:, LATENTS.index("frailty")] + alone
    mean = np.mean([mix.age_years for mix in process.case_mixes])
    return mean + RECORDS.age_sd_years * spread


def dense_posterior(process: Process, values: dict[str, Values], age: float) -> tuple[Array, Array]:
    """Condition one big normal distribution of latents, own coefficients and observations, entry by entry."""
    latent_cov = process.mixing_DD @ process.mixing_DD.T
    means = [dict(mix.means) for mix in process.case_mixes]
    latent_mean = np.array([np.mean([mean.get(name, 0.0) for mean in means]) for name in LATENTS])
    rows = [
        (SHOWN[n], h, y, s)
        for n, v in values.items()
        for h, y, s in zip(v.hours_V, v.values_V, v.variance_V, strict=True)
    ]
    rows = [row for row in rows if row[0].loads or row[0].course]
    num = len(rows)
    frailty = np.eye(len(LATENTS))[LATENTS.index("frailty")]
    slopes = np.array([functions_at(np.array(h)) @ shown.slopes_BD for shown, h, _, _ in rows])
    slopes = np.vstack([slopes, RECORDS.age_sd_years * RECORDS.age_frailty * frailty])
    own = [functions_at(np.array(h)) * shown.own_sd_B for shown, h, _, _ in rows]
    noise = np.zeros((num + 1, num + 1))
    for i, (one, _, _, variance) in enumerate(rows):
        for j, (two, _, _, _) in enumerate(rows):
            of_kin = one.kin_share * two.kin_share if one.kin and one.kin == two.kin else 0.0
            noise[i, j] = (1.0 if one.name == two.name else of_kin) * (own[i] @ own[j])
        noise[i, i] += variance
    noise[num, num] = RECORDS.age_sd_years**2 * (1 - RECORDS.age_frailty**2)
    mean_years = np.mean([mix.age_years for mix in process.case_mixes])
    seen = np.array([y - shown.base for shown, _, y, _ in rows] + [age - mean_years]) - slopes @ latent_mean
    gain = latent_cov @ slopes.T @ np.linalg.inv(slopes @ latent_cov @ slopes.T + noise)
    mean, cov = latent_mean + gain @ seen, latent_cov - gain @ slopes @ latent_cov
    kept = [LATENTS.index(name) for name in EHR_LATENTS]
    return mean[kept], cov[np.ix_(kept, kept)]


def test_posterior_is_that_of_the_dense_normal_distribution() -> None:
    rng = np.random.default_rng(5)
    latents_ND = draw_latents(PROCESS, PROCESS.hospital(1, 4, 0), 3, rng).values_ND
    values = draw_values(latents_ND, 5.5, rng)
    for name in ("crp", "troponin_t", "alt", "dbp"):  # nothing measured, also of one of two kin
        values[name] = Values(*(getattr(values[name], field.name)[:0] for field in dataclasses.fields(Values)))
    ages_N = draw_ages(PROCESS, latents_ND, rng)
    means_NE, covariance_NEE = posterior(PROCESS, values, ages_N)
    of_one = {
        name: Values(*(getattr(seen, field.name)[seen.stay_V == 1] for field in dataclasses.fields(Values)))
        for name, seen in values.items()
    }
    mean_E, covariance_EE = dense_posterior(PROCESS, of_one, ages_N[1])
    np.testing.assert_allclose(means_NE[1], mean_E, atol=1e-8)
    np.testing.assert_allclose(covariance_NEE[1], covariance_EE, atol=1e-8)


def test_posterior_knows_how_much_it_knows(latents_ND: Array) -> None:
    rng = np.random.default_rng(6)
    means_NE, covariance_NEE = posterior(PLAIN, draw_values(latents_ND, 2.0, rng), draw_ages(PLAIN, latents_ND, rng))
    truth_NE = latents_ND[:, [LATENTS.index(name) for name in EHR_LATENTS]]
    variance_NE = np.diagonal(covariance_NEE, axis1=1, axis2=2)
    scores_NE = (truth_NE - means_NE) / np.sqrt(variance_NE)
    assert (np.abs(scores_NE.mean(axis=0)) < 4 / np.sqrt(NUM_STAYS)).all()
    np.testing.assert_allclose(scores_NE.std(axis=0), 1, atol=4 / np.sqrt(2 * NUM_STAYS))
    explained_E = 1 - ((truth_NE - means_NE) ** 2).mean(axis=0)
    np.testing.assert_allclose(explained_E, 1 - variance_NE.mean(axis=0), atol=0.1)


def write_tree(folder: Path, stays: pl.DataFrame, charts: pl.DataFrame, labs: pl.DataFrame, ages_N: Array) -> None:
    """The five tables that are measured back."""
    ages = stays.select("subject_id", anchor_year=pl.lit(2150), anchor_age=pl.Series(np.round(ages_N).astype(int)))
    ages = ages.with_columns(anchor_age=ages["anchor_age"] - (stays["admittime"].dt.year() - 2150))
    tables = {
        "icu/icustays": stays.select("subject_id", "hadm_id", "stay_id", "intime", "outtime"),
        "hosp/admissions": stays.select("subject_id", "hadm_id", "admittime"),
        "hosp/patients": ages,
        "icu/chartevents": charts,
        "hosp/labevents": labs,
    }
    for name, table in tables.items():
        path = folder / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S", compression="gzip")


def test_latents_are_measured_back_from_the_written_tables(tmp_path: Path, latents_ND: Array) -> None:
    rng = np.random.default_rng(7)
    units = (*MIX.care_units, "Cardiac Vascular Intensive Care Unit (CVICU)")  # charts degrees Celsius
    stays = make_stays(np.full(NUM_STAYS, 2.0), units)
    charts, labs, _ = draw(stays, latents_ND)
    ages_N = draw_ages(PLAIN, latents_ND, rng)
    write_tree(tmp_path / "whole", stays, charts, labs, ages_N)
    stay_ids, means_NE = measured_back(tmp_path / "whole", PLAIN)
    np.testing.assert_array_equal(stay_ids, stays["stay_id"])
    for column, name in enumerate(EHR_LATENTS):
        truth_N, mean_N = latents_ND[:, LATENTS.index(name)], means_NE[:, column]
        assert np.corrcoef(truth_N, mean_N)[0, 1] ** 2 > (0.4 if name == "relapse" else 0.52), name
        assert np.polyfit(mean_N, truth_N, 1)[0] == pytest.approx(1, abs=0.25), name
    in_celsius = charts.filter(pl.col("itemid") == 223762)
    assert 36 < in_celsius["valuenum"].to_numpy().mean() < 38 and in_celsius["valueuom"].unique().to_list() == ["°C"]
    end = pl.col("intime") + pl.duration(hours=24)
    keys = stays.select("stay_id", "subject_id", "intime")
    charts = charts.join(keys.drop("subject_id"), on="stay_id").filter(pl.col("charttime") <= end).drop("intime")
    labs = labs.join(keys.drop("stay_id"), on="subject_id").filter(pl.col("storetime") <= end).drop("intime")
    write_tree(tmp_path / "first day", stays, charts, labs, ages_N)
    np.testing.assert_allclose(measured_back(tmp_path / "first day", PLAIN)[1], means_NE, atol=1e-9)
