"""Reading arguments by the table of commands."""

import pytest

from hsmagent.cli import arguments, commands, gpgsm_args, openssl_args, usage
from hsmagent.cli.arguments import Given, parse
from hsmagent.cli.management import KEY_TYPES
from hsmagent.errors import UsageError
from hsmagent.manage.kinds import KINDS


def given(name: str, *words: str) -> Given:
    return parse(commands.BY_NAME[name], words)


def test_options_and_arguments_come_in_any_order() -> None:
    for words in (
        ["card", "--stdin", "--runtime-dir", "/r"],
        ["--runtime-dir=/r", "card", "--stdin"],
    ):
        found = given("unlock", *words)
        assert (found.word, found.flag("--stdin"), found.flag("--last-try")) == (
            "card",
            True,
            False,
        )
        assert found.value("--runtime-dir") == "/r"
    assert given("log").value("--since") == ""


def test_an_option_that_may_come_more_than_once_keeps_all_and_another_the_last() -> None:
    found = given("smime verify", "--ca", "a", "--ca=b", "--at", "2026-01-01", "--at", "2027-01-01")
    assert found.values("--ca") == ["a", "b"]
    assert found.value("--at") == "2027-01-01"


def test_a_dash_is_an_argument_and_after_two_dashes_everything_is() -> None:
    assert given("smime sign", "-").word == "-"
    assert given("contacts add", "--", "--ca", "-x").words == ["--ca", "-x"]


def test_a_value_may_look_like_an_option() -> None:
    assert given("smime sign", "--key", "--pss").value("--key") == "--pss"


def test_asking_for_an_option_that_is_not_in_the_table_is_a_fault_of_ours() -> None:
    with pytest.raises(KeyError):
        given("lock").flag("--stdin")


@pytest.mark.parametrize(
    ("name", "words", "sentence"),
    [
        ("status", ["--frob"], "`hsmagent status` has no option --frob; usage: hsmagent status"),
        ("status", ["x"], "wrong number of arguments; usage: hsmagent status"),
        ("contacts add", [], "wrong number of arguments"),
        ("lock", ["--runtime-dir"], "--runtime-dir needs a value"),
        ("status", ["--json=1"], "--json takes no value"),
        ("smime encrypt", ["--cipher", "rot13"], "--cipher is one of auto, gcm, cbc"),
        ("smime verify", ["--at", "soon"], "'soon' is no time"),
        ("smime verify", ["--a"], "has no option --a"),
    ],
)
def test_mistakes(name: str, words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        given(name, *words)
    assert sentence in str(caught.value)


def test_a_moment_without_a_zone_is_in_utc() -> None:
    assert arguments.moment("2026-05-01T12:00").isoformat() == "2026-05-01T12:00:00+00:00"
    assert arguments.moment("2026-05-01T12:00+02:00").isoformat() == "2026-05-01T12:00:00+02:00"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("token init", ["--label", "bad\udcff"]),
        ("data write", ["ok", "file", "--application=b\udcff"]),
        ("data write", ["bad\udcff", "file"]),
        ("key rename", ["ssh", "bad\udcff"]),
        ("key backup", ["bad\udcff", "mail", "folder"]),
        ("contacts remove", ["\udcff"]),
        ("token info", ["\udcff"]),
    ],
)
def test_what_is_not_utf8_is_refused(name: str, words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"is not UTF-8: '.*'") as caught:
        given(name, *words)
    str(caught.value).encode()


def test_the_programs_that_stand_in_for_others_refuse_it_too() -> None:
    for read, words in (
        (openssl_args.parse, ["-sign", "-subject", "b\udcff"]),
        (gpgsm_args.parse, ["-s", "-u", "b\udcff"]),
        (gpgsm_args.parse, ["-e", "--recipient=b\udcff"]),
    ):
        with pytest.raises(UsageError, match="is not UTF-8"):
            read(words)


def test_a_file_may_have_any_name() -> None:
    name = "f\udcff"
    assert openssl_args.parse(["-sign", "-in", name]).get("-in") == name
    assert gpgsm_args.parse(["-s", "-o", name, "--homedir", name]).values["--output"] == [name]
    assert given("data write", "ok", name).words == ["ok", name]
    assert given("key backup", "ssh", "mail", name).words == ["ssh", "mail", name]
    assert given("cert import", name, "--config", name).word == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("key rename", "KEY LABEL"),
        ("data write", "LABEL FILE"),
        ("key backup", "KEY... FOLDER"),
        ("key restore", "FILE..."),
        ("unlock", "[TOKEN]"),
    ],
)
def test_the_usage_line_shows_what_may_be_repeated(name: str, shown: str) -> None:
    assert usage.line(commands.BY_NAME[name]) == f"usage: hsmagent {name} [options] {shown}"


@pytest.mark.parametrize(
    ("name", "words"),
    [("key rename", ["a"]), ("key rename", ["a", "b", "c"]), ("key backup", ["a"])],
)
def test_too_few_and_too_many(name: str, words: list[str]) -> None:
    with pytest.raises(UsageError, match="wrong number of arguments"):
        given(name, *words)


def test_the_kinds_of_key_that_are_offered_are_those_that_are_made() -> None:
    assert set(KEY_TYPES) == set(KINDS)
