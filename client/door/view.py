"""A hospital as one request sees it: what the stages' releases sum over (``protocol/stages.py``).

What is frozen comes from the cohort's cache; what one request needs twice is made once for it.
"""

from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.budget.noise import clip_rows
from client.cohort import frozen
from client.cohort.hospital import Hospital
from client.cohort.references import reference_scores
from lemof_model import lemof
from lemof_model.stays import BatchOf, Rows, Stays
from lemof_model.study import Study
from protocol.messages import Request

Float = NDArray[np.float64]


class HospitalView:
    """One request at one hospital; ``is_private`` if what leaves gets noise: then what a stay adds is bounded."""

    def __init__(self, hospital: Hospital, request: Request, *, is_private: bool) -> None:
        self.hospital, self.request, self.is_private = hospital, request, is_private
        self.name: str = hospital.name
        self.study: Study = hospital.study
        self.stays: Stays = hospital.stays
        self.subgroups: Mapping[str, NDArray[np.bool_]] = hospital.subgroups
        self._model: lemof.Model = request.model
        for method in ("network", "head", "scores", "_tokens"):
            setattr(self, method, cache(getattr(self, method)))  # of this request alone: it goes with the view

    def has(self, group: str) -> bool:
        """Whether a group is this hospital's at all. One without ECGs has no group of stays with an ECG: it would be
        called too small, as if there were a few."""
        return self.hospital.has_ecgs or not {"ecg", "with_ecg"} & set(group.split("/"))

    def bounded(self, rows_NP: Float) -> Float:
        """Rows of a learner; under a budget no ``[x, 1]`` is longer than the public limit, and NaN is 0."""
        return clip_rows(np.nan_to_num(rows_NP, nan=0.0)) if self.is_private else rows_NP

    def network(self, block: str) -> tuple[Any, BatchOf]:
        """A modality network with the weights that came, and how its inputs are read. It is one for the request: who
        trains it comes last."""
        network = lemof.network(self.study, block, self._model)
        return network, frozen.batches_of(self.hospital, block, self._model)

    def head(self, name: str) -> tuple[Any, Any]:
        """An attention head with the weights that came, and how its inputs are read; one for the request, as above."""
        tokens = self._tokens(lemof.network_number(name, self.study))
        return lemof.attention_head(self.study, self._model, name), tokens.batch

    def _tokens(self, number: int) -> frozen.Tokens:
        """Tokens of the networks of one number, which two heads read."""
        return frozen.Tokens(self.hospital, self._model, number)

    @cached_property
    def levels(self) -> Mapping[str, Float]:
        """Level log-odds of every stay by modality, of networks that learnt nothing of it, where there are such."""
        return frozen.levels(self.hospital, self._model)

    @cached_property
    def levels_of_all(self) -> Mapping[str, Float]:
        """The same of all networks together, whatever they learnt of it."""
        return frozen.levels_of_all(self.hospital, self._model)

    def omega_2(self, rows: Rows) -> Float:
        """Log-odds of the heads of both halves for some rows outside ``train``, (len(rows), 2)."""
        return frozen.omega_2(self.hospital, self._model, rows)

    def scores(self, split: str) -> Mapping[str, Float]:
        """Log-odds of the variants for the stays of a split and, without a budget, those of the references."""
        rows = self.stays.rows(split)
        level = {modality: value[rows] for modality, value in self.levels.items()}
        scores = lemof.predict(level, self.omega_2(rows).mean(axis=1), self._model, self.study)
        if self.is_private:
            return {name: scores[name] for name in lemof.VARIANTS}
        scores |= {name: value[rows] for name, value in reference_scores(self.hospital).items()}
        return {name: scores[name] for name in lemof.SCORED}
