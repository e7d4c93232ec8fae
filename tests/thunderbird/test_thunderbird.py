"""Thunderbird, from its first start to a mail that was sent, with keys in the token."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.conftest import module_config
from tests.p11.conftest import Holder, StartFace
from tests.parts.agent.pkcs11 import FREELY, FaceProcess
from tests.parts.desktop.bus import PrivateBus, private_bus
from tests.parts.desktop.dbusmock import notified, notifying_bus
from tests.parts.desktop.desk import Desk
from tests.parts.desktop.xvfb import Screen, screen
from tests.parts.mail.pki import Person
from tests.parts.mail.smtp import Sink
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.until import until
from tests.thunderbird.conftest import Program, furnish, start, write_prefs

BODY = "Hello from Alice, who has her key in a token"
IDENTITIES = {"rsa": "id1", "p256": "id2"}

OPEN = """
const { MailUtils } = ChromeUtils.importESModule("resource:///modules/MailUtils.sys.mjs");
const file = Cc["@mozilla.org/file/local;1"].createInstance(Ci.nsIFile);
file.initWithPath(args[0]);
const main = await until(() => windows("mail:3pane")[0]);
for (const old of windows("mail:messageWindow")) old.close();
await until(() => !windows("mail:messageWindow").length);
MailUtils.openEMLFile(main, file, Services.io.newFileURI(file));
const shown = await until(() => windows("mail:messageWindow")[0]?.messageBrowser?.contentWindow);
await until(() => shown.gSmimeMsgLoadedFired);
await until(() => shown.gSmimeProcessedDispatched);
const state = id => {
  const source = shown.document.getElementById(id).getAttribute("src") ?? "";
  return source.match(/-(\\w+)\\.svg$/)?.[1] ?? "";
};
return {
  signed: state("signedHdrIcon"),
  encrypted: state("encryptedHdrIcon"),
  body: shown.getMessagePaneBrowser().contentDocument
    .querySelector(".moz-text-plain")?.textContent.trim() ?? "",
};
"""
COMPOSE = """
const [identity, to, subject, body, encrypted] = args;
const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
const fields = Cc["@mozilla.org/messengercompose/composefields;1"]
  .createInstance(Ci.nsIMsgCompFields);
fields.to = to;
fields.subject = subject;
fields.body = body + "\\n";
const params = Cc["@mozilla.org/messengercompose/composeparams;1"]
  .createInstance(Ci.nsIMsgComposeParams);
params.identity = MailServices.accounts.getIdentity(identity);
params.format = Ci.nsIMsgCompFormat.PlainText;
params.composeFields = fields;
MailServices.compose.OpenComposeWindowWithParams(null, params);
const compose = await until(() => windows("msgcompose")[0]);
await until(() => compose.gMsgCompose?.editor && !compose.gWindowLocked);
await until(() => compose.document.getElementById("messageEditor")
  .contentDocument?.body?.textContent.includes(body));
compose.gSelectedTechnologyIsPGP = false;
if (!compose.gSendSigned) compose.toggleGlobalSignMessage();
if (compose.gSendEncrypted != encrypted) compose.toggleEncryptMessage();
if (encrypted) await until(() => compose.gSMFields.haveValidCertForEmail(to));
// A signature holds up all of Thunderbird while it waits for a person: after our answer, then.
compose.setTimeout(() => compose.GenericSendMessage(Ci.nsIMsgCompDeliverMode.Now), 500);
"""
SENT = """
const said = () => windows(null)
  .map(w => w.document.getElementById("infoBody")?.textContent).find(text => text);
await until(() => !windows("msgcompose").length || said());
return said() ?? "";
"""
NOT_SENT = """
const dialog = await until(() => windows(null).find(
  w => w.location.href.endsWith("commonDialog.xhtml")));
