#!/bin/sh
# wfdb 4.3.1 reads the unit µV of a header as V: a millionfold, without a word.
#
# Headers are UTF-8 (wfdb-spec, spec/HEADERS.md). wfdb opens them as ASCII and leaves out what is not, so of "0.2(0)/µV" the
# unit that remains is V; the numbers are those of microvolts. Whoever goes by `units` is wrong by 10^6. The same header
# with uV is read as it stands. Exits 1 when this no longer holds.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check wfdb==4.3.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from pathlib import Path

import numpy as np
import wfdb

np.array([100, -50, 25, 0], "<i2").tofile("r.dat")
found = {}
for unit in ("uV", "µV"):
    Path("r.hea").write_text(f"r 1 500 4\nr.dat 16 0.2(0)/{unit} 16 0 100 75 0 II\n", encoding="utf-8")
    record = wfdb.rdrecord("r")
    found[unit] = (record.units[0], record.p_signal[0, 0].item())
    print(f"{unit}: {found[unit][1]:g} {found[unit][0]}")
assert found == {"uV": ("uV", 500.0), "µV": ("V", 500.0)}, "wfdb has changed"
PYTHON
# uV: 500 uV
# µV: 500 V
