"""A plan is read once and checked as a whole."""

from pathlib import Path

import pytest

from lemof_model.errors import ConfigError
from lemof_model.study import Study, TrainingSpec
from protocol.plan import dump_plan, load_plan


def plan(folder: Path, text: str) -> Path:
    path = folder / "plan.yaml"
    path.write_text(text)
    return path


def test_a_plan_that_states_nothing_is_the_default_study_and_an_empty_file_is_none(tmp_path: Path) -> None:
    assert load_plan(plan(tmp_path, "{}")) == Study()
    with pytest.raises(ConfigError, match=r"plan\.yaml must hold sections, got nothing"):
        load_plan(plan(tmp_path, "# nothing yet\n"))


def test_the_default_plan_states_the_defaults(repository: Path) -> None:
    assert load_plan(repository / "site_configs/plans/default.yaml") == Study(name="default")


def test_a_resolved_plan_is_read_back_as_the_same_study(tmp_path: Path) -> None:
    study = Study(seed=11, encoders=TrainingSpec(num_rounds=3, client_lr=3e-4))
    assert load_plan(plan(tmp_path, dump_plan(study))) == study
    assert load_plan(plan(tmp_path, dump_plan(study))).digest == study.digest != Study().digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encoders: {num_round: 3}", r"encoders\.num_round must be a known key.*Did you mean num_rounds\?"),
        ("seeed: 3", r"seeed must be a known key.*Did you mean seed\?"),
        ("encoders: {num_rounds: many}", r"encoders\.num_rounds.*got 'many' from plan\.yaml"),
        ("encoders: {num_rounds: 0}", r"num_rounds must be at least 1, got 0"),
        (
            "cohort: {min_age_years: -1}",
            r"^cohort\.min_age_years must not be negative, got -1\. \(from plan\.yaml:cohort\)$",
        ),
        ("seed: -1", r"^seed must not be negative, got -1\. \(from plan\.yaml\)$"),
        ("ecg: resnet", r"^ecg must be a section with keys of its own, got 'resnet' from plan\.yaml"),
        (
            "attention: {width: 0, dropout: 1}",
            r"^attention\.width .*\(from plan.*\)\nattention\.dropout .*\(from plan.*\)$",
        ),
        (
            "ehr: {name: mlp, sizes: {width: 0, dropout: 2}}",
            r"^ehr\.sizes\.width .*\(from plan\.yaml\)\nehr\.sizes\.dropout .*\(from plan\.yaml\)$",
        ),
        ("strategy: {name: fedprox}", r"^strategy\.proximal_mu must be above 0 for fedprox .*got 0\.0"),
        ("strategy: {name: fedprox, proximal_mu: -1}", r"^strategy\.proximal_mu must be above 0 for fedprox .*got -1"),
        ("strategy: {name: fedprox, proximal_mu: .inf}", r"^strategy\.proximal_mu must be a finite number, got inf"),
        ("target: {threshold_days: .nan}", r"^target\.threshold_days must be a finite number, got nan"),
        ("strategy: {name: fedavg, proximal_mu: 1.0}", r"proximal_mu must .*0 unless name is fedprox"),
        ("splits: {train: 0.9}", r"fractions must add up to 1"),
        ("cohort: {min_stay_hours: 12}", r"min_stay_hours must be at least"),
        ("ecg: {name: resnte}", r"ecg\.name must be one of cnn, lstm, resnet, wavenet, got 'resnte'"),
        (
            "ehr: {name: ft_transformer, sizes: {depth: 3}}",
            r"ehr\.sizes of ft_transformer must be among .*, got 'depth'",
        ),
        (
            "cohort: {window_hours: 1}\nehr: {name: tpc}",
            r"cohort\.window_hours must be at least 2 for ehr\.name tpc, got 1\. Its tokens",
        ),
        (
            "ehr: {name: mlp, sizes: {width: 10000000}}",
            r"ehr\.sizes must suit .* mlp: width must be at most 4096, got 10000000",
        ),
        ("- a\n- b", r"must hold sections, got a list"),
        ("a: [1", r"must have \{ and \} or \[ and \] in pairs"),
    ],
)
def test_a_wrong_plan_names_key_value_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_plan(plan(tmp_path, text))
    assert caught.value.exit_status == 3


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_plan(plan(tmp_path, "seeed: 1\nencoders: {num_rounds: many}\ntarget: {unit: ward}\n"))
    assert all(word in str(caught.value) for word in ("seeed", "num_rounds", "unit"))


def test_a_plan_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be a readable file"):
        load_plan(tmp_path / "none.yaml")
