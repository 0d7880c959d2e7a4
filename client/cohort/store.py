"""The prepared cohort: its files, their shapes and units, and how they are written and read.

A cohort is a folder. Rows (N) are ICU stays in the order of ``stay_id``; nothing in it is a label or a split, for
those depend on the plan: ``client.cohort.labels`` and ``lemof_model.splits`` compute them.

    manifest.json   counts, attrition, digests of the other files, what the cohort was made for
    stays.parquet   (N) ids, times, lengths of stay, deaths, diseases, subgroups: ``STAY_COLUMNS``
    features.npy    (N, F) float32, NaN missing, categoricals as codes; columns in ``features.json``
    grid.npy        (N, H, C) float32 hourly means from ICU admission on, NaN missing; channels in ``features.json``
    ecg.npy         (M, 12, 1000) int16 microvolts at 100 Hz, leads in ``features.json``
    ecg_index.npy   (N) int64 row of ecg.npy, -1 for a stay without ECG
    quality.json    what was met in the raw data: counts by table, concept and feature
    rejects.csv.gz  rows of tables and ECG records that could not be read, with the reason
    ledger.json     which privacy ledger counts the cohort, from its first answer on (``client/budget/tie.py``)
"""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from client.budget.tie import TIE, carry_over
from client.cohort.labels import hours_to_icu_of, patients_by_split, studied
from client.cohort.labels import long_stay_of as long_stay_of
from lemof_model import features as schema
from lemof_model.errors import DataError, DiskError, TooLittleDataError
from lemof_model.splits import split_of
from lemof_model.study import SPLITS, CohortSpec, SplitSpec, Target, digest_json
from protocol.disk import hold, sync

T = TypeVar("T")

SCHEMA_VERSION = 1
STATE = ".state"
MANIFEST = "manifest.json"
AGAIN = "Run: lemof-client --site SITE prepare --plan PLAN.yaml."
FULL_OR_READ_ONLY = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}

STAY_COLUMNS: dict[str, str] = {
    "subject_id": "int64",  # as the next two: text at a hospital whose ids are texts
    "hadm_id": "int64",
    "stay_id": "int64",
    "patient_hash": "uint64",  # lemof_model.splits.patient_hash_of(subject_id)
    "intime": "datetime64[us]",
    "icu_los_days": "float64",  # from intime to outtime or death; NaN where only the day of death before is known
    "hospital_los_days": "float64",  # from admittime to dischtime or death, NaN when unknown or impossible
    "died_in_icu": "bool",  # from intime to outtime, or at an unknown time that may lie there
    "died_in_hospital": "bool",
    **{disease: "bool" for disease in schema.DISEASES},  # discharge codes: to stratify an evaluation, never a feature
    "age": "int64",
    "sex": "str",  # a category of the schema
}

ECG_SHAPE = (len(schema.ECG_LEADS), schema.ECG_HZ * schema.ECG_SECONDS)


@dataclass(frozen=True)
class Cohort:
    """A prepared cohort, its large arrays memory-mapped."""

    path: Path
    manifest: Mapping[str, Any]
    stays: pd.DataFrame
    features: NDArray[np.float32]
    grid: NDArray[np.float32]
    ecg: NDArray[np.int16]
    ecg_index: NDArray[np.int64]

    @property
    def num_stays(self) -> int:
        """Number of rows."""
        return len(self.stays)

    @property
    def patient_hash(self) -> NDArray[np.uint64]:
        """The patient of each stay, as splits and folds want it."""
        return self.stays["patient_hash"].to_numpy()

    @property
    def spec(self) -> CohortSpec:
        """The plan's ``cohort`` section that the cohort was prepared for."""
        return CohortSpec(**self.manifest["cohort"])


def load_cohort(path: Path) -> Cohort:
    """Open a prepared cohort; large arrays are mapped, not read.

    Raises:
        DataError: there is no cohort, it has another schema, or its files are damaged or do not fit together.
    """
    manifest_path = path / MANIFEST
    if not manifest_path.is_file():
        raise DataError(
            rule="A cohort must be prepared before it is used", got=f"no manifest.json from {path}", fix=AGAIN
        )
    manifest = _read(manifest_path, lambda file: dict(json.loads(file.read_text(encoding="utf-8"))))
    for key, value in {"schema_version": SCHEMA_VERSION, "feature_schema_digest": schema.schema_digest()}.items():
        if manifest.get(key) != value:
            raise DataError(
                rule=f"{key} of the cohort must be {value}", got=f"{manifest.get(key)!r} from {path}", fix=AGAIN
            )
    stays = _read(path / "stays.parquet", pd.read_parquet)
    names = ("features", "grid", "ecg", "ecg_index")
    arrays = {name: _read(path / f"{name}.npy", partial(np.load, mmap_mode="r")) for name in names}
    cohort = Cohort(path, manifest, stays, **arrays)
    _check(cohort)
    return cohort


