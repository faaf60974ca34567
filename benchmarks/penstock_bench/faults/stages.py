"""The engine's own decoder, scorer and encoders around a model that is one line, with records that fail at every stage."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.codec.decode import RowDecoder, make_decoder
from penstock.engine.dead_letters.message import DeadLetterEncoder, ModelIdentity
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.models.bundle.manifest import ModelOutput
from penstock.engine.pipeline.outgoing import OutgoingMessages, OutputLimits, Topics
from penstock.engine.pipeline.scorer import Explaining, Scorer
from penstock.engine.ports import Attributions, Decoded, Predictions
from penstock.engine.settings.explain_policy import parse_policy
from penstock.engine.settings.model import Settings
from penstock.engine.worker.result_encoders import explanation_encoder, prediction_encoder
from penstock.schemas.errors import ModelError, UnavailableError
from penstock.schemas.records import Records
from penstock_bench.faults.fates import Fates, Trouble
from penstock_bench.faults.outcomes import dark_above, input_schema, nan_above, throws_above

Format = Literal["avro", "json"]
cluster_name = "simulated"


_signature = Signature(
    features=(
        Feature(name="number", kind="number", missing="reject"),
        Feature(name="weight", kind="number"),
    ),
    inputs=(ModelInput(name="x", dtype="float32", start=0, width=2),),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class StubBundle:
    """What the encoders ask of a bundle."""

    name: str = "stub"
    version: str = "1"
    digest: str = "0" * 64
    outputs: tuple[ModelOutput, ...] = (ModelOutput(name="y", width=1),)
    classes: tuple[str, ...] = ()
    signature: Signature = _signature


class StubModel:
    """y = 2 number + weight, and its exact attributions."""

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        """As penstock.engine.ports.Model asks."""
        number, weight = matrix[:, 0].astype(np.float64), matrix[:, 1].astype(np.float64)
        if ((weight >= throws_above) & (weight < nan_above)).any():
            raise ModelError("a row is bad")
        y = 2.0 * number + weight
        y[(weight >= nan_above) & (weight < dark_above)] = np.nan
        return Predictions(outputs={"y": y.reshape(-1, 1)}, labels=None, classes=())

    def explain(self, matrix: NDArray[np.generic], predictions: Predictions) -> Attributions:
        """As penstock.engine.ports.Explainer asks."""
        if (matrix[:, 1].astype(np.float64) >= dark_above).any():
            raise ModelError("a row cannot be explained")
        count = len(matrix)
        return Attributions(
            values=matrix.astype(np.float64) * np.array([2.0, 1.0]),
            base=np.zeros(count),
            output_index=np.zeros(count, np.int64),
            output_name="y",
            additivity_error=np.zeros(count),
            sampling_error=None,
            method="exact_enumeration",
            space="value",
            background=None,
        )


class FitfulDecoder:
    """The decoder, which now and then cannot have a schema."""

    def __init__(self, inner: RowDecoder, fates: Fates) -> None:
        self._inner, self._fates = inner, fates

    def decode(self, records: Records) -> Decoded:
        """As penstock.engine.ports.Decoder asks."""
        self._maybe_away()
        return self._inner.decode(records)

    def require(self, records: Records) -> None:
        """Likewise."""
        self._maybe_away()
        self._inner.require(records)

    def _maybe_away(self) -> None:
        if self._fates.chance(0.03, Trouble.SCHEMAS):
            raise UnavailableError("a schema cannot be had now")


@cache
def _parts(output_format: Format) -> tuple[RowDecoder, dict[str, Any]]:
    """What costs time to make and holds no state of a run."""
    bundle: Any = StubBundle()
    settings = Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "simulated:1", "group": "g"},
            "input": {"topic": "in", "format": output_format, "framing": "none"},
            "output": {
                "predictions": "p",
                "explanations": "e",
                "dead_letters": "d",
                "format": output_format,
                **({"framing": "none"} if output_format == "avro" else {}),
            },
            "model": {"path": "stub"},
        }
    )
    decoder = make_decoder(
        settings=settings,
        signature=bundle.signature,
        reader_schema=None if output_format == "json" else input_schema,
        schemas=None,
        record_bytes_max=settings.input.record_bytes_max,
    )
    letters = DeadLetterEncoder(
        prefix=None if output_format == "json" else b"",
        cluster=cluster_name,
        model=ModelIdentity(name=bundle.name, version=bundle.version, digest=bundle.digest),
        worker="simulated",
        message_bytes_max=90_000,
    )
    model = StubModel()
    return decoder, {
        "model": model,
        "messages": OutgoingMessages(
            topics=Topics(predictions="p", explanations="e", dead_letters="d"),
            limits=OutputLimits(
                predictions_bytes_max=100_000, explanations_bytes_max=100_000, dead_letters_bytes_max=100_000
            ),
            headers=frozenset(),
        ),
        "encode_predictions": prediction_encoder(settings, cluster_name, bundle, b""),
        "encode_dead_letters": letters,
        "explaining": Explaining(
            policy=parse_policy("every"),
            explainer=model,
            encode=explanation_encoder(settings, cluster_name, bundle, b""),
        ),
        "passing": None,
        "condemned": lambda _: (),
    }


def make_scorer(output_format: Format, fates: Fates, clock: Clock) -> Scorer:
    """The real scorer for one run."""
    decoder, parts = _parts(output_format)
    return Scorer(decoder=FitfulDecoder(decoder, fates), clock=clock, **parts)
