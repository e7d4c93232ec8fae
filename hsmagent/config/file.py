"""The configuration: one TOML file → one frozen `Config`. docs/configuration.md tells each key.

An unknown key or a wrong value raises ConfigError naming file, key and what is allowed; a typing
error must never weaken a policy in silence.
"""

import os
import stat
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from hsmagent.config.mail import Roots, Settings, When
from hsmagent.config.toml import (
    Expected,
    Table,
    absolute_path,
    boolean,
    choice,
    duration,
    environment,
    many,
    path,
    program,
    text,
    whole,
)
from hsmagent.errors import ConfigError, UsageError
from hsmagent.folders import PROVIDERS, changeable_by_others, home_folder, is_others
from hsmagent.model import ModuleSpec, PurposeKind
from hsmagent.uri import SCHEME, Pkcs11Uri, parse

CONFIRM = ("never", "always", "forwarded", "remember")
LET_GO = ("screen-lock", "suspend")
PROMPTERS = ("system", "pinentry", "askpass")
LARGEST = 1 << 20  # bytes of a file
NOTIFY = ("used", "waiting", "removed", "wrong-pin", "refused")


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """How long a login lasts, in seconds, and what ends it early."""

    idle: float = 15 * 60.0
    max: float = 8 * 3600.0
    let_go: tuple[str, ...] = LET_GO


@dataclass(frozen=True, slots=True)
class TokenConfig:
    """One `[[token]]`: what differs from `[cache]` for the tokens that `match` names."""

    match: Pkcs11Uri
    cache: CacheConfig
    pin_store: bool = False


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """One `[[key]]`: the policy for the keys that `match` names (URI, fingerprint or label).

    allow: the purposes that it permits. None where the file has no `allow`: everything but what
    PKCS#11 programs and GnuPG want, some of it after a question (see `door.policy`). confirm: ""
    where the file has none.
    """

    match: Pkcs11Uri | str
    confirm: str = ""
    remember: float = 5 * 60.0
    allow: frozenset[PurposeKind] | None = None
    hide: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class PromptConfig:
    """Which prompters, in which order, and how long one waits for a person (seconds).

    pinentry: the program, by name or path; "" for the one that fits the desktop.
    """

    order: tuple[str, ...] = PROMPTERS
    timeout: float = 120.0
    pinentry: str = ""


@dataclass(frozen=True, slots=True)
class SshConfig:
    """The ssh side: another agent behind us, certificates, and providers for `ssh-add -s`."""

    upstream: str = ""
    certificates: tuple[str, ...] = ()
    providers: tuple[str, ...] = PROVIDERS


@dataclass(frozen=True, slots=True)
class Pkcs11Config:
    """Whether PKCS#11 programs are served at all."""

    enabled: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """Everything the file says. Where it has no `[[module]]`, modules are discovered."""

    modules: tuple[ModuleSpec, ...] = ()
    tokens: tuple[TokenConfig, ...] = ()
    keys: tuple[KeyConfig, ...] = ()
    cache: CacheConfig = field(default_factory=CacheConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    ssh: SshConfig = field(default_factory=SshConfig)
    notify: tuple[str, ...] = ("waiting", "removed", "wrong-pin", "refused")
    mail: Settings = field(default_factory=Settings)
    pkcs11: Pkcs11Config = field(default_factory=Pkcs11Config)


def default_path() -> Path:
    """Return `$XDG_CONFIG_HOME/hsmagent/config.toml`."""
    return Path(home_folder("XDG_CONFIG_HOME", "~/.config")) / "hsmagent" / "config.toml"


def load(file: Path, *, required: bool = False) -> Config:
    """Read the file; a missing one means the defaults, unless `required`. Raises ConfigError.

    A link that leads nowhere is an error: its owner has a configuration, which we cannot see.
    """
    try:
        content = _content(file)
    except FileNotFoundError:
        if link := _dangling(file):
            raise ConfigError(f"cannot read {file}: the link {link} leads nowhere") from None
        if required:
            raise ConfigError(
                f"there is no configuration file {file}; an empty one stands for the defaults"
            ) from None
        return Config()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"cannot read {file}: it is not UTF-8") from None
    if others := changeable(file):
        raise ConfigError(f"others may change {others}, and so decide what hsmagent loads and asks")
    return read(content, str(file))


def _content(file: Path) -> str:
    """Return the text of the file. Raises ConfigError, OSError or UnicodeDecodeError."""
    # To open a FIFO as usual would make us wait for its writer, for ever.
    with open(file, "rb", opener=_without_waiting) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode) and str(file) != os.devnull:
            raise ConfigError(f"cannot read {file}: it is not a regular file")
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ConfigError(f"cannot read {file}: it is longer than {LARGEST} bytes")
    return content.decode("utf-8-sig")  # some editors begin with a byte order mark


