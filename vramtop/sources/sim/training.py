"""Training as an allocator sees it: weights, activations, gradients, optimizer states.

A network is a row of equal layers. A step allocates what the forward pass keeps, releases it
in reverse while gradients come, and updates the optimizer's states; peaks within a step are
real, although a step's inside lasts but three instants of simulated time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vramtop.sources.sim.allocator import Block
from vramtop.sources.sim.hardware import Share, context_bytes, mib
from vramtop.sources.sim.machine import Process

FORWARD_SHARE, BACKWARD_SHARE, UPDATE_SHARE = 0.35, 0.55, 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Sizes of what is trained.

    Attributes:
        layers: How many layers are simulated; a real network has more and smaller ones.
        layer_bytes: Weights of a layer, as kept for computing.
        token_layer_bytes: What the forward pass keeps of a token in a layer.
        token_logit_bytes: What the loss needs of a token.
        state_ratio: Optimizer states in bytes per byte of weights.
    """

    layers: int
    layer_bytes: int
    token_layer_bytes: int
    token_logit_bytes: int
    state_ratio: float = 6.0

    def scaled(self, factor: float) -> Network:
        """The same network with all its tensors larger or smaller."""
        return Network(
            layers=self.layers,
            layer_bytes=round(self.layer_bytes * factor),
            token_layer_bytes=round(self.token_layer_bytes * factor),
            token_logit_bytes=round(self.token_logit_bytes * factor),
            state_ratio=self.state_ratio,
        )


# 80 GiB boards: about 2.5 billion parameters with Adam, 39 GiB without activations.
LARGE = Network(
    layers=12, layer_bytes=mib(400), token_layer_bytes=144 * 1024, token_logit_bytes=200 * 1024
)
# 24 GiB boards: about 0.7 billion parameters.
MEDIUM = Network(
    layers=10, layer_bytes=mib(140), token_layer_bytes=96 * 1024, token_logit_bytes=150 * 1024
)


