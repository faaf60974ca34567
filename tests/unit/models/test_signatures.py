"""Signed bundles: what was signed is served, and nothing else."""

import base64
import json
import random
import shutil
import subprocess
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.engine.cli.main import main
from penstock.engine.dead_letters.message import DeadLetterReader
from penstock.engine.models.bundle.bundle import Bundle, Trust
from penstock.engine.settings.model import parse_settings
from penstock.engine.worker.letters.payload import decoded_payload
from penstock.engine.worker.model_copy import bundle_digest, copied_model, copy_model
from penstock.engine.worker.startup.stages import open_bundle
from penstock.schemas.errors import ConfigError
from tests.bundles import write_linear
from tests.letters import letter

mutants = 1000


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ours.key and ours.pub, another pair, one on another curve, one with a password, and a certificate; from openssl."""
    folder = tmp_path_factory.mktemp("keys")
    for stem, curve in (
        ("ours", "prime256v1"),
        ("other", "prime256v1"),
        ("wide", "secp384r1"),
        ("odd", "secp256k1"),
    ):
        openssl("ecparam", "-name", curve, "-genkey", "-noout", "-out", folder / f"{stem}.key")
        openssl("ec", "-in", folder / f"{stem}.key", "-pubout", "-out", folder / f"{stem}.pub")
    openssl(
        "req",
        "-x509",
        "-key",
        folder / "ours.key",
        "-subj",
        "/CN=models",
        "-days",
        "1",
        "-out",
        folder / "ours.crt",
    )
    openssl(
        "pkcs8", "-topk8", "-in", folder / "ours.key", "-passout", "pass:pw", "-out", folder / "locked.key"
    )
    openssl("genrsa", "-out", folder / "rsa.key", "2048")
    (folder / "password").write_text("pw\n")
    return folder


def trust(*keys: Path, enforce: bool = True, say: Callable[[str], None] = lambda _: None) -> Trust:
    return Trust(keys=keys, enforce=enforce, say=say)


@pytest.mark.parametrize(("days", "sentence"), [(-2, "is valid from"), (3, "has expired on")])
def test_a_certificate_counts_while_it_is_valid_and_its_key_for_ever(
    signed: Path, keys: Path, days: int, sentence: str
) -> None:
    then_ms = time.time_ns() // 1_000_000 + days * 86_400_000
    old = Trust(keys=(keys / "ours.crt",), enforce=True, say=lambda _: None, wall_ms=lambda: then_ms)
    with pytest.raises(
        ConfigError, match=rf"by none of the trusted keys; the certificate in .*ours\.crt {sentence}"
    ):
        Bundle.load(signed, trust=old)
    said: list[str] = []
    both = Trust(
        keys=(keys / "ours.crt", keys / "ours.pub"), enforce=True, say=said.append, wall_ms=lambda: then_ms
    )
    Bundle.load(signed, trust=both)
    assert said == ["the model bundle is signed by ours.pub"]


@pytest.fixture
def signed(tmp_path: Path, keys: Path) -> Path:
    write_linear(tmp_path / "bundle")
    assert main(["sign", str(tmp_path / "bundle"), "--key", str(keys / "ours.key")]) == 0
    return tmp_path / "bundle"


def test_a_signed_bundle_is_served_with_the_key_the_certificate_or_either_of_two(
    signed: Path, keys: Path
) -> None:
    said: list[str] = []
    plain = Bundle.load(signed).digest
    for names in (["ours.pub"], ["ours.crt"], ["other.pub", "ours.pub"]):
        bundle = Bundle.load(signed, trust=trust(*(keys / name for name in names), say=said.append))
        assert bundle.digest == plain
    assert said == [f"the model bundle is signed by {name}" for name in ("ours.pub", "ours.crt", "ours.pub")]


@pytest.mark.parametrize("stem", ["ours", "wide"])
def test_openssl_says_so_too(tmp_path: Path, keys: Path, stem: str) -> None:
    """The envelope is DSSE's: openssl alone, with the bytes put together by hand, agrees."""
    write_linear(tmp_path / "bundle")
    assert main(["sign", str(tmp_path / "bundle"), "--key", str(keys / f"{stem}.key")]) == 0
    tree = json.loads((tmp_path / "bundle" / "model.sig").read_text())
    envelope = tree["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"]
    (tmp_path / "signed").write_bytes(f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload)
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    digest = {"ours": "-sha256", "wide": "-sha384"}[stem]
    openssl(
        "dgst",
        digest,
        "-verify",
        keys / f"{stem}.pub",
        "-signature",
        tmp_path / "signature",
        tmp_path / "signed",
    )
    statement = json.loads(payload)
    listed = {each["name"]: each["digest"] for each in statement["predicate"]["resources"]}
    files = sorted(path.name for path in (tmp_path / "bundle").iterdir() if path.name != "model.sig")
    assert sorted(listed) == files
    done = subprocess.run(
        ["sha256sum", *files], cwd=tmp_path / "bundle", capture_output=True, text=True, check=True, timeout=30
    )
    assert {line.split()[1]: line.split()[0] for line in done.stdout.splitlines()} == listed


