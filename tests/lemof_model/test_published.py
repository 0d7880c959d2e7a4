"""The published scaling covers the schema, and is what the public demo says."""

from pathlib import Path

import numpy as np
import pytest

from client.cli import run
from client.cohort.store import load_cohort
from lemof_model import published
from lemof_model.features import CONCEPTS, FEATURES
from lemof_model.stays import NUMERIC_COLUMNS, scaling_from

SITE = "version: 1\nsite: {{name: demo}}\ndata: {{ehr: {{root: {root}}}}}\n"


def table_of(features_NF: np.ndarray) -> dict[str, tuple[float, float]]:
    """Mean and deviation by key, to three digits; 1 where nothing varies."""
    columns: dict[str, list[int]] = {}
    for column, feature in enumerate(FEATURES):
        if feature.kind == "numeric":
            columns.setdefault(published.key_of(feature), []).append(column)
    table = {}
    for key, of_key in columns.items():
        values = features_NF[:, of_key].astype(np.float64)
        values = values[~np.isnan(values)]
        table[key] = (float(f"{values.mean():.3g}"), float(f"{values.std():.3g}") or 1.0)
    return table


def test_every_numeric_feature_is_scaled() -> None:
    scaling = published.scaling()
    example = scaling_from({name: np.ones(len(NUMERIC_COLUMNS)) for name in ("num_present", "x", "x2")})
    for name, value in example.items():
        assert scaling[name].shape == value.shape
        assert scaling[name].dtype == value.dtype
    assert np.isfinite(scaling["mean"]).all()
    assert (scaling["scale"] > 0).all()


def test_concepts_lie_within_the_limits_of_the_schema() -> None:
    for concept in CONCEPTS:
        mean, _ = published.MEAN_AND_SCALE[concept.name]
        low, high = concept.limits
        assert low < mean < high, concept.name


def test_numbers_are_those_of_the_public_demo(mimic_demo: Path, tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(SITE.format(root=mimic_demo / "mimic-iv-demo-2.2"))
    assert run(["--site", str(site), "prepare"]) == 0
    found = table_of(np.asarray(load_cohort(tmp_path / "cohort").features))
    assert set(found) == set(published.MEAN_AND_SCALE)
    for concept, expected in published.MEAN_AND_SCALE.items():
        assert found[concept] == pytest.approx(expected, rel=0.011), concept
