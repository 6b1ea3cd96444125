"""A flame graph as one small SVG: width is the number of samples, colour the group of `folded.py`.

Frames narrower than half a pixel are left out, so that the file is small enough to commit with the results.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import NamedTuple

from bench.folded import LOOP, OTHER, Frame, Stack, group_of

WIDTH, ROW, TOP = 1200, 16, 84
NARROWEST = 0.5  # pixels
LETTER = 6.6  # pixels, of the font below
COLOURS = (
    "#8fd3b6",
    "#f3b48b",
    "#a9c1ee",
    "#e6cf7a",
    "#d3a8dd",
    "#f2a3b3",
    "#9fd8dd",
    "#c9d68a",
    "#c7b9a6",
    "#b8b8e6",
    "#f0c6e0",
    "#b5d5b0",
)


class Box(NamedTuple):
    """One frame's rectangle."""

    frame: Frame
    group: str
    depth: int
    start: int
    count: int


def boxes(stacks: list[Stack], depth: int = 0, start: int = 0) -> Iterator[Box]:
    """Lay out the frames at `depth` and above, by name; neighbours with the same callers become one box."""
    children: dict[Frame, list[Stack]] = {}
    for stack in stacks:
        if len(stack.frames) > depth:
            children.setdefault(stack.frames[depth], []).append(stack)
    for frame in sorted(children):
        below = children[frame]
        count = sum(stack.count for stack in below)
        yield Box(frame, group_of(Stack(below[0].frames[: depth + 1], 1)), depth, start, count)
        yield from boxes(below, depth + 1, start)
        start += count


def draw(stacks: list[Stack], title: str) -> str:
    """Draw the SVG."""
    total = max(sum(stack.count for stack in stacks), 1)
    scale = WIDTH / total
    wide = [box for box in boxes(stacks) if box.count * scale >= NARROWEST]
    height = TOP + ROW * (1 + max((box.depth for box in wide), default=0)) + 8
    groups = sorted({box.group for box in wide} - {LOOP, OTHER})
    colours = {group: COLOURS[index % len(COLOURS)] for index, group in enumerate(groups)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" '
        f'font-size="11"><title>{escape(title)}</title><rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{WIDTH / 2}" y="22" text-anchor="middle" font-size="15">{escape(title)}</text>',
    ]
    for index, (group, colour) in enumerate(colours.items()):
        x, y = 8 + 298 * (index % 4), 34 + 15 * (index // 4)
        parts.append(f'<rect x="{x}" y="{y}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="{y + 9}" font-size="10">{escape(group)}</text>')
    for box in wide:
        x, y, width = box.start * scale, height - 8 - ROW * (box.depth + 1), box.count * scale
        words = f"{box.frame.name} ({box.frame.file}), {box.count / total:.1%}, {box.group}"
        fill = colours.get(box.group, "#dddddd")
        parts.append(
            f'<g><title>{escape(words)}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}" '
            f'fill="{fill}"/>{_name(box.frame.name, x, y, width)}</g>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _name(name: str, x: float, y: float, width: float) -> str:
    room = int((width - 4) / LETTER)
    if room < 4:
        return ""
    return f'<text x="{x + 2:.1f}" y="{y + 12}">{escape(name if len(name) <= room else name[: room - 1] + "…")}</text>'
