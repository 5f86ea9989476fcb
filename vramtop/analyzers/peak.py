"""What a process is, as far as its facts say, and what that lets expect of its peak.

The words are taken from where a program is named (script, module, its own title) and from its
options, as whole words. A path, a file to read or the name of a model says nothing about what
the program does: `/home/trainer/ollama` trains nothing and `madame.py` has no Adam in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

PREALLOCATING = ("vllm", "sglang", "tgi", "jax")
"""Frameworks that take their memory at once and share it out themselves."""
_FRAMEWORKS = (
    ("vllm", frozenset(("vllm",))),
    ("sglang", frozenset(("sglang",))),
    ("tgi", frozenset(("text-generation-launcher", "text-generation-server"))),
    ("ollama", frozenset(("ollama",))),
    ("llamacpp", frozenset(("llama-server", "llama-cli", "llama-cpp", "llama_cpp"))),
)
_INTERPRETER = re.compile(r"(?:python|pypy)[0-9.]*t?")
_LAUNCHERS = frozenset(("torchrun", "accelerate", "deepspeed", "launch", "run", "uv", "poetry"))
_SPLIT = re.compile(r"[^a-z0-9]+")
_PARAMETERS = re.compile(r"(?:^|[^a-z0-9.])(\d{1,4}(?:\.\d{1,2})?)b(?=$|[^a-z0-9])")
_QUANTISED = re.compile(
    r"(?:^|[^a-z0-9])(?:q[2-5](?:_[a-z0-9_]+)?|[34]bit|int4|awq|gptq|nf4)(?=$|[^a-z0-9])"
)
_SETTING = re.compile(
    r"--(?:gpu-memory-utilization|mem-fraction-static|cuda-memory-fraction)[= ](\d?\.\d+|1)"
)

_TRAINING = frozenset(
    ("train", "trains", "training", "trainer", "pretrain", "pretraining", "finetune", "finetuning",
     "tune", "sft", "dpo", "ppo", "grpo", "rlhf")
)  # fmt: skip
_METHODS: tuple[tuple[str, frozenset[str], tuple[float, float]], ...] = (
    # Adapters: the weights, and little beside them but activations.
    ("lora", frozenset(("lora", "qlora", "peft")), (1.2, 2.0)),
    # Weights, gradients and one or no further state.
    ("sgd", frozenset(("sgd",)), (2.0, 4.0)),
    # In single precision 4 times the weights. In mixed precision 2 bytes of weight and 2 of
    # gradient stand beside 12 of master copy and moments: 8 times; activations come on top.
    ("adam", frozenset(("adam", "adamw", "adafactor", "lion")), (4.0, 10.0)),
)
_ADAM = (4.0, 10.0)


class Job(NamedTuple):
    """What is known of a process beside its memory.

    Attributes:
        framework: vllm, sglang, tgi, jax, ollama, llamacpp, or None.
        training: Whether its words say that it trains.
        method: lora, sgd or adam; None if it does not train. Adam is taken where nothing is said.
        weights: (low, high) bytes of the model's weights, None if unknown.
        setting: Share of the device that it was told to take, None if not said.
    """

    framework: str | None = None
    training: bool = False
    method: str | None = None
    weights: tuple[int, int] | None = None
    setting: float | None = None

    @property
    def preallocates(self) -> bool:
        """Whether it takes its memory at once."""
        return self.framework in PREALLOCATING

    def peak(self) -> tuple[int, int] | None:
        """(low, high) bytes of the peak to expect of a training whose model's size is known.

        A multiple of the model's size, never of what the process holds: that grows with it.
        """
        if not self.training or self.weights is None or self.preallocates:
            return None
        low, high = next((span for name, _, span in _METHODS if name == self.method), _ADAM)
        return round(self.weights[0] * low), round(self.weights[1] * high)


def job_of(name: str | None, data: Mapping[str, object] | None) -> Job:
    """What the facts of a process say.

    Args:
        name: Its display name, used where no command line is known.
        data: The facts: `cmdline` or `command`, `framework`, `model_bytes`.

    >>> job_of(None, {"cmdline": "python train.py --optim adamw --model 7b"}).method
    'adam'
    >>> job_of(None, {"cmdline": "python madame.py"}).training
    False
    >>> job_of(None, {"cmdline": "/home/trainer/ollama serve"})[:2]
    ('ollama', False)
    >>> job_of(None, {"cmdline": "vllm serve my-finetuned"})[:2]
    ('vllm', False)
    """
    facts = data or {}
    line = next(
        (str(facts[key]) for key in ("cmdline", "command") if isinstance(facts.get(key), str)),
        name or "",
    ).lower()
    arguments = line.split()
    programs = _programs(arguments)
    framework = facts.get("framework")
    if not isinstance(framework, str):
        framework = _framework(programs)
    words = {word for text in programs for word in _SPLIT.split(text)}
    words |= _option_words(arguments)
    method = next((known for known, marks, _ in _METHODS if marks & words), None)
    training = bool(words & _TRAINING) or method is not None
    if framework in PREALLOCATING and framework != "jax":
        training, method = False, None
    setting = _SETTING.search(line)
    return Job(
        framework=framework,
        training=training,
        method=(method or "adam") if training else None,
        weights=_weights(facts.get("model_bytes"), arguments),
        setting=None if setting is None else float(setting[1]),
    )


def _programs(arguments: Sequence[str]) -> list[str]:
    """What is run: the script or module after interpreters and launchers, and these."""
    found: list[str] = []
    module = False
    for argument in arguments:
        if argument == "-m":
            module = True
        elif argument.startswith("-") or "=" in argument:
            continue
        elif argument.isdigit():
            continue  # the value of an option of a launcher
        else:
            base = argument if module else argument.rpartition("/")[2]
            found.append(base)
            if not (_INTERPRETER.fullmatch(base) or base in _LAUNCHERS):
                break
            module = False
    return found


def _framework(programs: Sequence[str]) -> str | None:
    for text in programs:
        # `vllm`, `vllm.entrypoints.openai.api_server`, `VLLM::EngineCore`.
        head = re.split(r"[.:]", text)[0]
        for name, marks in _FRAMEWORKS:
            if head in marks:
                return name
    return None


def _option_words(arguments: Sequence[str]) -> set[str]:
    """Words of the options' names, and of the value where it names an optimizer or a method."""
    words: set[str] = set()
    for position, argument in enumerate(arguments):
        if not argument.startswith("--"):
            continue
        option, given, value = argument.partition("=")
        names = set(_SPLIT.split(option))
        words |= names - _TRAINING  # `--train-file` is read by evaluations too
        if names & {"optim", "optimizer", "opt", "method", "stage", "peft"}:
            if not given and position + 1 < len(arguments):
                value = arguments[position + 1]
            words |= set(_SPLIT.split(value))
    return words


def _weights(model_bytes: object, arguments: Sequence[str]) -> tuple[int, int] | None:
    """Bytes of the weights: as found in files, or from a number of parameters such as 7b."""
    if isinstance(model_bytes, int) and not isinstance(model_bytes, bool) and model_bytes > 0:
        return model_bytes, model_bytes
    for position, argument in enumerate(arguments):
        option = arguments[position - 1] if position else ""
        value = argument.partition("=")[2] if argument.startswith("--") else argument
        if "model" not in (argument if argument.startswith("--") else option):
            continue
        found = _PARAMETERS.findall(value)
        if found:
            parameters = float(found[-1]) * 1e9
            if _QUANTISED.search(value):
                return round(parameters * 0.5), round(parameters * 0.75)
            return round(parameters * 2), round(parameters * 2)
    return None
