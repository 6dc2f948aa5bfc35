"""The page as it is served: in a real browser, before attackers, under a crowd, and with workers that die."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.page_load import Visitor, ask, crowd, served
from PIL import Image
from tests.test_image import png_claiming

from lisrd.errors import InputError
from lisrd.image import write_image
from lisrd.web.limits import MEGABYTE, Limits
from lisrd.web.request import MatchRequest, Menu
from lisrd.web.workers import Staff, Workers

httpx = pytest.importorskip("httpx", reason="the page's extra is not installed")
pytest.importorskip("gradio", reason="the page's extra is not installed")
TestClient = pytest.importorskip("starlette.testclient").TestClient

pytestmark = [pytest.mark.slow, pytest.mark.long]

OFFERED = ("--describer", "root-sift", "--describer", "lisrd-sift", "--detector", "sift")
#: Where a test has to wait for another process on a busy machine.
PATIENCE = 120_000


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """The address of a running page of one worker, with limits that a test can reach."""
    with served(*OFFERED, "--workers", "1", "--max-upload", "1", "--max-side", "640") as (url, _):
        yield url


@pytest.fixture(scope="module")
def client(page: str) -> Iterator[Any]:
    with httpx.Client(base_url=page, timeout=120, trust_env=False) as one:
        yield one


@pytest.fixture(scope="module")
def uploads(client: Any) -> str:
    """The server's folder of uploads, as an attacker learns it: from the path of an upload."""
    stored = client.post("gradio_api/upload", files={"files": ("a.png", b"x", "image/png")}).json()[0]
    return str(Path(stored).parents[1])


def match(client: Any, photograph: Any, **changed: Any) -> str:
    """What the page shows for this photograph on both sides."""
    values = {"detector": "sift", "describer": "root-sift", "invariance": "soft", "turn": "auto"}
    data = [photograph, photograph, *(values | changed).values(), "homography", 512]
    config = client.get("config").json()
    function = next(one["id"] for one in config["dependencies"] if one["api_name"] == "match")
    question = {"data": data, "fn_index": function, "session_hash": os.urandom(8).hex()}
    client.post("gradio_api/queue/join", json=question).raise_for_status()
    parameters = {"session_hash": question["session_hash"]}
    with client.stream("GET", "gradio_api/queue/data", params=parameters) as stream:
        for line in stream.iter_lines():
            event = json.loads(line[5:]) if line.startswith("data:") else {}
            if event.get("msg") == "process_completed":
                return str(event["output"]["data"][0] if event["success"] else event["output"])
    raise AssertionError("the stream ended before the answer")


def record(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


@pytest.mark.parametrize("prefix", ["file=", "gradio_api/file=", "gradio_api/file/", "static/", "assets/"])
@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "{uploads}/../../etc/passwd", "..%2f..%2f..%2fetc/passwd", "pyproject.toml", "%00"],
)
def test_no_file_of_the_server_is_served(client: Any, uploads: str, prefix: str, path: str) -> None:
    reply = client.get(f"{prefix}{path.format(uploads=uploads)}")
    assert reply.status_code in (400, 403, 404)
    assert "root:" not in reply.text
    assert "lisrd" not in reply.text


@pytest.mark.parametrize(
    "photograph",
    [
        record("/etc/passwd"),
        {"path": "/etc/passwd"},  # without the mark by which gradio knows a file
        record("/etc/passwd", url="/gradio_api/file=/etc/passwd"),
        record("https://example.org/a.png", url="https://example.org/a.png"),
        record("a.png", url="data:image/png;base64,iVBORw0KGgo="),
        [record("/etc/passwd")],
    ],
)
def test_no_file_of_the_server_is_matched(client: Any, uploads: str, photograph: Any) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        match(client, photograph)
    assert not list(Path(uploads).rglob("passwd"))


