"""The configuration, the PKCS#11 modules and the smart card service."""

import asyncio
import os
import shlex
import tempfile
import time
from pathlib import Path

from hsmagent.config import file as config
from hsmagent.config.discovery import modules
from hsmagent.config.file import Config
from hsmagent.doctor.finding import Finding, State, Status, Surroundings
from hsmagent.errors import ConfigError
from hsmagent.model import ModuleSpec, printable, token_name
from hsmagent.token import pcscd
from hsmagent.token.exclusive import is_opensc
from hsmagent.token.login import Limits
from hsmagent.token.tokens import Tokens
from hsmagent.token.trouble import why

PROGRAM = Path("/usr/sbin/pcscd")
INSTALL = "install one: opensc-pkcs11 for smart cards, or name yours as [[module]] path"
CORRECT = "correct it; docs/configuration.md lists every key"
MODULES_TIMEOUT = 30.0


def configuration(where: Surroundings) -> tuple[Finding, Config | None]:
    """Say whether the configuration file can be used."""
    check = "config"
    try:
        settings = config.load(where.config, required=where.config_named)
    except ConfigError as error:
        others = config.changeable(where.config)
        remedy = f"chmod go-w {shlex.quote(others)}" if others else CORRECT
        return Finding(check, State.BAD, str(error), remedy), None
    sentence = f"the configuration {where.config} is valid"
    if not where.config.exists():
        sentence = f"there is no configuration {where.config}: the defaults hold"
    return Finding(check, State.OK, sentence), settings


def from_status(status: Status, settings: Config | None) -> list[Finding]:
    """Read the modules and tokens from what the daemon says."""
    wanted = settings is not None and bool(settings.modules)
    specs = {spec.path: spec for spec in settings.modules} if settings else {}
    findings = [
        _module(specs.get(path) or ModuleSpec(path), error, _labels(status, path), wanted=wanted)
        for path, error in ((module["path"], module["error"]) for module in status["modules"])
    ]
    findings += [
        _note(module["path"], note) for module in status["modules"] for note in module["notes"]
    ]
    findings += [_note(t["label"], note) for t in status["tokens"] for note in t["notes"]]
    return findings or [_none()]


def exclusive(settings: Config) -> Finding | None:
    """Recommend `exclusive` where OpenSC is used without it."""
    alone = {module.path for module in settings.modules if module.exclusive}
    if all(path in alone for path in paths(settings) if is_opensc(path)):
        return None
    sentence = (
        "other programs may use a card by OpenSC while you are logged in to it; "
        "`exclusive = true` in [[module]] prevents that"
    )
    return Finding("card", State.OK, sentence)


async def looked_at(settings: Config) -> list[Finding]:
    """Load the modules ourselves, as no daemon runs, each in a process that ends at once."""
    specs = modules(settings)
    if not specs:
        return [_none()]
    with tempfile.TemporaryDirectory() as state:
        tokens = Tokens(
            clock=time.monotonic,
            state_dir=Path(state),
            limits=lambda _token: Limits(1.0, 1.0),
            on_change=lambda: None,
        )
        try:
            loading = [asyncio.create_task(tokens.add(spec)) for spec in specs]
            _, late = await asyncio.wait(loading, timeout=MODULES_TIMEOUT)
            for task in late:
                task.cancel()
            await tokens.explain()
            errors = {module.path: module.last_error for module in tokens.modules()}
            there = [status for status in tokens.statuses() if status.present]
            present = [status.id for status in there]
            notes = [_note(m.path, note) for m in tokens.modules() for note in m.notes]
            notes += [_note(token_name(s.id), note) for s in there for note in s.notes]
        finally:
            await tokens.close()
    return [
        _module(
            spec,
            errors.get(spec.path, ""),
            [token.label for token in present if token.module == spec.path],
            wanted=bool(settings.modules),
        )
        for spec in specs
    ] + notes


async def smart_cards(modules: list[str]) -> Finding | None:
    """Say whether the smart card service serves us, if a module needs it."""
    if not any("opensc" in Path(module).name for module in modules):
        return None
    match await pcscd.ask(pcscd.socket_of()):
        case pcscd.Service.ABSENT:
            return _not_running(installed=os.access(PROGRAM, os.X_OK))
        case pcscd.Service.REFUSES:
            return Finding("pcscd", State.BAD, pcscd.REFUSED)
    return Finding("pcscd", State.OK, "the smart card service pcscd answers")


def _not_running(*, installed: bool) -> Finding:
    fault = "is installed, but does not run" if installed else "is not installed"
    start = "sudo systemctl enable --now pcscd.socket"
    remedy = start if installed else "sudo apt-get install pcscd"
    sentence = f"the smart card service pcscd {fault}: no card reader is seen"
    return Finding("pcscd", State.WARN, sentence, remedy)


def paths(settings: Config) -> list[str]:
    """Return the modules that the configuration means."""
    return [module.path for module in modules(settings)]


def _module(spec: ModuleSpec, error: str, tokens: list[str], *, wanted: bool) -> Finding:
    """Say how one module is. wanted: the configuration names it; else it was discovered."""
    check, path = "module", spec.path
    if not Path(path).is_file():
        remedy = "install it, or correct the path in the configuration"
        return Finding(check, State.BAD, f"the module {path} is not there", remedy)
    if error:
        sentence = error if path in error else f"the module {path} fails: {error}"
        # A cause that is known stands in the error already, with its remedy.
        remedies = [] if why(spec) else [f"try `pkcs11-tool --module {path} --list-slots`"]
        if not wanted:
            remedies.append("name the modules that you use as [[module]] in the configuration")
        remedy = "; or ".join(remedies)
        return Finding(check, State.BAD if wanted else State.WARN, sentence, remedy)
    names = ", ".join(f"“{printable(name)}”" for name in tokens)
    return Finding(check, State.OK, f"{path}: " + (names or "no token is present"))


def _note(where: str, note: str) -> Finding:
    return Finding("module", State.WARN, f"{printable(where)}: {printable(note, 400)}")


def _labels(status: Status, module: str) -> list[str]:
    present = (token for token in status["tokens"] if token["present"])
    return [token["label"] for token in present if token["module"] == module]


def _none() -> Finding:
    return Finding("module", State.BAD, "no PKCS#11 module is installed", INSTALL)
