"""What a terminal shows of the daemon's answers."""

import os
import re
import time
from typing import Any

import pytest

from hsmagent.cli import glance
from tests.cli.test_show import TOKEN

SGR = re.compile(r"\x1b\[\d*m")
HOSTILE = "a\x1b]0;title\x07\x1b[2Jb\u202ec\nd"
NOW: dict[str, Any] = TOKEN | {
    "login_age": 61.0,
    "idle_limit": 1800.0,
    "last_use": {"time": 0.0, "text": "ssh ← git used “ec” of work to log in"},
}


@pytest.fixture(autouse=True)
def coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def plain(text: str) -> str:
    return SGR.sub("", text)


def entry(text: str, *, at: float = 0.0, chain: str = "ssh ← git", outcome: str = "used") -> Any:
    return {"time": at, "chain": chain, "outcome": outcome, "text": f"{chain} {text}"}


def test_a_token_shows_its_login_as_a_bar() -> None:
    told = {"time": time.time() - 120, "text": NOW["last_use"]["text"]}
    shown = glance.status({"tokens": [NOW | {"last_use": told}], "modules": []})
    assert plain(shown).splitlines()[:4] == [
        "● work",
        "  login     unlocked, 14 min 59 s left if unused, 7 h 59 min at most",
        "            ━━━━━━━━━━────────── unlocked 1 min 1 s ago",
        "  last use  2 min ago: ssh ← git used “ec” of work to log in",
    ]
    assert shown.startswith("\x1b[32m●")


def test_a_last_use_stays_in_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"time": time.time(), "text": "ssh ← git used “ec” of work to log in"}
    answer = {"tokens": [NOW | {"last_use": told}], "modules": []}
    for columns, end in ((60, " to log in"), (40, "…")):
        size = os.terminal_size((columns, 24))
        monkeypatch.setattr(os, "get_terminal_size", lambda size=size: size)
        [line] = [line for line in plain(glance.status(answer)).splitlines() if "last use" in line]
        assert line.endswith(end)
        assert len(line) <= columns


@pytest.mark.parametrize(
    ("change", "cells"),
    [
        ({"idle_left": 1800.0}, 20),
        ({"idle_left": 1.0}, 1),  # what is not nothing shows
        ({"idle_left": 0.0}, 0),
        # Near its end in any case, a use gives it no more.
        ({"idle_left": 1800.0, "max_left": 450.0, "login_age": 28350.0}, 5),
        # `max` is less than `idle`.
        ({"idle_left": 1000.0, "max_left": 100.0, "login_age": 100.0}, 10),
    ],
)
def test_the_bar_is_what_is_left(change: dict[str, Any], cells: int) -> None:
    shown = glance.status({"tokens": [NOW | change], "modules": []})
    assert shown.count("━") == cells
    assert shown.count("─") == 20 - cells


def test_an_older_daemon_tells_less() -> None:
    shown = glance.status({"tokens": [TOKEN], "modules": []})
    assert "━" not in shown
    assert "last use" not in shown
    assert "unlocked, 14 min" in shown


def test_what_waits_for_a_person_comes_first() -> None:
    waits = {"wants": "touch", "key": "me@home (Ed25519)", "request": "ssh wants to log in"}
    shown = plain(glance.status({"tokens": [NOW], "modules": [], "waiting": [waits]}))
    assert shown.startswith(
        "◆ waits for a touch: ssh wants to log in, with the key me@home (Ed25519)\n\n● work\n"
    )


@pytest.mark.parametrize(
    ("change", "colour"),
    [({}, 32), ({"logged_in": False}, 2), ({"pin_state": "locked"}, 31), ({"last_error": "x"}, 31)],
)
def test_the_dot_tells_how_a_token_is(change: dict[str, Any], colour: int) -> None:
    shown = glance.status({"tokens": [NOW | change], "modules": []})
    assert re.match(rf"\x1b\[{colour}m[●○]\x1b\[m ", shown)


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_where_it_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert "\x1b" not in glance.status({"tokens": [NOW], "modules": []})
    assert "\x1b" not in glance.log({"entries": [entry("used it", outcome="refused")]})


def test_nothing_foreign_reaches_the_terminal_as_it_is() -> None:
    texts = ("label", "model", "serial", "module", "last_error")
    token = NOW | dict.fromkeys(texts, HOSTILE) | {"notes": [HOSTILE]}
    token["last_use"] = {"time": 0.0, "text": HOSTILE}
    answer = {
        "tokens": [token],
        "modules": [{"path": "/m.so", "error": HOSTILE, "notes": [HOSTILE]}],
        "waiting": [{"wants": "pin", "key": HOSTILE, "request": HOSTILE}],
        "leases": [{"module": HOSTILE, "holder": HOSTILE, "age": 1}],
        "ask_here": [{"terminal": HOSTILE}],
    }
    lines = entry(HOSTILE, chain=HOSTILE)
    for shown in (glance.status(answer), glance.log({"entries": [lines]})):
        assert "title" in shown
        left = plain(shown).replace("\n", "")
        assert left.isprintable()
        assert "c\nd" not in shown


def test_a_log_is_grouped_by_day_and_by_who_asked() -> None:
    noon = time.mktime((2026, 5, 1, 12, 0, 0, 0, 0, -1))
    log = glance.Log()
    shown = plain(
        log.lay_out(
            [
                entry("used “ec”", at=noon),
                entry("was refused “ec”: no", at=noon + 1, outcome="refused"),
                entry("used “ec”", at=noon + 2, chain="mutt"),
            ]
        )
    )
    assert shown == (
        "Friday, 2026-05-01\n"
        "  ssh ← git\n"
        "    12:00:00 ✓ used “ec”\n"
        "    12:00:01 ✗ was refused “ec”: no\n"
        "  mutt\n"
        "    12:00:02 ✓ used “ec”\n"
    )
    # What is added goes on under the heading that stands there.
    assert plain(log.lay_out([entry("used “ec”", at=noon + 3, chain="mutt")])) == (
        "    12:00:03 ✓ used “ec”\n"
    )
    tomorrow = plain(log.lay_out([entry("used “ec”", at=noon + 86400, chain="mutt")]))
    assert tomorrow == "\nSaturday, 2026-05-02\n  mutt\n    12:00:00 ✓ used “ec”\n"
