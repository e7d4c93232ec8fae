import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmagent.config import file as config
from hsmagent.errors import ConfigError
from hsmagent.model import ModuleSpec, PurposeKind

EVERYTHING = """
[[module]]
path = "/usr/lib/softhsm/libsofthsm2.so"
workers = 2
parameters = "configdir='/x'"
env = { SOFTHSM2_CONF = "~/softhsm2.conf" }
release = "30s"

[[token]]
match = "pkcs11:token=work"
idle = "1h30m"
pin_store = true

[[key]]
match = "pkcs11:object=ssh"
confirm = "remember"
remember = "5m"
allow = ["ssh", "git"]
hide = true
name = "work laptop"

[[key]]
match = "SHA256:abc"

[cache]
idle = "10m"
max = "1d"
let_go = ["suspend"]

[prompt]
order = ["askpass"]
timeout = "45s"
pinentry = "~/bin/pinentry-fuzzel"

[ssh]
upstream = "~/agent.sock"
certificates = ["~/.ssh/*-cert.pub"]
providers = ["/opt/*"]

[notify]
events = ["used"]
"""


def test_every_key_of_the_documentation_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    read = config.read(EVERYTHING, "config.toml")
    assert read.modules[0] == ModuleSpec(
        path="/usr/lib/softhsm/libsofthsm2.so",
        workers=2,
        parameters="configdir='/x'",
        env=(("SOFTHSM2_CONF", "/home/u/softhsm2.conf"),),
        release=30.0,
    )
    assert read.tokens[0].match.token == "work"
    assert read.tokens[0].cache == config.CacheConfig(5400.0, 86400.0, ("suspend",))
    assert read.tokens[0].pin_store
    assert read.keys[0].allow == frozenset({PurposeKind.SSH, PurposeKind.GIT})
    assert (read.keys[0].confirm, read.keys[0].remember) == ("remember", 300.0)
    assert (read.keys[0].hide, read.keys[0].name) == (True, "work laptop")
    assert read.keys[1].match == "SHA256:abc"
    assert read.keys[1].allow is None
    assert read.prompt == config.PromptConfig(("askpass",), 45.0, "/home/u/bin/pinentry-fuzzel")
    assert read.ssh.upstream == "/home/u/agent.sock"
    assert read.ssh.certificates == ("/home/u/.ssh/*-cert.pub",)
    assert read.notify == ("used",)


def test_a_key_that_is_allowed_nothing_is_allowed_nothing() -> None:
    read = config.read('[[key]]\nmatch = "k"\nallow = []', "config.toml")
    assert read.keys[0].allow == frozenset()


