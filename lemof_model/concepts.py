"""What is measured and given in intensive care, as plain data: item ids, units, limits, and how a first day sums it up.

Sources of item ids, units and limits: [mimic-code] MIT-LCP/mimic-code, mimic-iv/concepts; [mimic-iii] the same,
mimic-iii/concepts/firstday; [LOINC] the same, mimic-iv/concepts/concept_map/chartevents_to_loinc.csv; [CLIF]
Common-Longitudinal-ICU-data-Format/CLIF-MIMIC, data/mappings, of MIMIC-IV 3.1, with the greatest values met there;
[eICU] MIT-LCP/eicu-code, concepts/pivoted/pivoted-lab.sql; [ricu] eth-mds/ricu, extdata/config/concept-dict; [AMA] AMA
Manual of Style, 11th edition, conversion to SI units; [ours] what none of them gives.
"""

from collections.abc import Mapping
from functools import partial

from lemof_model.items import Aggregate, Concept, Item, Table, Treatment, Unit

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


def _score(name: str, lowest: int, highest: int, item_id: int, *aggregates: Aggregate) -> Concept:
    """A bedside score in whole steps, both ends included."""
    return Concept(name, "", "chartevents", (Item(item_id, Unit("", lowest - 0.5, highest)),), aggregates)


def _measured(
    table: Table,
    aggregates: tuple[Aggregate, ...],
    name: str,
    unit: str,
    low: float,
    high: float,
    *item_ids: int,
    others: Mapping[str, float] | None = None,
    certain: tuple[Unit, ...] = (),
    usual: tuple[float, float] | None = None,
    codes: tuple[float, ...] = (),
) -> Concept:
    """Something measured in one unit; ``others`` are further units and their factors."""
    items = tuple(Item(item_id, Unit(unit, low, high)) for item_id in item_ids)
    return Concept(name, unit, table, items, aggregates, _other(low, high, others or {}), certain, usual, codes)


_vital = partial(_measured, "chartevents", VITAL_AGGREGATES)
_lab = partial(_measured, "labevents", LAB_AGGREGATES)

CM, INCH = Unit("cm", 120, 230), Unit("in", 120 / INCHES, 230 / INCHES, INCHES)
KG, LB = Unit("kg", 1, 500), Unit("lb", 1 / POUNDS, 500 / POUNDS, POUNDS)
DEG_C, DEG_F = Unit("degC", 10, 50), Unit("degF", 70, 120, 5 / 9, -160 / 9)

VITALS: tuple[Concept, ...] = (
    _vital("heart_rate", "bpm", 0, 300, 220045),  # [mimic-code] vitalsign.sql, also for the next seven
    # By hand, left and right: [LOINC] 224167, 227243; 224643, 227242; [CLIF] too, and [mimic-iii] of its older system.
    # Where medians usually lie, here and below: [ours], wide enough for any intensive care of adults.
    _vital("sbp", "mmHg", 0, 400, 220179, 220050, 225309, 224167, 227243, usual=(80, 180), others=BLOOD_PRESSURE),
    _vital("dbp", "mmHg", 0, 300, 220180, 220051, 225310, 224643, 227242, usual=(35, 110), others=BLOOD_PRESSURE),
    _vital("mbp", "mmHg", 0, 300, 220181, 220052, 225312, usual=(50, 130), others=BLOOD_PRESSURE),
    _vital("resp_rate", "1/min", 0, 70, 220210, 224690),
    Concept(
        "temperature",
        "degC",
        "chartevents",
        # 226329, 227632, 227634: [LOINC], of a pulmonary artery catheter and of a cooling device
        (Item(223762, DEG_C), Item(223761, DEG_F), *(Item(item_id, DEG_C) for item_id in (226329, 227632, 227634))),
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
        220277,
        usual=(70, 101),
        others={"fraction": 100.0},  # a median is known to 1 %
        certain=(Unit("fraction", 0.5, 1, 100.0),),  # nobody lives with a saturation of 1 % [ours]
    ),
    # cap [ours]; a bedside meter and the laboratory have the same units
    _vital(
        "glucose", "mg/dL", 0, 2000, 225664, 220621, 226537, usual=(60, 300), others={"mmol/L": 18.016, "g/L": 100.0}
    ),
    Concept(
        "height",
        "cm",
        "chartevents",
        (Item(226730, CM), Item(226707, INCH)),  # [mimic-code] height.sql
        ("mean",),
        _other(120, 230, {"m": 100.0, "mm": 0.1, "ft": FEET}),
        certain=(Unit("m", 1.2, 2.3, 100.0),),
        usual=(140, 200),
    ),
    Concept(  # limits: [ricu] weight
        "weight",
        "kg",
        "chartevents",
        (Item(226512, KG), Item(224639, KG), Item(226531, LB)),  # [mimic-code] weight_durations.sql; 226531: [LOINC]
        ("mean",),
        _other(1, 500, {"g": 0.001, "oz": OUNCES}),
        usual=(50, 120),
    ),
    # [mimic-code] gcs.sql. NOTE[DIFF]: a verbal response under intubation counts as charted, not as normal.
    _score("gcs_eye", 1, 4, 220739, "min", "last", "count"),
    _score("gcs_verbal", 1, 5, 223900, "min", "last", "count"),
    _score("gcs_motor", 1, 6, 223901, "min", "last", "count"),
    Concept(
        "fio2",
        "%",
        "chartevents",
        # [mimic-code] bg.sql: a fraction or a percentage, and litres of oxygen in between; air has 20.9 % [ours]
        (Item(223835, Unit("fraction", 0.209, 1, 100.0)), Item(223835, Unit("%", 20.9, 100))),
        ("max", "mean", "last", "count"),
        usual=(20, 101),
    ),
    _score("rass", -5, 4, 228096, "min", "max", "last", "count"),  # [ricu] rass
)

