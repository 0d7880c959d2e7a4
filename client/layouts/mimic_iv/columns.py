"""The columns of MIMIC-IV's tables (0.4 to 3.1; mimic.mit.edu/docs/iv/modules) and of MIMIC-IV-ECG's record list.

A name of MIMIC's means the same at every hospital: none is proposed, or taken, for another column.
"""

from collections.abc import Mapping

from readers.tables.files import Naming

OLDER_NAMES = {"race": "ethnicity"}  # MIMIC-IV 1.0

_ORDERS = (
    "orderid linkorderid ordercategoryname secondaryordercategoryname ordercategorydescription patientweight "
    "totalamount totalamountuom isopenbag continueinnextdept cancelreason statusdescription originalamount originalrate"
)
ALL_COLUMNS: dict[str, frozenset[str]] = {
    table: frozenset(columns.split())
    for table, columns in {
        "patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
        "admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admit_provider_id "
        "admission_location discharge_location insurance language marital_status race ethnicity edregtime edouttime "
        "hospital_expire_flag",
        "diagnoses_icd": "subject_id hadm_id seq_num icd_code icd_version",
        "labevents": "labevent_id subject_id hadm_id specimen_id itemid order_provider_id charttime storetime value "
        "valuenum valueuom ref_range_lower ref_range_upper flag priority comments",
        "icustays": "subject_id hadm_id stay_id first_careunit last_careunit intime outtime los",
        "chartevents": "subject_id hadm_id stay_id caregiver_id charttime storetime itemid value valuenum valueuom "
        "warning",
        "outputevents": "subject_id hadm_id stay_id caregiver_id charttime storetime itemid value valueuom",
        "inputevents": "subject_id hadm_id stay_id caregiver_id starttime endtime storetime itemid amount amountuom "
        f"rate rateuom ordercomponenttypedescription {_ORDERS}",
        "procedureevents": "subject_id hadm_id stay_id caregiver_id starttime endtime storetime itemid value valueuom "
        f"location locationcategory {_ORDERS}",
        "record_list": "subject_id study_id file_name ecg_time path",
    }.items()
}
NO_FREE_TEXT = frozenset({"valueuom", "warning"})  # chartevents ends with them: reading them is a tenth of its pass


def naming_of(table: str, own: Mapping[str, str] | None) -> Naming:
    """What the columns of a table are called; ``own`` are a hospital's names of them."""
    return Naming(table, own, OLDER_NAMES, ALL_COLUMNS.get(table, frozenset()), NO_FREE_TEXT)
