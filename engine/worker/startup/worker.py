"""The steps of a start that a worker takes, before its first poll."""

from typing import Final

import numpy as np

from penstock.engine.codec.contracts import load_schema
from penstock.engine.codec.decode import make_decoder
from penstock.engine.models.runtime.cache import check_alone
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.pipeline.batcher import rows_within_objective, share_of_objective_s
from penstock.engine.worker.calibration import cost_curve, rehearse
from penstock.engine.worker.result_encoders import passed_fields
from penstock.engine.worker.startup.stages import (
    cached_model,
    limits_default,
    make_scorer,
    open_bundle,
    open_explainer,
)
from penstock.engine.worker.startup.startup import Startup, Step


def _kafka(startup: Startup) -> str | None:
    if startup.ask_kafka is None:
        return None
    startup.facts = found = startup.ask_kafka()
    startup.cluster, startup.limits = found.cluster, found.limits.limits
    settings = startup.settings
    topic = settings.input.topic
    return f"cluster {found.cluster}; {topic} has {found.partitions[topic]} partitions; {settings.kafka.delivery}"


def _registry(startup: Startup) -> str | None:
    if startup.publish_contracts is None:
        return None
    startup.prefixes = startup.publish_contracts()
    registry = startup.settings.registry
    return None if registry is None else f"{registry.url} takes the contracts of the outputs"


def _bundle(startup: Startup) -> str:
    startup.bundle = found = open_bundle(startup.settings, startup.copy)
    return f"{found.name} {found.version}, {len(found.signature.features)} features, digest {found.digest}"


def _model(startup: Startup) -> str:
    settings, bundle = startup.settings, startup.the(startup.bundle)
    startup.model = opened = open_model(
        bundle,
        device=settings.model.device,
        runtime=settings.model.runtime,
        threads=settings.model.threads,
        batch_rows_max=settings.objective.batch_rows_max,
        clock=startup.clock,
    )
    note = f" ({opened.device.note})" if opened.device.note else ""
    return f"{opened.runtime} on {opened.device.name}{note}, as when packaged on {len(bundle.golden.rows)} golden rows"


def _input(startup: Startup) -> str:
    settings, bundle = startup.settings, startup.the(startup.bundle)
    path = settings.input.record_schema
    startup.reader_schema = reader = load_schema(path) if path else bundle.input_schema
    startup.decoder = make_decoder(
        settings=settings,
        signature=bundle.signature,
        reader_schema=reader,
        schemas=startup.schemas,
        record_bytes_max=settings.input.record_bytes_max,
    )
    startup.passing = passed_fields(settings, reader, startup.schemas)
    if settings.input.format == "json":
        return "json; fields are looked for in each record"
    if reader is None:
        return f"avro, {settings.framing}; each writer's schema is checked when its first record comes"
    return f"avro, {settings.framing}; every feature has its field in {path or 'the schema of the bundle'}"


def _cache(startup: Startup) -> str | None:
    settings, model = startup.settings, startup.the(startup.model)
    if not settings.model.cache_rows:
        return None
    check_alone(model, model.rows)
    startup.cached = cached_model(settings, model, startup.the(startup.metrics))
    return f"{settings.model.cache_rows:,} results are kept; a row has the same one alone as in a batch"


def _explanations(startup: Startup) -> str | None:
    settings, bundle = startup.settings, startup.the(startup.bundle)
    model = startup.the(startup.model)
    if settings.output.explanations is None:
        return None
    startup.explainer = explainer = open_explainer(settings, bundle, model, startup.clock)
    if explainer is None:
        return "none (explain.policy)"
    rows = bundle.golden.rows[:4]
    attributions = explainer.explain(rows, model.predict(rows))
    worst = float(np.abs(attributions.additivity_error).max())
    return f"{attributions.method} in {attributions.space}; on golden rows they add up to within {worst:.1g}"


def _rehearsal(startup: Startup) -> str:
    settings, clock = startup.settings, startup.clock
    bundle, model = startup.the(startup.bundle), startup.the(startup.model)
    startup.scorer = scorer = make_scorer(
        settings,
        cluster=startup.cluster,
        prefixes=startup.prefixes,
        limits=startup.limits or limits_default,
        name=startup.name,
        bundle=bundle,
        model=model,
        cached=startup.cached,
        decoder=startup.the(startup.decoder),
        explainer=startup.explainer,
        passing=startup.passing,
        condemned=startup.condemned,
        clock=clock,
        sampler=startup.sampler,
    )
    startup.rehearsed = rehearse(scorer, model.rows, batch_rows_max=model.batch_rows_max, clock=clock)
    cost = cost_curve(startup.rehearsed)
    slo_s = settings.objective.latency_slo_ms / 1000
    startup.batch_rows_max = fits = rows_within_objective(cost, slo_s, rows_max=model.batch_rows_max)
    allowed_ms, took_ms = share_of_objective_s(slo_s) * 1000, cost.seconds(fits) * 1000
    if cost.seconds(1) * 1000 > allowed_ms:
        return (
            f"one record takes {cost.seconds(1) * 1000:.3g} ms, and a batch may take {allowed_ms:g} ms, half of "
            f"objective.latency_slo_ms: it will not be held; batches of up to {fits:,} records"
        )
    return (
        f"batches of up to {fits:,} records take {took_ms:.3g} ms from the model to the messages; "
        f"objective.latency_slo_ms leaves {allowed_ms:g} ms"
    )


def _delivery(startup: Startup) -> str | None:
    if startup.open_sink is None:
        return None
    startup.sink = startup.open_sink()
    return (
        "transactions can be begun" if startup.settings.kafka.delivery == "exactly_once" else "producers open"
    )


worker_steps: Final[tuple[Step, ...]] = (
    Step(
        name="kafka",
        group="kafka",
        prove=_kafka,
        proves="the cluster lets us in, has every topic, and allows what a worker does",
    ),
    Step(
        name="registry",
        group="registry",
        prove=_registry,
        proves="the registry takes the contracts of the outputs",
    ),
    Step(
        name="bundle",
        group="model",
        prove=_bundle,
        proves="the bundle is whole, trusted, and the one that was asked for",
        needs=("files",),
    ),
    Step(
        name="model",
        group="model",
        prove=_model,
        proves="it runs where it was asked to, says what it said when packaged, and is warm",
        needs=("bundle",),
    ),
    Step(
        name="input",
        group="model",
        prove=_input,
        proves="every feature has its field in the records",
        needs=("bundle",),
    ),
    Step(
        name="cache",
        group="model",
        prove=_cache,
        proves="a result that is kept is the one that would be computed",
        needs=("model",),
    ),
    Step(
        name="explanations",
        group="model",
        prove=_explanations,
        proves="the model can be explained as asked",
        needs=("model",),
    ),
    Step(
        name="rehearsal",
        group="model",
        prove=_rehearsal,
        proves="the stages run at every size of batch, and how fast",
        needs=("bundle", "model", "input", "cache", "explanations"),
    ),
    Step(
        name="delivery",
        group="delivery",
        prove=_delivery,
        proves="producers open, and may begin transactions",
        needs=("kafka",),
    ),
)
