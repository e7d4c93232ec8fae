from pathlib import Path

import pytest

from hsmagent.config import discovery


def register(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.module").write_text(text)


def for_us(*folders: Path) -> list[str]:
    return [each.path for each in discovery.registrations(*folders) if each.is_for_us]


def test_registrations_are_read_as_p11_kit_writes_them(tmp_path: Path) -> None:
    module = tmp_path / "libtoken.so"
    module.touch()
    modules = tmp_path / "modules"
    register(modules, "token", f"# a comment\n\nmodule: {module}\ncritical: no\n")
    register(modules, "gone", "module: /nowhere/lib.so\n")
    register(modules, "trust", f"module: {module}\ntrust-policy: yes\n")
    register(modules, "other", f"module: {module}\nenable-in: firefox, thunderbird\n")
    register(modules, "not-us", f"module: {module}\ndisable-in: hsmagent\n")
    register(modules, "proxy", f"module: {module}\ndisable-in: p11-kit-proxy\n")
    (modules / "latin.module").write_bytes(b"module: \xff")
    assert for_us(modules) == [str(module)] * 2
    register(modules, "us", f"module: {module}\nenable-in: hsmagent\n")
    assert len(for_us(modules)) == 3


@pytest.mark.parametrize(
    "name", ["p11-kit-client.so", "p11-kit-proxy.so", "link-to-the-proxy", "plain.so"]
)
def test_what_leads_to_another_processs_tokens_is_left_out(tmp_path: Path, name: str) -> None:
    """Whatever the program is called that loads it: ours among them."""
    library = tmp_path / "libp11-kit.so.0.3.0"
    library.touch()
    for each in ("p11-kit-client.so", "plain.so"):
        (tmp_path / each).touch()
    for each in ("p11-kit-proxy.so", "link-to-the-proxy"):
        (tmp_path / each).symlink_to(library)
    modules = tmp_path / "modules"
    remote = "remote: unix:path=/run/user/1000/hsmagent/pkcs11/pkcs11.sock\n"
    register(modules, "remote", remote)
    register(modules, "both", f"module: {tmp_path / name}\n{remote}")
    assert for_us(modules) == []
    register(modules, "one", f"module: {tmp_path / name}\nenable-in: hsmagent, python3\n")
    assert for_us(modules) == ([str(tmp_path / name)] if name == "plain.so" else [])


def test_a_bare_name_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "x86" / "pkcs11"
    folder.mkdir(parents=True)
    (folder / "libtoken.so").touch()
    monkeypatch.setattr(discovery, "LIBRARY_PATTERNS", (f"{tmp_path}/*/pkcs11",))
    register(tmp_path / "modules", "token", "module: libtoken.so")
    assert for_us(tmp_path / "modules") == [str(folder / "libtoken.so")]


def test_each_module_comes_once_though_registered_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "libtoken.so"
    module.touch()
    (tmp_path / "link.so").symlink_to(module)
    register(tmp_path / "modules", "token", f"module: {module}")
    monkeypatch.setattr(discovery, "SYSTEM_MODULES", (str(tmp_path / "modules"),))
    monkeypatch.setattr(discovery, "USUAL", (f"{tmp_path}/*.so",))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert discovery.discover() == (str(module),)


def test_an_earlier_folder_overrides_a_registration(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).touch()
    package, admin = tmp_path / "package", tmp_path / "admin"
    register(package, "token", f"module: {tmp_path}/one")
    register(admin, "token", "disable-in: hsmagent")
    assert for_us(package) == [f"{tmp_path}/one"]
    assert for_us(admin, package) == []
    register(admin, "token", f"module: {tmp_path}/two")
    assert for_us(admin, package) == [f"{tmp_path}/two"]


def test_a_usual_module_can_be_kept_from_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "libtoken.so"
    module.touch()
    monkeypatch.setattr(discovery, "SYSTEM_MODULES", (str(tmp_path / "modules"),))
    monkeypatch.setattr(discovery, "USUAL", (f"{tmp_path}/*.so",))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert discovery.discover() == (str(module),)
    register(tmp_path / "modules", "token", f"module: {module}\ndisable-in: hsmagent")
    assert discovery.discover() == ()


def test_the_users_own_registrations_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "libtoken.so"
    module.touch()
    (tmp_path / "pkcs11").mkdir()
    register(tmp_path / "pkcs11" / "modules", "token", f"module: {module}")
    monkeypatch.setattr(discovery, "SYSTEM_MODULES", ())
    monkeypatch.setattr(discovery, "USUAL", ())
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert discovery.discover() == (str(module),)


@pytest.mark.parametrize("name", ["p11-kit-trust.so", "gnome-keyring-pkcs11.so"])
def test_trust_and_keyrings_are_left_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    register(tmp_path / "modules", "x", f"module: {tmp_path / name}")
    assert for_us(tmp_path / "modules") == []
