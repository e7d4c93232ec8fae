from pathlib import Path

import pytest

from hsmagent import uri
from hsmagent.config.file import Config
from hsmagent.errors import Refused, UsageError
from hsmagent.folders import PROVIDERS
from hsmagent.ssh import provider_paths as providers
from hsmagent.ssh.options import AgentOptions
from hsmagent.ssh.patterns import matches_list
from tests.parts.token import softhsm


def test_a_link_counts_as_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    real = tmp_path / "module.so"
    real.touch()
    link = tmp_path / "allowed" / "module.so"
    link.symlink_to(real)
    with pytest.raises(Refused, match="not allowed"):
        providers.canonical(str(link), (f"{tmp_path}/allowed/*",))
    assert providers.canonical(str(link), (f"{tmp_path}/*",)) == str(real)


@pytest.mark.parametrize("path", ["/nonexistent/x.so", "", "x\0y", "relative.so"])
def test_what_is_not_there_is_refused(path: str) -> None:
    with pytest.raises(Refused):
        providers.canonical(path, ("/usr/*",))


def test_ssh_agents_defaults(tmp_path: Path) -> None:
    module = softhsm.MODULE
    assert Config().ssh.providers == AgentOptions().providers == PROVIDERS
    assert all(
        matches_list(f"/usr/{each}/x.so", PROVIDERS) for each in ("lib", "lib64", "local/lib")
    )
    assert providers.canonical(module, PROVIDERS) == str(Path(module).resolve())
    with pytest.raises(Refused):
        providers.canonical(str(tmp_path), PROVIDERS)


def test_the_module_in_a_uri_is_checked_and_made_real(tmp_path: Path) -> None:
    real = tmp_path / "a&b.so"
    real.touch()
    (tmp_path / "link").symlink_to(real)
    given = f"pkcs11:token=work;object=ssh?module-path={tmp_path}/link"
    found = uri.parse(providers.canonical(given, (f"{tmp_path}/*",)))
    assert (found.token, found.object, found.module_path) == ("work", "ssh", str(real))
    with pytest.raises(Refused):
        providers.canonical(given, ("/usr/*",))


def test_a_uri_without_a_module_stays_as_it_is() -> None:
    assert providers.canonical("pkcs11:token=work", ()) == "pkcs11:token=work"


@pytest.mark.parametrize(
    "bad",
    [
        "pkcs11:token=work?pin-value=1234",
        "pkcs11:token=w?pin-source=/x",
        "pkcs11:what=1",
        "pkcs11:token=\udc80",
    ],
)
def test_a_uri_with_a_pin_or_nonsense_is_refused(bad: str) -> None:
    with pytest.raises(UsageError):
        providers.canonical(bad, ("*",))
