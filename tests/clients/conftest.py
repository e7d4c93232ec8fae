"""The daemon's fixtures: a furnished token behind a running daemon."""

from tests.daemon.conftest import agent, furnished, start

__all__ = ["agent", "furnished", "start"]
