"""The guide is the same in all four languages, and everything it names exists."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from guide_pages import DOCS, LANGUAGES, ROOT, guide, on_github
from typer.main import get_command

from hubgate.cli.main import app
from hubgate.domain.errors import Cause

if TYPE_CHECKING:
    from running_gateway import RunningGateway

OTHERS = [language for language in LANGUAGES if language != "en"]
MOST_BYTES = 60 * 1024
# The labels of Dify's plugins huggingface_tei and openai_api_compatible, and those that all forms have; as of
# 2026-08. Their forms are in English for all but Chinese readers.
DIFY = {
    "Model Type": "模型类型",
    "Model Name": "模型名称",
    "Server url": "服务器URL",
    "API Key": "API Key",
    "API Base URL": "API Base URL",
    "Completion mode": "对话类型",
    "Model context size": "模型上下文长度",
    "Model max chunks per batch": "模型每批的最大分块数",
    "Document prefix": "文档前缀",
    "Query prefix": "查询前缀",
    "Embedding encoding format": "Embedding encoding format",
}


def words(language: str) -> dict[str, str]:
    """The console's texts in a language, by key."""
    found: dict[str, str] = {}
    for path in (ROOT / "src/hubgate").rglob(f"locales/*{language}.json"):
        found |= json.loads(path.read_text("utf-8"))
    return found


def tables(language: str) -> list[list[list[str]]]:
    """The cells of each table's rows, without its header."""
    found = re.findall(r"(?:^\|.*\|\n)+", guide(language).source, re.MULTILINE)
    return [
        [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
        for table in found
    ]


@pytest.mark.parametrize("language", OTHERS)
def test_translations_have_the_same_headings_blocks_links_and_names(language: str) -> None:
    one, english = guide(language), guide("en")
    assert [(head.level, head.anchor) for head in one.headings] == [
        (head.level, head.anchor) for head in english.headings
    ]
    assert one.blocks == english.blocks
    assert sorted(one.links) == sorted(english.links)
    named, expected = sorted(one.code), sorted(english.code)
    in_dify = re.compile(r".* > .*")
    assert [code for code in named if not in_dify.fullmatch(code)] == [
        code for code in expected if not in_dify.fullmatch(code)
    ]
    assert [[len(row) for row in table] for table in tables(language)] == [
        [len(row) for row in table] for table in tables("en")
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_sections_have_anchors_and_links_are_valid(language: str) -> None:
    one = guide(language)
    anchors = {head.anchor for head in one.headings}
    assert all(head.anchor for head in one.headings if head.level == 2)
    for link in one.links:
        path, _, anchor = link.partition("#")
        if not path:
            assert anchor in anchors, link
        elif not path.startswith("https://"):
            text = (DOCS / path).read_text("utf-8")
            titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            assert not anchor or anchor in {on_github(title) for title in titles}, link
    assert all(
        (DOCS / f"guide.{other}.md").is_file() for other in re.findall(r"\(guide\.(\w+)\.md\)", one.prose)
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_bold_words_are_console_labels(language: str) -> None:
    texts = set(words(language).values())
    assert [label for label in guide(language).bold if label not in texts] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_causes_exist_and_match_the_console_texts(language: str) -> None:
    texts = words(language)
    (rows,) = [table for table in tables(language) if table[0][0] == "`not_authenticated`"]
    for cause, meaning, remedy in rows:
        key = f"cause.{Cause(cause.strip('`'))}"
        assert (meaning, remedy) == (texts[key], texts[f"{key}.remedy"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_dify_fields_have_their_names_in_dify(language: str) -> None:
    labels = set(DIFY.values()) if language == "zh" else set(DIFY)
    forms = [table for table in tables(language) if any("YOUR_HUBGATE_KEY" in str(row) for row in table)]
    assert len(forms) == 3
    assert {row[0] for form in forms for row in form} == labels


@pytest.mark.parametrize("language", LANGUAGES)
def test_pictures_exist_are_small_and_have_alt_text(language: str) -> None:
    pictures = guide(language).pictures
    assert [path.removesuffix(f"{language}.png") for _, path in pictures] == [
        path.removesuffix("en.png") for _, path in guide("en").pictures
    ]
    for alt_text, path in pictures:
        assert alt_text
        assert path.endswith(f".{language}.png")
        assert (DOCS / path).stat().st_size <= MOST_BYTES, path


def test_every_picture_is_used() -> None:
    shown = {path for language in LANGUAGES for _, path in guide(language).pictures}
    assert {f"images/{path.name}" for path in (DOCS / "images").iterdir()} == shown


def test_persian_is_right_to_left_and_its_code_left_to_right() -> None:
    one = guide("fa")
    outside = re.sub(r'^<div dir="rtl">\n.*?^</div>$', "", one.source, flags=re.MULTILINE | re.DOTALL)
    assert re.sub(r"^```\w*\n.*?^```$", "", outside, flags=re.MULTILINE | re.DOTALL).strip() == ""
    spans = re.findall(r"`([^`\n]+)`", one.prose)
    assert [code for code in spans if not re.fullmatch(r"\w.*\w|\w", code)] == [], (
        'these want <code dir="ltr">'
    )


def test_paths_in_the_guide_are_served(gateway: RunningGateway) -> None:
    for name in ("e5", "chat", "ranker", "writer"):
        gateway.add(name)
    paths = {code.removeprefix("http://GATE:8080") for code in guide("en").code}
    paths = {path for path in paths if path.startswith("/") and path != "/v1"}
    assert len(paths) >= 4
    assert [path for path in sorted(paths) if gateway.request("POST", path, {}).status == 404] == []


def test_commands_and_options_in_the_guide_exist() -> None:
    commands = [code for code in guide("en").code if code.startswith("hubgate ")]
    assert commands
    for code in commands:
        command, rest = found(shlex.split(code)[1:])
        assert {word for word in rest if word.startswith("--")} <= known(command), code
    create, _ = found(["key", "create"])
    assert {code for code in guide("en").code if code.startswith("--")} <= known(create)


def found(arguments: list[str]) -> tuple[Any, list[str]]:
    """A command and its remaining arguments."""
    command: Any = get_command(app)
    while getattr(command, "commands", None):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    return command, arguments


def known(command: Any) -> set[str]:
    """The options of a command."""
    return {option for parameter in command.params for option in parameter.opts}


def test_settings_in_the_guide_exist() -> None:
    settings = (DOCS / "settings.md").read_text("utf-8")
    named = {code.partition("=")[0] for code in guide("en").code if code.startswith("HUBGATE_")}
    assert named
    assert [name for name in named if f"| `{name}` |" not in settings] == []
