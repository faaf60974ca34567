"""Completion of the command line for bash, zsh and fish, written from the parsers."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.engine.cli.laboratory import with_options

shells = ("bash", "zsh", "fish")


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """What may follow the words `path`: options with their help, subcommands with theirs, choices of an option."""

    path: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    subcommands: tuple[tuple[str, str], ...]
    choices: tuple[tuple[str, tuple[str, ...]], ...]


def levels(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[Level]:
    """Every level of a parser, outermost first."""
    with_options(parser)
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    titles = {choice.dest: choice.help or "" for action in nested for choice in action._choices_actions}
    options = [
        (option, _plain(action.help))
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") or len(action.option_strings) == 1
    ]
    choices = [
        (option, tuple(str(choice) for choice in action.choices))
        for action in parser._actions
        if action.choices is not None and action not in nested
        for option in action.option_strings
    ]
    children = {name: child for action in nested for name, child in action.choices.items()}
    yield Level(
        path=path,
        options=tuple(options),
        subcommands=tuple((name, _plain(titles.get(name, ""))) for name in children),
        choices=tuple(choices),
    )
    for name, child in children.items():
        yield from levels(child, (*path, name))


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The completion script of `shell`, one of `shells`, to be sourced."""
    found = list(levels(parser))
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](found)


def _bash(found: list[Level]) -> str:
    cases = []
    for level in found:
        words = " ".join([*(name for name, _ in level.subcommands), *(name for name, _ in level.options)])
        choices = "".join(
            f"        {option}) COMPREPLY=($(compgen -W '{' '.join(values)}' -- \"$word\")); return;;\n"
            for option, values in level.choices
        )
        inner = f'      case "$before" in\n{choices}      esac\n' if choices else ""
        cases.append(f"    '{' '.join(level.path)}')\n{inner}      words='{words}';;\n")
    known = " ".join(f"'{' '.join(level.path)}'" for level in found if level.path)
    return f"""# bash completion for penstock: eval "$(penstock completion bash)"
_penstock() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} path='' each known words=''
  for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    for known in {known}; do
      if [ "$known" = "${{path:+$path }}$each" ]; then path=$known; break; fi
    done
  done
  case "$path" in
{"".join(cases)}  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  if [[ "$word" != -* ]]; then COMPREPLY+=($(compgen -f -- "$word")); fi
}}
complete -o filenames -F _penstock penstock
"""


def _zsh(found: list[Level]) -> str:
    cases = []
    for level in found:
        entries = [f"'{_zsh_entry(name, text)}'" for name, text in (*level.subcommands, *level.options)]
        choices = "".join(
            f"      if [[ $before == {option} ]]; then compadd -- {' '.join(values)}; return; fi\n"
            for option, values in level.choices
        )
        cases.append(f"    '{' '.join(level.path)}')\n{choices}      entries=({' '.join(entries)});;\n")
    known = " ".join(f"'{' '.join(level.path)}'" for level in found if level.path)
    return f"""#compdef penstock
# zsh completion for penstock: source <(penstock completion zsh)
_penstock() {{
  local path_='' each known before=${{words[CURRENT-1]}}
  local -a entries
  for each in "${{(@)words[2,CURRENT-1]}}"; do
    for known in {known}; do
      if [[ $known == "${{path_:+$path_ }}$each" ]]; then path_=$known; break; fi
    done
  done
  case "$path_" in
{"".join(cases)}  esac
  _describe 'penstock' entries
  _files
}}
compdef _penstock penstock
"""


def _fish(found: list[Level]) -> str:
    lines = [
        "# fish completion for penstock: penstock completion fish | source",
        "function __penstock_at",
        "  set -l words (commandline -opc)[2..]",
        "  set -l plain (string match -v -- '-*' $words)",
        "  set -l depth (count $argv)",
        "  test (count $plain) -ge $depth; or return 1",
        "  for i in (seq $depth)",
        "    test $plain[$i] = $argv[$i]; or return 1",
        "  end",
        "end",
        "function __penstock_new",
        "  set -l plain (string match -v -- '-*' (commandline -opc)[2..])",
        "  test (count $plain) -eq $argv[1]",
        "end",
    ]
    for level in found:
        at = f"__penstock_at {' '.join(level.path)}" if level.path else "true"
        new = f"{at}; and __penstock_new {len(level.path)}"
        for name, text in level.subcommands:
            lines.append(f"complete -c penstock -n '{new}' -a {name} -d {_fish_text(text)}")
        takes = dict(level.choices)
        for name, text in level.options:
            letter = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
            values = f" -x -a '{' '.join(takes[name])}'" if name in takes else ""
            lines.append(f"complete -c penstock -n '{at}' {letter}{values} -d {_fish_text(text)}")
    return "\n".join(lines) + "\n"


def _zsh_entry(name: str, text: str) -> str:
    return f"{name}:{text}".replace("'", "'\\''") if text else name


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _plain(text: str | None) -> str:
    """One short line without what shells or argparse would read."""
    words = " ".join((text or "").replace("%(default)s", "").replace("%%", "%").split())
    return words.translate(str.maketrans("", "", ':`$"\\[]()'))[:60]