const said = await until(() => dialog.document.getElementById("infoBody")?.textContent);
dialog.document.querySelector("dialog").acceptDialog();
const compose = windows("msgcompose")[0];
await until(() => !compose.gWindowLocked);
const text = compose.document.getElementById("messageEditor").contentDocument.body.textContent;
compose.gMsgCompose.compFields.body = "";
compose.gContentChanged = false;
compose.gMsgCompose.bodyModified = false;
compose.close();
return { said, text };
"""
DIALOGS = "return windows(null).map(w => w.location.href);"


@dataclass
class Thunderbird:
    """A running Thunderbird whose identities sign with the token's keys."""

    program: Program
    face: FaceProcess
    outbox: Sink

    def reads(self, mail: bytes) -> dict[str, str]:
        """Open a message; return what is shown of it."""
        file = self.program.profile / "mail.eml"
        file.write_bytes(mail)
        found: dict[str, str] = self.program.marionette.run(OPEN, str(file))
        return found

    def begins(self, kind: str, *, encrypted: bool = False) -> None:
        """Write a mail to Bob, signed, and press "Send"."""
        self.program.marionette.run(
            COMPOSE, IDENTITIES[kind], "bob@example.org", "Greetings", BODY, encrypted
        )

    def sends(self, kind: str, *, encrypted: bool = False) -> bytes:
        """Send it; return what arrived."""
        before = len(self.outbox.messages)
        self.begins(kind, encrypted=encrypted)
        assert self.program.marionette.run(SENT) == ""
        until(lambda: len(self.outbox.messages) > before)
        return self.outbox.messages[-1][2]

    def fails(self) -> dict[str, Any]:
        """Return what it says instead of sending, and what the window still holds."""
        said: dict[str, Any] = self.program.marionette.run(NOT_SENT)
        return said


def accounts(outbox: Sink) -> dict[str, object]:
    prefs: dict[str, object] = {
        "mail.accountmanager.accounts": "account1",
        "mail.accountmanager.defaultaccount": "account1",
        "mail.accountmanager.localfoldersserver": "server1",
        "mail.account.account1.server": "server1",
        "mail.account.account1.identities": ",".join(IDENTITIES.values()),
        "mail.server.server1.type": "none",
        "mail.server.server1.name": "Local Folders",
        "mail.server.server1.hostname": "Local Folders",
        "mail.server.server1.userName": "nobody",
        "mail.smtpservers": "smtp1",
        "mail.smtp.defaultserver": "smtp1",
        "mail.smtpserver.smtp1.hostname": "127.0.0.1",
        "mail.smtpserver.smtp1.port": outbox.port,
        "mail.smtpserver.smtp1.authMethod": 1,
        "mail.smtpserver.smtp1.try_ssl": 0,
        "mail.smtpserver.smtp1.username": "",
    }
    for kind, name in IDENTITIES.items():
        prefs |= {
            f"mail.identity.{name}.useremail": f"{kind}@example.org",
            f"mail.identity.{name}.fullName": "Alice",
            f"mail.identity.{name}.smtpServer": "smtp1",
            f"mail.identity.{name}.doFcc": False,
            f"mail.identity.{name}.compose_html": False,
        }
    return prefs


def furnished(face: FaceProcess, mailer: Holder, outbox: Sink) -> Path:
    """Make a profile whose identities sign with the token's keys."""
    profile = face.agent.home / ".thunderbird" / "test"
    profile.mkdir(parents=True)
    furnish(profile, face, mailer)
    write_prefs(profile, "prefs.js", accounts(outbox))
    # What the person is told to put into user.js.
    for kind in IDENTITIES:
        told = face.agent.hsmagent("pkcs11", "thunderbird", f"{kind}@example.org")
        assert told.returncode == 0, told.stderr
        with (profile / "user.js").open("a") as file:
            file.write(told.stdout)
    return profile


def begun(
    profile: Path, face: FaceProcess, outbox: Sink, **environment: str
) -> Iterator[Thunderbird]:
    for program in start("thunderbird", profile, face, **environment):
        yield Thunderbird(program, face, outbox)


def running(
    face: FaceProcess, mailer: Holder, outbox: Sink, **environment: str
) -> Iterator[Thunderbird]:
    return begun(furnished(face, mailer, outbox), face, outbox, **environment)


