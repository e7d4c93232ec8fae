"""The commands of a person, against the real daemon with a SoftHSM token."""

import os
import pty
import select
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from hsmagent.control.client import Daemon
from hsmagent.errors import UsageError
from tests.daemon.conftest import Start, module_config
from tests.parts.agent.daemon import PROGRAM, AgentProcess
from tests.parts.token.softhsm import PIN, SoftHsm
from tests.parts.until import until


def test_status_shows_the_token_locked_and_then_unlocked(agent: AgentProcess) -> None:
    before = agent.hsmagent("status")
    assert before.returncode == 0
    assert "work\n" in before.stdout
    assert "login   locked" in before.stdout
    assert agent.unlock(PIN).stdout == "work is unlocked\n"
    after = agent.hsmagent("status")
    assert "unlocked, 14 min" in after.stdout or "unlocked, 15 min" in after.stdout
    [token] = agent.json("status")["tokens"]
    assert token["logged_in"]
    assert 890 < token["idle_left"] <= 900
    assert 28_790 < token["max_left"] <= 28_800


def test_keys_lists_every_kind_without_a_pin(agent: AgentProcess) -> None:
    keys = agent.json("keys")["keys"]
    assert {key["kind"] for key in keys} == {"RSA 2048", "ECDSA P-256", "Ed25519"}
    listed = agent.hsmagent("keys").stdout
    assert "AAAA" not in listed
    assert agent.hsmagent("keys", "--ssh").stdout == agent.run(["ssh-add", "-L"]).stdout
    for key in keys:
        assert key["fingerprint"] in listed
        assert key["fingerprint"].startswith("SHA256:")


def test_pubkey_finds_a_key_by_label_fingerprint_and_uri(agent: AgentProcess) -> None:
    [key] = [key for key in agent.json("keys")["keys"] if key["label"] == "ec"]
    for name in ("ec", key["fingerprint"], key["uri"], "pkcs11:object=ec"):
        result = agent.hsmagent("pubkey", name)
        assert result.stdout == key["ssh"] + "\n", result.stderr
    pem = agent.hsmagent("pubkey", "ec", "--pem").stdout
    read = agent.run(["openssl", "pkey", "-pubin", "-text", "-noout"], stdin=pem)
    assert "prime256v1" in read.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["pubkey", "nobody"], 2, "no key is named 'nobody'"),
        (["pubkey"], 2, "wrong number of arguments"),
        (["pubkey", "pkcs11:"], 2, "3 keys are named"),
        (["pubkey", "pkcs11:?pin-value=1"], 2, "pin-value is refused"),
        (["unlock", "elsewhere"], 2, "no token is named 'elsewhere'; present: work"),
        (["status", "--colour"], 2, "no option --colour"),
        (["frobnicate"], 2, "no command 'frobnicate'"),
        (["status", "--runtime-dir"], 2, "--runtime-dir needs a value"),
        (["status", "--runtime-dir="], 2, "--runtime-dir needs a value"),
        (["log", "--since", ""], 2, "--since needs a value"),
        (["lock", ""], 2, "an argument is empty"),
    ],
)
def test_mistakes_are_one_line_and_a_status(
    agent: AgentProcess, arguments: list[str], status: int, sentence: str
) -> None:
    result = agent.hsmagent(*arguments)
    assert result.returncode == status
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_and_version_need_no_daemon(tmp_path: Path) -> None:
    nobody = AgentProcess(tmp_path)
    assert nobody.hsmagent("--version").stdout.startswith("hsmagent 0.")
    assert "unlock [TOKEN]" in nobody.hsmagent("--help").stdout
    assert nobody.hsmagent("unlock", "--help").returncode == 0
    assert nobody.hsmagent().returncode == 2


