"""Masks secrets in command lines before anything is recorded.

A recording is made to be passed on. What stands after words like key, token, secret and
password is replaced; so are well-known forms of credentials wherever they stand. A mask too
many costs a reader little, one too few costs somebody an account.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

MASK = "***"

_WORDS = frozenset(
    (
        "key", "keys", "apikey", "secret", "secrets", "token", "password", "passwords",
        "passwd", "pwd", "passphrase", "pass", "pin", "credential", "credentials", "auth",
        "authorization", "authtoken", "bearer", "cookie", "signature", "sig", "private",
    )
)  # fmt: skip
# Told apart from harmless words that contain them only by their length: tokenizer, monkey,
# keyboard and max_tokens are none; these are, however they are glued together.
_PARTS = (
    "password", "passwd", "passphrase", "secret", "apikey", "accesskey", "privatekey",
    "authtoken", "accesstoken", "hftoken", "credential",
)  # fmt: skip
_SPLIT = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")

# An option or a variable before its value, and the value; also inside a script, header, URL or
# JSON that is handed over as one argument.
_NAME = re.compile(r"""(?P<name>[\w.-]{2,64})(?:["']?\s*[=:]\s*|(?<=\w)(?P<gap>\s+))""")
_VALUE = re.compile(
    r"""(?:(?:bearer|basic)\s+)?(?:"[^"]*"?|'[^']*'?|[^\s"',;&)}\]]+)""", re.IGNORECASE
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)[^\s\"']+")
_IN_URL = re.compile(r"(?P<head>[A-Za-z][\w+.-]*://[^/\s:@]*:)[^@\s/]+(?=@)")
_KNOWN_FORMS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}"
    r"|AIza[\w-]{30,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)


def names_a_secret(name: str) -> bool:
    """Whether an option or variable of this name holds a secret.

    >>> [n for n in ("--api-key", "HF_TOKEN", "tokenizer", "max_tokens", "dbPassword", "monkey")
    ...  if names_a_secret(n)]
    ['--api-key', 'HF_TOKEN', 'dbPassword']
    """
    words = [word.lower() for word in _SPLIT.split(name) if word]
    if any(word in _WORDS for word in words):
        return True
    joined = "".join(words)
    return any(part in joined for part in _PARTS)


def mask_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command with every secret replaced.

    >>> mask_arguments(["x.py", "--token", "abc", "--lr=3", "--hf-token=abc", "A_KEY=1"])
    ['x.py', '--token', '***', '--lr=3', '--hf-token=***', 'A_KEY=***']
    """
    masked = []
    follows = False
    for argument in arguments:
        is_option = argument.startswith("-") and len(argument) > 1
        if follows and not is_option:
            masked.append(MASK)
            follows = False
            continue
        masked.append(mask_text(argument))
        follows = (
            is_option
            and "=" not in argument
            and not any(character.isspace() for character in argument)
            and names_a_secret(argument)
        )
    return masked


def mask_text(text: str) -> str:
    """Secrets in one argument, which may itself be a command, a header, a URL or JSON.

    >>> mask_text("export API_KEY=abc; curl https://me:pw@host/?sig=1 -H 'Authorization: Bearer x'")
    "export API_KEY=***; curl https://me:***@host/?sig=*** -H 'Authorization: ***'"
    """
    text = _IN_URL.sub(lambda m: m["head"] + MASK, text)
    text = _BEARER.sub(lambda m: f"{m[1]}{m[2]}{MASK}", text)
    text = _KNOWN_FORMS.sub(MASK, text)
    done: list[str] = []
    at = 0
    while found := _NAME.search(text, at):
        done.append(text[at : found.end()])
        at = found.end()
        # Without = or : only an option has the next word as its value.
        if found["gap"] and not found["name"].startswith("-"):
            continue
        value = _VALUE.match(text, at) if names_a_secret(found["name"]) else None
        if value is not None and not (found["gap"] and value[0].startswith("-")):
            done.append(MASK)
            at = value.end()
    done.append(text[at:])
    return "".join(done)