def remove(token: SoftHsm, face: FaceProcess) -> None:
    """Take the token away."""
    tokens = token.folder / "tokens"
    tokens.rename(token.folder / "away")
    tokens.mkdir()
    face.agent.hsmagent("refresh")


def put_back(token: SoftHsm, face: FaceProcess) -> None:
    """Bring it back, and unlock it."""
    tokens = token.folder / "tokens"
    tokens.rmdir()
    (token.folder / "away").rename(tokens)
    face.agent.hsmagent("refresh")
    face.agent.unlock(PIN)


@pytest.fixture
def bus() -> Iterator[PrivateBus]:
    with notifying_bus() as bus:
        yield bus


@pytest.fixture
def thunderbird(start_face: StartFace, mailer: Holder, outbox: Sink) -> Iterator[Thunderbird]:
    face = start_face(FREELY + module_config(mailer.token))
    face.agent.unlock(PIN)
    yield from running(face, mailer, outbox)


# -- what openssl makes and sees of it -------------------------------------------------------


def openssl(*arguments: str, data: bytes = b"") -> bytes:
    return subprocess.run(
        ["openssl", "cms", *arguments], input=data, capture_output=True, check=True, timeout=60
    ).stdout


def entity() -> bytes:
    return f"Content-Type: text/plain\r\n\r\n{BODY}\r\n".encode()


def dated() -> bytes:
    """Return the field without which Thunderbird takes a signature for one of another time."""
    return f"Date: {formatdate()}\n".encode()


def header(who: str, to: str) -> list[str]:
    return ["-from", f"{who}@example.org", "-to", f"{to}@example.org", "-subject", "Greetings"]


def signed_mail(who: str, certificate: str, key: str) -> bytes:
    sign = ("-sign", "-signer", certificate, "-inkey", key, "-md", "sha256")
    return dated() + openssl(*sign, *header(who, "rsa"), data=entity())


def encrypted_mail(mailer: Holder, *options: str) -> bytes:
    return dated() + openssl(
        *("-encrypt", "-aes256", "-recip", mailer.certificate("rsa"), *options),
        *header("bob", "rsa"),
        data=entity(),
    )


def signed_text(mail: bytes, mailer: Holder) -> str:
    """Check a signature; return the text that was signed."""
    try:
        content = openssl("-verify", "-CAfile", mailer.ca, data=mail)
    except subprocess.CalledProcessError as error:
        raise AssertionError(error.stderr.decode() + mail.decode()) from error
    signed = message_from_bytes(content)
    text = signed.get_payload(decode=True)
    assert isinstance(text, bytes)
    return text.decode().strip()


def decrypted(mail: bytes, bob: Person, folder: Path) -> bytes:
    certificate, key = bob.write(folder, "bob")
    return openssl("-decrypt", "-recip", certificate, "-inkey", key, data=mail)


# -- the tests -------------------------------------------------------------------------------


def test_it_reads_and_sends(
    thunderbird: Thunderbird, mailer: Holder, bob: Person, tmp_path: Path
) -> None:
    """One start for all of it, since that takes long."""
    # From Bob's mail it takes his certificate, too.
    for who, files in {
        **{kind: (mailer.certificate(kind), f"{mailer.folder}/{kind}.key") for kind in IDENTITIES},
        "bob": bob.write(tmp_path, "bob"),
    }.items():
        shown = thunderbird.reads(signed_mail(who, *files))
        assert shown == {"signed": "ok", "encrypted": "", "body": BODY}, who
    for options in ([], ["-keyopt", "rsa_padding_mode:oaep"]):
        shown = thunderbird.reads(encrypted_mail(mailer, *options))
        assert shown == {"signed": "", "encrypted": "ok", "body": BODY}, options
    for kind in IDENTITIES:
        assert signed_text(thunderbird.sends(kind), mailer) == BODY, kind
        sent = thunderbird.sends(kind, encrypted=True)
        inner = decrypted(sent, bob, tmp_path)
        assert signed_text(inner, mailer) == BODY, kind
    used = thunderbird.face.agent.hsmagent("log").stdout
    assert "make the signature of a mail" in used
    assert "thunderbird" in used
    assert not any("askPassword" in url or "protectedAuth" in url for url in dialogs(thunderbird))