@pytest.fixture
def unguarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page as gradio serves it, without the guard and with an empty answer."""
    from lisrd.web.server import gradio_app

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    menu = Menu(("sift",), {"root-sift": ("root-sift",)})
    return gradio_app(lambda request: "{}", menu, tmp_path, Limits(), 1)


def test_gradio_behind_the_guard_copies_no_file_of_the_server(unguarded: Any, tmp_path: Path) -> None:
    """A page that is mounted, not launched, would copy any file that a visitor names to where it can be read."""
    with TestClient(unguarded) as client:
        assert "lisrd-matches" in match(client, record(f"{tmp_path}/examples/coffee.jpg"))
        assert "lisrd-matches" not in match(client, record("/etc/passwd"))
        assert not list(tmp_path.rglob("passwd"))


def test_few_answers_are_remembered(unguarded: Any, tmp_path: Path) -> None:
    with TestClient(unguarded) as client:
        for _ in range(20):
            match(client, record(f"{tmp_path}/examples/coffee.jpg"))
        mounted = unguarded.routes[-1].app
        assert len(mounted.state_holder.session_data) == 16


def test_bad_files_are_said_in_words(client: Any) -> None:
    text = client.post("gradio_api/upload", files={"files": ("a.jpg", b"hello", "image/jpeg")}).json()[0]
    assert "Photograph 1 is not an image that this page reads" in match(client, record(text))
    content = png_claiming(60_000, 60_000)
    bomb = client.post("gradio_api/upload", files={"files": ("b.png", content, "image/png")}).json()[0]
    assert "Photograph 1 has too many pixels" in match(client, record(bomb))


def test_uploads_beyond_the_limit_are_refused(client: Any) -> None:
    files = {"files": ("a.png", b"x" * (MEGABYTE + 10_000), "image/png")}
    reply = client.post("gradio_api/upload", files=files)
    assert reply.status_code == 413
    assert reply.text == "A photograph may have 1 MB; save it smaller."


def test_names_that_are_not_offered_are_refused(client: Any) -> None:
    stored = client.post(
        "gradio_api/upload", files={"files": ("a.png", Visitor(0).photographs()[0], "image/png")}
    )
    shown = match(client, record(stored.json()[0]), describer="/etc/passwd.safetensors")
    assert "This page offers no such describer" in shown


def test_names_of_uploads_do_not_lead_out(client: Any, uploads: str) -> None:
    reply = client.post("gradio_api/upload", files={"files": ("../../../evil.png", b"x", "image/png")})
    assert Path(reply.json()[0]).resolve().is_relative_to(uploads)


def test_a_page_of_html_is_no_page_of_ours(client: Any) -> None:
    files = {"files": ("a.html", b"<script>alert(1)</script>", "text/html")}
    stored = client.post("gradio_api/upload", files=files).json()[0]
    reply = client.get(f"gradio_api/file={stored}")
    assert reply.headers["content-disposition"].startswith("attachment")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in reply.headers["content-security-policy"]


def test_several_visitors_get_their_own_answers(page: str) -> None:
    tally = asyncio.run(crowd(page, visitors=8, seconds=10, describer="root-sift"))
    assert tally.dropped == []
    assert tally.wrong == 0
    assert len(tally.seconds) >= 8


def test_a_visitor_notices_an_answer_that_is_not_theirs(page: str) -> None:
    async def visited() -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=page, timeout=120, trust_env=False) as one:
            return await ask(one, Visitor(3).photographs(), "root-sift")

    answer = asyncio.run(visited())
    assert Visitor(3).is_own(answer)
    assert not Visitor(4).is_own(answer)
    answer["model"]["matrix"][0][2] += 5
    assert not Visitor(3).is_own(answer)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium of this machine."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        one = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture
def view(browser: Any, page: str) -> Iterator[Any]:
    """The page in a laptop's window; at the end no script has failed, and nothing came from elsewhere."""
    one = browser.new_page(viewport={"width": 1366, "height": 900})
    one.set_default_timeout(PATIENCE)
    failures: list[str] = []
    one.on("pageerror", lambda error: failures.append(str(error)))
    one.on("console", lambda said: failures.append(said.text) if said.type == "error" else None)
    one.on("request", lambda asked: None if is_local(asked.url, page) else failures.append(asked.url))
    one.goto(page)
    one.wait_for_selector("#match")
    yield one
    one.close()
    assert failures == []


def is_local(url: str, page: str) -> bool:
    return url.startswith((page, "data:", "blob:"))


def shown(view: Any) -> int:
    """How many matches the viewer draws."""
    return int(view.locator("lisrd-matches").get_attribute("data-shown"))


