"""Each setting x junk: trimmed, or refused at start by name; never a traceback, never a secret in a message."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any, get_args

import commands
import httpx
import pytest
from limits import parse_many
from pydantic import AfterValidator, SecretStr, ValidationError
from typer.testing import CliRunner

from backend.cli.commands import app
from backend.cli.processes import environment
from backend.config import EnvFileError, Settings, values
from backend.config.loading import load, reasons, setting_names
from backend.core.errors import SettingsError

NAMES = {field: names[0] for field, names in setting_names().items()}
FIELDS = pytest.mark.parametrize("field", NAMES)
SECRET = "whsec_" + "QUJD" * 12
UNSEEN = [
    "\u200b",
    "\u200d",
    "\u2060",
    "\ufeff",
    "\u00a0",
    "\u00ad",
    "\u202e",
    "\u2028",
    "\u3164",
    "\n",
    "\r",
    "\t",
    "\x1b",
    "\x7f",
    "\udcff",
]
NUMBERS = ["abc", "1e3", "nan", "inf", "-1", "-5", "9" * 40, "1.5", "0x10", "5 MB", "1,000", "--", "\u0661\u0662"]
URLS = [
    "http://",
    "https://",
    "//host",
    "host:8000",
    "/path",
    "ftp://host",
    "javascript:alert(1)",
    "http:host",
    "http://a b",
    "http://host/a b",
    "http://user:password@host",
    "http://@host",
    "http://host?query=1",
    "http://host?",
    "http://host#fragment",
    "http://host#",
    "http://host:0",
    "http://host:65536",
    "http://host:abc",
    "http://host:-1",
    "http://[::1",
    "http://::1",
    "http://[::g]",
    "http://[1.2.3.4]",
    "http://999.1.1.1",
    "http://1.2.3.4.5",
    "http://a..b",
    "http://.",
    "http://-",
    "http://%00",
    "http://" + "a" * 64,
    "http://" + "a." * 130 + "b",
    "http://b\u00fccher.example",
    "http://ho\u200bst",
    "http://host\\@evil",
    'http://host/"',
    "http://host/\u00e9",
    "redis://",
    "redis://host:0",
    "redis://host:99999/0",
    "redis://host?db=abc",
    "redis://host?socket_timeout=soon",
    "redis://[::1",
    "unix://",
    "sqlite://",
    "sqlite:///",
    "sqlite:////",
    "sqlite:///.",
    "sqlite:///data/",
    "sqlite:///data/..",
    "sqlite:///:memory:",
    "sqlite:///data/x.db?mode=ro",
    "sqlite:///data/x.db#part",
    "file://[",
    "file:data?x",
    "file:data#x",
    "file:da%00ta",
    "file://host:99999/x",
]
LISTS = [
    "0/minute",
    "-1/minute",
    "10",
    "10/fortnight",
    "/minute",
    "9" * 30 + "/minute",
    "10/minute;",
    "10/minute, many",
    "10.0.0.0/33",
    "10.0.0.0/8, somewhere",
    "300.1.1.1",
    "::/129",
    "10.0.0.0/8 192.168.0.0/16",
]
KEYS = [
    "r8_\u00e9",
    "r8_\u200babc",
    "r8_abc def",
    "r8_\u0430bc",
    "r8_\U0001f600",
    "whsec_",
    "whsec_c2hvcnQ=",
    "whsec_%%%",
    "short",
    "x" * 10_000,
]
JUNK = [
    *NUMBERS,
    *URLS,
    *LISTS,
    *KEYS,
    *(f"middle{unseen}junk" for unseen in UNSEEN),
    *(f"{unseen}" for unseen in UNSEEN),
]


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of this machine, and no `.env`."""
    monkeypatch.chdir(tmp_path)
    for names in setting_names().values():
        for name in names:
            monkeypatch.delenv(name, raising=False)


def shown(value: Any) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def kinds(field: str) -> set[str]:
    """The names of the functions that a setting's type is checked with."""
    info = Settings.model_fields[field]
    inner = [each for part in get_args(info.annotation) for each in getattr(part, "__metadata__", ())]
    return {each.func.__name__ for each in [*info.metadata, *inner] if isinstance(each, AfterValidator)}


