"""The page: sections in reading order, with their style. Nothing is fetched and nothing runs when it is opened."""

from html import escape
from pathlib import Path

from server.report import conduct, results, words
from server.report.markup import Html, element
from server.report.run_files import RunFiles, read_run

STYLE = """
:root{--ink:#1c2530;--soft:#5b6675;--line:#d9dfe6;--tint:#f4f7f9;--accent:#0b6b78}
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:#fff;font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header,main,footer{max-width:72rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2.5rem}
.eyebrow{margin:0;color:var(--accent);font-weight:600;font-size:.85rem;letter-spacing:.04em}
h1{font-size:1.9rem;line-height:1.2;margin:.3rem 0 .8rem;letter-spacing:-.01em;text-wrap:balance}
h2{font-size:1.25rem;margin:2.8rem 0 .6rem;padding-top:.9rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.4rem 0 .3rem}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;font-size:.9rem}
a{color:var(--accent)}
p,li,dd{max-width:46rem}
ul{padding-left:1.2rem;margin:.4rem 0}li{margin:.35rem 0;overflow-wrap:anywhere}
.note{color:var(--soft);font-size:.88rem;margin:.3rem 0 .8rem}
.lead{font-size:1.15rem;line-height:1.45}
#answer{background:var(--tint);border-left:4px solid var(--accent);padding:.2rem 1.25rem .8rem;margin-top:1.6rem}
#answer h2{border:0;margin:0}
dl{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.3rem 1.2rem;margin:.6rem 0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;width:100%;font-size:.86rem;font-variant-numeric:tabular-nums}
caption span{position:sticky;left:0;display:inline-block;max-width:calc(100vw - 2.5rem)}
caption{text-align:left;font-weight:600;font-size:.95rem;padding:.2rem 0 .5rem}
th,td{padding:.34rem .55rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line);
vertical-align:middle}
thead th{color:var(--soft);font-weight:500;vertical-align:bottom;white-space:normal;line-height:1.25}
thead th.group{text-align:center}
th:first-child,thead th.text{text-align:left}tbody th{font-weight:400;position:sticky;left:0;background:#fff}
.text{text-align:left}td.text{white-space:normal;min-width:7rem}
tr.strong>*{background:var(--tint);font-weight:600}
.axis{display:flex;justify-content:space-between;min-width:5.5rem}.axis i{font-style:normal;visibility:hidden}
.pair,.figures{display:grid;gap:0 2.2rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr))}
.pair>*{min-width:0}
.pair th,.pair td,#groups th,#groups td{padding-left:.35rem;padding-right:.35rem}
.why,#groups tbody th{white-space:normal}.why{display:inline-block;max-width:9rem}
svg{display:block}
.interval,.bar{width:100%;min-width:5.5rem;height:14px;overflow:visible}
.reference{stroke:#aab4bf;stroke-dasharray:2 2}.range{stroke:var(--accent);stroke-width:2}
.point{fill:var(--accent)}.hollow .point{fill:#fff;stroke:var(--accent);stroke-width:1.5}
.hollow .range{stroke-width:1;stroke-dasharray:3 2}
.fill{fill:var(--accent)}.quiet .fill{fill:#a9c3c8}
#groups .axis,#groups .interval{min-width:4rem}
.figures{grid-template-columns:repeat(auto-fit,minmax(min(100%,13rem),1fr));gap:1.2rem 1.6rem;margin:1rem 0}
figure{margin:0}figcaption{font-size:.84rem;color:var(--soft);margin-top:.4rem}
figcaption b{color:var(--ink);display:block}
.curve{width:100%;height:7rem;overflow:visible;border-bottom:1px solid var(--line)}
.curve polyline{fill:none;stroke:var(--accent);stroke-width:2}.dot{fill:var(--accent)}
.curve .point{fill:#fff;stroke:var(--accent);stroke-width:2}
footer{margin-top:3rem;padding-top:1rem;padding-bottom:3rem;border-top:1px solid var(--line);color:var(--soft);
font-size:.82rem}
footer dd{max-width:none}
@media(max-width:40rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}h1{font-size:1.5rem}}
@media print{@page{size:A4 landscape;margin:12mm}html{font-size:11px}nav{display:none}.scroll{overflow:visible}
header,main,footer{max-width:none;padding:0}tr,figure,#answer{break-inside:avoid}h2,caption{break-after:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
CONTENTS = {
    "answer": "Answer", "asked": "What was asked", "results": "Results", "differences": "Differences",
    "hospitals": "Hospitals", "levels": "Levels", "groups": "Diseases", "training": "Training",
    "rounds": "Rounds", "privacy": "Privacy",
}  # fmt: skip


def write_report(run: Path) -> Path:
    """Write ``report.html`` from the files of a run folder.

    Raises:
        DataError: the run is not finished, or a file of it is damaged.
    """
    path = run / "report.html"
    path.write_text(page(read_run(run)), encoding="utf-8")
    return path


def page(run: RunFiles) -> str:
    """The whole page. Equal runs give equal pages but for the footer."""
    title = f"{run.study.name}: {words.question(run.study.target)}"
    links = Html("".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name in CONTENTS.items()))
    sections = (
        results.answer(run),
        conduct.asked(run),
        results.variants(run),
        results.differences(run),
        results.hospitals(run),
        conduct.levels(run),
        results.groups(run),
        conduct.training(run),
        conduct.rounds(run),
        conduct.privacy(run),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"{element('title', title)}<style>{STYLE}</style></head>\n<body>"
        f"<header>{element('p', 'LeMoF across hospitals', css='eyebrow')}{element('h1', title)}"
        f"{element('nav', links)}</header>\n{element('main', *sections)}{conduct.footer(run)}</body></html>\n"
    )
