"""A reviewer's correction → the next version of a policy, with an exemplar more or less.

In: a version's file, and an image's embedding or an exemplar's name. Out: the next version, and beside it a file of the
embedding that is named by its content. Never a change of a file that is there: versions that are out name them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from worker.errors import PolicyConflict, PolicyMissing, UsageError
from worker.policy.beside import file_name
from worker.policy.exemplars import Exemplar, Kind
from worker.policy.files import valid_policy
from worker.policy.next_version import write_next
from worker.policy.schema import Category, Policy
from worker.policy.stored import StoredEmbeddings


def add_exemplar(
    file: Path, category: str, kind: Kind, image: StoredEmbeddings, strength: float | None = None
) -> tuple[Path, Policy]:
    """Write the next version, with an exemplar more.

    Args:
        file: The version to start from.
        category: Which.
        kind: Whether the image was missed or wrongly flagged.
        image: One image's embeddings, and its name.
        strength: The category's from now on; None leaves it.

    Returns:
        The new file, and the policy in it.

    Raises:
        PolicyInvalid: The start or what came of it has errors; nothing is written then.
        PolicyMissing: There is no such category.
        PolicyConflict: The category has the image already, or somebody else wrote this version meanwhile.
        UsageError: The files cannot be written.
        Missing: The extra `report` is not installed.
    """
    ((name, rows),) = image.images.items()
    known = _category(valid_policy(file), category)
    content = image.to_bytes()
    ref = f"{file_name(content)}#{name}"
    for other, _, found in known.exemplars.pools() if known.exemplars else ():
        if found.embeddings == Exemplar.of(found.ref, image.model, rows).embeddings:
            raise PolicyConflict(f"{category} has this image as {other} already ({found.ref}); remove that first")

    def edit(document: Any) -> None:
        from worker.policy.blocks import add_to  # noqa: PLC0415 - an extra, and write_next says so

        add_to(document["categories"][category], kind, ref, strength)

    is_new = _put(file.parent / file_name(content), content)
    try:
        return write_next(file, edit)
    except BaseException:
        if is_new:
            (file.parent / file_name(content)).unlink(missing_ok=True)
        raise


def remove_exemplar(file: Path, category: str, name: str) -> tuple[Path, Policy, str]:
    """Write the next version, with an exemplar less; the file of its embedding stays.

    Args:
        file: The version to start from.
        category: Which.
        name: What the image is called, or the whole `FILE.npz#NAME`.

    Returns:
        The new file, the policy in it, and the ref that is gone.

    Raises:
        PolicyInvalid: The start has errors.
        PolicyMissing: There is no such category, or no such exemplar in it.
        PolicyConflict: Somebody else wrote this version meanwhile.
        UsageError: Several have the name; or the file cannot be written.
        Missing: The extra `report` is not installed.
    """
    known = _category(valid_policy(file), category)
    pools = list(known.exemplars.pools()) if known.exemplars else []
    found = [(kind, index, each.ref) for kind, index, each in pools if name in (each.name, each.ref)]
    if not found:
        there = f"it has {', '.join(each.ref for _, _, each in pools[:5])}" if pools else "it has none"
        raise PolicyMissing(f"{category} of {file} has no exemplar {name}; {there}")
    if len(found) > 1:
        raise UsageError(f"{name!r} may be {' or '.join(ref for _, _, ref in found)}; name the one that is meant")
    ((kind, index, ref),) = found

    def edit(document: Any) -> None:
        from worker.policy.blocks import take_from  # noqa: PLC0415 - as above

        take_from(document["categories"][category], kind, index)

    return *write_next(file, edit), ref


def _category(policy: Policy, name: str) -> Category:
    if name not in policy.categories:
        raise PolicyMissing(f"{policy.ref} has no category {name}; it has {', '.join(policy.categories)}")
    return policy.categories[name]


def _put(file: Path, content: bytes) -> bool:
    """Write a file that is named by its content; whether it was not there yet."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        try:
            draft.write_bytes(content)
            file.hardlink_to(draft)
        finally:
            draft.unlink(missing_ok=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}; make the directory writable") from error
    return True