def test_a_bundle_that_is_not_as_it_was_signed_is_refused_with_its_path(
    signed: Path, keys: Path, tmp_path: Path
) -> None:
    def unsigned(folder: Path) -> None:
        (folder / "model.sig").unlink()

    def exchanged(folder: Path) -> None:
        write_linear(tmp_path / "second", seed=1)
        for file in (tmp_path / "second").iterdir():
            shutil.copy(file, folder / file.name)

    def resealed(folder: Path) -> None:
        bundle = Bundle.load(folder)
        signature = (folder / "model.sig").read_bytes()
        write_linear(folder, seed=2)
        (folder / "model.sig").write_bytes(signature)
        assert Bundle.load(folder).digest != bundle.digest

    def extra(folder: Path) -> None:
        (folder / ".gitignore").write_text("x")

    def extra_known(folder: Path) -> None:
        background = (folder / "background.npy").read_bytes()
        write_linear(folder, background=None)
        Bundle.sign(folder, key=keys / "ours.key")
        (folder / "background.npy").write_bytes(background)

    def missing(folder: Path) -> None:
        (folder / "golden_labels.npy").unlink()

    def link(folder: Path) -> None:
        (folder / "model.onnx").rename(tmp_path / "elsewhere")
        (folder / "model.onnx").symlink_to(tmp_path / "elsewhere")

    def other_case(folder: Path) -> None:
        (folder / "model.onnx").rename(folder / "Model.onnx")

    def other_form(folder: Path) -> None:
        (folder / "model.onnx").rename(folder / unicodedata.normalize("NFD", "modél.onnx"))

    cases: dict[Callable[[Path], None], str] = {
        unsigned: "not signed: model.sig is missing", exchanged: "has changed since it was signed",
        resealed: "has changed since it was signed", extra: ".gitignore does not belong there", extra_known: "background.npy is not signed",
        missing: "golden_labels.npy is signed, and missing", link: "model.onnx", other_case: "Model.onnx does not belong there",
        other_form: "does not belong there",
    }  # fmt: skip
    for number, (change, sentence) in enumerate(cases.items()):
        folder = tmp_path / f"case-{number}"
        shutil.copytree(signed, folder)
        change(folder)
        with pytest.raises(ConfigError) as told:
            Bundle.load(folder, trust=trust(keys / "ours.pub"))
        assert sentence in str(told.value), change.__name__
        assert str(folder) in str(told.value)


