"""The settings that `hsmagent pkcs11 thunderbird` prints. Whether they serve: tests/thunderbird."""

from base64 import b64decode
from pathlib import Path

import pytest

from hsmagent.cli import thunderbird
from hsmagent.cli.arguments import parse
from hsmagent.cli.commands import BY_NAME
from hsmagent.errors import UsageError
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.model import Key
from tests.parts.mail.people import person

ADDRESS = "alice@example.org"


class Keys:
    """The daemon's, in software."""

    def keys(self) -> list[Key]:
        return [person("rsa").key]


@pytest.fixture(autouse=True)
def daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(thunderbird, "DaemonKeys", Keys)
    monkeypatch.setenv("HOME", str(tmp_path))


def printed(capsys: pytest.CaptureFixture[str], address: str = ADDRESS) -> list[str]:
    assert thunderbird.run(parse(BY_NAME["pkcs11 thunderbird"], [address])) == 0
    return capsys.readouterr().out.splitlines()


def test_a_key_as_mozilla_writes_it() -> None:
    certificate = Certificate(person("rsa").der)
    raw = b64decode(thunderbird.db_key(certificate))
    serial, issuer = certificate.serial_der[2:], certificate.issuer_der
    assert raw[:8] == bytes(8)
    assert int.from_bytes(raw[8:12], "big") == len(serial)
    assert int.from_bytes(raw[12:16], "big") == len(issuer)
    assert raw[16:] == serial + issuer


def test_each_profile_that_sends_as_the_address(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for profile, name, address in (
        ("one", "id3", ADDRESS),
        ("two", "id1", "Alice@Example.org"),
        ("three", "id2", "bob@example.org"),
    ):
        folder = tmp_path / ".thunderbird" / profile
        folder.mkdir(parents=True)
        line = f'user_pref("mail.identity.{name}.useremail", "{address}");\n'
        (folder / "prefs.js").write_text(line)
    lines = printed(capsys)
    assert f"// {tmp_path}/.thunderbird/one/user.js" in lines
    assert f"// {tmp_path}/.thunderbird/two/user.js" in lines
    settings = [line for line in lines if not line.startswith("//")]
    assert len(settings) == 8
    assert settings[0].startswith('user_pref("mail.identity.id3.signing_cert_name", ')
    assert not any("id2" in line for line in settings)


def test_without_a_profile_it_says_what_to_change(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys)
    assert "no profile" in lines[0]
    assert any('"mail.identity.id1.encryption_cert_dbkey"' in line for line in lines)


def test_an_address_that_no_key_signs_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="no key signs for"):
        printed(capsys, "bob@example.org")
