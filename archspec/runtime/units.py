"""Units: what is compiled. Each is a function of modules and tensors that is the same for all layers of a kind.

What a unit works on comes as arguments, slots and states too, and nothing in it depends on which layer it serves; so
one compiled function serves every layer of the kind, and compile time does not grow with depth. How units follow one
another is `Pass`'s to know.

Legend: B batch, S query tokens, T keys in a view, C allocated positions of a slot, K kv heads, H head_dim, D hidden.
"""

from typing import NamedTuple

from torch import Tensor, nn

from archspec.runtime.attention import Backend, View
from archspec.runtime.cache import stored_view, write_in_place
from archspec.runtime.layers import Attention, Block, KeyValueProjection
from archspec.runtime.retention import Retention
from archspec.runtime.rope import Rotation, Table

Chunk = tuple[Tensor, Tensor]
"""Keys and values of the new positions of a slot, (B, K, S, H) each."""


class Env(NamedTuple):
    """What every unit of a pass sees."""

    positions: Tensor
    """Of the rows of the hidden states, (S,)."""
    tables: dict[Rotation, Table]
    pad_lens: Tensor | None = None
    """Positions of row b before `pad_lens[b]` are padding."""

    def padding(self) -> Tensor | None:
        """Boolean (B, S), true for rows of the hidden states that are padding; None if there are none."""
        return None if self.pad_lens is None else self.positions < self.pad_lens[:, None]

    def last(self) -> "Env":
        """The same for the last position alone."""
        tables = {rotation: (cos[-1:].clone(), sin[-1:].clone()) for rotation, (cos, sin) in self.tables.items()}
        # A copy: graphs are guarded by the sizes of what their inputs are views of.
        return Env(self.positions[-1:].clone(), tables, self.pad_lens)


def write(norm: nn.Module | None, project: KeyValueProjection, x_BSD: Tensor, env: Env) -> Chunk:
    """Keys and values of a slot, given its writer's input, or its output for a projected slot."""
    chunk: Chunk = project(x_BSD if norm is None else norm(x_BSD), env.tables)
    return chunk


def write_row(
    norm: nn.Module | None, project: KeyValueProjection, x_B1D: Tensor, env: Env, buffer_BK2CH: Tensor
) -> None:
    """`write` of one position, into the slot. Effects: writes the buffer."""
    chunk = write(norm, project, x_B1D, env)
    write_in_place(buffer_BK2CH, chunk, env.positions, project.window, project.sinks)


def layer(block: Block, x_BSD: Tensor, env: Env, view: View | None, attend: Backend) -> Tensor:
    """A layer that attends to what others wrote, or to nothing."""
    if not isinstance(block.mixer, Attention) or view is None:
        return block(x_BSD, None)
    mixer = block.mixer
    return block(x_BSD, lambda h_BSD: mixer(h_BSD, env.tables, view, env, attend))


def own_layer(block: Block, x_BSD: Tensor, env: Env, attend: Backend) -> tuple[Tensor, Tensor, Tensor]:
    """A layer that attends to its own keys and values, from position 0 on: its output, and those."""
    keys, values = write(block.mixer_norm, block.mixer.kv, x_BSD, env)  # type: ignore[union-attr, arg-type]
    view = View(keys, values, env.positions, front=0)
    return layer(block, x_BSD, env, view, attend), keys, values


def own_row(block: Block, x_B1D: Tensor, env: Env, buffer_BK2CH: Tensor, length: int, attend: Backend) -> Tensor:
    """The same for one position, with a slot of which the first `length` places are looked at.

    Effects: writes the buffer.
    """
    kv: KeyValueProjection = block.mixer.kv  # type: ignore[union-attr, assignment]
    write_row(block.mixer_norm, kv, x_B1D, env, buffer_BK2CH)
    view = stored_view(buffer_BK2CH, env.positions + 1, length, kv.window, kv.sinks)
    return layer(block, x_B1D, env, view, attend)


def retain(block: Block, x_BSD: Tensor, env: Env, state_BNHH: Tensor | None) -> tuple[Tensor, Tensor]:
    """A layer of retention, and the state after the last position; no state given means an empty one."""
    mixer: Retention = block.mixer  # type: ignore[assignment]
    after: list[Tensor] = []

    def mix(h_BSD: Tensor) -> Tensor:
        out, state = mixer(h_BSD, env.tables, state_BNHH, env.padding())
        after.append(state)
        return out

    return block(x_BSD, mix), after[0]


def retain_in_place(block: Block, x_BSD: Tensor, env: Env, state_BNHH: Tensor) -> Tensor:
    """The same. Effects: the state becomes the one after the last position."""
    y_BSD, state = retain(block, x_BSD, env, state_BNHH)
    state_BNHH.copy_(state)
    return y_BSD
