"""`hsmagent-ssh-agent`: options, output, becoming a daemon, and its end."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from hsmagent.cli.ssh_agent import Options, life, parse
from hsmagent.errors import UsageError
from tests.parts.agent.drop_in import ROOT, DropIn
from tests.parts.token import softhsm
from tests.parts.until import until

SH = re.compile(
    r"SSH_AUTH_SOCK=(.+); export SSH_AUTH_SOCK;\n"
    r"SSH_AGENT_PID=(\d+); export SSH_AGENT_PID;\n"
    r"echo Agent pid \2;\n"
)
CSH = re.compile(r"setenv SSH_AUTH_SOCK (.+);\nsetenv SSH_AGENT_PID (\d+);\necho Agent pid \2;\n")


# -- the command line ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("0", 0), ("1m", 60), ("1h30m", 5400), ("2W", 1209600), ("1d12h1", 129601)],
)
def test_times(text: str, seconds: int) -> None:
    assert life(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "1x", "m", "1.5h", "99999999999", "²"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError):
        life(text)


def test_options() -> None:
    given = ["-s", "-a", "/x", "-t", "1h", "-P", "/usr/lib/*,/opt/*", "-E", "sha256"]
    assert parse(given) == Options(
        csh=False,
        address="/x",
        agent={"lifetime": 3600, "providers": ("/usr/lib/*", "/opt/*")},
    )
    assert parse(["-T", "-U", "-E", "sha1"]) == Options()
    assert parse(["-u", "-u"]).clean
    assert parse(["-O", "allow-remote-pkcs11"]).agent == {"allow_remote_pkcs11": True}
    assert parse(["-O", "no-restrict-websafe"] * 2).agent == {"websafe": ("*",)}
    assert parse([]).agent == {}
    assert parse(["-O", "websafe-allow=ssh:*,a=b"]).agent["websafe"] == ("ssh:*", "a=b")
    both = ["-O", "websafe-allow=ssh:*", "-O", "no-restrict-websafe"]
    assert parse(both).agent == parse(both[2:] + both[:2]).agent == {"websafe": ("*",)}
    assert parse(["-t", "5", "sh", "-c", "x"]).command == ("sh", "-c", "x")


@pytest.mark.parametrize(
    "given",
    [
        "-c -s",
        "-d -D",
        "-k x",
        "-s x",
        "-d x",
        "-D x",
        "-E md4",
        "-O x",
        "-O allow-remote-pkcs11=x",
        "-O websafe-allow=a -O websafe-allow=b",
        "-t x",
        "-Z",
        "-P a -P b",
    ],
)
def test_wrong_options(given: str) -> None:
    with pytest.raises(UsageError):
        parse(given.split())


# -- the program -----------------------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="d") as path:
        yield Path(path)


@pytest.fixture
def program(folder: Path) -> Iterator[DropIn]:
    drop_in = DropIn(folder)
    try:
        yield drop_in
    finally:
        drop_in.end()


def run(
    *command: str | Path, status: int = 0, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    base = {name: value for name, value in os.environ.items() if not name.startswith("SSH_")}
    done = subprocess.run(
        list(map(str, command)),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env={**base, "SHELL": "/bin/sh", **(env or {})},
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_prints_what_a_shell_evaluates_and_ends_when_told(program: DropIn) -> None:
    # The pipe is closed by the agent too: this very call returns only then.
    found = SH.fullmatch(run(program.path).stdout)
    assert found is not None
    path, pid = Path(found[1]), int(found[2])
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "no identities" in run("ssh-add", "-l", env={"SSH_AUTH_SOCK": found[1]}, status=1).stdout
    assert os.getsid(pid) == pid
    ended = run(program.path, "-k", env={"SSH_AGENT_PID": str(pid)})
    assert ended.stdout == (
        f"unset SSH_AUTH_SOCK;\nunset SSH_AGENT_PID;\necho Agent pid {pid} killed;\n"
    )
    until(lambda: not alive(pid))
    assert not path.parent.exists()


@pytest.mark.parametrize(("options", "shell"), [(["-c"], "/bin/sh"), ([], "/bin/tcsh")])
def test_it_speaks_csh(program: DropIn, options: list[str], shell: str) -> None:
    found = CSH.fullmatch(run(program.path, *options, env={"SHELL": shell}).stdout)
    assert found is not None
    ended = run(
        program.path, *options, "-k", env={"SHELL": shell, "SSH_AGENT_PID": found[2]}
    ).stdout
    assert ended.startswith("unsetenv SSH_AUTH_SOCK;\nunsetenv SSH_AGENT_PID;\n")


def test_a_socket_of_ones_own(program: DropIn, folder: Path) -> None:
    path = folder / "s"
    assert f"SSH_AUTH_SOCK={path};" in run(program.path, "-a", path).stdout
    second = run(program.path, "-a", path, status=1)
    assert "already answers" in second.stderr
    assert "Traceback" not in second.stderr
    run("ssh-add", "-l", env={"SSH_AUTH_SOCK": str(path)}, status=1)


def test_with_a_command_the_agent_leaves_when_it_ends(program: DropIn, folder: Path) -> None:
    script = f"ssh-add -l; echo $SSH_AGENT_PID $SSH_AUTH_SOCK $$ >{folder}/out; exit 42"
    done = run(program.path, "sh", "-c", script, status=42)
    assert "no identities" in done.stdout
    pid, path, _ = (folder / "out").read_text().split()
    until(lambda: not alive(int(pid)))
    until(lambda: not Path(path).exists())


def test_a_command_that_is_not_there(program: DropIn, folder: Path) -> None:
    env = {"TMPDIR": str(folder)}
    done = run(program.path, "/nonexistent/command", status=1, env=env)
    assert done.stderr.startswith("hsmagent-ssh-agent: cannot run /nonexistent/command")
    until(lambda: list(folder.glob("ssh-*")) == [])


def test_a_command_that_ends_at_once_leaves_nothing_behind(program: DropIn, folder: Path) -> None:
    run(program.path, "-a", folder / "s", "true", env={"TMPDIR": str(folder)})
    until(lambda: list(folder.glob("ssh-*")) == [] and not (folder / "s").exists())


def test_a_command_has_the_signals_and_limits_that_we_were_given(program: DropIn) -> None:
    script = "grep Sig[BI] /proc/self/status; ulimit -H -c"
    assert run(program.path, "sh", "-c", script).stdout == run("sh", "-c", script).stdout


def test_a_caller_that_closed_its_standard_streams(program: DropIn, folder: Path) -> None:
    path = folder / "s"
    run("sh", "-c", f"exec {program.path} -a {path} <&- >&- 2>&-")
    assert (
        "no identities" in run("ssh-add", "-l", env={"SSH_AUTH_SOCK": str(path)}, status=1).stdout
    )


def test_an_agent_of_which_nobody_can_be_told_does_not_stay(program: DropIn, folder: Path) -> None:
    command = f"exec {program.path} -a {folder}/s >/dev/full"
    done = run("sh", "-c", command, status=1)
    assert done.stderr == (
        "hsmagent-ssh-agent: cannot write to standard output: No space left on device\n"
    )
    until(lambda: not (folder / "s").exists())


def test_where_no_socket_can_be(program: DropIn, folder: Path) -> None:
    done = run(
        program.path, "-a", folder / "none" / "s", status=1, env={"TMPDIR": str(folder)}
    ).stderr
    assert done == (
        f"hsmagent-ssh-agent: cannot listen in {folder}/none: No such file or directory\n"
    )
    assert list(folder.glob("ssh-*")) == []


def test_a_mistake_in_the_configuration_is_told_before_anything_starts(
    program: DropIn, folder: Path
) -> None:
    (folder / "config.toml").write_text("wrong = 1")
    done = run(program.path, "--config", folder / "config.toml", status=1)
    assert done.stdout == ""
    assert "unknown key 'wrong'" in done.stderr
    (folder / "config.toml").write_text(f'[ssh]\nupstream = "{folder}/s"')
    done = run(program.path, "--config", folder / "config.toml", "-a", folder / "s", status=1)
    assert "this agent's own socket" in done.stderr


def test_what_newer_releases_of_openssh_take(program: DropIn) -> None:
    assert run(program.path, "-u").stdout == ""
    assert run(program.path, "-V").stdout == run(program.path, "--version").stdout
    assert run(program.path, "-T", "-U", "-E", "sha1", "true").stdout == ""


@pytest.mark.parametrize("pid", [None, "x", "0", "1", "-1", "999999999"])
def test_k_without_an_agent(program: DropIn, pid: str | None) -> None:
    env = {} if pid is None else {"SSH_AGENT_PID": pid}
    done = run(program.path, "-k", status=1, env=env)
    assert done.stderr.count("\n") == 1


def test_wrong_use_shows_the_usage(program: DropIn) -> None:
    assert "usage: " in run(program.path, "-Z", status=1).stderr
    assert "usage: " in run(program.path, "--help").stdout


@pytest.mark.parametrize("option", ["-d", "-D"])
def test_in_the_foreground(program: DropIn, folder: Path, option: str) -> None:
    with subprocess.Popen(
        [str(program.path), option, "-a", str(folder / "s")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as agent:
        assert agent.stdout is not None
        lines = [agent.stdout.readline() for _ in range(2)]
        assert lines == [
            f"SSH_AUTH_SOCK={folder}/s; export SSH_AUTH_SOCK;\n",
            f"echo Agent pid {agent.pid};\n",
        ]
        run("ssh-add", "-l", env={"SSH_AUTH_SOCK": f"{folder}/s"}, status=1)
        agent.send_signal(signal.SIGINT)
        assert agent.wait(20) == 0
    assert not (folder / "s").exists()


def test_sigusr1_drops_software_keys(program: DropIn, folder: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key")
    found = SH.fullmatch(run(program.path).stdout)
    assert found is not None
    env = {"SSH_AUTH_SOCK": found[1]}
    run("ssh-add", folder / "key", env=env)
    run("ssh-add", "-l", env=env)
    os.kill(int(found[2]), signal.SIGUSR1)
    until(
        lambda: (
            "no identities"
            in subprocess.run(
                ["ssh-add", "-l"],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, **env},
            ).stdout
        )
    )


@pytest.mark.parametrize(("answer", "status"), [("true", 0), ("false", 1)])
def test_a_confirmation_is_asked_by_ssh_askpass(
    program: DropIn, folder: Path, answer: str, status: int
) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key")
    askpass = folder / "askpass"
    askpass.write_text(f'#!/bin/sh\necho "$@" >{folder}/asked\nexec {answer}\n')
    askpass.chmod(0o755)
    found = SH.fullmatch(
        run(program.path, env={"SSH_ASKPASS": str(askpass), "DISPLAY": ":0"}).stdout
    )
    assert found is not None
    env = {"SSH_AUTH_SOCK": found[1]}
    run("ssh-add", "-c", folder / "key", env=env)
    run("ssh-add", "-T", folder / "key.pub", env=env, status=status)
    assert "ssh-add" in (folder / "asked").read_text()


def test_a_default_lifetime(program: DropIn, folder: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key")
    found = SH.fullmatch(run(program.path, "-t", "1").stdout)
    assert found is not None
    env = {**os.environ, "SSH_AUTH_SOCK": found[1]}
    run("ssh-add", folder / "key", env={"SSH_AUTH_SOCK": found[1]})
    until(lambda: subprocess.run(["ssh-add", "-l"], check=False, env=env).returncode == 1)


# -- tokens ----------------------------------------------------------------------------------


def test_two_tokens_with_their_own_pins_and_no_others(program: DropIn, folder: Path) -> None:
    hsm = softhsm.SoftHsm.create(folder / "hsm")
    for label, pin in (("one", "11111111"), ("two", "22222222")):
        hsm.init_token(label, pin)
        hsm.pkcs11_tool(
            *(label, "--keypairgen", "--key-type", "EC:prime256v1"),
            *("--id", "01", "--label", f"key of {label}"),
            pin=pin,
        )
    askpass = folder / "askpass"
    askpass.write_text("#!/bin/sh\necho $PIN\n")
    askpass.chmod(0o755)
    found = SH.fullmatch(run(program.path, env=dict(hsm.env)).stdout)
    assert found is not None
    env = {
        "SSH_AUTH_SOCK": found[1],
        "SSH_ASKPASS": str(askpass),
        "SSH_ASKPASS_REQUIRE": "force",
    }

    def add(label: str, pin: str, status: int = 0) -> None:
        uri = f"pkcs11:token={label}?module-path={softhsm.MODULE}"
        run("ssh-add", "-s", uri, status=status, env={**env, "PIN": pin})

    add("one", "11111111")
    assert "key of one (one)" in (listed := run("ssh-add", "-L", env=env).stdout)
    assert "two" not in listed, "only what the URI names"
    add("two", "22222222")
    lines = run("ssh-add", "-L", env=env).stdout.splitlines()
    assert len(lines) == 2
    for number, line in enumerate(lines):
        (folder / f"{number}.pub").write_text(line + "\n")
        run("ssh-add", "-T", folder / f"{number}.pub", env=env)
    run("ssh-add", "-D", env=env)
    run("ssh-add", "-l", status=1, env=env)
    add("two", "22222222")
    run("ssh-add", "-e", f"pkcs11:token=two?module-path={softhsm.MODULE}", env=env)
    run("ssh-add", "-l", status=1, env=env)
    add("one", "99999999", status=1)
    # Whoever may send a PIN without a word may not spend a token's tries.
    add("one", "11111111", status=1)
    os.kill(int(found[2]), signal.SIGTERM)
    until(lambda: not alive(int(found[2])))
    assert not Path(found[1]).parent.exists(), "what was remembered of the tokens is gone as well"


def test_a_provider_that_is_not_allowed(program: DropIn, folder: Path) -> None:
    found = SH.fullmatch(run(program.path, "-P", "/nowhere/*").stdout)
    assert found is not None
    env = {"SSH_AUTH_SOCK": found[1], "SSH_ASKPASS": "/bin/true", "SSH_ASKPASS_REQUIRE": "force"}
    run("ssh-add", "-s", softhsm.MODULE, status=1, env=env)


# -- how soon it answers ---------------------------------------------------------------------


def test_nothing_slow_is_imported_before_the_first_answer() -> None:
    # Kept on what is imported rather than on time, which says more about the machine.
    program = (
        "import sys; from hsmagent.cli import ssh_agent; import hsmagent.daemon.private;"
        "print(*sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        # Without what would have coverage measure it, which imports things too.
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    )
    slow = [
        "hsmagent.token",
        "hsmagent.door.gate",
        "hsmagent.config.file",
        "hsmagent.prompt",
        "paramiko",
    ]
    slow += ["dbus_next", "pkcs11", "asn1crypto", "tomllib", "argparse", "cryptography.x509"]
    assert [name for name in done.stdout.split() if name.startswith(tuple(slow))] == []
