"""SoftHSM tokens of a test's own: a folder, a SOFTHSM2_CONF, keys made with pkcs11-tool."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

MODULE = next(
    (
        str(path)
        for path in (
            Path("/usr/lib/softhsm/libsofthsm2.so"),
            Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"),
            Path("/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so"),
        )
        if path.exists()
    ),
    "/usr/lib/softhsm/libsofthsm2.so",
)
PIN = "24681357"
SO_PIN = "13572468"


@dataclass(frozen=True, slots=True)
class SoftHsm:
    """A SoftHSM of its own in `folder`."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> "SoftHsm":
        """Set up an empty one."""
        tokens = folder / "tokens"
        tokens.mkdir(parents=True)
        (folder / "softhsm2.conf").write_text(
            f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        return cls(folder)

    def copy(self, folder: Path) -> "SoftHsm":
        """Return one of its own with the same tokens, for a test that changes them."""
        copied = SoftHsm.create(folder)
        shutil.copytree(self.folder / "tokens", folder / "tokens", dirs_exist_ok=True)
        return copied

    @property
    def env(self) -> tuple[tuple[str, str], ...]:
        """What a module's environment needs (ModuleSpec.env)."""
        return (("SOFTHSM2_CONF", str(self.folder / "softhsm2.conf")),)

    def run(self, *command: str) -> str:
        """Run a tool on it; return its stdout."""
        done = subprocess.run(
            command,
            env=os.environ | dict(self.env),
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=60,
        )
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def init_token(self, label: str, pin: str = PIN) -> None:
        """Make a token."""
        self.run(
            *("softhsm2-util", "--init-token", "--free", "--label", label),
            *("--pin", pin, "--so-pin", SO_PIN),
        )

    def pkcs11_tool(self, label: str, *arguments: str, pin: str = PIN) -> str:
        """Run pkcs11-tool, logged in to a token."""
        return self.run(
            *("pkcs11-tool", "--module", MODULE, "--token-label", label),
            *("--login", "--pin", pin, *arguments),
        )

    def generate(self, label: str, kind: str, number: str, name: str, *more: str) -> None:
        """Make a key pair: kind as pkcs11-tool spells it ("EC:prime256v1"), id in hex."""
        self.pkcs11_tool(
            label, "--keypairgen", "--key-type", kind, "--id", number, "--label", name, *more
        )

    def import_key(self, label: str, pem: Path, number: str, name: str) -> None:
        """Bring in a PKCS#8 key (PEM); faster than making an RSA key in the token."""
        self.run(
            *("softhsm2-util", "--import", str(pem), "--token", label),
            *("--label", name, "--id", number, "--pin", PIN),
        )

    def write(self, label: str, kind: str, der: Path, number: str, name: str, *more: str) -> None:
        """Write a DER file as an object: kind "cert", "pubkey", "privkey" or "data"."""
        self.pkcs11_tool(
            *(label, "--write-object", str(der), "--type", kind),
            *("--id", number, "--label", name, *more),
        )

    def delete(self) -> None:
        """Take every token away."""
        shutil.rmtree(self.folder / "tokens")
        (self.folder / "tokens").mkdir()


def module_config(token: SoftHsm, extra: str = "") -> str:
    """Return the `[[module]]` table for a SoftHSM."""
    env = ", ".join(f'{name} = "{value}"' for name, value in token.env)
    return f'[[module]]\npath = "{MODULE}"\nenv = {{ {env} }}\n{extra}'
