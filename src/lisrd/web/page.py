"""The page itself: two photographs, the choices, and a place for the answer."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr

from lisrd.errors import InputError
from lisrd.web.element import answer_element, error_element
from lisrd.web.limits import MEGABYTE, Limits
from lisrd.web.request import MIN_KEYPOINTS, MODELS, TURNS, Match, Menu, checked_request

_INTRODUCTION = """# LISRD
Drop two photographs of one place. Rotation and light may differ: for every match, the descriptor that is invariant to
just what changed there is chosen, and below you see which."""

_EMPTY = '<div class="lisrd-empty">The matches appear here.</div>'

#: Photographs of `examples/` and what they show.
EXAMPLES = (
    ("motorcycle-day.jpg", "motorcycle-evening.jpg", "Another camera, turned by 100°, in the evening"),
    ("motorcycle-day.jpg", "motorcycle-right.jpg", "Another camera, a step to the right"),
    ("coffee.jpg", "motorcycle-evening.jpg", "Two different places"),
)

#: A font of the visitor's system: gradio's own default would be fetched from elsewhere.
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONOSPACE = ("ui-monospace", "SFMono-Regular", "Consolas", "monospace")


def build_page(match: Match, menu: Menu, uploads: Path, limits: Limits, workers: int = 1) -> gr.Blocks:
    """The page; `match` gives the JSON of an answer, `uploads` is the folder that photographs are taken from.

    Queue, cached files and telemetry are set here; theme and style are `theme` and `static/page.css`.
    """

    def answer(*values: Any) -> str:
        try:
            return answer_element(match(checked_request(values, menu, uploads, limits.max_keypoints)))
        except InputError as error:
            return error_element(str(error))

    seconds = limits.keep_seconds
    with gr.Blocks(
        title="LISRD: match two photographs",
        analytics_enabled=False,
        delete_cache=(min(60, seconds), seconds),
    ) as page:
        gr.Markdown(_INTRODUCTION, elem_id="introduction")
        photographs = [_photograph(k, limits) for k in (1, 2)]
        _examples(photographs, uploads)
        with gr.Row(elem_id="question"):
            for photograph in photographs:
                photograph.render()
            with gr.Column(min_width=280, elem_id="choices"):
                choices = _choices(menu, limits)
                button = gr.Button("Match", variant="primary", elem_id="match")
        result = gr.HTML(_EMPTY, elem_id="result")
        # The browser's values arrive as it sent them: gradio would open and decode the files before our checks.
        button.click(
            answer,
            [*photographs, *choices],
            result,
            preprocess=False,
            api_name="match",
            concurrency_limit=workers,
            show_progress="full",
            trigger_mode="once",
            scroll_to_output=True,
        )
    page.queue(max_size=limits.queue, api_open=False)
    return page


def _photograph(number: int, limits: Limits) -> gr.Image:
    return gr.Image(
        label=f"Photograph {number}",
        type="filepath",
        sources=["upload", "clipboard"],
        buttons=[],
        height=342,
        min_width=260,
        elem_id=f"photograph{number}",
        render=False,
        placeholder=f"Drop photograph {number} here, or click\n(up to {limits.upload // MEGABYTE} MB)",
    )


def _choices(menu: Menu, limits: Limits) -> list[gr.components.Component]:
    """Detector, describer, invariance, turn, model, keypoints: the order of `checked_request`."""
    first = next(iter(menu.describers))
    describer = gr.Dropdown(
        list(menu.describers), value=first, label="Describer and weights", elem_id="describer"
    )
    invariance = gr.Dropdown(
        menu.invariance_choices(first), value="soft", label="Invariance", elem_id="invariance"
    )
    detector = gr.Dropdown(
        list(menu.detectors), value=menu.detectors[0], label="Detector", elem_id="detector"
    )
    with gr.Accordion("More", open=False, elem_id="more"):
        turn = gr.Dropdown(list(TURNS), value="auto", label="Photograph 2 is read", elem_id="turn")
        model = gr.Radio(list(MODELS), value="homography", label="Verified by", elem_id="model")
        count = gr.Slider(
            MIN_KEYPOINTS,
            limits.max_keypoints,
            value=min(2048, limits.max_keypoints),
            step=64,
            label="Keypoints of a photograph, at most",
            elem_id="keypoints",
        )
    # In the browser alone: what each describer offers is known, and no request is needed.
    offered = {name: menu.invariance_choices(name) for name in menu.describers}
    describer.change(
        None,
        describer,
        invariance,
        js=f"(name) => {{ const offered = {json.dumps(offered)}; "
        "return {__type__: 'update', choices: offered[name] ?? [], value: 'soft'}; }",
    )
    return [detector, describer, invariance, turn, model, count]


def _examples(photographs: list[gr.Image], uploads: Path) -> None:
    """Buttons that fill in a pair; copies lie among the uploads, because only those can be shown and matched."""
    folder = uploads / "examples"
    folder.mkdir(exist_ok=True)
    for name in {name for first, second, _ in EXAMPLES for name in (first, second)}:
        (folder / name).write_bytes((files("lisrd.web") / "examples" / name).read_bytes())
    with gr.Row(elem_id="examples"):
        gr.HTML("Or try", elem_id="try", min_width=0)
        for k, (first, second, words) in enumerate(EXAMPLES, start=1):
            gr.Button(words, size="sm", elem_id=f"example{k}").click(
                None, None, photographs, js=_filling_in([str(folder / first), str(folder / second)])
            )


def _filling_in(paths: list[str]) -> str:
    """In the browser alone, like gradio's own record of an upload; no request waits in the queue."""
    return (
        f"() => {json.dumps(paths)}.map((path) => ({{ path, orig_name: path.split('/').at(-1), "
        "url: new URL('gradio_api/file=' + path, document.baseURI).href, meta: { _type: 'gradio.FileData' } }))"
    )


def theme() -> gr.themes.Base:
    """Gradio's own theme, in the visitor's own fonts."""
    return gr.themes.Default(
        primary_hue="orange", neutral_hue="slate", radius_size="lg", font=_FONTS, font_mono=_MONOSPACE
    )