def press_match(view: Any) -> None:
    """Until the viewer stands there; an error of the page is the test's."""
    view.click("#match")
    view.wait_for_selector("lisrd-matches canvas, .lisrd-error, .toast-body")
    errors = view.locator(".lisrd-error, .toast-body")
    assert errors.all_inner_texts() == []


def test_two_photographs_in_a_browser(view: Any, tmp_path: Path) -> None:
    """Drop, choose, match, filter, hover, look at a tile, download."""
    for k, content in enumerate(Visitor(5).photographs(), start=1):
        (tmp_path / f"{k}.png").write_bytes(content)
        view.set_input_files(f"#photograph{k} input[type=file]", tmp_path / f"{k}.png")
        view.wait_for_selector(f"#photograph{k} img[src*='file=']")
    view.click("#describer input")
    view.get_by_role("option", name="lisrd-sift", exact=True).click()
    press_match(view)
    assert view.inner_text("lisrd-matches .verdict strong") == "The same place"
    turned = view.locator("lisrd-matches .fact", has_text="Turned").inner_text()
    assert re.search(r"39\.\d°|38\.9°", turned)
    assert "counter-clockwise" in turned

    inliers = shown(view)
    assert inliers > 30
    view.click("lisrd-matches [data-which=all]")
    everything = shown(view)
    assert everything > inliers
    chips = view.locator("lisrd-matches .chip")
    assert chips.count() == 2
    chips.nth(0).click()
    without = shown(view)
    assert without < everything
    chips.nth(1).click()
    assert shown(view) == 0
    chips.nth(0).click()
    assert shown(view) == everything - without
    chips.nth(1).click()

    tile = view.locator("lisrd-matches .grid button:not([disabled])").first
    tile.click()
    assert 0 < shown(view) < everything
    tile.click()
    assert shown(view) == everything
    assert view.locator("lisrd-matches .grid").count() == 4

    canvas = view.locator("lisrd-matches canvas")
    canvas.focus()
    view.keyboard.press("ArrowRight")
    tip = view.inner_text("lisrd-matches .tip")
    assert "score" in tip
    assert "invariant to rotation" in tip
    assert len(re.findall(r"\d+ %", tip)) == 2

    with view.expect_download() as download:
        view.click("lisrd-matches [data-download=npz]")
    with np.load(download.value.path(), allow_pickle=False) as arrays:
        assert len(arrays["matches"]) == everything
    with view.expect_download() as download:
        view.click("lisrd-matches [data-download=json]")
    document = json.loads(Path(download.value.path()).read_text())
    assert Visitor(5).is_own(document)
    assert document["inliers"] == inliers
    with view.expect_download() as download:
        view.click("lisrd-matches [data-download=png]")
    assert Image.open(download.value.path()).size[0] > 600


def test_pointing_at_a_match_shows_it(view: Any) -> None:
    view.click("#example2")
    view.wait_for_selector("#photograph2 img[src*='file=']")
    press_match(view)
    canvas = view.locator("lisrd-matches canvas")
    place = view.evaluate(
        "() => { const one = document.querySelector('lisrd-matches'); return one.ends(one.kept[0])[0]; }"
    )
    canvas.scroll_into_view_if_needed()
    canvas.hover(position={"x": place[0], "y": place[1]})
    assert view.locator("lisrd-matches .tip").is_visible()
    view.mouse.move(2, 2)
    assert view.locator("lisrd-matches .tip").is_hidden()


def test_the_list_of_invariances_follows_the_describer(view: Any) -> None:
    def offered(describer: str) -> int:
        view.click("#describer input")
        view.get_by_role("option", name=describer, exact=True).click()
        view.click("#invariance input")
        count = view.get_by_role("option").count()
        view.keyboard.press("Escape")
        return count

    assert [offered("lisrd-sift"), offered("root-sift"), offered("lisrd-sift")] == [5, 1, 5]


