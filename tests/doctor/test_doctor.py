"""The doctor, on healthy and on sick set-ups."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hsmagent.config.file import Config, read
from hsmagent.doctor import agent, desktop, modules, pkcs11, sessions, tokens
from hsmagent.doctor.finding import Finding, State, Surroundings
from hsmagent.doctor.report import text, total
from hsmagent.model import ModuleSpec
from hsmagent.setup.home import Home
from tests.daemon.conftest import module_config
from tests.parts.agent.daemon import AgentProcess
from tests.parts.desktop.bus import private_bus
from tests.parts.mail.people import ca_file, person
from tests.parts.token.softhsm import MODULE, SoftHsm


def place(tmp_path: Path, **env: str) -> Surroundings:
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    return Surroundings(tmp_path / "run", tmp_path / "config.toml", env=home | env)


def by_check(found: list[Finding]) -> dict[str, Finding]:
    return {each.check: each for each in found}


def doctor(of: AgentProcess) -> tuple[int, dict[str, list[dict[str, str]]]]:
    done = of.hsmagent("doctor", "--json")
    found: dict[str, list[dict[str, str]]] = {}
    for each in json.loads(done.stdout):
        found.setdefault(each["check"], []).append(each)
    return done.returncode, found


@pytest.fixture
def softhsm(tmp_path: Path) -> SoftHsm:
    token = SoftHsm.create(tmp_path / "hsm")
    token.init_token("work")
    return token


@pytest.fixture
def session(tmp_path: Path, softhsm: SoftHsm) -> AgentProcess:
    """Make a home with a configuration; no daemon runs yet."""
    return AgentProcess(tmp_path / "home", module_config(softhsm))


def test_a_daemon_of_another_version(
    session: AgentProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an upgrade it is the old one until it is restarted."""
    monkeypatch.setattr(agent, "__version__", "99.0")
    session.start()
    try:
        finding, status = agent.ask_daemon(
            Surroundings(session.runtime, session.config, env=session.environment)
        )
    finally:
        session.stop()
    assert status is not None
    assert finding.sentence == f"the daemon is version {status['version']}, this is 99.0"
    assert finding.remedy == "systemctl --user restart hsmagent"


def test_with_a_daemon(session: AgentProcess) -> None:
    session.start()
    try:
        _, found = doctor(session)
    finally:
        session.stop()
    assert [each["sentence"] for each in found["module"]] == [f"{MODULE}: “work”"]
    for check in ("config", "daemon", "ssh-auth-sock"):
        assert [each["state"] for each in found[check]] == ["ok"], check
    assert found["ssh"][0]["sentence"] == "ssh sees no keys"


@pytest.mark.parametrize("running", [True, False])
def test_a_token_that_is_not_initialised(tmp_path: Path, running: bool) -> None:
    agent = AgentProcess(tmp_path / "home", module_config(SoftHsm.create(tmp_path / "empty")))
    if running:
        agent.start()
    try:
        _, found = doctor(agent)
        if running:
            assert "is not initialised" in agent.hsmagent("status").stdout
            assert "is not initialised" in agent.hsmagent("keys").stdout
    finally:
        agent.stop()
    assert "is not initialised" in found["module"][1]["sentence"]


def test_without_a_daemon_the_modules_are_tried(session: AgentProcess) -> None:
    status, found = doctor(session)
    assert status == 1
    assert found["daemon"][0]["state"] == "bad"
    assert "hsmagent daemon" in found["daemon"][0]["remedy"]
    assert [each["sentence"] for each in found["module"]] == [f"{MODULE}: “work”"]
    assert not (session.home / "state").exists()


def test_a_daemon_that_hangs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "COMMAND_TIMEOUT", 0.1)
    where = place(tmp_path)
    where.runtime_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(where.runtime_dir / "control.sock"))
        mute.listen()
        finding, status = agent.ask_daemon(where)
    assert (finding.state, status) == (State.BAD, None)
    assert "does not answer" in finding.sentence


