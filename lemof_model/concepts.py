"""What is measured and given in intensive care, as plain data: item ids, units, limits, and how a first day sums it up.

Sources of item ids, units and limits: [mimic-code] MIT-LCP/mimic-code, mimic-iv/concepts; [ricu] eth-mds/ricu,
extdata/config/concept-dict; [AMA] AMA Manual of Style, 11th edition, conversion to SI units; [ours] what none of them
gives.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

Table = Literal["chartevents", "labevents", "outputevents", "inputevents", "procedureevents"]
Aggregate = Literal["min", "max", "mean", "first", "last", "sum", "count"]
Summary = Literal["given", "hours", "drugs"]


@dataclass(frozen=True)
class Unit:
    """A unit that values come in: kept when ``low < value <= high``, then ``value * factor + offset``.

    Limits are in this unit, before conversion. mimic-code's limits leave out both ends; here the upper end is kept,
    because an SpO2 of 100 is a good one and no other value depends on it.
    """

    name: str
    low: float
    high: float
    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Item:
    """One item id and the unit of its values. An item id that comes in two units has an item for each, with limits
    that do not overlap."""

    item_id: int
    unit: Unit

    @property
    def low(self) -> float:
        """Lower limit, itself left out."""
        return self.unit.low

    @property
    def high(self) -> float:
        """Upper limit, itself kept."""
        return self.unit.high

    @property
    def factor(self) -> float:
        """What a value is multiplied by."""
        return self.unit.factor

    @property
    def offset(self) -> float:
        """What is then added."""
        return self.unit.offset


@dataclass(frozen=True)
class Concept:
    """Something measured again and again: its items, its unit after conversion, and how the first day sums it up.

    ``other_units`` are those that a hospital may declare for an item instead. ``usual`` is where the median of any
    hospital lies, in the concept's unit: outside of it the unit is not what it is said to be.
    """

    name: str
    unit: str
    table: Table
    items: tuple[Item, ...]
    aggregates: tuple[Aggregate, ...]
    other_units: tuple[Unit, ...] = ()
    usual: tuple[float, float] | None = None

    @property
    def item_ids(self) -> tuple[int, ...]:
        """The raw item ids that feed the concept."""
        return tuple(dict.fromkeys(item.item_id for item in self.items))

    @property
    def units(self) -> dict[str, Unit]:
        """Every unit that values of the concept may come in, by name."""
        return {unit.name: unit for unit in (*(item.unit for item in self.items), *self.other_units)}

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and highest value after conversion."""
        ends = [end * item.factor + item.offset for item in self.items for end in (item.low, item.high)]
        return min(ends), max(ends)

    def declared(self, units: Mapping[int, str]) -> "Concept":
        """The concept at a hospital whose items come in these units (item id -> name)."""
        own = {item_id: self.units[units[item_id]] for item_id in self.item_ids if item_id in units}
        kept = tuple(item for item in self.items if item.item_id not in own)
        items = kept + tuple(Item(item_id, unit) for item_id, unit in own.items())
        used = {item.unit for item in items}
        return replace(self, items=items, other_units=tuple(u for u in self.units.values() if u not in used))


@dataclass(frozen=True)
class Treatment:
    """Something given from one time to another: whether on the first day, for how many hours, with how many drugs."""

    name: str
    table: Table
    item_ids: tuple[int, ...]
    summaries: tuple[Summary, ...]


VITAL_AGGREGATES: tuple[Aggregate, ...] = ("min", "max", "mean", "first", "last", "count")
LAB_AGGREGATES: tuple[Aggregate, ...] = ("min", "max", "last", "count")

INCHES, POUNDS, MMHG_PER_KPA = 2.54, 0.45359237, 7.50062


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
    usual: tuple[float, float] | None = None,
    **others: float,
) -> Concept:
    """Something measured in one unit; ``others`` are further units (``_per_`` for /) and their factors."""
    items = tuple(Item(item_id, Unit(unit, low, high)) for item_id in item_ids)
    factors = {other.replace("_per_", "/"): factor for other, factor in others.items()}
    return Concept(name, unit, table, items, aggregates, _other(low, high, factors), usual)


