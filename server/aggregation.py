"""From the hospitals' sums to the next weights: added in name order in float64, divided once, given to a strategy.

Flower's strategy gets exactly one reply, the mean, so the order in which hospitals answer can change nothing. FedAvg
returns it; FedAdam takes a server step towards it; FedProx is FedAvg with a term in the hospitals' own training.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg
from numpy.typing import NDArray

from lemof_model.study import StrategySpec
from protocol.messages import Answer

WEIGHTED_BY = "num-examples"

logging.getLogger("flwr").setLevel(logging.WARNING)


def add(answers: Sequence[Answer]) -> tuple[dict[str, NDArray[np.float64]], dict[str, int]]:
    """Add sums and counts over sites in the order of their names; a group that a site left out adds nothing."""
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, int] = {}
    for answer in sorted(answers, key=lambda a: a.site):
        for name in sorted(answer.sums):
            value = np.asarray(answer.sums[name], dtype=np.float64)
            sums[name] = sums[name] + value if name in sums else value
        for name, count in answer.counts.items():
            counts[name] = counts.get(name, 0) + count
    return sums, counts


@dataclass(frozen=True)
class _Mean:
    """The one reply that a strategy gets, in the two words it reads of a Flower message."""

    content: RecordDict

    def has_error(self) -> bool:
        """A mean is never an error."""
        return False


class BlockStrategy:
    """Flower's strategy for one block of weights; what FedAdam remembers lives as long as this object."""

    def __init__(self, spec: StrategySpec) -> None:
        self._strategy = FedAdam(eta=spec.server_lr) if spec.name == "fedadam" else FedAvg()

    def next_weights(
        self, round_number: int, current: Mapping[str, NDArray[Any]], mean: Mapping[str, NDArray[np.float64]]
    ) -> dict[str, NDArray[Any]]:
        """Weights of the next round from the sites' mean, in the current weights' types."""
        record = ArrayRecord({name: Array(np.asarray(mean[name])) for name in current})
        reply = _Mean(RecordDict({"arrays": record, "metrics": MetricRecord({WEIGHTED_BY: 1.0})}))
        if isinstance(self._strategy, FedAdam):
            self._strategy.current_arrays = {name: value.astype(np.float64) for name, value in current.items()}
        arrays, _ = self._strategy.aggregate_train(round_number, [cast(Message, reply)])
        assert arrays is not None
        return {name: arrays[name].numpy().astype(value.dtype) for name, value in current.items()}
