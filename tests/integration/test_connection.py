"""What Redis is asked through: scripts that outlive the Redis that knew them."""

from __future__ import annotations

import redis

from worker.connection import Script

SOURCE = "return {KEYS[1], ARGV[1]}"


def test_a_script_is_sent_once_and_then_called_by_its_digest(connection: redis.Redis) -> None:
    script = Script(connection, SOURCE)
    connection.config_resetstat()
    assert [script(("key",), ("argument",)) for _ in range(3)] == [[b"key", b"argument"]] * 3
    assert _calls(connection) == {"eval": 1, "evalsha": 3}


def test_a_script_that_redis_forgot_needs_nothing_that_another_redis_was_told(connection: redis.Redis) -> None:
    script = Script(connection, SOURCE)
    script(("key",), ("argument",))
    connection.script_flush()
    connection.config_resetstat()
    assert script(("key",), ("argument",)) == [b"key", b"argument"]
    # Were it loaded first, a Redis that is replaced between the two would not know it.
    assert _calls(connection) == {"eval": 1, "evalsha": 1}


def _calls(connection: redis.Redis) -> dict[str, int]:
    about = connection.info("commandstats")
    names = {name.removeprefix("cmdstat_"): row["calls"] for name, row in about.items()}  # type: ignore[union-attr]
    return {name: calls for name, calls in names.items() if name.startswith(("eval", "script"))}
