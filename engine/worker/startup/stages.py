"""The stages of a worker, made from its settings and its bundle."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from penstock.engine.clock import Clock
from penstock.engine.codec.contracts import OutputPrefixes, output_prefixes
from penstock.engine.codec.decode import RowDecoder
from penstock.engine.codec.passed_fields import PassedFields
from penstock.engine.dead_letters.message import DeadLetterEncoder
from penstock.engine.dead_letters.message import ModelIdentity as LetterModel
from penstock.engine.explain.factory import make_explainer
from penstock.engine.models.bundle.bundle import Bundle, Trust
from penstock.engine.models.runtime.cache import CachedModel
from penstock.engine.models.runtime.loader import ServedModel
from penstock.engine.pipeline.outgoing import OutgoingMessages, OutputLimits, Topics
from penstock.engine.pipeline.sampling import Sampler
from penstock.engine.pipeline.scorer import Explaining, Scorer
from penstock.engine.ports import Explainer
from penstock.engine.settings.explain_policy import Every, Score, has_one_score, parse_policy
from penstock.engine.settings.model import Settings
from penstock.engine.telemetry.metrics import Metrics, cache_outcomes
from penstock.engine.worker.model_copy import ModelCopy
from penstock.engine.worker.result_encoders import explanation_encoder, prediction_encoder
from penstock.schemas.errors import ConfigError
from penstock.schemas.log_codes import LogCode
from penstock.schemas.records import Records

logger = logging.getLogger("penstock.worker")

limits_default: Final = OutputLimits(
    predictions_bytes_max=1_000_000, explanations_bytes_max=1_000_000, dead_letters_bytes_max=1_000_000
)
"""What Kafka's producers and topics take by default, less the envelope."""


def open_bundle(settings: Settings, copy: ModelCopy | None = None) -> Bundle:
    """The bundle that the settings name, or the supervisor's copy of it.

    Raises ConfigError: it is none, it does not have the digest that was asked for, or `model.trust` refuses it.
    """
    policy = settings.model.trust.in_force
    level = logging.WARNING if policy == "warn" else logging.INFO
    say = partial(logger.log, level, extra=LogCode.BUNDLE_TRUST.extra)
    trust = (
        None
        if policy == "off"
        else Trust(keys=settings.model.trust.keys, enforce=policy == "enforce", say=say)
    )
    bundle = Bundle.load(copy.folder if copy else settings.model.path, trust=trust)
    wanted = settings.model.digest
    if wanted is not None and bundle.digest != wanted:
        raise ConfigError(
            f"model bundle {settings.model.path} has digest {bundle.digest}, and model.digest asks for {wanted}"
        )
    if copy is not None and bundle.digest != copy.digest:
        raise ConfigError(
            f"model bundle {settings.model.path} was exchanged while it was opened: digest {bundle.digest}, not {copy.digest}"
        )
    return bundle


def cached_model(settings: Settings, model: ServedModel, metrics: Metrics) -> CachedModel | None:
    """The model with the results that it keeps; None where the settings keep none."""
    if not settings.model.cache_rows:
        return None
    hits, misses = (metrics.cache_rows.labels(outcome=outcome) for outcome in cache_outcomes)

    def count(found: int, asked: int) -> None:
        hits.inc(found)
        misses.inc(asked)

    return CachedModel(model, rows_max=settings.model.cache_rows, count=count)


def make_scorer(
    settings: Settings,
    *,
    cluster: str,
    prefixes: OutputPrefixes | None,
    limits: OutputLimits,
    name: str,
    bundle: Bundle,
    model: ServedModel,
    cached: CachedModel | None,
    decoder: RowDecoder,
    explainer: Explainer | None,
    passing: PassedFields | None,
    condemned: Callable[[Records], Sequence[int]],
    clock: Clock,
    sampler: Sampler | None = None,
) -> Scorer:
    """The stages from bytes to bytes for one bundle; `cached` answers in place of the model, but explains nothing."""
    output = settings.output
    prefixes = prefixes or output_prefixes(
        predictions=output.predictions,
        explanations=output.explanations,
        dead_letters=output.dead_letters,
        framing=settings.output_framing,
        registrar=None,
    )
    return Scorer(
        decoder=decoder,
        model=model if cached is None else cached,
        messages=OutgoingMessages(
            topics=Topics(
                predictions=output.predictions,
                explanations=output.explanations,
                dead_letters=output.dead_letters,
            ),
            limits=limits,
            headers=frozenset(output.headers),
        ),
        encode_predictions=prediction_encoder(settings, cluster, bundle, prefixes.predictions),
        encode_dead_letters=DeadLetterEncoder(
            prefix=None if output.format == "json" else prefixes.dead_letters,
            cluster=cluster,
            model=LetterModel(name=bundle.name, version=bundle.version, digest=bundle.digest),
            worker=name,
            message_bytes_max=limits.letter_bytes_max,
        ),
        explaining=make_explaining(
            settings, cluster=cluster, bundle=bundle, explainer=explainer, prefix=prefixes.explanations
        ),
        passing=passing,
        condemned=condemned,
        clock=clock,
        sampler=sampler,
    )


def make_explaining(
    settings: Settings, *, cluster: str, bundle: Bundle, explainer: Explainer | None, prefix: bytes
) -> Explaining | None:
    """How the stream explains; None where it does not. `prefix` begins every message."""
    if explainer is None:
        return None
    budget_ms = settings.explain.budget_ms
    return Explaining(
        policy=parse_policy(settings.explain.policy),
        explainer=explainer,
        encode=explanation_encoder(settings, cluster, bundle, prefix),
        budget_s=None if budget_ms is None else budget_ms / 1000,
    )


def open_explainer(settings: Settings, bundle: Bundle, model: ServedModel, clock: Clock) -> Explainer | None:
    """What explains this model; None where nothing is to be explained. Raises ConfigError."""
    policy = parse_policy(settings.explain.policy)
    if settings.output.explanations is None or policy == Every(False):
        return None
    if isinstance(policy, Score) and not has_one_score(bundle.widths, bundle.classes):
        raise ConfigError(
            f"explain.policy {settings.explain.policy}: the model has several outputs or targets, and none of them alone is the score; "
            "choose every, none, sample:0.1 or header:NAME"
        )
    return make_explainer(bundle, model, settings.explain, device=model.device, clock=clock)
