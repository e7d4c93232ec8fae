"""The stage of the page on PKCS#11 programs: they are served with a token, by a web server too."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.guides.blocks import blocks
from tests.guides.stage import Stage, stage
from tests.p11.conftest import Holder, make_holder
from tests.p11.servers import ENGINES_LAST, OpenSslServer, release
from tests.parts.agent.pkcs11 import FREELY, FaceProcess
from tests.parts.token.provider import Provider
from tests.parts.token.softhsm import MODULE, PIN

PAGE = "docs/pkcs11.md"
ADDRESS = "alice@example.org"
LABELS = {"rsa": "mail", "p256": "web"}
PROFILE = ".mozilla/firefox/PROFILE"
IDENTITY = f'user_pref("mail.identity.id1.useremail", "{ADDRESS}");\n'

# Every host is the server of the test; curl and git read that from a file.
GNUTLS_CLI = """#!/bin/sh
exec /usr/bin/gnutls-cli --x509cafile {ca} --port {port} "$1" "$2" "$3" "$4" localhost
"""
CURLRC = 'connect-to = "example.org:443:127.0.0.1:{port}"\ncacert = "{ca}"\n'


def as_on_this_system(command: str) -> str:
    """Return a command of the page, or "" for one that is for another release of Debian."""
    if command.startswith(("openssl cms", "curl ")):
        for_engine = "-engine pkcs11" in command or command.endswith("# engine")
        if for_engine is not (release() <= ENGINES_LAST):
            return ""
    return command.replace("x86_64", platform.machine())


@contextmanager
def served(folder: Path) -> Iterator[Stage]:
    """Set it: what `hsmagent setup --pkcs11` and the page's files do, and all that is asked for."""
    holder = make_holder(folder / "holder", dict.fromkeys(LABELS, ADDRESS), LABELS)
    provider = Provider(MODULE, PIN, dict(holder.token.env))
    with stage(folder, provider, keys=False) as made, OpenSslServer(holder) as server:
        made.agent.stop()
        made.agent.configure(FREELY + provider.config())
        made.agent.start()
        assert made.agent.unlock(PIN).returncode == 0
        face = FaceProcess(made.agent)
        face.start()
        try:
            _furnish(made, face, holder, server.port)
            yield made
            assert server.saw("CN = Alice p256", "CN=Alice p256"), "curl, or gnutls-cli"
        finally:
            face.stop()


def _furnish(made: Stage, face: FaceProcess, holder: Holder, port: int) -> None:
    home, machine = made.home, platform.machine()
    [openssl] = [inside for kind, inside in blocks(PAGE) if kind == "ini" and "openssl" in inside]
    made.program("gnutls-cli", GNUTLS_CLI.format(ca=holder.ca, port=port))
    for name, content in {
        ".config/pkcs11/modules/hsmagent.module": f"remote: unix:path={face.socket}\n",
        ".thunderbird/one/prefs.js": IDENTITY,
        ".curlrc": CURLRC.format(ca=holder.ca, port=port),
        "openssl.cnf": openssl.replace("x86_64", machine),
        "me.pem": Path(holder.certificate("rsa")).read_text(),
        "text": "A text to be signed\n",
    }.items():
        file = home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    made.agent.environment.update(face.environment | made.agent.environment)
    if release() > ENGINES_LAST:
        made.agent.environment["OPENSSL_CONF"] = str(home / "openssl.cnf")
    (home / PROFILE).mkdir(parents=True)
    made.type(f"certutil -N -d sql:$HOME/{PROFILE} --empty-password")
    made.type("git init --quiet")  # `git config` is for one repository
