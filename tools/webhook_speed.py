"""How many verdicts a second `sluice deliver` posts: `python -m tools.webhook_speed [VERDICTS]`.

In: nothing; a Redis and a receiver of its own on loopback. Out: a line for each case. Judges nothing.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time

import redis

from worker.cli.embedded_redis import embedded_redis
from worker.runtime.deliver import Deliverer, Schedule
from worker.runtime.lanes import IN_FLIGHT
from worker.sinks.outbox import Outbox
from worker.sinks.stream import STREAM
from worker.sinks.webhook import Reach, Webhooks

_PADDING = "x" * 1500


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"POST /hangs" in head:
                await asyncio.sleep(3600)
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def _receive() -> int:
    """Start a receiver in a thread; its port."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(_answer, "127.0.0.1", 0, backlog=512), loop).result()
    return int(server.sockets[0].getsockname()[1])


def _measure(connection: redis.Redis, port: int, verdicts: int, endpoints: int, hanging: int) -> float:
    """Return verdicts a second, spread over endpoints, beside some that hang."""
    connection.flushall()
    delivered, done = [0], threading.Event()

    def count(outcome: str, times: int) -> None:
        delivered[0] += times if outcome == "delivered" else 0
        if delivered[0] == verdicts:
            done.set()

    for number in range(hanging + verdicts):
        path = f"hangs/{number}" if number < hanging else f"hook/{number % endpoints}"
        body = json.dumps({"verdict_id": f"v{number}", "padding": _PADDING})
        connection.xadd(STREAM, {"verdict": body, "webhook": f"http://127.0.0.1:{port}/{path}"})
    own = f"http://127.0.0.1:{port}/hook/0"
    webhooks = Webhooks((b"k" * 32,), 60.0, Reach(allow_private=True), IN_FLIGHT)
    deliverer = Deliverer(connection, Outbox(connection, 100_000), webhooks, Schedule((5.0,)), own, 65.0, count)
    thread = threading.Thread(target=deliverer.run)
    begun = time.perf_counter()
    thread.start()
    done.wait()
    seconds = time.perf_counter() - begun
    deliverer.stop()
    thread.join()
    return verdicts / seconds


def main() -> None:
    """Measure."""
    verdicts = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    port = _receive()
    with embedded_redis() as (url, _), redis.Redis.from_url(url) as connection:
        for endpoints, hanging in ((1, 0), (100, 0), (1, 100)):
            rate = _measure(connection, port, verdicts, endpoints, hanging)
            print(f"{verdicts} verdicts to {endpoints} endpoints, beside {hanging} that hang: {rate:.0f}/s", flush=True)


if __name__ == "__main__":
    main()
