"""Texts and secrets are taken as they are, and no error quotes what it was given."""

import os
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from penstock.engine.admin.callers import Role
from penstock.engine.admin.file_tokens import FileToken, FileTokens
from penstock.engine.settings.model import Settings, load_settings
from penstock.engine.worker.kafka import secret
from penstock.schemas.errors import ConfigError

canary = "hunterCANARY7f3a"

_edges = [
    *(f"{sign}{canary}" for sign in "@%*!&|>-?:,[]{}#`'\"~=<\\/$^+;()._ "),
    *(f"{canary}{sign}" for sign in "@%*!&|>-?:,[]{}#`'\"~=<\\/$^+;()._ "),
    *(f"{canary[:6]}{sign}{canary}" for sign in "@%*!&|>-?:,[]{}#`'\"~=<\\/$^+;()._ "),
    *(f"{canary} {sign}{canary}" for sign in "@%*!&|>-?:,[]{}#`'\"~="),
    *(f"{sign} {canary}" for sign in "@%*!&|>-?:,[]{}#`'\"~="),
]
_looks_like_something_else = [
    "12345678", "0123", "0o17", "0x1F", "0b11", "1_000", "1e3", "-1", "+1", "3.14", ".5", ".inf", "-.INF", ".nan", "NaN", "12:34:56",
    "190:20:30", "2024-01-01", "2024-01-01T00:00:00Z", "2024-99-99", "yes", "no", "on", "off", "true", "FALSE", "y", "n", "~", "null",
    "Null", "None", "x: y", "x:", "- x", "? x", "a #b", "#x", "&x", "*x", "!x", "!!str x", "!!python/object:os.system x", "[x", "[x]",
    "{x", "{x: y}", "'x", "'x'", '"x', '"x"', "|x", ">x", "| x", "%x", "@x", "`x", "<<", "<<: x", "=", "---", "--- x", "...", "\\", "\\n",
    "x\\ty", "${HOME}", "$(id)", "%s", "{0}", "{{x}}", " x ", "  ", " ", "\t", "x\t", "\tx", "x\n", "\nx", "x\ny", "x\r\ny", "\x1b[31m",
    "\x7f", "\x85", "\x9b", "\u00a0x\u00a0", "\u2028", "\u202ex", "\ufeffx", "пароль", "密码", "🔑", "e\u0301", "\U0010ffff", "x" * 4096,
    "x=y", "x;y", 'user="x" password="y";', "a,b", "a b c", "'", '"', "''", '""', "''''", "null ", " null",
]  # fmt: skip
odd_secrets = list(dict.fromkeys([*_edges, *_looks_like_something_else]))


def tree() -> dict[str, Any]:
    return {
        "kafka": {
            "bootstrap_servers": "localhost:9092",
            "group": "g",
            "security": {"protocol": "SASL_SSL", "mechanism": "PLAIN", "username": "u"},
        },
        "registry": {"url": "http://localhost:8081"},
        "input": {"topic": "in"},
        "output": {"predictions": "out", "dead_letters": "dead"},
        "model": {"path": "models/m"},
    }


def text_settings(
    section: type[BaseModel] = Settings, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """The paths of all settings whose value may be a text, a path or a secret; read from the annotations alone."""
    for name, info in section.model_fields.items():
        members = [info.annotation, *get_args(info.annotation)]
        if any(get_origin(each) in (tuple, list, dict) for each in members):
            continue  # lists and maps are parsed
        below = [each for each in members if isinstance(each, type) and issubclass(each, BaseModel)]
        if below:
            yield from text_settings(below[0], (*path, info.alias or name))
        elif any(
            each in (str, Path, SecretStr) or get_origin(each) is Literal for each in members
        ) or "Annotated[str" in repr(info.annotation):
            yield (*path, info.alias or name)


def value_at(settings: Settings, path: tuple[str, ...]) -> Any:
    place: Any = settings
    for part in path:
        fields = type(place).model_fields
        place = getattr(place, next(name for name, info in fields.items() if part in (name, info.alias)))
    return place.get_secret_value() if isinstance(place, SecretStr) else place


def attempt(path: Path, environ: dict[str, str]) -> tuple[Settings | None, str]:
    """The settings, or the sentence that refuses them."""
    try:
        return load_settings(path, environ), ""
    except ConfigError as error:
        return None, str(error)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "penstock.yaml"
    path.write_text(yaml.safe_dump(tree()), encoding="utf-8")
    return path


@pytest.mark.parametrize("path", list(text_settings()), ids=".".join)
@example_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=12) | st.sampled_from(odd_secrets))
def test_every_text_setting_takes_its_variable_as_it_is(file: Path, path: tuple[str, ...], text: str) -> None:
    name = f"PENSTOCK_{'__'.join(path).upper()}"
    environ = {"PENSTOCK_KAFKA__SECURITY__PASSWORD": "pw", name: text}
    settings, error = attempt(file, environ)
    if settings is None:
        assert "\n" not in error
        assert canary not in error
        assert name in error or error.startswith(str(file))  # the latter: two settings do not go together
        return
    found = value_at(settings, path)
    assert found == (file.parent / text if isinstance(found, Path) else text)