# The laboratory's own system reports these numbers, so a rare true value is likelier than a typing error and the wider
# limits win. Lower end: 0 [mimic-code]. Upper end: [mimic-code] chemistry.sql, complete_blood_count.sql, enzyme.sql
# where it caps at all (its 10000 is none), else [ricu] or as marked. Gases: [ricu]. Other units: [AMA]; mg/L and g/L as
# French laboratories report. The second ids of electrolytes, haematocrit, haemoglobin and white cells are those of the
# blood gas and of the count without a differential, one concept in [mimic-iii] labs_first_day.sql; further ones are of
# small laboratories of the same hospital: [CLIF].
LABS: tuple[Concept, ...] = (
    _lab("albumin", "g/dL", 0, 10, 50862, usual=(1.5, 6), others={"g/L": 0.1}),
    _lab("anion_gap", "mEq/L", 0, 50, 50868, others=EQUIVALENTS),  # upper end: YerevaNN/mimic3-benchmarks
    _lab("bicarbonate", "mEq/L", 0, 50, 50882, others=EQUIVALENTS),
    _lab(  # a row of urea itself: 60 of its mass of 28 are nitrogen [ricu]
        "bun", "mg/dL", 0, 300, 51006, 52647, usual=(10, 60),
        others={"mmol/L": 2.801, "mg/dL of urea": 0.467, "g/L": 46.7},
    ),
    _lab(
        "calcium", "mg/dL", 0, 20, 50893, usual=(6, 12), others={"mmol/L": 4.008, "mEq/L": 2.004, "mg/L": 0.1}
    ),
    # [ours]: ricu's 130 is met in severe hypernatraemia
    _lab("chloride", "mEq/L", 0, 200, 50902, 50806, 52535, others=EQUIVALENTS),
    # From half of the least that [eICU] keeps; the highest ever reported is 73.8 mg/dL (doi 10.1155/2021/6048919). So
    # 88 without a unit is none, nor is 1 in umol/L.
    _lab(
        "creatinine", "mg/dL", 0.05, 75, 50912, 52024, 52546, usual=(0.3, 6),
        others={"umol/L": 1 / 88.42, "mg/L": 0.1, "mmol/L": 1000 / 88.42},
    ),
    # Cap [ours]: as at the bedside, for ricu's 1000 is passed in crises. The second is the blood gas's: bg.sql.
    _lab(
        "glucose_lab", "mg/dL", 0, 2000, 50931, 50809, 52569, usual=(60, 300),
        others={"mmol/L": 18.016, "g/L": 100.0},
    ),
    _lab("sodium", "mEq/L", 0, 200, 50983, 50824, 52623, others=EQUIVALENTS),
    _lab("potassium", "mEq/L", 0, 30, 50971, 50822, 52610, others=EQUIVALENTS),
    _lab(  # [ours]: ricu's 5 is passed if treated
        "magnesium", "mg/dL", 0, 20, 50960, usual=(1.3, 4), others={"mmol/L": 2.431, "mEq/L": 1.2155, "mg/L": 0.1}
    ),
    _lab("phosphate", "mg/dL", 0, 40, 50970, usual=(1.8, 8), others={"mmol/L": 3.097, "mg/L": 0.1}),
    # A haematocrit of 1 % is none: such a value without a unit is a fraction. [ours]
    _lab(
        "hematocrit", "%", 1, 100, 51221, 50810, usual=(18, 55), others={"L/L": 100.0},
        certain=(Unit("L/L", 0.05, 1, 100.0),),
    ),
    _lab(  # [ours]: not ricu's 18
        "hemoglobin", "g/dL", 0, 30, 51222, 50811, 51645, usual=(6.8, 18), others={"g/L": 0.1, "mmol/L": 1.611}
    ),
    # [ours], lower ends too: 200 and 8 in cells are none
    _lab("platelets", "K/uL", 0.5, 5000, 51265, usual=(20, 1000), others=CELLS),
    _lab(
        "wbc", "K/uL", 0.01, 1000, 51301, 51300, 51755, 51756, usual=(1, 100), others=CELLS, codes=(999,)
    ),
    _lab("rdw", "%", 0, 100, 51277),
    _lab("inr", "", 0, 50, 51237, 51675),  # [mimic-iii]; [eICU] 15, [CLIF] 27.5
    _lab("pt", "s", 0, 300, 51274),  # [ours]: twice the 150 of [mimic-iii], at which analysers give up
    _lab("ptt", "s", 0, 500, 51275),  # [eICU]
    _lab(
        "bilirubin", "mg/dL", 0, 100, 50885, usual=(0.1, 5), others={"umol/L": 1 / 17.1, "mg/L": 0.1}
    ),
    # Met in a hospital's 1.3 million: 61,854, 42,606 and 5,965 IU/L [CLIF]. Above: [ours].
    _lab("alt", "IU/L", 0, 65_000, 50861, usual=(8, 400), others=ENZYMES),
    _lab("ast", "IU/L", 0, 65_000, 50878, usual=(8, 400), others=ENZYMES),
    _lab("alp", "IU/L", 0, 20_000, 50863, usual=(8, 400), others=ENZYMES),
    _lab(
        "lactate", "mmol/L", 0, 50, 50813, 53154, usual=(0.4, 7), others={"mEq/L": 1.0, "mg/dL": 1 / 9.008}
    ),
    _lab("ph", "", 6.8, 8, 50820),
    _lab("pco2", "mmHg", 10, 150, 50818, usual=(20, 90), others=BLOOD_PRESSURE),
    _lab("po2", "mmHg", 40, 600, 50821, usual=(31, 400), others=BLOOD_PRESSURE),
    _lab("base_excess", "mEq/L", -25, 25, 50802, others=EQUIVALENTS),
    # cardiac_marker.sql, to the next two. Analysers (Roche Elecsys) count to 10 ng/mL, ten times that in a diluted
    # sample; to 35,000 pg/mL, twice that diluted. 52.4 ng/mL and 62,656 pg/mL are met. CK-MB: [ours].
    _lab("troponin_t", "ng/mL", 0, 100, 51003, usual=(0.001, 4), others={"ng/L": 0.001}),
    _lab("ck_mb", "ng/mL", 0, 5000, 50911),
    _lab("nt_probnp", "pg/mL", 0, 70_000, 50963, usual=(50, 50_000), others={"pmol/L": 8.457}),
    # [mimic-code] inflammation.sql; 608 is met [CLIF].
    _lab("crp", "mg/L", 0, 1000, 50889, usual=(2, 400), others={"mg/dL": 10.0, "nmol/L": 0.105}, codes=(999,)),
)  # fmt: skip

