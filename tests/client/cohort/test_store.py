"""A cohort on disk: what is written is what is read, labels follow the target, and misfits are refused."""

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from client.budget.tie import TIE
from client.cohort.hospital import open_hospital
from client.cohort.labels import long_stay_of
from client.cohort.store import STAY_COLUMNS, Cohort, held_alone, load_cohort, replacing, write_cohort
from client.site import load_site
from lemof_model.errors import DataError, DiskError
from lemof_model.features import DISEASES, FEATURES, GRID_CHANNELS
from lemof_model.splits import patient_hash_of, split_of
from lemof_model.study import SPLITS, CohortSpec, SplitSpec, Study, Target

NUM_STAYS = 40


def _stays() -> pd.DataFrame:
    subject_id = np.arange(NUM_STAYS) // 2
    stays = pd.DataFrame(
        {
            "subject_id": subject_id,
            "hadm_id": np.arange(NUM_STAYS),
            "stay_id": np.arange(NUM_STAYS),
            "patient_hash": np.array([patient_hash_of(int(value)) for value in subject_id], np.uint64),
            "intime": pd.Timestamp("2150-01-01"),
            "icu_los_days": np.linspace(1, 6, NUM_STAYS),
            "hospital_los_days": np.linspace(2, 12, NUM_STAYS),
            "died_in_icu": np.arange(NUM_STAYS) == 39,
            "died_in_hospital": np.arange(NUM_STAYS) >= 38,
            "age": 60,
            "sex": "male",
        }
    )
    stays.loc[0, "hospital_los_days"] = np.nan
    return stays.assign(**dict.fromkeys(DISEASES, False))


def _write(folder: Path) -> None:
    random = np.random.default_rng(0)
    np.save(folder / "ecg.npy", np.ones((3, 12, 1000), np.int16))
    write_cohort(
        folder,
        spec=CohortSpec(),
        target=Target(),
        splits=SplitSpec(),
        stays=_stays(),
        features=random.normal(size=(NUM_STAYS, len(FEATURES))).astype(np.float32),
        grid=random.normal(size=(NUM_STAYS, 24, len(GRID_CHANNELS))).astype(np.float32),
        num_stays_with_ecg=5,
        ecg_index=np.where(np.arange(NUM_STAYS) < 3, np.arange(NUM_STAYS), -1),
        attrition=[],
        facts={"values": {}},
    )


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    with replacing(tmp_path / "cohort") as folder:
        _write(folder)
    return load_cohort(tmp_path / "cohort")


def test_what_is_written_is_read(cohort: Cohort) -> None:
    assert cohort.num_stays == NUM_STAYS
    assert cohort.stays.dtypes.astype(str).to_dict() == STAY_COLUMNS
    assert cohort.spec == CohortSpec()
    assert isinstance(cohort.ecg, np.memmap)
    assert [array.dtype for array in (cohort.features, cohort.grid, cohort.ecg)] == [np.float32, np.float32, np.int16]
    columns = json.loads((cohort.path / "features.json").read_text())
    assert [column["name"] for column in columns["features"]] == [feature.name for feature in FEATURES]


def test_the_manifest_counts_as_of_the_plan(cohort: Cohort) -> None:
    manifest = cohort.manifest
    assert manifest["num_patients"] == NUM_STAYS // 2
    assert manifest["num_stays_with_ecg"] == 5  # two records could not be read
    assert manifest["num_stays_with_readable_ecg"] == 3
    assert manifest["num_long_stays"] == int((cohort.stays["icu_los_days"] > 3).sum())
    splits = split_of(cohort.patient_hash, SplitSpec())
    assert manifest["splits"] == {name: int((splits == code).sum()) for code, name in enumerate(SPLITS)}
    patients = [cohort.stays["subject_id"][splits == code].nunique() for code in range(len(SPLITS))]
    assert manifest["num_patients_by_split"] == dict(zip(SPLITS, patients, strict=True))
    assert manifest["num_patients_by_split"] != manifest["splits"]
    assert set(manifest["digests"]) == {
        "cohort", "ecg.npy", "ecg_index.npy", "features.json", "features.npy", "grid.npy", "stays.parquet",
    }  # fmt: skip


