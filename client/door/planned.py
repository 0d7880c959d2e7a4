"""Every group of stays that a plan will ask a hospital for, before anything is summed over them.

Who is in a group follows from the study, the cohort and the site's limits alone, never from the model; so all groups of
a study are known at its census.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.cohort.hospital import Hospital
from client.door.minimum import held_back
from client.door.view import HospitalView
from client.site import Limits
from lemof_model import lemof
from lemof_model.stays import Rows
from lemof_model.study import MODALITIES, NUM_LEVELS, SPLITS
from protocol.messages import Request
from protocol.method import requests_of
from protocol.release import Group
from protocol.stages import STAGES

OF_A_SPLIT = {*SPLITS, "members", "others"}


def kind_of(stage: str, group: str) -> str:
    """What a group has in common with those that it could be subtracted from: stage and name, on whichever split.

    Example:
        >>> kind_of("census", "train/ehr/0"), kind_of("evaluation", "membership/encoders/members")
        ('census/*/ehr/0', 'evaluation/membership/encoders/*')
    """
    return "/".join([stage, *("*" if word in OF_A_SPLIT else word for word in group.split("/"))])


def planned(hospital: Hospital, limits: Limits) -> Iterator[tuple[Request, Group, int]]:
    """The groups that the hospital's study takes from it, each with the request that asks for it and the minimum that
    it is under, without those that the door holds back. Whichever method it is a plan does not say; so they are those
    of all stages that the hospital allows."""
    least = {"patients": limits.min_patients, "cell": limits.min_cell}
    for request, _ in requests_of(hospital.study, method=tuple(STAGES.values())):
        if request.stage not in limits.stages:
            continue
        groups = list(groups_in(hospital, request).values())
        held = held_back(hospital, limits, groups)
        for group in groups:
            if group.name not in held:
                yield request, group, least[group.minimum]


def groups_in(hospital: Hospital, request: Request) -> dict[str, Group]:
    """The groups of an answer, without sums."""
    view = _WhoIsThere(hospital, request, is_private=False)
    releases = STAGES[request.stage].releases
    return {name: one.group(name, part, {}) for one in releases for name, part in one.parts(view)}


class _Nothing(nn.Module):
    """A network of log-odds 0."""

    def forward(self, rows_B: Tensor) -> Tensor:
        """Log-odds ``(B, 1)``."""
        return torch.zeros(len(rows_B), 1)


class _WhoIsThere(HospitalView):
    """A hospital of which it matters who is in a group, and no score."""

    @cached_property
    def levels(self) -> Mapping[str, NDArray[np.float64]]:
        """Zeros."""
        return {modality: np.zeros((len(self.stays.split_N), NUM_LEVELS)) for modality in MODALITIES}

    @cached_property
    def levels_of_all(self) -> Mapping[str, NDArray[np.float64]]:
        """Zeros."""
        return self.levels

    def network(self, block: str) -> tuple[Any, Any]:
        """No network."""
        return _Nothing(), torch.from_numpy

    def head(self, name: str) -> tuple[Any, Any]:
        """No head."""
        return _Nothing(), torch.from_numpy

    def omega_2(self, rows: Rows) -> NDArray[np.float64]:
        """Zeros."""
        return np.zeros((len(rows), lemof.NUM_HEADS))

    def scores(self, split: str) -> Mapping[str, NDArray[np.float64]]:
        """Zeros."""
        return dict.fromkeys(lemof.SCORED, np.zeros(len(self.stays.rows(split))))
