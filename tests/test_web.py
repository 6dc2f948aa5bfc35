"""The page's parts without a browser: what strangers send is checked, and the answer is right in their pixels."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.small_describer import SmallDescriber
from tests.test_image import png_claiming

from lisrd.cli import app, console
from lisrd.cli.serve import _label
from lisrd.errors import InputError
from lisrd.model import LISRD
from lisrd.web.element import answer_element, error_element, head
from lisrd.web.guard import Guard
from lisrd.web.limits import Limits
from lisrd.web.matching import answer
from lisrd.web.photograph import read_photograph
from lisrd.web.request import MatchRequest, Menu, checked_request, label_of, uploaded_path
from lisrd.web.server import sweep
from lisrd.web.workers import Staff, Workers

MENU = Menu(("sift",), {"small": ("oriented", "upright"), "root-sift": ("root-sift",)})
OFFERED = ["sift", "small", "soft", "auto", "homography", 512]


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    """A folder of uploads with one photograph in it, and a secret beside it."""
    folder = tmp_path / "uploads"
    (folder / "a").mkdir(parents=True)
    Image.new("RGB", (64, 48), "red").save(folder / "a" / "one.png")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return folder


def upload(path: Path | str) -> dict[str, Any]:
    """What the browser sends for a photograph."""
    return {"path": str(path), "orig_name": "one.png", "meta": {"_type": "gradio.FileData"}}


def asked(uploads: Path, **changed: Any) -> MatchRequest:
    names = ("detector", "describer", "invariance", "turn", "model", "count")
    values = [changed.get(name, value) for name, value in zip(names, OFFERED, strict=True)]
    photograph = upload(uploads / "a" / "one.png")
    return checked_request([photograph, photograph, *values], MENU, uploads, 4096)


def test_what_the_page_offers_is_accepted(uploads: Path) -> None:
    request = asked(uploads, invariance="only upright", turn="3", model="fundamental", count=100)
    assert request.photographs[0] == uploads / "a" / "one.png"
    assert request.policy.only == ("upright",)
    assert request.policy.turn == 3
    assert (request.model, request.max_keypoints) == ("fundamental", 100)
    assert asked(uploads, invariance="hard").policy.selection == "hard"


def test_files_are_offered_without_their_folders() -> None:
    offered = [
        "pyramid@1+2",
        "/home/me/secret/mine.safetensors",
        "/a=b/mine.safetensors@2",
        "hardnet=/secret/h.pth@4",
    ]
    assert [_label(source) for source in offered] == ["pyramid@1+2", "mine", "mine@2", "hardnet@4"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("detector", "aliked-n16=/etc/passwd"),
        ("describer", "/etc/passwd.safetensors"),
        ("describer", ["small"]),
        ("describer", None),
        ("invariance", "only rot_invar_illum_var"),
        ("turn", "4"),
        ("model", "absolute_pose"),
        ("count", 10**9),
        ("count", 0),
        ("count", True),
        ("count", float("nan")),
        ("count", "512"),
    ],
)
def test_nothing_else_is(uploads: Path, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=r"offers no such|choose a number"):
        asked(uploads, **{name: value})


def test_a_message_of_another_page_is_refused(uploads: Path) -> None:
    with pytest.raises(InputError, match="reload"):
        checked_request([], MENU, uploads, 4096)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{uploads}/../secret.png",
        "{uploads}/a/../../secret.png",
        "{uploads}-other/one.png",
        "a/one.png",
        "file:///etc/passwd",
        "http://127.0.0.1/one.png",
        "{uploads}/a/one.png\0.jpg",
        "",
    ],
)
def test_no_other_file_of_the_server_is_opened(uploads: Path, path: str) -> None:
    with pytest.raises(InputError, match="no upload of this page"):
        uploaded_path(upload(path.format(uploads=uploads)), "photograph 1", uploads)


def test_a_link_out_of_the_uploads_is_not_followed(uploads: Path) -> None:
    (uploads / "a" / "link.png").symlink_to(uploads.parent / "secret.png")
    with pytest.raises(InputError, match="no upload of this page"):
        uploaded_path(upload(uploads / "a" / "link.png"), "photograph 1", uploads)


@pytest.mark.parametrize("value", [None, "", {}])
def test_a_missing_photograph_is_said(uploads: Path, value: Any) -> None:
    with pytest.raises(InputError, match="photograph 2 is missing"):
        uploaded_path(value, "photograph 2", uploads)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
SENT = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.fixed_dictionaries({"path": SCALARS}))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.tuples(*[SENT] * 8))
def test_whatever_is_sent_is_answered_with_a_message(values: tuple[Any, ...]) -> None:
    with pytest.raises(InputError):
        checked_request(values, MENU, Path("/nowhere"), 4096)


def test_invariances_have_words() -> None:
    assert label_of("rot_invar_illum_var") == "invariant to rotation"
    assert label_of("rot_invar_illum_invar") == "invariant to rotation and light"
    assert label_of("rot_var") == "varies, the sharpest"
    assert label_of("root-sift") == "root sift"
    assert [value for _, value in MENU.invariance_choices("small")][-1] == "only upright"
    assert len(MENU.invariance_choices("root-sift")) == 1  # nothing to choose


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def png_of(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "photograph 1 is not an image"),
        (b"hello", "photograph 1 is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "photograph 1 is not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "photograph 1 is not an image"),
        (png_of(64, 48)[:3000], "photograph 1 is broken or truncated"),
        (png_claiming(10_000, 6_000), r"too many pixels \(10000 × 6000\); the limit is 50 megapixels"),
        (png_claiming(60_000, 60_000), "too many pixels; the limit is 50 megapixels"),
        (b"x" * 2**20, "photograph 1 has 1 MB; the limit is 0 MB"),
    ],
)
def test_bad_files_are_named_without_the_servers_path(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path / "upload.png", content)
    with pytest.raises(InputError, match=message) as caught:
        read_photograph(path, "photograph 1", Limits(upload=2**19))
    assert str(tmp_path) not in str(caught.value)


def test_a_file_that_was_swept_away(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kept for 15 minutes; drop it again"):
        read_photograph(tmp_path / "gone.png", "photograph 1", Limits())


def test_long_sides_are_matched_smaller(tmp_path: Path) -> None:
    path = write(tmp_path / "large.png", png_of(400, 100))
    photograph = read_photograph(path, "photograph 1", Limits(max_side=200))
    assert (photograph.size, photograph.matched_size) == ((400, 100), (200, 50))
    first, last = (photograph.to_upload.numpy() @ [x, y, 1] for x, y in ((0, 0), (199, 49)))
    assert first.tolist() == [0.5, 0.5, 1]  # the first pixel of the copy covers pixels 0 and 1
    assert last.tolist() == [398.5, 98.5, 1]
    assert not read_photograph(path, "photograph 1", Limits()).is_reduced


def test_limits_are_positive() -> None:
    with pytest.raises(InputError, match="limit max side is 0"):
        Limits(max_side=0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[MatchRequest, np.ndarray]:
    """A request for a photograph and the same turned by 20 degrees and cut, and the homography between them."""
    first = cv2.resize(skimage.data.astronaut(), (320, 320), interpolation=cv2.INTER_AREA)
    affine = cv2.getRotationMatrix2D((159.5, 159.5), 20, 1.0)
    folder = tmp_path_factory.mktemp("pair")
    paths = folder / "a.png", folder / "b.png"
    for path, image in zip(paths, (first, cv2.warpAffine(first, affine, (300, 300))), strict=True):
        Image.fromarray(image).save(path)
    request = MatchRequest(paths, describer="small", max_keypoints=300)
    return request, np.vstack([affine, [0, 0, 1]])


def answered(request: MatchRequest, limits: Limits = Limits()) -> dict[str, Any]:
    """The answer by way of JSON, as the browser has it."""
    found = answer(request, lambda detector, _: LISRD(SmallDescriber(), detector_of(detector)), limits)
    return json.loads(json.dumps(found, allow_nan=False))


@pytest.fixture(scope="module")
def found(pair) -> dict[str, Any]:
    """The answer of the pair."""
    return answered(pair[0])


def detector_of(name: str):
    from lisrd.detect import build_detector

    return build_detector(name)


@pytest.mark.parametrize("max_side", [1600, 240])
def test_the_answer_is_in_pixels_of_the_uploads(pair, max_side: int) -> None:
    request, H = pair
    found = answered(request, Limits(max_side=max_side))
    corners = np.array([[[60, 60], [259, 60], [259, 259], [60, 259]]], np.float64)
    place, true = (cv2.perspectiveTransform(corners, np.array(m)) for m in (found["model"]["matrix"], H))
    assert np.abs(place - true).max() < 1
    assert found["verdict"]["answer"] == "yes"
    assert found["relation"]["angle"] == pytest.approx(-20, abs=0.3)
    assert found["relation"]["scale"] == pytest.approx(1, abs=0.01)
    matches = found["matches"]
    inside = np.array(matches["inliers"])
    carried = cv2.perspectiveTransform(np.array([matches["points0"]]), H)[0]
    assert np.abs(carried - matches["points1"])[inside].max() < 2 * max(1, 320 / max_side) + 0.5
    assert any("matched as 240 × 240" in note for note in found["notes"]) == (max_side == 240)


def test_the_answer_says_why(found: dict[str, Any]) -> None:
    weights = np.array(found["matches"]["weights"])
    assert weights.sum(1) == pytest.approx(np.ones(len(weights)), abs=1e-3)
    assert [one["name"] for one in found["invariances"]] == ["oriented", "upright"]
    assert sum(one["share"] for one in found["invariances"]) == pytest.approx(1)
    assert np.shape(found["maps"]) == (2, 2, 3, 3)
    assert set(found["seconds"]) == {"read", "detect", "describe", "match", "verify"}
    assert found["inliers"] == sum(found["matches"]["inliers"]) > 50
    assert any("more keypoints than 300" in note for note in found["notes"])


def test_the_download_has_the_columns_of_lisrd_match(found: dict[str, Any]) -> None:
    with np.load(io.BytesIO(base64.b64decode(found["npz"])), allow_pickle=False) as arrays:
        index = arrays["matches"]
        moved = arrays["keypoints1"][index[:, 1]] - arrays["points1"]
        assert arrays["inliers"].tolist() == found["matches"]["inliers"]
        assert arrays["invariances"].tolist() == ["oriented", "upright"]
        assert arrays["invariance_weights"].shape == (len(index), 2)
        assert np.abs(arrays["points1"] - found["matches"]["points1"]).max() < 0.01
        assert np.abs(moved[~arrays["refined"]]).max(initial=0) < 0.01  # what was not refined keeps its place
        assert arrays["refined"].any()


def test_one_invariance_alone(pair) -> None:
    request = MatchRequest(
        pair[0].photographs, describer="small", invariance="only oriented", max_keypoints=100
    )
    assert [one["share"] for one in answered(request)["invariances"]] == [1, 0]


def test_flat_photographs_have_an_answer_too(tmp_path: Path) -> None:
    Image.new("RGB", (100, 80), "grey").save(tmp_path / "grey.png")
    found = answered(MatchRequest((tmp_path / "grey.png",) * 2, describer="small"))
    assert found["matches"]["scores"] == []
    assert found["model"]["matrix"] is None
    assert found["model"]["reason"]
    assert found["relation"] is None
    assert found["verdict"]["answer"] == "no"


def test_a_fundamental_matrix_is_carried_to_the_uploads(tmp_path: Path) -> None:
    folder = Path(sys.modules["lisrd.web"].__file__ or "").parent / "examples"
    paths = folder / "motorcycle-day.jpg", folder / "motorcycle-right.jpg"
    request = MatchRequest(paths, describer="small", model="fundamental", max_keypoints=800)
    found = answered(request, Limits(max_side=400))
    F = np.array(found["model"]["matrix"])
    inside = np.array(found["matches"]["inliers"])
    points0, points1 = (np.array(found["matches"][f"points{k}"])[inside] for k in (0, 1))
    lines = np.column_stack([points0, np.ones(len(points0))]) @ F.T
    off = np.abs((lines[:, :2] * points1).sum(1) + lines[:, 2]) / np.linalg.norm(lines[:, :2], axis=1)
    assert len(off) > 100
    assert np.median(off) < 2  # half a pixel of the copy is one of the upload
    assert np.median(np.abs(points0[:, 1] - points1[:, 1])) < 1  # the pair is rectified


class Elements(HTMLParser):
    """The tags of a piece of HTML, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60))
