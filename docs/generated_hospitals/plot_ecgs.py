"""Twelve generated ECGs as a cardiologist would see them on paper: 25 mm/s, 10 mm/mV, 2.5 s a lead and lead II below.

Run ``python docs/generated_hospitals/plot_ecgs.py`` in the repository; it writes ``ecgs.png`` beside itself, the same
each time. It needs matplotlib, which the project itself does not.
"""

import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simulation.synthetic.heart import LEFT_BLOCK, NO_BLOCK, RIGHT_BLOCK, Heart, draw_hearts
from simulation.synthetic.recording import GAIN_PER_MV, loose_electrode, record, swap_arms
from simulation.synthetic.signals import LEADS, NUM_SAMPLES, SAMPLING_RATE_HZ, draw_signal

TARGET = Path(__file__).with_name("ecgs.png")
ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
ROW_MV = 2.6  # from one row of leads to the next


def main() -> None:
    """Draw the figure and store it in 32 colours."""
    figure, panels = plt.subplots(4, 3, figsize=(27, 17.4), dpi=95)
    for number, (panel, (title, adc)) in enumerate(zip(panels.flat, cases().items(), strict=True), start=1):
        draw(panel, f"{number}. {title}", adc)
    figure.tight_layout(pad=0.6)
    figure.savefig(TARGET)
    Image.open(TARGET).convert("RGB").quantize(32, dither=Image.Dither.NONE).save(TARGET, optimize=True)


def cases() -> dict[str, np.ndarray]:
    """Twelve records by title: one usual heart, with one thing changed at a time."""
    rng = np.random.default_rng(12)
    usual = usual_heart()
    hearts = {
        "sinus rhythm": (usual, 72.0),
        "atrial fibrillation": (replace(usual, is_af=True, p_scale=1.3), 104.0),
        "ventricular ectopic beats": (replace(usual, ectopic_share=0.22), 76.0),
        "left bundle-branch block": (replace(usual, block=LEFT_BLOCK, qrs_ms=152.0, axis_degrees=-15.0), 78.0),
        "right bundle-branch block": (replace(usual, block=RIGHT_BLOCK, qrs_ms=142.0, axis_degrees=50.0), 80.0),
        "T inversion": (replace(usual, t_scale=-0.75), 84.0),
        "ST depression": (replace(usual, t_scale=0.45, st_mv=-0.17), 96.0),
        "low voltage": (replace(usual, voltage=0.4), 92.0),
        "long QT": (replace(usual, qtc_ms=535.0), 66.0),
        "tachycardia": (replace(usual, sdnn_ms=6.0), 138.0),
        "swapped arm electrodes": (usual, 82.0),
        "loose electrode V3": (replace(usual, pr_ms=215.0), 88.0),
    }
    records = {}
    for title, (heart, rate_bpm) in hearts.items():
        signal_SL = draw_signal(heart, rate_bpm, rng)
        if title.startswith("swapped"):
            signal_SL = swap_arms(signal_SL)
        if title.startswith("loose"):
            signal_SL[:, LEADS.index("V3")] += loose_electrode(rng)
        records[title] = record(signal_SL, rng)
    return records


def usual_heart() -> Heart:
    """A heart with nothing wrong, and a body of its own."""
    zero = np.zeros(1)
    heart = draw_hearts(zero, zero, zero, np.random.default_rng(5))[0]
    heart = replace(heart, qrs_ms=92.0, pr_ms=158.0, axis_degrees=40.0, block=NO_BLOCK, t_scale=0.95, st_mv=0.0)
    heart = replace(heart, qtc_ms=420.0, sdnn_ms=28.0, is_af=False, voltage=1.0, p_scale=1.0, ectopic_share=0.0)
    return replace(heart, has_atrial_focus=False, coupling=0.62, focus_turn_degrees_D=np.array([0.0, -30.0, -54.0]))


def draw(panel: Axes, title: str, adc_SL: np.ndarray) -> None:
    """One record on its grid."""
    mv_SL = adc_SL / GAIN_PER_MV
    seconds = np.arange(NUM_SAMPLES) / SAMPLING_RATE_HZ
    quarter = NUM_SAMPLES // 4
    for row, names in enumerate((*ROWS, ("II",))):
        base = -ROW_MV * row
        for column, name in enumerate(names):
            part = slice(column * quarter, (column + 1) * quarter) if len(names) > 1 else slice(None)
            lead = mv_SL[:, LEADS.index(name)]
            trace = np.clip(lead[part] - np.median(lead[part]), -2.4, 2.4)
            panel.plot(seconds[part], base + trace, color="black", linewidth=0.75)
            panel.text(seconds[part][0] + 0.05, base + 1.0, name, fontsize=9, color="navy")
    panel.set(xlim=(0, 10), ylim=(-ROW_MV * 3 - 1.6, 1.9), aspect=0.4)
    panel.set_title(title, fontsize=13, loc="left")
    panel.xaxis.set_major_locator(MultipleLocator(0.2))
    panel.yaxis.set_major_locator(MultipleLocator(0.5))
    panel.grid(color="#f0b4b4", linewidth=0.6)
    panel.tick_params(length=0, labelbottom=False, labelleft=False)


if __name__ == "__main__":
    main()
