"""Every kind of wrong policy file is one finding with its place, its key and the mend."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from worker.policy.findings import Finding
from worker.policy.lint import lint_policy
from worker.policy.schema import Policy

POLICY = """\
policy: tiny
version: 1
description: For tests.
templates: ["{}", "a photo of {}"]
contrast: [a plate of food, people at work]
categories:
  weapons:
    description: Guns.
    prompts: [a gun, a rifle]
    look_alikes: [a kitchen knife]
    thresholds: {review: 0.5, block: 0.9}
  drugs:
    prompts:
      - pills
      - a syringe
    thresholds: {review: 0.6}
calibration:
  "m@r": {weapons: {bias: 1.9, temperature: 1.3, contrast_weight: 0.8}}
"""


def lint(old: str, new: str) -> list[Finding]:
    """Lint the policy with one place changed."""
    assert POLICY.count(old) == 1
    policy, findings = lint_policy(POLICY.replace(old, new), "tiny/v1.yaml")
    assert (policy is None) == bool(findings)
    return findings


def only(findings: list[Finding]) -> str:
    """Give the one finding as the author reads it."""
    assert len(findings) == 1, findings
    return str(findings[0])


def test_a_right_policy_has_no_findings() -> None:
    policy, findings = lint_policy(POLICY, "tiny/v1.yaml")

    assert findings == []
    assert isinstance(policy, Policy)
    assert policy.ref == "tiny@1"
    assert list(policy.categories) == ["weapons", "drugs"]
    assert policy.categories["drugs"].prompts == ("pills", "a syringe")


def test_a_finding_is_one_line_and_one_json_object() -> None:
    (finding,) = lint("block: 0.9", "block: 7.0")

    assert str(finding) == ("tiny/v1.yaml:11:38: categories.weapons.thresholds.block: should be 1 or less, not 7.0")
    assert finding.as_dict() == {
        "file": "tiny/v1.yaml",
        "line": 11,
        "column": 38,
        "key": "categories.weapons.thresholds.block",
        "message": "should be 1 or less, not 7.0",
        "severity": "error",
        "code": "schema",
    }


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("contrast:", "contrasts:", "5:1: contrasts: unknown key; did you mean contrast?"),
        ("look_alikes", "lookalikes", "10:5: categories.weapons.lookalikes: unknown key; did you mean look_alikes?"),
        ("block: 0.9", "blok: 0.9", "11:31: categories.weapons.thresholds.blok: unknown key; did you mean block?"),
        ("bias", "biass", "18:21: calibration.m@r.weapons.biass: unknown key; did you mean bias?"),
        (
            "look_alikes",
            "zzz",
            "10:5: categories.weapons.zzz: unknown key; "
            "known keys are description, prompts, look_alikes, thresholds, exemplars",
        ),
    ],
)
def test_an_unknown_key_is_found_with_the_one_that_was_meant(old: str, new: str, expected: str) -> None:
    assert f"tiny/v1.yaml:{expected}" in [str(finding) for finding in lint(old, new)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "[a plate of food, people at work]",
            "a plate of food",
            "5:11: contrast: should be a list, not 'a plate of food'; write [first, second] or one `- item` a line",
        ),
        ("[a gun, a rifle]", "a gun", "9:14: categories.weapons.prompts: should be a list, not 'a gun'; write [first,"),
        ('["{}", "a photo of {}"]', '"{}"', "4:12: templates: should be a list, not '{}'; write [first, second] or"),
        (
            "{review: 0.6}",
            "0.6",
            "16:17: categories.drugs.thresholds: should be a block of `key: value` lines, not 0.6",
        ),
        ("{review: 0.6}", "", "16:16: categories.drugs.thresholds: should be a block of `key: value` lines, not empty"),
        ("    thresholds: {review: 0.6}\n", "", "13:5: categories.drugs.thresholds: required key is missing; add it"),
        ("version: 1\n", "", "1:1: version: required key is missing; add it"),
        ("description: For tests.", "description: 5", "3:14: description: should be text, not 5; put it in quotes"),
        ("description: For tests.", "description:", "3:13: description: must not be empty; write a sentence or remove"),
    ],
)
def test_a_value_of_the_wrong_kind_is_found_with_the_right_one(old: str, new: str, expected: str) -> None:
    assert only(lint(old, new)).startswith(f"tiny/v1.yaml:{expected}")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('"1"', "should be a whole number, not '1'"),
        ("1.5", "should be a whole number, not 1.5"),
        ("1.0", "should be a whole number, not 1.0"),
        ("true", "should be a whole number, not true"),
        ("null", "should be a whole number, not empty"),
        ("2026-01-01", "should be a whole number, not '2026-01-01'"),
        ("0", "should be 1 or more, not 0"),
        ("-1", "should be 1 or more, not -1"),
        ("1000000000", "should be below 1000000000, not 1000000000"),
        ("0x" + "f" * 6000, "should be below 1000000000, not a very long number"),
    ],
)
def test_a_version_is_a_positive_whole_number(written: str, expected: str) -> None:
    assert only(lint("version: 1", f"version: {written}")) == f"tiny/v1.yaml:2:10: version: {expected}"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{review: 7.0}", "16:26: categories.drugs.thresholds.review: should be 1 or less, not 7.0"),
        ("{review: 1.0000001}", "16:26: categories.drugs.thresholds.review: should be 1 or less, not 1.0000001"),
        ("{review: -0.1}", "16:26: categories.drugs.thresholds.review: should be 0 or more, not -0.1"),
        ("{review: .nan}", "16:26: categories.drugs.thresholds.review: should be a finite number, not nan"),
        ("{review: .inf}", "16:26: categories.drugs.thresholds.review: should be a finite number, not inf"),
        ('{review: "0.5"}', "16:26: categories.drugs.thresholds.review: should be a number, not '0.5'"),
        ("{review: true}", "16:26: categories.drugs.thresholds.review: should be a number, not true"),
        ("{review: 1" + "0" * 400 + "}", "16:26: categories.drugs.thresholds.review: should be a number, not a very"),
        ("{review: 0.5, block: 0.4}", "16:17: categories.drugs.thresholds: review (0.5) must not be above block (0.4)"),
        ("{}", "16:17: categories.drugs.thresholds: give review, block or both"),
        ("{review: null}", "16:17: categories.drugs.thresholds: give review, block or both"),
    ],
)
def test_thresholds_are_ordered_scores_between_0_and_1(written: str, expected: str) -> None:
    assert only(lint("{review: 0.6}", written)).startswith(f"tiny/v1.yaml:{expected}")


@pytest.mark.parametrize(
    "written", ["{review: 0, block: 1}", "{block: 0.0}", "{review: 0.5, block: 0.5}", "{review: 1}"]
)
def test_thresholds_may_be_0_1_equal_or_alone(written: str) -> None:
    assert lint("{review: 0.6}", written) == []


@pytest.mark.parametrize(
    ("text", "line", "column", "key", "first"),
    [
        (POLICY + "version: 1\n", 19, 1, "version", 2),
        (POLICY + '"version": 1\n', 19, 1, "version", 2),
        (POLICY.replace("  drugs:", "  weapons:"), 12, 3, "weapons", 7),
        (POLICY.replace("  weapons:\n", "  weapons:\n    prompts: [a bomb]\n"), 10, 5, "prompts", 8),
        (POLICY.replace("block: 0.9", "block: 0.9, review: 0.8"), 11, 43, "review", 11),
        (POLICY.replace("bias: 1.9", "bias: 1.9, bias: 2.0"), 18, 32, "bias", 18),
    ],
)
def test_a_duplicate_key_is_found_at_any_level(text: str, line: int, column: int, key: str, first: int) -> None:
    policy, findings = lint_policy(text, "f")

    assert policy is None
    message = f"duplicate key, first given on line {first}; keep one of them"
    assert Finding("f", line, column, key, message) in findings


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[a plate of food, people at work]", "[]", "5:11: contrast:"),
        ("[a gun, a rifle]", "[]", "9:14: categories.weapons.prompts:"),
        ("[a kitchen knife]", "[]", "10:18: categories.weapons.look_alikes:"),
        ('["{}", "a photo of {}"]', "[]", "4:12: templates:"),
    ],
)
def test_an_empty_list_is_found(old: str, new: str, expected: str) -> None:
    mend = "must not be empty; add an entry, or leave the key out if it is optional"
    assert only(lint(old, new)) == f"tiny/v1.yaml:{expected} {mend}"


def test_a_policy_without_categories_is_found() -> None:
    _, findings = lint_policy("policy: tiny\nversion: 1\ncontrast: [food]\ncategories: {}\n", "f")

    assert (
        only(findings) == "f:4:13: categories: must not be empty; add an entry, or leave the key out if it is optional"
    )


@pytest.mark.parametrize("name", ["a b", "-x", "", "ä", "a/b", "../x", ".hidden", "a" * 65, "a\\n", "<b>"])
def test_a_bad_name_is_found_for_policies_and_categories(name: str) -> None:
    rule = "is not a name; use letters, digits, _ . and -, starting with a letter or digit, at most 64"

    of_policy = only(lint("policy: tiny", f'policy: "{name}"'))
    of_category = only(lint("  drugs:", f'  "{name}":'))

    assert of_policy.startswith("tiny/v1.yaml:1:9: policy: ")
    assert of_category.startswith("tiny/v1.yaml:12:3: categories.")
    assert of_policy.endswith(rule)
    assert of_category.endswith(rule)
    assert "\n" not in of_category


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "0", "a" * 64, "nudity.drawn"])
def test_a_good_name_is_taken(name: str) -> None:
    assert lint("policy: tiny", f'policy: "{name}"') == []
    assert lint("  drugs:", f'  "{name}":') == []


@pytest.mark.parametrize("name", ["1", "1.5", "no", "true", "null"])
def test_a_name_that_yaml_reads_as_something_else_is_to_be_quoted(name: str) -> None:
    of_category = only(lint("  drugs:", f"  {name}:"))
    of_the_file = only(lint("description: For tests.", f"{name}: 1"))

    assert of_category == f"tiny/v1.yaml:12:3: {name}: a key should be text; put it in quotes: '{name}'"
    assert of_the_file == f"tiny/v1.yaml:3:1: {name}: a key should be text; put it in quotes: '{name}'"


def test_a_date_is_text() -> None:
    assert lint("- pills", "- 2026-01-01") == []
    assert lint("- pills", "- 2026-99-99") == []
    assert lint("  drugs:", "  2026-01-01:") == []


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('"   "', "must not be blank; write a sentence"),
        ('"\\t\\n"', "must not be blank; write a sentence"),
        ('""', "must not be empty; write a sentence or remove the line"),
        ("", "must not be empty; write a sentence or remove the line"),
        ("~", "must not be empty; write a sentence or remove the line"),
        ("no", "should be text, not false; put it in quotes"),
        ("on", "should be text, not true; put it in quotes"),
        ("18", "should be text, not 18; put it in quotes"),
        ("18.5", "should be text, not 18.5; put it in quotes"),
        ("pills: white", "should be text, not {'pills': 'white'}; put it in quotes"),
        ("[pills]", "should be text, not ['pills']; put it in quotes"),
        ('"\\ud83d"', "should be whole characters, not '\\ud83d'; write the character itself instead of its \\u codes"),
        ("x" * 501, f"should have at most 500 characters, not '{'x' * 27}...{'x' * 28}'; shorten it"),
    ],
)
def test_a_prompt_is_a_sentence(written: str, expected: str) -> None:
    (finding,) = lint("- pills", f"- {written}")

    assert finding.key == "categories.drugs.prompts.0"
    assert finding.line == 14
    assert finding.message == expected


def test_too_many_prompts_are_found() -> None:
    prompts = ", ".join(f"thing {number}" for number in range(1001))

    finding = only(lint("[a gun, a rifle]", f"[{prompts}]"))

    assert "9:14: categories.weapons.prompts: should have at most 1000 entries" in finding
    assert finding.endswith("; remove some")
    assert len(finding) < 200


@pytest.mark.parametrize(
    ("old", "new", "place", "sentence", "same_as"),
    [
        ("- a syringe", "- pills", "15:9: categories.drugs.prompts.1", "pills", "categories.drugs.prompts.0"),
        (
            "- a syringe",
            "- The  PILLS!",
            "15:9: categories.drugs.prompts.1",
            "The  PILLS!",
            "categories.drugs.prompts.0",
        ),
        ("people at work", "a Plate of Food", "5:29: contrast.1", "a Plate of Food", "contrast.0"),
        ("- pills", "- a plate of food", "14:9: categories.drugs.prompts.0", "a plate of food", "contrast.0"),
        (
            "a kitchen knife",
            "the gun",
            "10:19: categories.weapons.look_alikes.0",
            "the gun",
            "categories.weapons.prompts.0",
        ),
        (
            "a kitchen knife",
            "People at work.",
            "10:19: categories.weapons.look_alikes.0",
            "People at work.",
            "contrast.1",
        ),
        (
            "[a kitchen knife]",
            "[a spoon, spoon]",
            "10:28: categories.weapons.look_alikes.1",
            "spoon",
            "categories.weapons.look_alikes.0",
        ),
        ("a photo of {}", "A {}.", "4:19: templates.1", "A {}.", "templates.0"),
        (
            "[a kitchen knife]",
            '[café, "cafe\\u0301"]',
            "10:25: categories.weapons.look_alikes.1",
            "cafe\u0301",
            "categories",
        ),
    ],
)
def test_a_copy_of_a_sentence_is_found(old: str, new: str, place: str, sentence: str, same_as: str) -> None:
    found = only(lint(old, new))

    assert found.startswith(f"tiny/v1.yaml:{place}: ")
    assert f"{sentence!r} says the same as {same_as}" in found
    assert found.endswith("; reword or remove one")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("- a syringe", "- two pills"),
        ("- pills", "- a gun"),  # of another category: an image can be two things
        ("- a syringe", "- pills 💉"),
        ("[a kitchen knife]", "[दिन, दान]"),  # day and gift: only the vowel differs, and it is a combining mark
        ("[a kitchen knife]", "[刀, 枪]"),
        ("[a kitchen knife]", '["!", "?"]'),
        ("a photo of {}", "{} a photo of"),
    ],
)
def test_sentences_that_differ_are_no_copies(old: str, new: str) -> None:
    assert lint(old, new) == []


@pytest.mark.parametrize("template", ["a photo", "{} beside {}", "{0}", "{name}", "{ }"])
def test_a_template_has_one_hole(template: str) -> None:
    found = only(lint('"a photo of {}"', f'"{template}"'))

    place = "tiny/v1.yaml:4:19: templates.1:"
    assert found == f"{place} a template holds {{}} once, where the prompt goes; got '{template}'"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            "{weapon: {bias: 1.0}}",
            "18:11: calibration.m@r.weapon: there is no category of this name; did you mean weapons?",
        ),
        ("{zzz: {bias: 1.0}}", "18:11: calibration.m@r.zzz: there is no category of this name; remove it"),
        ("{weapons: {temperature: -1}}", "18:34: calibration.m@r.weapons.temperature: should be above 0, not -1"),
        ("{weapons: {temperature: 0}}", "18:34: calibration.m@r.weapons.temperature: should be above 0, not 0"),
        (
            "{weapons: {temperature: .inf}}",
            "18:34: calibration.m@r.weapons.temperature: should be a finite number, not",
        ),
        ("{weapons: {bias: .nan}}", "18:27: calibration.m@r.weapons.bias: should be a finite number, not nan"),
        (
            "{weapons: {contrast_weight: 1.5}}",
            "18:38: calibration.m@r.weapons.contrast_weight: should be 1 or less, not",
        ),
        ("{weapons: {contrast_weight: -0.5}}", "18:38: calibration.m@r.weapons.contrast_weight: should be 0 or more,"),
        ("{weapons: 5}", "18:20: calibration.m@r.weapons: should be a block of `key: value` lines, not 5"),
        ("", "18:9: calibration.m@r: should be a block of `key: value` lines, not empty"),
    ],
)
def test_a_calibration_is_of_a_category_and_in_range(written: str, expected: str) -> None:
    found = only(lint("{weapons: {bias: 1.9, temperature: 1.3, contrast_weight: 0.8}}", written))

    assert found.startswith(f"tiny/v1.yaml:{expected}")


def test_every_error_is_reported_in_the_order_of_the_file() -> None:
    text = """\