def is_finished(path: Path, key: str) -> bool:
    """Whether ``path`` holds the whole cohort that was made from what ``key`` stands for."""
    _put_back(path)
    with suppress(OSError, ValueError):
        if json.loads((path / MANIFEST).read_text(encoding="utf-8")).get("config_digest") == key:
            _remove(path / STATE, _beside(path, "partial"), _beside(path, "old"))
            return True
    return False


@contextmanager
def held_alone(path: Path) -> Iterator[None]:
    """Nobody else makes the cohort at ``path`` until the block ends, however it ends.

    Raises:
        DiskError: somebody does, or the folder cannot be written.
    """
    lock = _beside(path, "lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("ab")
    except OSError as error:
        raise _cannot_write(path, error) from error
    with file:
        try:
            is_ours = hold(file)
        except OSError as error:
            raise _cannot_write(path, error) from error
        if not is_ours:
            raise DiskError(
                rule="One prepare at a time must make a cohort",
                got=f"another at work on {path}",
                fix="Nothing was changed. Wait until it has ended, then run the same command.",
                code="E604",
            )
        if os.fstat(file.fileno()).st_nlink == 0:  # of a run that ended this very moment
            with held_alone(path):
                yield
            return
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path, key: str = "", *, anew: bool = False) -> Iterator[Path]:
    """A folder beside ``path`` to fill; it takes the place of ``path``, and its ledger, when the block ends without an
    error.

    The folder holds what an interrupted run with the same ``key`` has left (unless ``anew``), its state in ``.state``.
    It is kept when the run is interrupted or the disk is full, and removed when the data have to change first, or
    without a key. A cohort that an earlier run had set aside when it was stopped is put back before.

    Raises:
        DiskError: ``path`` holds something that is not a cohort, or cannot be written.
    """
    path = require_place(path)
    new, old = _beside(path, "partial"), _beside(path, "old")
    is_resumable = bool(key)
    try:
        _put_back(path)
        _remove(old, *([new] if anew else []))
        _open_partial(new, key)
        yield new
        sync(*(file for file in new.iterdir() if file.is_file()), new)
        if path.exists():
            path.rename(old)  # from here on no ledger is tied to it
            carry_over(old, new)
        new.rename(path)
        _remove(path / STATE, old)
    except (DataError, TooLittleDataError):
        is_resumable = False
        raise
    except OSError as error:
        if not _is_of_writing(error, path, new, old):
            raise
        raise _cannot_write(path, error) from error
    finally:
        if not is_resumable:
            _remove(new)


def require_place(output: Path) -> Path:
    """The real folder of a cohort: ``output``, or what it links to. What is made beside it is on the same disk.

    Raises:
        DiskError: it holds something that is not a cohort, or is a mount: nothing made beside it can take its place.
    """
    path = Path(os.path.realpath(output))
    if path.is_symlink():
        raise DiskError(
            rule="prepare.output must be a folder",
            got=f"a link to itself at {output}",
            fix="Name another.",
            code="E603",
        )
    if os.path.ismount(path):
        raise DiskError(
            rule="prepare.output must be a folder inside a mount",
            got=f"the mount itself at {output}",
            fix=f"Name {output / 'cohort'}.",
            code="E603",
        )
    try:
        is_ours = (path / MANIFEST).is_file() or (path.is_dir() and not any(path.iterdir()))
    except OSError as error:
        raise _cannot_write(path, error) from error
    if path.exists() and not is_ours:
        raise DiskError(
            rule="prepare.output must be a cohort or an empty folder",
            got=f"other files at {path}",
            fix="Name another.",
            code="E603",
        )
    return path


def _cannot_write(path: Path, error: OSError) -> DiskError:
    """What to say of a disk that is full or may not be written."""
    return DiskError(
        rule="The cohort must fit on the disk and be writable",
        got=f"{error.strerror or error} at {path}",
        fix="An earlier cohort is unchanged. Free space or mend permissions, then run the same command.",
        code="E601",
    )


def _beside(path: Path, state: str) -> Path:
    """The folder of a cohort that is being made, or was set aside."""
    return path.with_name(f"{path.name}.{state}")


def _remove(*leftovers: Path) -> None:
    """Remove folders that may be there. A link was left by a release that moved it: it goes, what it leads to stays."""
    for leftover in leftovers:
        if leftover.is_symlink():
            leftover.unlink()
        shutil.rmtree(leftover, ignore_errors=True)


def _put_back(path: Path) -> None:
    """Put a cohort back that was set aside when a run was stopped between two renames."""
    old = _beside(path, "old")
    if (old / MANIFEST).is_file() and not (path / MANIFEST).is_file():
        old.rename(path)


def _open_partial(new: Path, key: str) -> None:
    """Keep what was made for this key; begin anew otherwise."""
    marker = new / STATE / "key"
    with suppress(OSError):
        if key and marker.read_bytes() == key.encode():
            return
    _remove(new)
    (new / STATE).mkdir(parents=True)
    marker.write_text(key, encoding="ascii")