@pytest.mark.parametrize("text", odd_secrets)
def test_a_secret_is_the_same_by_variable_file_and_yaml(tmp_path: Path, text: str) -> None:
    assert len(odd_secrets) >= 200
    path = tmp_path / "penstock.yaml"
    path.write_text(yaml.safe_dump(tree()), encoding="utf-8")
    by_variable = load_settings(path, {"PENSTOCK_KAFKA__SECURITY__PASSWORD": text}).kafka.security
    assert secret(by_variable.password, None) == text

    (tmp_path / "password").write_text(text + "\n", encoding="utf-8", newline="")
    by_file = load_settings(path, {"PENSTOCK_KAFKA__SECURITY__PASSWORD_FILE": "password"}).kafka.security
    read = secret(by_file.password, by_file.password_file)
    assert read == text.removesuffix("\r")  # a line end of Windows is one line end

    quoted = tree()
    quoted["kafka"]["security"]["password"] = text
    path.write_text(yaml.safe_dump(quoted), encoding="utf-8")
    assert secret(load_settings(path, {}).kafka.security.password, None) == text


@pytest.mark.parametrize("text", [text for text in odd_secrets if canary in text and "\n" not in text])
def test_a_secret_without_quotes_in_yaml_is_taken_or_one_sentence_says_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "penstock.yaml"
    path.write_text(
        yaml.safe_dump(tree()).replace("    username: u", f"    username: u\n    password: {text}"),
        encoding="utf-8",
    )
    settings, error = attempt(path, {})
    if settings is None:
        assert canary not in error
        assert "\n" not in error
        return
    assert secret(settings.kafka.security.password, None) == text.strip(" ")


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        (f'a: 1\nb: "{canary}', "line"),
        (f"a: {canary}: x", "line 1, column"),
        (f"a: @{canary}", "line 1, column 4"),
        (f"a: *{canary}", "line 1, column 4"),
        (f"a: !{canary} x", "line 1, column 4"),
        (f'a: "\\q{canary}"', "line 1"),
        (f"a: 1\na: {canary}", "line 2, column 1"),
        (f"password: {canary} # {canary}", "line 1, column 11"),
        (f"a: {canary}\x07", "line 1"),
        ("[" * 5000 + canary, "nested"),
        ("a: 2024-99-99", "cannot read"),
        (f"? [{canary}]\n: x", "line 1"),
    ],
)
def test_a_fault_of_yaml_is_a_line_and_a_column(tmp_path: Path, broken: str, place: str) -> None:
    path = tmp_path / "penstock.yaml"
    path.write_text(broken, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {})
    assert place in str(caught.value)
    assert canary not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_key_that_swallowed_its_value_is_not_quoted(tmp_path: Path) -> None:
    whole = tree()
    whole["kafka"]["security"] = {f"password:{canary}": None}
    path = tmp_path / "penstock.yaml"
    path.write_text(yaml.safe_dump(whole), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"kafka\.security\.password\.\.\. is not a setting") as caught:
        load_settings(path, {})
    assert canary not in str(caught.value)


