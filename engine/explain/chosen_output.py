"""What is explained of a model's answers: the predicted class, one class or target, an output by its name, or all of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.engine.ports import Predictions
from penstock.engine.settings.explain_policy import main_output
from penstock.schemas.errors import ConfigError

_named_max = 20


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Chosen:
    """What is explained of R rows, in E = R x `each` explanations: those of the first row, then of the second, and so on."""

    name: str
    """The output."""
    each: int
    row: NDArray[np.int64]  # (E,)
    index: NDArray[np.int64]  # (E,) place in the output

    def scores(self, predictions: Predictions) -> NDArray[np.float64]:
        """The model's own numbers, (E,)."""
        return predictions.outputs[self.name][self.row, self.index]


def explained_output(predictions: Predictions, wanted: str) -> Chosen:
    """What `explain.output` means for these rows. Raises ConfigError where it means nothing, or could mean several things."""
    widths = {name: scores.shape[1] for name, scores in predictions.outputs.items()}
    name, columns = chosen_columns(widths, predictions.classes, wanted)
    count = len(predictions.outputs[name])
    each = 1 if columns is None else len(columns)
    if columns is None:
        assert predictions.labels is not None
        index = predictions.labels
    else:
        index = np.tile(np.array(columns, dtype=np.int64), count)
    return Chosen(name=name, each=each, row=np.repeat(np.arange(count), each), index=index)


def chosen_columns(
    widths: Mapping[str, int], classes: Sequence[str], wanted: str
) -> tuple[str, tuple[int, ...] | None]:
    """Of a model whose outputs have these widths: which output, and which places of it; None: the predicted class's.

    Raises ConfigError, with the choices.
    """
    main = main_output(widths, classes)
    if wanted in ("predicted", "all"):
        if main is None or (wanted == "predicted" and widths[main] > 1 and widths[main] != len(classes)):
            several = (
                f"the outputs {', '.join([*widths][:_named_max])}"
                if main is None
                else f"{widths[main]} targets"
            )
            said = "" if not classes else " none of which is the predicted class's"
            raise ConfigError(
                f"explain.output {wanted}: the model has {several}{said or ' and predicts no class'}; "
                f"choose {', '.join(_choices(widths, classes, main)[:_named_max])}"
            )
        if wanted == "predicted":
            return main, None if widths[main] > 1 else (0,)
        return main, tuple(range(widths[main]))
    if main is not None and widths[main] == len(classes) and wanted in classes:
        return main, ([*classes].index(wanted),)
    for name, width in widths.items():
        if wanted == name and width == 1:
            return name, (0,)
        places = [f"{name}[{place}]" for place in range(width)]
        if wanted in places:
            return name, (places.index(wanted),)
    if main is not None and 1 < widths[main] != len(classes) and wanted in map(str, range(widths[main])):
        return main, (int(wanted),)
    raise ConfigError(
        f"explain.output {wanted}: the model has {', '.join(_choices(widths, classes, main)[:_named_max])}"
    )


def speaks_of_the_second(
    name: str, widths: Mapping[str, int], classes: Sequence[str], *, trees: bool
) -> bool:
    """Whether the one number of this output is the second of two classes', and not an answer of its own beside them. `trees`:
    their sum is."""
    return len(classes) == 2 and (trees or main_output(widths, classes) in (name, None))


def usual_choice(widths: Mapping[str, int], classes: Sequence[str], *, trees: bool) -> str:
    """What shows how a model is explained where nobody has chosen: `predicted` if that means something, else all targets, or
    the first of several outputs. `trees`: their sum alone is explained, whatever outputs stand beside it."""
    if trees:
        return "all" if not classes and max(widths.values()) > 1 else "predicted"
    main = main_output(widths, classes)
    if main is None:
        name, width = next(iter(widths.items()))
        return name if width == 1 else f"{name}[0]"
    return "predicted" if widths[main] in (1, len(classes)) else "all"


def _choices(widths: Mapping[str, int], classes: Sequence[str], main: str | None) -> list[str]:
    if main is None:
        return [
            each
            for name, width in widths.items()
            for each in ([name] if width == 1 else [f"{name}[0] to {name}[{width - 1}]"])
        ]
    if widths[main] == len(classes) > 1:
        return ["predicted", "all", *classes]
    if widths[main] == 1:
        return ["predicted", *widths]
    return ["all", f"the number of one (0 to {widths[main] - 1})"]