def test_a_module_that_is_not_there_or_is_none(session: AgentProcess) -> None:
    junk = session.home / "junk.so"
    junk.write_bytes(b"no module")
    session.configure(f'[[module]]\npath = "/no/such.so"\n[[module]]\npath = "{junk}"\n')
    status, found = doctor(session)
    first, second = found["module"]
    assert status == 1
    assert (first["state"], first["sentence"]) == ("bad", "the module /no/such.so is not there")
    assert second["state"] == "bad"
    assert str(junk) in second["sentence"]


@pytest.mark.parametrize("running", [False, True])
def test_a_module_whose_files_are_closed_to_us(
    session: AgentProcess, softhsm: SoftHsm, *, running: bool
) -> None:
    closed = softhsm.folder / "tokens"
    mode = closed.stat().st_mode
    closed.chmod(0o050)
    try:
        if running:
            session.start()
        (finding,) = doctor(session)[1]["module"]
    finally:
        session.stop()
        closed.chmod(mode)
    assert f"{closed} cannot be read: join its group" in finding["sentence"]
    assert "pkcs11-tool" not in finding["remedy"]


def test_a_wrong_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[prompt]\ncolour = 3\n")
    finding, settings = modules.configuration(place(tmp_path))
    assert (finding.state, settings) == (State.BAD, None)
    assert "colour" in finding.sentence


def test_a_configuration_that_is_named_must_be_there(tmp_path: Path) -> None:
    assert modules.configuration(place(tmp_path))[0].state is State.OK
    named = replace(place(tmp_path), config_named=True)
    assert modules.configuration(named)[0].state is State.BAD


@pytest.mark.parametrize(
    ("sock", "whose"),
    [
        ("/run/user/1000/keyring/ssh", "gnome-keyring"),
        ("/run/user/1000/gcr/ssh", "gcr-ssh-agent"),
        ("/run/user/1000/gnupg/S.gpg-agent.ssh", "gpg-agent"),
        ("/tmp/ssh-abcdef/agent.1", "OpenSSH's agent"),
        ("/elsewhere", "another agent's"),
        ("", "not set"),
    ],
)
def test_another_agent_in_the_way(tmp_path: Path, sock: str, whose: str) -> None:
    finding = agent.ssh_auth_sock(place(tmp_path, SSH_AUTH_SOCK=sock))
    assert finding.state is State.BAD
    assert whose in finding.sentence
    assert finding.remedy


def test_our_socket_by_another_name(tmp_path: Path) -> None:
    where = place(tmp_path, SSH_AUTH_SOCK=str(tmp_path / "link"))
    where.runtime_dir.mkdir()
    where.ssh_socket.touch()
    (tmp_path / "link").symlink_to(where.ssh_socket)
    assert agent.ssh_auth_sock(where).state is State.OK


async def test_an_identity_agent_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = place(tmp_path)
    seen: list[str] = []

    async def output_of(command: list[str], _env: object) -> str:
        seen.append(command[0])
        return "user me\nidentityagent ~/other.sock\n"

    assert await agent.ssh_config(where) is None  # the real ssh, without a configuration
    monkeypatch.setattr(agent, "output_of", output_of)
    finding = await agent.ssh_config(where)
    assert finding is not None
    assert (seen, finding.state) == (["ssh"], State.BAD)


async def test_the_bus_and_its_prompter(tmp_path: Path) -> None:
    with private_bus() as bus:
        bus.add_service("org.gnome.keyring.SystemPrompter", "/bin/false")
        bus.start()
        where = place(tmp_path, DBUS_SESSION_BUS_ADDRESS=bus.address)
        found = by_check(await desktop.prompters(where))
    assert found["bus"].state is State.OK
    assert found["system-prompter"].sentence == "the bus can start gcr-prompter"
    assert not found.keys() & {"pinentry", "prompter"}  # there is no display, and no need of one


async def test_without_a_bus_or_a_display(tmp_path: Path) -> None:
    found = by_check(await desktop.prompters(place(tmp_path)))
    assert found["bus"].state is State.WARN
    assert "DISPLAY" in found["pinentry"].remedy
    named = by_check(await desktop.prompters(place(tmp_path), "pinentry-fuzzel"))
    assert named["pinentry"].sentence == "there is no pinentry-fuzzel"
    assert "[prompt] pinentry" in named["pinentry"].remedy
    assert "hsmagent unlock" in found["prompter"].remedy


