"""p11-kit's own modules, which make a new function list each time they are asked for one."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsmagent.model import ModuleSpec, Scheme
from hsmagent.token.tokens import Tokens
from tests.parts.token.faulty import Faulty
from tests.parts.token.loaded import signer_of, token_of, typed
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.parts.until import async_until, until
from tests.token.conftest import NewTokens

CLIENT = next(Path("/usr/lib").glob("*/pkcs11/p11-kit-client.so"), None)
PROXY = next(Path("/usr/lib").glob("*/p11-kit-proxy.so"), None)


@pytest.fixture
def home(tmp_path: Path) -> tuple[tuple[str, str], ...]:
    """Register SoftHSM for a user who has no other module."""
    home = tmp_path / "home"
    registered = home / ".config/pkcs11"
    (registered / "modules").mkdir(parents=True)
    (registered / "pkcs11.conf").write_text("user-config: only\n")
    (registered / "modules/softhsm.module").write_text(f"module: {MODULE}\n")
    return (("HOME", str(home)), ("XDG_CONFIG_HOME", str(home / ".config")))


@pytest.mark.skipif(PROXY is None, reason="needs p11-kit's proxy module")
async def test_the_proxy_lists_logs_in_and_signs(
    own_hsm: SoftHsm, new_tokens: NewTokens, home: tuple[tuple[str, str], ...]
) -> None:
    tokens = new_tokens()
    await tokens.add(ModuleSpec(str(PROXY), env=(*own_hsm.env, *home)))
    (module,) = tokens.modules()
    assert (module.state, module.last_error) == ("running", "")
    signer = signer_of(tokens, "p256")
    await signer.token.login(typed(PIN))
    assert await signer.sign(Scheme.ECDSA_SHA256, b"data")
    await signer.token.logout()
    assert not signer.token.logged_in


@pytest.mark.parametrize(("manufacturer", "shown"), [("hsmagent", 0), ("hsmagent of others", 1)])
async def test_a_slot_that_we_serve_ourselves_is_passed_over(
    faulty: Faulty, new_tokens: NewTokens, manufacturer: str, shown: int
) -> None:
    """By whatever module it comes back to us."""
    tokens = new_tokens()
    env = (*faulty.env, ("FAULTY_MANUFACTURER", manufacturer))
    await tokens.add(ModuleSpec(faulty.module, env=env))
    (module,) = tokens.modules()
    assert (module.state, module.last_error) == ("running", "")
    assert len(tokens.statuses()) == len(tokens.signers()) == shown


class Server:
    """p11-kit's, as it stands behind a sandbox or an ssh with a forwarded socket."""

    def __init__(self, own_hsm: SoftHsm) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="p11"))  # a socket's path is short
        self._socket = self._folder / "s"
        self._env = os.environ | dict(own_hsm.env) | {"XDG_RUNTIME_DIR": str(self._folder)}
        self._process: subprocess.Popen[bytes] | None = None
        self.module = ModuleSpec(
            str(CLIENT), env=(("P11_KIT_SERVER_ADDRESS", f"unix:path={self._socket}"),)
        )

    def start(self) -> None:
        options = ("--foreground", "--name", str(self._socket), "--provider", MODULE)
        self._process = subprocess.Popen(
            ["p11-kit", "server", *options, "pkcs11:"], env=self._env, stdout=subprocess.DEVNULL
        )
        until(self._socket.exists)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None
        self._socket.unlink(missing_ok=True)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)


@pytest.fixture
def server(own_hsm: SoftHsm) -> Iterator[Server]:
    if CLIENT is None:
        pytest.skip("needs p11-kit's client module")
    server = Server(own_hsm)
    yield server
    server.close()


def labels(tokens: Tokens) -> set[str]:
    return {signer.key.label for signer in tokens.signers()}


async def test_a_token_behind_p11_kits_server(
    own_hsm: SoftHsm, new_tokens: NewTokens, server: Server
) -> None:
    """Named in the configuration, its client module is one like others."""
    server.start()
    tokens = new_tokens()
    await tokens.add(server.module)
    (module,) = tokens.modules()
    assert (module.state, module.last_error) == ("running", "")
    signer = signer_of(tokens, "p256")
    await signer.token.login(typed(PIN))
    assert await signer.sign(Scheme.ECDSA_SHA256, b"data")
    own_hsm.generate("own", "EC:prime256v1", "02", "new")
    await signer.token.logout()
    await tokens.refresh()
    assert labels(tokens) == {"p256", "new"}


async def test_a_server_that_comes_goes_and_comes_back(
    new_tokens: NewTokens, server: Server
) -> None:
    tokens = new_tokens()
    await tokens.add(server.module)
    assert not labels(tokens)
    for _ in range(2):
        server.start()
        await tokens.freshen()  # as before each list
        assert labels(tokens) == {"p256"}
        token = token_of(tokens)
        await token.login(typed(PIN))
        server.stop()  # which leaves those alone that are connected
        assert await signer_of(tokens, "p256").sign(Scheme.ECDSA_SHA256, b"data")
        await token.logout()
        await async_until(lambda: not labels(tokens))
