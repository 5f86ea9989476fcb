"""Text from outside is made safe once, at capture."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vramtop.enrich.secrets import mask_arguments, mask_text, names_a_secret
from vramtop.text import LINE_CHARACTERS, sanitise

DANGEROUS = st.text(
    st.sampled_from(
        "\x1b\x07\x9b\x9c\x90\x9d\\[]()PX^_;0123mHJKab \t\r\n\x00\x7f\u202e\u200b\u2028é漢"
    )
)
SECRETS = st.text("abcdefghijkXYZ0123456789", min_size=12, max_size=24).map("S3".__add__)


@given(st.one_of(st.text(), DANGEROUS), st.integers(1, 80))
def test_sanitised_text_is_one_printable_line_of_bounded_length(text: str, limit: int):
    line = sanitise(text, limit)
    assert line == "" or line.isprintable()
    assert len(line) <= limit


@given(st.one_of(st.text(), DANGEROUS), st.integers(1, 80))
def test_sanitising_twice_changes_nothing(text: str, limit: int):
    once = sanitise(text, limit)
    assert sanitise(once, limit) == once


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=LINE_CHARACTERS))
def test_plain_words_are_left_as_they_are(text: str):
    assert sanitise(text) == text


def test_every_known_attack_on_a_terminal_is_gone():
    assert sanitise("\x1b[2J\x1b[31mred\x1b[0m") == "red"
    assert sanitise("\x9b31mred") == "red"
    assert sanitise("\x1b]0;title\x07name") == "name"
    assert sanitise("\x1b]8;;http://x\x1b\\name\x1b]8;;\x1b\\") == "name"
    assert sanitise("\x1bPq#0\x1b\\name") == "name"
    assert sanitise("\x1b(0name\x1bc") == "name"
    assert sanitise("a\nb\tc\r\n\x0bd") == "a b c d"
    assert sanitise("exe\u202egpj.\u200btxt\ufeff") == "exegpj.txt"
    assert sanitise("x\ud800y") == "xy"
    assert sanitise("\x1b") == sanitise("\x1b[") == sanitise("\x1b]never ended") == ""


@given(
    SECRETS,
    st.sampled_from(
        ["--api-key", "--hf_token", "-password", "--db.passwd", "--clientSecret", "--auth-token"]
    ),
)
def test_the_value_of_a_secret_option_never_survives(secret: str, option: str):
    for arguments in (
        [option, secret],
        [f"{option}={secret}"],
        ["env", f"{option.strip('-')}={secret}", "x"],
        ["bash", "-c", f"run {option} {secret} && echo done"],
        ["bash", "-c", f"export X_{option.strip('-').upper()}='{secret}'; run"],
        ["curl", "-H", f"{option.strip('-')}: {secret}"],
        ["x", f'{{"a": 1, "{option.strip("-")}": "{secret}"}}'],
    ):
        assert secret not in " ".join(mask_arguments(arguments)), arguments


@given(SECRETS)
def test_credentials_of_known_form_never_survive_wherever_they_stand(secret: str):
    for text in (
        f"https://me:{secret}@host/x",
        f"Authorization: Bearer {secret}",
        f"https://host/?a=1&token={secret}&b=2",
        f"push hf_{secret}{secret}",
        f"x sk-{secret}{secret} y",
    ):
        assert secret not in mask_text(text), text


@given(st.lists(st.one_of(st.text(max_size=20), SECRETS.map("--token={}".format)), max_size=6))
def test_masking_twice_changes_nothing_and_keeps_every_argument(arguments: list[str]):
    once = mask_arguments(arguments)
    assert len(once) == len(arguments)
    assert mask_arguments(once) == once


def test_ordinary_options_of_training_are_left_alone():
    command = (
        "train.py --tokenizer gpt2 --max-tokens 512 --max_new_tokens=64 --num_tokens 5 --lr 3e-4 "
        "--keyboard us --monkey=1 --model /data/passages/7b --key_value_heads 8"
    )
    arguments = command.split()
    kept = [a for a, m in zip(arguments, mask_arguments(arguments), strict=True) if a == m]
    # The last one is a mask too many: "key" is a word of its own in it.
    assert kept == arguments[:-1]


def test_an_option_after_a_secret_option_is_not_taken_for_its_value():
    assert mask_arguments(["--token", "--verbose", "x"]) == ["--token", "--verbose", "x"]


def test_words_that_only_contain_a_secret_word_are_not_secrets():
    assert [
        n for n in ("tokenizer", "keynote", "monkey", "authors", "compass") if names_a_secret(n)
    ] == []
