"""G12: the speed of chunking, in MB of UTF-8 per second of one core.

Each round cuts the same text with every strategy and, in between, only walks ICU's words and sentences: the ceiling
of anything built on it. Figures drift on a shared machine; the ratios, taken in one interleaved run, do not.
Prose has sentences of an ordinary length; `cases` are the texts held against Elasticsearch: short sentences of many
scripts, and everything that is hard.

    python benchmarks/chunking.py [--rounds 15] [--bytes 500000]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections import deque
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import icu

from hubgate.core.chunking import chunk, icu_version
from hubgate.domain.chunking import DEFAULT_CHUNKING, parse_chunking_settings

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = Path(__file__).parents[1] / "tests" / "data" / "chunking" / "elasticsearch-9.4.jsonl"
PROSE = {
    "en": (
        "The gateway keeps every token sealed at rest, opens it only for the length of one call, and never writes it to a log.",
        "When the minute is full, callers wait their turn in one bounded queue instead of being told to come back later.",
        "A long report is cut into chunks of about 250 words, and each of them repeats the last sentence of the one before.",
        "She registered the endpoint on Monday, set the rate limit to 300 requests, and by noon 12,500 pages had been indexed.",
        "Nobody noticed that the model had been replaced overnight until the search results stopped making any sense at all.",
        "Is that enough for a small team? In most cases it is, because the slowest part is still the model itself.",
    ),
    "fa": (
        "دروازه همهٔ توکن‌ها را رمزگذاری‌شده نگه می‌دارد و هر کدام را فقط برای یک درخواست باز می‌کند و هرگز در گزارش‌ها نمی‌نویسد.",
        "وقتی سهمیهٔ این دقیقه پر شود، درخواست‌ها در یک صف محدود منتظر می‌مانند و کسی پیام خطا نمی‌گیرد.",
        "متن‌های بلند به تکه‌هایی حدود ۲۵۰ واژه‌ای بریده می‌شوند و هر تکه جملهٔ آخر تکهٔ پیش از خود را تکرار می‌کند.",
        "او روز دوشنبه نشانی را ثبت کرد و تا ظهر بیش از ۱۲٬۵۰۰ صفحه نمایه شده بود، بی‌آنکه خطایی دیده شود.",
        "آیا این برای یک گروه کوچک کافی است؟ بیشتر وقت‌ها بله، چون کندترین بخش کار همان خود مدل است.",
    ),
    "zh": (
        "网关会加密保存所有的访问令牌，只在一次调用期间打开，并且绝不会把它写进日志。",
        "当这一分钟的额度用完以后，后来的请求会在同一个有限的队列里等待，而不是立刻收到错误。",
        "长文本会被切分成大约二百五十个词的片段，每个片段都会重复前一个片段的最后一句话。",
        "她星期一登记了这个端点，把上限设置为每分钟三百次请求，到中午已经索引了12,500个页面。",
        "这对一个小团队来说够用吗？大多数情况下是够用的，因为最慢的部分仍然是模型本身。",
    ),
}
GOALS = {"en": 10, "fa": 10, "zh": 7}
SETTINGS = {
    "sentence, 250 words": DEFAULT_CHUNKING,
    "word, 250 words": parse_chunking_settings({"strategy": "word", "max_chunk_size": 250, "overlap": 100}),
    "recursive, markdown": parse_chunking_settings(
        {"strategy": "recursive", "max_chunk_size": 250, "separator_group": "markdown"}
    ),
}
CEILING = "ICU alone"


def prose(sentences: tuple[str, ...], between: str, size: int) -> str:
    """Paragraphs of five sentences in an order of their own, about `size` bytes."""
    order = random.Random(12)
    paragraphs: list[str] = []
    written = 0
    while written < size:
        paragraphs.append(between.join(order.choices(sentences, k=5)) + "\n\n")
        written += len(paragraphs[-1].encode())
    return "".join(paragraphs)


def texts(size: int) -> dict[str, str]:
    """What is cut, by name."""
    cases = "\n\n".join(json.loads(case)["text"] for case in CASES.read_text("utf-8").splitlines())
    repeated = cases * (size // len(cases.encode()) + 1)
    return {
        **{name: prose(sentences, "" if name == "zh" else " ", size) for name, sentences in PROSE.items()},
        "cases": repeated,
    }


def walk(text: str) -> None:
    """Visit every word and sentence boundary, and do nothing there."""
    units = icu.UnicodeString(text)
    for iterator in (
        icu.BreakIterator.createWordInstance(icu.Locale.getRoot()),
        icu.BreakIterator.createSentenceInstance(icu.Locale.getRoot()),
    ):
        iterator.setText(units)
        deque(iterator, maxlen=0)


def measure(text: str, rounds: int) -> dict[str, float]:
    """Seconds of CPU time for each way, the median of the rounds."""
    ways: dict[str, Callable[[], object]] = {CEILING: partial(walk, text)}
    for name, settings in SETTINGS.items():
        ways[name] = partial(chunk, text, settings)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.process_time()
            way()
            seconds[name].append(time.process_time() - began)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def main() -> None:
    """Print one table."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--bytes", type=int, default=500_000)
    asked = options.parse_args()
    print(
        f"G12 chunking, MB/s of one core (of ICU alone), ICU {icu_version()}, medians of {asked.rounds} rounds"
    )
    for language, text in texts(asked.bytes).items():
        size = len(text.encode()) / 1e6
        taken = measure(text, asked.rounds)
        goal = f", goal {GOALS[language]}" if language in GOALS else ""
        print(f"{language}: {size:.2f} MB{goal}")
        for name, seconds in taken.items():
            print(f"    {name:20} {size / seconds:6.1f} MB/s  {taken[CEILING] / seconds:5.2f}")


if __name__ == "__main__":
    main()
