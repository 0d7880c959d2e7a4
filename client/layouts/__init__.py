"""The layouts that a hospital's tables may have, by the name that ``data.ehr.layout`` gives them."""

from client.layouts.mimic_iv.layout import MIMIC_IV
from client.prepare.layout import Layout
from client.site import EhrData, SiteConfig
from client.site_items import did_you_mean, require_items
from lemof_model.errors import ConfigError, shown

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (MIMIC_IV,)}


def layout_of(site: SiteConfig) -> Layout:
    """The layout that a site file names, with which the tables, items and units that it declares agree.

    Raises:
        ConfigError: there is no such layout, or it has no such table or item.
    """
    name = site.data.ehr.layout
    if name not in LAYOUTS:
        advice = [did_you_mean(name, LAYOUTS), "Leave it out where the tables are as MIMIC-IV has them."]
        raise ConfigError(
            rule=f"data.ehr.layout must be one of {', '.join(LAYOUTS)}",
            got=shown(name),
            fix=" ".join(filter(None, advice)),
        )
    layout = LAYOUTS[name]
    _require_tables(site.data.ehr, layout)
    require_items(site.data.ehr.items, site.data.ehr.units, layout.stored)
    return layout


def _require_tables(ehr: EhrData, layout: Layout) -> None:
    """Refuse places and columns of tables that the layout does not have."""
    known = [check.name for check in layout.checks(ehr)]
    for key, named in (("tables", ehr.tables), ("columns", ehr.columns)):
        for name in named:
            if name not in known:
                raise ConfigError(
                    rule=f"data.ehr.{key}.{name} must be a table of {layout.name} ({', '.join(known)})",
                    got="an unknown one",
                    fix=did_you_mean(name, known),
                )