@pytest.mark.parametrize(
    ("named", "lacks"),
    [
        ("relative/run", "XDG_RUNTIME_DIR is a relative path; set it to an absolute one"),
        ("{home}/gone", "XDG_RUNTIME_DIR is {home}/gone, which is not there"),
        ("{home}/file", "XDG_RUNTIME_DIR is {home}/file, which is no folder"),
        ("", "XDG_RUNTIME_DIR is not set, and there is no /run/user/"),
        ("{home}/" + "long" * 30, "is too long a path for a socket in it"),
    ],
)
def test_a_runtime_folder_that_cannot_be_is_told_by_all(
    tmp_path: Path, named: str, lacks: str
) -> None:
    nobody = AgentProcess(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / ("long" * 30)).mkdir()
    nobody.environment["XDG_RUNTIME_DIR"] = named.format(home=tmp_path)
    for command in ("status", "daemon"):
        result = nobody.hsmagent(command)
        assert result.returncode == 2
        assert lacks.format(home=tmp_path) in result.stderr
        assert result.stderr.count("\n") == 1
    assert lacks.format(home=tmp_path) in " ".join(nobody.hsmagent("doctor").stdout.split())


@pytest.mark.parametrize(
    ("variable", "command"),
    [
        ("XDG_CONFIG_HOME", ["daemon"]),
        ("XDG_CONFIG_HOME", ["doctor"]),
        ("XDG_STATE_HOME", ["daemon"]),
        ("XDG_DATA_HOME", ["contacts", "list"]),
    ],
)
def test_no_other_folder_is_relative_either(
    tmp_path: Path, variable: str, command: list[str]
) -> None:
    """It would depend on where the program is started, and so would the policy."""
    nobody = AgentProcess(tmp_path)
    nobody.environment[variable] = "config"
    result = nobody.hsmagent(*command)
    assert result.returncode != 0
    assert result.stderr.startswith(f"hsmagent: {variable} is a relative path")


def test_the_log_tells_of_providers_that_were_refused(agent: AgentProcess, tmp_path: Path) -> None:
    module = tmp_path / "evil.so"
    module.touch()
    done = agent.run(["ssh-add", "-s", str(module)], stdin=PIN + "\n")
    assert done.returncode != 0
    [entry] = agent.json("log")["entries"]
    assert entry["outcome"] == "refused"
    assert entry["key"] == str(module)
    assert "is not allowed" in entry["reason"]
    assert PIN not in agent.hsmagent("log").stdout


def test_the_log_is_there_without_the_daemon(agent: AgentProcess, tmp_path: Path) -> None:
    agent.configure(agent.config.read_text() + '[[key]]\nmatch = "pkcs11:"\nallow = []\n')
    agent.signal(signal.SIGHUP)
    until(lambda: "was read again" in agent.logged())
    public = tmp_path / "ec.pub"
    public.write_text(agent.hsmagent("pubkey", "ec").stdout)
    agent.run(["ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(public)], stdin="x")
    before = agent.hsmagent("log").stdout
    assert "was refused" in before
    agent.stop()
    after = agent.hsmagent("log")
    assert (after.returncode, after.stdout) == (0, before)
    assert "no daemon answers" in after.stderr
    assert agent.hsmagent("log", "--since", "2100-01-01").stdout == ""
    assert agent.hsmagent("log", "--since", "yesterday").returncode == 2


def test_without_a_daemon_one_line_says_how_to_start_it(tmp_path: Path) -> None:
    result = AgentProcess(tmp_path).hsmagent("status")
    assert result.returncode == 1
    assert "start it with `systemctl --user start hsmagent` or `hsmagent daemon`" in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_answer_that_cannot_be_written_is_a_failure(agent: AgentProcess) -> None:
    for command in ("status", "keys", "lock", "unlock --stdin"):
        done = agent.run(["sh", "-c", f'"$@" {command} >&-', "sh", *PROGRAM], stdin=PIN)
        assert (done.returncode, done.stderr) == (1, "hsmagent: standard output is closed\n")


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("<&-", "standard input is closed; nothing was tried"),
        ("</dev/null", "the PIN is empty; nothing was tried"),
    ],
)
def test_a_pin_that_cannot_be_read_is_told_at_once(
    agent: AgentProcess, source: str, sentence: str
) -> None:
    """A closed descriptor must not become the socket of the daemon, and be waited for."""
    done = agent.run(["sh", "-c", f'"$@" {source}', "sh", *PROGRAM, "unlock", "--stdin"])
    assert (done.returncode, done.stderr) == (1, f"hsmagent: {sentence}\n")


