"""Where an ssh signature goes: the host key of a session-bind → the name in known_hosts.

A name is shown only if known_hosts ties it to this very key; otherwise the key's fingerprint is.
"""

import base64
import ipaddress
import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from getopt import GetoptError, getopt
from pathlib import Path
from string import ascii_letters, digits

from hsmagent.model import Peer, fingerprint, printable

log = logging.getLogger(__name__)

SYSTEM_FILES = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))
USER_FILES = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")

# Bytes. A larger file is no known_hosts file, and reading it would make everybody wait.
MAX_FILE = 8 << 20
HASHED = "|1|"
CERT_AUTHORITY, REVOKED = "@cert-authority", "@revoked"
MAX_HOST = 255

# Any letter may be an option of ssh; these take a value (ssh(1)).
_WITH_VALUE = frozenset("BbcDEeFIiJLlmOoPpQRSWw")
_OPTIONS = "".join(c + ":" * (c in _WITH_VALUE) for c in ascii_letters + digits)


class KnownHosts:
    """The user's and the system's known_hosts, read again when they change."""

    def __init__(self, files: Iterable[Path] | None = None) -> None:
        own = [Path(name).expanduser() for name in USER_FILES]
        self._files = [*own, *SYSTEM_FILES] if files is None else list(files)
        # What tells one content of a file from another (time, size, inode), and its lines.
        self._contents: dict[Path, tuple[tuple[int, ...], list[str]]] = {}

    def describe(self, host_key: bytes, peer: Peer) -> str:
        """Return the best name of the host with this key (an ssh key blob).

        The name that the asking ssh was given counts most, and a hashed entry can be read only by
        it. Without any name it is the key's fingerprint, "SHA256:…".
        """
        asked = asked_hosts(peer)
        names = list(self._names(host_key, asked))
        if not names:
            return fingerprint(host_key)
        return printable(_unbracket(min(names, key=lambda name: _rank(name, asked))), MAX_HOST)

    def holds(self, host_key: bytes, authority: bytes = b"") -> bool:
        """Whether a line has this host key, or the authority of its certificate.

        A revoked key of either kind is not held.
        """
        own = self._markers(host_key)
        above = self._markers(authority) if authority else set()
        return REVOKED not in own | above and ("" in own or CERT_AUTHORITY in above)

    def _markers(self, key: bytes) -> set[str]:
        """Return the markers of the lines that hold a key; "" for a line without one."""
        encoded = _encoded(key)
        lines = (line for file in self._files for line in self._lines(file) if encoded in line)
        return {marker for marker, found in map(_marked_key, lines) if found == encoded}

    def _names(self, host_key: bytes, asked: list[str]) -> Iterator[str]:
        encoded = _encoded(host_key)
        for file in self._files:
            # Only a line that holds this key is worth a parser's time.
            lines = [line for line in self._lines(file) if encoded in line]
            for names, key in _entries(lines):
                if key == host_key:
                    yield from _readable(names, asked)

    def _lines(self, file: Path) -> list[str]:
        try:
            status = file.stat()
            version = (status.st_mtime_ns, status.st_size, status.st_ino)
            cached = self._contents.get(file)
            if cached is not None and cached[0] == version:
                return cached[1]
            if status.st_size > MAX_FILE:
                raise OSError("too large")  # noqa: TRY301 - one way out for every reason
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                log.info("cannot read %s: %s", file, error)
            self._contents.pop(file, None)
            return []
        self._contents[file] = (version, lines)
        return lines


def _encoded(blob: bytes) -> str:
    return base64.b64encode(blob).decode()