def test_another_signer_is_refused_and_warned_of_where_so_asked(signed: Path, keys: Path) -> None:
    with pytest.raises(ConfigError, match="by none of the trusted keys"):
        Bundle.load(signed, trust=trust(keys / "other.pub"))
    said: list[str] = []
    assert (
        Bundle.load(signed, trust=trust(keys / "other.pub", enforce=False, say=said.append)).name == "linear"
    )
    assert "served all the same" in said[0]
    assert "none of the trusted keys" in said[0]


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("odd.key", "is not an elliptic key on P-256"), ("rsa.key", "is not an elliptic key"), ("ours.pub", "holds no private key"),
        ("locked.key", "has a password"), ("none.key", "cannot read"),
    ],
)  # fmt: skip
def test_a_key_that_cannot_sign_is_one_sentence(
    signed: Path, keys: Path, key: str, sentence: str, capsys: Any
) -> None:
    assert main(["sign", str(signed), "--key", str(keys / key)]) == 2
    assert sentence in capsys.readouterr().err


def test_a_key_with_a_password_signs(signed: Path, keys: Path, capsys: Any) -> None:
    words = ["sign", str(signed), "--key", str(keys / "locked.key"), "--key-password-file"]
    assert main([*words, str(keys / "password")]) == 0
    Bundle.load(signed, trust=trust(keys / "ours.pub"))
    (keys / "wrong").write_text("canary")
    assert main([*words, str(keys / "wrong")]) == 2
    assert "canary" not in capsys.readouterr().err


def refused(folder: Path, believed: Trust) -> bool:
    try:
        Bundle.load(folder, trust=believed)
    except ConfigError:
        return True
    return False


def test_no_mutant_of_a_bundle_or_its_signature_is_loaded(signed: Path, keys: Path, tmp_path: Path) -> None:
    chance = random.Random(7)
    files = {path.name: path.read_bytes() for path in signed.iterdir()}
    believed = trust(keys / "ours.pub", keys / "wide.pub")
    for number in range(mutants):
        name = "model.sig" if number % 2 else chance.choice(sorted(files))
        data = bytearray(files[name])
        place = chance.randrange(len(data))
        how = chance.randrange(4)
        if how == 0:
            data[place] ^= 1 << chance.randrange(8)
        elif how == 1:
            del data[place]
        elif how == 2:
            data.insert(place, chance.choice(b' \n\t0aA="}]\x00'))
        else:
            data[place:] = b""
        (signed / name).write_bytes(data)
        assert refused(signed, believed), f"mutant {number} was loaded: {name}, {how} at {place}"
        (signed / name).write_bytes(files[name])
    Bundle.load(signed, trust=believed)