def test_a_bad_file_in_a_browser(view: Any, tmp_path: Path) -> None:
    view.click("#example3")
    view.wait_for_selector("#photograph2 img[src*='file=']")
    (tmp_path / "a.jpg").write_text("no pixels")
    view.click("#photograph1 button[aria-label*='emove'], #photograph1 button[aria-label*='lear']")
    view.set_input_files("#photograph1 input[type=file]", tmp_path / "a.jpg")
    view.wait_for_selector("#photograph1 img[src*='file=']")
    view.click("#match")
    message = view.locator(".lisrd-error")
    message.wait_for()
    assert (
        "Photograph 1 is not an image that this page reads; use JPEG, PNG, WebP or TIFF."
        in message.inner_text()
    )


@pytest.mark.parametrize("width", [360, 390, 820, 1366])
def test_nothing_is_wider_than_the_window(view: Any, width: int) -> None:
    view.set_viewport_size({"width": width, "height": 800})
    view.click("#example1")
    view.wait_for_selector("#photograph2 img[src*='file=']")
    press_match(view)
    assert view.evaluate("document.documentElement.scrollWidth") <= width


@pytest.fixture(scope="module")
def request_of(tmp_path_factory: pytest.TempPathFactory) -> MatchRequest:
    folder = tmp_path_factory.mktemp("photographs")
    paths = folder / "0.png", folder / "1.png"
    for path, content in zip(paths, Visitor(1).photographs(), strict=True):
        path.write_bytes(content)
    return MatchRequest(paths, describer="root-sift", max_keypoints=256)


def staff(**limits: Any) -> Staff:
    return Staff({"sift": "sift"}, {"root-sift": "root-sift"}, limits=Limits(**limits))


@pytest.fixture
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    """One worker with the limits of the test's parameter."""
    started = Workers(staff(**request.param), 1)
    yield started
    started.close()


@pytest.mark.parametrize("workers", [{"seconds": 0.001}], indirect=True)
def test_a_match_that_takes_too_long_is_stopped(workers: Workers, request_of: MatchRequest) -> None:
    first = workers.processes()
    with pytest.raises(InputError, match=r"took longer than 0\.001 seconds"):
        workers.match(request_of)
    assert not Path(f"/proc/{first[0]}").exists()
    assert workers.processes() != first


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux")
@pytest.mark.parametrize("workers", [{"memory": 64 * MEGABYTE}], indirect=True)
def test_a_match_that_takes_too_much_memory_is_stopped(workers: Workers, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1600, 1600, 3), np.uint8)
    write_image(tmp_path / "noise.png", noise)
    with pytest.raises(InputError, match="more than the 64 MB that one may take"):
        workers.match(MatchRequest((tmp_path / "noise.png",) * 2, describer="root-sift"))


@pytest.mark.parametrize("workers", [{}], indirect=True)
def test_a_worker_that_dies_is_replaced(workers: Workers, request_of: MatchRequest) -> None:
    before = json.loads(workers.match(request_of))
    os.kill(workers.processes()[0], signal.SIGKILL)
    with pytest.raises(InputError, match="the matcher failed"):
        workers.match(request_of)
    after = json.loads(workers.match(request_of))
    assert after["matches"] == before["matches"]
    with pytest.raises(InputError, match="photograph 1 is no longer here"):
        workers.match(MatchRequest((Path("/gone.png"),) * 2, describer="root-sift"))


def test_a_describer_that_cannot_be_built_ends_the_start() -> None:
    with pytest.raises(InputError, match="needs its published weights"):
        Workers(Staff({"sift": "sift"}, {"aliked-n16": "aliked-n16"}), 1)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_the_end_leaves_nothing(sent: signal.Signals, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "lisrd",
        "serve",
        "--port",
        "0",
        "--json",
        "--workers",
        "1",
        *OFFERED[:2],
    ]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    with httpx.Client(base_url=url, trust_env=False) as client:
        client.post("gradio_api/upload", files={"files": ("a.png", b"x", "image/png")})
    (folder,) = tmp_path.glob("lisrd-page-*")
    assert len(list(folder.rglob("a.png"))) == 1
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if sent == signal.SIGINT else 0)
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("lisrd-page-*"))


def test_a_port_that_is_taken(page: str) -> None:
    port = page.rstrip("/").rsplit(":", 1)[1]
    command = [sys.executable, "-m", "lisrd", "serve", "--port", port]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "choose another --host or --port" in done.stderr
    assert "Traceback" not in done.stderr
