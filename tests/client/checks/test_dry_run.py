"""The dry run: all that a study would send, told truly, and nothing sent, charged or shown."""

import json
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from client import cli
from client.budget.ledger import open_ledger, read_ledger
from client.checks.dry_run import dry_run, lines_of
from client.site import load_site
from lemof_model.errors import OtherSplitsError
from lemof_model.study import SplitSpec, Study
from protocol.plan import dump_plan
from protocol.stages import CENSUS
from simulation.local_transport import LocalTransport
from tests.client.budget.test_ledger import CHARGE, fill, final
from tests.client.budget.test_ledger import answer as stored
from tests.hospitals import write_hospital
from tests.studies import Watched, run_tiny, tiny_study

STAGES = (
    "census", "statistics", "encoders", "meta", "importance", "attention", "final", "evaluation on tuning",
    "evaluation on held_out", "intervals",
)  # fmt: skip


def change(site: Path, **sections: Any) -> None:
    """Write sections of a site file anew."""
    site.write_text(yaml.safe_dump(yaml.safe_load(site.read_text()) | sections))


def stage(told: dict[str, Any], name: str) -> dict[str, Any]:
    return next(found for found in told["stages"] if found["stage"] == name)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_hospital(tmp_path, num_stays=90)


@pytest.fixture
def private_site(tmp_path: Path) -> Path:
    """With a budget, and with so many stays that its noisy counts do not come near their minima."""
    site = write_hospital(tmp_path, num_stays=300)
    change(site, privacy={"epsilon": 10.0, "delta": 1e-5, "study_epsilon": 8.0})
    return site


def test_what_is_told_is_what_a_study_takes(site: Path, tmp_path: Path) -> None:
    """Run beside a real study over this hospital: same names, shapes, types, bytes and counts at every stage."""
    told = dry_run(load_site(site), tiny_study())
    assert tuple(found["stage"] for found in told["stages"]) == STAGES

    class Weighed(Watched):
        """Remembers the answers."""

        def __init__(self, inner: LocalTransport) -> None:
            super().__init__(inner)
            self.seen: list[Any] = []

        def instead(self, site: str, answer: Any) -> Any:
            self.seen.append(answer)
            return answer

    transport = Weighed(LocalTransport([site]))
    run_tiny(tiny_study(min_sites=1), transport, tmp_path / "run")
    first: dict[str, Any] = {}
    for request, answer in zip(transport.requests, transport.seen, strict=True):
        name = request.stage + (f" on {getattr(request, 'split', '')}" if request.stage == "evaluation" else "")
        first.setdefault(name, answer)
    for name, answer in first.items():
        found = stage(told, name)
        assert found["groups"] == dict(answer.counts) and found["left_out"] == list(answer.too_small), name
        arrays = {array["name"]: (tuple(array["shape"]), array["dtype"], array["bytes"]) for array in found["arrays"]}
        if name == "attention":  # another best level has heads of another size
            assert arrays.keys() == answer.sums.keys()
            continue
        assert arrays == {key: (v.shape, v.dtype.name, v.nbytes) for key, v in answer.sums.items()}, name
    num_asked = {name: sum(request.stage == name for request in transport.requests) for name in STAGES[2:7]}
    assert all(num_asked[name] <= stage(told, name)["times"] for name in num_asked)


def test_no_value_of_a_sum_is_told(site: Path) -> None:
    told = dry_run(load_site(site), tiny_study())
    kinds = {frozenset(array) for found in told["stages"] for array in found["arrays"]}
    assert kinds == {frozenset({"name", "shape", "dtype", "bytes"})}
    assert all(type(count) is int for found in told["stages"] for count in found["groups"].values())
    json.dumps(told)


def test_what_the_door_would_refuse_is_told_and_the_others_go_on(site: Path) -> None:
    limits = {"min_patients": 30, "min_cell": 3, "stages": ["census", "meta", "encoders"]}
    change(site, limits=limits)
    told = dry_run(load_site(site), tiny_study())
    assert "limits.stages" in stage(told, "statistics")["refused"]
    assert "at least 30 patients" in stage(told, "meta")["refused"]
    assert "refused" not in stage(told, "census")
    text = "\n".join(lines_of(told))
    assert "REFUSED, nothing would leave: A group must have at least 30 patients" in text


