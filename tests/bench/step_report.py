"""Turns the runs of step.py into tables, as text or Markdown."""
import statistics

from report import as_markdown, as_text

FOREIGN = 0.05  # a run disturbed by more than this share is left out where a clean one remains


def _clean(runs):
    return [run for run in runs if run["foreign"] <= FOREIGN] or runs


def _rows(result):
    """Rows by configuration, in the order of measuring: ours first."""
    names = list(dict.fromkeys((run["configuration"], run["row"]) for run in result["runs"]))
    for configuration in dict.fromkeys(name for name, _ in names):
        found = []
        for row in [row for name, row in names if name == configuration]:
            runs = [run for run in result["runs"] if (run["configuration"], run["row"]) == (configuration, row)]
            rates = sorted(run["pairs_per_second"] for run in _clean(runs))
            found.append(
                {
                    "row": row,
                    "ours": row.startswith("byol"),
                    "precision": "bf16" if "bf16" in row else "f32",
                    "rate": statistics.median(rates),
                    "least": rates[0],
                    "largest": rates[-1],
                    "memory": statistics.median(run["memory"] for run in runs),
                    "shares": runs[-1].get("shares"),
                    "parameters": runs[-1].get("parameters"),
                    "imported": runs[-1].get("imported_bytes", 0),
                }
            )
        counts = {row["parameters"] for row in found if row["parameters"]}
        if len(counts) > 1:
            raise SystemExit(f"bench-step: {configuration}: not the same network: {sorted(counts)} parameters")
        yield configuration, sorted(found, key=lambda row: (not row["ours"], -row["rate"]))


def summary(result):
    """For each configuration its rows, and how ours compares with PyTorch's best, at any precision and in f32."""
    found = []
    for configuration, rows in _rows(result):
        ours, theirs = [row for row in rows if row["ours"]], [row for row in rows if not row["ours"]]
        entry = {"configuration": configuration, "rows": rows}
        for name, precisions in (("best", ("bf16", "f32")), ("f32", ("f32",))):
            mine, other = ([row for row in side if row["precision"] in precisions] for side in (ours, theirs))
            if mine and other:
                mine, other = (max(side, key=lambda row: row["rate"]) for side in (mine, other))
                entry[name] = {
                    "ours": mine["row"],
                    "peer": other["row"],
                    "times": mine["rate"] / other["rate"],
                    "memory": mine["memory"] / other["memory"],
                }
        found.append(entry)
    return found


def _times(entry, row):
    cells = []
    for mine in [one for one in entry["rows"] if one["ours"]]:
        cells.append("" if row["ours"] else f"{mine['rate'] / row['rate']:.2f}x")
    return cells


def _speed_table(found):
    ours = list(dict.fromkeys(row["row"] for entry in found for row in entry["rows"] if row["ours"]))
    cells = [["", "pairs/s", "memory, MB"] + [f"{name} / this" for name in ours]]
    for entry in found:
        for row in entry["rows"]:
            times = _times(entry, row)
            spread = f"{row['rate']:.2f} ({row['least']:.2f} to {row['largest']:.2f})"
            cells.append([f"{entry['configuration']}: {row['row']}", spread, f"{row['memory'] / 1e6:,.0f}"] + times + [""] * (len(ours) - len(times)))
    return cells


def _verdict_table(found):
    cells = [["ours / PyTorch's best", "pairs/s", "memory", "which"]]
    for entry in found:
        for name, label in (("best", "best mode"), ("f32", "f32")):
            if name in entry:
                one = entry[name]
                cells.append([f"{entry['configuration']}, {label}", f"{one['times']:.2f}x", f"{one['memory']:.2f}x", f"{one['ours']} / {one['peer']}"])
    return cells


def _share_table(found):
    rows = [(f"{entry['configuration']}: {row['row']}", row["shares"]) for entry in found for row in entry["rows"] if row["shares"]]
    kinds = [kind for kind in dict.fromkeys(kind for _, shares in rows for kind in shares) if any(shares.get(kind, 0) >= 0.0005 for _, shares in rows)]
    return [["our time, %"] + kinds] + [[name] + [f"{100 * shares.get(kind, 0):.1f}" for kind in kinds] for name, shares in rows]


def _notes(result):
    imported = max(run.get("imported_bytes", 0) for run in result["runs"])
    versions = sorted({run["version"] for run in result["runs"] if "version" in run})
    disturbed = sum(run["foreign"] > FOREIGN for run in result["runs"])
    lines = [
        f"{result['machine']}, {result['threads']} threads, {result['date']}. Both networks, both views, losses, gradients, LARS and moving average, on "
        "made-up images. Medians (least to largest) of the median step of runs in turn.",
        "Memory: the process at its peak" + (f"; of PyTorch's, {imported / 1e6:,.0f} MB are there once it is imported." if imported else "."),
    ]
    if versions:
        lines.append(f"PyTorch {', '.join(versions)}. It pads symmetrically, which is faster there; ours as the reference (SAME).")
    if disturbed:
        lines.append(f"Other work took more than {100 * FOREIGN:.0f} % of the machine in {disturbed} of {len(result['runs'])} runs.")
    return lines + [f"{one['configuration']}: {one['row']}: left out, {one['reason']}." for one in result["absent"]]


def text(result, markdown):
    found, show = summary(result), as_markdown if markdown else as_text
    tables = [cells for cells in (_speed_table(found), _verdict_table(found), _share_table(found)) if len(cells) > 1]
    return "\n\n".join([show(cells) for cells in tables] + ["\n".join(_notes(result))])
