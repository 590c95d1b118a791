"""Draws the figures as bars: an SVG without any library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

from benchmarks.figures import LIMIT, OWN, OWN_IN_PLACE, TABLES, Rounds, Spread, Table, spread

_COLUMNS = 2
_PANEL_WIDTH = 470
_MARGIN = 20
_NAME_WIDTH = 128
_VALUE_WIDTH = 70
_ROW = 22
_BAR = 13
_HEAD = 34
_SHOWN = ("bulk", "retry", "serial", "latency", "start")

_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; font-size: 13px; }
.hint, .value { fill: #57606a; font-size: 11px; }
.value { font-variant-numeric: tabular-nums; }
.bar { fill: #8c959f; } .own { fill: #0969da; } .limit { fill: #d8dee4; }
.range { stroke: #24292f; stroke-width: 1; }
.back { fill: #ffffff; }
""".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """One table as bars, its upper left corner at (x, y)."""

    table: Table
    bars: Mapping[str, Spread]
    titles: Mapping[str, str]

    @property
    def height(self) -> int:
        return _HEAD + _ROW * len(self.bars) + _MARGIN

    def draw(self, x: int, y: int) -> Iterator[str]:
        hint = "more is better" if self.table.more_is_better else "less is better"
        column = self.table.columns[0]
        yield f'<text class="title" x="{x}" y="{y + 12}">{escape(self.table.title)}</text>'
        yield f'<text class="hint" x="{x}" y="{y + 27}">{escape(column.head)}; {hint}</text>'
        most = max(bar.high for bar in self.bars.values()) or 1.0
        scale = (_PANEL_WIDTH - _NAME_WIDTH - _VALUE_WIDTH) / most
        for row, (peer, bar) in enumerate(self.bars.items()):
            yield from self._bar(x, y + _HEAD + row * _ROW, peer, bar, scale)

    def _bar(self, x: int, y: int, peer: str, bar: Spread, scale: float) -> Iterator[str]:
        kind = {OWN: "own", OWN_IN_PLACE: "own", LIMIT: "limit"}.get(peer, "bar")
        left, middle = x + _NAME_WIDTH, y + _ROW / 2
        low, high = left + bar.low * scale, left + bar.high * scale
        digits = self.table.columns[0].digits
        name = escape(self.titles[peer])
        yield f'<text x="{left - 6}" y="{middle + 4}" text-anchor="end">{name}</text>'
        yield (
            f'<rect class="{kind}" x="{left}" y="{middle - _BAR / 2}" '
            f'width="{max(1.0, bar.middle * scale):.1f}" height="{_BAR}"/>'
        )
        yield f'<path class="range" d="M{low:.1f} {middle}H{high:.1f}"/>'
        yield (
            f'<text class="value" x="{high + 6:.1f}" y="{middle + 4}">'
            f"{bar.middle:,.{digits}f}</text>"
        )


def plot(samples: Mapping[str, Rounds], titles: Mapping[str, str]) -> str:
    """Return the picture of a run: medians as bars, least to greatest as a line on each."""
    panels = [panel for table in TABLES if (panel := _panel(table, samples, titles))]
    body: list[str] = []
    y = _MARGIN
    for at in range(0, len(panels), _COLUMNS):
        row = panels[at : at + _COLUMNS]
        for place, panel in enumerate(row):
            body += panel.draw(_MARGIN + place * (_PANEL_WIDTH + _MARGIN), y)
        y += max(panel.height for panel in row)
    width = _MARGIN + _COLUMNS * (_PANEL_WIDTH + _MARGIN)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" role="img">'
    back = f'<rect class="back" width="{width}" height="{y}"/>'
    title = "<title>cluster-kit and its peers on RabbitMQ</title>"
    return "\n".join([head, title, f"<style>{_STYLE}</style>", back, *body, "</svg>", ""])


def _panel(table: Table, samples: Mapping[str, Rounds], titles: Mapping[str, str]) -> _Panel | None:
    if table.experiment not in _SHOWN:
        return None
    rounds = samples.get(table.experiment, {})
    name = table.columns[0].name
    bars = {peer: bar for peer in rounds if (bar := spread(rounds, peer, name))}
    return _Panel(table=table, bars=bars, titles=titles) if bars else None
