"""`ledger` and `ledger verify`: what was spent on what, what is left, and whether it adds up."""

import json
from pathlib import Path

import pytest

from client.budget import accounting
from client.budget.accounting import Budget, Charge
from client.budget.ledger import open_ledger
from client.budget.statement import rows_of, statement
from client.cli import run
from lemof_model.study import Study
from tests.client.budget.test_ledger import answer, final

BUDGET = Budget(8.0, 1e-5, 8.0)
FIRST, SECOND = Study(name="first"), Study(name="second", seed=8)


@pytest.fixture
def site_file(tmp_path: Path) -> str:
    path = tmp_path / "site.yaml"
    path.write_text(
        "version: 1\nsite: {name: a}\ndata: {ehr: {root: raw}}\n"
        "privacy: {epsilon: 8, delta: 1.0e-5, ledger: kept/l.jsonl}\n"
    )
    return str(path)


def spend(site_file: str) -> list[Charge]:
    charges = [Charge("train", "gaussian", 3.0), Charge("stack/1", "gaussian", 4.0), Charge("train", "gaussian", 9.0)]
    folder = Path(site_file).parent
    (folder / "cohort").mkdir()
    with open_ledger(folder / "kept/l.jsonl", BUDGET, folder / "cohort") as ledger:
        ledger.append(final(1, FIRST), charges[:2], answer(1))
        ledger.append(final(2, FIRST), charges[2:], answer(2))
        ledger.append(final(1, SECOND), charges[2:], answer(2))
    return [*charges, charges[2]]


def test_the_statement_says_what_was_spent_on_what(site_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    charges = spend(site_file)
    assert run(["--site", site_file, "ledger", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["epsilon"] == accounting.spent(charges, 1e-5)
    assert found["left"] == 8 - found["epsilon"]
    assert found["parts"]["train"] == {
        "epsilon": found["epsilon"], "left": found["left"], "stages": {"final": found["epsilon"]},
    }  # fmt: skip
    assert found["parts"]["stack/1"]["epsilon"] == accounting.spent([charges[1]], 1e-5)
    assert found["parts"]["tuning"] == {"epsilon": 0.0, "left": 8.0, "stages": {}}
    assert [(s["name"], s["num_answers"]) for s in found["studies"]] == [("first", 2), ("second", 1)]
    assert found["studies"][0]["epsilon"] == accounting.spent(charges[:3], 1e-5)
    assert run(["--site", site_file, "ledger"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Spent: epsilon 1.5" in captured.err
    assert "of 8 at delta 1e-05, in 3 answers" in captured.err and "the cohort's own" in captured.err
    rows = rows_of(found)
    assert [row[0] for row in rows] == ["", "final", "together", "left"]
    assert rows[1][1:4] == [f"{found['epsilon']:.3f}", "-", f"{found['parts']['stack/1']['epsilon']:.3f}"]


def test_verify_recomputes_and_finds_damage(site_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    charges = spend(site_file)
    assert run(["--site", site_file, "ledger", "verify", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"holds": True, "num_answers": 3, "epsilon": pytest.approx(accounting.spent(charges, 1e-5))}
    assert run(["--site", site_file, "ledger", "verify"]) == 0
    assert "ok: 3 answers in an unbroken chain" in capsys.readouterr().err
    path = Path(site_file).parent / "kept/l.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"noise_multiplier":9.0', b'"noise_multiplier":9.5'))
    for command in (["verify"], []):
        assert run(["--site", site_file, "ledger", *command]) == 4
        assert "error: Line 3 of l.jsonl must be as it was written, got another." in capsys.readouterr().err


def test_without_a_budget_there_is_no_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("version: 1\nsite: {name: a}\ndata: {ehr: {root: raw}}\n")
    assert run(["--site", str(path), "ledger"]) == 3
    assert "privacy must be in the site file for a ledger, got none from site.yaml." in capsys.readouterr().err
    path.write_text(path.read_text() + "privacy: {epsilon: 1, delta: 1.0e-5}\n")
    assert run(["--site", str(path), "ledger", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["epsilon"], found["left"], found["num_answers"], found["studies"]) == (0.0, 1.0, 0, [])
    assert not (tmp_path / "ledger.jsonl").exists()
    assert statement([], BUDGET)["splits"] is None


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["ledger", "-h"], ["ledger", "verify", "-h"]):
        assert run(arguments) == 0
        assert "Example: lemof-client --site hospital_a ledger" in capsys.readouterr().out
