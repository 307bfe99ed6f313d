"""At home among others: models from and for other libraries.

Each file has functions for one library, which it imports when one is called; `layers` is what
those libraries share that know layers alone. What the other side cannot express is an error that
names it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlgraph.exchange.neat import from_neat as from_neat, update_genome as update_genome
    from mlgraph.exchange.neat_writer import to_neat as to_neat
    from mlgraph.exchange.networkx import from_networkx as from_networkx, to_networkx as to_networkx
    from mlgraph.exchange.onnx import to_onnx as to_onnx
    from mlgraph.exchange.onnx_reader import from_onnx as from_onnx
    from mlgraph.exchange.sklearn import from_sklearn as from_sklearn, to_sklearn as to_sklearn
    from mlgraph.exchange.torch import from_torch as from_torch, to_torch as to_torch

# Each file is imported when one of its functions is first used.
_MODULES = {
    "neat": "from_neat update_genome",
    "neat_writer": "to_neat",
    "networkx": "from_networkx to_networkx",
    "onnx": "to_onnx",
    "onnx_reader": "from_onnx",
    "sklearn": "from_sklearn to_sklearn",
    "torch": "from_torch to_torch",
}
_MODULE_OF = {name: f"mlgraph.exchange.{module}" for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
