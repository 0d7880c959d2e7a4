"""What is frozen is computed once: level log-odds of every stay, and the tokens of the two best levels.

Encoders do not change after their stage, so both lie in a cache folder inside the cohort, named by a digest of all
that they depend on; a cohort that is prepared again takes them with it. Later messages, even in new processes, read
them and run no encoder.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from client.cohort.hospital import Hospital
from lemof_model import lemof, training
from lemof_model.encoders.registry import encoder_class
from lemof_model.errors import DiskError, LemofError
from lemof_model.stays import BatchOf, Rows, ecg_batches, ehr_batches
from lemof_model.study import MODALITIES, SPLITS, canonical_json
from protocol.owner_only import owner_only

Levels = dict[str, NDArray[np.float64]]

NUM_KEPT = 3


def batches_of(hospital: Hospital, block: str, model: lemof.Model) -> BatchOf:
    """Rows -> inputs of a modality network, scaled by the federation's statistics."""
    modality = lemof.modality_of(block)
    if modality == "ecg":
        return ecg_batches(hospital.stays)
    with_grid = encoder_class(modality, hospital.study.ehr).uses_grid
    return ehr_batches(hospital.stays, model["scaling/mean"], model["scaling/scale"], with_grid=with_grid)


def levels(hospital: Hospital, model: lemof.Model, kind: str = "levels") -> Levels:
    """Level log-odds ``(N, 3)`` of every stay by modality; NaN where there is no ECG: on ``stack`` of the network that
    learnt nothing of the patient, else the mean of all. ``kind`` names the cache."""
    stays, found = hospital.stays, {}
    unseen = stays.rows("stack")
    for modality in MODALITIES:
        each = np.stack(
            [_levels(hospital, block, model, kind) for block in lemof.networks_of(hospital.study, modality)]
        )
        found[modality] = each.mean(axis=0)
        found[modality][unseen] = each[stays.network_N[unseen], unseen]
    return found


def levels_of_all(hospital: Hospital, model: lemof.Model, kind: str = "levels") -> Levels:
    """The same as the mean of all networks for every stay, as the released model has it."""
    networks = {modality: lemof.networks_of(hospital.study, modality) for modality in MODALITIES}
    return {m: np.mean([_levels(hospital, block, model, kind) for block in of], axis=0) for m, of in networks.items()}


def _levels(hospital: Hospital, block: str, model: lemof.Model, kind: str) -> NDArray[np.float64]:
    """Level log-odds of one network."""
    stays = hospital.stays

    def compute(folder: Path) -> None:
        rows = np.flatnonzero(stays.has_ecg_N) if lemof.modality_of(block) == "ecg" else np.arange(len(stays.split_N))
        out = np.full((len(stays.split_N), 3), np.nan)
        network = lemof.network(hospital.study, block, model)
        if len(rows):
            out[rows] = training.log_odds(network, batches_of(hospital, block, model), rows)
        np.save(folder / "levels.npy", out)

    folder = cached(hospital, f"{kind}-{block.replace('/', '-')}", _encoder(hospital, block, model), compute)
    found: NDArray[np.float64] = np.load(folder / "levels.npy")
    return found


