"""A webhook is signed as the specification's own library checks it, and secrets stay secret."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from receiver import OLD_SECRET, SECRET
from standardwebhooks import Webhook, WebhookVerificationError

from worker.errors import UsageError
from worker.sinks.webhook import read_retry_after, read_secrets, sign

BODY = '{"verdict_id": "abc", "content_id": "ü"}'.encode()


def headers(keys: tuple[bytes, ...], timestamp: int) -> dict[str, str]:
    return {
        "webhook-id": "abc", "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(keys, "abc", timestamp, BODY),
    }  # fmt: skip


def test_a_signature_verifies_with_the_package_of_the_specification() -> None:
    assert Webhook(SECRET).verify(BODY, headers(read_secrets(SECRET), int(time.time()))) == json.loads(BODY)


def test_the_example_of_the_package_has_the_same_signature() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    assert sign(read_secrets(SECRET), "abc", int(moment.timestamp()), BODY) == Webhook(SECRET).sign(
        "abc", moment, BODY.decode()
    )


@pytest.mark.parametrize("secret", [SECRET, OLD_SECRET])
def test_during_a_rotation_both_secrets_verify(secret: str) -> None:
    signed = headers(read_secrets(f"{SECRET}, {OLD_SECRET}"), int(time.time()))

    assert signed["webhook-signature"].count("v1,") == 2
    assert Webhook(secret).verify(BODY, signed)


def test_another_body_another_id_and_another_secret_do_not_verify() -> None:
    signed = headers(read_secrets(SECRET), int(time.time()))
    for secret, body, changed in (
        (OLD_SECRET, BODY, {}),
        (SECRET, BODY + b" ", {}),
        (SECRET, BODY, {"webhook-id": "abd"}),
        (SECRET, BODY, {"webhook-timestamp": str(int(time.time()) + 1)}),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, signed | changed)


@pytest.mark.parametrize(
    "text",
    [
        "geheim",
        "whsec_",
        "whsec_geheim!",
        "whsec_" + base64.b64encode(b"g" * 23).decode(),
        "whsec_" + base64.b64encode(b"g" * 65).decode(),
        base64.b64encode(b"g" * 32).decode(),
        f"{SECRET},",
        f"{SECRET},whsec_geheim",
    ],
)
def test_a_secret_that_is_none_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(UsageError, match=r"SLUICE_WEBHOOK_SECRET: secret \d is not whsec_") as caught:
        read_secrets(text)

    assert "geheim" not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0), ("120", 120.0), ("-5", None), ("99999999999", 86_400.0), ("9" * 400, 86_400.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("", None), ("soon", None), ("1.5", None),
        ("Thu, 99 Foo 2026 00:00:00 GMT", None), ("١٢", None),
    ],
)  # fmt: skip
def test_retry_after_is_read_as_seconds_a_day_at_most(text: str, seconds: float | None) -> None:
    assert read_retry_after(text) == seconds


def test_retry_after_is_read_as_a_date() -> None:
    text = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)

    assert read_retry_after(text) == pytest.approx(3600, abs=60)