async def test_a_bus_that_hangs_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desktop, "BUS_TIMEOUT", 0.2)
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind("bus")
        mute.listen()
        found = await desktop.prompters(place(tmp_path, DBUS_SESSION_BUS_ADDRESS="unix:path=bus"))
    assert found[0].sentence == "there is no session bus"


async def test_a_login_shell_finds_no_agent_that_does_not_run(tmp_path: Path) -> None:
    """Nobody is told to run setup who has just done so."""
    where = place(tmp_path, SHELL="/bin/sh")
    before = await sessions.login_shell(where)
    assert before is not None
    assert (before.sentence, before.remedy) == ("a new login shell finds no agent", sessions.SET_UP)
    profile = Home.of(where.env).profile
    profile.parent.mkdir(parents=True)
    profile.touch()
    after = await sessions.login_shell(where)
    assert after is not None
    assert after.remedy == sessions.STARTED_BEFORE


async def test_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"hsmagent.service": "inactive", "hsmagent-ssh.socket": "active"}

    where = place(tmp_path)
    environment = f"SSH_AUTH_SOCK={where.ssh_socket}\n"

    async def output_of(command: list[str], _env: object) -> str:
        if "show-environment" in command:
            return environment
        blocks = [
            f"Id={name}\nLoadState=loaded\nActiveState={states.get(name, 'active')}\n"
            for name in desktop.UNITS
        ]
        return "\n".join(blocks)

    monkeypatch.setattr(desktop, "output_of", output_of)
    assert [each.state for each in await desktop.systemd(where)] == [State.OK, State.OK]
    environment = "SSH_AUTH_SOCK=/run/user/1000/gcr/ssh\n"
    _, finding = await desktop.systemd(where)
    assert (finding.state, "gcr" in finding.sentence) == (State.WARN, True)
    states["hsmagent-ssh.socket"] = "inactive"
    [finding] = await desktop.systemd(where)
    assert "systemctl --user enable --now" in finding.remedy
    states["hsmagent.service"] = "failed"
    [finding] = await desktop.systemd(where)
    assert "journalctl" in finding.remedy


def test_a_report_is_easy_on_the_eye() -> None:
    found = [
        Finding("a", State.OK, "fine"),
        Finding("b", State.WARN, "so so", "look"),
        Finding("c", State.BAD, "broken", "mend it"),
    ]
    shown = "".join(text(each, colour=False) for each in found) + total(found)
    assert shown == (
        "✓ fine\n! so so\n    → look\n✗ broken\n    → mend it\n\n1 wrong, 1 to look at\n"
    )
    assert "\x1b[1;31m✗\x1b[0m broken" in text(found[2], colour=True)
    assert total(found[:1]) == "\nall is well\n"


