"""The audit that a hospital makes of a model before it trusts it: counts of margins of members and of others.

See ``lemof_model/membership.py`` for the attack; it is made where the histograms of all hospitals have been added.
"""

import numpy as np
from numpy.typing import NDArray

from client import frozen
from client.egress import Group
from client.hospital import Hospital
from lemof_model import lemof, membership
from lemof_model.stays import Rows


def audit(hospital: Hospital, model: lemof.Model) -> list[Group]:
    """Histograms of the margins on the splits that trained something, and on ``held_out``, for each learner.

    A group counts only with enough patients of either label: the evaluation sends histograms by label, and what is left
    of this one without a large label would be the small one.
    """
    stays, groups = hospital.stays, []
    omega_1 = lemof.omega_1_log_odds(frozen.levels(hospital, model), model, hospital.study)
    for learner, split in membership.LEARNERS.items():
        for who, rows in (("members", stays.rows(split)), ("others", stays.rows("held_out"))):
            log_odds = omega_1[rows] if learner == "encoders" else frozen.omega_2(hospital, model, rows).mean(axis=1)
            counts = membership.histogram(membership.margins(log_odds, stays.long_stay_N[rows]))
            num_patients = min(stays.num_patients(part) for part in _by_label(rows, stays.long_stay_N))
            name = f"membership/{learner}/{who}"
            groups.append(Group(name, num_patients, len(rows), "cell", {"histogram": counts}))
    return groups


def _by_label(rows: Rows, labels_N: NDArray[np.int8]) -> tuple[Rows, Rows]:
    """Rows of short and of long stays."""
    is_long = labels_N[rows] == 1
    return rows[~is_long], rows[is_long]
