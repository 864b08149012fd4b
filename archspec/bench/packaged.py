"""A plan that runs by the functions of an ahead-of-time package (`archspec compile --aot`)."""

from pathlib import Path
from tempfile import TemporaryDirectory

from archspec.bench.contestants import Compiled
from archspec.bench.workloads import Workload
from archspec.runtime.build import build_empty
from archspec.runtime.package.reading import package_in
from archspec.runtime.package.writing import write


def packaged_name(name: str) -> str:
    """What the package of a model is called."""
    return f"{name}, package"


def offered(workload: Workload) -> bool:
    """Whether packages have functions for it."""
    return workload.kind in ("prefill", "decode", "budget")


class Packaged(Compiled):
    """A plan with the weights of its owner, compiled into a package that is written and loaded first.

    Errors: PackageError, a ValueError or RuntimeError, where there can be none, as on a GPU.
    """

    def __init__(self, owner: Compiled) -> None:
        self.name, self.plan, self.dtype = packaged_name(owner.name), owner.plan, owner.dtype
        self.weight_bytes = owner.weight_bytes
        self.model = build_empty(owner.plan, device=str(owner.model.device), dtype=owner.dtype)
        self.model.load_state_dict(owner.model.state_dict(), assign=True)
        self._folder = TemporaryDirectory(prefix="archspec-bench-")
        with write(self.model, Path(self._folder.name)):
            pass
        package = package_in(Path(self._folder.name))
        assert package is not None
        package.install(self.model)

    def offers(self, workload: Workload) -> bool:
        return offered(workload)