def _without_waiting(file: str, flags: int) -> int:
    return os.open(file, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _dangling(file: Path) -> Path | None:
    """Return the link on the way to a missing file that leads nowhere, if one does."""
    return next((p for p in (file, *file.parents) if p.is_symlink() and not p.exists()), None)


def changeable(file: Path) -> str:
    """Return what somebody else may change, the file or a folder above it; "" for nothing.

    The file names modules that are loaded, so nobody else may write it. Anybody may read it.
    """
    real = os.path.realpath(file)
    if str(file) == os.devnull or not Path(real).exists():
        return ""
    return real if is_others(real) else changeable_by_others(str(file))


def read(content: str, file: str) -> Config:
    """Read the text of a configuration file; `file` is its name in errors. Raises ConfigError."""
    import tomllib  # a person without a file has no use for it

    try:
        top = Table(tomllib.loads(content), file, "")
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{file} nests its values too deeply") from None
    cache = top.table("cache", partial(_cache, CacheConfig(), "cache"))
    config = Config(
        modules=top.tables("module", partial(_module, set())),
        tokens=top.tables("token", partial(_token, cache)),
        keys=top.tables("key", _key),
        cache=cache,
        prompt=top.table("prompt", _prompt),
        ssh=top.table("ssh", _ssh),
        notify=top.table("notify", _notify),
        mail=top.table("mail", _mail),
        pkcs11=top.table("pkcs11", _pkcs11),
    )
    top.end()
    return config


# -- one function per table ------------------------------------------------------------------


def _module(named: set[str], table: Table) -> ModuleSpec:
    path = table.take("path", absolute_path)
    if path in named:
        raise table.error(f"the module {path} is named twice")
    named.add(path)
    return ModuleSpec(
        path=path,
        workers=table.take("workers", whole(1, 64), 1),
        parameters=table.take("parameters", text, "", secret=True),
        env=table.take("env", environment, (), secret=True),
        release=table.take("release", duration, 0.0),
        exclusive=table.take("exclusive", boolean, default=False),
    )


def _token(default: CacheConfig, table: Table) -> TokenConfig:
    match = table.take("match", pkcs11_uri, secret=True)
    pin_store = table.take("pin_store", boolean, default=False)
    return TokenConfig(match, _cache(default, "token", table), pin_store)


def _cache(default: CacheConfig, name: str, table: Table) -> CacheConfig:
    cache = CacheConfig(
        idle=table.take("idle", duration, default.idle),
        max=table.take("max", duration, default.max),
        let_go=table.take("let_go", many(choice(*LET_GO)), default.let_go),
    )
    if cache.idle <= 0 or cache.max <= 0:
        raise table.error(f"idle and max of a {name} must be longer than 0 seconds")
    return cache


def _key(table: Table) -> KeyConfig:
    default = KeyConfig("")
    kinds = [str(kind) for kind in PurposeKind]
    unsaid: tuple[str, ...] = ("",)  # unlike an empty list, which allows nothing
    allow = table.take("allow", many(choice(*kinds)), unsaid)
    return KeyConfig(
        match=table.take("match", key_name, secret=True),
        confirm=table.take("confirm", choice(*CONFIRM), default.confirm),
        remember=table.take("remember", duration, default.remember),
        allow=None if allow == unsaid else frozenset(map(PurposeKind, allow)),
        hide=table.take("hide", boolean, default=False),
        name=table.take("name", text, ""),
    )


def _prompt(table: Table) -> PromptConfig:
    default = PromptConfig()
    prompt = PromptConfig(
        order=table.take("order", many(choice(*PROMPTERS)), default.order),
        timeout=table.take("timeout", duration, default.timeout),
        pinentry=table.take("pinentry", program, default.pinentry),
    )
    if prompt.timeout <= 0:
        raise table.error("timeout must be longer than 0 seconds")
    return prompt


def _ssh(table: Table) -> SshConfig:
    default = SshConfig()
    return SshConfig(
        upstream=table.take("upstream", path, default.upstream),
        certificates=table.take("certificates", many(path), default.certificates),
        providers=table.take("providers", many(path), default.providers),
    )


def _mail(table: Table) -> Settings:
    default = Settings()
    when = choice(*When)
    mail = Settings(
        sendmail=table.take("sendmail", many(text), default.sendmail),
        sign=When(table.take("sign", when, str(default.sign))),
        encrypt=When(table.take("encrypt", when, str(default.encrypt))),
        roots=Roots(table.take("roots", choice(*Roots), str(default.roots))),
    )
    if not mail.sendmail:
        raise table.error("sendmail must name a program")
    return mail


def _pkcs11(table: Table) -> Pkcs11Config:
    return Pkcs11Config(enabled=table.take("enabled", boolean, default=False))


def _notify(table: Table) -> tuple[str, ...]:
    return table.take("events", many(choice(*NOTIFY)), Config().notify)


# -- how keys and tokens are named ----------------------------------------------------------


def pkcs11_uri(value: object) -> Pkcs11Uri:
    """Read a PKCS#11 URI."""
    try:
        return parse(text(value))
    except UsageError as error:
        raise Expected(f"a PKCS#11 URI ({error})") from None


def key_name(value: object) -> Pkcs11Uri | str:
    """Read a key's name: a PKCS#11 URI, a SHA256 fingerprint or a label."""
    name = text(value)
    if not name:
        raise Expected("a PKCS#11 URI, a fingerprint (SHA256:…) or a label")
    return pkcs11_uri(name) if name.startswith(SCHEME) else name
