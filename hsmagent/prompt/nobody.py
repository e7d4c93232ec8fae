"""The prompter of last resort: there is none, so requests wait for `hsmagent unlock`."""

from hsmagent.errors import Unavailable
from hsmagent.prompt.base import PinDialog, Text

_WHY = "no prompter can be used here"


class Nobody:
    """Cannot ask anybody anything. Implements `prompt.base.Prompter`."""

    name = "nobody"

    async def ask_pin(self, dialog: PinDialog) -> None:  # noqa: ARG002 - the protocol's signature
        """Raise Unavailable."""
        raise Unavailable(_WHY)

    async def confirm(self, text: Text) -> bool:  # noqa: ARG002 - the protocol's signature
        """Raise Unavailable."""
        raise Unavailable(_WHY)

    async def notice(self, text: Text) -> None:  # noqa: ARG002 - the protocol's signature
        """Raise Unavailable."""
        raise Unavailable(_WHY)
