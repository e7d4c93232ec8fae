"""How a card ends a command that went wrong."""


class Answer(Exception):
    """Ends a command with a status word other than 9000, and perhaps data."""

    def __init__(self, sw: int, data: bytes = b"") -> None:
        super().__init__(f"{sw:04X}")
        self.sw = sw
        self.data = data
