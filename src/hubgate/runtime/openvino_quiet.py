"""OpenVINO, imported without its reporting: the one place that imports it.

`import openvino` asks for `openvino_telemetry`, which sends usage to an analytics host. `None` in `sys.modules`
makes that import fail, and OpenVINO then goes on with a stub of its own.
"""

from __future__ import annotations

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # noqa: E402 - only after the line above
from openvino import opset13  # noqa: E402

__all__ = ["openvino", "opset13"]
