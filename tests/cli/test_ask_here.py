"""What `hsmagent ask-here` writes to its terminal."""

from hsmagent.cli.ask_here import _lines

QUESTION = {
    "message": "PIN for “\x1b[2J”",
    "description": "a\u202eb\r wants to\nKey: \x07\x9b31m",
    "warning": "",
}


def test_nothing_that_is_asked_is_a_control_code() -> None:
    lines = list(_lines(QUESTION, {}))
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def test_a_question_that_is_put_again_shows_what_is_new() -> None:
    again = QUESTION | {"warning": "Wrong PIN."}
    assert list(_lines(again, QUESTION)) == ["Wrong PIN."]
    assert len(list(_lines(again | {"description": "somebody else"}, QUESTION))) == 2
