"""Addresses in settings: what two parsers could read as two places is none."""

import pytest
from pydantic import ValidationError

from penstock.engine.settings.admin import JwtSettings
from penstock.engine.settings.kafka import SecuritySettings
from penstock.engine.settings.topics import RegistrySettings
from penstock.engine.settings.tracing import TracingSettings

odd_addresses = [
    "HTTP://keys.example/k", " http://keys.example/k", "http:\t//keys.example/k", "ht\ntp://keys.example/k", "https://keys\n.example/k",
    "https://keys.example/k ", "https://ke ys.example/k", "https://keys.example\\@evil.example/k", "https://k\u200beys.example",
    "https://\u043aeys.example", "http://localhost.evil.example/k", "http://localhost%2eevil.example", "http://evil.example#localhost",
    "http://[::ffff:8.8.8.8]/k", "http://evil.example?http://localhost/", "https:keys.example", "//keys.example", "https://user@keys.example",
]  # fmt: skip


@pytest.mark.parametrize("url", odd_addresses)
def test_an_address_that_two_parsers_may_read_otherwise_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        JwtSettings(issuer="i", audience="a", jwks_url=url)


@pytest.mark.parametrize(
    "url",
    ["https://keys.example/k?a=b%20c", "http://localhost:8080/k", "http://[::1]:8/k", "HTTPS://keys.example"],
)
def test_an_address_that_is_one_is_taken_as_it_is(url: str) -> None:
    assert JwtSettings(issuer="i", audience="a", jwks_url=url).jwks_url == url


@pytest.mark.parametrize(
    "url", [each for each in odd_addresses if "\n" in each or "\t" in each or " " in each]
)
def test_no_setting_takes_an_address_with_blanks(url: str) -> None:
    for section, name in ((RegistrySettings, "url"), (TracingSettings, "endpoint")):
        with pytest.raises(ValidationError):
            section.model_validate({name: url})
    tree = {
        "protocol": "SASL_SSL",
        "mechanism": "OAUTHBEARER",
        "oauth_client_id": "i",
        "oauth_client_secret": "s",
    }
    with pytest.raises(ValidationError):
        SecuritySettings.model_validate(tree | {"oauth_token_url": url})
