"""Jobs as a hostile producer writes them, straight into Redis: each with how it must end."""

from __future__ import annotations

import json
import pickle
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import redis
from house import INLINE, MODERATE

NOW = "2026-01-01T00:00:00.000000Z"
#: What the worker of these tests takes at most, before base64.
IMAGE_MAX_BYTES = 64 * 1024

End = Literal["judged", "failed", "refused", "dropped"]


@dataclass(frozen=True)
class Raw:
    """One job.

    Attributes:
        end: judged as if nothing were wrong; failed, but with the verdict of a judged one; refused as `invalid_job`;
            dropped, because it is no job.
        data: RQ's `data`; None leaves it out.
        fields: More of its hash.
        said: The `content_id` of its one verdict; None: it has none, for nobody can say whose it is.
        because: What the reason of its failure says.
        beside: Commands that follow, with the job's id for `{id}`.
    """

    end: End
    data: bytes | None
    fields: dict[str, Any] = field(default_factory=dict)
    said: str | None = None
    because: str = ""
    beside: tuple[tuple[Any, ...], ...] = ()


def call(function: Any = MODERATE, *, content_id: Any = "mine", **changes: Any) -> bytes:
    """Return a call as RQ writes it, not compressed."""
    return json.dumps([function, None, [], {"image": INLINE, "content_id": content_id} | changes]).encode()


def text(arguments: str) -> bytes:
    """Return a call of `moderate` with arguments as they are written here."""
    return f'["{MODERATE}", null, [], {{"image": {json.dumps(INLINE)}, {arguments}}}]'.encode()


def bomb(megabytes: int, head: bytes = b"") -> bytes:
    """Return what inflates to so many megabytes."""
    packer = zlib.compressobj(9)
    block = b" " * 2**20
    return packer.compress(head) + b"".join(packer.compress(block) for _ in range(megabytes)) + packer.flush()


class _Marks:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.mark,)


def _refused(data: bytes, because: str, said: str | None = "mine", **fields: Any) -> Raw:
    return Raw("refused", data, fields, said, because)


def _judged(**fields: Any) -> Raw:
    return Raw("judged", call(), fields, "mine")


def payloads(mark: Path) -> dict[str, Raw]:
    """Return every payload by its name.

    Args:
        mark: A file that none of them may leave behind.
    """
    return _calls(mark) | _texts() | _arguments() | _sizes() | _hashes() | _keys()


def _calls(mark: Path) -> dict[str, Raw]:
    only = "this worker runs worker.jobs.moderate with keyword arguments and nothing else"
    image = json.dumps(INLINE)
    return {
        "another function": _refused(call("os.system"), only),
        "a function that leaves a mark": _refused(call("side_effect.run"), only),
        "a method of moderate": _refused(call("worker.jobs.moderate.__call__"), only),
        "moderate with a blank": _refused(call("worker.jobs.moderate "), only),
        "another function of ours": _refused(call("worker.jobs.as_return_value"), only),
        "a function that is a list": _refused(call([MODERATE]), only),
        "no function": _refused(call(None), only),
        "an instance": _refused(f'["{MODERATE}", "x", [], {{"content_id": "mine"}}]'.encode(), only),
        "arguments by position": _refused(f'["{MODERATE}", null, [{image}], {{"content_id": "mine"}}]'.encode(), only),
        "keywords that are a list": _refused(f'["{MODERATE}", null, [], ["content_id"]]'.encode(), only, None),
        "a pickled call": _refused(pickle.dumps((MODERATE, None, (), {"content_id": "mine"})), "is not JSON", None),
        "a pickle that runs": _refused(pickle.dumps(_Marks(mark)), "is not JSON", None),
        "a packed pickle that runs": _refused(zlib.compress(pickle.dumps(_Marks(mark))), "is not JSON", None),
        "three parts": _refused(f'["{MODERATE}", null, []]'.encode(), "is not a call", None),
        "five parts": _refused(f'["{MODERATE}", null, [], {{"content_id": "mine"}}, 1]'.encode(), "not a call", None),
    }


