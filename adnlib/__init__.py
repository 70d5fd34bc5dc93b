"""AttentDifferNet, reproduced: image-level anomaly detection with attention and a flow."""

from typing import TYPE_CHECKING, Any

from adnlib.errors import InputError
from adnlib.version import __version__

if TYPE_CHECKING:
    from adnlib.model import AttentDifferNet

__all__ = ["AttentDifferNet", "InputError", "__version__"]


def __getattr__(name: str) -> Any:
    # The model needs torch, whose import takes seconds; processes that only wait do without.
    if name == "AttentDifferNet":
        from adnlib.model import AttentDifferNet

        return AttentDifferNet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
