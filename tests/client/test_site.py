"""Site files: found by path or name, paths start at the file, and every problem is told at once."""

import re
from pathlib import Path

import pytest

from client.budget.accounting import Budget
from client.site import PlanSections, find_site_file, load_plan_sections, load_site, load_study
from lemof_model.errors import ConfigError
from lemof_model.study import CohortSpec, SplitSpec, Target

GOOD = "version: 1\nsite: {name: hospital_a}\ndata: {ehr: {root: raw}, ecg: {root: /ecg}}\n"


def _write(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(text)
    return path


def test_relative_paths_start_at_the_site_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path, GOOD + "server: {root_certificates: ca.crt}\n")
    monkeypatch.chdir(tmp_path.parent)
    site = load_site(path.relative_to(tmp_path.parent))
    assert site.data.ehr.root == tmp_path / "raw"
    assert site.prepare.output == tmp_path / "cohort"
    assert site.server.root_certificates == tmp_path / "ca.crt"
    assert site.data.ecg is not None
    assert site.data.ecg.root == Path("/ecg")
    assert (site.limits.min_patients, site.limits.min_cell, site.limits.max_update_mb) == (50, 11, 100)
    assert site.server.address == "127.0.0.1:9092"


def test_record_list_beside_the_site_file_comes_before_the_ecg_root(tmp_path: Path) -> None:
    path = _write(tmp_path, GOOD.replace("/ecg", "/ecg, record_list: ecg/record_list.csv"))
    ecg = load_site(path).data.ecg
    assert ecg is not None
    assert ecg.record_list == Path("/ecg/ecg/record_list.csv")
    (tmp_path / "ecg").mkdir()
    (tmp_path / "ecg/record_list.csv").touch()
    ecg = load_site(path).data.ecg
    assert ecg is not None
    assert ecg.record_list == tmp_path / "ecg/record_list.csv"


def test_a_name_means_a_file_in_site_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site_configs").mkdir()
    (tmp_path / "site_configs/hospital_a.yaml").write_text(GOOD)
    assert find_site_file("hospital_a") == Path("site_configs/hospital_a.yaml")
    assert load_site("hospital_a.yaml").site.name == "hospital_a"
    with pytest.raises(ConfigError, match=r"--site must name a site file, got 'b'. Looked for b, site_configs/b, "):
        load_site("b")
    (tmp_path / "made/hospital_a").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"Looked for made/hospital_a, made/hospital_a/site\.yaml\.$"):
        load_site("made/hospital_a")
    (tmp_path / "made/hospital_a/site.yaml").write_text(GOOD)
    assert find_site_file("made/hospital_a") == Path("made/hospital_a/site.yaml")


def test_every_problem_is_told_with_its_key(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        "version: 2\nsite: {name: Hospital A}\ndata: {ehr: {rot: raw, tables: [chartevent]}}\n"
        "limit: {}\nlimits: {min_cell: 0}\nserver: {address: nowhere}\nprepare: {colour: red}\n",
    )
    with pytest.raises(ConfigError) as caught:
        load_site(path)
    problems = str(caught.value).splitlines()
    expected = [
        "version must be 1, got 2 from site.yaml.",
        "site.name must be small letters, digits, _ and -, got 'Hospital A'. Call it hospital_a. (from site.yaml:",
        "data.ehr.root must be given, got nothing from site.yaml.",
        "data.ehr.tables must be a section with keys of its own, got a list from site.yaml.",
        "data.ehr.rot must be a known key, got an unknown one from site.yaml. Did you mean root?",
        "prepare.colour must be a known key, got an unknown one from site.yaml. Known: output, max_bad_fraction, ",
        "limits.min_cell must be greater than 0, got 0 from site.yaml.",
        "server.address must be HOST:PORT, such as fl.example.org:443, got 'nowhere'. Write ",
        "limit must be a known key, got an unknown one from site.yaml. Did you mean limits?",
    ]
    assert len(problems) == len(expected)
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(start)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: [1\n", r"site\.yaml must have \{ and \} or \[ and \] in pairs, .* line 1"),
        ("- 1\n", r"site\.yaml must hold sections, got a list\. "),
        ("", r"site\.yaml must hold sections, got nothing\. "),
        (
            "cohort: {window_hours: 12}\n",
            r"must be a site file, got a study plan \(it has cohort\)\. Give the plan with",
        ),
    ],
)
def test_what_is_not_a_site_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        load_site(_write(tmp_path, text))


def test_a_site_file_is_immutable(tmp_path: Path) -> None:
    site = load_site(_write(tmp_path, GOOD))
    with pytest.raises(ValueError, match="frozen"):
        site.limits.min_cell = 1


