"""Takes the picture of a mail in Thunderbird, for docs/pictures: under Xvfb, with a real token.

usage: python -m tests.thunderbird.pictures FOLDER
"""

import sys
import tempfile
from pathlib import Path

from tests.daemon.conftest import module_config
from tests.p11.conftest import make_holder, person, starting
from tests.parts.agent.pkcs11 import FREELY
from tests.parts.desktop.xvfb import screen
from tests.parts.mail.smtp import sink
from tests.parts.token.softhsm import PIN
from tests.thunderbird.test_thunderbird import dated, openssl, running

SIZE = "760x560"
HEADER = (
    *("-from", "Bob <bob@example.org>", "-to", "Alice <alice@example.org>"),
    *("-subject", "The offer, before anybody else sees it"),
)
TEXT = b"Content-Type: text/plain\r\n\r\nHello Alice,\r\n\r\nthis is for you alone.\r\n\r\nBob\r\n"
SHOW = """
const mail = windows("mail:messageWindow")[0];
for (const other of windows(null)) if (other != mail) other.minimize();
mail.moveTo(0, 0);
mail.resizeTo(...args);
mail.focus();
const button = mail.messageBrowser.contentWindow.document.getElementById("encryptionTechBtn");
const { left, top, width, height } = await until(() => button.getBoundingClientRect());
const pane = mail.messageBrowser.getBoundingClientRect();
return [pane.left + left + width / 2, pane.top + top + height / 2].map(Math.round);
"""
OPENED = """
const [mail] = windows("mail:messageWindow");
const pages = [mail.document, mail.messageBrowser.contentDocument];
await until(() => pages.some(page => [...page.querySelectorAll("panel")].some(
  panel => panel.state == "open")), 10);
await new Promise(go => setTimeout(go, 1000));  // it fades in
"""


def main() -> None:
    """Take the picture."""
    folder = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name, screen(f"{SIZE}x24") as display, sink() as outbox:
        work = Path(name)
        mailer = make_holder(
            work / "mailer", {"rsa": "rsa@example.org", "p256": "p256@example.org"}
        )
        certificate, key = person("rsa", "Bob", "bob@example.org").write(work, "bob")
        signed = openssl("-sign", "-signer", certificate, "-inkey", key, data=TEXT)
        mail = dated() + openssl(
            *("-encrypt", "-aes256", "-recip", mailer.certificate("rsa"), *HEADER),
            data=signed,
        )
        faces = starting(work)
        face = next(faces)(FREELY + module_config(mailer.token))
        face.agent.unlock(PIN)
        runs = running(face, mailer, outbox, **display.environment)
        thunderbird = next(runs)
        shown = thunderbird.reads(mail)
        assert (shown["signed"], shown["encrypted"]) == ("ok", "ok")
        run = thunderbird.program.marionette.run
        display.xdotool("mousemove", *map(str, run(SHOW, *map(int, SIZE.split("x")))))
        display.xdotool("click", "1")
        run(OPENED)
        display.picture("root", folder / "thunderbird.png")
        for each in (runs, faces):
            next(each, None)


if __name__ == "__main__":
    main()