def _texts() -> dict[str, Raw]:
    whole, image = zlib.compress(call()), json.dumps(INLINE)
    lists, objects = "[" * 100_000 + "]" * 100_000, '{"a":' * 60_000 + "1" + "}" * 60_000
    return {
        "nothing": _refused(b"", "is not JSON", None),
        "wrong UTF-8": _refused(call().replace(b"mine", b"mi\xffne"), "is not JSON", None),
        "a surrogate in UTF-8": _refused(call().replace(b"mine", b"mi\xed\xa0\x80ne"), "is not JSON", None),
        "UTF-16": _refused(call().decode().encode("utf-16"), "is not JSON", None),
        "a byte order mark": _refused(b"\xef\xbb\xbf" + call(), "is not JSON", None),
        "a NUL between": _refused(call() + b"\x00", "is not JSON", None),
        "two calls": _refused(call() + call(), "is not JSON", None),
        "a comment": _refused(call() + b"// why not", "is not JSON", None),
        "cut short": _refused(whole[:-1], "cut short", None),
        "more behind the end": _refused(whole + call(content_id="theirs"), "more follows", None),
        "a wrong checksum": _refused(whole[:-1] + bytes([whole[-1] ^ 1]), "not what RQ compresses", None),
        "content_id twice": _refused(text('"content_id": "mine", "content_id": "theirs"'), "content_id is given", None),
        "policy twice": _refused(text('"content_id": "mine", "policy": "a", "policy": "b"'), "policy is given twice"),
        "an image twice": _refused(text(f'"content_id": "mine", "image": {image}'), "image is given twice"),
        "NaN": _refused(text('"content_id": "mine", "policy": NaN'), "is not JSON", None),
        "Infinity": _refused(text('"content_id": "mine", "policy": -Infinity'), "is not JSON", None),
        "5,000 digits": _refused(text(f'"content_id": "mine", "policy": {"9" * 5000}'), "is not JSON", None),
        "lists in lists": _refused(text(f'"content_id": "mine", "policy": {lists}'), "is not JSON", None),
        "objects in objects": _refused(text(f'"content_id": "mine", "policy": {objects}'), "is not JSON", None),
        "brackets only": _refused(b"[" * 1_000_000, "commas and brackets", None),
        "a list of half a million": _refused(text('"policy": [' + "0," * 500_000 + "0]"), "commas and brackets", None),
    }  # fmt: skip


def _arguments() -> dict[str, Raw]:
    return {
        "an unknown argument": _refused(call(priority="high"), "priority is not an argument"),
        "10,000 unknown arguments": _refused(call(**{f"x{n}": n for n in range(10_000)}), "and 9920 more"),
        "a content_id with a line feed": _refused(call(content_id="a\nb"), "content_id: control characters", None),
        "a content_id with NUL": _refused(call(content_id="a\x00"), "content_id: control characters", None),
        "a content_id of half a character": _refused(call(content_id="\ud800"), "content_id", None),
        "a content_id that is a number": _refused(call(content_id=7), "content_id: input should be", None),
        "no content_id": _refused(call(content_id=None), "content_id: input should be", None),
        "NUL in a URL": _refused(call(image={"url": "http://127.0.0.1/\x00"}), "image.url: control characters"),
        "two images": _refused(call(image={"url": "http://127.0.0.1/", "path": "x"}), "exactly one"),
        "an image that is a list": _refused(call(image=[]), "image: input should be"),
        "a policy that is a path": _refused(call(policy="../../etc/passwd"), "policy: write it"),
        "a webhook that is a file": _refused(call(webhook="file:///etc/passwd"), "webhook"),
        "metadata of 700 kB": _refused(call(metadata={"a": "x" * 700_000}), "metadata.a: string should have at most"),
        "metadata in metadata": _refused(call(metadata={"a": {"b": {}}}), "metadata.a: input should be"),
        "NUL in metadata": _refused(call(metadata={"a": "\x00"}), "metadata.a: a NUL"),
    }


def _sizes() -> dict[str, Raw]:
    large = "larger than a job may be"
    return {
        "metadata of 10 MB": _refused(call(metadata={"a": "x" * 10_000_000}), large, None),
        "packed metadata of 10 MB": _refused(zlib.compress(call(metadata={"a": "x" * 10_000_000})), "more than", None),
        "a bomb": _refused(bomb(300, call()[:-1]), "more than", None),
        "a bomb in a bomb": _refused(zlib.compress(bomb(300)), "is not JSON", None),
        "a bomb beside the data": Raw("judged", call(), {"exc_info": bomb(300)}, "mine"),
        "a bomb of a result": Raw("judged", call(), {"result": bomb(300)}, "mine"),
        "a description of 100 MB": _refused(call(), large, description=b"x" * 100_000_000),
        "meta of 5 MB": _refused(call(), large, meta=b'{"a": "' + b"x" * 5_000_000 + b'"}'),
        "2,000 fields": _refused(call(), large, **{f"field{number}": "" for number in range(2000)}),
        "an unknown field of 5 MB": _refused(call(), large, anything=b"x" * 5_000_000),
    }  # fmt: skip