@pytest.mark.parametrize(
    "target",
    [
        Target(),
        Target(deaths="exclude"),
        Target(unit="hospital", threshold_days=2.5),
        Target(unit="hospital", threshold_days=7, deaths="exclude"),
    ],
    ids=str,
)
def test_the_manifest_counts_what_the_study_counts(target: Target, tmp_path: Path) -> None:
    features = np.zeros((NUM_STAYS, len(FEATURES)), np.float32)
    hours = [feature.name for feature in FEATURES].index("hours_to_icu")
    features[:, hours] = np.linspace(0, 150, NUM_STAYS)
    with replacing(tmp_path / "cohort") as folder:
        np.save(folder / "ecg.npy", np.ones((0, 12, 1000), np.int16))
        write_cohort(
            folder,
            spec=CohortSpec(),
            target=target,
            splits=SplitSpec(),
            stays=_stays(),
            features=features,
            grid=np.zeros((NUM_STAYS, 24, len(GRID_CHANNELS)), np.float32),
            num_stays_with_ecg=0,
            ecg_index=np.full(NUM_STAYS, -1),
            attrition=[],
            facts={},
        )
    (tmp_path / "site.yaml").write_text("version: 1\nsite: {name: a}\ndata: {ehr: {root: .}}\n")
    stays = open_hospital(load_site(tmp_path / "site.yaml"), Study(target=target)).stays
    manifest = load_cohort(tmp_path / "cohort").manifest
    rows = {split: stays.rows(split) for split in SPLITS}
    assert manifest["splits"] == {split: len(its) for split, its in rows.items()}
    assert manifest["num_patients_by_split"] == {split: stays.num_patients(its) for split, its in rows.items()}
    assert manifest["num_long_stays"] == stays.long_stay_N.sum()
    assert all(num <= manifest["num_patients"] for num in manifest["num_patients_by_split"].values())


def test_labels_follow_the_target(cohort: Cohort) -> None:
    stays = cohort.stays
    label, keep = long_stay_of(stays, Target(threshold_days=6 - 1e-9))
    assert label.sum() == 1
    assert keep.all()
    label, keep = long_stay_of(stays, Target(unit="hospital", threshold_days=1))
    assert np.flatnonzero(~keep).tolist() == [0]
    assert label.tolist() == [0] + [1] * (NUM_STAYS - 1)
    _, keep = long_stay_of(stays, Target(deaths="exclude"))
    assert np.flatnonzero(~keep).tolist() == [39]
    _, keep = long_stay_of(stays, Target(unit="hospital", deaths="exclude"))
    assert np.flatnonzero(~keep).tolist() == [0, 38, 39]


def test_a_stay_at_the_threshold_is_short() -> None:
    stays = _stays().assign(icu_los_days=3.0)
    assert not long_stay_of(stays, Target(threshold_days=3))[0].any()


def test_what_is_not_this_cohort_is_refused(cohort: Cohort) -> None:
    command = r"Run: lemof-client --site SITE prepare --plan PLAN\.yaml"
    with pytest.raises(DataError, match=rf"A cohort must be prepared before .* {command}"):
        load_cohort(cohort.path.parent)
    path = cohort.path / "manifest.json"
    manifest = json.loads(path.read_text())
    for key, value in {"schema_version": 0, "feature_schema_digest": "other"}.items():
        path.write_text(json.dumps({**manifest, key: value}))
        with pytest.raises(DataError, match=f"{key} of the cohort must be .*, got {value!r} from .* Run: lemof-client"):
            load_cohort(cohort.path)
    path.write_text(json.dumps(manifest))
    np.save(cohort.path / "shorter.npy", cohort.grid[:, :12])
    (cohort.path / "shorter.npy").replace(cohort.path / "grid.npy")  # never write into a file that is mapped
    with pytest.raises(DataError, match=r"grid\.npy must have shape \(40, 24, 46\), got \(40, 12, 46\) .* Run: "):
        load_cohort(cohort.path)


@pytest.mark.parametrize(
    "name", ["manifest.json", "stays.parquet", "features.npy", "grid.npy", "ecg.npy", "ecg_index.npy"]
)
@pytest.mark.parametrize("content", [None, b"", b"\xff{", b"short"])
def test_a_damaged_file_is_named_with_the_remedy(cohort: Cohort, name: str, content: bytes | None) -> None:
    path, whole = cohort.path / name, (cohort.path / name).read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(whole[:-40] if content == b"short" else content)
    with pytest.raises(
        DataError, match=rf"{name} .*Run: lemof-client --site SITE prepare --plan PLAN\.yaml\."
    ) as caught:
        load_cohort(cohort.path)
    assert type(caught.value) is DataError


