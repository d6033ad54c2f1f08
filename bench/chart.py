"""The chart: one bar per figure, how many times better than Nchan, on a logarithmic scale.

A bar starts at the line that is Nchan and runs right where we are better, left where we are worse; the small mark is
the target. Ratios of figures where less is better are inverted, so that longer to the right is always better. It is
hand-written SVG: it carries its own light and dark colours, and needs no script and no fonts of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from results import Comparison, Result, human
from servers import NCHAN

WIDTH = 1080
LABELS = 370  # where the axis begins
AXIS = 380  # how long it is
VALUES = LABELS + AXIS + 24
TOP = 96
ROW = 34
BAR = 16
LOWEST, HIGHEST = 1 / 8, 64

STYLE = """
.page{fill:#ffffff} .ink{fill:#1c2733} .soft{fill:#5b6b7a} .grid{stroke:#e3e8ed} .zero{stroke:#1c2733}
.good{fill:#1f8a70} .bad{fill:#d1603d} .mark{stroke:#1c2733}
@media (prefers-color-scheme: dark){
.page{fill:#10161d} .ink{fill:#e8eef4} .soft{fill:#93a4b5} .grid{stroke:#26313d} .zero{stroke:#e8eef4}
.good{fill:#35b597} .bad{fill:#ea8260} .mark{stroke:#e8eef4}}
text{font:14px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
.title{font-size:20px;font-weight:600} .small{font-size:12px} .end{text-anchor:end} .middle{text-anchor:middle}
""".strip()


def draw(results: Sequence[Result], about: str) -> str:
    """The results that have Nchan as baseline, as an SVG document; ``about`` is the small print."""
    rows = [result for result in results if result.scenario.of_servers and result.against(NCHAN)]
    bottom = TOP + ROW * len(rows)
    height = bottom + 74
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            'aria-label="pushcompat compared with Nchan">',
            f"<style>{STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>',
            _text(24, 38, "pushcompat compared with Nchan", "title ink"),
            _text(
                24, 60, "Times better than Nchan, on the same machine in the same run. The mark is the target.", "soft"
            ),
            *_grid(bottom),
            *(line for number, result in enumerate(rows) for line in _row(result, TOP + ROW * number)),
            *_small_print(about, bottom + 44),
            "</svg>\n",
        ]
    )


def _grid(bottom: int) -> Iterable[str]:
    for power in range(round(math.log2(LOWEST)), round(math.log2(HIGHEST)) + 1):
        x, kind = _x(2.0**power), "zero" if power == 0 else "grid"
        yield f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}"/>'
        label = "Nchan" if power == 0 else f"{2**power}×" if power > 0 else f"1/{2**-power}"
        yield _text(x, bottom + 18, label, "small middle " + ("ink" if power == 0 else "soft"))


def _row(result: Result, top: int) -> Iterable[str]:
    comparison = result.against(NCHAN)
    assert comparison  # draw() has left the others out
    better = comparison.measured if result.figure.more_is_better else 1 / comparison.measured
    start, end = sorted((_x(1.0), _x(better)))
    middle, text = top + ROW / 2, top + ROW / 2 + 5
    values = f"{_short(result.subject)} against {_short(result.values[NCHAN])}"
    target = _target(result, comparison)
    good = comparison.met and better >= (target or 0)
    yield _text(LABELS - 18, text, result.figure.title, "ink end")
    yield (
        f'<rect class="{"good" if good else "bad"}" x="{start:.1f}" y="{middle - BAR / 2}" '
        f'width="{max(end - start, 1):.1f}" height="{BAR}" rx="2"><title>{values} {result.figure.unit}</title></rect>'
    )
    if target:
        x = _x(target)
        yield f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{middle - 11}" y2="{middle + 11}" stroke-width="2"/>'
    yield _text(VALUES, text - 6, f"{human(better)} ×", "ink small")
    yield _text(VALUES, text + 8, f"{values} {result.figure.unit}", "soft small")


def _short(value: float) -> str:
    """Three significant digits and a thousand's sign."""
    for limit, sign in ((1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{sign}"
    return human(value)


def _target(result: Result, comparison: Comparison) -> float | None:
    """The target as a point on the axis: the one against Nchan, or else the bound on the value itself."""
    if target := comparison.target:
        return target.bound if target.at_least else 1 / target.bound
    bound = next((target.bound for target in result.figure.targets if target.than is None), None)
    return bound and result.values[NCHAN] / bound


def _x(better: float) -> float:
    share = math.log(min(max(better, LOWEST), HIGHEST) / LOWEST) / math.log(HIGHEST / LOWEST)
    return LABELS + AXIS * share


def _small_print(about: str, y: int) -> Iterable[str]:
    parts = about.split(" · ")
    half = (len(parts) + 1) // 2
    yield _text(24, y, " · ".join(parts[:half]), "soft small")
    yield _text(24, y + 16, " · ".join(parts[half:]), "soft small")


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