# -- PINs ------------------------------------------------------------------------------------


def test_a_wrong_pin_is_told_and_a_right_one_works_after_it(agent: AgentProcess) -> None:
    wrong = agent.unlock("00000000")
    assert wrong.returncode == 1
    assert "PIN" in wrong.stderr
    assert agent.unlock(PIN).returncode == 0
    assert "already" in agent.unlock(PIN).stdout
    noted = agent.hsmagent("log").stdout
    assert "asked to unlock work: a wrong PIN was typed" in noted
    assert "00000000" not in noted


@pytest.mark.parametrize("pin", ["", "123", "x" * 300])
def test_a_pin_of_impossible_length_is_not_tried(agent: AgentProcess, pin: str) -> None:
    result = agent.unlock(pin)
    assert result.returncode in (1, 2)
    [token] = agent.json("status")["tokens"]
    assert token["pin_state"] == "ok"


def test_only_a_frame_with_a_pin_is_tried_as_one(agent: AgentProcess) -> None:
    daemon = Daemon(str(agent.runtime))
    try:
        assert not daemon.call("unlock", token="")["logged_in"]
        with pytest.raises(UsageError, match="nothing was tried"):
            daemon.call("status")
        assert daemon.call("status")["tokens"][0]["pin_state"] == "ok"
    finally:
        daemon.close()


def test_no_pin_in_the_log(agent: AgentProcess) -> None:
    agent.unlock("27182818")
    agent.unlock(PIN)
    assert "27182818" not in agent.logged()
    assert PIN not in agent.logged()


@pytest.mark.parametrize("option", [[], ["--stdin"]])
def test_the_terminal_asks_without_echo(agent: AgentProcess, option: list[str]) -> None:
    shown = on_terminal(agent, [*PROGRAM, "unlock", *option], PIN + "\n")
    assert "PIN for work: " in shown
    assert "work is unlocked" in shown
    assert PIN not in shown


def on_terminal(agent: AgentProcess, command: list[str], typed: str) -> str:
    """Run a command on a terminal of its own, type once it asks; return all that was shown."""
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(Path(__file__).parents[2])
        os.execve(command[0], command, agent.environment)
    try:
        shown = read_until(master, "PIN for work: ")
        os.write(master, typed.encode())
        return shown + read_until(master, None)
    finally:
        os.close(master)
        os.waitpid(pid, 0)


def read_until(master: int, text: str | None) -> str:
    """Read what a terminal shows until `text` is there (None: until its other end closes)."""
    shown = ""
    with suppress(OSError):  # the other end was closed
        while text is None or text not in shown:
            ready, _, _ = select.select([master], [], [], 20)
            assert ready, f"only this was shown: {shown!r}"
            shown += os.read(master, 1000).decode()
    return shown


def test_an_interrupt_gives_the_echo_back(agent: AgentProcess) -> None:
    script = f"trap : INT; {sys.executable} -m hsmagent unlock; stty -a"
    shown = on_terminal(agent, ["/bin/sh", "-c", script], "\x03")
    assert " echo " in shown
    assert "-echo " not in shown


def test_without_a_terminal_it_says_so(agent: AgentProcess) -> None:
    command = ["setsid", "--wait", *PROGRAM, "unlock"]
    result = agent.run(command)
    assert result.returncode == 1
    assert "use --stdin" in result.stderr


def test_lock_logs_out(agent: AgentProcess) -> None:
    agent.unlock(PIN)
    assert agent.hsmagent("lock").stdout == "locked: work\n"
    assert not agent.json("status")["tokens"][0]["logged_in"]
    assert agent.hsmagent("lock").stdout == "no token was unlocked\n"


# -- the daemon itself -----------------------------------------------------------------------