def works(field: str, value: Any) -> bool:
    """Whether what was accepted can do what it is for, asked of those who will have to use it."""
    found, used = kinds(field), shown(value)
    if isinstance(used, str):
        assert used == used.strip() and not any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in used)
    if "http_url" in found:
        url = httpx.URL(used + "/v1?x=1")
        return bool(url.host) and url.port != 0 and url.query == b"x=1" and not url.userinfo
    if "token" in found:
        return bool(httpx.Headers({"authorization": f"Bearer {used}"}).raw) and used.isascii() and " " not in used
    if "rate" in found:
        return all(each.amount > 0 and each.get_expiry() > 0 for each in parse_many(used))
    if "_networks_text" in found:
        return all(ipaddress.ip_network(part.strip(), strict=False) for part in used.split(",") if part.strip())
    return True


@pytest.mark.hazard(59)
@FIELDS
def test_junk_is_trimmed_or_refused_by_name_and_its_value_is_never_told(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = NAMES[field]
    for junk in JUNK:
        monkeypatch.setenv(name, junk)
        try:
            accepted = getattr(load(), field)
        except SettingsError as refused:
            assert refused.message.startswith(f"{name}: "), (junk, refused.message)
            told = refused.message.removeprefix(f"{name}: ")
            assert len(junk) < 6 or junk.strip() not in told, (junk, told)
            assert "\n" not in told and len(told) < 300, (junk, told)
        else:
            default = Settings.model_fields[field].default
            assert accepted == default if not junk.strip() else works(field, accepted), junk


@pytest.mark.hazard(59)
@FIELDS
def test_nothing_that_cannot_be_seen_is_inside_a_setting(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = _good(field)
    for unseen in UNSEEN:
        monkeypatch.setenv(NAMES[field], good[:1] + unseen + good[1:])
        with pytest.raises(SettingsError, match=f"{NAMES[field]}: .*(cannot be seen|must|valid|should)"):
            load()


def _good(field: str) -> str:
    """Something this setting takes."""
    taken = {
        "database_url": "sqlite:///some.db",
        "redis_url": "redis://localhost:6379/1",
        "auth_mode": "keys",
        "replicate_api_key": "r8_0123456789",
        "replicate_webhook_secret": SECRET,
        "webhook_allow_cidrs": "10.0.0.0/8, fd00::/8",
        "trusted_proxies": "127.0.0.1",
        "storage_url": "file:media",
        "data_key": "0123456789012345678901234567890123456789",
    }
    found = kinds(field)
    if field in taken:
        return taken[field]
    if "http_url" in found:
        return "https://media.example.com/path"
    if "rate" in found:
        return "30/minute"
    default = Settings.model_fields[field].default
    return str(default) if default not in (None, "") else "10"


@pytest.mark.hazard(59)
@FIELDS
@pytest.mark.parametrize("around", [" {} ", "\t{}\n", "{}\r\n", "\u00a0{}", "\n\n{}"], ids=repr)
def test_blanks_around_a_value_are_left_out(field: str, around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = _good(field)
    monkeypatch.setenv(NAMES[field], good)
    plain = getattr(load(), field)
    monkeypatch.setenv(NAMES[field], around.format(good))
    assert getattr(load(), field) == plain


@pytest.mark.hazard(59)
@FIELDS
@pytest.mark.parametrize("blank", ["", " ", "\t\n", "\u00a0"], ids=repr)
def test_a_blank_value_counts_as_not_set_in_the_environment_and_in_the_file(
    field: str, blank: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, default = NAMES[field], Settings.model_fields[field].default
    monkeypatch.setenv(name, blank)
    assert getattr(load(), field) == default
    Path(".env").write_text(f'{name}="{_good(field)}"\n', encoding="utf-8")
    with_file = getattr(load(), field)
    monkeypatch.delenv(name)
    assert getattr(load(), field) == with_file  # a blank variable leaves what the file says
    Path(".env").write_text(f'{name}="{blank}"\n', encoding="utf-8")
    assert getattr(load(), field) == default
    assert (
        getattr(Settings(_env_file=None, **{name if field != field.lower() else _given(field): blank}), field)
        == default
    )


def _given(field: str) -> str:
    """The name a setting is given by in a call."""
    return NAMES[field] if Settings.model_fields[field].validation_alias else field


@FIELDS
def test_the_type_of_a_setting_says_what_it_may_be(field: str) -> None:
    """A new setting is held by the tests above only if its type is one of these."""
    info = Settings.model_fields[field]
    bounds = {name for each in info.metadata for name in ("ge", "gt", "le", "lt") if hasattr(each, name)}
    if info.annotation in (int, float):
        assert len(bounds) == 2, "a number has a least and a most"
    elif "Literal" not in str(info.annotation) and SecretStr not in get_args(info.annotation):
        assert kinds(field), "a text has a type of backend.config.values"


@pytest.mark.parametrize(
    ("field", "junk"),
    [
        *((field, url) for field in ("base_url", "ngrok_url", "replicate_base_url") for url in URLS),
        *(("max_in_flight", number) for number in (*NUMBERS, "0")),
        *(("min_free_mb", number) for number in NUMBERS),
        *(("image_rate_limit", limit) for limit in LISTS),
        *(("trusted_proxies", list_) for list_ in LISTS),
        *(("replicate_api_key", key) for key in KEYS[:5]),
        *(("replicate_webhook_secret", key) for key in KEYS),
        *(("redis_url", url) for url in URLS if not url.startswith("unix:///")),
        *(("database_url", url) for url in URLS if url.startswith("sqlite:///") and url != "sqlite:///data/x.db"),
        *(("storage_url", url) for url in URLS if url.startswith("file:")),
        *(("auth_mode", mode) for mode in ("KEYS", "none", "off", "dev keys")),
    ],
)
@pytest.mark.hazard(59)
def test_what_cannot_work_is_refused(field: str, junk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAMES[field], junk)
    with pytest.raises(SettingsError, match=f"^{NAMES[field]}: "):
        load()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("HTTP://LocalHost:8000/", "http://localhost:8000"),
        ("https://media.example.com/sub/", "https://media.example.com/sub"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://some_service:65535", "http://some_service:65535"),
        ("https://xn--bcher-kva.example.", "https://xn--bcher-kva.example."),
    ],
)
def test_an_address_that_works_is_read_in_one_form(given: str, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASE_URL", given)
    assert load().base_url == read


def test_every_wrong_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASE_URL", "MAX_IN_FLIGHT", "TRUSTED_PROXIES"):
        monkeypatch.setenv(name, "some junk")
    with pytest.raises(SettingsError) as refused:
        load()
    assert all(f"{name}: " in refused.value.message for name in ("BASE_URL", "MAX_IN_FLIGHT", "TRUSTED_PROXIES"))


def test_a_list_of_networks_quotes_nothing_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTED_PROXIES", "10.0.0.0/8, r8_a-secret-in-the-wrong-place")
    with pytest.raises(SettingsError) as refused:
        load()
    assert "r8_" not in refused.value.message


FILES = {
    "UTF-16": "REPLICATE_API_KEY=r8_secret\n".encode("utf-16"),
    "UTF-16 without a mark": "REPLICATE_API_KEY=r8_secret\n".encode("utf-16-le"),
    "UTF-32": "REPLICATE_API_KEY=r8_secret\n".encode("utf-32"),
    "Latin-1": "# gr\u00fc\u00dfe\nREPLICATE_API_KEY=r8_secret\n".encode("latin-1"),
    "NUL": b"REPLICATE_API_KEY=r8_secret\0\n",
    "an open quote": b'BASE_URL=http://localhost\nREPLICATE_API_KEY="r8_secret\n',
    "words": b"this is r8_secret no file of settings\n",
    "an unseen letter in a name": "\u200bREPLICATE_API_KEY=r8_secret\n".encode(),
    "too large": b"# " + b"x" * (1 << 20) + b"\nREPLICATE_API_KEY=r8_secret\n",
}


@pytest.mark.hazard(59)
@pytest.mark.parametrize("what", FILES)
def test_a_file_of_settings_that_cannot_be_read_is_refused_by_name(what: str) -> None:
    Path(".env").write_bytes(FILES[what])
    with pytest.raises(SettingsError, match=r"^\.env ") as refused:
        load()
    assert "secret" not in refused.value.message
    with pytest.raises(EnvFileError):
        Settings()


def test_a_folder_or_a_pipe_in_its_place_is_refused_by_name() -> None:
    Path(".env").mkdir()
    with pytest.raises(SettingsError, match=r"^\.env is not a file"):
        load()
    Path(".env").rmdir()
    os.mkfifo(".env")
    with pytest.raises(SettingsError, match=r"^\.env is not a file"):
        load()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_must_not_be_read_is_refused_by_name() -> None:
    Path(".env").write_text("AUTH_MODE=dev\n")
    Path(".env").chmod(0)
    with pytest.raises(SettingsError, match=r"^\.env cannot be read"):
        load()


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffREPLICATE_API_KEY=r8_good\nAUTH_MODE=dev\n".encode(),
        b"REPLICATE_API_KEY=r8_good\r\nAUTH_MODE=dev\r\n",
        b"export REPLICATE_API_KEY = 'r8_good'  \n\n# a remark\nAUTH_MODE=dev",
        b'REPLICATE_API_KEY=" r8_good "\nAUTH_MODE= dev # why\nUNKNOWN=\nBASE_URL\n',
        "replicate_api_key=r8_good\nAUTH_MODE=dev\nSOMEBODYS_OWN=gr\u00fc\u00dfe\n".encode(),
    ],
    ids=["mark", "CRLF", "export", "blanks", "small letters"],
)
def test_a_file_of_settings_in_any_usual_form_is_read(content: bytes) -> None:
    Path(".env").write_bytes(content)
    settings = load()
    assert shown(settings.replicate_api_key) == "r8_good" and settings.auth_mode == "dev"


def reelhook(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """One command with these settings and no others."""
    return commands.run_text(*arguments, environment=environment(settings), folder=cwd, timeout=90)


@pytest.mark.hazard(59)
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"REPLICATE_API_KEY": "r8_very\u200bsecret"}, "REPLICATE_API_KEY"),
        ({"REPLICATE_API_TOKEN": "r8_very\nsecret"}, "REPLICATE_API_KEY"),
        ({"REPLICATE_WEBHOOK_SECRET": "whsec_c2VjcmV0"}, "REPLICATE_WEBHOOK_SECRET"),
        ({"REDIS_URL": "redis://:secret@host?db=x"}, "REDIS_URL"),
        ({"DATABASE_URL": "sqlite:///."}, "DATABASE_URL"),
        ({"DATABASE_URL": "sqlite:///" + "secret" * 60}, "DATABASE_URL"),
        ({"DATABASE_URL": "sqlite:////dev/null/x.db"}, "DATABASE_URL"),
        ({"DATABASE_URL": "mysql://user:secret@host/x"}, "DATABASE_URL"),
        ({"STORAGE_URL": "file:///dev/null/media"}, "STORAGE_URL"),
        ({"STORAGE_URL": "ftp://secret"}, "STORAGE_URL"),
        ({"STORAGE_URL": "file:" + "secret" * 60}, "STORAGE_URL"),
    ],
    ids=lambda part: repr(part)[:60],
)
def test_a_service_with_a_setting_that_cannot_work_does_not_start_and_says_why_in_one_sentence(
    settings: dict[str, str], named: str, tmp_path: Path
) -> None:
    done = reelhook("serve", "--port", "0", cwd=tmp_path, **settings)
    assert done.returncode in (1, 2) and done.stdout == ""
    assert done.stderr.startswith("reelhook: ") and named in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    if named.startswith("RE"):
        assert "secret" not in done.stderr


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("migrate",), ("doctor",)])
def test_a_file_in_another_encoding_stops_every_command_by_name(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(FILES["UTF-16"])
    done = reelhook(*command, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert ".env" in done.stdout + done.stderr and "UTF-8" in done.stdout + done.stderr


def typed(*arguments: str, **settings: str) -> tuple[int, str]:
    """A command in this process: its exit status and all it says."""
    done = CliRunner().invoke(app, list(arguments), env=settings)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.replace("\u2502", " ").split())


@pytest.mark.parametrize(
    ("file", "settings", "said"),
    [
        (FILES["UTF-16"], {}, ".env is not text in UTF-8"),
        (FILES["Latin-1"], {}, ".env is not text in UTF-8"),
        (FILES["NUL"], {}, ".env is not text in UTF-8"),
        (b"", {"DATABASE_URL": "sqlite:///."}, "DATABASE_URL: "),
        (b"", {"DATABASE_URL": "sqlite:///a\u200bb.db"}, "DATABASE_URL: "),
        ("\ufeffDATABASE_URL=sqlite:///file.db\r\n".encode(), {"DATABASE_URL": " "}, "current"),
        (b"", {"DATABASE_URL": ""}, "current"),
    ],
)
def test_the_script_that_needs_no_package_reads_its_setting_as_the_service_does(
    file: bytes, settings: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_bytes(file)
    given = {"cwd": tmp_path, "env": environment(settings), "capture_output": True, "text": True, "timeout": 90}
    script = [sys.executable, "-S", str(Path(__file__).parent.parent / "migrate.py")]
    subprocess.run(script, **given)
    done = subprocess.run(script, **given)
    assert said in done.stdout + done.stderr and "Traceback" not in done.stderr
    assert done.returncode == (0 if said == "current" else 1)
    assert (tmp_path / "file.db").exists() is (b"file.db" in file)


@pytest.mark.hazard(59)
@pytest.mark.parametrize(
    "url",
    [
        "http://a b",
        "http://h:99999",
        "http://[::g]",
        "ftp://h",
        "http://u:secret@h",
        "http://h\u200b",
        "h:1",
        "http://h?q",
    ],
)
def test_an_address_of_the_service_that_cannot_work_is_wrong_usage_by_name(url: str) -> None:
    status, said = typed("list", REELHOOK_URL=url)
    assert status == 2 and "REELHOOK_URL" in said and "secret" not in said


@pytest.mark.hazard(59)
@pytest.mark.parametrize("key", ["sk_\u200bsecret", "sk_sec ret", "sk_s\u00e9cret", "sk_\nsecret"])
def test_a_key_that_no_header_can_hold_is_wrong_usage_by_name(key: str) -> None:
    status, said = typed("list", REELHOOK_API_KEY=key)
    assert status == 2 and "REELHOOK_API_KEY" in said and "cret" not in said


def test_blanks_around_the_commands_own_settings_are_left_out(tmp_path: Path) -> None:
    done = reelhook("list", cwd=tmp_path, REELHOOK_URL=" http://127.0.0.1:9/ ", REELHOOK_API_KEY=" \n")
    assert done.returncode == 1 and "no service answers at http://127.0.0.1:9:" in done.stderr
    done = reelhook("list", cwd=tmp_path, REELHOOK_URL=" ", REELHOOK_API_KEY="")
    assert done.returncode == 1 and "http://localhost:8000" in done.stderr


@pytest.mark.parametrize("command", ["serve", "emulator"])
@pytest.mark.parametrize("host", ["", "a..b", "h\u200bost", "999.1.1.1", "a b", "http://localhost", "[::1]"])
def test_a_place_to_listen_that_is_none_is_wrong_usage(command: str, host: str) -> None:
    status, said = typed(command, "--host", host, "--port", "0")
    assert status == 2 and "--host" in said


def test_reasons_are_found_for_whatever_a_setting_may_be_refused_for() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(_env_file=None, max_in_flight="a lot", base_url="nowhere")
    assert set(reasons(refused.value)) == {"MAX_IN_FLIGHT", "BASE_URL"}
    assert values.networks("") == () and values.clean(3) == 3
