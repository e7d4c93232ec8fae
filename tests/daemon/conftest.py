from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.parts.agent.daemon import AgentProcess
from tests.parts.token.softhsm import SoftHsm, module_config

__all__ = ["KINDS", "Start", "furnished", "module_config", "start"]

Start = Callable[..., AgentProcess]

# One module for all kinds of key; made once, copied by the fixtures that change it.
KINDS = (("rsa:2048", "01", "rsa"), ("EC:prime256v1", "02", "ec"), ("EC:edwards25519", "03", "ed"))


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    """Make a token "work" with an RSA, a P-256 and an Ed25519 key. Tests leave it as it is."""
    token = SoftHsm.create(tmp_path_factory.mktemp("hsm"))
    token.init_token("work")
    for kind, number, name in KINDS:
        token.generate("work", kind, number, name)
    return token


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start daemons, each with a home of its own; end them all with the test."""
    running: list[AgentProcess] = []

    def begin(config: str = "", **environment: str) -> AgentProcess:
        agent = AgentProcess(tmp_path / f"h{len(running)}", config, environment)
        running.append(agent)
        agent.start()
        return agent

    yield begin
    for agent in running:
        agent.stop()


@pytest.fixture
def agent(start: Start, furnished: SoftHsm) -> AgentProcess:
    """Start a daemon with the furnished token, locked."""
    return start(module_config(furnished))