_vital = partial(_measured, "chartevents", VITAL_AGGREGATES)
_lab = partial(_measured, "labevents", LAB_AGGREGATES)


VITALS: tuple[Concept, ...] = (
    _vital("heart_rate", "bpm", 0, 300, 220045),  # [mimic-code] vitalsign.sql, also for the next seven
    # Where medians usually lie, here and below: [ours], wide enough for any intensive care of adults.
    _vital("sbp", "mmHg", 0, 400, 220179, 220050, 225309, usual=(80, 180), kPa=MMHG_PER_KPA),
    _vital("dbp", "mmHg", 0, 300, 220180, 220051, 225310, usual=(35, 110), kPa=MMHG_PER_KPA),
    _vital("mbp", "mmHg", 0, 300, 220181, 220052, 225312, usual=(50, 130), kPa=MMHG_PER_KPA),
    _vital("resp_rate", "1/min", 0, 70, 220210, 224690),
    Concept(
        "temperature",
        "degC",
        "chartevents",
        (Item(223762, Unit("degC", 10, 50)), Item(223761, Unit("degF", 70, 120, 5 / 9, -160 / 9))),
        VITAL_AGGREGATES,
        usual=(34, 40),
    ),
    _vital("spo2", "%", 0, 100, 220277, usual=(70, 101), fraction=100.0),  # a median is known to 1 %
    # cap [ours]; a bedside meter and the laboratory have the same units
    _vital("glucose", "mg/dL", 0, 2000, 225664, 220621, 226537, usual=(60, 300), mmol_per_L=18.016),
    Concept(
        "height",
        "cm",
        "chartevents",
        # [mimic-code] height.sql
        (Item(226730, Unit("cm", 120, 230)), Item(226707, Unit("in", 120 / INCHES, 230 / INCHES, INCHES))),
        ("mean",),
        _other(120, 230, {"m": 100.0}),
        usual=(140, 200),
    ),
    Concept(  # [ricu] weight
        "weight",
        "kg",
        "chartevents",
        (Item(226512, Unit("kg", 1, 500)),),
        ("mean",),
        _other(1, 500, {"lb": POUNDS}),
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
    ),
    _score("rass", -5, 4, 228096, "min", "max", "last", "count"),  # [ricu] rass
)

