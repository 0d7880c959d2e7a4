"""The items of MIMIC-IV: each is of one concept, and what a hospital may say of it."""

from itertools import pairwise
from pathlib import Path

import pytest

from client.layouts import LAYOUTS, layout_of
from client.layouts.mimic_iv.items import LABS, MEASURED, VITALS
from client.layouts.mimic_iv.layout import MIMIC_IV
from client.site import load_site
from client.site_items import require_items
from lemof_model import concepts
from lemof_model.errors import ConfigError
from lemof_model.features import MEASURED as SCHEMA


def test_every_concept_and_treatment_is_stored_once_and_every_item_is_of_one() -> None:
    stored = [one for of_table in MIMIC_IV.stored.values() for one in of_table]
    names = [*(concept.name for concept in SCHEMA), *(treatment.name for treatment in concepts.TREATMENTS)]
    assert sorted(one.name for one in stored) == sorted(names)
    items = [item_id for one in stored for item_id in one.item_ids]
    assert len(set(items)) == len(items)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("mimic_v", "data.ehr.layout must be one of mimic_iv, got 'mimic_v'. Did you mean mimic_iv?"),
        ("MIMIC_IV", "data.ehr.layout must be one of mimic_iv, got 'MIMIC_IV'. Did you mean mimic_iv?"),
        ("omop", "data.ehr.layout must be one of mimic_iv, got 'omop'. Leave it out where"),
    ],
)
def test_an_unknown_layout_is_refused_with_those_that_are_known(tmp_path: Path, said: str, told: str) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(f"version: 1\nsite: {{name: small}}\ndata: {{ehr: {{root: ., layout: {said}}}}}\n")
    with pytest.raises(ConfigError) as caught:
        layout_of(load_site(file))
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("key", ["tables: {chartevent: x.csv}", "columns: {chartevent: {itemid: item}}"])
def test_a_table_that_the_layout_does_not_have_is_refused(tmp_path: Path, key: str) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(f"version: 1\nsite: {{name: small}}\ndata: {{ehr: {{root: ., {key}}}}}\n")
    with pytest.raises(ConfigError, match=r"\.chartevent must be a table of mimic_iv .* Did you mean chartevents\?"):
        layout_of(load_site(file))


def test_items_of_a_concept_that_a_layout_lacks_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.ehr\.items\.crp must be left out: no table of this layout has it"):
        require_items({"crp": {9001: None}}, {}, {"chartevents": VITALS})


def test_a_site_file_that_names_no_layout_has_that_of_mimic_iv(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("version: 1\nsite: {name: small}\ndata: {ehr: {root: .}}\n")
    assert layout_of(load_site(file)) is MIMIC_IV is LAYOUTS["mimic_iv"]


def test_units_of_one_item_do_not_overlap() -> None:
    """Of values that have no unit beside them: each is in one of at most two units."""
    two: dict[str, None] = {}
    for concept in MEASURED:
        for item_id in concept.item_ids:
            units = sorted(concept.units_without(item_id), key=lambda unit: unit.low)
            assert 1 <= len(units) <= 2
            assert all(one.high <= other.low for one, other in pairwise(units)), item_id
            two |= {concept.name: None} if len(units) == 2 else {}
    assert list(two) == ["temperature", "spo2", "height", "fio2", "hematocrit"]


def test_a_hospital_declares_the_unit_of_one_item() -> None:
    temperature = next(concept for concept in VITALS if concept.name == "temperature")
    declared = temperature.declared({223761: "degC", 50912: "umol/L", 226329: "drop"}, {7: "\u00b0F", 8: None})
    assert {item.item_id: item.unit.name for item in declared.items} == {
        223762: "degC", 223761: "degC", 227632: "degC", 227634: "degC", 7: "degF", 8: "degC"
    }  # fmt: skip
    assert [item.item_id for item in declared.items if item.is_stated] == [223761]
    assert declared.limits == temperature.limits and set(declared.units) == set(temperature.units)
    assert temperature.declared({}, {}) == temperature
    everything = dict.fromkeys(temperature.item_ids, "drop")
    assert temperature.declared(everything, {}).items == () and temperature.declared(everything, {}).limits == (10, 50)


def test_what_spellings_mean_at_a_hospital() -> None:
    creatinine = next(concept for concept in LABS if concept.name == "creatinine")
    declared = creatinine.declared({50912: {"MG/DL": "\u00b5mol/l", "kat": "drop", "N/A": "mg/L"}}, {})
    known = declared.units_spelled(50912)
    assert [unit.name for spelling in ("mg/dl", "umol/l") if (unit := known[spelling])] == ["umol/L", "umol/L"]
    assert known["kat"] is None and "kat" not in declared.units_spelled(52024)
    assert [unit.name for unit in declared.units_without(50912)] == ["mg/L"]
    assert [unit.name for unit in declared.units_without(52024)] == ["mg/dL"]
    assert creatinine.declared({50912: {"": "drop"}}, {}).units_without(50912) == ()
    stated = creatinine.declared({50912: "umol/L"}, {})
    assert set(stated.units_spelled(50912)) == set(stated.units["umol/L"].spellings)
