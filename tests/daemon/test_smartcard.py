"""`ssh-add -s` and `-e` with the daemon: tokens that the configuration does not name."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.daemon.conftest import Start
from tests.parts.agent.daemon import ANY_DATA, AgentProcess
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.parts.until import until

# Some module other than SoftHSM, so that its tokens are not there by themselves.
ELSEWHERE = '[[module]]\npath = "/nonexistent/module.so"\n'


@pytest.fixture
def bare(start: Start, furnished: SoftHsm, tmp_path: Path) -> AgentProcess:
    """Start a daemon without tokens, that would find one like the furnished one."""
    askpass = tmp_path / "askpass"
    askpass.write_text('#!/bin/sh\necho "$PIN"\n')
    askpass.chmod(0o755)
    agent = start(ELSEWHERE + ANY_DATA, **dict(furnished.copy(tmp_path / "hsm").env))
    agent.environment |= {"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}
    return agent


def ssh_add(agent: AgentProcess, *arguments: str, pin: str = "", status: int = 0) -> str:
    agent.environment["PIN"] = pin
    done = agent.run(["ssh-add", *arguments])
    assert done.returncode == status, done.stdout + done.stderr + agent.logged()
    return done.stdout


def test_a_pin_logs_in_and_e_takes_the_keys_away(bare: AgentProcess, tmp_path: Path) -> None:
    ssh_add(bare, "-l", status=1)
    ssh_add(bare, "-s", MODULE, pin=PIN)
    listed = ssh_add(bare, "-L").splitlines()
    assert len(listed) == 3
    for number, line in enumerate(listed):
        public = tmp_path / f"{number}.pub"
        public.write_text(line + "\n")
        ssh_add(bare, "-T", str(public))
    ssh_add(bare, "-e", MODULE)
    ssh_add(bare, "-l", status=1)
    ssh_add(bare, "-e", MODULE, status=1)


def test_one_key_of_one_token_by_its_uri(bare: AgentProcess) -> None:
    ssh_add(bare, "-s", f"pkcs11:token=work;object=ec?module-path={MODULE}", pin=PIN)
    assert ssh_add(bare, "-L").count("\n") == 1
    assert "ec (work)" in ssh_add(bare, "-L")


def test_an_empty_pin_is_asked_for_at_use(bare: AgentProcess, tmp_path: Path) -> None:
    ssh_add(bare, "-s", MODULE)
    public = tmp_path / "key.pub"
    public.write_text(ssh_add(bare, "-L").splitlines()[0] + "\n")
    with subprocess.Popen(
        ["ssh-add", "-T", str(public)], env=os.environ | bare.environment, stderr=subprocess.DEVNULL
    ) as waiting:
        until(lambda: bare.unlock(PIN).returncode == 0)
        assert waiting.wait(30) == 0


def test_a_pin_that_comes_later_serves_who_waits(bare: AgentProcess, tmp_path: Path) -> None:
    ssh_add(bare, "-s", MODULE)
    public = tmp_path / "key.pub"
    public.write_text(ssh_add(bare, "-L").splitlines()[0] + "\n")
    with subprocess.Popen(
        ["ssh-add", "-T", str(public)], env=os.environ | bare.environment, stderr=subprocess.DEVNULL
    ) as waiting:
        until(lambda: "no window can ask" in bare.logged())
        ssh_add(bare, "-s", MODULE, pin=PIN)
        assert waiting.wait(30) == 0


def test_a_wrong_pin_or_a_pin_in_the_uri_adds_nothing(
    bare: AgentProcess, furnished: SoftHsm
) -> None:
    ssh_add(bare, "-s", MODULE, pin="99999999", status=1)
    ssh_add(bare, "-s", f"pkcs11:token=work?module-path={MODULE}&pin-value={PIN}", status=1)
    ssh_add(bare, "-s", "/etc/passwd", pin=PIN, status=1)
    ssh_add(bare, "-l", status=1)
    assert PIN not in bare.logged()
    assert "work" not in bare.hsmagent("status").stdout, "the module did not stay"
    furnished.pkcs11_tool("work", "--list-objects")  # a right PIN, so that the token forgets it


def test_the_log_has_a_wrong_pin_and_who_gave_it(bare: AgentProcess) -> None:
    wrong, named = "99999999", "pkcs11:token=work"
    ssh_add(bare, "-s", f"{named}?module-path={MODULE}", pin=wrong, status=1)
    [entry] = bare.json("log")["entries"]
    assert (entry["outcome"], entry["program"]) == ("refused", "ssh-add")
    assert entry["summary"] == "have its keys served (ssh-add -s)"
    assert entry["reason"] == "the PIN for “work” is wrong"
    assert entry["key"] == named, "nothing after the question mark: people write PINs there"
    written = bare.hsmagent("log").stdout + bare.logged()
    assert "the PIN for “work” is wrong" in written
    assert wrong not in written


def test_two_that_add_the_same_module_at_once_both_have_its_keys(bare: AgentProcess) -> None:
    uri = f"pkcs11:token=work?module-path={MODULE}"
    bare.environment["PIN"] = ""
    both = [
        subprocess.Popen(["ssh-add", "-s", name], env=os.environ | bare.environment)
        for name in (MODULE, uri)
    ]
    assert [process.wait(30) for process in both] == [0, 0]
    assert len(ssh_add(bare, "-L").splitlines()) == 3


def test_constraints_hold_on_a_tokens_keys(bare: AgentProcess) -> None:
    ssh_add(bare, "-t", "1", "-s", MODULE, pin=PIN)
    until(lambda: bare.run(["ssh-add", "-l"]).returncode == 1)
