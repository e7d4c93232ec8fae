"""Completions for bash, zsh and fish, made from the tables of commands and programs.

`python -m hsmagent.cli.completions FOLDER` writes them below bash/, zsh/ and fish/: a file for
each program, under the name by which the shell looks for it.
"""

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path as File

from hsmagent.cli import commands, programs
from hsmagent.cli.commands import FILE, FOLDER, KEY, TOKEN, Argument, Command, Option

Path = tuple[str, ...]
"""The words after the program's name that name one of its commands: ("smime", "sign")."""

# kind → the command whose --json lists the labels.
LISTED_BY = {KEY: "keys", TOKEN: "status"}


def parts_of(program: Command) -> dict[Path, Command]:
    """Return what takes options: the program itself, as (), and its commands."""
    if program is not programs.HSMAGENT:
        return {(): program}
    return {(): program} | {tuple(each.name.split()): each for each in commands.BY_NAME.values()}


def words_of(program: Command) -> dict[Path, dict[str, str]]:
    """Return the words that lead to commands, with their meanings: by the words before them."""
    found: dict[Path, dict[str, str]] = {}
    for path, command in parts_of(program).items():
        for count, word in enumerate(path):
            last = count + 1 == len(path)
            meaning = command.meaning if last else commands.GROUPS[word]
            found.setdefault(path[:count], {})[word] = meaning
    return found


def _filled(template: str, program: Command, **blocks: Iterable[str]) -> str:
    """Put the program and its blocks of lines where the template says @PROGRAM@ or @BLOCK@."""
    text = template
    for name, lines in blocks.items():
        text = text.replace(f"@{name.upper()}@", "\n".join(lines))
    name = "_" + program.name.replace("-", "_")
    return text.replace("@NAME@", name).replace("@PROGRAM@", program.name)


# -- bash ------------------------------------------------------------------------------------

BASH = """\
# Completion of @PROGRAM@ for bash. Made by `make completions`; do not edit.

@NAME@_offer() { # those lines of stdin that begin with the word as it is
    local line
    while IFS= read -r line; do
        [[ $line == "$cur"* ]] && COMPREPLY+=("$line")
    done
}

@NAME@_words() { # WORD...
    @NAME@_offer < <(printf '%s\\n' "$@")
}

@NAME@_labels() { # COMMAND: the labels that `hsmagent COMMAND --json` lists
    compopt -o filenames # has them quoted
    @NAME@_offer < <(hsmagent "$1" --json 2>/dev/null |
        sed -n 's/^ *"label": "\\(.*\\)",\\{0,1\\}$/\\1/p')
}

@NAME@() {
    local cur prev words cword word command=@PROGRAM@
    _init_completion -n =: || return
    for word in "${words[@]:1:cword-1}"; do
        case "$command $word" in
@COMMANDS@
            *) break ;;
        esac
    done
    case "$command $prev" in
@VALUES@
        *) @NAME@_rest ;;
    esac
}

@NAME@_rest() { # where no option waits for its value
    if [[ $cur != -* ]]; then
        case $command in
@ARGUMENTS@
        esac
        ((${#COMPREPLY[@]})) && return
    fi
    case $command in
@OPTIONS@
    esac
}

complete -F @NAME@ @PROGRAM@
"""


def bash(program: Command) -> str:
    """Return the completion of a program for bash."""
    parts, words = parts_of(program), words_of(program)
    return _filled(
        BASH,
        program,
        commands=(
            f'            {_called(program, (*path, word))}) command+=" $word" ;;'
            for path, more in words.items()
            for word in more
        ),
        values=(
            f"        {' | '.join(_called(program, (*path, name)) for name in option.names)}) "
            f"{_bash_action(option)} ;;"
            for path, command in parts.items()
            for option in command.options
            if option.value
        ),
        arguments=chain(
            (
                f"            {_called(program, path)}) @NAME@_words {' '.join(more)} ;;"
                for path, more in words.items()
            ),
            (
                f"            {_called(program, path)}) {_bash_action(command.argument)} ;;"
                for path, command in parts.items()
                if command.argument
            ),
        ),
        options=(
            f"        {_called(program, path)}) @NAME@_words {' '.join(_spellings(command))} ;;"
            for path, command in parts.items()
        ),
    )


def _called(program: Command, path: Path) -> str:
    return shlex.quote(" ".join((program.name, *path)))


def _spellings(command: Command) -> Iterator[str]:
    for option in command.options:
        yield from option.names


def _bash_action(part: Option | Argument) -> str:
    """Return the command that offers the values, or ":"."""
    if isinstance(part, Option) and part.choices:
        return f"@NAME@_words {' '.join(part.choices)}"
    if part.kind in LISTED_BY:
        return f"@NAME@_labels {LISTED_BY[part.kind]}"
    return {FILE: "_filedir", FOLDER: "_filedir -d"}.get(part.kind, ":")


# -- zsh -------------------------------------------------------------------------------------

ZSH = """\
#compdef @PROGRAM@
# Completion of @PROGRAM@ for zsh. Made by `make completions`; do not edit.

@NAME@_labels() { # COMMAND WHAT: the labels that `hsmagent COMMAND --json` lists
    local -a labels expl
    labels=(${(f)"$(hsmagent $1 --json 2>/dev/null |
        sed -n 's/^ *"label": "\\(.*\\)",\\{0,1\\}$/\\1/p')"})
    _wanted labels expl $2 compadd -a labels
}
@FUNCTIONS@

@NAME@ "$@"
"""


def zsh(program: Command) -> str:
    """Return the completion of a program for zsh: a function for each command."""
    parts, words = parts_of(program), words_of(program)
    functions = (
        f"\n{_zsh_function(path)}() {{\n{_zsh_body(path, parts.get(path), words.get(path, {}))}}}"
        for path in dict.fromkeys((*parts, *words))
    )
    return _filled(ZSH, program, functions=functions)