URINE_ITEM_IDS = (226559, 226560, 226561, 226584, 226563, 226564, 226565, 226567, 226557, 226558, 227489)
IRRIGANT_IN = 227488
ML = Unit("mL", -0.5, 10_000)

# [mimic-code] urine_output.sql: what is rinsed in comes out again, so it is taken off. Nought is a value; cap [ours].
URINE = Concept(
    "urine",
    "mL",
    "outputevents",
    (*(Item(item_id, ML) for item_id in URINE_ITEM_IDS), Item(IRRIGANT_IN, ML, sign=-1)),
    ("sum", "count"),
    _other(ML.low, ML.high, {"L": 1000.0}),
    usual=(5, 4000),
)

TREATMENTS: tuple[Treatment, ...] = (
    Treatment("invasive_ventilation", "procedureevents", (("", (225792,)),), ("hours",)),  # d_items
    Treatment("noninvasive_ventilation", "procedureevents", (("", (225794,)),), ("hours",)),
    # [mimic-code] vasoactive_agent.sql. Further bags of phenylephrine, pushes of epinephrine, and angiotensin II, which
    # it names as missing: mimic-iv/mapping/inputevents_to_rxnorm.csv, [CLIF] and d_items.
    Treatment(
        "vasopressor",
        "inputevents",
        (
            ("norepinephrine", (221906,)),
            ("epinephrine", (221289, 229617)),
            ("phenylephrine", (221749, 229630, 229631, 229632)),
            ("vasopressin", (222315,)),
            ("dopamine", (221662,)),
            ("dobutamine", (221653,)),
            ("milrinone", (221986,)),
            ("angiotensin_ii", (229709, 229764)),
        ),
        ("given", "hours", "drugs"),
    ),
    # [mimic-code] rrt.sql, where active: haemodialysis, CRRT, CVVHD, peritoneal dialysis, CVVHDF, SCUF
    Treatment(
        "renal_replacement",
        "procedureevents",
        (("", (225441, 225802, 225803, 225805, 225809, 225955)),),
        ("given",),
    ),
)
