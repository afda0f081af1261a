"""`sluice policy lint`, `diff` and `new`: a policy's files, checked, compared and begun."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from worker.cli.console import Commands, add_command, print_json, settings_of
from worker.cli.gathering import policies_directory
from worker.errors import ModelUnavailable, PolicyMissing, UsageError

if TYPE_CHECKING:
    from worker.encoder.clip import ClipEncoder
    from worker.policy.files import Checked
    from worker.policy.findings import Finding
    from worker.policy.schema import Policy
    from worker.policy.stored import StoredEmbeddings
    from worker.policy.wording import Page, Seen

_MODEL = ("model", "model_revision", "device", "precision", "batch_size")


def add_verbs(verbs: Commands) -> None:
    """Add the commands to the group `policy`."""
    _add_lint(verbs)
    diff = add_command(
        verbs,
        "diff",
        _diff,
        "show what two policies say differently; exit code 0 when nothing, 1 when something",
        ("policies",),
        "  sluice policy diff demo@1 demo@2\n  sluice policy diff policies/demo/v1.yaml my.yaml --json",
    )
    for side in ("a", "b"):
        diff.add_argument(side, metavar=side.upper(), help="a policy file, or ID[@VERSION] in the policies' directory")
    diff.add_argument("--json", action="store_true", help="print one JSON object a change")
    new = add_command(
        verbs,
        "new",
        _new,
        "begin a policy, or the next version of one; never overwrites a file",
        ("policies",),
        "  sluice policy new house              house/v1.yaml to fill in, or house's newest version as the next\n"
        "  sluice policy new house --from demo@1",
    )
    new.add_argument("id", metavar="ID", help="what the policy is called")
    new.add_argument("--from", dest="source", metavar="ID@VERSION", help="copy this version (default: ID's newest)")


def _add_lint(verbs: Commands) -> None:
    lint = add_command(
        verbs,
        "lint",
        _lint,
        "check policy files: every error with its place and the mend, and what the model makes of the sentences",
        _MODEL,
        "  sluice policy lint policies/\n"
        "  sluice policy lint policies/default/v2.yaml --no-model --json\n"
        "  sluice policy lint policies/demo --model builtin --strict --format github\n\n"
        "Exit code 1 when there are errors (with --strict: or warnings), else 0. A comment\n"
        "`# lint: allow CODE` on the line of a sentence takes a warning back. A model that is not on this\n"
        "machine is not downloaded: without it only schema and wording are checked.",
    )
    lint.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="policy files, or directories of them")
    lint.add_argument("--strict", action="store_true", help="make warnings errors")
    lint.add_argument("--no-model", action="store_true", help="check schema and wording only")
    lint.add_argument(
        "--scores", type=Path, metavar="FILE", help="verdicts, one JSON object a line: scores seen so far"
    )
    lint.add_argument("--embeddings", type=Path, metavar="FILE.npz", help="images that `policy test --record` wrote")
    shape = lint.add_mutually_exclusive_group()
    shape.add_argument(
        "--json",
        action="store_const",
        const="json",
        dest="format",
        default="text",
        help="print one JSON object a finding",
    )
    shape.add_argument(
        "--format", choices=("text", "json", "sarif", "github"), default="text", help="for other programs"
    )


def _lint(options: argparse.Namespace) -> int:
    from worker.policy.files import check_files
    from worker.policy.wording import warn_of_wording

    if options.no_model and options.embeddings:
        raise UsageError("--embeddings needs the model; leave --no-model out")
    checked = check_files(options.paths)
    encoder = None if options.no_model or not checked.policies else _encoder_or_none(options)
    stored = _stored(options.embeddings, encoder) if options.embeddings and encoder else None
    findings = list(checked.findings)
    for policy, page in checked.policies:
        warnings = [*warn_of_wording(policy, page), *_advice(policy, page, encoder, stored, options)]
        findings += page.less_allowed(warnings)
    if options.strict:
        findings = [replace(finding, severity="error") for finding in findings]
    _report(options.format, checked, findings)
    return 1 if any(finding.severity == "error" for finding in findings) else 0


def _encoder_or_none(options: argparse.Namespace) -> ClipEncoder | None:
    settings = settings_of(options)
    from worker.encoder.clip import load_encoder

    try:
        return load_encoder(
            settings.model, settings.model_revision, settings.device, settings.precision, settings.batch_size,
            download=False,
        )  # fmt: skip
    except ModelUnavailable:
        print(
            f"sluice: only schema and wording were checked, for the model {settings.model} is not on this machine; "
            "`sluice doctor` fetches it, --model names another (builtin, a directory), --no-model is content without",
            file=sys.stderr,
        )
        return None


def _stored(file: Path, encoder: ClipEncoder) -> StoredEmbeddings:
    from worker.policy.stored import read_embeddings

    stored = read_embeddings(file)
    stored.require(encoder.name, encoder.dim, file)
    return stored


def _advice(
    policy: Policy,
    page: Page,
    encoder: ClipEncoder | None,
    stored: StoredEmbeddings | None,
    options: argparse.Namespace,
) -> list[Finding]:
    from worker.policy.wording import Seen, warn_of_thresholds

    seen = _seen_in(options.scores, policy) if options.scores else Seen({}, "")
    if encoder is None:
        return list(warn_of_thresholds(policy, page, seen))
    from worker.policy.compiled import compile_policy
    from worker.workbench.advise import advise
    from worker.workbench.trial import greatest_scores

    if stored is not None:
        compiled = compile_policy(policy, encoder.embed_texts, encoder.logit_scale, encoder.name)
        images = greatest_scores(
            compiled, stored.images, f"{_counted(len(stored.images), 'image')} of {options.embeddings}"
        )
        seen = images.beside(seen)
    return list(advise(policy, page, encoder, seen))


def _seen_in(file: Path, policy: Policy) -> Seen:
    """Read the greatest scores of a policy's verdicts, whatever the version."""
    from pydantic import ValidationError

    from worker.policy.wording import Seen
    from worker.records import Verdict

    greatest: dict[str, float] = {}
    count = 0
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):  # noqa: B007 - named in the error below
            verdict = Verdict.model_validate_json(line)
            if verdict.policy.id != policy.policy:
                continue
            count += 1
            for name, found in verdict.categories.items():
                greatest[name] = max(found.score, greatest.get(name, 0.0))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--scores {file} cannot be read ({error}); name a file of verdicts") from error
    except ValidationError as error:
        mend = "write the file with `sluice score --json` or `sluice verdicts --json`"
        raise UsageError(f"--scores {file}: line {number} is no verdict; {mend}") from error
    return Seen(greatest, f"{_counted(count, 'verdict')} of {file}")