def test_bytes_that_are_not_utf8_are_told_by_their_line(tmp_path: Path) -> None:
    path = tmp_path / "penstock.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError, match="line 2"):
        load_settings(path, {})


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (
            "PENSTOCK_KAFKA__GRUOP",
            "x",
            "PENSTOCK_KAFKA__GRUOP: kafka.gruop is not a setting; did you mean group?",
        ),
        ("PENSTOCK_WORKERS", canary, "PENSTOCK_WORKERS: workers:"),
        (
            "PENSTOCK_KAFKA__GROUP__X",
            "x",
            "PENSTOCK_KAFKA__GROUP__X goes inside kafka.group, which is not a section",
        ),
        ("PENSTOCK_KAFKA__CLIENT", f"{{{canary}", "PENSTOCK_KAFKA__CLIENT is not YAML"),
        ("PENSTOCK_KAFKA__CLIENT", f"{{linger.ms:{canary}}}", "PENSTOCK_KAFKA__CLIENT: kafka.client"),
        (
            "PENSTOCK_KAFKA__SECURITY__PASSWORD",
            "",
            "PENSTOCK_KAFKA__SECURITY__PASSWORD: kafka.security.password: is empty",
        ),
        (
            "PENSTOCK_KAFKA__SECURITY__PASSWORD",
            "a\udcff",
            "PENSTOCK_KAFKA__SECURITY__PASSWORD: kafka.security.password: is not UTF-8",
        ),
        ("PENSTOCK_KAFKA__SECURITY__PASSWORD", f"{canary}\0", "holds a NUL"),
        (
            "PENSTOCK_REGISTRY__URL",
            f"http://u:{canary}@host",
            "registry.url: may not hold a name and a password",
        ),
        ("PENSTOCK_REGISTRY__URL", f"http://u:{canary}@[::bad", "registry.url: is not an address"),
        ("PENSTOCK_REGISTRY__URL", f"http://host:{canary}", "registry.url: is not an address"),
        ("PENSTOCK_KAFKA__BOOTSTRAP_SERVERS", f"u:{canary}@host:1", "kafka.bootstrap_servers: may not hold"),
        (
            "PENSTOCK_KAFKA__SECURITY__OAUTH_TOKEN_URL",
            f"https://u:{canary}@host",
            "oauth_token_url: may not hold",
        ),
        (
            "PENSTOCK_EXPLAIN__POLICY",
            canary,
            "PENSTOCK_EXPLAIN__POLICY: explain.policy: this is not a policy",
        ),
    ],
)
def test_an_error_names_the_variable_and_quotes_nothing(
    file: Path, name: str, value: str, sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(file, {"PENSTOCK_KAFKA__SECURITY__PASSWORD": "pw", name: value})
    assert sentence in str(caught.value)
    assert canary not in str(caught.value)


def test_numbers_flags_and_maps_are_parsed(file: Path) -> None:
    settings = load_settings(
        file,
        {
            "PENSTOCK_KAFKA__SECURITY": "{protocol: PLAINTEXT}",
            "PENSTOCK_WORKERS": "3",
            "PENSTOCK_OBJECTIVE__LATENCY_SLO_MS": "12.5",
            "PENSTOCK_EXPLAIN__BUDGET_MS": "8",
            "PENSTOCK_KAFKA__CLIENT": "{linger.ms: 5}",
            "PENSTOCK_KAFKA__GROUP": "0123",
        },
    )
    assert (settings.workers, settings.objective.latency_slo_ms, settings.explain.budget_ms) == (3, 12.5, 8.0)
    assert settings.kafka.client == {"linger.ms": 5}
    assert settings.kafka.group == "0123"


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "OAUTHBEARER"])
def test_a_mechanism_without_its_secret_is_refused(file: Path, mechanism: str) -> None:
    environ = {
        "PENSTOCK_KAFKA__SECURITY__MECHANISM": mechanism,
        "PENSTOCK_KAFKA__SECURITY__OAUTH_TOKEN_URL": "https://idp/token",
        "PENSTOCK_KAFKA__SECURITY__OAUTH_CLIENT_ID": "c",
    }
    with pytest.raises(ConfigError, match=r"needs (a password|oauth_client_secret)"):
        load_settings(file, environ)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"a\0b", "NUL"),
        (b"\xff", "not UTF-8"),
        ("ä".encode() * 40_000, "longer than 65536 bytes"),
    ],
)
def test_a_secret_file_that_holds_none_is_named(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=why):
        secret(None, path)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["a pipe", "a folder"])
def test_what_is_no_file_holds_no_secret_and_is_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "password"
    make(path)
    with pytest.raises(ConfigError, match=r"cannot read the secret in .*: (it is no file|Is a directory)"):
        secret(None, path)
    with pytest.raises(ConfigError, match=r"cannot read the admin token ops in .*: (it is no file|Is a dir)"):
        FileTokens([FileToken(name="ops", role=Role.ADMIN, file=path)])


def test_the_list_has_every_sign_of_the_keyboard() -> None:
    assert set(string.punctuation) <= set("".join(odd_secrets))
