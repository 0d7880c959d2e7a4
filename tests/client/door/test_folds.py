"""A study with folds at a hospital: who teaches which network, what is read of which, and what does not leave."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from client import cli
from client.cohort import frozen
from client.cohort.hospital import Hospital, open_hospital
from client.door import stages
from client.site import load_site
from lemof_model import lemof, training
from lemof_model.features import schema_digest
from lemof_model.study import MODALITIES, SPLITS
from protocol.messages import Answer, CensusRequest, EncodersRequest, MetaRequest, Refusal
from protocol.method import LEARNING, untrained
from protocol.plan import dump_plan
from protocol.stages import networks_of, taught
from tests.hospitals import write_hospital
from tests.studies import tiny_study

STUDY = tiny_study(folds=3)
ALL_NETWORKS = " ".join(networks_of(STUDY))


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Hospital]:
    """A hospital opened for a study with three folds."""
    return lambda **changes: open_hospital(load_site(write_hospital(tmp_path, **changes)), STUDY)


def test_every_patient_who_is_learnt_of_is_in_one_fold_and_in_one_half(opened: Callable[..., Hospital]) -> None:
    stays = opened(num_stays=600).stays
    assert not len(stays.rows("train"))
    stack = stays.rows("stack")
    for block in networks_of(STUDY):
        rows = stays.rows("stack", lemof.modality_of(block))
        own = np.setdiff1d(rows, taught(stays, STUDY, block))
        assert (stays.network_N[own] == lemof.network_number(block, STUDY)).all()
        assert len(own) > len(rows) / 5
    for number in range(STUDY.folds):
        share = stays.fold_N[stack][stays.network_N[stack] == number].mean()
        assert 0.35 < share < 0.65, "halves do not depend on folds"
    by_patient = {(patient, number) for patient, number in zip(stays.patient_N, stays.network_N, strict=True)}
    assert len(by_patient) == len(np.unique(stays.patient_N))


def test_a_stay_is_read_from_the_network_that_learnt_nothing_of_it_others_from_all(
    opened: Callable[..., Hospital],
) -> None:
    hospital = opened(num_stays=200)
    model, stays = untrained(LEARNING, STUDY), hospital.stays
    found, of_all = frozen.levels(hospital, model), frozen.levels_of_all(hospital, model)
    for modality in MODALITIES:
        rows = stays.rows("stack", modality)
        each = []
        for block in lemof.networks_of(STUDY, modality):
            network, batch_of = lemof.network(STUDY, block, model), frozen.batches_of(hospital, block, model)
            each.append(training.log_odds(network, batch_of, rows))
        np.testing.assert_array_equal(found[modality][rows], np.stack(each)[stays.network_N[rows], range(len(rows))])
        np.testing.assert_allclose(of_all[modality][rows], np.mean(each, axis=0), rtol=1e-12)
        held_out = stays.rows("held_out", modality)
        np.testing.assert_array_equal(found[modality][held_out], of_all[modality][held_out])


def test_omega_2_of_other_stays_is_the_mean_over_the_networks(opened: Callable[..., Hospital]) -> None:
    hospital = opened(num_stays=200)
    model, stays = untrained(LEARNING, STUDY), hospital.stays
    rows = np.concatenate([stays.rows("held_out"), stays.rows("stack")])
    found, of_head = frozen.omega_2(hospital, model, rows), {}
    for name in lemof.heads_of(STUDY):
        number = lemof.network_number(name, STUDY)
        known = (stays.split_N[rows] != SPLITS.index("stack")) | (stays.network_N[rows] == number)
        tokens, head = frozen.Tokens(hospital, model, number), lemof.attention_head(STUDY, model, name)
        of_head[name] = np.full(len(rows), np.nan)
        of_head[name][known] = training.log_odds(head, tokens.batch, rows[known])[:, 0]
    for half in range(lemof.NUM_HEADS):
        heads = np.stack([of_head[f"attention/{number}/{half}"] for number in range(STUDY.folds)])
        np.testing.assert_allclose(found[:, half], np.nanmean(heads, axis=0), rtol=1e-12)


def census(path: Path) -> Answer | Refusal:
    return stages.answer(load_site(path), CensusRequest(study=STUDY, round=1, schema_digest=schema_digest()))


def test_a_network_is_not_taught_where_its_fold_or_the_others_are_too_small(tmp_path: Path) -> None:
    """The hospital takes part in what is learnt of all folds together."""
    path = write_hospital(tmp_path, num_stays=500, ecg_share=0.12, min_cell=11, min_patients=27)
    counted = census(path)
    assert isinstance(counted, Answer)
    of_ecg, of_ehr = lemof.networks_of(STUDY, "ecg"), lemof.networks_of(STUDY, "ehr")
    assert {"stack/ecg", "stack/ehr", *of_ehr} <= counted.counts.keys()
    held_back = [block for block in of_ecg if block in counted.too_small]
    assert held_back
    model = untrained(LEARNING, STUDY)
    trained = stages.answer(load_site(path), EncodersRequest(study=STUDY, round=2, blocks=ALL_NETWORKS, model=model))
    assert isinstance(trained, Answer)
    assert {block for block in networks_of(STUDY) if block not in trained.counts} == set(held_back)
    fitted = stages.answer(load_site(path), MetaRequest(study=STUDY, round=3, model=model))
    assert isinstance(fitted, Answer) and fitted.counts["ecg"] == counted.counts["stack/ecg"]


def test_a_hospital_with_a_budget_declines_folds_at_the_census_and_at_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, plan = write_hospital(tmp_path, num_stays=200), tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"privacy": {"epsilon": 4.0, "delta": 1e-5}}))
    refused = census(path)
    assert isinstance(refused, Refusal)
    assert "must be asked without folds, got folds: 3 in the plan. Say folds: 0" in refused.reason
    assert not (path.parent / "ledger.jsonl").exists()
    plan.write_text(dump_plan(STUDY))
    assert cli.run(["--site", str(path), "check", "--no-server", "--plan", str(plan)]) != 0
    assert "folds: 0" in " ".join(capsys.readouterr().err.split())
