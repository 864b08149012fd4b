"""Whether a compiled function serves tensors of certain sizes and strides: it does not look itself."""

from torch import Tensor

from archspec.runtime.package.expressions import symbols_of, value_of
from archspec.runtime.package.manifest import Input, Unit


def fits(unit: Unit, tensors: list[Tensor]) -> bool:
    """Whether tensors have the dtypes, sizes and strides that a function was compiled for."""
    if len(unit.inputs) != len(tensors) or not all(tensor.device.type == "cpu" for tensor in tensors):
        return False
    known: dict[str, int] = {}
    pairs = list(zip(unit.inputs, tensors, strict=True))
    # Sizes first: strides are products of them.
    if not all(_sizes_fit(expected, tensor, known) for expected, tensor in pairs):
        return False
    if not all(_strides_fit(expected, tensor, known) for expected, tensor in pairs):
        return False
    return all(bool(value_of(guard, known)) for guard in unit.guards if symbols_of(guard) <= known.keys())


def _sizes_fit(expected: Input, tensor: Tensor, known: dict[str, int]) -> bool:
    if str(tensor.dtype) != f"torch.{expected.dtype}" or tensor.ndim != len(expected.sizes):
        return False
    return all(
        size == (known.setdefault(text, size) if isinstance(text, str) else text)
        for text, size in zip(expected.sizes, tensor.shape, strict=True)
    )


def _strides_fit(expected: Input, tensor: Tensor, known: dict[str, int]) -> bool:
    """An axis of length 1 may have any stride."""
    # From the innermost axis on: symbols of their own occur alone before they are part of a product.
    axes = sorted(zip(tensor.stride(), expected.strides, tensor.shape, strict=True), key=lambda axis: axis[0])
    return all(size == 1 or _is(text, stride, known) for stride, text, size in axes)


def _is(product: str, number: int, known: dict[str, int]) -> bool:
    """Whether a product has this value; a symbol that is not known yet takes the value that makes it so."""
    value, unknown = 1, []
    for factor in product.split("*"):
        if factor.isdecimal() or factor in known:
            value *= int(factor) if factor.isdecimal() else known[factor]
        else:
            unknown.append(factor)
    if len(unknown) == 1 and value and number % value == 0:
        known[unknown[0]] = number // value
        return True
    return not unknown and value == number
