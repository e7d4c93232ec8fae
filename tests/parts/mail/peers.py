"""The other S/MIME programs, behind one interface: OpenSSL, gpgsm and NSS's cmsutil.

Contents are MIME entities in CRLF form, messages are DER. A peer that cannot do something raises
CannotDo with what it said.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives import hashes

from tests.parts.mail.pki import Authority, Person

PASSWORD = "x"


class CannotDo(Exception):
    """The peer failed."""


class Peer(Protocol):
    """One S/MIME program with its own store of keys; people are named by the kind of their key."""

    def sign(self, content: bytes, kind: str, *, detached: bool) -> bytes: ...
    def verify(self, der: bytes, content: bytes | None) -> None: ...
    def encrypt(self, content: bytes, kind: str, *, gcm: bool) -> bytes: ...
    def decrypt(self, der: bytes, kind: str) -> bytes: ...


def run(command: Sequence[str], data: bytes = b"", **environment: str) -> bytes:
    done = subprocess.run(
        list(command),
        input=data,
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
        timeout=60,
    )
    if done.returncode != 0:
        raise CannotDo(done.stderr.decode(errors="replace"))
    return done.stdout


class OpenSsl:
    """`openssl cms`."""

    def __init__(self, folder: Path, authority: Authority, people: dict[str, Person]) -> None:
        self._folder = folder
        self._files = {kind: who.write(folder, kind) for kind, who in people.items()}
        self._ca = folder / "ca.pem"
        self._ca.write_bytes(authority.pem)

    def sign(self, content: bytes, kind: str, *, detached: bool) -> bytes:
        certificate, key = self._files[kind]
        shape = ("-outform", "DER", "-binary") if detached else ("-outform", "DER", "-nodetach")
        who = ("-signer", certificate, "-inkey", key)
        return run(["openssl", "cms", "-sign", *who, *shape, "-binary"], content)

    def verify(self, der: bytes, content: bytes | None) -> None:
        beside: list[str] = []
        if content is not None:
            (self._folder / "content").write_bytes(content)
            beside = ["-content", str(self._folder / "content"), "-binary"]
        command = ["openssl", "cms", "-verify", "-inform", "DER", "-CAfile", str(self._ca)]
        run([*command, *beside], der)

    def encrypt(self, content: bytes, kind: str, *, gcm: bool) -> bytes:
        cipher = "-aes-256-gcm" if gcm else "-aes256"
        command = ["openssl", "cms", "-encrypt", "-binary", cipher, "-outform", "DER"]
        return run([*command, self._files[kind][0]], content)

    def decrypt(self, der: bytes, kind: str) -> bytes:
        certificate, key = self._files[kind]
        command = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER"]
        return run([*command, "-recip", certificate, "-inkey", key], der)


class Nss:
    """`cmsutil`, with a database of its own."""

    def __init__(self, folder: Path, authority: Authority, people: dict[str, Person]) -> None:
        self._folder = folder
        self._db = ("-d", f"sql:{folder}")
        run(["certutil", "-N", *self._db, "--empty-password"])
        (folder / "ca.pem").write_bytes(authority.pem)
        run(["certutil", "-A", *self._db, "-n", "ca", "-t", "CT,CT,CT", "-i", f"{folder}/ca.pem"])
        for kind, who in people.items():
            try:
                p12 = pkcs12(folder, kind, who)
                run(["pk12util", *self._db, "-i", p12, "-W", PASSWORD, "-K", ""])
            except CannotDo:
                continue  # shows when the key is used

    def sign(self, content: bytes, kind: str, *, detached: bool) -> bytes:
        shape = ("-T",) if detached else ()
        return run(["cmsutil", "-S", *self._db, "-N", kind, "-G", "-P", *shape], content)

    def verify(self, der: bytes, content: bytes | None) -> None:
        beside: list[str] = []
        if content is not None:
            (self._folder / "content").write_bytes(content)
            beside = ["-c", str(self._folder / "content")]
        run(["cmsutil", "-D", *self._db, *beside], der)

    def encrypt(self, content: bytes, kind: str, *, gcm: bool) -> bytes:
        if gcm:
            raise CannotDo("cmsutil has no option for a cipher")
        return run(["cmsutil", "-E", *self._db, "-r", f"{kind}@example.org"], content)

    def decrypt(self, der: bytes, kind: str) -> bytes:
        return run(["cmsutil", "-D", *self._db], der)


class Gpgsm:
    """gpgsm with a home and an agent of its own; `close` ends the agent."""

    def __init__(self, folder: Path, authority: Authority, people: dict[str, Person]) -> None:
        self._folder = folder
        folder.chmod(0o700)
        (folder / "gpgsm.conf").write_text("disable-crl-checks\nno-secmem-warning\n")
        (folder / "gpg-agent.conf").write_text("allow-loopback-pinentry\ndisable-scdaemon\n")
        fingerprint = authority.certificate.fingerprint(hashes.SHA1()).hex(":").upper()
        (folder / "trustlist.txt").write_text(f"{fingerprint} S relax\n")
        run(["gpgconf", "--launch", "gpg-agent"], GNUPGHOME=str(folder))
        self._gpgsm(("--import",), authority.pem)
        for kind, who in people.items():
            self._import(kind, who)

    def _import(self, kind: str, who: Person) -> None:
        """Bring in a key, or the certificate alone where gpgsm 2.2 cannot read such a key."""
        for _ in range(8 if kind == "rsa" else 1):
            # It cannot read one PKCS #12 file in twelve, depending on the random salt.
            p12 = pkcs12(self._folder, kind, who)
            try:
                self._gpgsm((*self._with(), "--import", p12), PASSWORD.encode())
            except CannotDo:
                continue
            return
        self._gpgsm(("--import",), who.pem)

    def close(self) -> None:
        run(["gpgconf", "--kill", "all"], GNUPGHOME=str(self._folder))

    def sign(self, content: bytes, kind: str, *, detached: bool) -> bytes:
        shape = "--detach-sign" if detached else "--sign"
        who = ("-u", f"{kind}@example.org")
        return self._gpgsm((*self._with(), *who, shape, self._file(content)), PASSWORD.encode())

    def verify(self, der: bytes, content: bytes | None) -> None:
        if content is None:
            self._gpgsm(("--verify",), der)
            return
        (self._folder / "content").write_bytes(content)
        (self._folder / "signature").write_bytes(der)
        names = (str(self._folder / "signature"), str(self._folder / "content"))
        self._gpgsm(("--verify", *names))

    def encrypt(self, content: bytes, kind: str, *, gcm: bool) -> bytes:
        if gcm:
            raise CannotDo("gpgsm 2.2 has no GCM for encryption")
        return self._gpgsm(("--cipher-algo", "AES256", "-e", "-r", f"{kind}@example.org"), content)

    def decrypt(self, der: bytes, kind: str) -> bytes:
        options = ("--assume-binary", "--decrypt", self._file(der))
        return self._gpgsm((*self._with(), *options), PASSWORD.encode())

    def _with(self) -> tuple[str, ...]:
        return ("--passphrase-fd", "0")

    def _file(self, data: bytes) -> str:
        path = self._folder / "input"
        path.write_bytes(data)
        return str(path)

    def _gpgsm(self, arguments: Sequence[str], data: bytes = b"") -> bytes:
        command = ["gpgsm", "--batch", "--yes", "--pinentry-mode", "loopback", *arguments]
        return run(command, data, GNUPGHOME=str(self._folder))


def pkcs12(folder: Path, kind: str, who: Person) -> str:
    """Write a PKCS #12 file in the old ciphers that every peer reads."""
    certificate, key = who.write(folder, kind)
    path = f"{folder}/{kind}.p12"
    old = ("-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1")
    run(
        ["openssl", "pkcs12", "-export", "-in", certificate, "-inkey", key, "-name", kind, *old,
         "-passout", f"pass:{PASSWORD}", "-out", path]
    )  # fmt: skip
    return path