# The laboratory's own system reports these numbers, so a rare true value is likelier than a typing error and the wider
# limits win. Lower end: 0 [mimic-code]. Upper end: [mimic-code] chemistry.sql, complete_blood_count.sql, enzyme.sql
# where it caps at all (its 10000 is none), else [ricu] or as marked; 100000 where nobody caps [ours]. Gases: [ricu].
# Other units: [AMA].
LABS: tuple[Concept, ...] = (
    _lab("albumin", "g/dL", 0, 10, 50862, usual=(1.5, 6), g_per_L=0.1),
    _lab("anion_gap", "mEq/L", 0, 50, 50868),  # upper end: YerevaNN/mimic3-benchmarks
    _lab("bicarbonate", "mEq/L", 0, 50, 50882),
    _lab("bun", "mg/dL", 0, 300, 51006, usual=(10, 60), mmol_per_L=2.801),
    _lab("calcium", "mg/dL", 0, 20, 50893, usual=(6, 12), mmol_per_L=4.008),
    _lab("chloride", "mEq/L", 0, 200, 50902),  # [ours]: ricu's 130 is met in severe hypernatraemia
    _lab("creatinine", "mg/dL", 0, 150, 50912, usual=(0.3, 6), umol_per_L=1 / 88.42),
    # Cap [ours]: as at the bedside, for ricu's 1000 is passed in crises. The second is the blood gas's: bg.sql.
    _lab("glucose_lab", "mg/dL", 0, 2000, 50931, 50809, usual=(60, 300), mmol_per_L=18.016),
    _lab("sodium", "mEq/L", 0, 200, 50983),
    _lab("potassium", "mEq/L", 0, 30, 50971),
    _lab("magnesium", "mg/dL", 0, 20, 50960, usual=(1.3, 4), mmol_per_L=2.431),  # [ours]: ricu's 5 is passed if treated
    _lab("phosphate", "mg/dL", 0, 40, 50970, usual=(1.8, 8), mmol_per_L=3.097),
    _lab("hematocrit", "%", 0, 100, 51221, usual=(18, 55), L_per_L=100.0),
    _lab("hemoglobin", "g/dL", 0, 30, 51222, usual=(6.8, 18), g_per_L=0.1, mmol_per_L=1.611),  # [ours]: not ricu's 18
    _lab("platelets", "K/uL", 0, 5000, 51265, usual=(20, 1000), cells_per_uL=1 / 1000),  # [ours]
    _lab("wbc", "K/uL", 0, 1000, 51301, usual=(1, 100), cells_per_uL=1 / 1000),  # [ours]
    _lab("rdw", "%", 0, 100, 51277),
    _lab("inr", "", 0, 100_000, 51237),
    _lab("pt", "s", 0, 100_000, 51274),
    _lab("ptt", "s", 0, 100_000, 51275),
    _lab("bilirubin", "mg/dL", 0, 100, 50885, usual=(0.1, 5), umol_per_L=1 / 17.1),
    _lab("alt", "IU/L", 0, 100_000, 50861, usual=(8, 400), ukat_per_L=60.0),
    _lab("ast", "IU/L", 0, 100_000, 50878, usual=(8, 400), ukat_per_L=60.0),
    _lab("alp", "IU/L", 0, 100_000, 50863, usual=(8, 400), ukat_per_L=60.0),
    _lab("lactate", "mmol/L", 0, 50, 50813, usual=(0.4, 7), mg_per_dL=1 / 9.008),
    _lab("ph", "", 6.8, 8, 50820),
    _lab("pco2", "mmHg", 10, 150, 50818, usual=(20, 90), kPa=MMHG_PER_KPA),
    _lab("po2", "mmHg", 40, 600, 50821, usual=(31, 400), kPa=MMHG_PER_KPA),
    _lab("base_excess", "mEq/L", -25, 25, 50802),
    _lab(
        "troponin_t", "ng/mL", 0, 100_000, 51003, usual=(0.001, 4), ng_per_L=0.001
    ),  # cardiac_marker.sql, to the next two
    _lab("ck_mb", "ng/mL", 0, 100_000, 50911),
    _lab("nt_probnp", "pg/mL", 0, 100_000, 50963),
    _lab("crp", "mg/L", 0, 100_000, 50889),  # [mimic-code] inflammation.sql
)

URINE_ITEM_IDS = (226559, 226560, 226561, 226584, 226563, 226564, 226565, 226567, 226557, 226558, 227489)
IRRIGANT_IN = 227488

# [mimic-code] urine_output.sql: what is rinsed in comes out again, so it is taken off. Nought is a value; cap [ours].
URINE = Concept(
    "urine",
    "mL",
    "outputevents",
    (
        *(Item(item_id, Unit("mL", -0.5, 10_000)) for item_id in URINE_ITEM_IDS),
        Item(IRRIGANT_IN, Unit("mL rinsed in", -0.5, 10_000, -1.0)),
    ),
    ("sum", "count"),
)

TREATMENTS: tuple[Treatment, ...] = (
    Treatment("invasive_ventilation", "procedureevents", (225792,), ("hours",)),  # d_items
    Treatment("noninvasive_ventilation", "procedureevents", (225794,), ("hours",)),
    # [mimic-code] vasoactive_agent.sql: norepinephrine, epinephrine, phenylephrine, vasopressin, dopamine, dobutamine,
    # milrinone
    Treatment(
        "vasopressor",
        "inputevents",
        (221906, 221289, 221749, 222315, 221662, 221653, 221986),
        ("given", "hours", "drugs"),
    ),
    # [mimic-code] rrt.sql, where active: haemodialysis, CRRT, CVVHD, peritoneal dialysis, CVVHDF, SCUF
    Treatment("renal_replacement", "procedureevents", (225441, 225802, 225803, 225805, 225809, 225955), ("given",)),
)


def units_of_item(item_id: int) -> tuple[str, ...]:
    """The units that a hospital may declare for an item id; none when no concept reads it.

    Example:
        >>> units_of_item(223761), units_of_item(1)
        (('degC', 'degF'), ())
    """
    for concept in (*VITALS, *LABS):
        if item_id in concept.item_ids:
            return tuple(concept.units)
    return ()
