"""What is measured and given in intensive care, as plain data: units, limits, and how a first day sums it up.

It means the same at every hospital, whatever its tables look like: which items of a table it is, a layout says.
Sources of units and limits: [mimic-code] MIT-LCP/mimic-code, mimic-iv/concepts; [mimic-iii] the same,
mimic-iii/concepts/firstday; [CLIF] Common-Longitudinal-ICU-data-Format/CLIF-MIMIC, data/mappings, of MIMIC-IV 3.1, with
the greatest values met there; [eICU] MIT-LCP/eicu-code, concepts/pivoted/pivoted-lab.sql; [ricu] eth-mds/ricu,
extdata/config/concept-dict; [AMA] AMA Manual of Style, 11th edition, conversion to SI units; [ours] what none of them
gives.
"""

from collections.abc import Mapping
from functools import partial

from lemof_model.items import Aggregate, Concept, Kind, Treatment, Unit

VITAL_AGGREGATES: tuple[Aggregate, ...] = ("min", "max", "mean", "first", "last", "count")
LAB_AGGREGATES: tuple[Aggregate, ...] = ("min", "max", "last", "count")

INCHES, FEET, POUNDS, OUNCES, MMHG_PER_KPA = 2.54, 30.48, 0.45359237, 0.028349523, 7.50062
BLOOD_PRESSURE = {"kPa": MMHG_PER_KPA}
EQUIVALENTS = {"mmol/L": 1.0}  # of ions that carry one charge
CELLS = {"cells/uL": 1 / 1000, "10^4/uL": 10.0, "lakh/uL": 100.0}
ENZYMES = {"ukat/L": 60.0, "nkat/L": 0.06}


def _other(low: float, high: float, units: Mapping[str, float]) -> tuple[Unit, ...]:
    """Other units of a concept with these limits: name -> what a value is multiplied by."""
    return tuple(Unit(name, low / factor, high / factor, factor) for name, factor in units.items())


def _score(name: str, lowest: int, highest: int, *aggregates: Aggregate) -> Concept:
    """A bedside score in whole steps, both ends included."""
    return Concept(name, "vital", "", (Unit("", lowest - 0.5, highest),), aggregates)


def _measured(
    kind: Kind,
    aggregates: tuple[Aggregate, ...],
    name: str,
    unit: str,
    low: float,
    high: float,
    *,
    others: Mapping[str, float] | None = None,
    certain: tuple[Unit, ...] = (),
    usual: tuple[float, float] | None = None,
    codes: tuple[float, ...] = (),
) -> Concept:
    """Something measured in one unit; ``others`` are further units and their factors."""
    units = (Unit(unit, low, high), *_other(low, high, others or {}))
    return Concept(name, kind, unit, units, aggregates, certain, usual, codes)


_vital = partial(_measured, "vital", VITAL_AGGREGATES)
_lab = partial(_measured, "lab", LAB_AGGREGATES)

