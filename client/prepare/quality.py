"""The quality report of a preparation: what was met in every table, and what came of it by concept and feature.

``quality.json`` stays in the hospital, as the whole cohort does: its counts may be small. Every row of a table is in
one count: see ``event_pass`` for how they add up.
"""

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.prepare.event_pass import MAX_LINES, BadLines
from client.prepare.layout import Stored
from client.prepare.measurements import NOTHING_READ
from client.prepare.stays import StayTables
from lemof_model.concepts import TREATMENTS
from lemof_model.features import FEATURES, MEASURED
from readers.ecg.faults import Rejection, told_of


def write_quality(
    folder: Path,
    stored: Stored,
    tables: StayTables,
    attrition: Sequence[Mapping[str, Any]],
    passes: Mapping[str, Mapping[str, Any]],
    ecg_facts: Mapping[str, Any],
    labels: tuple[NDArray[np.int8], NDArray[np.bool_]],
    of_stays: Mapping[str, Any],
    days: Mapping[str, Mapping[str, int]],
) -> None:
    """Write ``quality.json`` and ``rejects.csv.gz`` beside ``features.npy``.

    ``stored`` is what the layout stores in which table; ``passes`` are the facts of each event table (counts, counts by
    concept, unreadable lines); ``labels`` the long stays and which stays a study reads; ``of_stays`` further entries
    (JSON values); ``days`` has, by concept, how many values repeat another (``repeated``), and in how many stays the
    sum was ``below_zero``.
    """
    features_NF = np.load(folder / "features.npy", mmap_mode="r")
    first_bad = tables.first_bad | {name: facts.get("first_bad", {}) for name, facts in passes.items()}
    concepts = {name: counts for facts in passes.values() for name, counts in facts["concepts"].items()}
    quality = {
        "attrition": list(attrition),
        "tables": {**tables.counts, **{name: facts["counts"] for name, facts in passes.items()}},
        "columns_absent": {name: facts["columns_absent"] for name, facts in passes.items() if facts["columns_absent"]},
        "statuses": {name: facts["statuses"] for name, facts in passes.items() if facts.get("statuses")},
        "joined_by_stay": [name for name, facts in passes.items() if facts["is_by_stay"]],
        "concepts": concept_facts(stored, concepts, days, features_NF),
        "first_bad": first_bad,
        **of_stays,
        "treatments": treatment_facts(stored, passes, features_NF),
        "features": feature_facts(features_NF),
        "labels": {"num": int(labels[1].sum()), "num_long": int(labels[0][labels[1]].sum())},
        "ecg": ecg_facts["counts"],
        "duplicates": {
            **{f"{key} of {name}": tables.counts[name]["duplicates"] for name, key in tables.keys.items()},
            **{f"values of {name}": sum(days["repeated"][concept] for concept in facts["concepts"])
               for name, facts in passes.items() if facts["concepts"]},
        },
    }  # fmt: skip
    (folder / "quality.json").write_text(json.dumps(quality, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    bad_lines = [(tables.counts[name]["file"], lines) for name, lines in tables.bad_lines.items()]
    bad_lines += [(facts["counts"]["file"], facts["bad_lines"]) for facts in passes.values()]
    bad_lines.append((ecg_facts["record_list"], ecg_facts["skipped"][:MAX_LINES]))
    _write_rejects(folder / "rejects.csv.gz", bad_lines, ecg_facts)


def feature_facts(features_NF: NDArray[np.float32]) -> dict[str, dict[str, float | None]]:
    """Coverage, mean, least and largest value of every numeric feature; shares of the categories of the others."""
    facts: dict[str, dict[str, float | None]] = {}
    for column, feature in enumerate(FEATURES):
        values = features_NF[:, column].astype(np.float64)
        present = values[~np.isnan(values)]
        coverage = len(present) / len(values)
        if feature.kind == "categorical":
            share = np.bincount(present.astype(np.int64), minlength=len(feature.categories)) / len(values)
            facts[feature.name] = {
                "coverage": float(1 - share[-1]),
                **dict(zip(feature.categories, share, strict=True)),
            }
        elif len(present):
            facts[feature.name] = {
                "coverage": coverage,
                "mean": float(present.mean()),
                "min": float(present.min()),
                "max": float(present.max()),
            }
        else:
            facts[feature.name] = {"coverage": 0.0, "mean": None, "min": None, "max": None}
    return facts


def concept_facts(
    stored: Stored,
    counts: Mapping[str, Mapping[str, Any]],
    days: Mapping[str, Mapping[str, int]],
    features_NF: NDArray[np.float32],
) -> dict[str, dict[str, Any]]:
    """What is known of every measured concept: schema, counts of rows by fate, and stays in which it was measured."""
    num_all = len(features_NF)
    facts, places = {}, _places(stored)
    for concept in MEASURED:
        column = next(i for i, f in enumerate(FEATURES) if f.concept == concept.name and f.aggregate != "count")
        num_stays = int((~np.isnan(features_NF[:, column])).sum())
        low, high = concept.limits
        facts[concept.name] = {
            "unit": concept.unit,
            **places[concept.name],
            "low": low,
            "high": high,
            **counts.get(concept.name, NOTHING_READ),
            **{name: of_concept[concept.name] for name, of_concept in days.items()},
            "num_stays": num_stays,
            "coverage": num_stays / num_all,
        }
    return facts


def treatment_facts(
    stored: Stored, passes: Mapping[str, Mapping[str, Any]], features_NF: NDArray[np.float32]
) -> dict[str, dict[str, Any]]:
    """For every treatment, in how many stays it was given; None where the site lacks its table."""
    facts, places = {}, _places(stored)
    for treatment in TREATMENTS:
        column = next(i for i, feature in enumerate(FEATURES) if feature.concept == treatment.name)
        place = places[treatment.name]
        here = passes.get(place["table"])
        facts[treatment.name] = {
            **place,
            **({"item_ids": here["item_ids"][treatment.name]} if here else {}),
            "num_stays_given": int((features_NF[:, column] > 0).sum()) if here else None,
        }
    return facts


def _places(stored: Stored) -> dict[str, dict[str, Any]]:
    """Where a layout has each concept and treatment: its table and item ids; nowhere, where it has none."""
    names = [concept.name for concept in MEASURED] + [treatment.name for treatment in TREATMENTS]
    nowhere: dict[str, dict[str, Any]] = {name: {"table": "", "item_ids": []} for name in names}
    return nowhere | {
        kept.name: {"table": table, "item_ids": list(kept.item_ids)} for table, its in stored.items() for kept in its
    }


def num_by_reason(rejected: Mapping[str, Rejection]) -> dict[str, int]:
    """How many records were rejected for each reason, whatever its detail."""
    return dict(sorted(Counter(reason for reason, _ in rejected.values()).items()))


def _write_rejects(path: Path, bad_lines: Sequence[tuple[str, BadLines]], ecg_facts: Mapping[str, Any]) -> None:
    """Every row that could not be used: file, line of a table or row of the record list, reason. Equal rows
    give equal bytes."""
    rows = [(file, line, reason) for file, lines in bad_lines for line, reason in lines]
    rows += [(file, ecg_facts["list_row_of"][file], told_of(*why)) for file, why in ecg_facts["rejected"].items()]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("file", "row", "reason"), *rows])
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
