"""The fixture itself: a real TPM stack, seen through another program."""

from tests.parts.token import swtpm
from tests.parts.token.pkcs11_tool import pkcs11_tool
from tests.parts.token.provider import Provider


def test_lists_both_keys_without_a_pin(tpm: Provider) -> None:
    text = pkcs11_tool(tpm, "--list-objects", "--token-label", swtpm.TOKEN)
    assert text.count("Public Key Object; EC") == 1
    assert text.count("Public Key Object; RSA 2048 bits") == 1