def test_no_text_becomes_html(text: str) -> None:
    document = json.dumps({"note": text + "</data><script>alert(1)</script>&lt;"})
    elements = Elements(answer_element(document))
    assert elements.tags == ["lisrd-matches", "data"]
    assert json.loads(elements.text) == json.loads(document)
    assert Elements(error_element(text + "<img src=x onerror=alert(1)>")).tags == ["div", "strong"]


def test_the_viewer_names_no_other_server() -> None:
    assert "http" not in head()
    assert head().count("</script>") == 1


def knock(guard: Guard, path: str, method: str = "GET", length: int | None = 10) -> int:
    """The status of a refusal, 0 where the request gets through."""
    headers = [] if length is None else [(b"content-length", str(length).encode())]
    refusal = guard.refusal({"type": "http", "method": method, "path": path, "headers": headers})
    return refusal.status if refusal else 0


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("nobody was to get here")


@pytest.fixture
def guard(uploads: Path) -> Guard:
    return Guard(nothing, uploads, Limits(upload=10_000, disk=20_000, files=5))


@pytest.mark.parametrize("path", ["/", "/config", "/assets/index.js", "/gradio_api/queue/data"])
def test_the_pages_own_routes_are_open(guard: Guard, path: str) -> None:
    assert knock(guard, path) == 0


