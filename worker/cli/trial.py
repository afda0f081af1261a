"""`sluice policy test`: a policy against the images that its author knows, looked at or recorded."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.cli.console import JUDGING, Commands, add_command, print_json, settings_of
from worker.errors import ImageRejected, JobError, PolicyInvalid, UsageError

if TYPE_CHECKING:
    from worker.encoder.clip import ClipEncoder
    from worker.policy.cases import Case
    from worker.policy.compiled import Matrix
    from worker.settings import Settings
    from worker.workbench.trial import Check

_SETTINGS = tuple(name for name in JUDGING if not name.startswith(("fetch_", "s3_", "polic", "uncalibrated")))


def add_verbs(verbs: Commands) -> None:
    """Add the command to the group `policy`."""
    test = add_command(
        verbs,
        "test",
        _test,
        "try a policy on the images of its tests.yaml; exit code 1 when an expectation fails",
        (*_SETTINGS, "views", "image_max_views", "image_max_frames"),
        "  sluice policy test policies/demo --model builtin\n"
        "  sluice policy test policies/house/v2.yaml --json\n"
        "  sluice policy test policies/house --record --images ~/evidence\n\n"
        "PATH is a version, the directory of a policy (its newest version is tried), or of all policies.\n"
        "A case with `embedding: FILE.npz` is judged by what --record wrote there, so that its picture\n"
        "need not be kept; `sluice schema tests` prints what belongs in tests.yaml.",
    )
    test.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="policy files or directories")
    test.add_argument(
        "--record", action="store_true", help="first write the embeddings of cases that name a file for them"
    )
    test.add_argument(
        "--images", type=Path, metavar="DIRECTORY", help="where pictures are (default: beside tests.yaml)"
    )
    test.add_argument("--json", action="store_true", help="print one JSON object an expectation")


def _test(options: argparse.Namespace) -> int:
    from worker.policy.files import check_cases_file, valid_policy, with_tests

    settings = settings_of(options)
    suites = []
    for file, cases_file in [pair for path in options.paths for pair in with_tests(path)]:
        policy = valid_policy(file)
        cases, findings = check_cases_file(cases_file, policy)
        if cases is None:
            raise PolicyInvalid([str(finding) for finding in findings])
        suites.append((policy, cases.cases, _Shelf(cases_file.parent, options.images or cases_file.parent)))

    from worker.encoder.clip import load_encoder
    from worker.policy.compiled import compile_policy
    from worker.workbench.trial import check_cases

    encoder = load_encoder(
        settings.model, settings.model_revision, settings.device, settings.precision, settings.batch_size
    )
    checks: list[Check] = []
    for policy, listed, shelf in suites:
        if options.record:
            shelf.record(listed, encoder, settings)
        compiled = compile_policy(policy, encoder.embed_texts, encoder.logit_scale, encoder.name)
        checks += check_cases(compiled, listed, shelf.embeddings(listed, encoder, settings))
    _report(checks, encoder.name, options.json)
    return 0 if all(check.passed for check in checks) else 1


class _Shelf:
    """Where the pictures and the embeddings of one `tests.yaml` are.

    Args:
        directory: Of the embeddings.
        images: Of the pictures.
    """

    def __init__(self, directory: Path, images: Path) -> None:
        self._directory = directory
        self._images = images

    def embeddings(
        self, cases: Sequence[Case], encoder: ClipEncoder, settings: Settings
    ) -> dict[str, Matrix | JobError]:
        """Return each case's embedding: recorded where it names a file, else made now.

        Raises:
            EmbeddingsUnusable: A file is not there, is of another model, or lacks a case.
        """
        from worker.policy.stored import EmbeddingsUnusable, read_embeddings

        found = self._look([case for case in cases if case.embedding is None], encoder, settings)
        for name in _files(cases):
            file = self._directory / name
            stored = read_embeddings(file)
            stored.require(encoder.name, encoder.dim, file)
            wanted = [case.name for case in cases if case.embedding == name]
            lacking = [case for case in wanted if case not in stored.images]
            if lacking:
                shown = ", ".join(map(repr, lacking[:3])) + (" …" if lacking[3:] else "")
                raise EmbeddingsUnusable(f"{file} lacks {shown}; add them with --record, where their pictures are")
            found |= {case: stored.images[case] for case in wanted}
        return found

    def record(self, cases: Sequence[Case], encoder: ClipEncoder, settings: Settings) -> None:
        """Write the embeddings of every case that names a file for them.

        Raises:
            UsageError: None does, one lacks its picture, or a picture cannot be judged; nothing is written then.
        """
        from worker.policy.stored import StoredEmbeddings

        recorded = [case for case in cases if case.embedding is not None]
        bare = [case.name for case in recorded if case.image is None]
        if not recorded or bare:
            which = f"case {bare[0]!r} names no image" if bare else "no case names an embedding file"
            raise UsageError(f"nothing to record: {which}; add `image: PICTURE` and `embedding: tests.npz` to the case")
        found = self._look(recorded, encoder, settings)
        made: dict[str, Matrix] = {}
        for name, embedding in found.items():
            if isinstance(embedding, JobError):
                raise UsageError(f"case {name!r} cannot be recorded: {embedding}; nothing was written")
            made[name] = embedding
        for name in _files(recorded):
            images = {case.name: made[case.name] for case in recorded if case.embedding == name}
            StoredEmbeddings(encoder.name, encoder.precision, images).write(self._directory / name)

    def _look(self, cases: Sequence[Case], encoder: ClipEncoder, settings: Settings) -> dict[str, Matrix | JobError]:
        import numpy as np

        from worker.app import decode_limits, view_spec
        from worker.intake.decode import decode

        limits, spec = decode_limits(settings), view_spec(encoder, settings)
        found: dict[str, Matrix | JobError] = {}
        views = {}
        for case in cases:
            try:
                views[case.name] = decode(_read(self._images / str(case.image), case.name), limits, spec).views
            except ImageRejected as error:
                found[case.name] = error
        if views:
            rows = encoder.embed_images([view for seen in views.values() for view in seen])
            ends = np.cumsum([len(seen) for seen in views.values()])[:-1]
            found |= zip(views, np.split(rows, ends), strict=True)
        return found


def _files(cases: Iterable[Case]) -> list[str]:
    return list(dict.fromkeys(case.embedding for case in cases if case.embedding is not None))


def _read(file: Path, case: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        mend = "name its picture, say where pictures are with --images, or record it (`embedding: tests.npz`)"
        raise UsageError(f"case {case!r}: {file}: {error.strerror}; {mend}") from error


def _report(checks: Sequence[Check], model: str, as_json: bool) -> None:
    if as_json:
        for check in checks:
            print_json(check.as_dict())
        return
    table = Table("policy", "case", "category", "expected", "action", "score", "")
    table.columns[1].overflow = table.columns[2].overflow = "fold"
    for check in checks:
        said = check.action or f"({check.reason})"
        score = "" if check.score is None else f"{check.score:.3f}"
        mark = "[green]ok[/]" if check.passed else "[red]FAILED[/]"
        table.add_row(
            check.policy, escape(check.case), check.category or "(all of it)", check.expected, said, score, mark
        )
    Console().print(table)
    failed = sum(not check.passed for check in checks)
    print(f"{len(checks)} expectations under {model}: {len(checks) - failed} hold, {failed} failed")