def test_an_unfinished_cohort_replaces_nothing(cohort: Cohort) -> None:
    before = (cohort.path / "manifest.json").read_bytes()
    with pytest.raises(KeyboardInterrupt), replacing(cohort.path) as folder:
        (folder / "manifest.json").write_text("{}")
        raise KeyboardInterrupt
    assert (cohort.path / "manifest.json").read_bytes() == before
    assert [path.name for path in cohort.path.parent.iterdir()] == ["cohort"]


def _short_write(_folder: Path) -> OSError:
    return OSError("1000 requested and 10 written")  # what numpy says when the disk is full


@pytest.mark.parametrize(
    ("error_of", "told"),
    [
        (lambda _: OSError(errno.ENOSPC, "No space left"), "No space left"),
        (lambda _: OSError(errno.EDQUOT, "Quota exceeded"), "Quota exceeded"),
        (_short_write, "1000 requested and 10 written"),
        (lambda folder: PermissionError(errno.EACCES, "Permission denied", str(folder / "grid.npy")), "Permission"),
        (lambda folder: OSError(errno.EROFS, "Read-only", str(folder.parent)), "Read-only"),
    ],
)
def test_a_cohort_that_cannot_be_written(cohort: Cohort, error_of: Callable[[Path], OSError], told: str) -> None:
    before = (cohort.path / "manifest.json").read_bytes()
    match = f"got {told}.* An earlier cohort is unchanged"
    with pytest.raises(DiskError, match=match), replacing(cohort.path) as folder:
        raise error_of(folder)
    assert (cohort.path / "manifest.json").read_bytes() == before
    assert [path.name for path in cohort.path.parent.iterdir()] == ["cohort"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        PermissionError(errno.EACCES, "Permission denied", "raw/hosp/labevents.csv"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "raw/record_list.csv"),
    ],
)
def test_raw_data_that_cannot_be_read_is_not_a_full_disk(cohort: Cohort, error: OSError) -> None:
    with pytest.raises(OSError, match=error.strerror) as caught, replacing(cohort.path):
        raise error
    assert caught.value is error
    assert [path.name for path in cohort.path.parent.iterdir()] == ["cohort"]


def test_a_cohort_set_aside_is_put_back_before_anything_is_written(cohort: Cohort) -> None:
    before, old = (cohort.path / "manifest.json").read_bytes(), cohort.path.with_name("cohort.old")
    cohort.path.rename(old)  # stopped between the two renames
    with pytest.raises(KeyboardInterrupt), replacing(cohort.path):
        assert (cohort.path / "manifest.json").read_bytes() == before
        raise KeyboardInterrupt
    assert [path.name for path in cohort.path.parent.iterdir()] == ["cohort"]
    assert load_cohort(cohort.path).num_stays == NUM_STAYS


def test_an_old_cohort_beside_a_new_one_goes(cohort: Cohort) -> None:
    shutil.copytree(cohort.path, cohort.path.with_name("cohort.old"))  # stopped after both renames
    (cohort.path / "new").touch()
    with pytest.raises(KeyboardInterrupt), replacing(cohort.path):
        raise KeyboardInterrupt
    assert [path.name for path in cohort.path.parent.iterdir()] == ["cohort"]
    assert (cohort.path / "new").is_file()


HOLD = "import sys, time; from pathlib import Path; from client.cohort.store import held_alone\n" + (
    "with held_alone(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
)


def test_two_runs_do_not_make_one_cohort_at_once_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cohort"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with (
            pytest.raises(DiskError, match=r"got another at work on .*cohort\. Nothing was changed\. .*E604"),
            held_alone(path),
        ):
            pass
    finally:
        other.kill()
        other.communicate()
    with held_alone(path):
        pass
    with held_alone(path.with_name("another")), held_alone(path):
        pass
    assert not list(tmp_path.iterdir())


def test_which_ledger_counts_a_cohort_is_no_part_of_what_it_holds(cohort: Cohort) -> None:
    """A run that was stopped between two renames has left it in what the next one goes on with."""
    with replacing(cohort.path) as folder:
        (folder / TIE).write_text("{}")
        _write(folder)
    assert load_cohort(cohort.path).manifest == cohort.manifest


def test_a_new_cohort_replaces_the_old_one_whole(cohort: Cohort) -> None:
    (cohort.path / "leftover").touch()
    with replacing(cohort.path) as folder:
        shutil.copy(cohort.path / "manifest.json", folder)
    assert [path.name for path in cohort.path.iterdir()] == ["manifest.json"]
