"""Claws Mail, which signs, encrypts and decrypts by GPGME, with keys of a token."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.parts.agent.daemon import AgentProcess
from tests.parts.desktop.xvfb import screen
from tests.parts.mail.gnupg import Gnupg
from tests.parts.until import until
from tests.scd.conftest import address

ME = address("rsa")
CONTRIB = Path(__file__).parents[2] / "contrib/mail/claws.conf"
PLUGINS = next(Path("/usr/lib").glob("*/claws-mail/plugins"), Path())
ACCOUNT = "[Account: 1]\naccount_name=me\nis_default=1\nname=Me\nprotocol=5\nuse_mail_command=1\n"
FOLDERS = """<?xml version="1.0" encoding="UTF-8"?>
<folderlist><folder type="mh" name="Mail" path="{}"></folder></folderlist>
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Give Claws Mail an account with the lines of contrib, which sends into a file."""
    for name in ("claws", "Mail/inbox"):
        (tmp_path / name).mkdir(parents=True)
    plugins = "".join(f"{PLUGINS}/{name}.so\n" for name in ("pgpcore", "smime"))
    (tmp_path / "claws/clawsrc").write_text(
        f"[Common]\nenable_aspell=0\n\n[Plugins_GTK3]\n{plugins}"
    )
    sendmail = tmp_path / "sendmail"
    sendmail.write_text("#!/bin/sh\ncd ${0%/*}; cat >part; mv part sent\n")
    sendmail.chmod(0o755)
    lines = re.sub("^#.*\n", "", CONTRIB.read_text(), flags=re.MULTILINE)
    lines = lines.replace("default_encrypt=0", "default_encrypt=1")
    account = f"{ACCOUNT}address={ME}\nmail_command={sendmail}\n{lines}"
    (tmp_path / "claws/accountrc").write_text(account)
    (tmp_path / "claws/folderlist.xml").write_text(FOLDERS.format(tmp_path / "Mail"))
    return tmp_path


@contextmanager
def claws(gnupg: Gnupg, home: Path, *words: str) -> Iterator[Callable[[str, str], None]]:
    """Run it; yields what presses a key in the windows whose title matches."""
    with screen() as shown, (home / "log").open("ab") as log:
        running = subprocess.Popen(
            ["claws-mail", "--alternate-config-dir", str(home / "claws"), *words],
            env={**gnupg.environment, **shown.environment, "DBUS_SESSION_BUS_ADDRESS": "none:"},
            stdout=log,
            stderr=log,
        )

        def press(title: str, key: str) -> None:
            for window in shown.windows(title):
                shown.xdotool("windowfocus", window)
                shown.press(key)

        try:
            yield press
        finally:
            running.kill()
            running.wait()


def test_it_sends_signed_and_encrypted_and_reads(
    learned: Gnupg, agent: AgentProcess, home: Path
) -> None:
    draft, sent = home / "draft", home / "sent"
    draft.write_text(f"From: {ME}\nTo: {ME}\nSubject: Hi\n\nThe secret words\n")
    with claws(learned, home, "--compose-from-file", str(draft)) as press:

        def send() -> bool:
            press("Encryption warning", "Return")
            press("Compose message", "ctrl+Return")
            return sent.exists()

        until(send)
    mail = sent.read_bytes()
    assert b"smime-type=enveloped-data" in mail
    assert b"secret" not in mail
    mine = learned.run("gpgsm", "--decrypt", "--assume-base64", data=mail.partition(b"\n\n")[2])
    assert b"The secret words" in mine
    assert b"application/pkcs7-signature" in mine

    def decrypted() -> int:
        entries = agent.json("log")["entries"]
        return sum("decrypt" in each["summary"] for each in entries)

    before = decrypted()
    (home / "Mail/inbox/1").write_bytes(mail)
    with claws(learned, home, "--select", "#mh/Mail/inbox/1"):
        until(lambda: decrypted() > before)
    assert not learned.asked_by_pinentry
