"""The page: its tabs and its look."""

from pathlib import Path
from typing import Any

import gradio as gr

from diffnca.app import draw, extend, inpaint, large, make, train, upscale, vary
from diffnca.app.owner import Owner
from diffnca.app.sessions import LARGEST_UPLOAD_BYTES

MOST_WAITING = 16
"""Requests that wait, of all tabs together; more are refused."""

SECONDS_BETWEEN_CLEANING, LONGEST_UPLOAD_SECONDS = 600, 3600
"""Uploads that no event has taken over go after this time."""

TABS = (make, draw, inpaint, extend, upscale, vary, large, train)
"""All tabs, in their order."""

HEADING = '<div class="heading"><h1>diffnca</h1><p>Images by cellular automata, on this machine</p></div>'

FONTS, CODE_FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
"""Fonts that are there already."""

CONTRAST = {
    "body_text_color_subdued": "*neutral_600",
    "button_primary_background_fill": "*primary_700",
    "button_primary_background_fill_dark": "*primary_700",
    "button_primary_background_fill_hover": "*primary_800",
    "button_primary_background_fill_hover_dark": "*primary_800",
}
"""Colours of the theme in which all text has a contrast of 4.5 or more."""


def page_of(owner: Owner) -> Any:
    """Return the page."""
    with gr.Blocks(
        title="diffnca",
        analytics_enabled=False,
        delete_cache=(SECONDS_BETWEEN_CLEANING, LONGEST_UPLOAD_SECONDS),
        fill_width=True,
    ) as page:
        gr.HTML(HEADING)
        with gr.Tabs():
            for each in TABS:
                each.tab(owner, page)

        def closed(request: gr.Request) -> None:
            owner.sessions.close(request.session_hash or "")

        page.unload(closed)
    confine(page, owner.sessions.uploads)
    return page.queue(max_size=MOST_WAITING, default_concurrency_limit=4, api_open=False)


def confine(page: Any, folder: Path) -> None:
    """Let events take only files that were uploaded.

    A mounted page of gradio would also copy any other file that the browser names, and fetch any address.
    """

    async def uploaded(path: Any) -> str:
        if not Path(str(path)).resolve().is_relative_to(folder.resolve()):
            raise ValueError("the file was not uploaded: must be uploaded first")
        return str(path)

    for block in page.blocks.values():
        block.async_move_resource_to_block_cache = uploaded


def mounted(app: Any, owner: Owner) -> Any:
    """Return a FastAPI app that also serves the page."""
    folder = Path(__file__).parent
    scripts = [(folder / f"{name}.js").read_text(encoding="utf-8") for name in ("brush", "page")]
    return gr.mount_gradio_app(
        app,
        page_of(owner),
        path="/",
        server_name="127.0.0.1",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        max_file_size=LARGEST_UPLOAD_BYTES,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=gr.themes.Base(font=FONTS, font_mono=CODE_FONTS, primary_hue="teal", neutral_hue="stone").set(
            **CONTRAST
        ),
        css_paths=[folder / "page.css"],
        head="".join(f"<script>{script}</script>" for script in scripts),
    )