def test_plan_sections(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("name: x\nencoders: {num_rounds: 3}\ncohort: {window_hours: 12}\ntarget: {unit: hospital}\n")
    sections = load_plan_sections(plan)
    assert sections.cohort == CohortSpec(window_hours=12)
    assert (sections.target, sections.splits) == (Target(unit="hospital"), SplitSpec())
    assert load_plan_sections(None) == PlanSections()


def test_problems_of_a_plan_name_section_and_key(tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text("cohort: {window_hour: 12}\ntarget: {threshold_days: -1}\nsplits: {train: 0.9}\n")
    with pytest.raises(ConfigError) as caught:
        load_plan_sections(plan)
    assert str(caught.value).splitlines() == [
        "cohort.window_hour must be a known key, got an unknown one from plan.yaml. Did you mean window_hours?",
        "target.threshold_days must be above 0, got -1.0. (from plan.yaml:target)",
        "splits: the four fractions must add up to 1, got 1.4. (from plan.yaml:splits)",
    ]
    plan.write_text("attention: {training: {num_round: 3}}\n")
    with pytest.raises(ConfigError, match=r"^attention\.training\.num_round must be .* Did you mean num_rounds\?$"):
        load_study(plan)
    with pytest.raises(ConfigError, match=r"missing\.yaml must be a readable file, got No such file"):
        load_plan_sections(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    "address", ["fl.example.org", "https://fl.example.org:443", "a:0", "a:65536", ":1", "a b:1", "a:1²"]
)
def test_an_address_is_a_host_and_a_port(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match=r"^server\.address must be HOST:PORT, such as fl\.example\.org:443, got "):
        load_site(_write(tmp_path, f"{GOOD}server: {{address: '{address}'}}\n"))


def test_a_tilde_is_the_home_of_whoever_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    text = (
        "version: 1\nsite: {name: a}\nprepare: {output: ~/out/a}\nserver: {root_certificates: ~/ca.crt}\n"
        "privacy: {epsilon: 1, delta: 1e-5, ledger: ~/a.jsonl}\n"
        "data: {ehr: {root: ~/mimic, tables: {patients: ~/p.csv}}, ecg: {root: ~/ecg, record_list: ~/list.csv}}\n"
    )
    site = load_site(_write(tmp_path, text))
    assert site.data.ecg is not None
    assert site.privacy is not None
    found = [site.prepare.output, site.server.root_certificates, site.privacy.ledger, site.data.ehr.root]
    found += [site.data.ehr.root / site.data.ehr.tables["patients"], site.data.ecg.root, site.data.ecg.record_list]
    expected = ["out/a", "ca.crt", "a.jsonl", "mimic", "p.csv", "ecg", "list.csv"]
    assert found == [Path("/home/ada") / name for name in expected]


def test_the_example_is_a_site_file(repository: Path) -> None:
    site = load_site(repository / "site_configs/example.yaml")
    assert site.prepare.output == repository / "site_configs/cohort"
    assert site.limits.min_patients == 50


def test_a_privacy_budget_is_read_with_its_ledger_beside_the_site_file(tmp_path: Path) -> None:
    assert load_site(_write(tmp_path, GOOD)).privacy is None
    privacy = load_site(_write(tmp_path, GOOD + "privacy: {epsilon: 8, delta: 1.0e-5}\n")).privacy
    assert privacy is not None
    assert privacy.ledger == tmp_path / "ledger.jsonl"
    assert privacy.budget == Budget(epsilon=8.0, delta=1e-5, study_epsilon=8.0)
    text = GOOD + "privacy: {epsilon: 8, delta: 1.0e-5, study_epsilon: 2, ledger: kept/a.jsonl}\n"
    privacy = load_site(_write(tmp_path, text)).privacy
    assert privacy is not None
    assert (privacy.ledger, privacy.budget.study_epsilon) == (tmp_path / "kept/a.jsonl", 2.0)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{epsilon: 0, delta: 1.0e-5}", r"privacy.epsilon must be greater than 0, got 0 from site.yaml"),
        ("{epsilon: .inf, delta: 1.0e-5}", r"privacy.epsilon must be a finite number, got inf"),
        ("{epsilon: 1, delta: 0.001}", r"privacy.delta must be less than 0.001, got 0.001"),
        ("{epsilon: 1, delta: 0}", r"privacy.delta must be greater than 0, got 0"),
        ("{epsilon: 1}", r"privacy.delta must be given, got nothing from site.yaml"),
        ("{epsilon: 1, delta: 1.0e-5, study_epsilon: 2}", r"must be at most privacy.epsilon = 1, got 2. Lower it"),
        ("{epsilon: 1, delta: 1.0e-5, epsylon: 2}", r"privacy.epsylon must be a known key.*Did you mean epsilon\?"),
    ],
)
def test_a_wrong_privacy_budget_is_refused(tmp_path: Path, section: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_site(_write(tmp_path, f"{GOOD}privacy: {section}\n"))


@pytest.mark.parametrize("zone", ["%z", "%:z", "%Z", "%#z", "%+"])
@pytest.mark.parametrize("section", ["ehr: {root: raw", "ecg: {root: /ecg"])
def test_a_zone_in_a_time_format_is_refused(tmp_path: Path, section: str, zone: str) -> None:
    form = f"%Y-%m-%d %H:%M:%S{zone}"
    path = _write(tmp_path, GOOD.replace(section, f"{section}, datetime_format: '{form}'"))
    with pytest.raises(ConfigError, match=rf"must be one of local times, got a zone \({re.escape(zone)}\)") as told:
        load_site(path)
    assert str(told.value).endswith(f"(from site.yaml:data.{section[:3]}.datetime_format)")


def test_a_time_format_without_percent_signs_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, GOOD.replace("raw", "raw, datetime_format: YYYY-MM-DD HH24"))
    with pytest.raises(
        ConfigError, match=r"must have its parts as in %Y-%m-%d %H:%M:%S, got 'YYYY-MM-DD HH24'\. Write"
    ):
        load_site(path)


def test_a_percent_sign_before_a_z_is_no_zone(tmp_path: Path) -> None:
    path = _write(tmp_path, GOOD.replace("raw", "raw, datetime_format: '%Y-%m-%d %H:%M:%S%%z'"))
    assert load_site(path).data.ehr.datetime_format.endswith("%%z")