@pytest.mark.parametrize(
    "path",
    [
        "/docs",
        "/monitoring",
        "/monitoring/summary",
        "/file=/etc/passwd",
        "/file/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/proxy=https://example.org/",
        "/gradio_api/file=https://example.org/",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=pyproject.toml",
        "/gradio_api/file={uploads}/../secret.png",
        "/gradio_api/file={uploads}/%2e%2e/secret.png",
        "/gradio_api/file={uploads}/..\\secret.png",
        "/assets/../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/static/..%2f..%2fetc/passwd",
        "/gradio_api/openapi.json",
        "/gradio_api/runs",
        "/gradio_api/run-history/records",
        "/gradio_api/deep_link",
        "/gradio_api/vibe-code",
        "/gradio_api/custom_component/1/client/component/x",
    ],
)
def test_every_other_route_is_closed(guard: Guard, uploads: Path, path: str) -> None:
    assert knock(guard, path.format(uploads=uploads)) == 404


@pytest.mark.parametrize(
    "path",
    ["run/match", "api/match", "call/match", "call/v2/match", "process_recording", "vibe-edit", "stream/1"],
)
def test_matches_go_by_the_queue_alone(guard: Guard, path: str) -> None:
    assert knock(guard, f"/gradio_api/{path}", "POST") == 404


