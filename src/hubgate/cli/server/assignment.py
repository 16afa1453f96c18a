"""Which part of a gateway with several workers one of them is."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from hubgate.settings import MIN_CACHE_BYTES, Settings


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    """From 1."""
    count: int
    """Of all workers."""
    shared_port: int
    cli_key: str
    """The key of the command line, which every worker accepts."""

    def settings(self, common: Settings) -> Settings:
        """The settings of this worker."""
        size = common.cache_bytes // self.count
        return replace(
            common,
            home=common.home / "workers" / str(self.number),
            files_folder=common.files,
            shared_models=common.home / "workers" / "models",
            port=common.port + self.number if common.port else 0,
            gate_name=f"{common.gate}-{self.number}",
            cache_bytes=max(size, MIN_CACHE_BYTES) if size else 0,
        )
