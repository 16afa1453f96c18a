"""An S3 server and a Ray cluster of two nodes on this machine, all from wheels: `requirements/ray.txt`."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterator

_STORE_BYTES = 80 * 1024 * 1024
"""The least that Ray accepts: jobs put nothing into it."""


class Bucket(NamedTuple):
    """An S3 bucket. Its environment variables reach hubgate and Ray."""

    env: dict[str, str]
    name: str = "texts"

    @property
    def files(self) -> pafs.S3FileSystem:
        return pafs.S3FileSystem(
            endpoint_override=self.env["AWS_ENDPOINT_URL"],
            access_key=self.env["AWS_ACCESS_KEY_ID"],
            secret_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region=self.env["AWS_REGION"],
            allow_bucket_creation=True,
        )

    def uri(self, path: str) -> str:
        return f"s3://{self.name}/{path}"

    def write(self, path: str, table: pa.Table) -> None:
        pq.write_table(table, f"{self.name}/{path}", filesystem=self.files, row_group_size=1000)

    def read(self, path: str) -> pa.Table:
        """All parts of an output, in the order of their names."""
        infos = self.files.get_file_info(pafs.FileSelector(f"{self.name}/{path}"))
        names = sorted(info.path for info in infos if info.base_name.startswith("part-"))
        return pa.concat_tables(pq.read_table(name, filesystem=self.files) for name in names)


@contextmanager
def s3_server(folder: Path) -> Iterator[Bucket]:
    """Run SeaweedFS while the context is open."""
    master, volume, filer, s3 = _free_ports(4)
    credentials = {"accessKey": "test", "secretKey": "a-test-key"}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    settings = folder / "s3.json"
    settings.write_text(
        json.dumps({"identities": [{"name": "test", "credentials": [credentials], "actions": actions}]})
    )
    ports = [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}"]
    others = ["-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=20", "-master.volumeSizeLimitMB=64"]
    command = [str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder}", "-ip=127.0.0.1"]
    with (folder / "s3.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-filer", "-s3", f"-s3.config={settings}", *ports, *others], stdout=log, stderr=log
        )
    bucket = Bucket(
        {
            "AWS_ACCESS_KEY_ID": credentials["accessKey"],
            "AWS_SECRET_ACCESS_KEY": credentials["secretKey"],
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
            "AWS_REGION": "us-east-1",
        }
    )
    try:
        _wait_for(s3)
        bucket.files.create_dir(bucket.name)
        yield bucket
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster. Its nodes are processes of this machine."""

    address: str
    client_url: str
    _cluster: Any
    _second: Any

    def kill_second_node(self) -> None:
        """`kill -9` of all that the node consists of."""
        self._cluster.remove_node(self._second, allow_graceful=False)


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    """Run a cluster while the context is open. Nodes inherit the environment."""
    from ray.cluster_utils import Cluster as RayCluster

    (client_port,) = _free_ports(1)
    small = {"num_cpus": 1, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    cluster = RayCluster(
        initialize_head=True, head_node_args={**small, "ray_client_server_port": client_port}
    )
    try:
        second = cluster.add_node(**small)
        _wait_for(client_port)
        yield Cluster(cluster.address, f"ray://127.0.0.1:{client_port}", cluster, second)
    finally:
        cluster.shutdown()


def _free_ports(count: int) -> list[int]:
    """Ports that are free together with those that SeaweedFS derives from them."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(20_000, 40_000)
        if all(_is_free(number) for number in (port, port + 10_000)):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as server:
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _wait_for(port: int) -> None:
    end = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < end, f"nothing listens on port {port}"
            time.sleep(0.1)
        else:
            return
