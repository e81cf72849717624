"""A published file from a hub of our own: what arrives, what is refused, and each refusal in one sentence."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http

from spai_runtime.errors import UserError
from spai_train.hub import fetch
from spai_train.published import PublishedFile
from tests.support.hub import COMMIT, Hub, leftovers, serving

CONTENT = bytes(range(256)) * 100
FILE = PublishedFile("weights.bin", "https://example.org/weights", "MIT", repo="someone/weights")
KNOWN = replace(FILE, size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of huggingface_hub, which takes it from the environment when it is imported."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)  # between attempts
    return tmp_path / "hub"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:  # noqa: ARG001
    with serving(Hub(FILE, CONTENT)) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + template)
        yield hub


def refused(file: PublishedFile) -> str:
    with pytest.raises(UserError) as caught:
        fetch(file)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_and_the_commit_that_it_is_of(hub: Hub) -> None:
    found = fetch(KNOWN)
    assert (found.path.read_bytes(), found.commit) == (CONTENT, COMMIT)
    assert hub.asked == ["HEAD /someone/weights/resolve/main/weights.bin", "GET /content/weights.bin"]


def test_a_pinned_revision_is_asked_for_and_then_never_again(hub: Hub) -> None:
    pinned = replace(KNOWN, revision="ab" * 20)
    hub.revisions = (pinned.revision,)
    assert fetch(pinned).commit == "ab" * 20
    asked = len(hub.asked)
    assert fetch(pinned).path.read_bytes() == CONTENT
    assert len(hub.asked) == asked


def test_offline_takes_what_the_cache_has(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(KNOWN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    found = fetch(KNOWN)
    assert (found.path.read_bytes(), found.commit, len(hub.asked)) == (CONTENT, COMMIT, asked)


def test_offline_without_it(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = f"weights.bin of someone/weights is not in the cache of huggingface_hub ({cache}), and HF_HUB_OFFLINE is set"
    assert refused(KNOWN) == f"{said}: run it once without"
    assert not hub.asked


def test_another_size_is_refused_and_removed(hub: Hub, cache: Path) -> None:
    said = refused(replace(KNOWN, size=12_345))
    assert said.startswith(
        "weights.bin of someone/weights has 25,600 bytes, and the published one 12,345; it was removed"
    )
    assert said.endswith("look at https://example.org/weights")
    assert leftovers(cache) == []
    assert fetch(KNOWN).path.read_bytes() == CONTENT
    assert hub.downloads == 2


def test_another_content_is_refused_and_removed(hub: Hub, cache: Path) -> None:
    said = refused(replace(KNOWN, sha256="0" * 64))
    assert f" has sha256 {KNOWN.sha256}, and the published one {'0' * 64}; it was removed" in said
    assert leftovers(cache) == []
    assert hub.downloads == 1


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        ((401, "RepoNotFound"), "{url} has no someone/weights, or it is private: look at https://example.org/weights"),
        ((401, "GatedRepo"), "someone/weights is gated: accept its terms at https://example.org/weights, log in with"),
        ((403, "GatedRepo"), "someone/weights is gated: accept its terms at https://example.org/weights, log in with"),
        ((403, ""), "{url} answers 403 for weights.bin of someone/weights: look at https://example.org/weights"),
        ((404, "RevisionNotFound"), "someone/weights has no revision main any more: look at https://example.org"),
        ((404, "EntryNotFound"), "someone/weights has no weights.bin at main: look at https://example.org/weights"),
        ((503, ""), "{url} answers 503 for weights.bin of someone/weights: look at https://example.org/weights"),
    ],
)
def test_what_the_hub_refuses(hub: Hub, cache: Path, refusal: tuple[int, str], said: str) -> None:
    hub.refusal = refusal
    assert refused(KNOWN).startswith(said.format(url=hub.url))
    assert leftovers(cache) == []


def test_a_hub_that_is_gone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = "http://127.0.0.1:9"  # the port where nobody listens
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", gone + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "ENDPOINT", gone)
    said = refused(KNOWN)
    assert said.startswith(f"cannot get weights.bin from {gone}: ")
    assert said.endswith("; check the connection, and HF_ENDPOINT if it is set")
    assert not hub.asked


def test_a_transfer_that_breaks_off(hub: Hub, cache: Path) -> None:
    hub.cut = 1000
    said = refused(KNOWN)
    assert said.startswith(f"{hub.url} answers 500 for weights.bin") or "did not arrive" in said
    assert leftovers(cache) == []


def test_a_transfer_that_is_shorter_than_the_hub_says(hub: Hub, cache: Path) -> None:
    hub.linked_size = len(CONTENT) + 7
    said = refused(FILE)
    assert said.startswith("weights.bin of someone/weights did not arrive: ")
    assert said.endswith("; run it again")
    assert "25607" in said and "25600" in said
    assert leftovers(cache) == []


def test_a_cache_that_cannot_be_written(hub: Hub, cache: Path) -> None:
    cache.write_text("a file")
    said = refused(FILE)
    assert said.startswith("weights.bin of someone/weights did not arrive: ")
    assert hub.downloads == 0
