"""AttentDifferNet, reproduced: image-level anomaly detection with attention and a flow."""

from adnlib.errors import InputError
from adnlib.model import AttentDifferNet
from adnlib.version import __version__

__all__ = ["AttentDifferNet", "InputError", "__version__"]