def _zsh_function(path: Path) -> str:
    return "_".join(("@NAME@", *path))


def _zsh_body(path: Path, command: Command | None, words: dict[str, str]) -> str:
    specs = [_zsh_option(option) for option in command.options] if command else []
    if command and command.argument:
        specs.append(_zsh_argument(command.argument))
    arguments = "".join(f" \\\n        {spec}" for spec in specs)
    if not words:
        return f"    _arguments{arguments}\n"
    named = "".join(f"        {shlex.quote(f'{w}:{m}')}\n" for w, m in words.items())
    cases = "".join(f"        {w}) {_zsh_function((*path, w))} ;;\n" for w in words)
    return (
        "    local context state state_descr line\n    typeset -A opt_args\n    local -a commands\n"
        f"    commands=(\n{named}    )\n"
        f"    _arguments -C{arguments} \\\n"
        "        '1:command:->command' '*::argument:->rest'\n"
        "    [[ $state == command ]] && _describe command commands\n"
        "    [[ $state == rest ]] || return\n"
        f"    case $words[1] in\n{cases}    esac\n"
    )


def _zsh_option(option: Option) -> str:
    meaning = option.meaning.replace("[", "\\[").replace("]", "\\]")
    value = f":{option.value}:{_zsh_action(option)}" if option.value else ""
    rest = shlex.quote(f"[{meaning}]{value}")
    first = "*" if option.many else f"({' '.join(option.names)})"
    names = option.names[0] if len(option.names) == 1 else f"{{{','.join(option.names)}}}"
    return f"'{first}'{names}{rest}"


def _zsh_argument(argument: Argument) -> str:
    place = {1: "1:" if argument.least else "1::"}.get(argument.most, "*:")
    return shlex.quote(f"{place}{argument.name}:{_zsh_action(argument)}")


def _zsh_action(part: Option | Argument) -> str:
    if isinstance(part, Option) and part.choices:
        return f"({' '.join(part.choices)})"
    if part.kind in LISTED_BY:
        return f" @NAME@_labels {LISTED_BY[part.kind]} {part.kind}"
    return {FILE: "_files", FOLDER: "_files -/"}.get(part.kind, " ")


# -- fish ------------------------------------------------------------------------------------

FISH = """\
# Completion of @PROGRAM@ for fish. Made by `make completions`; do not edit.

function @NAME@_labels # COMMAND: the labels that `hsmagent COMMAND --json` lists
    hsmagent $argv[1] --json 2>/dev/null | string replace -rf '^ *"label": "(.*)",?$' '$1'
end

complete -c @PROGRAM@ -f
@WORDS@
@OPTIONS@
"""


def fish(program: Command) -> str:
    """Return the completion of a program for fish."""
    parts, words = parts_of(program), words_of(program)
    return _filled(
        FISH,
        program,
        words=(
            _fish_line(_fish_before(path, words), f"-a {word}", meaning)
            for path, more in words.items()
            for word, meaning in more.items()
        ),
        options=chain.from_iterable(
            _fish_options(_fish_before(path, words), command) for path, command in parts.items()
        ),
    )


def _fish_before(path: Path, words: dict[Path, dict[str, str]]) -> str:
    """Return the condition that these words stand in the line, and none that leads further."""
    if not words:
        return ""
    if not path:
        return "__fish_use_subcommand"
    seen = [f"__fish_seen_subcommand_from {word}" for word in path]
    if path in words:
        seen.append(f"not __fish_seen_subcommand_from {' '.join(words[path])}")
    return "; and ".join(seen)


def _fish_options(condition: str, command: Command) -> Iterator[str]:
    for option in command.options:
        names = " ".join(map(_fish_name, option.names))
        action = f" {_fish_action(option)}" if option.value else ""
        yield _fish_line(condition, f"{names}{action}", option.meaning)
    if command.argument and command.argument.kind:
        # -r and -x say that an option takes a value; this is none.
        action = _fish_action(command.argument).replace("-r", "-").replace("-x", "-")
        yield _fish_line(condition, action, "")


def _fish_name(name: str) -> str:
    if name.startswith("--"):
        return f"-l {name[2:]}"
    return f"-s {name[1:]}" if len(name) == len("-x") else f"-o {name[1:]}"


def _fish_action(part: Option | Argument) -> str:
    if isinstance(part, Option) and part.choices:
        return f"-xa {_fish_quote(' '.join(part.choices))}"
    if part.kind in LISTED_BY:
        return f"-xa '(@NAME@_labels {LISTED_BY[part.kind]})'"
    return {FILE: "-rF", FOLDER: "-xa '(__fish_complete_directories)'"}.get(part.kind, "-x")


def _fish_line(condition: str, what: str, meaning: str) -> str:
    before = f" -n {_fish_quote(condition)}" if condition else ""
    after = f" -d {_fish_quote(meaning)}" if meaning else ""
    return f"complete -c @PROGRAM@{before} {what}{after}"


def _fish_quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


# -- the files -------------------------------------------------------------------------------

SHELLS: dict[str, tuple[Callable[[Command], str], str]] = {
    "bash": (bash, "bash/{}"),
    "zsh": (zsh, "zsh/_{}"),
    "fish": (fish, "fish/{}.fish"),
}


def write(folder: File) -> None:
    """Write the completions of every program for every shell."""
    for make, name in SHELLS.values():
        for program in programs.PROGRAMS:
            file = folder / name.format(program.name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(make(program), "utf-8")


if __name__ == "__main__":
    write(File(sys.argv[1]))