def test_sockets_and_folder_are_closed_to_others(agent: AgentProcess) -> None:
    assert stat.S_IMODE(agent.runtime.stat().st_mode) == 0o700
    for path in (agent.ssh_socket, agent.control_socket, agent.mail_socket):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_sigterm_leaves_cleanly(agent: AgentProcess) -> None:
    agent.unlock(PIN)
    children = worker_pids(agent)
    assert children
    assert agent.stop() == 0
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    assert not agent.ssh_socket.exists()


def worker_pids(agent: AgentProcess) -> list[int]:
    children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def test_sighup_rereads_the_configuration_and_forgets_logins(
    agent: AgentProcess, furnished: SoftHsm
) -> None:
    agent.unlock(PIN)
    agent.configure(module_config(furnished, '[cache]\nidle = "30s"\n'))
    agent.signal(signal.SIGHUP)
    until(lambda: not agent.json("status")["tokens"][0]["logged_in"])
    agent.unlock(PIN)
    assert agent.json("status")["tokens"][0]["idle_left"] <= 30


def listed(agent: AgentProcess) -> str:
    """Return what ssh-add lists."""
    return subprocess.run(
        ["ssh-add", "-L"], env=agent.environment, capture_output=True, text=True, check=False
    ).stdout


def test_a_key_made_after_the_start_is_in_the_next_list(start: Start, tmp_path: Path) -> None:
    token = SoftHsm.create(tmp_path / "hsm")
    agent = start(module_config(token))
    assert "no keys" in agent.hsmagent("keys").stdout
    token.init_token("first")
    token.generate("first", "EC:prime256v1", "01", "first key")
    assert "first key" in listed(agent)
    token.generate("first", "EC:prime256v1", "02", "second key")
    assert "second key" in agent.hsmagent("keys").stdout


def test_refresh_looks_anew_and_says_which_logins_that_ends(agent: AgentProcess) -> None:
    assert agent.hsmagent("refresh").stdout == "3 keys; no login ended\n"
    agent.unlock(PIN)
    before = worker_pids(agent)
    assert agent.hsmagent("refresh").stdout == "3 keys; locked: work\n"
    assert worker_pids(agent) != before
    assert not agent.json("status")["tokens"][0]["logged_in"]
    agent.unlock(PIN)
    agent.signal(signal.SIGHUP)
    until(lambda: "logins that ended: “work”" in agent.logged())


def test_a_mistake_in_a_reread_configuration_changes_nothing(agent: AgentProcess) -> None:
    agent.configure("[cash]")
    agent.signal(signal.SIGHUP)
    until(lambda: "unknown key 'cash'" in agent.logged())
    assert agent.hsmagent("status").returncode == 0


def test_a_named_configuration_that_is_gone_changes_nothing(
    furnished: SoftHsm, tmp_path: Path
) -> None:
    """The defaults would drop the policies in it."""
    agent = AgentProcess(tmp_path / "named")
    named = tmp_path / "named.toml"
    named.write_text(module_config(furnished))
    agent.start("--config", str(named))
    try:
        named.unlink()
        agent.signal(signal.SIGHUP)
        until(lambda: "the configuration stays as it was: there is no" in agent.logged())
        assert [token["label"] for token in agent.json("status")["tokens"]] == ["work"]
    finally:
        agent.stop()