polcy: tiny
version: x
contrast: food
categories:
  c:
    prompts: []
    thresholds: {review: 3, blok: 1}
  c:
    prompts: [5, no]
    prompts: [a, b]
    thresholds: {block: 0.5}
"""

    policy, findings = lint_policy(text, "f")

    assert policy is None
    assert [(finding.line, finding.column) for finding in findings] == sorted((f.line, f.column) for f in findings)
    assert {(finding.line, finding.key) for finding in findings} >= {
        (1, "policy"),
        (1, "polcy"),
        (2, "version"),
        (3, "contrast"),
        (8, "c"),
        (10, "prompts"),
    }


def test_copies_and_wrong_calibrations_are_reported_together() -> None:
    text = POLICY.replace("a syringe", "pills").replace("a rifle", "gun").replace("{weapons: {bias", "{weapon: {bias")

    _, findings = lint_policy(text, "f")

    assert [finding.line for finding in findings] == [9, 15, 18]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (POLICY.replace("a rifle]", "a rifle"), "10:16", ["not valid YAML", "expected ',' or ']'"]),
        ("policy: a\n b: c\n", "2:3", ["not valid YAML", "mapping values are not allowed here"]),
        (POLICY.replace("    prompts:\n", "\tprompts:\n"), "13:1", ["not valid YAML", "'\\t'", "indent with spaces"]),
        (POLICY + "---\n" + POLICY, "19:1", ["not valid YAML", "expected a single document"]),
        (POLICY.replace("- pills", "- *pills"), "14:9", ["not valid YAML", "undefined alias 'pills'"]),
        (POLICY.replace("For tests.", "a\0b"), "3:15", ["not valid YAML", "U+0000 is not allowed; remove it"]),
        (POLICY.replace("For tests.", "!!python/name:os.system x"), "3:14", ["!!python/name:os.system is not allowed"]),
        (POLICY.replace("[a gun, a rifle]", "!!set {a gun, a rifle}"), "9:14", ["!!set is not allowed; remove it"]),
        (POLICY.replace("version: 1", "version: " + "9" * 5000), "2:10", ["not valid YAML", "5000 digits"]),
        (POLICY.replace("  drugs:", "  [a, b]:"), "12:3", ["not valid YAML", "unhashable key"]),
    ],
)
def test_what_is_not_plain_yaml_is_one_finding_with_its_place(text: str, place: str, words: list[str]) -> None:
    policy, findings = lint_policy(text, "f")

    found = only(findings)
    assert policy is None
    assert found.startswith(f"f:{place}: ")
    assert all(word in found for word in words), found


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "null\n", "\ufeff"])
def test_an_empty_file_is_found(text: str) -> None:
    _, findings = lint_policy(text, "f")

    assert only(findings) == "f:1:1: the file is empty; `sluice schema policy` shows what belongs in it"


@pytest.mark.parametrize("text", ["- a\n", "just words\n", "5\n", "false\n", "[]\n"])
def test_a_file_that_is_not_a_block_is_found(text: str) -> None:
    _, findings = lint_policy(text, "f")

    assert only(findings).startswith("f:1:1: should be a block of `key: value` lines")


def test_an_empty_block_lacks_every_required_key() -> None:
    _, findings = lint_policy("{}\n", "f")

    assert [finding.key for finding in findings] == ["policy", "version", "contrast", "categories"]
    assert {finding.message for finding in findings} == {"required key is missing; add it"}


def test_a_byte_order_mark_and_windows_line_ends_change_nothing() -> None:
    plain, _ = lint_policy(POLICY, "f")
    windows, findings = lint_policy("\ufeff" + POLICY.replace("\n", "\r\n"), "f")

    assert findings == []
    assert windows == plain


def test_an_alias_shares_a_list() -> None:
    text = POLICY.replace("[a gun, a rifle]", "&guns [a gun, a rifle]").replace(
        "calibration:", "  toys: {prompts: *guns, thresholds: {review: 0.5}}\ncalibration:"
    )

    policy, findings = lint_policy(text, "f")

    assert findings == []
    assert policy is not None
    assert policy.categories["toys"].prompts == ("a gun", "a rifle")


def test_a_merged_block_may_override_a_key() -> None:
    text = POLICY.replace("  weapons:\n", "  weapons: &weapons\n").replace(
        "calibration:", "  toys: {<<: *weapons, prompts: [toys, toys]}\ncalibration:"
    )

    policy, findings = lint_policy(text, "f")

    assert policy is None
    assert only(findings).startswith("f:17:40: categories.toys.prompts.1: 'toys' says the same as")


def nines(levels: int) -> str:
    """Nine aliases of nine aliases of …, as items of a list."""
    lines = ["  - &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"  - &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, levels)]
    return "\n".join(lines) + "\n"


MERGES = "".join(f"b{level}: &b{level} {{<<: [{', '.join([f'*b{level - 1}'] * 9)}]}}\n" for level in range(1, 12))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (POLICY.replace('["{}", "a photo of {}"]', "\n" + nines(12)), "more than 100000 values"),
        ("contrast:\n" + nines(12), "more than 100000 values"),
        ("b0: &b0 {x: 1, y: 2}\n" + MERGES, "more than 100000 values"),
        ("&a [*a]\n", "an alias inside of what it stands for; write it out"),
        ("policy: &a {policy: *a}\n", "an alias inside of what it stands for; write it out"),
        ("contrast: " + "[" * 20_000 + "]" * 20_000, "nested too deeply"),
        ("a: " + "{a: " * 100_000, "nested too deeply"),
        ("- " * 100_000, "nested too deeply"),
        ("a: " + "x" * 1024 * 1024, "larger than 1048576 bytes; split it"),
    ],
    ids=[
        "bomb in a policy",
        "bomb",
        "merges",
        "endless",
        "endless block",
        "lists",
        "blocks",
        "dashes",
        "large",
    ],
)
@pytest.mark.timeout(60)
def test_a_file_made_to_exhaust_the_reader_ends_soon_with_one_finding(text: str, words: str) -> None:
    _, findings = lint_policy(text, "f")

    assert words in only(findings)


def test_thousands_of_errors_are_all_found() -> None:
    unknown = "".join(f"key{number}: 1\n" for number in range(3_000))

    _, findings = lint_policy(POLICY + unknown, "f")

    assert [finding.line for finding in findings] == list(range(19, 3_019))


def test_a_finding_stays_one_printable_line_whatever_the_key() -> None:
    newline = POLICY + '"a\\nb": 1\n"a\\nb": 2\n' + '"' + "k" * 1000 + '": 1\n'
    half = POLICY + '"a\\ud800": 1\n"a\\ud800": 2\n'

    findings = [*lint_policy(newline, "f")[1], *lint_policy(half, "f")[1]]

    assert len(findings) == 5
    for finding in findings:
        assert str(finding).isprintable()
        assert len(str(finding)) < 300


PIECES = (
    st.sampled_from([*"\n\t :-[]{},&*!#|>'\"%@`~?<=0", "no", "1.5", ".nan", "&a", "*a", "<<: *a", "\ud800", "\0", "- "])
    | st.text()
)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(POLICY)), st.integers(0, 12), PIECES), min_size=1, max_size=4))
@example([(141, 0, "\U00018cd6")])
def test_a_damaged_policy_is_a_policy_or_has_findings_and_never_an_exception(edits: list[tuple[int, int, str]]) -> None:
    text = POLICY
    for place, deleted, inserted in edits:
        text = text[:place] + inserted + text[place + deleted :]

    policy, findings = lint_policy(text, "f")

    assert (policy is None) == bool(findings)
    assert all(finding.line >= 1 and finding.column >= 1 and str(finding).isprintable() for finding in findings)
    if policy is not None:
        assert policy.digest


def test_a_wrong_shape_hides_no_copies() -> None:
    text = """\
policy: x
version: 1
contrast: [people at work, People at work.]
categories:
  weapons: {prompts: [a gun, gun], thresholds: {review: 7}}
"""

    _, findings = lint_policy(text, "x.yaml")

    assert [finding.key for finding in findings] == [
        "contrast.1",
        "categories.weapons.prompts.1",
        "categories.weapons.thresholds.review",
    ]
