"""What stages declare may leave: whole for every stage, and with no room for anything else."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.cohort.hospital import open_hospital
from client.door import egress, stages
from client.site import STAGES, load_site
from lemof_model import lemof
from lemof_model.encoders.registry import ENCODERS
from lemof_model.errors import DoorError
from lemof_model.study import EncoderSpec, EvaluationSpec, Study, Target
from protocol.asking import check_request
from protocol.messages import (
    REQUESTS,
    Answer,
    AttentionRequest,
    EncodersRequest,
    EvaluationRequest,
    MetaRequest,
    Request,
)
from protocol.method import requests_of, untrained
from protocol.release import Form
from protocol.stage import Forms
from protocol.stage_page import page
from protocol.stages import LEMOF, STRATA
from protocol.stages import STAGES as DECLARED
from server.blocks import Model
from tests.hospitals import write_hospital
from tests.studies import tiny_study


def forms_of(request: Request) -> Forms:
    return DECLARED[request.stage].forms(request)


def whole_model(study: Study) -> Model:
    """Every parameter that a study finds, with networks untrained and learners that read all their inputs."""
    best = {"best_level": np.array([1, 3])}
    heads = lemof.initial_heads(study, best["best_level"])
    return untrained(LEMOF, study) | best | heads | {"omega_1": np.full(6, 0.2), "final": np.full(3, 0.5)}


def every_request(study: Study) -> Iterator[Request]:
    """One request of each stage, and of both splits of an evaluation."""
    for request, _ in requests_of(study):
        yield dataclasses.replace(request, round=1, num_sites=0, model=whole_model(study))


def test_every_stage_sends_exactly_what_is_listed(tmp_path: Path) -> None:
    site = load_site(write_hospital(tmp_path, num_stays=90, min_patients=1))
    for request in every_request(tiny_study()):
        answer = stages.answer(site, request)
        assert isinstance(answer, Answer), answer
        listed = forms_of(request)
        arrays = {f"{group}/{name}": form for group, forms in listed.items() for name, form in forms.items()}
        arrays = {name: form for name, form in arrays.items() if not name.endswith("/noise")}  # budgets only
        assert set(answer.counts) | set(answer.too_small) == set(listed), request.stage
        left_out = tuple(f"{group}/" for group in answer.too_small)
        assert set(answer.sums) == {name for name in arrays if not name.startswith(left_out)}, request.stage
        for name, value in answer.sums.items():
            assert arrays[name].fits(value), (request.stage, name, value.dtype, value.shape)


def test_a_stage_reads_what_it_declares_and_nothing_else(tmp_path: Path) -> None:
    site = load_site(write_hospital(tmp_path, num_stays=90, min_patients=1))
    for request in every_request(tiny_study()):
        reads = DECLARED[request.stage].reads
        declared = {name: value for name, value in request.model.items() if name.split("/")[0] in reads}
        try:
            answer = stages.answer(site, dataclasses.replace(request, model=declared))
        except KeyError as missing:
            pytest.fail(f"{request.stage} reads {missing}, and declares {reads}")
        assert isinstance(answer, Answer), f"{request.stage} reads more of the model than {reads}: {answer.reason}"
        for part in reads:
            less = {name: value for name, value in declared.items() if name.split("/")[0] != part}
            with pytest.raises(DoorError):
                check_request(dataclasses.replace(request, model=less))


def test_a_stage_that_is_declared_incompletely_says_what_is_missing() -> None:
    stage = DECLARED["meta"]
    for change, missing in (
        ({"says": ""}, "says must tell what leaves a hospital"),
        ({"does": ()}, "does must tell of each probe"),
        ({"releases": ()}, "releases must name what leaves"),
        ({"finds": ("background",)}, "finds must name what is learnt, got none of meta/ecg, meta/ehr"),
    ):
        with pytest.raises(TypeError, match=f"stage meta: {missing}"):
            dataclasses.replace(stage, **change)


@pytest.mark.parametrize("min_cell", [2, 3, 4, 5])
def test_no_stage_tells_what_another_held_back(tmp_path: Path, min_cell: int) -> None:
    """Stays of one label, when all and those of the other label are told, wherever."""
    site = load_site(write_hospital(tmp_path, num_stays=60, min_patients=12, min_cell=min_cell))
    told: dict[str, int] = {}
    for request in every_request(tiny_study()):
        answer = stages.answer(site, request)
        assert isinstance(answer, Answer), answer
        split = f"{request.split}/" if isinstance(request, EvaluationRequest) else ""
        told |= {f"{split}{name}": num for name, num in answer.counts.items()}
    for split in ("tuning", "held_out"):
        for modality, population in (("ehr", "all"), ("ecg", "with_ecg")):
            wholes = [f"{split}/{modality}", *([f"{split}/membership/encoders/others"] if modality == "ehr" else [])]
            whole = max((told[name] for name in wholes if name in told), default=0)
            for cell in (f"{split}/{modality}", f"{split}/{population}/all"):
                for label in (0, 1):
                    rest = whole - told.get(f"{cell}/{label}", whole)
                    assert not whole or rest == 0 or rest >= min_cell, (cell, label, rest)


@pytest.mark.parametrize("threshold_days", [3.0, 8.0, 12.0])
def test_subgroups_do_not_add_up_to_what_is_held_back(tmp_path: Path, threshold_days: float) -> None:
    """Female and male, or young and old: what they leave of all stays, and of all stays of a label, is many or none."""
    study, smallest = tiny_study(target=Target(threshold_days=threshold_days)), 11
    site = load_site(write_hospital(tmp_path, num_stays=500, min_patients=12, min_cell=smallest))
    hospital = open_hospital(site, study)
    is_male = hospital.subgroups["sex:male"].copy()
    is_male[np.flatnonzero(is_male)[::12]] = False  # neither the one nor the other
    hospital = dataclasses.replace(hospital, subgroups=hospital.subgroups | {"sex:male": is_male})
    request = EvaluationRequest(study=study, round=1, model=whole_model(study), split="held_out")
    told = egress.release(hospital, site.limits, request, stages.groups_of(hospital, request)).counts
    split = hospital.stays.select(hospital.stays.rows("held_out"))
    num_checked = 0
    for population, included in (("all", np.ones(len(split.patient_N), bool)), ("with_ecg", split.has_ecg_N)):
        for label in (0, 1):
            of_label = int((included & (split.long_stay_N == label)).sum())
            for pair in (("sex:female", "sex:male"), ("age:under_65", "age:65_and_over")):
                parts = [told.get(f"{population}/{name}/{label}") for name in pair]
                if None not in parts:
                    num_parts = sum(part or 0 for part in parts)
                    for rest in (int(included.sum()) - num_parts, of_label - num_parts):
                        assert rest == 0 or rest >= smallest, (population, label, pair, rest)
                    num_checked += 1
    assert num_checked or threshold_days > 3


@pytest.mark.parametrize(("modality", "name"), [(m, name) for m, known in ENCODERS.items() for name in known])
def test_weights_of_every_encoder_are_listed_by_name_and_shape(modality: str, name: str) -> None:
    study = tiny_study(**{modality: EncoderSpec(name)})
    weights = lemof.part(lemof.initial_networks(study), modality)
    listed = forms_of(EncodersRequest(study=study, round=1))[modality]
    assert listed == {f"weights/{key}": Form(value.shape) for key, value in weights.items()}


def test_no_shape_depends_on_the_number_of_stays(tmp_path: Path) -> None:
    sites = [load_site(write_hospital(tmp_path, f"h{n}", num_stays=n, min_patients=1)) for n in (60, 95)]
    for request in every_request(tiny_study()):
        small, large = (stages.answer(site, request) for site in sites)
        assert isinstance(small, Answer) and isinstance(large, Answer)
        for name in small.sums.keys() & large.sums.keys():
            assert small.sums[name].shape == large.sums[name].shape, name


def test_the_groups_of_an_evaluation_are_those_of_a_hospital(tmp_path: Path) -> None:
    hospital = open_hospital(load_site(write_hospital(tmp_path)), tiny_study())
    assert set(STRATA) == set(hospital.subgroups)


def test_every_stage_is_known_to_the_site_file_and_to_the_list() -> None:
    assert list(STAGES) == list(REQUESTS) == list(DECLARED)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            EncodersRequest(study=Study(), round=1, blocks="ecg patients"),
            "blocks of encoders must be among ecg, ehr, got 'patients'",
        ),
        (
            AttentionRequest(study=Study(), round=1, model={"omega_1": np.zeros(5)}),
            "best_level must be two levels from 1 to 3",
        ),
        (AttentionRequest(study=Study(), round=1), "omega_1 must have 5 or 6 coefficients"),
        (MetaRequest(study=Study(), round=1), "meta/ecg must have 4 coefficients"),
        (
            EvaluationRequest(study=Study(), round=1, split="train"),
            "split of evaluation must be among tuning, held_out, got 'train'",
        ),
    ],
)
def test_a_request_for_what_is_not_listed_is_refused(request_: Request, message: str) -> None:
    with pytest.raises(DoorError, match=f"{message}.*Nothing was sent"):
        forms_of(request_)


def test_histograms_are_all_that_an_evaluation_lists() -> None:
    study = tiny_study(evaluation=EvaluationSpec(num_bins=40))
    tuning = forms_of(EvaluationRequest(study=study, round=1, split="tuning"))
    held_out = forms_of(EvaluationRequest(study=study, round=1, split="held_out"))
    assert all(set(forms) == {"histogram"} for forms in (*tuning.values(), *held_out.values()))
    assert set(held_out) - set(tuning) >= {"all/sex:female/0", "membership/attention/members"}


def test_the_page_of_stages_is_printed_from_the_declarations(repository: Path) -> None:
    assert (repository / "docs/stages.md").read_text(encoding="utf-8") == "".join(page())
