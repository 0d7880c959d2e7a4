"""Plans and site files as people write them: one verdict in every command, and words that name what is wrong."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from client import cli
from client.site import SiteConfig, load_plan_sections, load_site, load_study
from lemof_model.errors import ConfigError
from lemof_model.study import Study
from protocol.plan import dump_plan, load_plan
from protocol.problems import keys_of
from protocol.yaml_file import read_yaml, write_yaml
from simulation import cli as sim

SITE = "version: 1\nsite: {name: hospital_a}\ndata: {ehr: {root: raw}}\n"
NO_PERSONS_WORDS = re.compile(
    r"pattern|\^\[|\\|Input|String should|Keys should|[Uu]nable to|valid (integer|number|string|tuple|dict)|instance of"
    r"|NoneType|<class|dataclass|pydantic|scanning|scanner|\btoken|mapping|scalar|unhashable|alias|anchor|codec"
)


def verdict(read: Any, plan: Path) -> Study | str:
    """What a reader makes of a plan: the study, or its words."""
    try:
        return read(plan)
    except ConfigError as error:
        return str(error)


GOOD_PLANS = {
    "nothing stated": "{}",
    "a section": "cohort: {window_hours: 12}\n",
    "an encoder with sizes": "ehr: {name: mlp, sizes: {width: 16, dropout: 0.5}}\n",
    "written as a number": "attention: {training: {client_lr: 1e-3}}\n",
    "quoted numbers": "seed: '3'\n",
    "words that YAML takes for booleans": "name: no\nsplits: {salt: on}\n",
    "a date and a time": "name: 2026-01-01\nsplits: {salt: 12:30}\n",
    "a mark before the text": "\ufeffseed: 3\n",
    "lines of Windows": "seed: 3\r\nsplits:\r\n  salt: x\r\n",
    "a part that stands for another": "encoders: &t {num_rounds: 3}\nattention: {training: *t}\n",
    "one document": "---\nseed: 3\n...\n",
    "comments": "# all\nseed: 3  # three\n",
    "JSON": '{"seed": 3}',
}
BAD_PLANS = {
    "an empty file": ("", r"plan\.yaml must hold sections, got nothing"),
    "comments alone": ("# seed: 3\n", "must hold sections, got nothing"),
    "a list": ("- seed\n", "must hold sections, got a list"),
    "a text": ("seed\n", "must hold sections, got a single text"),
    "a site file": (SITE, r"must be a study plan, got a site file \(it has version, site, data\)"),
    "a misspelt section": ("cohrt: {}\n", r"^cohrt must be a known key, .* Did you mean cohort\?$"),
    "a misspelt section that prepare reads": ("Targets: {}\n", r"^Targets must .* Did you mean target\?$"),
    "an unknown key": ("splits: {valid: 0.1}\n", r"^splits\.valid must be a known key, .* Known: salt, train, "),
    "a key of another section": ("window_hours: 12\n", r"^window_hours must .* Did you mean cohort\.window_hours\?$"),
    "a section in another": (
        "encoders: {ecg: cnn}\n",
        r"^encoders\.ecg must .* ecg is a section of its own, beside enc",
    ),
    "capitals": ("TARGET: {}\n", r"^TARGET must .* Did you mean target\?$"),
    "no text as a key": ("1: 2\n", r"^1 must be a known key, "),
    "a word that is none of a few": ("target: {unit: icv}\n", r"^target\.unit must be 'icu' or 'hospital', got 'icv'"),
    "no": ("few_sites: no\n", r"^few_sites must be 'refuse' or 'allow', got 'no'"),
    "true for a number": (
        "cohort: {window_hours: true}\n",
        r"^cohort\.window_hours must be a whole number, got 'true'",
    ),
    "true for a size": ("ecg: {name: cnn, sizes: {width: true}}\n", r"^ecg\.sizes\.width must be a number, got 'true'"),
    "a time for a number": ("target: {threshold_days: 1:30}\n", r"threshold_days must be a number, got '1:30'"),
    "a comma": ("target: {threshold_days: '1,5'}\n", r"threshold_days must be a number, got '1,5'"),
    "a leading zero": ("seed: 010\n", r"^seed must be a number without a leading 0, got 010 from plan\.yaml, line 1"),
    "half a stay": ("encoders: {batch_size: 3.5}\n", r"^encoders\.batch_size must be a whole number, got 3\.5"),
    "a number for a text": ("splits: {salt: 5}\n", r"^splits\.salt must be text, got 5 .* Put it in quotes\.$"),
    "no value": ("seed:\n", r"^seed must have a value, got nothing from plan\.yaml, line 1\."),
    "null": ("seed: null\n", r"^seed must be a whole number, got nothing from plan\.yaml\."),
    "an empty section": ("cohort:\ntarget: {}\n", r"^cohort must have a value, got nothing from plan\.yaml, line 1\."),
    "text for a section": ("ecg: cnn\n", r"^ecg must be a section with keys of its own, got 'cnn' from plan\.yaml\."),
    "a list for a section": ("cohort: [12]\n", r"^cohort must be a section with keys of its own, got a list"),
    "a blank missing": ("ecg:\n  name:cnn\n", r"^ecg must be a section .* Is a blank missing after the colon\?$"),
    "a blank missing in brackets": ("ecg: {name:cnn}\n", r"^ecg\.name:cnn must have a value, got nothing"),
    "a key twice": ("seed: 1\nname: x\nseed: 2\n", r"^seed must stand once, got it in line 1 and again in line 3"),
    "a section twice": ("target: {}\ncohort: {}\ntarget: {unit: icu}\n", r"^target must stand once"),
    "an encoder without a name": ("ecg: {sizes: {width: 8}}\n", r"^ecg\.name must be given, got nothing"),
    "an encoder that is none": ("ecg: {name: resnte}\n", r"^ecg\.name must be one of .* Did you mean resnet\?"),
    "a size that is none": ("ehr: {name: mlp, sizes: {widht: 8}}\n", r"got 'widht'\. Did you mean width\?"),
    "a size of no number": ("ehr: {name: mlp, sizes: {width: .nan}}\n", r"ehr\.sizes\.width must be a whole number"),
    "sizes that do not suit": ("ehr: {name: mlp, sizes: {width: 9}}\n", r"width must be a multiple of num_tokens"),
    "too large a size": ("ehr: {name: tpc, sizes: {kernel: 5000}}\n", r"kernel must be at most 4096, got 5000"),
    "a value out of range": ("encoders: {num_rounds: 0}\n", r"^num_rounds must be at least 1, got 0\."),
    "splits that miss one": ("splits: {train: 0.9}\n", r"^splits: the four fractions must add up to 1"),
    "sections that do not suit": (
        "target: {threshold_days: 1}\n",
        r"^target\.threshold_days must be longer than window",
    ),
    "a key twice, and another": ("seed: 1\nseed: 2\nname: 5\n", r"^seed must stand once.*\nname must be text, got 5 "),
    "several": (
        "seeed: 1\ntarget: {unit: ward}\n",
        r"(?s)target\.unit must.*\nseeed must|seeed must.*\ntarget\.unit must",
    ),
}


@pytest.mark.parametrize("text", GOOD_PLANS.values(), ids=GOOD_PLANS)
def test_every_command_reads_a_good_plan_alike(text: str, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(text, encoding="utf-8")
    found = verdict(load_plan, plan)
    assert isinstance(found, Study), found
    assert verdict(load_study, plan) == found
    sections = load_plan_sections(plan)
    assert (sections.cohort, sections.target, sections.splits) == (found.cohort, found.target, found.splits)
    plan.write_text(dump_plan(found), encoding="utf-8")
    assert verdict(load_plan, plan) == found


@pytest.mark.parametrize(("text", "message"), BAD_PLANS.values(), ids=BAD_PLANS)
def test_every_command_refuses_a_bad_plan_in_the_same_words(text: str, message: str, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(text, encoding="utf-8")
    said = verdict(load_plan, plan)
    assert isinstance(said, str)
    assert re.search(message, said), said
    assert not NO_PERSONS_WORDS.search(said), said
    assert verdict(load_study, plan) == verdict(load_plan_sections, plan) == said


def places(model: Any, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of a file, sections too."""
    found = []
    for name, kind in keys_of(model).items():
        found += [(*above, name), *places(kind, (*above, name))]
    return found