def _hashes() -> dict[str, Raw]:
    digits = "9" * 5000
    named = {
        "timeout": ["1e30", "-7", "nan", "0.0001", digits, b"\xff"],
        "result_ttl": ["9" * 30, "soon", "-2"],
        "failure_ttl": ["9" * 30, "1e9", "-99999999999999999999"],
        "ttl": ["never"],
        "created_at": ["yesterday", "9999-99-99T99:99:99.0Z", ""],
        "enqueued_at": ["0001-01-01T00:00:00.000000Z", b"\xff"],
        "status": ["lost"],
        "meta": ["{", b"\xff", "[" * 100_000, '"text"', "1"],
        "retries_left": ["some", digits, "-1"],
        "retry_intervals": ["{}", "[]", "[1e999]", "[-5]"],
        "repeats_left": ["x"],
        "dependency_ids": ["no json", '{"a": 1}', "[[[]]]", '["{id}"]'],
        "rate_limit_concurrency": ["0"],
        "sluice_deaths": [digits, "-1", "a few"],
        "sluice_is_text": [b"\xff\xfe"],
        "success_callback_timeout": [""],
        "enqueue_at_front": ["maybe"],
        "group_id": [b"\xff"],
        "origin": [b"\xff"],
        "webhooks": ["[" * 100_000, '[{"url": "http://127.0.0.1:1/"}]'],
        "success_callback_name": ["side_effect.run", b"\xff"],
    }  # fmt: skip
    return {
        f"{name} {number}": _judged(**{name: value})
        for name, values in named.items()
        for number, value in enumerate(values, 1)
    } | {"a field whose name is no text": Raw("judged", call(), {b"\xff": b"\xff"}, "mine")}  # type: ignore[dict-item]


def _keys() -> dict[str, Raw]:
    """Return jobs around which other keys are not what they should be."""
    other = call("os.system")

    def beside(end: End, data: bytes, command: str, *rest: str, **fields: str) -> Raw:
        return Raw(end, data, fields, "mine", "", ((command, "rq:job:{id}:dependents", *rest),))

    def instead(command: str) -> Raw:
        return Raw("dropped", None, {}, None, "", (("DEL", "rq:job:{id}"), (command, "rq:job:{id}", "x")))

    return {
        "no data": Raw("dropped", None),
        "a string": instead("SET"),
        "a list": instead("RPUSH"),
        "dependents that are a string": beside("failed", call(), "SET", "x"),
        "another function and such dependents": beside("refused", other, "SET", "x"),
        "a dependent that is not there": beside("judged", call(), "SADD", "nobody"),
        "a dependent that is no id": beside("judged", call(), "SADD", "a\nb"),
        "itself as a dependent": beside("failed", call(), "SADD", "{id}"),
        "itself as a dependent and a dependency": beside("judged", call(), "SADD", "{id}", dependency_ids='["{id}"]'),
        "a dependent that is a string": beside("failed", call(), "SADD", "a-string"),
        "another function and such a dependent": beside("refused", other, "SADD", "a-string"),
    }


def push(connection: redis.Redis, job_id: str, raw: Raw) -> None:
    """Write one job into Redis and onto the queue."""
    row = {"created_at": NOW, "enqueued_at": NOW, "origin": "moderation", "status": "queued"} | raw.fields
    if raw.data is not None:
        row.setdefault("data", raw.data)
    row = {name: value.replace("{id}", job_id) if isinstance(value, str) else value for name, value in row.items()}
    with connection.pipeline() as transaction:
        transaction.hset(f"rq:job:{job_id}", mapping=row)
        for command in raw.beside:
            transaction.execute_command(*(str(part).replace("{id}", job_id) for part in command))
        transaction.rpush("rq:queue:moderation", job_id)
        transaction.execute()
