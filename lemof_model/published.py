"""Mean and deviation of every measured concept, from public data: a scaling that costs no hospital any privacy.

Used where too few hospitals send sums of their own. The numbers are those of the 117 adult ICU stays of 24 hours or
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
    "age": (62.4, 15.9),
    "icu_admission_hour": (12.6, 6.53),
    "hours_to_icu": (40.6, 81.4),
    "num_earlier_admissions": (1.15, 2.23),
    "num_earlier_icu_stays": (0.419, 0.798),
    "hours_since_discharge": (5190, 8020),
    "earlier_myocardial_infarct": (0.0855, 0.28),
    "earlier_congestive_heart_failure": (0.179, 0.384),
    "earlier_peripheral_vascular_disease": (0.0427, 0.202),
    "earlier_cerebrovascular_disease": (0.0513, 0.221),
    "earlier_dementia": (0.0256, 0.158),
    "earlier_chronic_pulmonary_disease": (0.197, 0.397),
    "earlier_rheumatic_disease": (0.0427, 0.202),
    "earlier_peptic_ulcer_disease": (0.0171, 0.13),
    "earlier_liver_disease": (0.0427, 0.202),
    "earlier_diabetes": (0.162, 0.369),
    "earlier_paraplegia": (0.0256, 0.158),
    "earlier_renal_disease": (0.111, 0.314),
    "earlier_malignancy": (0.094, 0.292),
    "earlier_metastatic_tumor": (0.00855, 0.0921),
    "earlier_aids": (0, 1),
    "heart_rate": (91.7, 20.7),
    "heart_rate_count": (29.7, 8.3),
    "sbp": (117, 27),
    "sbp_count": (31.5, 12.3),
    "dbp": (65, 19.5),
    "dbp_count": (31.5, 12.3),
    "mbp": (79, 21.5),
    "mbp_count": (31.6, 12.4),
    "resp_rate": (20.4, 7.34),
    "resp_rate_count": (32.3, 9.98),
    "temperature": (36.9, 0.748),
    "temperature_count": (10.2, 8.08),
    "spo2": (96.4, 3.88),
    "spo2_count": (28.8, 7.06),
    "glucose": (155, 85.1),
    "glucose_count": (7.36, 6.14),
    "height": (172, 9.53),
    "weight": (81.4, 20.2),
    "gcs_eye": (3.06, 1.19),
    "gcs_eye_count": (7.22, 4.94),
    "gcs_verbal": (3.29, 1.87),
    "gcs_verbal_count": (7.23, 4.94),
    "gcs_motor": (4.94, 1.85),
    "gcs_motor_count": (7.17, 4.92),
    "fio2": (61.5, 23.4),
    "fio2_count": (3.71, 3.8),
    "rass": (-0.858, 1.85),
    "rass_count": (5.73, 2.11),
    "albumin": (3.18, 0.802),
    "albumin_count": (0.496, 0.724),
    "anion_gap": (15.3, 5.14),
    "anion_gap_count": (2.8, 1.5),
    "bicarbonate": (22.9, 4.73),
    "bicarbonate_count": (2.82, 1.53),
    "bun": (25.7, 19.7),
    "bun_count": (2.86, 1.51),
    "calcium": (8.29, 0.792),
    "calcium_count": (2.25, 1.62),
    "chloride": (103, 6.77),
    "chloride_count": (3.59, 1.9),
    "creatinine": (1.47, 1.7),
    "creatinine_count": (2.85, 1.5),
    "glucose_lab": (152, 73),
    "glucose_lab_count": (4.27, 2.81),
    "sodium": (137, 5.45),
    "sodium_count": (3.78, 2.08),
    "potassium": (4.2, 0.871),
    "potassium_count": (4.62, 3),
    "magnesium": (2.09, 0.698),
    "magnesium_count": (2.39, 1.58),
    "phosphate": (3.75, 1.5),
    "phosphate_count": (2.26, 1.64),
    "hematocrit": (32.4, 6.73),
    "hematocrit_count": (4.35, 2.84),
    "hemoglobin": (10.6, 2.24),
    "hemoglobin_count": (3.97, 2.48),
    "platelets": (213, 107),
    "platelets_count": (3.03, 1.57),
    "wbc": (13.8, 12.5),
    "wbc_count": (3, 1.54),
    "rdw": (15, 2.32),
    "rdw_count": (3, 1.54),
    "inr": (1.44, 0.66),
    "inr_count": (2.27, 1.63),
    "pt": (15.8, 7.35),
    "pt_count": (2.27, 1.63),
    "ptt": (38.6, 24.3),
    "ptt_count": (2.36, 1.63),
    "bilirubin": (1.34, 2.85),
    "bilirubin_count": (1, 1.25),
    "alt": (178, 824),
    "alt_count": (0.966, 1.18),
    "ast": (312, 1370),
    "ast_count": (0.974, 1.18),
    "alp": (104, 77.9),
    "alp_count": (0.974, 1.18),
    "lactate": (2.3, 1.8),
    "lactate_count": (2.79, 2.69),
    "ph": (7.36, 0.104),
    "ph_count": (3.76, 3.75),
    "pco2": (42.3, 13.6),
    "pco2_count": (3.54, 3.6),
    "po2": (149, 115),
    "po2_count": (3.26, 3.55),
    "base_excess": (-1.67, 5.5),
    "base_excess_count": (3.53, 3.58),
    "troponin_t": (0.465, 1.37),
    "troponin_t_count": (0.496, 1.14),
    "ck_mb": (25, 77.4),
    "ck_mb_count": (0.624, 1.1),
    "nt_probnp": (21400, 20800),
    "nt_probnp_count": (0.103, 0.303),
    "crp": (67.8, 67.4),
    "crp_count": (0.0171, 0.13),
    "urine_sum": (1830, 1180),
    "urine_count": (15.7, 6.37),
    "gcs_total": (9.74, 5.06),
    "invasive_ventilation_hours": (7.77, 10.1),
    "noninvasive_ventilation_hours": (0.736, 3.7),
    "vasopressor_given": (0.402, 0.49),
    "vasopressor_hours": (5.58, 8.5),
    "vasopressor_drugs": (0.615, 0.914),
    "renal_replacement_given": (0.0171, 0.13),
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