VITALS: tuple[Concept, ...] = (
    _vital("heart_rate", "bpm", 0, 300),  # [mimic-code] vitalsign.sql, also for the next seven
    # Where medians usually lie, here and below: [ours], wide enough for any intensive care of adults.
    _vital("sbp", "mmHg", 0, 400, usual=(80, 180), others=BLOOD_PRESSURE),
    _vital("dbp", "mmHg", 0, 300, usual=(35, 110), others=BLOOD_PRESSURE),
    _vital("mbp", "mmHg", 0, 300, usual=(50, 130), others=BLOOD_PRESSURE),
    _vital("resp_rate", "1/min", 0, 70),
    Concept(
        "temperature",
        "vital",
        "degC",
        (Unit("degC", 10, 50), Unit("degF", 70, 120, 5 / 9, -160 / 9)),
        VITAL_AGGREGATES,
        # A body of 98.6 is not in degrees Celsius, one of 37 not in Fahrenheit. [ours]
        certain=(Unit("degC", 30, 45), Unit("degF", 86, 113, 5 / 9, -160 / 9)),
        usual=(34, 40),
    ),
    _vital(
        "spo2",
        "%",
        1,
        100,
        usual=(70, 101),
        others={"fraction": 100.0},  # a median is known to 1 %
        certain=(Unit("fraction", 0.5, 1, 100.0),),  # nobody lives with a saturation of 1 % [ours]
    ),
    # cap [ours]; a bedside meter and the laboratory have the same units
    _vital("glucose", "mg/dL", 0, 2000, usual=(60, 300), others={"mmol/L": 18.016, "g/L": 100.0}),
    Concept(
        "height",
        "vital",
        "cm",
        (Unit("cm", 120, 230), *_other(120, 230, {"in": INCHES, "m": 100.0, "mm": 0.1, "ft": FEET})),
        ("mean",),
        certain=(Unit("m", 1.2, 2.3, 100.0),),
        usual=(140, 200),
    ),
    Concept(  # limits: [ricu] weight
        "weight",
        "vital",
        "kg",
        (Unit("kg", 1, 500), *_other(1, 500, {"lb": POUNDS, "g": 0.001, "oz": OUNCES})),
        ("mean",),
        usual=(50, 120),
    ),
    # [mimic-code] gcs.sql. NOTE[DIFF]: a verbal response under intubation counts as charted, not as normal.
    _score("gcs_eye", 1, 4, "min", "last", "count"),
    _score("gcs_verbal", 1, 5, "min", "last", "count"),
    _score("gcs_motor", 1, 6, "min", "last", "count"),
    Concept(
        "fio2",
        "vital",
        "%",
        # [mimic-code] bg.sql: a fraction or a percentage, and litres of oxygen in between; air has 20.9 % [ours]
        (Unit("fraction", 0.209, 1, 100.0), Unit("%", 20.9, 100)),
        ("max", "mean", "last", "count"),
        usual=(20, 101),
    ),
    _score("rass", -5, 4, "min", "max", "last", "count"),  # [ricu] rass
)

