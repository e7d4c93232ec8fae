"""hsmagent-ssh-agent is a stand-in for OpenSSH's: its own regression tests say so.

And they would say so if it were not: the runner fails for agents that are broken on purpose.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.agent.drop_in import DropIn
from tests.regress.suite import INSTALLED, Suite

TESTS = [
    "agent-restrict",
    "agent",
    "hostkey-agent",
    "sshsig",
    "agent-timeout",
    "cert-file",
    "agent-pkcs11",
    "agent-subprocess",
]
# In newer packages only.
NEWER = [
    test
    for test in ("agent-pkcs11-restrict", "agent-pkcs11-cert")
    if (INSTALLED / f"{test}.sh").exists()
]
SECONDS = 900.0

BROKEN = {
    "wrong flags": (
        "agent",
        """\
from hsmagent.ssh import signature
choose = signature.choose
signature.choose = lambda key, flags: choose(key, 0)
""",
    ),
    "forgets binds": (
        "agent-restrict",
        "from hsmagent.ssh.bindings import Bindings\nBindings.bind = lambda self, contents: None",
    ),
    "keeps stdout open": ("agent-timeout", "ssh_agent.leave_terminal = os.setsid"),
}


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.mark.parametrize("test", TESTS + NEWER)
def test_openssh_is_content(test: str, folder: Path) -> None:
    agent = DropIn(folder)
    try:
        Suite(folder, agent.path).run(test, SECONDS)
    finally:
        left = agent.end(10.0)
    assert left == [], "the agents end when they are told"


@pytest.mark.parametrize("fault", BROKEN)
def test_openssh_is_not_content_with_a_broken_agent(fault: str, folder: Path) -> None:
    test, code = BROKEN[fault]
    agent = DropIn(folder, code)
    suite = Suite(folder, agent.path)
    hangs = fault == "keeps stdout open"
    try:
        with pytest.raises(AssertionError):
            suite.run(test, 40.0 if hangs else SECONDS)
    finally:
        agent.end()
    if hangs:
        # It got as far as the backticks, and no further.
        assert suite.trace().splitlines()[-1].startswith("trace: start agent")
