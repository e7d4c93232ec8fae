"""One table says of each option of openssl's what becomes of it."""

from pathlib import Path

import pytest

from hsmagent.cli import openssl_args
from hsmagent.cli.openssl_args import HARMLESS, OBEYED, OPERATIONS, parse
from hsmagent.cli.programs import SMIME
from hsmagent.errors import UsageError

ALL = sorted(set().union(*OBEYED.values()) | HARMLESS)
# Options of `openssl cms` that would weaken, change or promise something.
OTHERS = ["-noattr", "-nosigs", "-x509_strict", "-partial_chain", "-no_check_time", "-keyid"]
OTHERS += ["-nocerts", "-policy_check", "-verify_email", "-econtent_type", "-no_content_verify"]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("option", [*ALL, *OTHERS])
def test_an_option_is_obeyed_or_harmless_or_refused(operation: str, option: str) -> None:
    value = {"-purpose": ["smimesign"], "-attime": ["1"]}.get(option, ["x"])
    listed = SMIME.option(option)
    words = [operation, option, *(value if listed and listed.value else [])]
    if option in OBEYED[operation] | HARMLESS:
        found = parse(words)
        assert option in found.flags | found.values.keys()
    else:
        with pytest.raises(UsageError, match=f"does not do {option} with {operation}"):
            parse(words)


def test_what_is_obeyed_is_read_somewhere() -> None:
    text = Path(openssl_args.__file__).with_name("openssl_smime.py").read_text("utf-8")
    text += Path(openssl_args.__file__).read_text("utf-8").partition("def parse")[2]
    for option in set().union(*OBEYED.values()):
        assert f'"{option}"' in text, option


@pytest.mark.parametrize("words", [[], ["-sign", "-verify"], ["-in", "x"], ["-sign", "-in"]])
def test_one_operation_and_whole_options(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(words)


def test_another_purpose_is_refused() -> None:
    for purpose in ("any", "sslserver", "smimeencrypt"):
        with pytest.raises(UsageError, match="smimesign"):
            parse(["-verify", "-purpose", purpose])


def test_ciphers() -> None:
    assert parse(["-encrypt", "-aes256", "-recip", "a", "b"]).cipher == "-aes256"
    with pytest.raises(UsageError):
        parse(["-verify", "-aes256"])
