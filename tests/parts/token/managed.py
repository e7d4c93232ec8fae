"""`hsmagent token …`, `key …`, `cert …` on a token of the test's own, as a person runs them."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.parts.token.provider import Provider

SECONDS = 200
START = """
import sys
from hsmagent.schsm import dkek
dkek.ROUNDS = int(sys.argv.pop(1)) or dkek.ROUNDS
from hsmagent.cli.main import main
main()
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """A command's result."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Managed:
    """The commands, on one provider; `folder` holds the configuration and is the working folder.

    rounds: of MD5 around a DKEK share; 0: as many as in use, which takes many seconds.
    """

    provider: Provider
    folder: Path
    rounds: int = 1000

    @property
    def environment(self) -> dict[str, str]:
        config = self.folder / "hsmagent"
        config.mkdir(exist_ok=True)
        (config / "config.toml").write_text(self.provider.config())
        own = {
            "XDG_CONFIG_HOME": str(self.folder),
            "XDG_RUNTIME_DIR": str(self.folder),
            "XDG_STATE_HOME": str(self.folder / "state"),
        }
        return os.environ | own | {"LC_ALL": "C.UTF-8"}

    def __call__(self, *words: str, secrets: tuple[str, ...] = ()) -> Ran:
        """Run `hsmagent WORDS`, with these lines for --stdin."""
        stdin = ["--stdin"] if secrets else []
        done = subprocess.run(
            [sys.executable, "-c", START, str(self.rounds), *words, *stdin],
            env=self.environment,
            cwd=self.folder,
            input="".join(f"{line}\n" for line in secrets),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        for secret in filter(lambda secret: len(secret) > 3, secrets):
            assert secret not in done.stdout + done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def does(self, *words: str, secrets: tuple[str, ...] = ()) -> str:
        """Run what is to succeed; return what it wrote to stdout."""
        ran = self(*words, secrets=secrets)
        assert ran.status == 0, ran.err
        return ran.out

    def fails(self, *words: str, secrets: tuple[str, ...] = (), status: int = 1) -> str:
        """Run what is to fail; return the sentence that it said."""
        ran = self(*words, secrets=secrets)
        assert ran.status == status, (ran.status, ran.out, ran.err)
        return ran.err
