"""The fleet's registry in a real Redis, and changes brought into a running process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import redis
from support import HOUSE_POLICY, until, write_house_policies

from worker.at_work import find_policies
from worker.errors import PolicyConflict, PolicyInvalid, PolicyMissing
from worker.policy import changes
from worker.policy.changes import State
from worker.policy.fleet import HISTORY, IDS, REVISION, Fleet, state_key, versions_key
from worker.policy.lint import lint_policy
from worker.policy.publishing import Author
from worker.policy.registry import PolicySet, load_directory
from worker.policy.rollout import Rollout
from worker.policy.schema import Policy
from worker.policy.sources import DirectorySource, PolicySource, RedisSource
from worker.policy.watch import Reload, Watcher
from worker.settings import Settings


def house(version: int, review: float = 0.5) -> tuple[str, Policy]:
    text = HOUSE_POLICY.format(version=version, review=review)
    policy, findings = lint_policy(text, "house")
    assert policy is not None, findings
    return text, policy


@pytest.fixture
def author(connection: redis.Redis) -> Author:
    """Somebody with versions 1 and 2 published, and 1 live."""
    author = Author(connection, "ada")
    for version in (1, 2):
        assert author.publish(*house(version))
    activate(author, 1)
    return author


def activate(author: Author, version: int) -> tuple[State, State]:
    return author.change(
        "house", f"activate {version}", lambda state, known: changes.activate("house", state, version, known)
    )


# -- the registry ------------------------------------------------------------------------------------------------------


def test_what_is_published_and_activated_is_loaded(connection: redis.Redis, author: Author) -> None:
    found = Fleet(connection).load()

    assert found.refs() == ["house", "house@1", "house@2"]
    assert found.policies["house", 2] == house(2)[1]
    assert found.rollouts == {"house": Rollout(live=1)}


def test_an_empty_redis_says_how_to_fill_it(connection: redis.Redis) -> None:
    with pytest.raises(PolicyMissing, match=r"sluice policy publish --all policies/"):
        Fleet(connection).load()


def test_the_same_words_are_published_once_and_other_words_never(connection: redis.Redis, author: Author) -> None:
    revision = Fleet(connection).revision()
    text, policy = house(2)

    assert not author.publish("# A comment changes nothing.\n" + text, policy)
    with pytest.raises(PolicyConflict, match=r"house@2 is published and never changes; the next free version is 3"):
        author.publish(*house(2, review=0.1))
    assert Fleet(connection).revision() == revision


def test_the_history_says_who_did_what_and_is_not_touched_by_what_failed(
    connection: redis.Redis, author: Author
) -> None:
    activate(Author(connection, "bob"), 2)
    with pytest.raises(PolicyConflict):
        activate(author, 2)

    told = [(change.who, change.what, change.before, change.after) for change in Fleet(connection).history("house")]
    assert told == [
        ("ada", "publish", "", f"version 1 {house(1)[1].digest}"),
        ("ada", "publish", "", f"version 2 {house(2)[1].digest}"),
        ("ada", "activate 1", "nothing at work", "live 1"),
        ("bob", "activate 2", "live 1", "live 2"),
    ]
    assert Fleet(connection).history("other") == []


def test_of_two_authors_at_once_the_second_is_told_and_nothing_is_mixed(
    connection: redis.Redis, author: Author, redis_url: str
) -> None:
    other = Author(redis.Redis.from_url(redis_url), "bob")

    def slowly(state: State, known: set[int]) -> State:
        other.change("house", "shadow 2", lambda state, known: changes.shadow("house", state, 2, known))
        return changes.activate("house", state, 2, known)

    with pytest.raises(PolicyConflict, match="somebody else changed house at the same moment"):
        author.change("house", "activate 2", slowly)
    assert Fleet(connection).load().rollouts == {"house": Rollout(live=1, shadow=(2,))}


def test_of_many_authors_at_once_each_has_a_line_or_a_conflict(
    connection: redis.Redis, author: Author, redis_url: str
) -> None:
    told: list[str] = []

    def run(name: str) -> None:
        mine = Author(redis.Redis.from_url(redis_url), name)
        for turn in range(10):
            try:
                activate(mine, 1 + turn % 2)
            except PolicyConflict:
                told.append("conflict")
            else:
                told.append("done")

    threads = [threading.Thread(target=run, args=(name,)) for name in ("ada", "bob", "eve")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lives = [change.after for change in Fleet(connection).history("house") if change.what.startswith("activate")]
    assert len(told) == 30
    assert len(lives) == 1 + told.count("done")
    # Each found what the one before it had left.
    assert all(one != two for one, two in pairwise(lives))


def test_a_directory_seeds_the_registry_and_overwrites_nothing_at_work(
    connection: redis.Redis, tmp_path: Path, author: Author
) -> None:
    directory = write_house_policies(tmp_path / "policies")
    (directory / "house" / "v2.yaml").write_text(house(2)[0])
    (directory / "other").mkdir()
    (directory / "other" / "v1.yaml").write_text(house(1)[0].replace("policy: house", "policy: other"))
    (directory / "rollout.yaml").write_text("house: {live: 3}\nother: {live: 1}\n")
    found = load_directory(directory)
    texts = [((directory / policy.policy / f"v{policy.version}.yaml").read_text(), policy)
             for policy in found.policies.values()]  # fmt: skip

    assert author.seed(texts, found.rollouts) == ["published house@3", "published other@1", "other: live 1"]
    assert Fleet(connection).load().rollouts == {"house": Rollout(live=1), "other": Rollout(live=1)}
    assert author.seed(texts, found.rollouts) == []


@pytest.mark.parametrize("what", ["a version", "no JSON", "no number", "a state", "a lost version"])
def test_what_was_not_written_by_the_commands_is_an_error_that_names_its_key(
    connection: redis.Redis, author: Author, what: str
) -> None:
    match what:
        case "a version":
            row = {"text": house(1)[0], "digest": "", "author": "eve", "created_at": ""}
            connection.hset(versions_key("house"), "7", json.dumps(row))
        case "no JSON":
            connection.hset(versions_key("house"), "7", b"\xff")
        case "no number":
            connection.hset(versions_key("house"), "seven", b"{}")
        case "a state":
            connection.set(state_key("house"), b'{"rollout": {"live": "one"}}')
        case _:
            connection.hdel(versions_key("house"), "1")

    with pytest.raises(PolicyInvalid) as caught:
        Fleet(connection).load()
    assert all("sluice:policy:house:" in finding for finding in caught.value.findings)


def test_a_set_survives_the_way_to_another_process(connection: redis.Redis, author: Author) -> None:
    found = Fleet(connection).load()
    again = PolicySet.from_json(found.to_json())

    assert again == found
    assert again.policies["house", 1].digest == house(1)[1].digest


def test_a_registry_that_could_not_be_read_is_read_at_the_first_look_that_can(
    connection: redis.Redis, author: Author, redis_url: str
) -> None:
    settings = Settings(redis_url=redis_url, policies="redis", policy="house")
    kept = find_policies(settings).policies
    ids = connection.dump(IDS)
    connection.set(IDS, "of another type")
    found = find_policies(settings, kept)
    assert (found.policies, found.problem is None) == (kept, False)
    assert isinstance(ids, bytes)
    connection.restore(IDS, 0, ids, replace=True)

    assert found.source.mark() != found.mark


# -- changes brought in ------------------------------------------------------------------------------------------------


class Process:
    """What a watcher puts to work, and what it tells."""

    def __init__(self, policies: PolicySet) -> None:
        self.policies = policies
        self.told: list[Reload] = []

    def use(self, policies: PolicySet) -> None:
        self.policies = policies

    def live(self) -> int:
        return self.policies.rollouts["house"].live

    def hears(self, result: str, times: int = 1) -> Reload:
        until(lambda: [each.result for each in self.told].count(result) >= times, what=f"{result} is told")
        return self.told[-1]


@contextmanager
def watching(source: PolicySource) -> Iterator[Process]:
    mark = source.mark()
    process = Process(source.load())
    watcher = Watcher(source, mark, process.use, process.told.append)
    watcher.start()
    try:
        yield process
    finally:
        watcher.close()
        assert not watcher.is_alive()


def test_a_change_in_the_registry_is_brought_in(author: Author, redis_url: str) -> None:
    with watching(RedisSource(redis.Redis.from_url(redis_url))) as process:
        activate(author, 2)
        until(lambda: process.live() == 2, what="version 2 is live")
        assert process.hears("ok") == Reload("ok")


def test_an_emptied_redis_leaves_what_is_at_work(connection: redis.Redis, author: Author, redis_url: str) -> None:
    with watching(RedisSource(redis.Redis.from_url(redis_url))) as process:
        connection.flushall()
        assert "publish --all" in str(process.hears("missing").problem)
        assert process.live() == 1
        again = Author(connection, "ada")
        again.publish(*house(2))
        activate(again, 2)
        until(lambda: process.live() == 2, what="version 2 is live")


def test_a_broken_registry_leaves_what_is_at_work(connection: redis.Redis, author: Author, redis_url: str) -> None:
    with watching(RedisSource(redis.Redis.from_url(redis_url))) as process:
        connection.set(state_key("house"), b"{")
        connection.set(REVISION, "other")
        assert state_key("house") in str(process.hears("invalid").problem)
        assert process.live() == 1
        assert connection.xlen(HISTORY) == 3


def _write(directory: Path) -> None:
    (directory / "rollout.yaml").write_text("house: {live: 3}\n")


def _replace(directory: Path) -> None:
    (directory / "new").write_text("house: {live: 3}\n")
    (directory / "new").rename(directory / "rollout.yaml")


@pytest.mark.parametrize("edit", [_write, _replace])
def test_a_change_in_a_directory_is_brought_in(tmp_path: Path, edit: Callable[[Path], None]) -> None:
    directory = write_house_policies(tmp_path / "policies")
    with watching(DirectorySource(directory)) as process:
        edit(directory)
        until(lambda: process.live() == 3, what="version 3 is live")


@pytest.mark.parametrize("layout", ["the directory is a link", "a ConfigMap"])
def test_a_swapped_link_is_brought_in(tmp_path: Path, layout: str) -> None:
    for name, live in (("one", 1), ("two", 3)):
        write_house_policies(tmp_path / name)
        (tmp_path / name / "rollout.yaml").write_text(f"house: {{live: {live}}}\n")
    directory = tmp_path / "policies"
    if layout == "a ConfigMap":
        directory.mkdir()
        for name in ("house", "rollout.yaml"):
            (directory / name).symlink_to(Path("..data") / name)
    link = directory / "..data" if layout == "a ConfigMap" else directory
    link.symlink_to(tmp_path / "one")
    with watching(DirectorySource(directory)) as process:
        assert process.live() == 1
        (tmp_path / "next").symlink_to(tmp_path / "two")
        (tmp_path / "next").replace(link)
        until(lambda: process.live() == 3, what="version 3 is live")


def test_a_broken_file_leaves_what_is_at_work_until_it_is_mended(tmp_path: Path) -> None:
    directory = write_house_policies(tmp_path / "policies")
    broken = directory / "house" / "v4.yaml"
    with watching(DirectorySource(directory)) as process:
        broken.write_text("policy: house\nversion: 4\n")
        assert "v4.yaml:1:1: contrast: required key is missing" in str(process.hears("invalid").problem)
        _write(directory)
        process.hears("invalid", 2)
        assert process.live() == 1
        broken.write_text(house(4)[0])
        until(lambda: process.live() == 3, what="version 3 is live")


def test_a_file_that_is_half_written_is_waited_for(tmp_path: Path) -> None:
    directory = write_house_policies(tmp_path / "policies")
    text = house(4)[0]
    with watching(DirectorySource(directory)) as process:
        with (directory / "house" / "v4.yaml").open("w") as file:
            for start in range(0, len(text), 80):
                file.write(text[start : start + 80])
                file.flush()
                threading.Event().wait(0.05)
        until(lambda: ("house", 4) in process.policies.policies, what="version 4 is there")
        assert {each.result for each in process.told} == {"ok"}


def test_a_directory_that_goes_away_and_comes_back_is_followed(tmp_path: Path) -> None:
    directory = write_house_policies(tmp_path / "policies")
    with watching(DirectorySource(directory)) as process:
        directory.rename(tmp_path / "away")
        process.hears("missing")
        _write(tmp_path / "away")
        (tmp_path / "away").rename(directory)
        until(lambda: process.live() == 3, what="version 3 is live")


def test_a_defect_while_policies_are_put_to_work_is_told_and_leaves_those_at_work(tmp_path: Path) -> None:
    directory = write_house_policies(tmp_path / "policies")
    source = DirectorySource(directory)
    told: list[Reload] = []

    def fail(_: PolicySet) -> None:
        raise ZeroDivisionError("a defect")

    watcher = Watcher(source, source.mark(), fail, told.append)
    watcher.start()
    _write(directory)
    until(partial(bool, told), what="it is told")
    watcher.close()
    assert told[0] == Reload("failed", "ZeroDivisionError: a defect")