class Trainer:
    """One process that trains a network on one GPU.

    Args:
        process: Whose allocator and load are used.
        network: What is trained.
        ordinal: Which of the process's GPUs.
    """

    def __init__(self, process: Process, network: Network, *, ordinal: int = 0) -> None:
        self.process = process
        self.network = network
        self.kept: list[Block] = []
        self._ordinal = ordinal
        self._share: Share | None = None
        self._weights: list[Block] = []
        self._states: list[Block] = []

    @property
    def share(self) -> Share:
        """Its memory; the context is created at the first use."""
        if self._share is None:
            self._share = self.process.open(self._ordinal)
        return self._share

    def load(self, seconds: float) -> Iterator[float]:
        """Create the context and bring the weights to the GPU, layer by layer."""
        self.process.phase("initialization")
        allocator = self.share.allocator
        self.process.busy(3.0, 2.0)
        yield seconds * 0.4
        for _ in range(self.network.layers):
            self._weights.append(allocator.malloc(self.network.layer_bytes))
            yield seconds * 0.6 / self.network.layers

    def step(self, tokens: int, seconds: float) -> Iterator[float]:
        """One step of training with so many tokens."""
        network, allocator = self.network, self.share.allocator
        malloc, free = allocator.malloc, allocator.free
        held = tokens * network.token_layer_bytes
        layers = []
        for _ in range(network.layers):
            layers.append((malloc(held * 5 // 8), malloc(held * 3 // 8)))
            free(malloc(held // 4))
        logits = [malloc(tokens * network.token_logit_bytes) for _ in range(2)]
        yield seconds * FORWARD_SHARE
        for block in logits:
            free(block)
        gradients = []
        for first, second in reversed(layers):
            scratch = malloc(held // 2)
            gradients.append(malloc(network.layer_bytes))
            free(second)
            free(first)
            free(scratch)
        yield seconds * BACKWARD_SHARE
        if not self._states:
            # The optimizer makes its states at its first step: the classic second rise.
            self.process.phase("optimizer_init")
            for _ in range(network.layers):
                size = round(network.layer_bytes * network.state_ratio / 2)
                self._states += [malloc(size), malloc(size)]
        for block in gradients:
            free(block)
        yield seconds * UPDATE_SHARE

    def warm_up(self, tokens: int, seconds: float, *, steps: int = 3) -> Iterator[float]:
        """The first steps, slow, until the reservation has its size."""
        self.process.phase("warmup")
        self.process.busy(45.0, 20.0)
        for _ in range(steps):
            yield from self.step(tokens, seconds)

    def repeat(self, tokens: int, step_s: float, seconds: float) -> Iterator[float]:
        """Equal steps for so long.

        Once a step leaves the allocator's layout as it was, further ones cannot change
        anything that is seen from outside, and only their time passes.
        """
        count = max(int(seconds / step_s), 1)
        for done in range(1, count + 1):
            before = self.share.allocator.layout()
            yield from self.step(tokens, step_s)
            if self.share.allocator.layout() == before:
                yield (count - done) * step_s + 1e-6
                return

    def evaluate(self, tokens: int, seconds: float, *, batches: int = 4) -> Iterator[float]:
        """Forward passes without gradients: a few large tensors, logits above all."""
        network, allocator = self.network, self.share.allocator
        for _ in range(batches):
            held = tokens * network.token_layer_bytes
            # Two layers' activations live at a time; logits are kept in full precision.
            blocks = [allocator.malloc(held), allocator.malloc(held)]
            yield seconds / batches * 0.3
            blocks += [allocator.malloc(tokens * network.token_logit_bytes) for _ in range(3)]
            yield seconds / batches * 0.6
            for block in blocks:
                allocator.free(block)
            yield seconds / batches * 0.1

    def keep(self, size_bytes: int) -> None:
        """Hold on to a tensor for ever: a loss with its graph, a prediction, a metric."""
        self.kept.append(self.share.allocator.malloc(size_bytes))

    def save(self, seconds: float, *, copy_ratio: float = 2.0, pieces: int = 8) -> Iterator[float]:
        """A checkpoint: the state is gathered on the GPU in pieces, written out, dropped.

        Args:
            seconds: A third of it gathers, the rest writes.
            copy_ratio: Size of the gathered copy in weights.
            pieces: How many tensors it is gathered in.
        """
        allocator = self.share.allocator
        size = round(self.network.layers * self.network.layer_bytes * copy_ratio) // pieces
        blocks = []
        for _ in range(pieces):
            blocks.append(allocator.malloc(size))
            yield seconds / 3 / pieces
        yield seconds * 2 / 3
        for block in blocks:
            allocator.free(block)
        allocator.empty_cache()


def tokens_for(share_bytes: int, network: Network) -> int:
    """Tokens per step whose activations and logits take about `share_bytes`."""
    return share_bytes // (
        network.layers * network.token_layer_bytes + 2 * network.token_logit_bytes
    )


def planned(
    process: Process, share: float, *, activation: float = 0.3, layers: int = 6
) -> tuple[Trainer, int]:
    """A trainer and a number of tokens whose plateau takes about `share` of the board.

    Args:
        process: Who trains, on its main GPU.
        share: Of what processes can have, the CUDA context included.
        activation: Share of the plateau that depends on the tokens.
        layers: Few, because each costs time at every simulated step.
    """
    board = process.board
    size = board.usable_bytes * share - context_bytes(board)
    # Weights, their gradients and the optimizer's states are eight times the weights.
    static = size * (1.0 - activation) / (2.0 + LARGE.state_ratio)
    network = Network(
        layers=layers,
        layer_bytes=round(static / layers),
        token_layer_bytes=LARGE.token_layer_bytes * LARGE.layers // layers,
        # A loss in chunks, so that the largest segment is not gigabytes.
        token_logit_bytes=LARGE.token_logit_bytes // 4,
    )
    return Trainer(process, network), tokens_for(round(size * activation), network)
