"""Ten generated ICU stays: vitals and laboratory values of the first 36 hours as they stand in the written tables.

Run ``python docs/generated_hospitals/plot_stays.py`` in the repository; it generates one hospital of 80 stays into a
temporary folder, takes every eighth of them by length, and writes ``stays.png`` beside itself, the same each time. It
needs matplotlib, which the project itself does not.
"""

import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.axes import Axes
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simulation.synthetic.generate import generate

TARGET = Path(__file__).with_name("stays.png")
ROWS = (  # of each row: title, unit, limits, and item ids by label
    ("heart rate", "bpm", (40, 160), {"heart rate": (220045,)}),
    ("pressure", "mmHg", (30, 190), {"systolic": (220179, 220050), "mean": (220181, 220052)}),
    ("breathing", "", (5, 105), {"SpO2 (%)": (220277,), "rate (1/min)": (220210,)}),
    ("temperature", "°F", (94, 104), {"temperature": (223761,)}),
    ("blood", "log scale", (0.3, 300), {"lactate": (50813,), "creatinine": (50912,), "BUN": (51006,), "WBC": (51301,)}),
)


def main() -> None:
    """Generate, choose, draw, and store the figure in 64 colours."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        generate(out, num_sites=1, num_stays=80, seed=5)
        truth = pl.read_parquet(out / "truth.parquet").sort("los")
        events = events_of(out / "hospital_a", truth)
    chosen = truth.gather_every(8, offset=3)
    figure, panels = plt.subplots(len(ROWS), chosen.height, figsize=(27, 11), dpi=80, sharex=True, sharey="row")
    for number, (column, stay) in enumerate(zip(panels.T, chosen.iter_rows(named=True), strict=True)):
        own = events.filter(pl.col("stay_id") == stay["stay_id"])
        column[0].set_title(
            f"{stay['los']:.1f} days\nseverity {stay['severity']:+.1f}, trend {stay['trend']:+.1f}\n"
            f"shock {stay['shock']:+.1f}, kidneys {stay['renal']:+.1f}",
            fontsize=10,
        )
        for panel, row in zip(column, ROWS, strict=True):
            draw(panel, own, row, is_first=number == 0)
        column[-1].set_xlabel("hours in the ICU")
    figure.tight_layout(pad=0.5)
    figure.savefig(TARGET)
    Image.open(TARGET).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(TARGET, optimize=True)


def events_of(folder: Path, truth: pl.DataFrame) -> pl.DataFrame:
    """Chart and laboratory values with their hour from ICU admission."""
    keys = truth.select("stay_id", "subject_id", "intime")
    charts = pl.read_csv(folder / "icu/chartevents.csv.gz", try_parse_dates=True).join(keys, on="stay_id")
    labs = pl.read_csv(folder / "hosp/labevents.csv.gz", try_parse_dates=True).join(keys, on="subject_id")
    hours = ((pl.col("charttime") - pl.col("intime")).dt.total_seconds() / 3600).alias("hours")
    return pl.concat(table.select("stay_id", "itemid", "valuenum", hours) for table in (charts, labs)).filter(
        pl.col("hours").is_between(-8, 36)
    )


def draw(
    panel: Axes,
    events: pl.DataFrame,
    row: tuple[str, str, tuple[float, float], dict[str, tuple[int, ...]]],
    *,
    is_first: bool,
) -> None:
    """One row of one stay."""
    title, unit, limits, shown = row
    for label, item_ids in shown.items():
        values = events.filter(pl.col("itemid").is_in(item_ids)).sort("hours")
        panel.plot(values["hours"], values["valuenum"], ".-", markersize=4, linewidth=0.8, label=label)
    panel.axvline(24, color="0.6", linewidth=0.8, linestyle=":")
    if unit == "log scale":
        panel.set_yscale("log")
    panel.set_ylim(*limits)
    if is_first:
        panel.set_ylabel(f"{title}\n{unit}")
        if len(shown) > 1:
            panel.legend(fontsize=7, loc="upper left")


if __name__ == "__main__":
    main()