def _report(shape: str, checked: Checked, findings: list[Finding]) -> None:
    from worker.policy.annotations import as_github, as_sarif

    if shape == "sarif":
        print_json(as_sarif(findings, Path.cwd()))
        return
    for finding in findings:
        if shape == "json":
            print_json(finding.as_dict())
        else:
            print(as_github(finding, Path.cwd()) if shape == "github" else finding)
    if shape == "text":
        errors = sum(finding.severity == "error" for finding in findings)
        said = [_counted(errors, "error")]
        said += [_counted(len(findings) - errors, "warning")] if errors < len(findings) else []
        print(f"{_counted(checked.files, 'file')} checked, {', '.join(said)}")


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _diff(options: argparse.Namespace) -> int:
    from worker.policy.diff import diff
    from worker.policy.files import find_policy

    directory = policies_directory(settings_of(options))
    before, after = find_policy(options.a, directory), find_policy(options.b, directory)
    changes = diff(before, after)
    if options.json:
        for change in changes:
            print_json(change.as_dict())
        return 1 if changes else 0
    print(f"{before.ref} → {after.ref}: {_counted(len(changes), 'change')}")
    heading = None
    for change in changes:
        if change.path != heading:
            heading = change.path
            print(f"\n{heading}")
        print(f"  {change}")
    return 1 if changes else 0


def _new(options: argparse.Namespace) -> int:
    from worker.policy.files import valid_policy, version_files
    from worker.policy.scaffold import SCHEMA_FILE, first_version, next_version, schema_text

    directory = policies_directory(settings_of(options))
    name = _name(options.id)
    versions = version_files(directory / name)
    version = max(versions, default=0) + 1
    source = _source(options.source, directory) if options.source else versions.get(version - 1)
    if source is None:
        text = first_version(name, str(directory))
    else:
        valid_policy(source)
        try:
            text = next_version(source.read_text(encoding="utf-8-sig"), name, version)
        except ValueError as error:
            raise UsageError(f"{source} cannot be copied: {error}; copy it by hand to v{version}.yaml") from error
    file = directory / name / f"v{version}.yaml"
    _write_new(file, text)
    schema = directory / SCHEMA_FILE
    if not schema.exists():
        _write_new(schema, schema_text())
    begun = f"from {source}" if source else "to fill in"
    print(f"{file} written, {begun}; check it with `sluice policy lint {file}`")
    return 0


def _name(text: str) -> str:
    from worker.policy.schema import NAME_PATTERN

    if not re.fullmatch(NAME_PATTERN, text):
        raise UsageError(f"{text!r} is not a name; use letters, digits, _ . and -, starting with a letter or digit")
    return text


def _source(ref: str, directory: Path) -> Path:
    name, _, version = ref.partition("@")
    file = directory / name / f"v{version}.yaml"
    if not version.isdecimal() or not file.is_file():
        raise PolicyMissing(f"no policy {ref} in {directory}; name one as ID@VERSION")
    return file


def _write_new(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as target:
            target.write(text)
    except FileExistsError as error:
        raise UsageError(f"{file} is there already; nothing was written") from error
    except OSError as error:
        raise UsageError(f"{file} cannot be written ({error.strerror}); set --policies") from error
