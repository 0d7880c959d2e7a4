"""The report as a template: sections in reading order."""

TEMPLATE = """\
{% extends "base" %}
{% from "parts" import section, table, items, definitions, drawing %}
{% macro curve(it) %}
{% call drawing(it.name ~ ": tuning loss " ~ it.told, "curve") -%}
<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%"><polyline points="
{%- for x, y in it.places %}{{ "%.1f,%.1f " | format(x, y) }}{% endfor %}" vector-effect="non-scaling-stroke"/></svg>
{%- for x, y in it.places %}{{ dot(x, y, "1.8", "dot") }}{% endfor %}
{% if it.kept %}{{ dot(it.kept[0], it.kept[1], "4.5", "point") }}{% endif %}
{% endcall %}
{% endmacro %}
{% macro dot(x, y, r, css) -%}
<circle cx="{{ "%.1f" | format(x) }}%" cy="{{ "%.1f" | format(y) }}%" r="{{ r }}" class="{{ css }}"/>
{%- endmacro %}
{% set contents = {
    "answer": "Answer", "asked": "What was asked", "results": "Results", "differences": "Differences",
    "hospitals": "Hospitals", "levels": "Levels", "groups": "Diseases", "training": "Training",
    "rounds": "Rounds", "privacy": "Privacy",
} %}

{% block style %}
h3{font-size:1rem;margin:1.4rem 0 .3rem}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;font-size:.9rem}a{color:var(--accent)}
ul{padding-left:1.2rem;margin:.4rem 0}li{margin:.35rem 0;overflow-wrap:anywhere}
.lead{font-size:1.15rem;line-height:1.45}
caption span{position:sticky;left:0;display:inline-block;max-width:calc(100vw - 2.5rem)}
caption{text-align:left;font-weight:600;font-size:.95rem;padding:.2rem 0 .5rem}
thead th.group{text-align:center}td.text{min-width:7rem}tbody th{position:sticky;left:0;background:#fff}
tr.strong>*{background:var(--tint);font-weight:600}
.axis{display:flex;justify-content:space-between;min-width:5.5rem}.axis i{font-style:normal;visibility:hidden}
.pair,.figures{display:grid;gap:0 2.2rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr))}
.pair>*{min-width:0}
.pair th,.pair td,#groups th,#groups td{padding-left:.35rem;padding-right:.35rem}
.why,#groups tbody th{white-space:normal}.why{display:inline-block;max-width:9rem}.missed{font-weight:bolder}
.reference{stroke:#aab4bf;stroke-dasharray:2 2}.range{stroke:var(--accent);stroke-width:2}
.point{fill:var(--accent)}.hollow .point{fill:#fff;stroke:var(--accent);stroke-width:1.5}
.hollow .range{stroke-width:1;stroke-dasharray:3 2}.quiet .fill{fill:#a9c3c8}
#groups .axis,#groups .interval{min-width:4rem}
.figures{grid-template-columns:repeat(auto-fit,minmax(min(100%,13rem),1fr));gap:1.2rem 1.6rem;margin:1rem 0}
figure{margin:0}figcaption{font-size:.84rem;color:var(--soft);margin-top:.4rem}
figcaption b{color:var(--ink);display:block}
.curve{width:100%;height:7rem;overflow:visible;border-bottom:1px solid var(--line)}
.curve polyline{fill:none;stroke:var(--accent);stroke-width:2}.dot{fill:var(--accent)}
.curve .point{fill:#fff;stroke:var(--accent);stroke-width:2}
{% endblock %}

{% block eyebrow %}LeMoF across hospitals{% endblock %}
{% block under_title %}
<nav>{% for anchor, name in contents.items() %}<a href="#{{ anchor }}">{{ name }}</a>{% endfor %}</nav>
{% endblock %}

{% block main %}
{% call section("answer", "The answer") %}
{% if answer.generated %}<p><b>{{ answer.generated }}</b></p>{% endif %}
<p class="lead">{{ answer.performance }}</p>
{% if answer.is_noisy %}<p class="note">{{ words.NOISY }}</p>{% endif %}
<ul>{% for question, found in answer.findings %}<li><b>{{ question }}</b> {{ found }}</li>{% endfor %}</ul>
{% endcall %}

{% call section("asked", "What was asked") %}
{{ definitions(asked.facts) }}
{% if asked.census.rows %}
{{ table(asked.census) }}
<p class="note">{{ words.AT_LEAST | trim }}: the hospital held back the count of a split. {{ words.ABOUT | trim }}: a
privacy budget makes counts noisy. Too few: held back in every split.</p>
{% endif %}
{% endcall %}

{% call section("results", "Results on held-out patients") %}
<p class="note">These patients trained nothing and chose nothing. Compare rows within a table only. “Local” rows are
trained by each hospital on its own data; their scores are pooled here. Intervals are 95 %, over patients (Obuchowski);
they do not hold the chance in training. {{ words.TOO_FEW_RULE }}</p>
{% for it in variants.scores %}{{ table(it) }}{% endfor %}
<p class="note">ECE: expected calibration error. ±…*: scores are counted in bins; the AUROC may be off by that much.</p>
<h3>Called long or short at three cuts</h3>
<p class="note">Cuts are fitted on tuning patients. Acc.: accuracy. F1: macro-F1, the mean over both outcomes.
{{ words.NOT_DEFINED }}: see the table above.</p>
<div class="pair">{% for it in variants.cuts %}{{ table(it) }}{% endfor %}</div>
{% endcall %}

{% call section("differences", "Differences, over the same patients") %}
<p class="note">Right of the line the full model is better; an interval over the line shows no clear difference.</p>
<div class="pair">{% for it in differences %}{{ table(it) }}{% else %}<p>{{ words.TOO_FEW }}</p>{% endfor %}</div>
{% endcall %}

{% call section("hospitals", "At each hospital") %}
<p class="note">AUROC with 95 % interval. ● full model, federated; ○ the same method on that hospital's data only.</p>
{% for it in hospitals %}{{ table(it) }}{% endfor %}
{% endcall %}

{% call section("levels", "Which depth of each encoder counts") %}
<p class="note">Mean absolute Shapley value of each level's prediction for its modality's meta-learner, in log-odds,
over all hospitals' stack stays against one background. The best level feeds the attention. Best in draws: how often it
wins when the meta-learner's coefficients are drawn from their distribution.</p>
<div class="pair">
{% for it, without in levels %}
<div>{{ table(it) }}<p class="note">Leaving one hospital out: {{ without }}.</p></div>
{% endfor %}
</div>
{% endcall %}

{% call section("groups", "By disease and subgroup") %}
<p class="note">AUROC of one model for all, stratified: nothing was trained anew for a group. Diseases are discharge
diagnoses, which the model never sees; a stay may have several. Intervals after DeLong. A hospital leaves out groups
that are too small, or whose rest would be. {{ words.TOO_FEW_RULE }}</p>
{{ table(subgroups) }}
{% endcall %}

{% call section("training", "Training") %}
<p class="note">Tuning loss per stay after each round, each curve on its own scale; the ring marks the weights that were
kept. Encoder losses add up three levels.</p>
<div class="figures">
{% for it in training.curves %}
<figure>{% if it.places %}{{ curve(it) }}{% else %}<p class="note">no tuning stays</p>{% endif %}
<figcaption><b>{{ it.name }}</b> {{ it.told }}</figcaption></figure>
{% endfor %}
</div>
{% if training.suspicions %}
<h3>Rounds after which the tuning loss jumped, and who stood furthest from the others</h3>
<p class="note">A suspicion, no proof: such a hospital may err, or have other patients.</p>
{{ items(training.suspicions) }}
{% endif %}
{{ table(training.learners) }}
{% endcall %}

{% call section("rounds", "Who took part, and what left each hospital") %}
<p class="note">Rounds answered of rounds asked, and bytes of the arrays sent. Every answer is a sum over patients.</p>
{{ table(rounds.answers) }}
<h3>Rounds that a hospital did not answer</h3>
{{ items(rounds.refusals or ["None: every hospital answered every round it was asked."]) }}
<h3>Groups that hospitals held back: too small, or leaving a rest that is</h3>
{{ items(rounds.held_back or ["None."]) }}
{% endcall %}

{% call section("privacy", "Privacy") %}
{{ items(privacy.protection) }}
{% if privacy.attack.rows %}
<h3>Can members be told from others?</h3>
<p class="note">A membership attack on the finished model: whoever it is surer of is called a member. AUROC 0.5 tells
nothing. Found: members found at a cut that calls at most this share of others members (1 %, or what ten of them are);
as many as false alarms tell nothing. Intervals are 95 %, for the share found with the cut held.</p>
{{ table(privacy.attack) }}
{% endif %}
{% endcall %}
{% endblock %}

{% block end %}<p>Not a medical device: not for decisions about patients.</p>{% endblock %}
"""
