"""One setting has one value and one origin, and a wrong one is one line that keeps secrets."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from worker.errors import UsageError
from worker.settings import PREFIX, SECRETS, Settings, load_settings, mask_url, origin_of, unknown_variables

#: What the documentation promises.
DEFAULTS: dict[str, Any] = {
    "redis_url": "redis://127.0.0.1:6379/0",
    "queues": ("moderation-high", "moderation", "moderation-bulk"),
    "model": "openai/clip-vit-base-patch32",
    "model_revision": None,
    "device": "auto",
    "precision": "auto",
    "batch_size": 32,
    "threads": 0,
    "batch_wait_seconds": 0.005,
    "uploads": True,
    "policies": "policies",
    "policy": "default",
    "metrics_port": 9108,
    "metrics_host": "127.0.0.1",
    "image_max_bytes": 20 * 1024 * 1024,
    "image_max_pixels": 50_000_000,
    "image_max_frames": 16,
    "image_formats": ("JPEG", "PNG", "WEBP", "GIF", "AVIF"),
    "decode_timeout_seconds": 10.0,
    "decode_memory_bytes": 3 * 512 * 1024 * 1024,
    "fetch_timeout_seconds": 10.0,
    "fetch_connect_timeout_seconds": 3.0,
    "fetch_read_timeout_seconds": 5.0,
    "fetch_max_redirects": 3,
    "fetch_ports": (80, 443),
    "fetch_allow_hosts": (),
    "fetch_deny_networks": (),
    "fetch_allow_private": False,
    "path_root": None,
    "on_unreadable": "review",
    "callbacks": (),
    "uncalibrated": "warn",
    "verdict_stream_maxlen": 100_000,
    "result_ttl_seconds": 500,
    "ledger_maxlen": 50_000,
    "ledger_ttl_seconds": 0,
    "promote_min_verdicts": 1000,
    "promote_max_disagreement_percent": 1.0,
    "memo_ttl_seconds": 86_400,
    "recovery_seconds": 5,
    "views": "whole",
    "image_max_views": 12,
    "s3_endpoint_url": None,
    "s3_buckets": (),
    "webhook_url": None,
    "webhook_secret": None,
    "webhook_allow_private": False,
    "webhook_timeout_seconds": 15.0,
    "webhook_retry_seconds": (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400),
    "appeal": None,
    "log_format": "console",
    "log_level": "info",
    "secrets_dir": Path("/run/secrets"),
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the caller's .env out of the tests."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


def dotenv(text: str | bytes) -> None:
    Path(".env").write_bytes(text if isinstance(text, bytes) else text.encode())


def refusal(flags: dict[str, Any] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        load_settings(flags)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_those_of_the_documentation() -> None:
    found = load_settings().model_dump()

    assert found == {name: DEFAULTS[name] for name in found}


def test_every_setting_has_a_line_of_help() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description


def test_the_environment_overrides_the_file_and_flags_override_both(env: Any) -> None:
    dotenv("SLUICE_BATCH_SIZE=2\nSLUICE_POLICY=from-file\nSLUICE_MODEL=from-file\n")
    env(SLUICE_BATCH_SIZE="3", SLUICE_POLICY="from-environment")
    flags = {"batch_size": 4, "device": None}

    settings = load_settings(flags)

    assert (settings.batch_size, settings.policy, settings.model) == (4, "from-environment", "from-file")
    origins = origin_of(settings, flags)
    assert origins.keys() == Settings.model_fields.keys()
    assert {name: origin for name, origin in origins.items() if origin != "default"} == {
        "batch_size": "flag",
        "policy": "environment",
        "model": ".env",
    }


def test_a_flag_that_was_not_given_overrides_nothing(env: Any) -> None:
    env(SLUICE_BATCH_SIZE="3")

    assert load_settings({"batch_size": None}).batch_size == 3
    assert origin_of(load_settings(), {"batch_size": None})["batch_size"] == "environment"


def secret(name: str, text: str | bytes, directory: str = "secrets") -> None:
    Path(directory).mkdir(exist_ok=True)
    (Path(directory) / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def test_a_secret_file_is_overridden_by_the_environment_and_overrides_the_file_of_variables(env: Any) -> None:
    dotenv("SLUICE_REDIS_URL=redis://from-dotenv\nSLUICE_WEBHOOK_SECRET=from-dotenv\nSLUICE_MODEL=from-dotenv\n")
    env(SLUICE_SECRETS_DIR="secrets", SLUICE_POLICY="from-environment")
    secret("sluice_redis_url", "redis://sluice-worker:geheim@redis:6379/0\n")
    secret("sluice_policy", "from-secret")
    secret("other_password", "x")

    settings = load_settings()

    assert settings.redis_url == "redis://sluice-worker:geheim@redis:6379/0"
    assert (settings.policy, settings.model) == ("from-environment", "from-dotenv")
    assert {name: origin for name, origin in origin_of(settings).items() if origin != "default"} == {
        "redis_url": "secret file",
        "webhook_secret": ".env",
        "model": ".env",
        "policy": "environment",
        "secrets_dir": "environment",
    }


@pytest.mark.parametrize("way", ["flag", "environment", ".env"])
def test_where_secret_files_lie_is_itself_a_setting(way: str, env: Any) -> None:
    secret("sluice_webhook_secret", "whsec_x", "elsewhere")
    flags = {"secrets_dir": "elsewhere"} if way == "flag" else {}
    if way == "environment":
        env(SLUICE_SECRETS_DIR="elsewhere")
    if way == ".env":
        dotenv("SLUICE_SECRETS_DIR=elsewhere\n")

    settings = load_settings(flags)

    assert settings.webhook_secret == "whsec_x"
    assert origin_of(settings, flags)["secrets_dir"] == way


def test_a_secret_file_with_a_wrong_value_is_named_without_it(env: Any) -> None:
    env(SLUICE_SECRETS_DIR="secrets")
    secret("sluice_redis_url", "http://user:geheim@host")

    assert refusal() == "SLUICE_REDIS_URL=(hidden): start it with redis://, rediss://, unix:// or sentinel://"


def test_an_empty_secret_file_is_an_error(env: Any) -> None:
    env(SLUICE_SECRETS_DIR="secrets")
    secret("sluice_redis_url", "\n")

    assert refusal().startswith("SLUICE_REDIS_URL=(hidden): ")


def test_a_secret_file_that_is_not_utf8_is_one_line(env: Any) -> None:
    env(SLUICE_SECRETS_DIR="secrets")
    secret("sluice_redis_url", b"redis://\xff")

    assert "a secret file cannot be read" in refusal()


def test_secret_files_that_name_no_setting_are_found(env: Any) -> None:
    env(SLUICE_SECRETS_DIR="secrets")
    secret("sluice_redis_ur", "redis://host")
    secret("grafana_password", "x")

    assert unknown_variables(load_settings()) == {"secrets/sluice_redis_ur": "SLUICE_REDIS_URL"}


def test_a_value_equal_to_the_default_still_has_its_origin(env: Any) -> None:
    env(SLUICE_BATCH_SIZE="32")

    assert origin_of(load_settings())["batch_size"] == "environment"


def test_an_empty_variable_is_one_that_is_not_set(env: Any) -> None:
    dotenv("SLUICE_POLICY=house\nSLUICE_MODEL=\n")
    env(SLUICE_POLICY="", SLUICE_BATCH_SIZE="")

    settings = load_settings()

    assert (settings.policy, settings.batch_size, settings.model) == ("house", 32, DEFAULTS["model"])
    origins = origin_of(settings)
    assert (origins["policy"], origins["batch_size"], origins["model"]) == (".env", "default", "default")


def test_variables_are_read_in_any_case(env: Any) -> None:
    env(sluice_batch_size="7")

    settings = load_settings()

    assert settings.batch_size == 7
    assert origin_of(settings)["batch_size"] == "environment"


def test_variables_without_the_prefix_are_not_read(env: Any) -> None:
    env(BATCH_SIZE="7", REDIS_URL="redis://elsewhere")
    dotenv("BATCH_SIZE=8\n")

    assert load_settings().model_dump() == {name: DEFAULTS[name] for name in Settings.model_fields}


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("queues", "high, low ,,bulk,", ("high", "low", "bulk")),
        ("queues", "one", ("one",)),
        ("fetch_allow_hosts", "a.example, *.b.example", ("a.example", "*.b.example")),
        ("fetch_allow_hosts", ",", ()),
        ("fetch_deny_networks", "10.9.0.0/16, 2001:db8:64::/96", ("10.9.0.0/16", "2001:db8:64::/96")),
        ("fetch_ports", "80,8080", (80, 8080)),
        ("fetch_max_redirects", "0", 0),
        ("s3_buckets", "uploads,avatars.example", ("uploads", "avatars.example")),
        ("s3_endpoint_url", "https://minio.example:9000", "https://minio.example:9000"),
        ("image_formats", "jpg,png", ("JPEG", "PNG")),
        ("image_formats", "Jpeg , WebP", ("JPEG", "WEBP")),
        ("log_level", "WARNING", "warning"),
        ("fetch_allow_private", "true", True),
        ("fetch_allow_private", "0", False),
        ("path_root", "/srv/uploads", Path("/srv/uploads")),
        ("metrics_port", "0", 0),
        ("webhook_retry_seconds", "1, 2.5", (1.0, 2.5)),
        ("webhook_url", "https://example.org/hook?token=1", "https://example.org/hook?token=1"),
        ("webhook_url", "none", "none"),
        ("webhook_allow_private", "1", True),
        ("device", "cuda:1", "cuda:1"),
        ("redis_url", "rediss://:pw@redis.example:6380/2", "rediss://:pw@redis.example:6380/2"),
        ("redis_url", "unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
    ],
)
def test_a_variable_is_read_as_its_setting(env: Any, name: str, written: str, value: Any) -> None:
    env(**{PREFIX + name.upper(): written})

    assert getattr(load_settings(), name) == value


@pytest.mark.parametrize(
    ("name", "written", "message"),
    [
        ("batch_size", "many", "'many': input should be a valid integer"),
        ("batch_size", "0", "'0': input should be greater than or equal to 1"),
        ("batch_size", "1025", "'1025': input should be less than or equal to 1024"),
        ("metrics_port", "65536", "'65536': input should be less than or equal to 65535"),
        ("metrics_port", "-1", "'-1': input should be greater than or equal to 0"),
        ("precision", "fp8", "'fp8': input should be 'auto', 'fp32', 'bf16', 'fp16' or 'int8'"),
        ("device", "gpu", "'gpu': string should match pattern"),
        ("on_unreadable", "allow", "'allow': input should be 'review' or 'fail'"),
        ("uncalibrated", "ignore", "'ignore': input should be 'warn' or 'refuse'"),
        ("fetch_timeout_seconds", "0", "'0': input should be greater than 0"),
        ("fetch_timeout_seconds", "inf", "'inf': input should be a finite number"),
        ("fetch_timeout_seconds", "nan", "'nan': input should be a finite number"),
        ("fetch_allow_private", "maybe", "'maybe': input should be a valid boolean"),
        ("image_max_bytes", "20 MiB", "'20 MiB': input should be a valid integer"),
        ("image_formats", "jpeg,tiff,bmp", "'jpeg,tiff,bmp': choose from JPEG, PNG, WEBP, GIF, AVIF, not TIFF, BMP"),
        ("image_formats", ",", "',': choose from JPEG, PNG, WEBP, GIF, AVIF, not nothing"),
        ("queues", " , ", "' , ': name at least one queue"),
        ("webhook_url", "ftp://example.org/", "(hidden): write it as https://HOST/PATH, without user and password"),
        ("webhook_url", "https://user:pw@h/", "(hidden): write it as https://HOST/PATH, without user and password"),
        ("webhook_url", "https://", "(hidden): write it as https://HOST/PATH, without user and password"),
        ("webhook_url", "https://[", "(hidden): write it as https://HOST/PATH, without user and password"),
        ("webhook_retry_seconds", "1,0", "'0': input should be greater than 0"),
        ("webhook_timeout_seconds", "0", "'0': input should be greater than 0"),
        ("log_level", "loud", "'loud': input should be 'debug', 'info', 'warning' or 'error'"),
        ("redis_url", "http://127.0.0.1", "(hidden): start it with redis://, rediss://, unix:// or sentinel://"),
        ("redis_url", "127.0.0.1:6379", "(hidden): start it with redis://, rediss://, unix:// or sentinel://"),
        ("redis_url", "redis://[::1", "(hidden): not a URL; write it as redis://USER:PASSWORD@HOST:PORT/0"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(env: Any, name: str, written: str, message: str) -> None:
    env(**{PREFIX + name.upper(): written})

    assert refusal().startswith(f"{PREFIX}{name.upper()}={message}")


def test_a_wrong_flag_and_a_wrong_line_of_the_file_are_named_the_same_way() -> None:
    dotenv("SLUICE_METRICS_PORT=none\n")

    found = refusal({"batch_size": 0})

    assert "SLUICE_METRICS_PORT='none': input should be a valid integer" in found
    assert "SLUICE_BATCH_SIZE=0: input should be greater than or equal to 1" in found


def test_every_wrong_value_is_named(env: Any) -> None:
    env(SLUICE_BATCH_SIZE="x", SLUICE_METRICS_PORT="y", SLUICE_LOG_LEVEL="z", SLUICE_REDIS_URL="w")

    found = refusal()

    for name in ("BATCH_SIZE", "METRICS_PORT", "LOG_LEVEL", "REDIS_URL"):
        assert found.count(f"SLUICE_{name}=") == 1


@pytest.mark.parametrize("url", ["http://user:geheim@host", "redis://user:geheim@ho\u2100st", "redis://u:geheim@[host"])
def test_an_error_keeps_the_secret_even_in_its_traceback(env: Any, url: str) -> None:
    env(SLUICE_REDIS_URL=url)

    with pytest.raises(UsageError) as caught:
        load_settings()

    assert "redis_url" in SECRETS
    assert "geheim" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("data", [b"SLUICE_POLICY=caf\xe9\n", b"\xff\xfeS\x00"])
def test_a_file_that_is_not_utf8_is_one_line(data: bytes) -> None:
    dotenv(data)

    found = refusal()

    assert found.startswith(".env cannot be read (")
    assert found.endswith("; make it a readable file in UTF-8")


def test_a_file_of_another_program_does_no_harm() -> None:
    dotenv("DATABASE_URL=postgres://x\nPORT=80\nexport SLUICE_BATCH_SIZE=5 # of ours\n# SLUICE_POLICY=house\n")

    settings = load_settings()

    assert settings.batch_size == 5
    assert settings.policy == "default"


def test_unknown_variables_are_found_with_the_nearest_name(env: Any) -> None:
    env(SLUICE_BATCHSIZE="8", SLUICE_REDIS="x", SLUICE_POLICY="default", SLUICE_ZZZZZZZZ="", OTHER="1", SLUICEBATCH="1")

    assert unknown_variables(load_settings()) == {
        "SLUICE_BATCHSIZE": "SLUICE_BATCH_SIZE",
        "SLUICE_REDIS": "SLUICE_REDIS_URL",
        "SLUICE_ZZZZZZZZ": None,
    }


def test_a_known_variable_in_another_case_is_not_unknown(env: Any) -> None:
    env(Sluice_Batch_Size="8", sluice_polcy="x")

    assert unknown_variables(load_settings()) == {"sluice_polcy": "SLUICE_POLICY"}


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().batch_size = 1


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://user@host/0", "redis://user@host/0"),
        ("redis://user:geheim@host:6379/0", "redis://user:***@host:6379/0"),
        ("redis://:geheim@host", "redis://:***@host"),
        ("rediss://u:geh%40eim@[::1]:6380/1?ssl_cert_reqs=none", "rediss://u:***@[::1]:6380/1?ssl_cert_reqs=none"),
        ("redis://u:geh@eim@host", "redis://u:***@host"),
        ("redis://u:@host", "redis://u:***@host"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("unix:///run/redis.sock?db=1&password=geheim", "unix:///run/redis.sock?db=1&password=***"),
        ("redis://host/0?password=geheim&db=1", "redis://host/0?password=***&db=1"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FETCH_CONNECT_TIMEOUT_SECONDS", "0"),
        ("FETCH_READ_TIMEOUT_SECONDS", "inf"),
        ("FETCH_MAX_REDIRECTS", "11"),
        ("FETCH_PORTS", "80,65536"),
        ("FETCH_PORTS", "http"),
        ("FETCH_DENY_NETWORKS", "10.0.0.1/8"),
        ("FETCH_DENY_NETWORKS", "intranet"),
        ("FETCH_ALLOW_HOSTS", "https://cdn.example.org/"),
        ("FETCH_ALLOW_HOSTS", "*"),
        ("S3_BUCKETS", "s3://uploads"),
        ("S3_BUCKETS", "up/loads"),
        ("S3_ENDPOINT_URL", "minio:9000"),
        ("S3_ENDPOINT_URL", "ftp://minio"),
        ("S3_ENDPOINT_URL", "https://minio:port"),
    ],
)
def test_a_limit_of_fetching_that_cannot_be_meant_is_refused_by_name(name: str, value: str, env: Any) -> None:
    env(**{f"SLUICE_{name}": value})
    with pytest.raises(UsageError, match=f"SLUICE_{name}="):
        load_settings()
