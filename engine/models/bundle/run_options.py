"""What a manifest says of how its model runs: the form and options of its graph, and what was proved of our tree kernel."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from penstock.schemas.errors import ConfigError

Optimization = Literal["all", "extended", "basic", "disabled"]
"""How far ONNX Runtime rewrites the graph when it is loaded."""
Form = Literal["converted", "rewritten", "float16", "int8"]
"""Of the stored graph: as converted, as ONNX Runtime rewrites it, or with narrower numbers."""
_reason_characters_max = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class NativeProof:
    """What came of comparing our tree kernel with ONNX Runtime at packaging; `auto` takes it only when they were equal."""

    equal: bool = False
    reason: str = "it was not tried"
    """Why they are not equal; empty when they are."""
    rows: int = 0
    tests: int = 0
    """Tests in the ensemble."""
    tests_hit: int = 0
    """Tests that some row met on its threshold and one float to either side, or with a member of its set and another."""
    difference_max: float = 0.0
    """Largest difference of a score, relative to the span of its output, rounded up to a power of ten."""
    labels_different: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """How the bundle's model runs."""

    form: Form = "converted"
    optimization: Optimization = "all"
    difference_max: float = 0.0
    """How far the form moved a score from the converted graph's, rounded up to a power of ten."""
    measured_on: str = ""
    """The device on which form and optimization were found to be the fastest; empty where they were not measured."""
    native: NativeProof = field(default_factory=NativeProof)

    @property
    def measured_on_gpu(self) -> bool:
        """Whether its scores were those of a GPU when it was packaged."""
        return self.measured_on not in ("", "cpu")

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return asdict(self)

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> "Runtime":
        """Undo to_json. Raises ConfigError."""
        native = tree.get("native")
        if (
            set(tree) != set(asdict(Runtime()))
            or not isinstance(native, Mapping)
            or tree["form"] not in get_args(Form)
            or tree["optimization"] not in get_args(Optimization)
            or not isinstance(tree["measured_on"], str)
            or len(tree["measured_on"]) > _reason_characters_max
        ):
            raise ConfigError(
                "member runtime of the manifest is not form, optimization, difference_max, measured_on and native"
            )
        _check_numbers({"difference_max": tree["difference_max"]})
        names = set(asdict(NativeProof()))
        if (
            set(native) != names
            or type(native["equal"]) is not bool
            or not isinstance(native["reason"], str)
            or len(native["reason"]) > _reason_characters_max
            or native["equal"] != (not native["reason"])
        ):
            raise ConfigError(f"member runtime.native of the manifest is not {', '.join(sorted(names))}")
        _check_numbers({name: native[name] for name in names - {"equal", "reason"}})
        return Runtime(**{**tree, "native": NativeProof(**native)})


def _check_numbers(numbers: Mapping[str, Any]) -> None:
    for name, number in numbers.items():
        kinds = (int, float) if name == "difference_max" else (int,)
        if type(number) not in kinds or not 0 <= number < 1 << 62:
            raise ConfigError(f"{name} in member runtime of the manifest is not a number from 0")
