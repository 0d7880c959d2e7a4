"""Groups of diagnoses as prefixes of ICD codes, without dots, by version: the same in every country and table.

``comorbidities``: Quan et al. 2005 (Med Care 43(11):1130-9), as in MIT-LCP/mimic-code, comorbidity/charlson.sql; its
two grades of liver disease and of diabetes are one group each here. ``diseases`` are the ten of the paper, to stratify
an evaluation.
"""

from collections.abc import Mapping

from lemof_model.features import COMORBIDITIES

Prefixes = Mapping[int, tuple[str, ...]]
VERSIONS = (9, 10)

ICD_9 = {
    "myocardial_infarct": "410 412",
    "congestive_heart_failure": "428 39891 40201 40211 40291 40401 40403 40411 40413 40491 40493 4254-4259",
    "peripheral_vascular_disease": "440-441 0930 4373 4471 5571 5579 V434 4431-4439",
    "cerebrovascular_disease": "430-438 36234",
    "dementia": "290 2941 3312",
    "chronic_pulmonary_disease": "490-505 4168-4169 5064 5081 5088",
    "rheumatic_disease": "725 4465 7100-7104 7140-7142 7148",
    "peptic_ulcer_disease": "531-534",
    "liver_disease": "570-571 0706 0709 5733-5734 5738-5739 V427 07022-07023 07032-07033 07044 07054 "
    "4560-4562 5722-5728",
    "diabetes": "2500-2509",
    "paraplegia": "342-343 3341 3440-3446 3449",
    "renal_disease": "582 585-586 V56 5880 V420 V451 5830-5837 40301 40311 40391 40402-40403 40412-40413 40492-40493",
    "malignancy": "140-172 1740-1958 200-208 2386",
    "metastatic_tumor": "196-199",
    "aids": "042-044",
}
ICD_10 = {
    "myocardial_infarct": "I21-I22 I252",
    "congestive_heart_failure": "I43 I50 I099 I110 I130 I132 I255 I420 I425-I429 P290",
    "peripheral_vascular_disease": "I70-I71 I731 I738-I739 I771 I790 I792 K551 K558-K559 Z958-Z959",
    "cerebrovascular_disease": "G45-G46 I60-I69 H340",
    "dementia": "F00-F03 G30 F051 G311",
    "chronic_pulmonary_disease": "J40-J47 J60-J67 I278-I279 J684 J701 J703",
    "rheumatic_disease": "M05-M06 M32-M34 M315 M351 M353 M360",
    "peptic_ulcer_disease": "K25-K28",
    "liver_disease": "B18 K73-K74 K700-K703 K709 K713-K715 K717 K760 K762-K764 K768-K769 Z944 "
    "I850 I859 I864 I982 K704 K711 K721 K729 K765-K767",
    "diabetes": "E100-E109 E110-E119 E120-E129 E130-E139 E140-E149",
    "paraplegia": "G81-G82 G041 G114 G801-G802 G830-G834 G839",
    "renal_disease": "N18-N19 I120 I131 N032-N037 N052-N057 N250 Z490-Z492 Z940 Z992",
    "malignancy": "C43 C88 C00-C26 C30-C34 C37-C41 C45-C58 C60-C76 C81-C85 C90-C97",
    "metastatic_tumor": "C77-C80",
    "aids": "B20-B22 B24",
}


def spans(text: str) -> tuple[str, ...]:
    """Prefixes from a short list in which ``I60-I69`` stands for all between.

    Example:
        >>> spans("G45 I60-I62 4254-4256")
        ('G45', 'I60', 'I61', 'I62', '4254', '4255', '4256')
    """
    prefixes: list[str] = []
    for part in text.split():
        first, _, last = part.partition("-")
        letters = "" if first[0].isdigit() else first[0]
        width = len(first) - len(letters)
        stop = int((last or first)[len(letters) :])
        prefixes += [f"{letters}{number:0{width}}" for number in range(int(first[len(letters) :]), stop + 1)]
    return tuple(prefixes)


COMORBIDITY_PREFIXES: dict[str, Prefixes] = {
    f"earlier_{name}": {9: spans(ICD_9[name]), 10: spans(ICD_10[name])} for name in COMORBIDITIES
}

# Prefixes without dots, any position. HCUP CCS / CCSR categories named beside, written out as prefixes because CCSR's
# first category misses most bacterial pneumonia and hypertensive heart failure.
DISEASE_PREFIXES: dict[str, Prefixes] = {
    "diabetes": {9: ("249", "250"), 10: ("E08", "E09", "E10", "E11", "E13")},  # CCS 49, 50; END002, END003
    "lung_cancer": {9: (*(f"162{digit}" for digit in range(2, 10)), "20921"), 10: ("C34",)},  # CCS 19; NEO022
    "sepsis": {  # CCS 2; INF002
        9: ("038", "99591", "99592", "78552"),
        10: ("A40", "A41", "R652", "A021", "A227", "B377"),
    },
    "acute_myocardial_infarction": {9: ("410",), 10: ("I21", "I22")},  # CCS 100; CIR009
    "dysrhythmia": {  # CCS 106; CIR017: 427 without fibrillation of the ventricles (4274) and arrest (4275)
        9: ("4270", "4271", "4272", "4273", "4276", "4278", "4279"),
        10: ("I47", "I48", "I49"),
    },
    "electrolyte_disorder": {9: ("276",), 10: ("E86", "E87")},  # CCS 55; END011
    "chronic_kidney_disease": {9: ("585",), 10: ("N18",)},  # CCS 158; GEN003
    "heart_failure": {  # CCS 108; CIR019, with hypertensive heart failure
        9: ("428", "39891", *(f"402{x}1" for x in "019"), *(f"404{x}{y}" for x in "019" for y in "13")),
        10: ("I50", "I0981", "I110", "I130", "I132"),
    },
    "pneumonia": {  # CCS 122; RSP002
        9: ("480", "481", "482", "483", "484", "485", "486"),
        10: ("J12", "J13", "J14", "J15", "J16", "J17", "J18"),
    },
    "kidney_failure": {9: ("584", "586"), 10: ("N17", "N19")},  # CCS 157; GEN002
}
