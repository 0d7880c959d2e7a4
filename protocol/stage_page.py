"""``docs/stages.md``, printed from the declarations: python -m protocol.stage_page > docs/stages.md"""

from collections.abc import Iterator

from lemof_model.study import SPLITS, Study
from protocol.method import times_asked
from protocol.release import Share
from protocol.stages import STAGES

HEAD = """\
# The stages of a study

Printed from `protocol/stages.py` by `python -m protocol.stage_page`; a test holds it against the code. In this order
the coordinator asks every hospital; nothing else can be asked. *At most* is how often, under the default plan.

| stage | at most | what leaves a hospital | parts of the model that an answer reads |
|---|---|---|---|
"""
SHARES = """
Under a privacy budget every sum is a Gaussian mechanism. A split's budget is divided among them so; what is left of
`train` and `stack` is for the rounds of training.

| split | what | share | mechanisms in a study of the default plan, by stage |
|---|---|---|---|
"""


def page() -> Iterator[str]:
    """The lines of the page."""
    study = Study()
    yield HEAD
    for name, times in times_asked(study).items():
        stage = STAGES[name]
        yield f"| `{name}` | {times} | {stage.says} | {', '.join(stage.reads) or 'none'} |\n"
    yield SHARES
    shared: dict[Share, dict[str, int]] = {}
    for name, stage in STAGES.items():
        for release in stage.releases:
            if release.share:
                num = shared.setdefault(release.share, {})
                num[name] = num.get(name, 0) + release.mechanisms * release.messages(study)
    for share, num in sorted(shared.items(), key=lambda item: SPLITS.index(item[0].split)):
        by_stage = ", ".join(f"`{name}` {times}" for name, times in num.items())
        yield f"| {share.split} | {share.name} | {share.share:g} | {by_stage} |\n"


if __name__ == "__main__":
    print("".join(page()), end="")