def test_with_a_budget_the_charges_are_told_and_the_ledger_is_not_touched(private_site: Path) -> None:
    config = load_site(private_site)
    assert config.privacy is not None
    told = dry_run(config, tiny_study())
    assert not config.privacy.ledger.exists() and read_ledger(config.privacy.ledger, config.prepare.output) == []
    assert told["privacy"] == {"epsilon": 10.0, "study_epsilon": 8.0, "delta": 1e-5, "spent": 0.0}
    assert told["num_stays_left_out"] > 0
    assert stage(told, "statistics")["charges"] == []
    for name in set(STAGES) - {"statistics"}:
        assert stage(told, name)["charges"] and "refused" not in stage(told, name), name
    (sgd,) = (c for c in stage(told, "encoders")["charges"] if c["mechanism"] == "subsampled_gaussian")
    assert sgd["split"] == "train" and 0 < sgd["sample_rate"] <= 1
    assert "Nothing was charged" in "\n".join(lines_of(told))


def test_what_is_refused_after_its_noise_was_drawn_tells_its_charge(private_site: Path) -> None:
    change(private_site, limits={"min_patients": 1_000_000})
    refused = [found for found in dry_run(load_site(private_site), tiny_study())["stages"] if "refused" in found]
    assert {"meta", "importance", "final"} <= {found["stage"] for found in refused}
    assert all(found["charges"] for found in refused if found["stage"] in ("meta", "importance", "final"))


def test_only_what_this_study_spent_counts_against_its_own_limit(private_site: Path) -> None:
    config, study = load_site(private_site), tiny_study(splits=SplitSpec())
    assert config.privacy is not None

    def noise() -> float:
        """Of the census, about ``train``."""
        (census,) = dry_run(config, study, method=(CENSUS,))["stages"]
        (charge,) = (charge for charge in census["charges"] if charge["split"] == "train")
        return float(charge["noise_multiplier"])

    fresh = noise()
    fill(config.privacy.ledger, 1)
    assert noise() == fresh, "what another study spent counts against study_epsilon"
    with open_ledger(config.privacy.ledger, config.privacy.budget, config.prepare.output) as ledger:
        ledger.append(final(2, study), [CHARGE], stored(2))
    assert noise() > fresh, "what this study spent does not count against study_epsilon"


def test_splits_that_the_ledger_does_not_count_in_are_refused_as_a_study_s_would_be(private_site: Path) -> None:
    config = load_site(private_site)
    assert config.privacy is not None
    fill(config.privacy.ledger, 1)
    assert "refused" not in stage(dry_run(config, tiny_study(splits=SplitSpec())), "census")
    with pytest.raises(OtherSplitsError, match="splits of a study must be those that the ledger began with"):
        dry_run(config, tiny_study(splits=SplitSpec(salt="other")))


def test_the_command_writes_beside_the_site_file(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = site.parent / "plan.yaml"
    plan.write_text(dump_plan(tiny_study()))
    assert cli.run(["--site", str(site), "dry-run", "--plan", str(plan), "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told == json.loads((site.parent / "dry-run.json").read_text())
    assert told["plan_digest"] == tiny_study().digest
    assert "array  ehr/x  float64" not in captured.err and "Nothing is sent" in captured.err
    lines = captured.err.splitlines()
    assert [line[:14] for line in lines[:10]] == [f"stage {number:2d} of 10" for number in range(1, 11)]
    assert len(lines) == 16
    assert f"at most {told['bytes_at_most']:,} bytes" in captured.err
    assert lines[-1] == f"All of it: {site.parent / 'dry-run.json'}, or --full"
    assert cli.run(["dry-run", "--site", str(site), "--plan", str(plan), "--full"]) == 0
    assert "array  ehr/x  float64" in capsys.readouterr().err


def test_what_is_declined_stands_among_the_first_lines(site: Path) -> None:
    change(site, limits={"min_patients": 30, "min_cell": 3, "stages": ["census", "encoders"]})
    told = dry_run(load_site(site), tiny_study())
    (declined,) = (line for line in takewhile(bool, lines_of(told)) if line.startswith("Declined"))
    names = "statistics, meta, importance, attention, final, evaluation on tuning, evaluation on held_out, intervals"
    assert declined.startswith(
        f"Declined: {names}: A stage must be among those that the hospital allows (limits.stages). "
    )


def test_a_wrong_plan_ends_with_3(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = site.parent / "plan.yaml"
    plan.write_text("encoders: {num_rounds: 0}\n")
    assert cli.run(["--site", str(site), "dry-run", "--plan", str(plan)]) == 3
    assert "num_rounds must be at least 1" in capsys.readouterr().err


def test_counts_of_a_dry_run_are_those_of_the_cohort(site: Path) -> None:
    told = dry_run(load_site(site), tiny_study())
    counts = stage(told, "census")["groups"]
    assert told["num_stays"] == sum(counts[f"{split}/ehr"] for split in ("train", "stack", "tuning", "held_out"))
    assert np.load(site.parent / "cohort/ecg_index.npy").shape == (told["num_stays"],)
    assert Study().digest != told["plan_digest"]
