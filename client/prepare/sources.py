"""What a cohort is made from: every raw file by size, time and header, and the key that stands for all of it.

Waveforms are not looked at one by one: who replaces one and leaves the record list alone prepares with ``--force``.
A folder may move with all that is in it. Where the record list is not in the folder of the ECGs, the folder counts.
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from client.cohort.store import MANIFEST
from client.prepare.layout import Layout
from client.prepare.program import file_of, source_digest
from client.site import PlanSections, SiteConfig
from lemof_model.features import schema_digest
from lemof_model.study import CohortSpec, SplitSpec, Target, digest_json
from readers.tables.files import header_of

STALE = "tables, site file or program have changed since it was prepared"
PACKAGES = ("numpy", "pandas", "polars", "pyarrow", "scipy", "wfdb")


def sources_of(site: SiteConfig, layout: Layout) -> dict[str, dict[str, Any]]:
    """Every raw table and the record list: path under its root, bytes, time of change, digest of the header.

    Raises:
        DataError: a table is missing or damaged.
    """
    ehr = site.data.ehr
    found = {source.name: _source(source.path, ehr.root) for source in layout.sources(ehr)}
    if site.data.ecg is not None and site.data.ecg.record_list.is_file():
        found["record_list"] = _source(site.data.ecg.record_list, site.data.ecg.root)
    return found


def key_of(site: SiteConfig, layout: Layout, plan: PlanSections, sources: dict[str, dict[str, Any]]) -> str:
    """Digest of all that decides a cohort's bytes: settings, plan, schema, the preparation's own code, libraries and
    sources."""
    settings = site.model_dump(mode="json", include={"data": True, "prepare": {"max_bad_fraction", "on_duplicate"}})
    settings["data"]["ehr"].pop("root")
    if (ecg := site.data.ecg) is not None:
        settings["data"]["ecg"].pop("record_list")
        root = ecg.root.resolve()
        settings["data"]["ecg"]["root"] = None if ecg.record_list.resolve().is_relative_to(root) else str(root)
    sections = {name: repr(getattr(plan, name)) for name in ("cohort", "target", "splits")}
    return digest_json([settings, sections, schema_digest(), source_digest(file_of(layout)), versions(), sources])


def is_stale(site: SiteConfig, layout: Layout) -> bool:
    """Whether tables, site file or program are others than those that the site's cohort was made from.

    Looks at headers and file stamps. False where nobody can tell: without a cohort that ``prepare`` has made, and where
    the tables are gone (a hospital may remove them, or unmount their disk, once it has prepared).
    """
    ecg = site.data.ecg
    if ecg is not None and not ecg.record_list.is_file():
        return False
    try:
        made = json.loads((site.prepare.output / MANIFEST).read_text(encoding="utf-8"))
        plan = PlanSections(CohortSpec(**made["cohort"]), Target(**made["target"]), SplitSpec(**made["split_spec"]))
        return bool(made["config_digest"] != key_of(site, layout, plan, sources_of(site, layout)))
    except (OSError, ValueError, KeyError, TypeError):  # a damaged manifest is told by who opens the cohort
        return False


def versions() -> dict[str, str]:
    """The packages that decide the bytes of a cohort."""
    return {package: version(package) for package in PACKAGES}


def _source(path: Path, root: Path) -> dict[str, Any]:
    """One file."""
    status = path.stat()
    return {
        "path": path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "header_sha256": hashlib.sha256(",".join(header_of(path)).encode()).hexdigest(),
    }