@pytest.mark.parametrize("accident", ["removed", "dangling", "empty mount", "fifo"])
def test_a_policy_outlives_its_file(
    agent: AgentProcess, furnished: SoftHsm, tmp_path: Path, accident: str
) -> None:
    """Without its file the defaults would let the key sign unasked."""
    agent.configure(module_config(furnished, '[[key]]\nmatch = "pkcs11:"\nallow = []\n'))
    agent.signal(signal.SIGHUP)
    until(lambda: "was read again" in agent.logged())
    agent.unlock(PIN)
    if accident == "empty mount":
        agent.config.parent.rename(tmp_path / "elsewhere")
        agent.config.parent.mkdir()
    else:
        agent.config.unlink()
    if accident == "dangling":
        agent.config.symlink_to(tmp_path / "dotfiles" / "config.toml")
    elif accident == "fifo":
        os.mkfifo(agent.config)
    agent.signal(signal.SIGHUP)
    until(lambda: "the configuration stays as it was" in agent.logged())
    assert agent.json("status")["tokens"][0]["logged_in"]
    key = tmp_path / "key.pub"
    key.write_text(agent.json("keys")["keys"][0]["ssh"])
    data = tmp_path / "data"
    data.write_bytes(b"x")
    signed = agent.run(["ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(key), str(data)])
    assert signed.returncode != 0
    assert any(line["outcome"] == "refused" for line in agent.json("log")["entries"])


def test_an_empty_file_returns_to_the_defaults(agent: AgentProcess) -> None:
    agent.configure("")
    agent.signal(signal.SIGHUP)
    until(lambda: "was read again" in agent.logged())


def test_a_mistake_in_the_configuration_is_told_at_the_start(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path, "[cache]\nidle = 3\n")
    result = agent.hsmagent("daemon")
    assert result.returncode == 1
    assert "[cache]: idle = 3: must be a duration" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_second_daemon_is_refused(agent: AgentProcess) -> None:
    result = agent.hsmagent("daemon")
    assert result.returncode == 2
    assert "another agent already answers" in result.stderr


def test_a_daemon_that_cannot_listen_leaves_no_socket(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path)
    agent.control_socket.mkdir(parents=True)
    result = agent.hsmagent("daemon")
    assert result.returncode == 2
    assert "is not a socket; remove it" in result.stderr
    assert not agent.ssh_socket.exists()


def test_a_killed_daemons_sockets_are_taken_over(agent: AgentProcess) -> None:
    agent.process.kill()
    agent.process.wait()
    assert agent.ssh_socket.exists()
    agent.start()
    assert agent.hsmagent("status").returncode == 0


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_it_cannot_be_dumped_or_traced(agent: AgentProcess) -> None:
    assert agent.json("keys")["keys"]  # so the worker runs
    for pid in (agent.process.pid, *worker_pids(agent)):
        with pytest.raises(PermissionError):
            Path(f"/proc/{pid}/environ").read_bytes()


def test_sockets_come_from_systemd(tmp_path: Path, furnished: SoftHsm) -> None:
    agent = AgentProcess(tmp_path / "h", module_config(furnished))
    agent.runtime.mkdir(mode=0o700, parents=True)
    activator = subprocess.Popen(
        [
            "systemd-socket-activate",
            f"--listen={agent.ssh_socket}",
            f"--listen={agent.control_socket}",
            f"--listen={agent.mail_socket}",
            "--fdname=ssh:control:mail",
            *(f"--setenv={name}" for name in agent.environment),
            *PROGRAM,
            "daemon",
        ],
        env=agent.environment,
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    try:
        until(agent.control_socket.exists)
        assert "work" in agent.hsmagent("status").stdout
        assert "(work)" in agent.run(["ssh-add", "-l"]).stdout
    finally:
        activator.terminate()
        activator.wait()


def test_idle_time_ends_the_login(start: Start, furnished: SoftHsm) -> None:
    agent = start(module_config(furnished, '[cache]\nidle = "1s"\n'))
    agent.unlock(PIN)
    until(lambda: not agent.json("status")["tokens"][0]["logged_in"])


def test_log_tells_who_used_which_key(agent: AgentProcess) -> None:
    agent.unlock(PIN)
    public = agent.home / "key.pub"
    public.write_text(agent.hsmagent("pubkey", "ec").stdout)
    sign = ["ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(public)]
    assert agent.run(sign, stdin="signed").returncode == 0
    [entry] = agent.json("log")["entries"]
    assert (entry["outcome"], entry["key"], entry["program"]) == ("used", "ec", "ssh-keygen")
    assert "ssh-keygen" in agent.hsmagent("log").stdout
    assert agent.hsmagent("log", "--since", "1h").stdout != ""
    assert agent.hsmagent("log", "--since", "2100-01-01").stdout == ""
    assert "is no time" in agent.hsmagent("log", "--since", "yesterday").stderr
