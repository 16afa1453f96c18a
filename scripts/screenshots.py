"""`make screenshots`: the pictures of the user guide, from a running gateway.

Starts a gateway with a model on this machine and others on look-alike servers (those of the tests), opens its console in
Chromium in each language of the guide, and writes docs/images. Needs what the tests of the console need: Chromium,
and fonts with Chinese, Japanese and Persian letters (`apt-get install chromium fonts-noto-cjk fonts-noto-core`).
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "support"), str(ROOT / "tests" / "guides")]
from guide_world import HOSTED, TOKEN, GuideHub  # noqa: E402
from lookalikes import LookAlike, lookalike  # noqa: E402
from lookalikes.endpoints.deploying_gateway import (  # noqa: E402
    at_once,
    deploy,
    deploying_gateway,
    deploying_site,
)
from lookalikes.endpoints.world import E5  # noqa: E402
from running_gateway import RunningGateway  # noqa: E402
from screen import CHROMIUM, LOCALES, chromium, screen  # noqa: E402
from smaller_png import smaller  # noqa: E402

from hubgate.settings import Settings  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import FloatRect, Page

IMAGES = ROOT / "docs" / "images"
PASTED = "https://k2h7x0q1.us-east-1.aws.endpoints.huggingface.cloud"
WIDTH = 1080
MARGIN = 12


class Picture(NamedTuple):
    """One of the guide's."""

    path: str
    """Of the console's page."""
    prepare: Callable[[Page], object]
    """What is done there first."""
    above: str
    """What the picture ends with."""


def main() -> int:
    """Take every screenshot again."""
    if CHROMIUM is None:
        print("There is no Chromium: apt-get install chromium fonts-noto-cjk fonts-noto-core")
        return 1
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        gateway, server = furnished(Path(folder) / "furnished", running)
        deploying = with_deployments(Path(folder) / "deploying", running)
        browser = running.enter_context(chromium())
        blank = browser.new_page()
        for language in LOCALES:
            for one, pictures in ((gateway, pictures_of(server)), (deploying, DEPLOYMENT_PICTURES)):
                with screen(browser, one, language=language, width=WIDTH) as opened:
                    opened.sign_in()
                    for name, picture in pictures.items():
                        opened.go(picture.path)
                        picture.prepare(opened.page)
                        png = smaller(taken(opened.page, picture.above), blank)
                        (IMAGES / f"{name}.{language}.png").write_bytes(png)
                        print(f"docs/images/{name}.{language}.png: {len(png) / 1024:.0f} KB")
    return 0


DEPLOYMENT_PICTURES = {
    "plan": Picture(
        f"deployments/plan?connection=hf&model={E5}&name=small&hardware=aws+us-east-1+intel-spr/x2",
        lambda page: page.locator("aside button").wait_for(),
        "aside .card",
    ),
    "deployments": Picture("deployments", lambda page: page.locator("tbody tr").nth(1).wait_for(), "table"),
}


def with_deployments(folder: Path, running: ExitStack) -> RunningGateway:
    """A gateway with two Inference Endpoints that it created: one runs, one is paused."""
    site = running.enter_context(deploying_site(at_once))
    gateway = running.enter_context(deploying_gateway(folder, site))
    deploy(gateway, "daily")
    deploy(gateway, "nightly", max_replicas=2)
    gateway.request("POST", "/api/deployments/acme/nightly/pause")
    return gateway


def pictures_of(server: LookAlike) -> dict[str, Picture]:
    """Each by its name; `server` refuses every token but the right one."""

    def paste_and_fail(page: Page) -> None:
        page.fill("#name", "e5-small")
        page.select_option("#connection", "+")
        page.fill("#token", "hf_ATokenThatWasRevoked")
        page.locator("button[formaction$='/test']").click()
        page.locator("#outcome .alert").wait_for()

    def run(page: Page) -> None:
        page.locator("button.run").click()
        page.locator(".matrix").wait_for()

    return {
        "models": Picture("models", lambda page: page.locator("tbody tr").first.wait_for(), "table"),
        "add": Picture(
            f"models/new?paste={PASTED}",
            lambda page: page.select_option("#connection", "my-token"),
            "#url",
        ),
        "failed": Picture(f"models/new?paste={server.url}", paste_and_fail, "aside .card"),
        "try": Picture("models/all-minilm-l6-v2/play", run, "#answer .card"),
    }


def furnished(folder: Path, running: ExitStack) -> tuple[RunningGateway, LookAlike]:
    """A gateway with models of every kind, one of them paused and one switched off; and the server of another."""
    hub = GuideHub()
    running.enter_context(hub.running())
    router = running.enter_context(lookalike("router", name=HOSTED, kind="llm", key=TOKEN))
    embedder, other, ranker = (
        running.enter_context(lookalike("tei", name=model, kind=kind, dimensions=dimensions, key=TOKEN))
        for model, kind, dimensions in (
            ("intfloat/e5-small-v2", "embedding", 384),
            ("BAAI/bge-m3", "embedding", 1024),
            ("BAAI/bge-reranker-v2-m3", "reranker", 8),
        )
    )
    settings = Settings(
        home=folder / "home",
        secret_key_file=folder / "config" / "secret.key",
        port=0,
        hf_endpoint=hub.url,
        router_url=router.url,
    )
    gateway = running.enter_context(RunningGateway(settings, with_ready_endpoint=True))
    gateway.settle()
    hosts = [router.url, *(server.url for server in (embedder, other, ranker)), "huggingface"]
    gateway.request("POST", "/api/connections", {"name": "my-token", "token": TOKEN, "hosts": hosts})
    gateway.add("bge-m3", url=other.url, connection="my-token", enabled=False)
    gateway.add(
        "e5", url=embedder.url, connection="my-token", rate_limit={"requests_per_minute": 60, "burst": 60}
    )
    gateway.add("chat", source="router", model=HOSTED, task="chat_completion", connection="my-token")
    gateway.add("ranker", url=ranker.url, task="rerank", connection="my-token")
    keys = [gateway.create_key("dify"), gateway.create_key("search")]
    for number in range(24):
        gateway.request("POST", "/v1/embeddings", {"model": "e5", "input": f"text {number}"}, key=keys[0])
    said = [{"role": "user", "content": "Good morning"}]
    for key in keys:
        gateway.request("POST", "/v1/embeddings", {"model": "all-minilm-l6-v2", "input": "a"}, key=key)
        gateway.request("POST", "/v1/chat/completions", {"model": "chat", "messages": said}, key=key)
    ranker.fail("paused")
    ranks = {"model": "ranker", "query": "a", "documents": ["b"]}
    for key in keys * 3:  # a breaker opens for several callers only
        gateway.request("POST", "/v1/rerank", ranks, key=key)
    return gateway, embedder


def taken(page: Page, above: str) -> bytes:
    """The page from its top down to the end of what is named."""
    page.evaluate("scrollTo(0, 0)")
    last = page.locator(above).first.bounding_box()
    assert last is not None
    clip: FloatRect = {"x": 0, "y": 0, "width": WIDTH, "height": last["y"] + last["height"] + MARGIN}
    return page.screenshot(full_page=True, clip=clip, animations="disabled")


if __name__ == "__main__":
    raise SystemExit(main())
