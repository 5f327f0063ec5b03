"""
nginx's configuration language: its words, directives and blocks.

What a word is, and where one ends, is as ngx_conf_read_token() has it (src/core/ngx_conf_file.c).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from salt.exceptions import CommandExecutionError


class Directive(NamedTuple):
    """A directive of nginx's configuration: its words and where they are in the text."""

    depth: int
    block: tuple[str, ...]
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    end: int

    @property
    def line(self) -> int:
        return self.spans[0][0]


# --- nginx's language --------------------------------------------------------------------------
class _Token(NamedTuple):
    """A word of nginx's language, what ends a directive or a block, or where the text breaks."""

    kind: str  # "word", ";", "{", "}", "broken"
    start: int
    end: int
    word: str = ""


# What stands between words, and a word up to what ends it.  Each of them matches at any place.
_BETWEEN = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BARE = re.compile(r"(?:[^ \t\r\n;{\\$]+|\\[\s\S]?|\$\{*)*")
_QUOTED = {mark: re.compile(rf"(?:[^{mark}\\]+|\\[\s\S]?)*") for mark in "\"'"}
_ESCAPE = re.compile(r"\\([\"'\\trn])")
_ESCAPED = {"t": "\t", "r": "\r", "n": "\n"}


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position


def _unescaped(raw: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), raw) if "\\" in raw else raw


def tokens(text: str) -> Iterator[_Token]:
    """
    The text as ngx_conf_read_token() reads it (src/core/ngx_conf_file.c), to its end or to where
    nginx would give up.

    A quote or a ``#`` means something only where a word begins, a backslash takes the next
    character along, and no ``{`` behind ``${`` opens a block before another character came.
    """
    position, size = 0, len(text)
    while True:
        start = position = _end(_BETWEEN, text, position)
        if position == size:
            return
        char = text[position]
        if char in ";{}":
            position += 1
            yield _Token(char, start, position)
            continue
        mark = char if char in _QUOTED else ""
        begin = start + len(mark)
        position = _end(_QUOTED.get(char, _BARE), text, begin)
        if position == size:
            # Without its quote, or without what ends a directive.
            yield _Token("broken", start, size, _unescaped(text[begin:]))
            return
        word = _unescaped(text[begin:position])
        position += len(mark)
        yield _Token("word", start, position, word)
        if mark and position < size and text[position] not in " \t\r\n;{)":
            yield _Token("broken", position, size)
            return


def directives(text: str) -> list[Directive]:
    """
    The directives of a configuration text, blocks flattened, in order.

    Broken text yields what was complete: judging it is nginx's work.
    """
    found: list[Directive] = []
    blocks: list[str] = []
    words: list[_Token] = []
    for token in tokens(text):
        if token.kind == "word":
            words.append(token)
            continue
        if token.kind in ";{" and words:
            found.append(
                Directive(
                    len(blocks),
                    tuple(blocks),
                    tuple(word.word for word in words),
                    tuple((word.start, word.end) for word in words),
                    token.end,
                )
            )
        if token.kind == "{":
            blocks.append(words[0].word if words else "")
        elif token.kind == "}" and blocks:
            blocks.pop()
        words = []
    return found


def flaw(text: str) -> str:
    """
    What keeps a text from being whole directives of nginx: something left open, or a brace too
    many, with which it would reach into what stands around it.

    text
        some lines of configuration

    Returns a sentence with the line's number, empty when there is no such flaw.  Whether the
    directives are any good is for nginx to say.
    """

    def line(position: int) -> str:
        return f"line {text.count(chr(10), 0, position) + 1}"

    opened: list[int] = []
    words: list[_Token] = []
    for token in tokens(text):
        if token.kind == "broken":
            if words or text[token.start] not in "\"'":
                at = words[0] if words else token
                return f"{line(at.start)}: the directive is not ended by ; or its quote not closed"
            return f"{line(token.start)}: the quote is not closed"
        if token.kind == "word":
            words.append(token)
            continue
        if token.kind == "}":
            if words:
                return f"{line(words[0].start)}: the directive before the }} is not ended by ;"
            if not opened:
                return f"{line(token.start)}: this }} closes a block that the text did not open"
            opened.pop()
        elif not words:
            return f"{line(token.start)}: nothing stands before this {token.kind}"
        elif token.kind == "{":
            opened.append(token.start)
        words = []
    if words:
        return f"{line(words[0].start)}: the directive is not ended by ;"
    if opened:
        return f"{line(opened[-1])}: the block that opens here is not closed"
    return ""


def outermost(text: str) -> list[str]:
    """
    The names of the directives in a text that stand in no block of it.

    text
        some lines of configuration

    Returns a list of names, in the order of the text.
    """
    return [one.words[0] for one in directives(text) if one.depth == 0]


def quote(value: str | int, variables: bool = False) -> str:
    """
    One value as one parameter of nginx's configuration language.

    value
        text or a number
    variables
        leave nginx's variables in it what they are

    Returns the value itself where nginx reads it as one plain word, else the value in quotes.

    Raises CommandExecutionError for what nginx's language cannot carry: a control character (a
    newline among them), and, but for ``variables``, a dollar sign, which begins a variable even
    inside quotes.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise CommandExecutionError(f"an nginx parameter is text or a number, not {value!r}")
    text = str(value)
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise CommandExecutionError(f"nginx has no way to write the control character in {text!r}")
    if "$" in text and not variables:
        raise CommandExecutionError(f"nginx would read the dollar sign in {text!r} as a variable")
    if re.fullmatch(r"[A-Za-z0-9_./:*@%+,=^~?&!<>()|\[\]-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
