"""Print the distributions of features in generated hospitals beside those of the open MIMIC-IV demo, as Markdown.

    LEMOF_MIMIC_DEMO=DIR python docs/generated_hospitals/compare_with_demo.py HOSPITALS [--all]

HOSPITALS is what ``lemof-sim synth`` wrote; LEMOF_MIMIC_DEMO holds ``mimic-iv-demo-2.2``. Both are prepared by the
client's own ``prepare``, into a temporary folder and without ECGs. ``--all`` prints every numeric feature.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from client.layouts.mimic_iv.layout import MIMIC_IV
from client.prepare.prepare import prepare
from client.site import PlanSections, load_site
from lemof_model.features import FEATURES

SHOWN = (
    *("age", "heart_rate_mean", "sbp_mean", "mbp_min", "resp_rate_mean", "temperature_max", "spo2_min", "glucose_max"),
    *("gcs_motor_min", "fio2_max", "creatinine_max", "bun_max", "potassium_max", "bicarbonate_min", "hemoglobin_min"),
    *("platelets_min", "wbc_max", "bilirubin_max", "lactate_max", "ph_min"),
)
SITE_FILE = "version: 1\nsite: {{name: {name}}}\ndata: {{ehr: {{root: '{root}'}}}}\nprepare: {{output: cohort}}\n"


def prepared(root: Path, folder: Path) -> NDArray[np.float32]:
    """The features of a MIMIC-IV tree, prepared in ``folder``; shape (stays, features)."""
    folder.mkdir()
    site_file = folder / "site.yaml"
    site_file.write_text(SITE_FILE.format(name=folder.name, root=root.resolve()), encoding="utf-8")
    return np.asarray(prepare(load_site(site_file), MIMIC_IV, PlanSections(), Console(quiet=True)).features)


def row(name: str, generated_N: NDArray[np.float32], real_N: NDArray[np.float32]) -> str:
    """One line of the table: median and quartiles, and the share of stays without a value."""
    unit = next(feature.unit for feature in FEATURES if feature.name == name)
    cells = [name, unit]
    for values_N in (generated_N, real_N):
        known = values_N[~np.isnan(values_N)]
        low, middle, high = np.quantile(known, (0.25, 0.5, 0.75)) if len(known) else (np.nan,) * 3
        cells.append(f"{middle:.3g} [{low:.3g}, {high:.3g}]")
    cells += [f"{100 * np.isnan(values_N).mean():.0f}" for values_N in (generated_N, real_N)]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prepare both and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hospitals", type=Path)
    parser.add_argument("--all", action="store_true", help="every numeric feature, not the chosen twenty")
    arguments = parser.parse_args()
    demo = os.environ.get("LEMOF_MIMIC_DEMO") or parser.error("LEMOF_MIMIC_DEMO must name a folder. Set it.")
    roots = sorted(path.parent.parent for path in arguments.hospitals.glob("*/icu/icustays.csv.gz"))
    if not roots:
        parser.error(f"HOSPITALS must hold generated hospitals, got {arguments.hospitals}. Run lemof-sim synth first.")
    with tempfile.TemporaryDirectory() as name:
        generated = np.concatenate([prepared(root, Path(name) / root.name) for root in roots])
        real = prepared(Path(demo) / "mimic-iv-demo-2.2", Path(name) / "demo")
    names = [feature.name for feature in FEATURES]
    shown = [f.name for f in FEATURES if f.kind == "numeric"] if arguments.all else SHOWN
    print(f"{len(generated):,} generated stays, {len(real):,} stays of the demo\n")
    print("| feature | unit | generated: median [quartiles] | demo | % missing, generated | demo |")
    print("|---|---|---|---|---|---|")
    for feature in shown:
        column = names.index(feature)
        print(row(feature, generated[:, column], real[:, column]))


if __name__ == "__main__":
    main()