def dialogs(thunderbird: Thunderbird) -> list[str]:
    found: list[str] = thunderbird.program.marionette.run(DIALOGS)
    return found


def test_it_bears_that_the_token_leaves_and_the_daemon_starts_anew(
    start_face: StartFace, mailer: Holder, outbox: Sink, bus: PrivateBus
) -> None:
    own = mailer.token.copy(mailer.folder / "copy")
    face = start_face(FREELY + module_config(own), DBUS_SESSION_BUS_ADDRESS=bus.address)
    face.agent.unlock(PIN)
    for each in running(face, mailer, outbox):
        assert signed_text(each.sends("rsa"), mailer) == BODY
        # The token is removed, and put back.
        remove(own, face)
        each.begins("rsa")
        failed = each.fails()
        assert BODY in failed["text"], "nothing that was written is lost"
        assert re.search("thunderbird.* wanted the token “work”", notified(bus, "Notify"))
        put_back(own, face)
        assert signed_text(each.sends("rsa"), mailer) == BODY
        # The daemon is started anew beneath it.
        face.agent.stop()
        face.agent.start()
        face.agent.unlock(PIN)
        assert signed_text(each.sends("p256"), mailer) == BODY
        assert each.reads(encrypted_mail(mailer))["encrypted"] == "ok"


def test_the_token_may_come_after_it(start_face: StartFace, mailer: Holder, outbox: Sink) -> None:
    own = mailer.token.copy(mailer.folder / "late")
    face = start_face(FREELY + module_config(own))
    made = furnished(face, mailer, outbox)
    remove(own, face)
    face.agent.stop()  # what follows has never seen the token
    face.stop()
    face.agent.start()
    face.start()
    for each in begun(made, face, outbox):
        each.begins("rsa")
        assert BODY in each.fails()["text"]
        put_back(own, face)
        assert signed_text(each.sends("rsa"), mailer) == BODY


def test_a_no_and_then_a_yes(
    start_face: StartFace, mailer: Holder, outbox: Sink, tmp_path: Path
) -> None:
    desk = Desk(tmp_path / "desk")
    config = (
        '[pkcs11]\nenabled = true\n[prompt]\norder = ["askpass"]\n[[key]]\nmatch = "pkcs11:"\n'
        'allow = ["mail", "pkcs11-message", "pkcs11-digest", "pkcs11-decrypt"]\n'
    )
    face = start_face(config + module_config(mailer.token), **desk.environment)
    for each in running(face, mailer, outbox):
        desk.answers("no")
        each.begins("rsa")
        failed = each.fails()
        assert BODY in failed["text"]
        assert "thunderbird" in desk.asked
        assert "signature of a mail" in desk.asked
        assert outbox.messages == []
        face.agent.unlock(PIN)
        desk.answers("yes")
        assert signed_text(each.sends("rsa"), mailer) == BODY


@pytest.fixture
def display() -> Iterator[Screen]:
    with screen() as one:
        yield one


def test_a_pin_is_given_in_the_desktops_window_while_it_waits(
    display: Screen, start_face: StartFace, mailer: Holder, outbox: Sink
) -> None:
    with private_bus(display.environment) as bus:
        bus.add_service("org.gnome.keyring.SystemPrompter", "/usr/libexec/gcr-prompter")
        bus.start()
        face = start_face(
            FREELY + module_config(mailer.token),
            DBUS_SESSION_BUS_ADDRESS=bus.address,
            DBUS_SYSTEM_BUS_ADDRESS=bus.address,
        )
        for each in running(face, mailer, outbox, DBUS_SESSION_BUS_ADDRESS=bus.address):
            each.begins("rsa")
            display.wait_for_window()
            display.type(PIN)
            display.press("Return")
            assert each.program.marionette.run(SENT) == ""
            until(lambda: outbox.messages)
            assert signed_text(outbox.messages[-1][2], mailer) == BODY
            display.wait_until_empty()
