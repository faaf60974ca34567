"""The figures of `penstock bench explain` as tables: on a terminal, and on a page in Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

_errors = ("error_relative", "error_complete_rows", "additivity_error")
_about = """Rows that vary, none seen in training, 8 % of their values missing. Rates are rows/s. Errors are the largest, over
the largest value, against the float64 reference: of all rows; of the rows with 0 for what is missing; and, for additivity, of
the sums."""
_about_deep = """Trees that are one chain of tests, as one-hot columns make them: the largest error over the largest value, and
in brackets the largest miss of a sum. Half of the rows are outliers, with half of the columns on, or all."""
_about_network = """Relative to one background row, the prediction included. The distance is the median row's, from the exact
Shapley values, over their length; expected gradients and DeepLIFT are not Shapley values and differ by more than error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """A table and what is said above it; the first column is words, the others are numbers."""

    heading: str
    about: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def for_terminal(self) -> Table:
        """With its heading as the title."""
        table = Table(title=self.heading or None, title_justify="left")
        for place, name in enumerate(self.head):
            table.add_column(name, justify="right" if place else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def as_markdown(self) -> str:
        """Heading, words, table."""
        lines = [self.head, ["---"] + ["---:"] * (len(self.head) - 1), *self.rows]
        body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        words = " ".join(self.about.split())
        return "\n\n".join(part for part in (self.heading and f"## {self.heading}", words, body) if part)


def figures(found: Mapping[str, Any]) -> list[Figures]:
    """All tables of a run, the bars first."""
    parts = [_bars(found["bars"])] if found["bars"] else []
    for model in found["models"]:
        parts += [_rates(model), _ratios(model)]
    if found["models"]:
        parts.append(_tables(found["models"]))
    if found["deep"]:
        parts.append(_deep(found["deep"]))
    if found["network"]:
        parts.append(_network(found["network"]))
    if found["lime"]:
        parts.append(_lime(found["lime"]))
    return parts


def page(found: Mapping[str, Any]) -> str:
    """A page in Markdown."""
    machine = found["machine"]
    known = dict(machine["versions"])
    for run in (*found["models"], *found["deep"]):
        known |= {peer["peer"].split()[0]: peer["version"] for peer in run["explain"] if "version" in peer}
    if found["lime"] and found["lime"]["lime"]["installed"]:
        known["lime"] = found["lime"]["lime"]["version"]
    versions = ", ".join(f"{name} {version}" for name, version in known.items())
    about = f"{processors(machine)}, one thread, Python {machine['python']}; {versions}. " + " ".join(
        _about.split()
    )
    parts = ["# SHAP values per second", about, *(each.as_markdown() for each in figures(found))]
    return "\n\n".join(parts) + "\n"


def processors(machine: Mapping[str, Any]) -> str:
    """What did the work: the CPU, and the GPU where there is one."""
    return " and ".join(filter(None, (machine["cpu"], machine["gpu"])))


def title(peer: str) -> str:
    """A contestant's name as it is written."""
    return peer.replace("penstock", "Penstock")


def times(ratio: float) -> str:
    """`12.3x`."""
    return f"{ratio:,.0f}x" if ratio >= 100 else f"{ratio:.3g}x"


def rate(rows_per_s: float) -> str:
    """`1,234`, and of few one decimal."""
    return f"{rows_per_s:,.0f}" if rows_per_s >= 10 else f"{rows_per_s:.1f}"


def _bars(bars: Sequence[Mapping[str, Any]]) -> Figures:
    rows = tuple(
        (each["work"], f"{'≥' if each['at_least'] else '≤'} {each['bar']:,.3g}{each['unit']}",
         f"{_number(each['measured'])}{each['unit']}", "yes" if each["met"] else "no")
        for each in bars
    )  # fmt: skip
    return Figures(heading="What it should show", about="", head=("", "bar", "measured", "met"), rows=rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _rates(model: Mapping[str, Any]) -> Figures:
    sizes = list(model["predict"]["batches"])
    rows = []
    for row in (*model["explain"], model["predict"]):
        if "batches" not in row:
            rows.append((title(row["peer"]), *("not run" for _ in sizes), "", "", ""))
            continue
        rates = [rate(row["batches"][size]["rows_per_s"]) for size in sizes]
        rows.append(
            (title(row["peer"]), *rates, *(f"{row[key]:.0e}" if key in row else "" for key in _errors))
        )
    head = ("", *(f"batch {int(size):,}" for size in sizes), "error", "of complete rows", "additivity")
    heading = f"{model['model']}: {model['leaves']:,} leaves, {model['features']} features"
    return Figures(heading=heading, about="", head=head, rows=tuple(rows))


def _ratios(model: Mapping[str, Any]) -> Figures:
    sizes = list(model["predict"]["batches"])
    rows = tuple(
        (title(name), *(times(ratio[size]) for size in sizes)) for name, ratio in model["ratios"].items()
    )
    head = ("Penstock's rate over that of", *(f"batch {int(size):,}" for size in sizes))
    return Figures(heading="", about="", head=head, rows=rows)


def _tables(models: Sequence[Mapping[str, Any]]) -> Figures:
    rows = tuple(
        (f"{model['model']}, {kind.replace('_', '-')}", f"{made['seconds']:.2f}", f"{made['bytes'] / 1e6:.1f}",
         f"{made['tabled_trees']:,}")
        for model in models
        for kind in ("path_dependent", "interventional")
        for made in (model["tables"][kind],)
    )  # fmt: skip
    about = f"From an ONNX file to an explainer; tables take {models[0]['tables']['bytes_max'] / 1e6:,.0f} MB at most."
    head = ("", "seconds", "MB", "trees with tables")
    return Figures(heading="Making the tables", about=about, head=head, rows=rows)


def _deep(deep: Sequence[Mapping[str, Any]]) -> Figures:
    names = [peer["peer"] for peer in deep[0]["explain"]]
    rows = []
    for place, name in enumerate(names):
        peers = [run["explain"][place] for run in deep]
        cells = [
            f"{peer['error_relative']:.0e} ({peer['additivity_error']:.0e})"
            if peer["installed"]
            else "not run"
            for peer in peers
        ]
        rows.append((title(name), *cells))
    head = ("", *(f"depth {run['depth']}" for run in deep))
    return Figures(heading="Deep trees", about=_about_deep, head=head, rows=tuple(rows))


def _network(network: Mapping[str, Any]) -> Figures:
    sizes = list(network["methods"][0]["batches"])
    rows = tuple(
        (each["method"], f"{each['samples']:,}", *(rate(each["batches"][size]["rows_per_s"]) for size in sizes),
         f"{each['error_relative']:.1e}", f"{each['additivity_error']:.0e}")
        for each in network["methods"]
    )  # fmt: skip
    head = ("", "evaluations", *(f"batch {int(size):,}" for size in sizes), "distance", "additivity")
    heading = f"A network, {network['network']}"
    return Figures(heading=heading, about=_about_network, head=head, rows=rows)


def _lime(lime: Mapping[str, Any]) -> Figures:
    rows = [("Penstock, in closed form", rate(lime["penstock"]["rows_per_s"]), "0")]
    if lime["lime"]["installed"]:
        rows.append(("lime", rate(lime["lime"]["rows_per_s"]), f"{lime['lime']['distance']:.2f}"))
    about = f"""{lime["model"]}, rows without missing values. The lime package draws 5,000 perturbed records a row and fits them
    anew; the distance is the median row's, from the closed form, over its length: chance, and another choice of values in a bin."""
    head = ("", f"batch {lime['batch']}", "distance")
    return Figures(heading="LIME", about=about, head=head, rows=tuple(rows))