def write_cohort(
    folder: Path,
    *,
    spec: CohortSpec,
    target: Target,
    splits: SplitSpec,
    stays: pd.DataFrame,
    features: NDArray[np.float32] | None = None,
    grid: NDArray[np.float32] | None = None,
    num_stays_with_ecg: int,
    ecg_index: NDArray[np.int64],
    attrition: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> None:
    """Write all files but ``ecg.npy``, which must be there already, and the manifest last.

    ``features`` and ``grid`` that are not given are there already, too.
    ``target`` and ``splits`` are only counted with: long stays, stays and patients by split are those of ``studied``.
    ``num_stays_with_ecg`` is by the record list, whether or not the
    record could be read. ``facts`` are further entries of the manifest (JSON values).
    """
    stays.astype(_types_of(stays))[list(STAY_COLUMNS)].to_parquet(folder / "stays.parquet", index=False)
    for name, array in {"features": features, "grid": grid}.items():
        if array is not None:
            np.save(folder / f"{name}.npy", array.astype(np.float32, copy=False))
    np.save(folder / "ecg_index.npy", ecg_index.astype(np.int64, copy=False))
    _write_json(folder / "features.json", _columns())
    written = sorted(file for file in folder.iterdir() if file.is_file() and file.name not in (MANIFEST, TIE))
    digests = {file.name: sha256_of(file) for file in written}
    hours_to_icu_N = hours_to_icu_of(np.load(folder / "features.npy", mmap_mode="r"))
    labels, keep = studied(stays, hours_to_icu_N, target, spec)
    patient_hash = stays["patient_hash"].to_numpy().astype(np.uint64)
    num_by_split = np.bincount(split_of(patient_hash[keep], splits), minlength=len(SPLITS))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "feature_schema_digest": schema.schema_digest(),
        "num_stays": len(stays),
        "num_patients": int(stays["subject_id"].nunique()),
        "num_long_stays": int(labels[keep].sum()),
        "num_stays_with_ecg": num_stays_with_ecg,
        "num_stays_with_readable_ecg": int((ecg_index >= 0).sum()),
        "splits": dict(zip(SPLITS, num_by_split.tolist(), strict=True)),
        "num_patients_by_split": patients_by_split(patient_hash[keep], splits),
        "attrition": list(attrition),
        "cohort": dataclasses.asdict(spec),
        "target": dataclasses.asdict(target),
        "split_spec": dataclasses.asdict(splits),
        "digests": {**digests, "cohort": digest_json(digests)},
        **facts,
    }
    _write_json(folder / MANIFEST, manifest)


def _types_of(stays: pd.DataFrame) -> dict[str, str]:
    """The types of ``STAY_COLUMNS``, ids as text where they are."""
    texts = [name for name in ("subject_id", "hadm_id", "stay_id") if not pd.api.types.is_numeric_dtype(stays[name])]
    return {**STAY_COLUMNS, **dict.fromkeys(texts, "str")}


def _columns() -> dict[str, Any]:
    """What the columns of the arrays are, for readers without this package."""
    return {
        "schema": schema.SCHEMA_NAME,
        "features": [dataclasses.asdict(feature) for feature in schema.FEATURES],
        "grid_channels": schema.GRID_CHANNELS,
        "ecg_leads": schema.ECG_LEADS,
        "ecg_hz": schema.ECG_HZ,
    }


def _check(cohort: Cohort) -> None:
    """Refuse a cohort whose files do not belong together."""
    num_stays = cohort.manifest["num_stays"]
    shapes = {
        "stays.parquet": (cohort.stays.shape, (num_stays, len(STAY_COLUMNS))),
        "features.npy": (cohort.features.shape, (num_stays, len(schema.FEATURES))),
        "grid.npy": (cohort.grid.shape, (num_stays, cohort.spec.window_hours, len(schema.GRID_CHANNELS))),
        "ecg.npy": (cohort.ecg.shape[1:], ECG_SHAPE),
        "ecg_index.npy": (cohort.ecg_index.shape, (num_stays,)),
    }
    for file, (shape, expected) in shapes.items():
        if shape != expected:
            raise DataError(rule=f"{file} must have shape {expected}", got=f"{shape} from {cohort.path}", fix=AGAIN)


def _read(path: Path, read: Callable[[Path], T]) -> T:
    """A file of a cohort; pandas, numpy and json say in many ways that one is missing or damaged."""
    try:
        return read(path)
    except (OSError, ValueError, TypeError, EOFError):
        found = f"{'a damaged file' if path.exists() else 'none'} from {path.parent}"
        raise DataError(rule=f"{path.name} of the cohort must be there and whole", got=found, fix=AGAIN) from None


def _is_of_writing(error: OSError, path: Path, new: Path, old: Path) -> bool:
    """Whether the cohort could not be written; raw data that cannot be read is something else.

    A full disk is told without a file name, and by numpy without an error number too.
    """
    if error.filename is None:
        return error.errno is None or error.errno in FULL_OR_READ_ONLY
    named = Path(str(error.filename))
    return path.is_relative_to(named) or any(named.is_relative_to(folder) for folder in (path, new, old))


def _write_json(path: Path, value: Any) -> None:
    """Readable JSON with a fixed order."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def sha256_of(path: Path) -> str:
    """sha256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
