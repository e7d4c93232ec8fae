"""The certificates of those we write to, and the roots we trust: a folder of PEM files.

Each file is named by its certificate's SHA-256 and starts with lines that say whose it is and
what its owner can read, so that finding one by address parses only those that may fit.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from hsmagent.errors import UsageError
from hsmagent.folders import home_folder
from hsmagent.mail import purpose, roots
from hsmagent.mail.address import folded, normal
from hsmagent.mail.cms import certificates
from hsmagent.mail.cms.certificates import Certificate

_ADDRESS = "Address: "
_CAPABILITY = "Capability: "
_FILE_MAX = 256 * 1024
_CRL_MAX = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored certificate. capabilities: OIDs of the ciphers that its owner says to read."""

    certificate: Certificate
    capabilities: frozenset[str] = frozenset()


class Store:
    """Two folders below `base`: `contacts` and `roots`."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def add(
        self, certificate: Certificate, capabilities: Iterable[str] = (), *, root: bool = False
    ) -> None:
        """Put a certificate in, with its owner's capabilities in place of those stored before."""
        lines = [_ADDRESS + a for a in certificate.addresses]
        lines += [_CAPABILITY + oid for oid in sorted(capabilities)]
        text = "".join(line + "\n" for line in lines) + certificates.pem(certificate)
        path = self._folder(root=root) / f"{certificate.fingerprint}.pem"
        _write(path, text.encode())

    def entries(self, *, root: bool = False) -> list[Entry]:
        """Return everything that can be read."""
        return [entry for _, text in self._files(root=root) for entry in _parse(text)]

    def certificates(self, *, root: bool = False) -> tuple[Certificate, ...]:
        """Return every certificate that can be read, or the roots that were added."""
        return tuple(entry.certificate for entry in self.entries(root=root))

    def add_crl(self, data: bytes) -> None:
        """Put a CRL (DER) in; from then on every mail is judged by it."""
        _write(self._base / "crls" / f"{sha256(data).hexdigest()}.crl", data)

    def crls(self) -> tuple[bytes, ...]:
        """Return the CRLs, as DER."""
        paths = sorted((self._base / "crls").glob("*.crl"))
        return tuple(path.read_bytes() for path in paths if path.stat().st_size <= _CRL_MAX)

    def leads_to_root(self, last: Certificate) -> bool:
        """Whether a root of ours or of the system bears the name of a certificate's issuer."""
        own = any(root.subject == last.issuer for root in self.certificates(root=True))
        return own or roots.has_issuer(last.issuer_der)

    def find(self, address: str, now: datetime) -> Entry | None:
        """Return the certificate to encrypt to for an address: see purpose.rank.

        One for the very address goes before one for it in other letters.
        """
        exact = normal(address)
        line = folded(_ADDRESS + exact + "\n")
        fitting = [
            entry
            for _, text in self._files(root=False)
            if line in folded(text)
            for entry in _parse(text)
            if folded(exact) in map(folded, entry.certificate.addresses)
            and entry.certificate.valid_at(now)
            and not purpose.not_for_encryption(entry.certificate)
        ]
        fitting = [e for e in fitting if exact in e.certificate.addresses] or fitting
        return max(fitting, key=lambda e: purpose.rank(e.certificate), default=None)

    def signs_as(self, address: str) -> None:
        """Note that an address has signed, so that unsigned mail from it is noticed."""
        if not self.has_signed(address):
            self._base.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._senders.open("a", encoding="utf-8") as file:
                file.write(f"{folded(address)}\n")

    def has_signed(self, address: str) -> bool:
        """Whether an address has signed before (see `signs_as`)."""
        return folded(address) in self._signed()

    def signs_no_more(self, address: str) -> None:
        """Forget that an address has signed."""
        if self.has_signed(address):
            kept = [one for one in self._signed() if one != folded(address)]
            _write(self._senders, "".join(f"{one}\n" for one in kept).encode())

    @property
    def _senders(self) -> Path:
        return self._base / "senders"

    def _signed(self) -> list[str]:
        return self._senders.read_text("utf-8").splitlines() if self._senders.exists() else []

    def remove(self, wanted: str, *, root: bool = False) -> int:
        """Remove by address or fingerprint (SHA-256, or its first 16 digits or more)."""
        digits = wanted.replace(":", "").lower()
        count = 0
        for path, text in self._files(root=root):
            named = len(digits) >= 16 and path.name.startswith(digits)  # noqa: PLR2004
            if named or _ADDRESS + normal(wanted) + "\n" in text:
                path.unlink()
                count += 1
        if not count:
            group = "roots" if root else "contacts"
            raise UsageError(
                f"no certificate for {wanted!r}: an address removes one, or the first 16 digits of "
                f"its fingerprint, as `hsmagent {group} list` shows them"
            )
        return count

    def _folder(self, *, root: bool) -> Path:
        return self._base / ("roots" if root else "contacts")

    def _files(self, *, root: bool) -> Iterator[tuple[Path, str]]:
        for path in sorted(self._folder(root=root).glob("*.pem")):
            if path.stat().st_size <= _FILE_MAX:
                yield path, path.read_text("utf-8", "replace")


def default() -> Store:
    """Return the user's store, in $XDG_DATA_HOME/hsmagent."""
    return Store(Path(home_folder("XDG_DATA_HOME", "~/.local/share")) / "hsmagent")


def _write(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever reads half of it; its folder is made where it is missing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.new")
    draft.write_bytes(content)
    draft.replace(path)


def _parse(text: str) -> list[Entry]:
    try:
        found = certificates.read(text.encode())
    except UsageError:
        return []
    known = {line.removeprefix(_CAPABILITY) for line in text.splitlines()}
    capabilities = frozenset(word for word in known if word[:1].isdigit())
    return [Entry(certificate, capabilities) for certificate in found]