def test_what_is_found_is_shown_as_it_is_found(session: AgentProcess) -> None:
    """A program that hangs holds up what comes after it, and not what came before."""
    hanging = session.home / "bin" / "ssh"
    hanging.parent.mkdir()
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    env = {**session.environment, "PATH": f"{hanging.parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "hsmagent", "doctor"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as doctor:
        assert doctor.stdout is not None
        first = doctor.stdout.readline()
        assert doctor.poll() is None
        doctor.kill()
    assert "configuration" in first


@pytest.mark.parametrize("name", ["config.toml", "."])
def test_a_configuration_that_others_may_write(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "it's"
    folder.mkdir()
    (folder / "config.toml").touch()
    where = replace(place(tmp_path), config=folder / "config.toml")
    assert modules.configuration(where)[0].state is State.OK
    (folder / name).chmod(0o777)
    finding, settings = modules.configuration(where)
    assert (finding.state, settings) == (State.BAD, None)
    # The remedy can be pasted, and is one.
    subprocess.run(["sh", "-c", finding.remedy], check=True)
    assert modules.configuration(where)[0].state is State.OK


def test_exclusive_is_recommended_for_opensc_alone() -> None:
    opensc, other = ModuleSpec("/usr/lib/opensc-pkcs11.so"), ModuleSpec("/usr/lib/libsofthsm2.so")
    found = modules.exclusive(Config(modules=(opensc, other)))
    assert found is not None
    assert (found.state, "exclusive = true" in found.sentence) == (State.OK, True)
    alone = replace(opensc, exclusive=True)
    assert modules.exclusive(Config(modules=(alone, other))) is None


def test_two_programs_on_the_path(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    for folder in ("a", "b"):
        (tmp_path / folder / "hsmagent").touch(mode=0o755)
    (tmp_path / "c/hsmagent").symlink_to("../a/hsmagent")

    def found(*folders: str) -> Finding | None:
        return agent.programs(place(tmp_path, PATH=":".join(f"{tmp_path}/{f}" for f in folders)))

    assert found("a", "c") is None
    two = found("c", "a", "b")
    assert two is not None
    assert two.sentence == (
        f"the PATH has {tmp_path}/c/hsmagent, which is run, and {tmp_path}/b/hsmagent as well"
    )


@pytest.mark.parametrize("installed", [True, False])
async def test_pcscd_that_is_not_there_or_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, installed: bool
) -> None:
    monkeypatch.setenv("PCSCLITE_CSOCK_NAME", str(tmp_path / "none"))
    monkeypatch.setattr(modules, "PROGRAM", Path("/bin/sh") if installed else tmp_path / "none")
    finding = await modules.smart_cards(["/usr/lib/opensc-pkcs11.so"])
    assert finding is not None
    assert ("install" in finding.remedy) == (not installed)


# -- what the daemon knows -------------------------------------------------------------------


def sentences(of: AgentProcess) -> dict[str, list[str]]:
    _, found = doctor(of)
    return {check: [each["sentence"] for each in each_of] for check, each_of in found.items()}


def test_entries_that_match_nothing(session: AgentProcess, softhsm: SoftHsm) -> None:
    softhsm.generate("work", "EC:prime256v1", "01", "ec")
    session.configure(
        module_config(softhsm)
        + """
[[key]]
match = "pkcs11:token=work;object=ec"
[[key]]
match = "pkcs11:token=work;object=gone"
[[token]]
match = "pkcs11:token=work"
[[token]]
match = "pkcs11:token=play"
[ssh]
upstream = "/no/such.sock"
certificates = ["/no/such-cert.pub"]
"""
    )
    added = session.home / "added"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(added)]
    subprocess.run(make, check=True, timeout=60)
    session.start()
    try:
        add = ["ssh-add", "-q", str(added)]  # a key that no URI names
        subprocess.run(add, env=session.environment, check=True, timeout=60)
        found = sentences(session)
    finally:
        session.stop()
    assert found["match"] == [
        "the configuration's [[key]] number 2 matches nothing that is there now",
        "the configuration's [[token]] number 2 matches nothing that is there now",
    ]
    assert "/no/such.sock, cannot be reached" in found["upstream"][0]
    assert found["certificates"] == ["no certificate is in /no/such-cert.pub"]
    assert found["ssh"] == ["ssh sees 2 keys"]


def test_an_agent_that_is_locked(session: AgentProcess, softhsm: SoftHsm, tmp_path: Path) -> None:
    softhsm.generate("work", "EC:prime256v1", "01", "ec")
    session.start()
    try:
        assert sentences(session)["ssh"] == ["ssh sees 1 key"]
        ask = tmp_path / "ask"
        ask.write_text("#!/bin/sh\necho password\n")
        ask.chmod(0o755)
        asking = {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        lock = ["ssh-add", "-x"]
        env = session.environment | asking
        subprocess.run(lock, env=env, check=True, capture_output=True, timeout=60)
        [sentence] = sentences(session)["ssh"]
    finally:
        session.stop()
    assert sentence.startswith("ssh sees none of 1 keys: the agent is locked")


def test_more_keys_than_a_server_has_patience(session: AgentProcess, softhsm: SoftHsm) -> None:
    for number in range(6):
        softhsm.generate("work", "EC:prime256v1", f"0{number}", f"ec{number}")
    session.start()
    try:
        [many] = sentences(session)["ssh"]
    finally:
        session.stop()
    assert many == "ssh sees 6 keys, and servers refuse a login after 6 tries"
    status = {"listed": [{"ssh": ""}] * 6}
    assert tokens.listed(6, status, identities_only=True).state is State.OK


@pytest.mark.parametrize(
    ("changed", "check", "said", "remedy"),
    [
        ({"pin_state": "locked"}, "pin", "is blocked", "hsmagent token unblock 47"),
        (
            {"pin_state": "locked", "module": "/usr/lib/libtpm2_pkcs11.so"},
            *("pin", "is blocked", "tpm2_dictionarylockout"),
        ),
        ({"pin_state": "final-try"}, "pin", "one PIN try left", "hsmagent unlock --last-try 47"),
        ({"pin_state": "not-set"}, "pin", "no PIN yet", "hsmagent token unblock 47"),
        ({"last_error": "it broke"}, "token", "failed: it broke", "put it in again"),
    ],
)
def test_a_token_that_is_not_well(
    changed: dict[str, str], check: str, said: str, remedy: str
) -> None:
    token = {
        "label": "work",
        "serial": "47",
        "module": "/m y.so",
        "uri": "pkcs11:token=work;serial=47",
        "present": True,
        "pin_state": "ok",
        "last_error": "",
    }
    assert list(tokens.of_daemon({"tokens": [token]}, None)) == []
    [finding] = tokens.of_daemon({"tokens": [token | changed]}, None)
    assert (finding.check, said in finding.sentence) == (check, True)
    assert remedy in finding.remedy
    assert list(tokens.of_daemon({"tokens": [token | changed | {"present": False}]}, None)) == []


def test_identity_agents_of_some_hosts(tmp_path: Path) -> None:
    where = place(tmp_path)
    where.runtime_dir.mkdir()
    where.ssh_socket.touch()
    (tmp_path / ".ssh").mkdir()
    config = tmp_path / ".ssh/config"
    config.write_text(
        f"Host a\n  IdentityAgent {where.ssh_socket}\nHost b\n  identityagent=/other.sock\n"
        "Host c\n  IdentityAgent SSH_AUTH_SOCK\nHost d\n IdentityAgent none\n"
    )
    found = [each.sentence for each in agent.per_host(where)]
    assert found == [
        "~/.ssh/config, line 4, has some hosts ask another agent: /other.sock",
        "~/.ssh/config, line 8, has some hosts ask another agent: none",
    ]


def test_an_identity_whose_mail_nobody_will_take_for_good(
    session: AgentProcess, softhsm: SoftHsm, tmp_path: Path
) -> None:
    _, private = person("p256").write(tmp_path, "alice")
    softhsm.import_key("work", Path(private), "07", "mail")
    der = tmp_path / "alice.der"
    der.write_bytes(person("p256").der)
    softhsm.write("work", "cert", der, "07", "mail")
    session.start()
    try:
        _, untrusted = doctor(session)
        session.hsmagent("roots", "add", ca_file(tmp_path))
        _, trusted = doctor(session)
    finally:
        session.stop()
    [finding] = untrusted["mail"]
    assert "Test Root" in finding["sentence"]
    assert finding["remedy"]
    assert "mail" not in trusted


KEY = '[[key]]\nmatch = "ssh"\nallow = ["ssh", "pkcs11-digest"]\n'
ENABLED = "[pkcs11]\nenabled = true\n"


@pytest.mark.parametrize(
    ("content", "state", "said"),
    [
        (KEY, State.WARN, "none are served"),
        (ENABLED, State.WARN, "see no key"),
        (ENABLED + KEY.replace("pkcs11-digest", "gnupg"), State.WARN, "see no key"),
        (ENABLED + KEY, State.OK, "with keys allowed"),
    ],
)
def test_keys_for_pkcs11_programs(content: str, state: State, said: str) -> None:
    found = pkcs11.served(read(content, "config.toml"))
    assert found is not None
    assert found.state is state
    assert said in found.sentence
    assert bool(found.remedy) is (state is not State.OK)
    assert pkcs11.served(Config()) is None