WRONG: list[Any] = [
    None, "", "many words", "yes", "true", "1,5", "-1", "C:\\x", "a\u00a0b", "x" * 500, -1, 0, 1.5, 10**30, math.nan,
    math.inf, [], [None], ["a", -5], {}, {"a": 1}, {1: 2}, {"a": {"b": []}},
]  # fmt: skip


@pytest.mark.parametrize(("model", "place"), [(m, p) for m in (Study, SiteConfig) for p in places(m)])
def test_whatever_stands_at_a_key_is_read_or_refused_in_a_persons_words(
    model: Any, place: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place[0] not in ("ecg", "ehr"):
        monkeypatch.setattr("protocol.plan._check_encoders", lambda *_: None)  # it takes the most time
    for value in WRONG:
        content: dict[str, Any] = {"version": 1, "site": {"name": "a"}, "data": {"ehr": {"root": "raw"}}}
        section = content = content if model is SiteConfig else {}
        for name in place[:-1]:
            section = section.setdefault(name, {})
        section[place[-1]] = value
        path = tmp_path / "file.yaml"
        path.write_text(write_yaml(content))
        said = verdict(load_site if model is SiteConfig else load_plan, path)
        if isinstance(said, str):
            assert not NO_PERSONS_WORDS.search(said.replace(repr(value), "")), said
            assert all(", got " in line and len(line) < 500 for line in said.splitlines()), said


YAML = {
    "a tab before a key": ("a:\n\tb: 1\n", "must have blanks between words, got a tab in line 2. Put blanks in"),
    "a tab after a colon": ("a: 1\nb:\t2\n", "got a tab in line 2."),
    "a tab in an empty line": ("a:\n  b: 1\n\t\n  c: 2\n", "got a tab in line 3."),
    "a blank missing": ("a:1\nb: 2\n", "must have a blank after each colon, got none in line 1. Put one there."),
    "a blank missing in the last line": ("a: 1\nb:2\n", "must have a blank after each colon, got none in line 2."),
    "blanks missing below": ("a:\n  b:1\n  c:2\n", "a must have a blank after its colon, got none"),
    "an equals sign": ("a = 1\nb: 2\n", "must have KEY: VALUE in a line, got no colon in line 1."),
    "keys in two columns": ("a:\n  b: 1\n   c: 2\n", "must be indented like a list of keys, got another indentation"),
    "a key out of line": ("a:\n  b:\n    c: 1\n   d: 2\n", "got another indentation in line 4."),
    "keys below a value": ("a: x\n  b: 1\n", "got another indentation in line 2."),
    "a value that goes on": ("a: x\n  y\n", "a must be a text of one line, got one that goes on below"),
    "a colon in a text": ("a: b: c\n", "must have one colon with a blank in a line, got two in line 1."),
    "a quote left open": ('a: "b\nc: 1\n', "must end every quote that it begins, got one without an end in line 1."),
    "text behind a quote": ('a: "b" c\n', "must have one value in a line, got more in line 1."),
    "a path of Windows": ('a: "C:\\data"\n', "must mean what it shows, got a backslash in double quotes in line 1."),
    "another, that YAML would read": ('a: "C:\\new"\n', "a must mean what it shows, got a backslash in double quotes"),
    "a third": ('a: "C:\\users"\n', "got a backslash in double quotes in line 1. Use single quotes"),
    "a percent sign": ("a: %Y-%m-%d\n", "must have in quotes what begins with %, @ or `, got % in line 1."),
    "a star": ("a: *.csv\n", "must have in quotes what begins with *, & or %"),
    "an exclamation mark": ("a: !x y\n", "must have in quotes what begins with !, got one without in line 1."),
    "a program in the file": ("a: !!python/object/apply:os.getpid []\n", "must have in quotes what begins with !"),
    "a template": ("a: {{ root }}\n", "a key must be a word, got a section or a list"),
    "a bracket left open": ("a: {b: 1\nc: 2\n", "must have { and } or [ and ] in pairs, with commas between"),
    "a bracket too many": ("a: {b: 1}}\n", "in pairs, with commas between, got another order in line 1."),
    "a key twice": ("a: 1\nb: 2\na: 3\n", "a must stand once, got it in line 1 and again in line 3 of site.yaml."),
    "a key twice in brackets": ("a: {b: 1, 'b': 2}\n", "a.b must stand once"),
    "an empty value": ("a:\nb: 1\n", "a must have a value, got nothing from site.yaml, line 1."),
    "an empty key": ("a: {? : 1}\n", "a key must have a value, got nothing from site.yaml, line 1."),
    "an empty text": ("a: ''\n", "a must have a value, got nothing"),
    "a leading zero": ("a: 0755\n", "a must be a number without a leading 0, got 0755 from site.yaml, line 1."),
    "two documents": ("a: 1\n---\nb: 2\n", "must be one document, got a second one (---) in line 2."),
    "an invisible blank": ("a:\u00a0b\nc: 1\n", "must hold visible letters, got the invisible U+00A0 in line 1."),
    "an invisible blank before a key": ("a: 1\n\u00a0b: 2\n", "a key must hold visible letters"),
    "two files in one": ("a: 1\n\ufeffb: 2\n", "a key must hold visible letters, got the invisible U+FEFF"),
    "no letters": ("a: \x00\n", "must be text, got a character that no text holds in line 1."),
    "nothing": ("", "must hold sections, got nothing."),
    "deep brackets": ("a: " + "[" * 3000, "must hold plain sections, got too many inside one another."),
    "a part that holds itself": ("a: &a [*a]\n", "must hold plain sections, got too many inside one another."),
    "parts that grow": (
        "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n"
        + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "must hold plain sections, got too many inside one another.",
    ),
    "a long file": ("a: 1\n" * 30_000, "must be a short text file, got over 100 kB."),
}  # fmt: skip


def problems_of(path: Path) -> list[str]:
    """What is wrong in the layout of a file."""
    try:
        return list(map(str, read_yaml(path)[1].values()))
    except ConfigError as error:
        return list(map(str, error.problems))


@pytest.mark.parametrize(("text", "message"), YAML.values(), ids=YAML)
def test_a_mistake_in_the_layout_is_told_in_plain_words(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_bytes(text.encode())
    said = "\n".join(problems_of(path))
    assert message in said
    assert not NO_PERSONS_WORDS.search(said), said
    assert len(said) < 500


def test_an_empty_key_in_quotes_means_nothing_written(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("units: {50912: {'': umol/L}}\n")
    assert read_yaml(path) == ({"units": {50912: {"": "umol/L"}}}, {})


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_that_is_no_utf_8_says_so(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_bytes("a: 1\nb: é\n".encode(encoding))
    said = str(verdict(read_yaml, path))
    assert re.match(
        r"site\.yaml must be UTF-8 text, got letters of another encoding in line \d\. Save it as UTF-8", said
    )


def test_values_are_text_or_numbers_and_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(
        "a: no\nb: 2026-01-01\nc: 12:30\nd: 1e-5\ne: 1_000\nf: true\ng: 7\nh: it's\ni: ~/x\nj: fl.org:443\n"
    )
    read, problems = read_yaml(path)
    assert problems == {}
    assert list(read.values()) == ["no", "2026-01-01", "12:30", 1e-5, "1_000", "true", 7, "it's", "~/x", "fl.org:443"]
    texts = {str(i): text for i, text in enumerate(["1e-5", "010", "no", "~", "null", ".inf", "3", "-", "a: b", "é\\"])}
    path.write_text(write_yaml(texts), encoding="utf-8")
    assert read_yaml(path) == (texts, {})


@pytest.mark.parametrize(
    "wrong", ["a site file", "a misspelt section", "an unknown key", "an empty file", "a key twice"]
)
@pytest.mark.parametrize("command", ["prepare", "check", "dry-run", "run"])
def test_every_command_takes_only_a_plan_for_a_plan(
    command: str, wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site, plan = tmp_path / "site.yaml", tmp_path / "plan.yaml"
    site.write_text(SITE)
    text, message = BAD_PLANS[wrong]
    plan.write_text(text)
    if command == "run":
        status = sim.command(["run", "--sites", str(site), "--plan", str(plan), "--out", str(tmp_path / "run")])
    else:
        as_json = ["--json"] if command == "check" else []
        status = cli.run(["--site", str(site), command, "--plan", str(plan), *as_json])
    assert status == 3
    captured = capsys.readouterr()
    said = captured.err
    if command == "check":
        (finding,) = json.loads(captured.out)["findings"]
        said = f"error: {finding['found']} {finding['fix']}"
    assert re.search(message.replace("^", "^error: ").removesuffix("$"), said), said
    assert not (tmp_path / "run").exists()
