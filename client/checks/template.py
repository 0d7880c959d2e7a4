"""The readiness page as a template."""

TEMPLATE = """\
{% extends "base" %}
{% from "parts" import section, table, definitions %}

{% block style %}
.stays{display:inline-block;border:1px solid var(--stop);color:var(--stop);border-radius:.3rem;
padding:.1rem .6rem;margin:0}
#answer.doubt{border-color:var(--doubt)}#answer.stop{border-color:var(--stop)}
.warn{color:var(--doubt);font-weight:600}.fail{color:var(--stop);font-weight:600}
th,td{padding:.3rem .4rem}tbody th{white-space:normal}
.items{display:block;color:var(--soft);font-size:smaller;width:9.2rem}
.share{display:flex;align-items:center;gap:.5rem;justify-content:flex-end}.share span{min-width:3.2rem}
.share .bar{flex:1;width:0;min-width:2rem;max-width:12rem;background:var(--tint)}
{% endblock %}

{% block eyebrow %}LeMoF data readiness{% endblock %}
{% block under_title %}<p class="stays">Stays in the hospital: this page shows small counts.</p>{% endblock %}

{% block main %}
{% call section("answer", "Is it ready?", answer.css) %}
<p>{{ answer.verdict }}</p>
{% if answer.concerns.rows %}{{ table(answer.concerns) }}{% endif %}
{{ definitions(answer.facts) }}
{% endcall %}

{% call section("attrition", "Who is in") %}
<p class="note">Each row of the table of stays is counted once: in the cohort, or under the first rule that it breaks.
A length of stay ends at death, and who is dead at the prediction is not in the cohort.</p>
{{ table(attrition) }}
{% endcall %}

{% call section("labels", "Outcome and splits") %}
<p class="note">{{ outcome }}. All stays of a patient are in one split.</p>
{{ table(labels) }}
{% endcall %}

{% if ecgs %}
{% call section("ecg", "ECGs") %}
<p>{{ ecgs.told }}</p>
{{ table(ecgs.records) }}
{% endcall %}
{% endif %}

{% if tables.read.rows %}
{% call section("tables", "Tables") %}
<p class="note">A row of a patient with several stays counts again for each. Lines that cannot be read:
rejects.csv.gz.</p>
{{ table(tables.read) }}
<p>Repeated: {{ tables.repeated or "none" }}.</p>
{% if tables.coded %}<p>Admissions of the cohort with a diagnosis code: {{ tables.coded }}.</p>{% endif %}
{% endcall %}
{% endif %}

{% if concepts.measured.rows %}
{% call section("concepts", "Measurements") %}
<p class="note">Values of the first day. A value out of its limits is left out, never clipped.</p>
{{ table(concepts.measured) }}
{% if concepts.units.rows %}
<p class="note">Units that stand in the rows, where a concept's values have more than one:</p>
{{ table(concepts.units) }}
{% endif %}
{% for name, num in concepts.below_zero %}
<p>A sum below 0 counts as 0: {{ name }} in {{ num }} stays.</p>
{% endfor %}
{% endcall %}
{% endif %}

{% for anchor, title, it in [
    ("treatments", "Treatments on the first day", treatments), ("features", "Features", features)
] if it.rows %}
{% call section(anchor, title) %}{{ table(it) }}{% endcall %}
{% endfor %}
{% endblock %}
"""
