"""`penstock sign`: who vouches for a bundle."""

import argparse
from pathlib import Path

from penstock.engine.cli.commands.package import read_password
from penstock.engine.console.terminal import Terminal
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.bundle.signatures import signature_name

summary = (
    "Sign a bundle: model.sig beside its files, in the model-signing format of the OpenSSF, over every file of it. Workers with "
    "model.trust.keys serve only what one of these keys has signed. Make a key with: openssl ecparam -name prime256v1 -genkey "
    "-noout -out model.key, and openssl ec -in model.key -pubout -out model.pub."
)
example = "penstock sign models/fraud --key model.key"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `penstock sign` takes."""
    parser.add_argument(
        "bundle", type=Path, metavar="BUNDLE", help="the model bundle; an older signature is replaced"
    )
    parser.add_argument(
        "--key",
        type=Path,
        required=True,
        metavar="FILE",
        help="private key in PEM form, on P-256, P-384 or P-521",
    )
    parser.add_argument(
        "--key-password-file", type=Path, metavar="FILE", help="holds the password of the key"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Verify the bundle and sign it."""
    bundle = Bundle.load(arguments.bundle)
    Bundle.sign(arguments.bundle, key=arguments.key, password=read_password(arguments.key_password_file))
    terminal.say(
        f"{arguments.bundle / signature_name} signs {bundle.name} {bundle.version}, digest {bundle.digest}"
    )
    terminal.result({"name": bundle.name, "version": bundle.version, "digest": bundle.digest, "signed": True})
    return 0