def forged(tree: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps(tree | changes).encode()


def test_a_signature_that_says_more_than_one_thing_is_refused(signed: Path, keys: Path) -> None:
    tree = json.loads((signed / "model.sig").read_text())
    envelope = tree["dsseEnvelope"]
    twice = json.dumps(tree)[:-1] + ', "dsseEnvelope": ' + json.dumps(envelope) + "}"
    forgeries = [
        forged(tree, dsseEnvelope=envelope | {"signatures": envelope["signatures"] * 2}),
        forged(tree, dsseEnvelope=envelope | {"signatures": []}),
        forged(tree, dsseEnvelope=envelope | {"payloadType": "text/plain"}),
        forged(tree, dsseEnvelope=envelope | {"payload": envelope["payload"] + "="}),
        forged(tree, messageSignature={}),
        forged(tree, verificationMaterial={"publicKey": {"hint": "0" * 64}, "tlogEntries": []}),
        twice.encode(), b"[]", b"{}", b"null", b"[" * 100_000, b"\xff", b"",
    ]  # fmt: skip
    for data in forgeries:
        (signed / "model.sig").write_bytes(data)
        with pytest.raises(ConfigError):
            Bundle.load(signed, trust=trust(keys / "ours.pub"))


def settings_of(path: Path, **model: Any) -> Any:
    tree = {
        "kafka": {"bootstrap_servers": "h:1", "group": "g"},
        "input": {"topic": "in"},
        "output": {"predictions": "out", "dead_letters": "dead"},
        "model": {"path": str(path), **model},
    }
    return parse_settings(tree, origin="x", folder=path.parent)


def test_keys_in_the_settings_are_enforced(signed: Path, keys: Path) -> None:
    settings = settings_of(signed, trust={"keys": [str(keys / "ours.pub")]})
    assert settings.model.trust.in_force == "enforce"
    open_bundle(settings)
    (signed / "model.sig").unlink()
    with pytest.raises(ConfigError, match="not signed"):
        open_bundle(settings)
    open_bundle(settings_of(signed, trust={"keys": [str(keys / "ours.pub")], "policy": "warn"}))
    open_bundle(settings_of(signed))
    with pytest.raises(ConfigError, match="policy enforce needs keys"):
        settings_of(signed, trust={"policy": "enforce"})


def test_a_payload_is_not_read_by_the_schema_of_a_bundle_that_would_not_be_served(
    signed: Path, keys: Path
) -> None:
    dead = DeadLetterReader().read(letter(0, value=b"\x02"))
    believed = settings_of(signed, trust={"keys": [str(keys / "ours.pub")]})
    (signed / "model.sig").unlink()
    decoded, why_not = decoded_payload(dead, believed)
    assert decoded is None
    assert "not signed" in why_not
    pinned = settings_of(signed, digest="0" * 64)
    assert "model.digest asks for" in decoded_payload(dead, pinned)[1]


def test_a_pinned_digest_is_the_only_one_that_is_served(signed: Path) -> None:
    digest = Bundle.load(signed).digest
    assert bundle_digest(signed) == digest
    assert open_bundle(settings_of(signed, digest=digest)).digest == digest
    with pytest.raises(ConfigError, match=f"has digest {digest}, and model.digest asks for {'0' * 64}"):
        open_bundle(settings_of(signed, digest="0" * 64))


def test_a_bundle_that_is_exchanged_while_workers_run_changes_nothing(signed: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    settings = settings_of(signed)
    assert copied_model(run_folder) is None
    copy = copy_model(signed, run_folder)
    assert copy is not None
    assert copy == copied_model(run_folder)
    write_linear(signed, seed=3)
    assert Bundle.load(signed).digest != copy.digest
    assert open_bundle(settings, copied_model(run_folder)).digest == copy.digest


def test_without_room_for_a_copy_the_digest_is_pinned_all_the_same(signed: Path, tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / f"model-{bundle_digest(signed)}").write_text("in the way")
    assert copy_model(signed, run_folder) is None
    settings = settings_of(signed)
    assert open_bundle(settings, copied_model(run_folder)).name == "linear"
    write_linear(signed, seed=3)
    with pytest.raises(ConfigError, match="was exchanged"):
        open_bundle(settings, copied_model(run_folder))


@pytest.mark.parametrize("curve", ["SM2", "sect163k1", "brainpoolP256r1", "secp224r1"])
def test_a_key_on_any_other_curve_is_one_sentence_whoever_is_asked(
    curve: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_linear(tmp_path / "bundle")
    key, public, certificate = (tmp_path / name for name in ("a.key", "a.pub", "a.crt"))
    openssl("ecparam", "-name", curve, "-genkey", "-noout", "-out", key)
    openssl("pkey", "-in", key, "-pubout", "-out", public)
    openssl("req", "-x509", "-key", key, "-subj", "/CN=models", "-days", "1", "-out", certificate)
    assert main(["sign", str(tmp_path / "bundle"), "--key", str(key)]) == 2
    assert "is not an elliptic key on P-256, P-384 or P-521" in capsys.readouterr().err
    (tmp_path / "bundle" / "model.sig").write_bytes(b"{}")
    for trusted in (public, certificate):
        trust = Trust(keys=[trusted], enforce=True, say=lambda _: None)
        with pytest.raises(ConfigError, match="is not an elliptic key on P-256, P-384 or P-521"):
            Bundle.load(tmp_path / "bundle", trust=trust)