def test_an_empty_file_and_no_file_are_the_defaults(tmp_path: Path) -> None:
    assert config.read("", "config.toml") == config.Config()
    assert config.load(tmp_path / "none.toml") == config.Config()


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no configuration file"):
        config.load(tmp_path / "none.toml", required=True)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory"):
        config.load(tmp_path)
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"# \xff")
    with pytest.raises(ConfigError, match=r"cannot read .*latin\.toml: it is not UTF-8"):
        config.load(latin)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[cach]", "config.toml: unknown key 'cach'; known: cache, module"),
        ("[cache]\nidel = '1m'", r"\[cache\]: unknown key 'idel'; known: idle, max, let_go"),
        ("[cache]\nidle = 15", 'idle = 15: must be a duration such as "30s"'),
        ("[cache]\nidle = '0'", "longer than 0"),
        ("[cache]\nidle = '15 min'", "must be a duration"),
        ("[cache]\nlet_go = ['lunch']", 'each entry one of "screen-lock"'),
        ("cache = 3", r"\[cache\] must be a table"),
        ("[[module]]", r"\[\[module\]\] 1: path is missing"),
        ("[module]\npath = '/x'", r"double brackets, as \[\[module\]\]"),
        ("[[module]]\npath = 'x.so'", "must be an absolute path"),
        ("[[module]]\npath = '/x'\nworkers = 0", "a whole number from 1 to 64"),
        ("[[module]]\npath = '/x'\nworkers = true", "a whole number from 1 to 64"),
        ("[[module]]\npath = '/x'\nenv = { LD_PRELOAD = 'x' }", "LD_"),
        ("[[module]]\npath = '/x'\nenv = { A = 1 }", "must be a string"),
        ("[[token]]\nmatch = 'work'", "must be a PKCS#11 URI"),
        ("[[token]]\nmatch = 'pkcs11:?pin-value=1'", "pin-value is refused"),
        ("[[token]]\nmatch = 'pkcs11:'\npin_store = 'yes'", "must be true or false"),
        ("[[key]]\nmatch = ''", "a fingerprint"),
        ("[[key]]\nmatch = 'a'\nconfirm = 'sometimes'", 'one of "never", "always"'),
        ("[[key]]\nmatch = 'a'\nallow = 'ssh'", "must be a list"),
        ("[prompt]\norder = ['window']", 'one of "system", "pinentry", "askpass"'),
        ("[prompt]\npinentry = 'bin/pinentry'", "an absolute path"),
        ("[prompt]\ntimeout = '0'", "timeout must be longer than 0 seconds"),
        (f"[cache]\nidle = '{'9' * 5000}d'", "must be a duration"),
        ("[[module]]\npath = '/x'\n[[module]]\npath = '/x'\nworkers = 2", "/x is named twice"),
        ('[ssh]\nupstream = "a\\u0001b"', "control characters"),
        ("= 1", "is not valid TOML"),
    ],
)
def test_errors_name_file_key_and_what_is_allowed(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        config.read(text, "config.toml")
    assert str(caught.value).startswith("config.toml")


@pytest.mark.parametrize(
    "text",
    [
        "[[token]]\nmatch = 'pkcs11:token=work;pin-value=271828'",
        "[[token]]\nmatch = 'PKCS11:token=work;pin-value=271828'",
        "[[key]]\nmatch = 'pkcs11:object=ssh?pin-value=271828'",
        "[[key]]\nmatch = ['271828']",
        "[[module]]\npath = '/x'\nparameters = 271828",
        "[[module]]\npath = '/x'\nenv = { PIN = 271828 }",
        "[[module]]\npath = '/x'\nenv = { PIN = \"271828\\n\" }",
    ],
)
def test_an_error_does_not_repeat_what_may_be_a_pin(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.read(text, "config.toml")
    assert "271828" not in str(caught.value)


@given(st.text(max_size=200))
def test_no_text_crashes_the_reader(text: str) -> None:
    try:
        config.read(text, "config.toml")
    except ConfigError as error:
        assert str(error).startswith("config.toml")  # noqa: PT017


def test_the_default_path_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/xdg")
    assert config.default_path() == Path("/xdg/hsmagent/config.toml")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/u")
    assert config.default_path() == Path("/home/u/.config/hsmagent/config.toml")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("\ufeff" + '[cache]\nidle = "1m"\n', encoding="utf-8")
    assert config.load(file).cache.idle == 60


@pytest.mark.parametrize("link", ["config.toml", "folder"])
def test_a_link_that_leads_nowhere_is_no_missing_file(tmp_path: Path, link: str) -> None:
    file = tmp_path / ("config.toml" if link == "config.toml" else "folder/config.toml")
    (tmp_path / link).symlink_to(tmp_path / "not-mounted")
    with pytest.raises(ConfigError, match=f"the link .*/{link} leads nowhere"):
        config.load(file)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for place in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(ConfigError, match=r"not a regular file|Is a directory"):
            config.load(place)
    assert config.load(Path(os.devnull), required=True) == config.Config()


def test_a_file_out_of_all_proportion_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b"#" * (config.LARGEST + 1))
    with pytest.raises(ConfigError, match="longer than"):
        config.load(file)
    file.write_text("a = " + "[" * 100_000)
    with pytest.raises(ConfigError, match="too deeply"):
        config.load(file)
