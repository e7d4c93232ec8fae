"""What the mail programs cost, counted in modules and Python calls.

Most of the time of a program that signs one mail goes into importing: which modules are not there
says more than a clock on a busy machine does.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.agent.daemon import AgentProcess
from tests.parts.mail.signing import signing_agent
from tests.parts.measured import MEASURED

ROOT = Path(__file__).parents[2]
MAIL = "From: alice@example.org\nSubject: Hi\nContent-Type: text/plain\n\n" + "Hello\n" * 1700

# Runs a command twice. Says which modules the first run brought, and how many Python functions the
# second one went through: by then all is imported.
PROGRAM = """
import contextlib, io, json, sys
sys.path.insert(0, {root!r})
before = set(sys.modules)
{begin}
calls = 0
def note(frame, event, argument):
    global calls
    calls += event == "call"
statuses = []
for counted in (False, True):
    sys.stdout = io.TextIOWrapper(io.BytesIO(), "utf-8")
    if not counted:
        statuses.append(run({words!r}))
        modules = sorted(set(sys.modules) - before)
    else:
        sys.setprofile(note)
        statuses.append(run({words!r}))
        sys.setprofile(None)
sys.__stdout__.write(json.dumps([statuses, modules, calls]))
"""
HSMAGENT = "from hsmagent.cli.main import run"
GPGSM = """
from hsmagent.cli import mail_programs
def run(words):
    from hsmagent.cli import gpgsm
    return mail_programs.over_keys(lambda keys: gpgsm.main(words, keys))
"""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with signing_agent(tmp_path_factory.mktemp("c")) as agent:
        (agent.home / "mail").write_text(MAIL)
        yield agent


def cost(agent: AgentProcess, *words: str, begin: str = HSMAGENT) -> tuple[set[str], int]:
    """Return the modules that a command imports, and the Python calls of it when warm."""
    program = PROGRAM.format(root=str(ROOT), begin=begin, words=list(words))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={name: agent.environment[name] for name in agent.environment.keys() - MEASURED},
        capture_output=True,
        text=True,
        check=True,
    )
    found: tuple[list[int], list[str], int] = json.loads(done.stdout)
    statuses, modules, calls = found
    assert statuses == [0, 0], done.stderr
    return set(modules), calls


def without(modules: set[str], *names: str) -> None:
    assert not {name for name in modules if name.partition(".")[0] in names}


def test_signing_a_mail(agent: AgentProcess) -> None:
    modules, calls = cost(agent, "smime", "sign", f"{agent.home}/mail")
    without(modules, "asn1crypto", "cryptography", "pyhanko_certvalidator", "asyncio", "email")
    without(
        modules, "argparse", "logging", "queue", "shutil", "subprocess", "tempfile", "threading"
    )
    assert "hsmagent.unwraps" not in modules
    assert len(modules) < 125, sorted(modules)
    assert calls < 3000


def test_decrypting_a_mail(agent: AgentProcess) -> None:
    sealed = agent.run(
        ["openssl", "cms", "-encrypt", "-aes256", f"{agent.home}/rsa.crt"], stdin=MAIL
    )
    (agent.home / "sealed").write_text(sealed.stdout)
    modules, _ = cost(agent, "smime", "decrypt", f"{agent.home}/sealed")
    without(modules, "pyhanko_certvalidator", "asyncio", "email", "logging", "ssl")
    assert len(modules) < 240, sorted(modules)


def test_verifying_a_commit(agent: AgentProcess) -> None:
    """Git runs a process for each commit of a log: the start of it is nearly all that it costs."""
    (agent.home / "commit").write_text("tree 0\n\nA commit\n")
    sign = [str(Path(sys.executable).with_name("hsmagent-gpgsm")), "-bsau", "alice@example.org"]
    made = agent.run(sign, stdin="tree 0\n\nA commit\n")
    (agent.home / "signature").write_text(made.stdout)
    files = f"{agent.home}/signature", f"{agent.home}/commit"
    modules, calls = cost(agent, "--verify", *files, begin=GPGSM)
    without(modules, "argparse", "email", "json", "shutil", "tempfile")
    rare = ("control.values", "cli.mail_keys", "cli.gpgsm_list", "mail.sign", "mail.identity")
    assert not modules & {f"hsmagent.{name}" for name in rare}
    assert "asn1crypto.tsp" not in modules
    assert len(modules) < 320, sorted(modules)
    assert calls < 18_000
