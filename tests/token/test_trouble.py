"""A module that cannot start says why in one line."""

import grp
import os
from pathlib import Path

import pytest

from hsmagent.model import ModuleSpec
from hsmagent.token import trouble
from tests.parts.token.softhsm import MODULE, SoftHsm
from tests.token.conftest import NewTokens

TPM2 = next(Path("/usr/lib").glob("*/pkcs11/libtpm2_pkcs11.so"), None)


@pytest.mark.parametrize("closed", ["softhsm2.conf", "tokens", "."])
async def test_softhsm_as_debian_ships_it(
    own_hsm: SoftHsm, new_tokens: NewTokens, closed: str
) -> None:
    """Its configuration and its tokens are for a group alone, to which nobody belongs."""
    path = own_hsm.folder / closed
    mode = path.stat().st_mode
    path.chmod(0o050)
    try:
        tokens = new_tokens()
        await tokens.add(ModuleSpec(MODULE, env=own_hsm.env))
        error = tokens.modules()[0].last_error
    finally:
        path.chmod(mode)
    group = grp.getgrgid(os.getgid()).gr_name
    assert f"does not start: {path} cannot be read: join its group" in error
    assert f"--groups {group} $USER" in error
    # Once that is done, it starts when somebody asks.
    await tokens.refresh()
    assert tokens.signers()


def test_a_file_that_is_its_owners_alone(own_hsm: SoftHsm) -> None:
    path = own_hsm.folder / "softhsm2.conf"
    path.chmod(0)
    assert trouble.why(ModuleSpec(MODULE, env=own_hsm.env)).endswith("ask its owner for permission")
    path.chmod(0o600)
    assert trouble.why(ModuleSpec(MODULE, env=own_hsm.env)) == ""


@pytest.mark.skipif(TPM2 is None, reason="needs tpm2-pkcs11")
@pytest.mark.skipif(Path("/dev/tpm0").exists(), reason="there is a TPM")
async def test_a_tpm_module_without_a_tpm(
    new_tokens: NewTokens, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "hsmagent")
    tokens = new_tokens()
    await tokens.add(ModuleSpec(str(TPM2), env=(("TPM2_PKCS11_STORE", str(tmp_path)),)))
    assert "there is no TPM in this machine" in tokens.modules()[0].last_error
    await tokens.close()
    assert len(caplog.records) == 1


def test_a_tpm_that_is_closed_to_us(tmp_path: Path) -> None:
    device = tmp_path / "tpmrm0"
    device.touch(mode=0o060)
    said = trouble.why(ModuleSpec("/usr/lib/libtpm2_pkcs11.so"), (device,))
    assert f"{device} cannot be read: join its group" in said
