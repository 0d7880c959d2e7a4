"""Templates that both pages share: the base with its style, and the parts. A page is whole in itself: nothing is
fetched and nothing runs when it is opened.

Drawings scale with their column: positions are percentages, so lines and dots keep their size on any screen. Each says
in words what it shows.
"""

BASE = """\
<!doctype html>
{% from "parts" import definitions %}
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{{ title }}</title><style>
:root{--ink:#1c2530;--soft:#5b6675;--line:#d9dfe6;--tint:#f4f7f9;--accent:#0b6b78;--doubt:#9a5b00;--stop:#a3262a}
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:#fff;font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header,main,footer{max-width:72rem;margin:0 auto;padding:0 1.25rem}header{padding-top:2.5rem}
.eyebrow{margin:0;color:var(--accent);font-weight:600;font-size:.85rem;letter-spacing:.04em}
h1{font-size:1.9rem;line-height:1.2;margin:.3rem 0 .8rem;letter-spacing:-.01em;text-wrap:balance}
h2{font-size:1.25rem;margin:2.8rem 0 .6rem;padding-top:.9rem;border-top:1px solid var(--line)}
p,li,dd{max-width:46rem}.note{color:var(--soft);font-size:.88rem;margin:.3rem 0 .8rem}
#answer{background:var(--tint);border-left:4px solid var(--accent);padding:.2rem 1.25rem .8rem;margin-top:1.6rem}
#answer h2{border:0;margin:0}
dl{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.3rem 1.2rem;margin:.6rem 0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:1rem 0}
table{border-collapse:collapse;width:100%;font-size:.86rem;font-variant-numeric:tabular-nums}
th,td{padding:.34rem .55rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line);
vertical-align:middle}
thead th{color:var(--soft);font-weight:500;vertical-align:bottom;white-space:normal;line-height:1.25}
th:first-child,thead th.text,.text{text-align:left}td.text{white-space:normal}tbody th{font-weight:400}
svg{display:block}.fill{fill:var(--accent)}
.bar,.interval{width:100%;min-width:5.5rem;height:14px;overflow:visible}
footer{margin-top:3rem;padding-top:1rem;padding-bottom:3rem;border-top:1px solid var(--line);color:var(--soft);
font-size:.82rem}footer dd{max-width:none}
{% block style %}{% endblock %}
@media(max-width:40rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}h1{font-size:1.5rem}}
@media print{@page{size:A4 landscape;margin:12mm}html{font-size:11px}nav{display:none}.scroll{overflow:visible}
header,main,footer{max-width:none;padding:0}tr,dl,figure,#answer{break-inside:avoid}h2,caption{break-after:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
</style></head>
<body><header><p class="eyebrow">{% block eyebrow %}{% endblock %}</p><h1>{{ title }}</h1>
{% block under_title %}{% endblock %}
</header>
<main>
{% block main %}{% endblock %}
</main><footer>{{ definitions(footer) }}{% block end %}{% endblock %}</footer></body></html>
"""

PARTS = """\
{% macro section(anchor, title, css="") %}
<section id="{{ anchor }}"{% if css %} class="{{ css }}"{% endif %}><h2>{{ title }}</h2>
{{ caller() }}</section>
{% endmacro %}

{% macro items(texts) -%}
<ul>{% for text in texts %}<li>{{ text }}</li>{% endfor %}</ul>
{% endmacro %}

{% macro definitions(pairs) -%}
<dl>{% for term, text in pairs %}<dt>{{ term }}</dt><dd>{{ text }}</dd>{% endfor %}</dl>
{%- endmacro %}

{% macro table(it) %}
{% set groups = it.columns | reject("string") | reject("Scale") | list %}
<div class="scroll" tabindex="0"><table>
{%- if it.caption %}<caption><span>{{ it.caption }}</span></caption>{% endif %}
<thead><tr>
{%- for column in it.columns %}
{% if column in groups %}
<th class="group" scope="colgroup" colspan="{{ column[1] | length }}">{{ column[0] }}</th>
{%- else %}
<th{% if loop.index0 in it.text_columns %} class="text"{% endif %} scope="col"{% if groups %} rowspan="2"{% endif %}>
{{- cell(column) }}</th>
{%- endif %}
{% endfor %}</tr>
{%- if groups %}<tr>
{%- for _, columns in groups %}{% for column in columns %}<th scope="col">{{ cell(column) }}</th>
{%- endfor %}{% endfor %}</tr>{% endif %}</thead>
<tbody>
{% for row in it.rows %}
<tr{% if loop.index0 in it.strong_rows %} class="strong"{% endif %}><th scope="row">{{ cell(row[0]) }}</th>
{%- for content in row[1:] %}
<td{% if loop.index in it.text_columns %} class="text"{% endif %}>{{ cell(content) }}</td>
{%- endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}

{% macro cell(content) -%}
{% if content is string %}{{ content }}
{%- elif content is Styled %}<span class="{{ content.css }}">{{ content.text }}</span>
{%- elif content is Bar %}{{ bar(content) }}
{%- elif content is Interval %}{{ interval(content) }}
{%- elif content is Scale %}
{%- set low, middle, high = content.marks %}<span class="axis">{{ low }}<i>{{ middle }}</i>{{ high }}</span>
{%- else %}{% for part in content %}{{ cell(part) }}{% endfor %}
{%- endif %}
{%- endmacro %}

{% macro drawing(label, css) -%}
<svg {% if label %}role="img" aria-label="{{ label }}"{% else %}aria-hidden="true"{% endif %}
 class="{{ css | trim }}">{{ caller() }}</svg>
{%- endmacro %}

{% macro bar(it) -%}
{% if not it.label %}<span class="share">{% endif %}
{%- call drawing(it.label, "bar " ~ it.css) -%}
<rect width="{{ it.percent }}" height="10" y="2" rx="1.5" class="fill"/>
{%- endcall %}
{% if not it.label %}<span>{{ it.percent }}</span></span>{% endif %}
{%- endmacro %}

{% macro interval(it) -%}
{% set scale = it.scale %}
{% set reference = scale.percent(scale.reference) %}
{% call drawing(it.label, "interval " ~ it.css) -%}
<line x1="{{ reference }}" x2="{{ reference }}" y1="0" y2="14" class="reference"/>
{%- if it.ends is not none %}
<line x1="{{ scale.percent(it.ends[0]) }}" x2="{{ scale.percent(it.ends[1]) }}" y1="7" y2="7" class="range"/>
{%- endif %}
<circle cx="{{ scale.percent(it.point) }}" cy="7" r="3.5" class="point"/>
{%- endcall %}
{%- endmacro %}
"""
