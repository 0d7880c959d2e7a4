"""Noise that nobody can derive: the operating system's randomness, and the Gaussian mechanisms made of it.

Nothing here depends on the plan or on a seed, and nothing is stored. A sum leaves through ``Noise``, which adds the
noise and writes the charge in one act, so that no mechanism can be forgotten in the ledger. DP-SGD: ``dp_sgd``.
"""

import math
import os
from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from client.budget.accounting import Charge, Schedule
from client.budget.dp_sgd import Network, train_private
from protocol.kinds import RADIUS, Trained
from protocol.release import Part, Share, View

Float = NDArray[np.float64]

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

    ``charges`` holds everything that was made noisy so far; the ledger takes it as it stands. ``counts`` are the noisy
    numbers of stays by group of the census, empty before it.
    """

    def __init__(self, schedule: Schedule, random: SecureRandom | None = None) -> None:
        self.schedule = schedule
        self.random = random or SecureRandom()
        self.charges: list[Charge] = []
        self.counts: dict[str, int] = dict(schedule.counts)

    def multiplier(self, share: Share) -> float:
        """Standard deviation of the noise of a release over its sensitivity."""
        return self.schedule.noise[share.key]

    def vector(self, share: Share, value: Float, *, sensitivity: float) -> Float:
        """``value`` with the noise that a share pays for; adding or removing one patient of its split changes it by
        ``sensitivity`` at most (L2, over all its elements)."""
        scale = sensitivity * self._charged(share)
        return np.asarray(value + scale * self.random.normal(np.shape(value)))

    def symmetric(self, share: Share, value_PP: Float, *, sensitivity: float) -> Float:
        """A symmetric matrix with symmetric noise; ``sensitivity`` is in the Frobenius norm.

        The mechanism sees the upper triangle with every entry off the diagonal times sqrt 2, a vector of the same norm;
        so such an entry gets 1 / sqrt 2 of the noise of one on the diagonal.
        """
        scale = sensitivity * self._charged(share)
        upper = np.triu(self.random.normal(value_PP.shape), k=1) / math.sqrt(2.0)
        diagonal = self.random.normal((len(value_PP),))
        return np.asarray(value_PP + scale * (upper + upper.T + np.diag(diagonal)))

    def train(self, release: Trained, view: View, parts: Mapping[str, Part]) -> None:
        """One round of DP-SGD of the networks of some groups, in place; charged to the patients of the release."""
        request, sgd = view.request, self.schedule.sgd[view.request.stage]
        self.charges.append(sgd.charge(release.patients))
        expected = sgd.sample_rate * self.counts[f"{release.split}/ehr"] / release.num_folds
        blocks = {group: Network(part.each[0], part.each[1], part.rows) for group, part in parts.items()}
        train_private(
            blocks, view.stays.long_stay_N, release.sampled(view), release.spec(view.study),
            noise_multiplier=sgd.noise_multiplier, sample_rate=sgd.sample_rate, steps=sgd.steps,
            batch_size=max(expected, 1.0), random=self.random, number=request.number,
            proximal_mu=view.study.strategy.proximal_mu,
        )  # fmt: skip

    def _charged(self, share: Share) -> float:
        """The noise multiplier of a release, after its charge was written."""
        self.charges.append(self.schedule.charge(share.split, share.name))
        return self.multiplier(share)


def clip_rows(rows_NP: Float, radius: float = RADIUS) -> Float:
    """Rows shrunk so that no ``[x, 1]`` is longer than ``radius``.

    Example:
        >>> clip_rows(np.array([[30.0, 40.0], [1.0, 0.0]]), radius=math.sqrt(26)).tolist()
        [[3.0, 4.0], [1.0, 0.0]]
    """
    longest = math.sqrt(radius**2 - 1.0)
    norm_N = np.linalg.norm(rows_NP, axis=1, keepdims=True)
    return np.asarray(rows_NP * np.minimum(1.0, longest / np.maximum(norm_N, longest)))
