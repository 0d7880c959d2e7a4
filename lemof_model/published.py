"""Mean and deviation of every measured concept, from public data: a scaling that costs no hospital any privacy.

Used where too few hospitals send sums of their own. The numbers are those of the 115 adult ICU stays of 24 hours or
more in the openly published MIMIC-IV Clinical Database Demo 2.2 (PhysioNet, doi:10.13026/07hj-2a80, ODbL), prepared as
any hospital's are; ``tests/lemof_model/test_published.py`` computes them anew. All values of a concept share a mean and
a deviation; what never varies there has deviation 1. The demo has a hundred patients, so a deviation may be off by a
tenth, and that of a rare test with a long tail by far more; scaled values are clipped, and the encoders learn the rest.
"""

import numpy as np
from numpy.typing import NDArray

from lemof_model.features import FEATURES, Feature

# Concept or feature (``key_of``): mean and standard deviation, in the schema's unit.
MEAN_AND_SCALE: dict[str, tuple[float, float]] = {
    "age": (62.6, 16),
    "icu_admission_hour": (12.9, 6.5),
    "hours_to_icu": (38.4, 80.3),
    "num_earlier_admissions": (1.17, 2.25),
    "num_earlier_icu_stays": (0.374, 0.728),
    "hours_since_discharge": (5190, 8020),
    "earlier_myocardial_infarct": (0.087, 0.282),
    "earlier_congestive_heart_failure": (0.183, 0.386),
    "earlier_peripheral_vascular_disease": (0.0435, 0.204),
    "earlier_cerebrovascular_disease": (0.0522, 0.222),
    "earlier_dementia": (0.0261, 0.159),
    "earlier_chronic_pulmonary_disease": (0.2, 0.4),
    "earlier_rheumatic_disease": (0.0435, 0.204),
    "earlier_peptic_ulcer_disease": (0.0174, 0.131),
    "earlier_liver_disease": (0.0435, 0.204),
    "earlier_diabetes": (0.165, 0.371),
    "earlier_paraplegia": (0.0261, 0.159),
    "earlier_renal_disease": (0.113, 0.317),
    "earlier_malignancy": (0.0957, 0.294),
    "earlier_metastatic_tumor": (0.0087, 0.0928),
    "earlier_aids": (0, 1),
    "heart_rate": (92, 20.3),
    "heart_rate_count": (29.8, 8.35),
    "sbp": (116, 26.8),
    "sbp_count": (31.6, 12.4),
    "dbp": (65, 19.6),
    "dbp_count": (31.6, 12.4),
    "mbp": (78.8, 21.5),
    "mbp_count": (31.7, 12.5),
    "resp_rate": (20.4, 7.31),
    "resp_rate_count": (32.4, 10),
    "temperature": (36.9, 0.757),
    "temperature_count": (10.3, 8.12),
    "spo2": (96.4, 3.89),
    "spo2_count": (28.9, 7.09),
    "glucose": (156, 85.5),
    "glucose_count": (7.38, 6.19),
    "height": (172, 9.53),
    "weight": (81.1, 20.2),
    "gcs_eye": (3.06, 1.19),
    "gcs_eye_count": (7.28, 4.96),
    "gcs_verbal": (3.3, 1.88),
    "gcs_verbal_count": (7.29, 4.96),
    "gcs_motor": (4.96, 1.85),
    "gcs_motor_count": (7.23, 4.95),
    "fio2": (61.5, 23.5),
    "fio2_count": (3.66, 3.8),
    "rass": (-0.858, 1.83),
    "rass_count": (5.66, 2.04),
    "albumin": (3.18, 0.802),
    "albumin_count": (0.504, 0.727),
    "anion_gap": (15.3, 5.18),
    "anion_gap_count": (2.83, 1.51),
    "bicarbonate": (22.9, 4.76),
    "bicarbonate_count": (2.84, 1.53),
    "bun": (25.7, 19.9),
    "bun_count": (2.89, 1.51),
    "calcium": (8.29, 0.79),
    "calcium_count": (2.26, 1.63),
    "chloride": (103, 6.82),
    "chloride_count": (3.62, 1.91),
    "creatinine": (1.46, 1.7),
    "creatinine_count": (2.88, 1.5),
    "glucose_lab": (152, 73.4),
    "glucose_lab_count": (4.31, 2.82),
    "sodium": (137, 5.49),
    "sodium_count": (3.81, 2.09),
    "potassium": (4.21, 0.873),
    "potassium_count": (4.66, 3.02),
    "magnesium": (2.09, 0.704),
    "magnesium_count": (2.41, 1.59),
    "phosphate": (3.76, 1.51),
    "phosphate_count": (2.28, 1.65),
    "hematocrit": (32.4, 6.77),
    "hematocrit_count": (4.4, 2.81),
    "hemoglobin": (10.6, 2.26),
    "hemoglobin_count": (4.01, 2.45),
    "platelets": (213, 108),
    "platelets_count": (3.06, 1.55),
    "wbc": (13.8, 12.6),
    "wbc_count": (3.03, 1.52),
    "rdw": (15, 2.32),
    "rdw_count": (3.03, 1.52),
    "inr": (1.44, 0.663),
    "inr_count": (2.3, 1.63),
    "pt": (15.8, 7.38),
    "pt_count": (2.3, 1.63),
    "ptt": (38.3, 24.3),
    "ptt_count": (2.39, 1.62),
    "bilirubin": (1.34, 2.85),
    "bilirubin_count": (1.02, 1.25),
    "alt": (178, 824),
    "alt_count": (0.983, 1.19),
    "ast": (312, 1370),
    "ast_count": (0.991, 1.18),
    "alp": (104, 77.9),
    "alp_count": (0.991, 1.18),
    "lactate": (2.3, 1.8),
    "lactate_count": (2.79, 2.71),
    "ph": (7.36, 0.102),
    "ph_count": (3.77, 3.78),
    "pco2": (42.3, 13.4),
    "pco2_count": (3.54, 3.63),
    "po2": (150, 116),
    "po2_count": (3.26, 3.58),
    "base_excess": (-1.68, 5.52),
    "base_excess_count": (3.53, 3.61),
    "troponin_t": (0.465, 1.37),
    "troponin_t_count": (0.504, 1.14),
    "ck_mb": (25, 77.4),
    "ck_mb_count": (0.635, 1.11),
    "nt_probnp": (21400, 20800),
    "nt_probnp_count": (0.104, 0.306),
    "crp": (67.8, 67.4),
    "crp_count": (0.0174, 0.131),
    "urine_sum": (1840, 1180),
    "urine_count": (15.7, 6.41),
    "gcs_total": (9.79, 5.07),
    "invasive_ventilation_hours": (7.84, 10.1),
    "noninvasive_ventilation_hours": (0.663, 3.63),
    "vasopressor_given": (0.409, 0.492),
    "vasopressor_hours": (5.67, 8.53),
    "vasopressor_drugs": (0.626, 0.918),
    "renal_replacement_given": (0.0174, 0.131),
}


def key_of(feature: Feature) -> str:
    """What a numeric feature shares its mean and deviation with: all values of its concept.

    Counts, sums, treatments and statics stand alone.
    """
    return feature.concept if feature.aggregate in ("min", "max", "mean", "first", "last") else feature.name


def scaling() -> dict[str, NDArray[np.float32]]:
    """``mean`` and ``scale`` of every numeric feature, as ``stays.scaling_from`` gives them from sums.

    Shape:
        each (number of numeric features,), in the order of ``FEATURES``
    """
    keys = [key_of(feature) for feature in FEATURES if feature.kind == "numeric"]
    values = np.array([MEAN_AND_SCALE[key] for key in keys], np.float32)
    return {"mean": values[:, 0].copy(), "scale": values[:, 1].copy()}