def _marked_key(line: str) -> tuple[str, str]:
    """Return a line's marker, or "", and its key (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    words = line.split(maxsplit=4)
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    _names, _type, key, *_ = (*words, "", "", "")
    return marker, "" if line.lstrip().startswith("#") else key


def _entries(lines: Iterable[str]) -> Iterator[tuple[list[str], bytes]]:
    """Return the names and patterns of each line as they stand there, and its key blob.

    paramiko reads them one at a time, since it raises on some that OpenSSH allows.
    """
    entries = [line.strip() for line in lines]
    # A marker names a CA's or a revoked key: neither is a host's own.
    entries = [line for line in entries if line and line[0] not in "#@"]
    if not entries:
        return
    # Late: 10 MB and a tenth of a second, for the first known host of a daemon's life.
    from paramiko import SSHException
    from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

    for line in entries:
        try:
            entry = HostKeyEntry.from_line(line)
        except (InvalidHostKey, SSHException, ValueError):
            continue
        if entry is not None:
            yield entry.hostnames, entry.key.asbytes()


def _readable(names: list[str], asked: list[str]) -> Iterator[str]:
    """Return the names of one line that can be shown: written out, or hashed and asked for."""
    barred = [name[1:] for name in names if name.startswith("!")]
    for name in names:
        if name.startswith(HASHED):
            yield from (host for host in asked if _hashes_to(host, name))
        elif _is_pattern(name):
            yield from (host for host in asked if _fits(host, name, barred))
            yield name
        elif not name.startswith("!"):
            yield name


def _is_pattern(name: str) -> bool:
    return "*" in name or "?" in name


def _fits(host: str, pattern: str, barred: Iterable[str]) -> bool:
    """Whether a pattern means this host; ssh's patterns know * and ?, and no brackets."""

    def matches(one: str) -> bool:
        return fnmatchcase(host.lower(), one.lower().replace("[", "[[]"))

    return matches(pattern) and not any(map(matches, barred))


def _hashes_to(host: str, hashed: str) -> bool:
    from paramiko.hostkeys import HostKeys

    try:
        return bool(HostKeys.hash_host(host, hashed) == hashed)
    except (ValueError, IndexError):
        return False


def _rank(name: str, asked: list[str]) -> int:
    """Return how little a name tells a person: 0 for the best kind of name."""
    if name in asked:
        return 0
    if _is_pattern(name):
        return 3
    try:
        ipaddress.ip_address(name.strip("[]").partition("]:")[0])
    except ValueError:
        return 1
    return 2


def _unbracket(name: str) -> str:
    """Write "[host]:2222" as people do, "host:2222"; IPv6 addresses keep their brackets."""
    host, bracket, port = name.removeprefix("[").partition("]:")
    return f"{host}:{port}" if bracket and ":" not in host else name


# -- the host that an ssh was told to go to --------------------------------------------------


def asked_hosts(peer: Peer) -> list[str]:
    """Return the names under which the asking ssh may look its host up in known_hosts.

    Read from its arguments: destination or ssh:// URI, -p, and -o HostName and HostKeyAlias. [] if
    the peer is no ssh.
    """
    if peer.process.program != "ssh":
        return []
    destination, options = _split(peer.process.arguments[1:])
    host, port = _host_and_port(destination)
    port = options.get("p", options.get("port", port))
    hosts = [options.get("hostkeyalias", ""), options.get("hostname", ""), host]
    hosts = list(filter(None, dict.fromkeys(hosts)))
    if port in ("", "22"):
        return hosts
    # ssh falls back to the plain name for a key that it knows from port 22.
    return [f"[{host}]:{port}" for host in hosts] + hosts


def _split(arguments: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """Return the destination and the options that bear on it, by letter or lower-case name."""
    options: dict[str, str] = {}
    try:
        found, (destination, *rest) = getopt(arguments, _OPTIONS)
    except (GetoptError, ValueError):  # it has no destination
        return "", options
    if "--" not in arguments[: -len(rest) - 1]:
        with suppress(GetoptError):
            found += getopt(rest, _OPTIONS)[0]  # what is left of the rest is the remote command
    for option, value in found:
        if option == "-o":
            name, _, setting = value.replace("=", " ", 1).strip().partition(" ")
            options.setdefault(name.lower(), setting.strip())
        else:
            options.setdefault(option[1:], value)
    return destination, options


def _host_and_port(destination: str) -> tuple[str, str]:
    if not destination.startswith("ssh://"):
        return destination.rpartition("@")[2], ""
    place = destination.removeprefix("ssh://").partition("/")[0].rpartition("@")[2]
    if place.startswith("["):
        host, _, port = place[1:].partition("]")
        return host, port.removeprefix(":")
    host, _, port = place.partition(":")
    return host, port