class Tokens:
    """Tokens of the two best levels (eq. 9) of the networks of one number, memory-mapped float32, for every stay that
    taught them nothing."""

    def __init__(self, hospital: Hospital, model: lemof.Model, number: int = 0, kind: str = "tokens") -> None:
        self._stays = hospital.stays
        stack = hospital.stays.rows("stack")
        own = stack[hospital.stays.network_N[stack] == number]
        self._rows = np.concatenate([own, *(hospital.stays.rows(split) for split in ("tuning", "held_out"))])
        self._tokens: dict[str, NDArray[np.float32]] = {}
        self._position: dict[str, NDArray[np.int64]] = {}
        for modality, level in zip(MODALITIES, model["best_level"].tolist(), strict=True):
            rows, block = self._present(modality), lemof.networks_of(hospital.study, modality)[number]

            def write(folder: Path, block: str = block, level: int = level) -> None:
                self._write(hospital, model, block, level, folder / "tokens.npy")

            depends_on = _encoder(hospital, block, model) | {"level": np.array(level), "rows": rows}
            folder = cached(hospital, f"{kind}-{block.replace('/', '-')}", depends_on, write)
            self._tokens[modality] = np.load(folder / "tokens.npy", mmap_mode="r")
            self._position[modality] = np.full(len(self._stays.split_N), -1)
            self._position[modality][rows] = np.arange(len(rows))

    def _present(self, modality: str) -> Rows:
        return self._rows[self._stays.has_ecg_N[self._rows]] if modality == "ecg" else self._rows

    def _write(self, hospital: Hospital, model: lemof.Model, block: str, level: int, path: Path) -> None:
        """Run an encoder once over its rows, batch by batch to the disk."""
        network = lemof.network(hospital.study, block, model).eval()
        rows, batch_of = self._present(lemof.modality_of(block)), batches_of(hospital, block, model)

        def tokens(inputs: Any) -> torch.Tensor:
            out: torch.Tensor = network.tokens(inputs, level)
            return out

        store, filled = None, 0
        for part in training.infer(tokens, batch_of, rows, training.inference_batch(network)):
            if store is None:
                store = np.lib.format.open_memmap(path, "w+", np.float32, (len(rows), *part.shape[1:]))
            store[filled : filled + len(part)] = part.numpy()
            filled += len(part)
        if store is None:
            with torch.inference_mode():  # as many tokens as the encoder has, whoever is here
                np.save(path, tokens(batch_of(rows)).numpy())
        else:
            store.flush()

    def batch(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Inputs of an attention head for these rows: ECG tokens (0 where missing), EHR tokens, ``has_ecg``.

        Raises:
            LemofError: rows that taught the networks, which have no tokens.
        """
        if len(rows) and (rows.min() < 0 or (self._position["ehr"][rows] < 0).any()):
            raise LemofError(
                rule="Tokens must be of stays that taught the networks nothing", got="others: none are kept of these"
            )
        ecg_row = self._position["ecg"][rows]
        has_ecg = ecg_row >= 0
        stored = self._tokens["ecg"]
        ecg = np.zeros((len(rows), *stored.shape[1:]), np.float32)
        ecg[has_ecg] = stored[ecg_row[has_ecg]]
        ehr = self._tokens["ehr"][self._position["ehr"][rows]]
        return torch.from_numpy(ecg), torch.from_numpy(ehr), torch.from_numpy(has_ecg.astype(np.float32))


def omega_2(hospital: Hospital, model: lemof.Model, rows: Rows, kind: str = "tokens") -> NDArray[np.float64]:
    """Log-odds of the heads of both halves for rows outside ``train``, ``(len(rows), 2)``: on ``stack`` those over the
    network that learnt nothing of the patient, else the mean over all networks.

    Raises:
        LemofError: rows of ``train``: they taught the encoders, so what these make of them tells nothing.
    """
    study, stays, out = hospital.study, hospital.stays, np.zeros((len(rows), lemof.NUM_HEADS))
    is_stack = stays.split_N[rows] == SPLITS.index("stack")
    num = max(study.folds, 1)
    tokens = [Tokens(hospital, model, number, kind) for number in range(num)]
    for name in lemof.heads_of(study):
        number, head = lemof.network_number(name, study), lemof.attention_head(study, model, name)
        mine = ~is_stack | (stays.network_N[rows] == number)
        log_odds = training.log_odds(head, tokens[number].batch, rows[mine])[:, 0]
        out[mine, lemof.half_of(name)] += np.where(is_stack[mine], log_odds, log_odds / num)
    return out


def _encoder(hospital: Hospital, block: str, model: lemof.Model) -> dict[str, NDArray[Any]]:
    """What the outputs of one encoder depend on, beside the stays: not the other one, so it serves every pair."""
    modality = lemof.modality_of(block)
    parts = (f"{block}/",) if modality == "ecg" else (f"{block}/", "scaling/")
    spec = canonical_json(asdict(getattr(hospital.study, modality)))
    return {"spec": text(spec)} | {name: value for name, value in model.items() if name.startswith(parts)}


def text(value: str) -> NDArray[Any]:
    """A text that a cache depends on."""
    return np.frombuffer(value.encode(), np.uint8)


def cached(
    hospital: Hospital, kind: str, depends_on: Mapping[str, NDArray[Any]], compute: Callable[[Path], None]
) -> Path:
    """The folder that ``compute`` filled for these inputs and the hospital's stays; of each kind the newest three are
    kept.

    Raises:
        DiskError: the cache cannot be written.
    """
    digest = hashlib.sha256(hospital.cohort_digest.encode() + hospital.stays.grid_row_N.tobytes())  # which rows of it
    for name in sorted(depends_on):
        digest.update(name.encode() + np.ascontiguousarray(depends_on[name]).tobytes())
    cache = hospital.folder / ".cache"
    folder = cache / f"{kind}-{digest.hexdigest()[:24]}"
    if folder.is_dir():
        return folder
    partial = cache / f"{folder.name}.{os.getpid()}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        with owner_only():
            partial.mkdir(parents=True)
            compute(partial)
        if not folder.is_dir():  # another process may have been faster; what it wrote is the same
            partial.rename(folder)
    except OSError as error:
        raise DiskError(
            rule="The cache must be writable", got=f"{error.strerror} at {cache}", fix="Free space, then go on."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    kept = sorted(cache.glob(f"{kind}-{'[0-9a-f]' * 24}"), key=lambda path: path.stat().st_mtime_ns)
    for old in kept[:-NUM_KEPT]:
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    return folder
