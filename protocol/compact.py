"""Counts on the way, exactly and in few bytes: in the smallest unsigned type, without zeros where that is less.

An array of whole numbers that are not negative travels as it is but in a smaller type, or as the values of its elements
that are not 0, each with its distance from the one before. What it was is said in a table beside it: type and shape.
Other arrays stay as they are. What comes back is checked before anything is made of it.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lemof_model.errors import DoorError

Arrays = Mapping[str, NDArray[Any]]
Table = dict[str, list[Any]]

GAPS, VALUES = "~gaps", "~values"
WHOLE = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
MOST_ELEMENTS = 1 << 26
"""Of all arrays of a message together: more than any plan's histograms have."""


def pack(arrays: Arrays) -> tuple[dict[str, NDArray[Any]], Table]:
    """Arrays for the way, and the table of those that were made smaller.

    Example:
        >>> packed, table = pack({"all/0/histogram": np.array([[0, 0, 0, 7, 0, 0, 0, 0, 1, 0]], np.int32)})
        >>> {name: value.tolist() for name, value in packed.items()}, table
        ({'all/0/histogram~gaps': [3, 5], 'all/0/histogram~values': [7, 1]}, {'all/0/histogram': ['int32', [1, 10]]})
    """
    packed: dict[str, NDArray[Any]] = {}
    table: Table = {}
    for name, value in arrays.items():
        if value.dtype.name not in WHOLE or value.ndim == 0 or (value < 0).any():
            packed[name] = value
            continue
        table[name] = [value.dtype.name, list(value.shape)]
        flat = value.ravel()
        places = np.flatnonzero(flat)
        few = {GAPS: _smallest(np.diff(places, prepend=0)), VALUES: _smallest(flat[places])}
        dense = _smallest(flat)
        if sum(part.nbytes for part in few.values()) < dense.nbytes:
            packed |= {f"{name}{end}": part for end, part in few.items()}
        else:
            packed[name] = dense
    return packed, table


def unpack(packed: Arrays, table: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays as they were.

    Raises:
        DoorError: what came is not what ``pack`` makes, or is too much.
    """
    _require(isinstance(table, Mapping), "Counts must come with a table of their types and shapes", "none")
    arrays, left = dict(packed), MOST_ELEMENTS
    for name, entry in table.items():
        dtype, shape = _form(name, entry)
        left -= math.prod(shape)
        _require(left >= 0, f"Counts of a message must be {MOST_ELEMENTS:,} at most", f"more with {name}")
        if name in packed:
            dense = arrays[name]
            _require(dense.size == math.prod(shape) and _fits(dense, dtype), f"{name} must be as its table says", "not")
            arrays[name] = dense.astype(dtype).reshape(shape)
            continue
        _require({f"{name}{GAPS}", f"{name}{VALUES}"} <= packed.keys(), f"{name} must come with its table", "none")
        gaps, values = (arrays.pop(f"{name}{end}") for end in (GAPS, VALUES))
        arrays[name] = _filled(name, gaps, values, dtype, shape)
    return arrays


def num_bytes(arrays: Arrays) -> int:
    """What arrays take on the way.

    Example:
        >>> num_bytes({"loss": np.zeros(()), "histogram": np.zeros((7, 400), np.int32)})
        8
    """
    packed, _ = pack(arrays)
    return sum(value.nbytes for value in packed.values())


def _smallest(value: NDArray[Any]) -> NDArray[Any]:
    """In the smallest unsigned type that holds it."""
    return value.astype(np.min_scalar_type(int(value.max(initial=0))))


def _form(name: str, entry: Any) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Type and shape that a table states."""
    is_form = isinstance(entry, list) and len(entry) == 2 and entry[0] in WHOLE and isinstance(entry[1], list)
    is_form = is_form and not name.endswith((GAPS, VALUES))
    is_form = is_form and all(type(size) is int and 0 <= size <= MOST_ELEMENTS for size in entry[1])
    _require(is_form and 0 < len(entry[1]) <= 4, f"{name} must have a type of whole numbers and a shape", "others")
    return np.dtype(entry[0]), tuple(entry[1])


def _filled(
    name: str, gaps: NDArray[Any], values: NDArray[Any], dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    """Zeros but for some values, which lie the gaps apart."""
    size = math.prod(shape)
    is_pair = gaps.ndim == values.ndim == 1 and len(gaps) == len(values) <= size and gaps.dtype.kind == "u"
    _require(is_pair and _fits(values, dtype), f"{name} must have a value of its type for each gap", "others")
    rises = bool((gaps[1:] > 0).all()) and int(gaps.max(initial=0)) < max(size, 1)
    places = np.cumsum(gaps.astype(np.int64)) if rises else gaps
    _require(
        rises and (not len(places) or int(places[-1]) < size), f"{name} must have rising places inside it", "others"
    )
    flat = np.zeros(size, dtype)
    flat[places] = values
    return flat.reshape(shape)


def _fits(value: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Whether values are whole numbers that a type holds."""
    return value.dtype.kind == "u" and int(value.max(initial=0)) <= np.iinfo(dtype).max


def _require(holds: Any, rule: str, got: str) -> None:
    if not holds:
        raise DoorError(rule=rule, got=got, fix="Install the same lemof release on both sides.")
