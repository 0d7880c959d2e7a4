"""Which items of MIMIC-IV each concept and treatment is stored as.

Sources: [mimic-code] MIT-LCP/mimic-code, mimic-iv/concepts; [mimic-iii] the same, mimic-iii/concepts/firstday; [LOINC]
the same, mimic-iv/concepts/concept_map/chartevents_to_loinc.csv; [CLIF] Common-Longitudinal-ICU-data-Format/CLIF-MIMIC,
data/mappings, of MIMIC-IV 3.1; [ricu] eth-mds/ricu, extdata/config/concept-dict.
"""

from collections.abc import Mapping, Sequence

from lemof_model import concepts
from lemof_model.items import Concept, Item, StoredConcept, StoredTreatment

Ids = Mapping[str, Sequence[int | tuple[int, str]]]
"""By concept, its item ids; with the unit of one that is not in the concept's own."""

CHARTEVENTS: Ids = {
    "heart_rate": (220045,),  # [mimic-code] vitalsign.sql, also for the next seven
    # By hand, left and right: [LOINC] 224167, 227243; 224643, 227242; [CLIF] too, and [mimic-iii] of its older system.
    "sbp": (220179, 220050, 225309, 224167, 227243),
    "dbp": (220180, 220051, 225310, 224643, 227242),
    "mbp": (220181, 220052, 225312),
    "resp_rate": (220210, 224690),
    # 226329, 227632, 227634: [LOINC], of a pulmonary artery catheter and of a cooling device
    "temperature": (223762, (223761, "degF"), 226329, 227632, 227634),
    "spo2": (220277,),
    "glucose": (225664, 220621, 226537),
    "height": (226730, (226707, "in")),  # [mimic-code] height.sql
    "weight": (226512, 224639, (226531, "lb")),  # [mimic-code] weight_durations.sql; 226531: [LOINC]
    "gcs_eye": (220739,),  # [mimic-code] gcs.sql
    "gcs_verbal": (223900,),
    "gcs_motor": (223901,),
    "fio2": ((223835, "fraction"), 223835),  # [mimic-code] bg.sql: either of two units, and litres of oxygen in between
    "rass": (228096,),  # [ricu] rass
}
# [mimic-code] chemistry.sql, complete_blood_count.sql, enzyme.sql, bg.sql, cardiac_marker.sql, inflammation.sql,
# coagulation.sql. The second ids of electrolytes, glucose, haematocrit, haemoglobin and white cells are those of the
# blood gas and of the count without a differential, one concept in [mimic-iii] labs_first_day.sql; further ones are of
# small laboratories of the same hospital: [CLIF].
LABEVENTS: Ids = {
    "albumin": (50862,),
    "anion_gap": (50868,),
    "bicarbonate": (50882,),
    "bun": (51006, 52647),
    "calcium": (50893,),
    "chloride": (50902, 50806, 52535),
    "creatinine": (50912, 52024, 52546),
    "glucose_lab": (50931, 50809, 52569),
    "sodium": (50983, 50824, 52623),
    "potassium": (50971, 50822, 52610),
    "magnesium": (50960,),
    "phosphate": (50970,),
    "hematocrit": (51221, 50810),
    "hemoglobin": (51222, 50811, 51645),
    "platelets": (51265,),
    "wbc": (51301, 51300, 51755, 51756),
    "rdw": (51277,),
    "inr": (51237, 51675),
    "pt": (51274,),
    "ptt": (51275,),
    "bilirubin": (50885,),
    "alt": (50861,),
    "ast": (50878,),
    "alp": (50863,),
    "lactate": (50813, 53154),
    "ph": (50820,),
    "pco2": (50818,),
    "po2": (50821,),
    "base_excess": (50802,),
    "troponin_t": (51003,),
    "ck_mb": (50911,),
    "nt_probnp": (50963,),
    "crp": (50889,),
}
URINE_ITEM_IDS = (226559, 226560, 226561, 226584, 226563, 226564, 226565, 226567, 226557, 226558, 227489)
IRRIGANT_IN = 227488  # [mimic-code] urine_output.sql: what is rinsed in is taken off

PROCEDUREEVENTS: Mapping[str, Sequence[Sequence[int]]] = {
    "invasive_ventilation": ((225792,),),  # d_items, also for the next
    "noninvasive_ventilation": ((225794,),),
    # [mimic-code] rrt.sql, where active: haemodialysis, CRRT, CVVHD, peritoneal dialysis, CVVHDF, SCUF
    "renal_replacement": ((225441, 225802, 225803, 225805, 225809, 225955),),
}
# [mimic-code] vasoactive_agent.sql. Further bags of phenylephrine, pushes of epinephrine, and angiotensin II, which it
# names as missing: mimic-iv/mapping/inputevents_to_rxnorm.csv, [CLIF] and d_items.
VASOPRESSORS: Mapping[str, Sequence[int]] = {
    "norepinephrine": (221906,),
    "epinephrine": (221289, 229617),
    "phenylephrine": (221749, 229630, 229631, 229632),
    "vasopressin": (222315,),
    "dopamine": (221662,),
    "dobutamine": (221653,),
    "milrinone": (221986,),
    "angiotensin_ii": (229709, 229764),
}


def _stored(concept: Concept, ids: Sequence[int | tuple[int, str]]) -> StoredConcept:
    """A concept with its items."""
    named = (each if isinstance(each, tuple) else (each, concept.unit) for each in ids)
    return StoredConcept(concept, tuple(Item(item_id, concept.units[unit]) for item_id, unit in named))


VITALS = tuple(_stored(concept, CHARTEVENTS[concept.name]) for concept in concepts.VITALS)
LABS = tuple(_stored(concept, LABEVENTS[concept.name]) for concept in concepts.LABS)
_RINSED = Item(IRRIGANT_IN, concepts.URINE.units["mL"], sign=-1)
URINE = StoredConcept(concepts.URINE, (*_stored(concepts.URINE, URINE_ITEM_IDS).items, _RINSED))
MEASURED = (*VITALS, *LABS, URINE)
TREATMENTS = tuple(
    StoredTreatment(
        treatment,
        tuple(tuple(VASOPRESSORS[drug]) for drug in treatment.drugs)
        if treatment.name == "vasopressor"
        else tuple(map(tuple, PROCEDUREEVENTS[treatment.name])),
    )
    for treatment in concepts.TREATMENTS
)
