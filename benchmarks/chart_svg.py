"""Charts of the report as one picture that stands alone, for documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import escape

from amn_dist.report.charts import Chart, Line

COLOURS = ("#0b5cad", "#b3430b", "#0a7048", "#8a2f8f", "#6b5900", "#b01657", "#006473", "#4d4d4d")
DASHES = ("none", "7 3", "2 3", "8 3 2 3")
TITLE, ROW, GAP = 24, 16, 14
"""Pixels above a chart, of a line of its legend, and between charts."""
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#50565e}.title{font-weight:600;fill:#1a1d21}"
    ".grid{stroke:#c5cad1;stroke-width:.6}.line{fill:none;stroke-width:2;stroke-linejoin:round}"
)


def charts_svg(charts: Sequence[Chart], *, columns: int = 2) -> str:
    """The charts in rows of so many, each with its title and legend."""
    deep = TITLE + charts[0].height + ROW * max(len(chart.lines) for chart in charts) + GAP
    wide = charts[0].width + GAP
    rows = -(-len(charts) // columns)
    width, height = wide * min(columns, len(charts)), deep * rows
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">']
    parts += [f"<style>{STYLE}</style>", f'<rect width="{width}" height="{height}" fill="#fff"/>']
    for number, chart in enumerate(charts):
        at = f"{wide * (number % columns)} {deep * (number // columns)}"
        parts += [f'<g transform="translate({at})">', *_chart(chart), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _chart(chart: Chart) -> Iterator[str]:
    left, top, right, bottom = chart.frame
    yield f'<text class="title" x="{left}" y="{TITLE - 8}">{escape(chart.title)}</text>'
    yield f'<g transform="translate(0 {TITLE})"><desc>{escape(chart.description)}</desc>'
    for value in chart.y.ticks():
        y = chart.down(value)
        yield f'<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{left - 5}" y="{y + 4}" text-anchor="end">{escape(chart.y.text(value))}</text>'
    for value in chart.x.ticks():
        across = chart.across(value)
        yield f'<text x="{across}" y="{bottom + 15}" text-anchor="middle">{escape(chart.x.text(value))}</text>'
    yield f'<text x="{(left + right) / 2}" y="{chart.height - 5}" text-anchor="middle">{escape(chart.x.name)}</text>'
    turned = f'transform="translate(11 {(top + bottom) / 2}) rotate(-90)"'
    yield f'<text {turned} text-anchor="middle">{escape(chart.y.name)}</text>'
    for number, line in enumerate(chart.lines):
        yield f'<polyline class="line" {_stroke(number)} points="{chart.path(line)}"/>'
    yield from _legend(chart.lines, left, chart.height)
    yield "</g>"


def _legend(lines: Sequence[Line], left: int, top: int) -> Iterator[str]:
    for number, line in enumerate(lines):
        y = top + ROW * (number + 1) - 6
        yield f'<line class="line" {_stroke(number)} x1="{left}" x2="{left + 28}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{left + 36}" y="{y + 4}">{escape(line.label)}</text>'


def _stroke(number: int) -> str:
    return f'stroke="{COLOURS[number % len(COLOURS)]}" stroke-dasharray="{DASHES[number % len(DASHES)]}"'
