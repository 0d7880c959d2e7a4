"""What a site file says of item ids and units: read, or refused by name."""

from pathlib import Path

import pytest

from client.layouts import layout_of
from client.site import EhrData, load_site
from lemof_model.errors import ConfigError


def read(tmp_path: Path, ehr: str) -> EhrData:
    """The data.ehr section of a site file with these settings, that agrees with its layout."""
    site = tmp_path / "site.yaml"
    site.write_text(f"version: 1\nsite: {{name: small}}\ndata: {{ehr: {{root: ., {ehr}}}}}\n")
    config = load_site(site)
    layout_of(config)
    return config.data.ehr


@pytest.mark.parametrize(
    ("ehr", "items"),
    [
        ("items: {temperature: {1: degC, 2: \u00b0F, 3: null}}", {"temperature": {1: "degC", 2: "\u00b0F", 3: None}}),
        ("items: {temperature: [1, 2]}", {"temperature": {1: None, 2: None}}),
        ("items: {temperature: {226329: degC}}", {"temperature": {226329: "degC"}}),  # the layout says the same
        ("items: {vasopressor: {1: vasopressin}}", {"vasopressor": {1: "vasopressin"}}),
        ("items: {renal_replacement: [1]}", {"renal_replacement": {1: None}}),
        ("items: {urine: {1: mL rinsed in, 2: L}}", {"urine": {1: "mL rinsed in", 2: "L"}}),
        ("items: {gcs_eye: {1: units}}", {"gcs_eye": {1: "units"}}),
        ("items: {}", {}),
    ],
)
def test_further_items(tmp_path: Path, ehr: str, items: dict[str, dict[int, str | None]]) -> None:
    assert read(tmp_path, ehr).items == items


def test_units_of_items_and_meanings_of_spellings(tmp_path: Path) -> None:
    found = read(
        tmp_path, "items: {weight: [7]}, units: {7: lbs, 50912: {mg/dL: umol/L, '': drop, 5: mg/dL}, 50911: drop}"
    )
    assert found.units == {7: "lbs", 50912: {"mg/dL": "umol/L", "": "drop", "5": "mg/dL"}, 50911: "drop"}
    assert read(tmp_path, "not_given: [storniert]").not_given == ("storniert",)


@pytest.mark.parametrize(
    ("ehr", "told"),
    [
        (
            "items: {temprature: {1: degC}}",
            "temprature must be a measurement or treatment of docs/features.md, got 'temprature'. Did you "
            "mean temperature?",
        ),
        (
            "items: {temperature: {1: degK}}",
            "temperature.1 must be one of degC, degF, got 'degK'. Did you mean degF?",
        ),
        (
            "items: {temperature: {223761: degC}}",
            "temperature must hold item ids that nothing else reads, got 223761, which it has. Say its unit "
            "in data.ehr.units: {223761: UNIT}.",
        ),
        (
            "items: {weight: {226329: kg}}",
            "weight must hold item ids that nothing else reads, got 226329, which temperature has. Take it out.",
        ),
        (
            "items: {weight: [1], height: [1]}",
            "height must hold item ids that nothing else reads, got 1, which weight has. Take it out.",
        ),
        (
            "items: {vasopressor: {221906: dopamine}}",
            "vasopressor must hold item ids that nothing else reads, got 221906, which it has. Take it out.",
        ),
        ("items: {vasopressor: {1: norepi}}", "got 'norepi'. Did you mean norepinephrine?"),
        ("items: {vasopressor: [1]}", "vasopressor.1 must be one of norepinephrine, epinephrine, "),
        (
            "items: {invasive_ventilation: {1: tube}}",
            "invasive_ventilation.1 must be left empty ([ITEM_ID]), got 'tube'.",
        ),
        ("items: {heart_rate: {1: mL rinsed in}}", "heart_rate.1 must be one of bpm, got 'mL rinsed in'."),
        ("items: {temperature: 1}", "temperature must be item ids, got 1. Write {ITEM_ID: UNIT}, or [ITEM_ID]"),
        ("items: {temperature: {x: degC}}", "temperature must be by item id, a whole number above 0, got 'x'."),
        ("items: {temperature: [[1]]}", "temperature must be by item id, a whole number above 0, got a list."),
        ("items: {temperature: {0: degC}}", "temperature must be by item id, a whole number above 0, got 0."),
        ("items: [temperature]", "items must be a section by measurement or treatment, got a list."),
        (
            "units: {7: degC}",
            "7 must be left out: no feature reads this item id, got 'degC'. Name what it measures in "
            "data.ehr.items: {CONCEPT: {7: UNIT}}.",
        ),
        ("units: {223761: Fahrenhit}", "223761 must be one of degC, degF, got 'Fahrenhit'."),
        (
            "units: {50912: {mg/dL: umo/L}}",
            "50912.'mg/dL' must be one of mg/dL, umol/L, mg/L, mmol/L, got 'umo/L'. Did you mean umol/L?",
        ),
        ("units: {50912: [mg/dL]}", "50912 must be a unit, or what each spelling of one means, got a list."),
        ("units: {50912: }", "50912 must be a unit, or what each spelling of one means, got nothing."),
        ("units: {50912: {mg/dL: }}", "50912.'mg/dL' must be a unit, or what each spelling of one means, got nothing."),
        (
            "units: {50912: {mg/dL: umol/L, MG/DL: mg/dL}}",
            "50912 must give each spelling one meaning, got 'umol/L' and 'mg/dL' of 'MG/DL'",
        ),
        ("units: degC", "units must be a section by item id, got 'degC'. For example: {223761: degC}."),
        ("not_given: storniert", "not_given must be a list of words, got 'storniert'. For example: [storniert]."),
    ],
)
def test_what_is_refused(tmp_path: Path, ehr: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, ehr)
    assert told in str(caught.value) and "data.ehr." in str(caught.value)
