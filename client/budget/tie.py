"""Which privacy ledger counts a cohort: the hash of the ledger's first line stands in the cohort's folder.

It is written before the first answer leaves and never changed; ``prepare`` carries it over to what it makes anew. So a
site file that was copied or moved, a ledger that was deleted and one of another place begin nothing afresh: they are
refused until ``privacy.ledger`` leads to the cohort's own. What no file on this disk can know: a cohort that is made
from the same tables in another folder.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lemof_model.errors import LedgerError
from protocol.disk import sync

TIE = "ledger.json"
_NUM_SHOWN = 12


class Tie(NamedTuple):
    """The hash of a ledger's first line, and where the ledger lay then."""

    first_hash: str
    path: str


def tie_of(cohort: Path) -> Tie | None:
    """The ledger that a cohort is tied to; None before its first answer.

    Raises:
        LedgerError: the file was changed.
    """
    try:
        return Tie(**json.loads((cohort / TIE).read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise LedgerError(
            rule=f"{TIE} of the cohort must be as it was written",
            got=f"another from {cohort}",
            fix="Nothing is sent until then: restore it from a backup of the cohort.",
            code="E605",
        ) from None


def require_own(cohort: Path, ledger: Path, first_hash: str | None) -> None:
    """Refuse a ledger that is not the one that the cohort is tied to; ``first_hash`` is None where there is none yet.

    Raises:
        LedgerError: it is another.
    """
    own = tie_of(cohort)
    if own is not None and own.first_hash != first_hash:
        came = f"one that begins with {first_hash[:_NUM_SHOWN]}" if first_hash else "none"
        raise LedgerError(
            rule=f"The cohort must be counted by its own privacy ledger, which begins with "
            f"{own.first_hash[:_NUM_SHOWN]}",
            got=f"{came} at {ledger}",
            fix=f"Nothing is sent until then: set privacy.ledger to where that one is (it was {own.path}), or restore "
            "it there with its head from the latest backup.",
            code="E605",
        )


def tie(cohort: Path, ledger: Path, first_hash: str) -> None:
    """Tie a cohort to a ledger that is on the disk. Of two that are there at the same instant one comes first.

    Raises:
        LedgerError: it is tied to another.
        OSError: the disk is full, or may not be written.
    """
    if tie_of(cohort) is None:
        partial = cohort / f"{TIE}.{first_hash[:_NUM_SHOWN]}"
        partial.write_text(json.dumps(Tie(first_hash, str(ledger))._asdict()) + "\n", encoding="utf-8")
        sync(partial)
        with suppress(FileExistsError):
            os.link(partial, cohort / TIE)
        partial.unlink()
        sync(cohort)
    require_own(cohort, ledger, first_hash)


def carry_over(old: Path, new: Path) -> None:
    """Tie the cohort that takes the place of an old one to the same ledger.

    Raises:
        OSError: the disk may not be written.
    """
    if (old / TIE).exists():
        (new / TIE).unlink(missing_ok=True)  # of a run that was stopped here
        os.link(old / TIE, new / TIE)
        sync(new)


def stated(cohort: Path) -> str:
    """How a cohort and the ledger of its site file stand, once ``require_own`` has passed."""
    own = tie_of(cohort)
    if own is None:
        return "the first answer ties the cohort to this ledger"
    return f"this ledger ({own.first_hash[:_NUM_SHOWN]}) is the cohort's own"