def test_uploads_can_be_seen_by_who_knows_them(guard: Guard, uploads: Path) -> None:
    assert knock(guard, f"/gradio_api/file={uploads}/a/one.png") == 0
    (uploads / "link.png").symlink_to(uploads.parent / "secret.png")
    assert knock(guard, f"/gradio_api/file={uploads}/link.png") == 404


def test_bodies_are_measured_before_they_are_read(guard: Guard) -> None:
    assert knock(guard, "/gradio_api/upload", "POST", 10_000) == 0
    assert knock(guard, "/gradio_api/upload", "POST", 20_000) == 413
    assert knock(guard, "/gradio_api/queue/join", "POST", 10_000) == 0
    assert knock(guard, "/gradio_api/queue/join", "POST", 100_000) == 413
    assert knock(guard, "/gradio_api/upload", "POST", None) == 411
    assert knock(guard, "/gradio_api/upload", "PUT") == knock(guard, "/", "DELETE") == 404


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b'{"data": [{"path": "%s/a/one.png"}, {"path": "%s/a/one.png"}, "sift"]}', 0),
        (b'{"data": []}', 0),
        (b'{"data": [{"path": "/etc/passwd"}]}', 400),
        (b'{"data": [{"path": "%s/../secret.png"}]}', 400),
        (b'{"data": [{"a": [{"path": "https://example.org/a.png"}]}]}', 400),
        (b'{"data": [{"path": null}]}', 400),
        (b'{"data": [{"path": "%s/a/one.png", "b": {"path": "/etc/passwd"}}]}', 400),
        (b"no json", 400),
        (b"[" * 60_000, 400),
        (b"\xff\xfe", 400),
    ],
)
def test_messages_name_uploads_alone(guard: Guard, uploads: Path, message: bytes, status: int) -> None:
    refusal = guard.refusal_of_message(message.replace(b"%s", os.fsencode(uploads)))
    assert (refusal.status if refusal else 0) == status


