#!/bin/sh
# torch 2.13.0 (CPU): what a linear layer makes of a row has other last bits at another place of the same batch.
#
# One row 69 times over, one thread: the outputs should be 69 times the same. They are not, because MKL takes another
# kernel for the rows that are left over, or adds up in another order where a row begins at another step of 16 bytes.
# Which places differ goes by the processor: with AVX-512 the last rows of a layer with one output; with AVX2 kernels (of
# an Intel: MKL_ENABLE_INSTRUCTIONS=AVX2) the last rows of a layer of up to 42; on a Zen every odd row of 10 numbers. In a
# batch of 96 all are the same, but for the Zen. So what a model says of somebody tells who else is there. Exits 1 when
# no place differs any more.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy
cat > "$folder/rows.py" <<'PYTHON'
import torch
from torch.nn import functional

torch.set_num_threads(1)


def places(num_rows: int, num_inputs: int, num_outputs: int) -> list[int]:
    """Where in a batch of one row many times the outputs have other bits than at its first place."""
    generator = torch.Generator().manual_seed(0)
    row, weight = (torch.randn(n, num_inputs, generator=generator) for n in (1, num_outputs))
    out = functional.linear(row.repeat(num_rows, 1), weight)
    return (out != out[0]).any(dim=1).nonzero().flatten().tolist()


found = {(num_inputs, num_outputs): places(69, num_inputs, num_outputs) for num_inputs in (10, 64) for num_outputs in (1, 8, 16)}
for (num_inputs, num_outputs), differ in found.items():
    print(f"{num_inputs} to {num_outputs}: {differ} of 69 rows, {len(places(96, num_inputs, num_outputs))} of 96")
assert any(found.values()), "torch or MKL has changed"
PYTHON
for kernels in "" AVX2; do
    echo "kernels: ${kernels:-of this processor}"
    MKL_ENABLE_INSTRUCTIONS=$kernels "$folder/venv/bin/python" "$folder/rows.py"
done
# kernels: of this processor (Xeon with AVX-512)
# 10 to 1: [68] of 69 rows, 0 of 96
# 10 to 8: [] of 69 rows, 0 of 96
# 10 to 16: [] of 69 rows, 0 of 96
# 64 to 1: [68] of 69 rows, 0 of 96
# 64 to 8: [] of 69 rows, 0 of 96
# 64 to 16: [] of 69 rows, 0 of 96
# kernels: AVX2
# 10 to 1: [] of 69 rows, 0 of 96
# 10 to 8: [] of 69 rows, 0 of 96
# 10 to 16: [66, 67, 68] of 69 rows, 0 of 96
# 64 to 1: [] of 69 rows, 0 of 96
# 64 to 8: [] of 69 rows, 0 of 96
# 64 to 16: [66, 67, 68] of 69 rows, 0 of 96
