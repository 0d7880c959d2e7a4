"""Noise that nobody can derive: the operating system's randomness, and the Gaussian mechanisms made of it.

Nothing here depends on the plan or on a seed, and nothing is stored. A sum leaves through ``Noise``, which adds the
noise and writes the charge in one act, so that no mechanism can be forgotten in the ledger. DP-SGD: ``client/dp_sgd``.
"""

import math
import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from client.accounting import Charge, Schedule, Sgd

Float = NDArray[np.float64]

RADIUS = 3.0
"""Public limit of the norm of a row ``[x, 1]`` of a logistic learner, in log-odds."""

LOSS_LIMIT = 3.0
"""Public limit of a stay's tuning loss, summed over the outputs of a network (chance level of three: 2.1)."""

_NUM_SUMMED = 4
_CHUNK = 1 << 16


class SecureRandom:
    """A stream of AES-256 in counter mode under a key from the operating system, one for each answer.

    NOTE[DIFF]: Opacus' ``secure_mode`` needs torchcsprng, which was never released for this torch.
    """

    def __init__(self) -> None:
        cipher = Cipher(algorithms.AES(os.urandom(32)), modes.CTR(bytes(16)))
        self._stream = cipher.encryptor()

    def uniform(self, num: int) -> Float:
        """Multiples of 2^-53 from 0 to below 1."""
        words = np.frombuffer(self._stream.update(bytes(8 * num)), np.uint64)
        return np.asarray((words >> np.uint64(11)) * 2.0**-53)

    def normal(self, shape: tuple[int, ...]) -> Float:
        """Standard normal float64, by Box-Muller.

        Each value is half the sum of four: the rounding of a single one could tell what was added to it (Holohan and
        Braghin 2021; Opacus does the same).
        """
        flat = np.empty(math.prod(shape))
        for start in range(0, len(flat), _CHUNK):
            num = min(_CHUNK, len(flat) - start)
            pairs = _NUM_SUMMED // 2
            radius = np.sqrt(-2.0 * np.log1p(-self.uniform(pairs * num))).reshape(pairs, num)
            angle = (2.0 * np.pi) * self.uniform(pairs * num).reshape(pairs, num)
            summed = (radius * (np.cos(angle) + np.sin(angle))).sum(axis=0)
            flat[start : start + num] = summed / math.sqrt(_NUM_SUMMED)
        return flat.reshape(shape)

    def bernoulli(self, q: float, n: int) -> NDArray[np.bool_]:
        """``n`` independent draws that are true with probability ``q`` (to 2^-53): a Poisson sample of n stays."""
        return self.uniform(n) < q


class Noise:
    """The noise of one answer under one schedule, and what it costs.

    ``charges`` holds everything that was made noisy so far; the ledger takes it as it stands.
    """

    def __init__(self, schedule: Schedule, random: SecureRandom | None = None) -> None:
        self.schedule = schedule
        self.random = random or SecureRandom()
        self.charges: list[Charge] = []

    def vector(self, split: str, name: str, value: Float, *, sensitivity: float) -> Float:
        """``value`` with the noise of the release ``split/name``; adding or removing one patient of the split changes
        it by ``sensitivity`` at most (L2, over all its elements)."""
        scale = sensitivity * self._charged(split, name)
        return np.asarray(value + scale * self.random.normal(np.shape(value)))

    def symmetric(self, split: str, name: str, value_PP: Float, *, sensitivity: float) -> Float:
        """A symmetric matrix with symmetric noise; ``sensitivity`` is in the Frobenius norm.

        The mechanism sees the upper triangle with every entry off the diagonal times sqrt 2, a vector of the same norm;
        so such an entry gets 1 / sqrt 2 of the noise of one on the diagonal.
        """
        scale = sensitivity * self._charged(split, name)
        upper = np.triu(self.random.normal(value_PP.shape), k=1) / math.sqrt(2.0)
        diagonal = self.random.normal((len(value_PP),))
        return np.asarray(value_PP + scale * (upper + upper.T + np.diag(diagonal)))

    def sgd(self, split: str, stage: str) -> Sgd:
        """The settings for one round of DP-SGD over the stays of ``split`` (``stack/0`` for a head), charged."""
        found = self.schedule.sgd[stage]
        self.charges.append(found.charge(split))
        return found

    def _charged(self, split: str, name: str) -> float:
        """The noise multiplier of a release, after its charge was written."""
        charge = self.schedule.charge(split, name)
        self.charges.append(charge)
        return charge.noise_multiplier


def clip_rows(rows_NP: Float, radius: float = RADIUS) -> Float:
    """Rows shrunk so that no ``[x, 1]`` is longer than ``radius``.

    Example:
        >>> clip_rows(np.array([[30.0, 40.0], [1.0, 0.0]]), radius=math.sqrt(26)).tolist()
        [[3.0, 4.0], [1.0, 0.0]]
    """
    longest = math.sqrt(radius**2 - 1.0)
    norm_N = np.linalg.norm(rows_NP, axis=1, keepdims=True)
    return np.asarray(rows_NP * np.minimum(1.0, longest / np.maximum(norm_N, longest)))