# The laboratory's own system reports these numbers, so a rare true value is likelier than a typing error and the wider
# limits win. Lower end: 0 [mimic-code]. Upper end: [mimic-code] chemistry.sql, complete_blood_count.sql, enzyme.sql
# where it caps at all (its 10000 is none), else [ricu] or as marked. Gases: [ricu]. Other units: [AMA]; mg/L and g/L as
# French laboratories report. Electrolytes, haematocrit and haemoglobin of the blood gas are one concept with those of
# the laboratory, as in [mimic-iii] labs_first_day.sql.
LABS: tuple[Concept, ...] = (
    _lab("albumin", "g/dL", 0, 10, usual=(1.5, 6), others={"g/L": 0.1}),
    _lab("anion_gap", "mEq/L", 0, 50, others=EQUIVALENTS),  # upper end: YerevaNN/mimic3-benchmarks
    _lab("bicarbonate", "mEq/L", 0, 50, others=EQUIVALENTS),
    _lab(  # a row of urea itself: 60 of its mass of 28 are nitrogen [ricu]
        "bun", "mg/dL", 0, 300, usual=(10, 60),
        others={"mmol/L": 2.801, "mg/dL of urea": 0.467, "g/L": 46.7},
    ),
    _lab(
        "calcium", "mg/dL", 0, 20, usual=(6, 12), others={"mmol/L": 4.008, "mEq/L": 2.004, "mg/L": 0.1}
    ),
    # [ours]: ricu's 130 is met in severe hypernatraemia
    _lab("chloride", "mEq/L", 0, 200, others=EQUIVALENTS),
    # From half of the least that [eICU] keeps; the highest ever reported is 73.8 mg/dL (doi 10.1155/2021/6048919). So
    # 88 without a unit is none, nor is 1 in umol/L.
    _lab(
        "creatinine", "mg/dL", 0.05, 75, usual=(0.3, 6),
        others={"umol/L": 1 / 88.42, "mg/L": 0.1, "mmol/L": 1000 / 88.42},
    ),
    # Cap [ours]: as at the bedside, for ricu's 1000 is passed in crises.
    _lab(
        "glucose_lab", "mg/dL", 0, 2000, usual=(60, 300),
        others={"mmol/L": 18.016, "g/L": 100.0},
    ),
    _lab("sodium", "mEq/L", 0, 200, others=EQUIVALENTS),
    _lab("potassium", "mEq/L", 0, 30, others=EQUIVALENTS),
    _lab(  # [ours]: ricu's 5 is passed if treated
        "magnesium", "mg/dL", 0, 20, usual=(1.3, 4), others={"mmol/L": 2.431, "mEq/L": 1.2155, "mg/L": 0.1}
    ),
    _lab("phosphate", "mg/dL", 0, 40, usual=(1.8, 8), others={"mmol/L": 3.097, "mg/L": 0.1}),
    # A haematocrit of 1 % is none: such a value without a unit is a fraction. [ours]
    _lab(
        "hematocrit", "%", 1, 100, usual=(18, 55), others={"L/L": 100.0},
        certain=(Unit("L/L", 0.05, 1, 100.0),),
    ),
    _lab(  # [ours]: not ricu's 18
        "hemoglobin", "g/dL", 0, 30, usual=(6.8, 18), others={"g/L": 0.1, "mmol/L": 1.611}
    ),
    # [ours], lower ends too: 200 and 8 in cells are none
    _lab("platelets", "K/uL", 0.5, 5000, usual=(20, 1000), others=CELLS),
    _lab(
        "wbc", "K/uL", 0.01, 1000, usual=(1, 100), others=CELLS, codes=(999,)
    ),
    _lab("rdw", "%", 0, 100),
    _lab("inr", "", 0, 50),  # [mimic-iii]; [eICU] 15, [CLIF] 27.5
    _lab("pt", "s", 0, 300),  # [ours]: twice the 150 of [mimic-iii], at which analysers give up
    _lab("ptt", "s", 0, 500),  # [eICU]
    _lab(
        "bilirubin", "mg/dL", 0, 100, usual=(0.1, 5), others={"umol/L": 1 / 17.1, "mg/L": 0.1}
    ),
    # Met in a hospital's 1.3 million: 61,854, 42,606 and 5,965 IU/L [CLIF]. Above: [ours].
    _lab("alt", "IU/L", 0, 65_000, usual=(8, 400), others=ENZYMES),
    _lab("ast", "IU/L", 0, 65_000, usual=(8, 400), others=ENZYMES),
    _lab("alp", "IU/L", 0, 20_000, usual=(8, 400), others=ENZYMES),
    _lab(
        "lactate", "mmol/L", 0, 50, usual=(0.4, 7), others={"mEq/L": 1.0, "mg/dL": 1 / 9.008}
    ),
    _lab("ph", "", 6.8, 8),
    _lab("pco2", "mmHg", 10, 150, usual=(20, 90), others=BLOOD_PRESSURE),
    _lab("po2", "mmHg", 40, 600, usual=(31, 400), others=BLOOD_PRESSURE),
    _lab("base_excess", "mEq/L", -25, 25, others=EQUIVALENTS),
    # cardiac_marker.sql, to the next two. Analysers (Roche Elecsys) count to 10 ng/mL, ten times that in a diluted
    # sample; to 35,000 pg/mL, twice that diluted. 52.4 ng/mL and 62,656 pg/mL are met. CK-MB: [ours].
    _lab("troponin_t", "ng/mL", 0, 100, usual=(0.001, 4), others={"ng/L": 0.001}),
    _lab("ck_mb", "ng/mL", 0, 5000),
    _lab("nt_probnp", "pg/mL", 0, 70_000, usual=(50, 50_000), others={"pmol/L": 8.457}),
    # [mimic-code] inflammation.sql; 608 is met [CLIF].
    _lab("crp", "mg/L", 0, 1000, usual=(2, 400), others={"mg/dL": 10.0, "nmol/L": 0.105}, codes=(999,)),
)  # fmt: skip

# [mimic-code] urine_output.sql: what is rinsed in comes out again, so it is taken off. Nought is a value; cap [ours].
URINE = Concept(
    "urine",
    "output",
    "mL",
    (Unit("mL", -0.5, 10_000), *_other(-0.5, 10_000, {"L": 1000.0})),
    ("sum", "count"),
    usual=(5, 4000),
)

TREATMENTS: tuple[Treatment, ...] = (
    Treatment("invasive_ventilation", ("",), ("hours",)),
    Treatment("noninvasive_ventilation", ("",), ("hours",)),
    # [mimic-code] vasoactive_agent.sql, and angiotensin II, which it names as missing
    Treatment(
        "vasopressor",
        (
            "norepinephrine", "epinephrine", "phenylephrine", "vasopressin", "dopamine", "dobutamine", "milrinone",
            "angiotensin_ii",
        ),
        ("given", "hours", "drugs"),
    ),
    Treatment("renal_replacement", ("",), ("given",)),
)  # fmt: skip
