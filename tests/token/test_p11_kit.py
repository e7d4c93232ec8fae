"""p11-kit's own modules, which make a new function list each time they are asked for one."""

from pathlib import Path

import pytest

from hsmagent.model import Scheme
from hsmagent.token.tokens import ModuleSpec
from tests.parts.token.faulty import Faulty
from tests.parts.token.loaded import signer_of, typed
from tests.parts.token.softhsm import MODULE, PIN, SoftHsm
from tests.token.conftest import NewTokens

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
