"""The layouts that a hospital's tables may have, by the name that ``data.ehr.layout`` gives them."""

from client.layouts.mimic_iv.layout import MIMIC_IV
from client.prepare.layout import Layout
from client.site import SiteConfig
from client.site_items import require_items
from lemof_model.errors import ConfigError, nearest, shown

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (MIMIC_IV,)}


def layout_of(site: SiteConfig) -> Layout:
    """The layout that a site file names, with which the items and units that it declares agree.

    Raises:
        ConfigError: there is no such layout, or it has no such item.
    """
    name = site.data.ehr.layout
    if name not in LAYOUTS:
        close = nearest(name, list(LAYOUTS))
        raise ConfigError(
            f"data.ehr.layout must be one of {', '.join(LAYOUTS)}, got {shown(name)}."
            f"{f' Did you mean {close}?' if close else ''} Leave it out where the tables are as MIMIC-IV has them."
        )
    layout = LAYOUTS[name]
    require_items(site.data.ehr.items, site.data.ehr.units, layout.stored)
    return layout
