"""What each dialog says, and what its first button does."""

from dataclasses import replace

import pytest

from hsmagent.model import PinState, Request
from hsmagent.prompt import words
from hsmagent.prompt.base import Text
from tests.door.doubles import request
from tests.parts.values import KEY, STATUS

WISH = request()
ASKS = "ssh ← git wants to log in as alice at git.example.org"
ABOUT = f"{ASKS}\nKey: ssh (ECDSA P-256)"
EACH = replace(KEY, always_authenticate=True)
LAST = replace(STATUS, pin_state=PinState.FINAL_TRY)
BLOCKS = "One try is left: another wrong PIN blocks the token."


@pytest.mark.parametrize(
    ("text", "title", "message", "description", "warning", "ok"),
    [
        (
            words.ask_pin(STATUS, [WISH], ""),
            "Unlock work",
            "PIN for the token “work”",
            ABOUT,
            "",
            "Unlock",
        ),
        (
            words.ask_pin(STATUS, [request(EACH)], ""),
            "Unlock work",
            "PIN for the token “work”",
            f"{ABOUT}\nThis key wants its PIN for each use.",
            "",
            "Unlock",
        ),
        (
            words.ask_pin_for_use(STATUS, [request(EACH)], ""),
            "Use a key of work",
            "PIN to use the key “ssh” of “work” once",
            f"{ABOUT}\nThis key wants its PIN for each use.",
            "",
            "Use it once",
        ),
        (
            words.last_try(LAST, [WISH]),
            "Last try for work",
            "Really enter a PIN for “work”?",
            ABOUT,
            BLOCKS,
            "Enter PIN",
        ),
        (
            words.use_pin_pad(LAST, [WISH]),
            "Unlock work",
            "Type the PIN of “work” on the reader",
            ABOUT,
            BLOCKS,
            "Hide",
        ),
        (words.touch(WISH), "Use a FIDO key", "Touch your key “ssh”", ASKS, "", "Hide"),
        (
            words.ask_fido_pin(WISH),
            "Use a FIDO key",
            "Enter the PIN of the FIDO key “ssh”",
            ABOUT,
            "",
            "Continue",
        ),
        (
            words.confirm(WISH),
            "Use a key",
            "Allow the use of ssh (ECDSA P-256)?",
            f"{ASKS}\nToken: work",
            "",
            "Allow",
        ),
    ],
    ids=lambda value: value.title if isinstance(value, Text) else "",
)
def test_a_dialog(  # noqa: PLR0917 - one for each thing that is shown
    text: Text, title: str, message: str, description: str, warning: str, ok: str
) -> None:
    shown = (text.title, text.message, text.description, text.warning, text.ok)
    assert shown == (title, message, description, warning, ok)
    assert isinstance(text.request, Request)
    assert text.asker == text.request.peer.process.pid
