"""A picture of a page as a small PNG: with at most 96 colours, which is all that text and flat boxes need."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from playwright.sync_api import Page

_COLOURS = 96
_ROUNDS = 6
_PIXELS = """async (png) => {
  const image = new Image();
  image.src = "data:image/png;base64," + png;
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const bytes = context.getImageData(0, 0, image.width, image.height).data;
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) {
    text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  }
  return [image.width, image.height, btoa(text)];
}"""


def smaller(png: bytes, blank: Page) -> bytes:
    """The same picture in fewer bytes.

    Args:
        png: of any kind.
        blank: an empty page, whose browser reads it.
    """
    width, height, pixels = blank.evaluate(_PIXELS, base64.b64encode(png).decode())
    colours = np.frombuffer(base64.b64decode(pixels), np.uint8).reshape(-1, 4)[:, :3]
    palette, nearest = _palette(colours)
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = nearest.reshape(height, width)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = {
        b"IHDR": header,
        b"PLTE": palette.tobytes(),
        b"IDAT": zlib.compress(rows.tobytes(), 9),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks.items())


def _palette(colours: np.ndarray[Any, np.dtype[np.uint8]]) -> tuple[Any, Any]:
    """The palette, and the place in it of each pixel: the most frequent colours, moved to the middle of their likes."""
    packed = colours.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    found, places, counts = np.unique(packed, return_inverse=True, return_counts=True)
    known = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1).astype(np.float32)
    palette = known[np.argsort(-counts)[:_COLOURS]]
    nearest = _nearest(known, palette)
    for _ in range(_ROUNDS):
        weights = np.bincount(nearest, counts, len(palette))
        sums = np.stack([np.bincount(nearest, counts * part, len(palette)) for part in known.T], axis=1)
        palette = np.where(weights[:, None] > 0, sums / np.maximum(weights, 1)[:, None], palette)
        nearest = _nearest(known, palette)
    return palette.round().astype(np.uint8), nearest[places.ravel()].astype(np.uint8)


def _nearest(colours: Any, palette: Any) -> Any:
    return np.argmin(((colours[:, None, :] - palette[None, :, :]) ** 2).sum(axis=2), axis=1)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
