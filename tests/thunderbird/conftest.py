"""A real Thunderbird or Firefox with a profile of its own, headless, and what it talks to."""

import json
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.p11.conftest import Holder, StartFace, make_holder, person, starting
from tests.parts.agent.pkcs11 import FaceProcess
from tests.parts.mail.pki import Person
from tests.parts.mail.smtp import Sink, sink
from tests.parts.until import until
from tests.thunderbird.marionette import Marionette

# Nothing is fetched, nothing is shown that nobody asked for.
PREFS: dict[str, object] = {
    "app.donation.eoy.version.viewed": 999,
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "mail.openMessageBehavior": 0,  # a window for each message
    "mail.provider.suppress_dialog_on_startup": True,
    "mail.shell.checkDefaultClient": False,
    "mail.smime.accept_insecure_sha1_message_signatures": False,
    "mail.spotlight.firstRunDone": True,
    "mailnews.start_page.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "security.default_personal_cert": "Select Automatically",
    "security.OCSP.enabled": 0,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.enabled": False,
}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave this folder out of a run of everything; `make thunderbird` runs it."""
    del collection_path
    named = any("thunderbird" in str(argument) for argument in config.args)
    return None if named else True


@dataclass
class Program:
    """A running Thunderbird or Firefox."""

    marionette: Marionette
    process: subprocess.Popen[bytes]
    profile: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_prefs(profile: Path, name: str, prefs: Mapping[str, object]) -> None:
    lines = (
        f"user_pref({json.dumps(key)}, {json.dumps(value)});\n" for key, value in prefs.items()
    )
    with (profile / name).open("a") as file:
        file.writelines(lines)


def furnish(profile: Path, face: FaceProcess, holder: Holder) -> None:
    """Add our module, as the Devices dialog does, and our CA."""
    database = f"sql:{profile}"
    face.must("certutil", "-N", "-d", database, "--empty-password")
    face.must(
        *("modutil", "-force", "-dbdir", database, "-add", "hsmagent", "-libfile", face.module)
    )
    face.must("certutil", "-A", "-d", database, "-n", "CA", "-t", "CT,C,C", "-i", holder.ca)


def start(program: str, profile: Path, face: FaceProcess, **environment: str) -> Iterator[Program]:
    """Run a program until the test is over; where no DISPLAY is given, headless."""
    headless = {} if "DISPLAY" in environment else {"MOZ_HEADLESS": "1"}
    port = free_port()
    write_prefs(profile, "user.js", PREFS | {"marionette.port": port})
    with (profile / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--marionette", "--remote-allow-system-access", "--no-remote",
             "--profile", str(profile)],
            env=face.environment | headless | environment,
            stdout=log,
            stderr=log,
        )  # fmt: skip
    try:
        until(lambda: answers(port), 60)
        marionette = Marionette(port)
        yield Program(marionette, process, profile)
        marionette.close()
    finally:
        process.kill()
        process.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def mailer(tmp_path_factory: pytest.TempPathFactory) -> Holder:
    """Make a token with a key and a certificate for each of two addresses."""
    return make_holder(
        tmp_path_factory.mktemp("mailer"), {"rsa": "rsa@example.org", "p256": "p256@example.org"}
    )


@pytest.fixture(scope="session")
def bob() -> Person:
    """Make somebody to write to."""
    return person("rsa", "Bob", "bob@example.org")


@pytest.fixture
def start_face(tmp_path: Path) -> Iterator[StartFace]:
    yield from starting(tmp_path)


@pytest.fixture
def outbox() -> Iterator[Sink]:
    with sink() as kept:
        yield kept