def test_uploads_together_have_a_limit(guard: Guard, uploads: Path) -> None:
    write(uploads / "large.png", b"x" * 15_000)
    assert knock(guard, "/gradio_api/upload", "POST", 9_000) == 507
    (uploads / "large.png").unlink()
    for k in range(5):
        write(uploads / f"{k}.png", b"x")
    assert knock(guard, "/gradio_api/upload", "POST", 10) == 507


def test_old_uploads_are_swept(uploads: Path) -> None:
    old, kept = (write(uploads / "a" / name, b"x") for name in ("old", "kept"))
    write(uploads / "a" / "young", b"x")
    (uploads / "empty").mkdir()
    hour_ago = time.time() - 3600
    for path in (old, kept, uploads / "a" / "one.png", uploads / "empty", uploads):
        os.utime(path, (hour_ago, hour_ago))
    sweep(uploads, 60, frozenset({kept}))
    assert sorted(path.name for path in uploads.rglob("*")) == ["a", "kept", "young"]
    sweep(uploads.parent / "gone", 60)


def test_serve_without_its_extra(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(sys, "argv", ["lisrd", "serve", "--port", "0"])
    with pytest.raises(SystemExit) as stopped:
        console.run(app)
    assert stopped.value.code == console.BAD_INPUT
    assert "pip install 'lisrd[web]'" in capsys.readouterr().err


def test_serve_offers_each_name_once(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["lisrd", "serve", "--describer", "pyramid", "--describer", "pyramid=x"])
    with pytest.raises(SystemExit) as stopped:
        console.run(app)
    assert stopped.value.code == console.BAD_INPUT
    assert "name each once" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"), [(EOFError, "ended while it loaded"), (TimeoutError, "longer than 180 seconds")]
)
def test_workers_that_do_not_start_end_the_start(
    error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = []

    class Failing:
        def __init__(self, staff: Staff) -> None: ...

        def menu(self) -> None:
            raise error

        def end(self) -> None:
            ended.append(self)

    monkeypatch.setattr("lisrd.web.workers._Worker", Failing)
    with pytest.raises(InputError, match=message):
        Workers(Staff({"sift": "sift"}, {"root-sift": "root-sift"}), 2)
    assert len(ended) == 2
