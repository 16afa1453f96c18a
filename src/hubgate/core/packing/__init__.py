"""The one fair queue of an endpoint, which cuts and joins what waits in it. See `Packed`."""

from hubgate.core.packing.packed import Limits, Packed

__all__ = ["Limits", "Packed"]
