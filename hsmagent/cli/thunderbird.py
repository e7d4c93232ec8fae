"""`hsmagent pkcs11 thunderbird`: the settings by which Thunderbird takes a certificate for mail.

Thunderbird names a certificate by serial number and issuer (nsIX509Cert.dbKey), which its own
settings page writes; what is printed here says the same, for user.js.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from hsmagent.cli import output
from hsmagent.cli.arguments import Given
from hsmagent.cli.mail_keys import DaemonKeys
from hsmagent.mail import identity, purpose
from hsmagent.mail.address import folded
from hsmagent.mail.cms.certificates import Certificate
from hsmagent.mail.identity import Identity
from hsmagent.model import KeyType, printable

PROFILES = ".thunderbird/*/prefs.js"
_ADDRESS = re.compile(r'^user_pref\("mail\.identity\.(\w+)\.useremail", "(.*)"\);$', re.MULTILINE)


def run(given: Given) -> int:
    """Print the settings of an address. Return the exit status."""
    keys = DaemonKeys().keys()
    now = datetime.now(UTC)
    signing = identity.find(keys, given.word, now)
    output.write("".join(f"{line}\n" for line in _lines(given.word, signing, _places(given.word))))
    return 0


def _places(address: str) -> list[tuple[str, str]]:
    """Return the user.js of each profile that sends as this address, and its identity's name."""
    found = []
    for file in sorted(Path.home().glob(PROFILES)):
        for name, value in _ADDRESS.findall(file.read_text(errors="replace")):
            if folded(value) == folded(address):
                found.append((str(file.parent / "user.js"), name))
    return found


def _lines(address: str, who: Identity, places: list[tuple[str, str]]) -> Iterator[str]:
    if not places:
        yield f"// no profile of Thunderbird sends as {printable(address)} yet; if it has another"
        yield "// number there than id1, change that"
    for file, name in places or [("user.js", "id1")]:
        yield f"// {file}"
        yield from _settings(name, who)


def _settings(name: str, who: Identity) -> Iterator[str]:
    token = who.key.token.label if who.key.token is not None else ""
    shown = f"{token}:{who.key.label or who.certificate.name}"
    uses = ["signing"]
    if purpose.not_for_encryption(who.certificate):
        yield "// this certificate is not for encryption"
    else:
        uses.append("encryption")
        if who.key.key_type is KeyType.EC:
            yield "// Thunderbird cannot read mail to it; `hsmagent smime decrypt` can"
    for use in uses:
        for what, value in (("name", shown), ("dbkey", db_key(who.certificate))):
            setting = json.dumps(f"mail.identity.{name}.{use}_cert_{what}")
            yield f"user_pref({setting}, {json.dumps(value)});"


def db_key(certificate: Certificate) -> str:
    """Return nsIX509Cert.dbKey: eight zeros, both lengths, serial number and issuer, as base64."""
    serial = bytes(certificate.parsed["tbs_certificate"]["serial_number"].contents)
    issuer = certificate.issuer_der
    lengths = len(serial).to_bytes(4, "big") + len(issuer).to_bytes(4, "big")
    return b64encode(bytes(8) + lengths + serial + issuer).decode()
