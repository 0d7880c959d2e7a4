#!/bin/sh
# wfdb 4.3.1 averages the mark of a missing sample with its neighbour when a frame holds several: a spike, and no NaN.
#
# In format 16 a missing sample is stored as -32768, and wfdb gives NaN for it. Where a signal has two samples a frame, the
# default (smooth_frames=True) averages the stored numbers before it looks for the mark: 100 and a gap become
# (100 - 32768) / 2 = -16334. With smooth_frames=False the gap is NaN. Exits 1 when this no longer holds.
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

np.array([100, -32768, 300, 302], "<i2").tofile("r.dat")
Path("r.hea").write_text("r 1 250 2\nr.dat 16x2 1(0)/mV 16 0 100 -32066 0 II\n")
smooth = wfdb.rdrecord("r").p_signal[:, 0].tolist()
each = wfdb.rdrecord("r", smooth_frames=False).e_p_signal[0].tolist()
print("frames: ", smooth)
print("samples:", each)
assert smooth == [-16334.0, 301.0] and np.isnan(each[1]) and each[::2] == [100.0, 300.0], "wfdb has changed"
PYTHON
# frames:  [-16334.0, 301.0]
# samples: [100.0, nan, 300.0, 302.0]
