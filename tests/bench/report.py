#!/usr/bin/env python3
"""Turns the JSON lines of run.py into a table, as text or Markdown, and a picture.

Usage: report.py RESULTS.jsonl [--markdown] [--svg FILE]
"""
import argparse
import json
import statistics
import sys
from html import escape

FOREIGN, CLEAN = 0.05, 3  # windows disturbed by more than this share are left out where so many others remain


class Row:
    def __init__(self, name, windows, note, absent):
        self.name, self.note, self.absent = name, note, absent
        self.rates = {}
        for cores in sorted({window["cores"] for window in windows}):
            own = [window for window in windows if window["cores"] == cores]
            clean = [window for window in own if window["foreign"] <= FOREIGN]
            self.rates[cores] = sorted(window["rate"] for window in (clean if len(clean) >= CLEAN else own))
        most = max(self.rates, default=0)
        self.memory = max((window["memory"] for window in windows if window["cores"] == most), default=0)

    @property
    def ours(self):
        return self.name.startswith("byol")

    @property
    def floor(self):
        return self.name.startswith("floor")

    def median(self, cores):
        return statistics.median(self.rates[cores]) if cores in self.rates else 0.0


class Results:
    def __init__(self, lines):
        def values(kind, key):
            return {line["name"]: line[key] for line in lines if line["kind"] == kind}

        windows = [line for line in lines if line["kind"] == "window"]
        notes, absent = values("row", "note"), values("absent", "reason")
        names = list(dict.fromkeys(line["name"] for line in lines if "name" in line))
        self.run = next(line for line in lines if line["kind"] == "run")
        self.rows = [Row(name, [w for w in windows if w["name"] == name], notes.get(name, ""), absent.get(name)) for name in names]
        self.cores = sorted({window["cores"] for window in windows})
        self.measured = [row for row in self.rows if row.rates]
        self.measured.sort(key=lambda row: -row.median(max(self.cores)))
        self.disturbed = sum(window["foreign"] > FOREIGN for window in windows)
        self.windows = len(windows)


def _number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _speed(row, cores):
    rates = row.rates.get(cores)
    if not rates:
        return "-"
    middle = _number(row.median(cores))
    return middle if len(rates) == 1 else f"{middle} ({_number(rates[0])} to {_number(rates[-1])})"


def _times(ours, row, cores):
    if row.ours or not row.median(cores) or not ours.median(cores):
        return ""
    ratio = ours.median(cores) / row.median(cores)
    return f"{100 * ratio:.0f} %" if row.floor else f"{ratio:.1f}x"


def table(results):
    most = max(results.cores)
    ours = [row for row in results.measured if row.ours]
    head = [""] + [f"pairs/s, {cores} core{'s' if cores > 1 else ''}" for cores in results.cores]
    head += ["memory, MB"] + [f"{row.name} / this" for row in ours]
    body = []
    for row in results.measured:
        cells = [row.name] + [_speed(row, cores) for cores in results.cores]
        cells += [f"{row.memory / 1e6:,.0f}" if row.memory else ""] + [_times(mine, row, most) for mine in ours]
        body.append(cells)
    return [head] + body


def as_text(cells):
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = []
    for row in cells:
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        lines.append("  ".join([row[0].ljust(widths[0])] + rest).rstrip())
    return "\n".join(lines)


def as_markdown(cells):
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "| --- |" + " ---: |" * (len(cells[0]) - 1)] + lines[1:])


def notes(results):
    run, size = results.run, {"byol": 224, "small": 32}[results.run["recipe"]]
    lines = [
        f"{run['data']}: {run['files']:,} JPEG files of {run['bytes'] / run['files']:,.0f} bytes on average, in the page cache. "
        f"Pairs of {size} px views, float32, normalised, batches of 64, one worker per core. {run['machine']}, {run['date']}.",
        "Medians (least to largest) of windows taken in turn. Memory: peers' process trees with shared pages counted once, "
        "ours at its peak; with the most cores.",
    ]
    if results.disturbed:
        lines.append(f"Other work took more than {100 * FOREIGN:.0f} % of the machine in {results.disturbed} of {results.windows} windows.")
    return lines


def details(results):
    lines = [f"{row.name}: {row.note}." for row in results.measured if row.note]
    return lines + [f"{row.name}: {row.absent}." for row in results.rows if row.absent]


def text(results, markdown):
    cells = table(results)
    if markdown:
        return "\n".join([as_markdown(cells), "", "\n".join(notes(results)), ""] + ["- " + line for line in details(results)])
    return "\n".join([as_text(cells), ""] + notes(results) + [""] + details(results))


# --- picture -------------------------------------------------------------------------------------

WIDTH, LEFT, RIGHT, TOP, STEP, BAR = 760, 220, 80, 64, 30, 18
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px } .small { font-size: 12px; fill: #59636e }
.ours { fill: #1a7f5a } .peer { fill: #afb8c1 } .floor { fill: none; stroke: #8c959f; stroke-dasharray: 4 3 } .spread { stroke: #59636e }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } .ours { fill: #2ea879 } .peer { fill: #545d68 } .floor { stroke: #768390 } .spread { stroke: #c9d1d9 }
}"""


def _bar(row, cores, y, scale):
    kind = "ours" if row.ours else "floor" if row.floor else "peer"
    width, middle = row.median(cores) * scale, y + BAR / 2 + 4.5
    low, high = row.rates[cores][0] * scale + LEFT, row.rates[cores][-1] * scale + LEFT
    spread = f'<path class="spread" d="M{low:.1f} {y + BAR / 2}H{high:.1f}"/>' if high - low >= 1 else ""
    weight = ' font-weight="600"' if row.ours else ""
    return (
        f'<text x="{LEFT - 10}" y="{middle}" text-anchor="end"{weight}>{escape(row.name)}</text>'
        f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{max(width, 1):.1f}" height="{BAR}" rx="2"/>{spread}'
        f'<text x="{max(LEFT + width, high) + 8:.1f}" y="{middle}"{weight}>{_number(row.median(cores))}</text>'
    )


def picture(results):
    """Bars of the medians with the most cores, the line in each from the least window to the largest."""
    cores, run = max(results.cores), results.run
    rows = [row for row in results.measured if cores in row.rates]
    scale = (WIDTH - LEFT - RIGHT) / max(row.rates[cores][-1] for row in rows)
    height = TOP + STEP * len(rows) + 12
    size = {"byol": 224, "small": 32}[run["recipe"]]
    title = f"Pairs of {size} px views per second, {cores} core{'s' if cores > 1 else ''}"
    under = f"{run['machine']}; median, and spread of the windows; the floor is images per second"
    bars = "\n".join(_bar(row, cores, TOP + STEP * at, scale) for at, row in enumerate(rows))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}\n</style>\n"
        f'<text class="title" x="12" y="26">{escape(title)}</text>\n<text class="small" x="12" y="46">{escape(under)}</text>\n{bars}\n</svg>\n'
    )


def write(lines, markdown, svg):
    results = Results(lines)
    if not results.measured:
        sys.exit("bench: nothing was measured")
    print(text(results, markdown))
    if svg:
        with open(svg, "w") as file:
            file.write(picture(results))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--svg", default="")
    options = parser.parse_args()
    try:
        with open(options.results) as file:
            lines = [json.loads(line) for line in file]
    except OSError as error:
        sys.exit(f"bench: {error}")
    write(lines, options.markdown, options.svg)


if __name__ == "__main__":
    main()
