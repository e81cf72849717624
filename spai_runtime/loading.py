"""Loading engines from a directory: the best candidate that loads, and whose scores are those of fp32."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

from spai_runtime import checks, speed
from spai_runtime.choice import Candidate, Requested, candidates
from spai_runtime.engines.base import Contract, Engine
from spai_runtime.errors import EngineError, OutputError
from spai_runtime.exported import Exported
from spai_runtime.manifest import Accuracy, Artifact, Precision

log = logging.getLogger("spai_runtime")


@dataclass(frozen=True)
class Engines:
    """The engines that a detector runs on.

    :param artifact: the artifact that both were loaded from
    """

    encoder: Engine
    head: Engine
    artifact: Artifact

    @property
    def precision(self) -> Precision:
        """The precision in which the encoder's large products are computed."""
        return self.encoder.computes or self.artifact.precision

    def close(self) -> None:
        """Free both engines."""
        self.encoder.close()
        self.head.close()


# Engines, and those of the same artifact in fp32 → how far their scores are apart on the example images.
Compare = Callable[[Engines, Engines], Accuracy]


def start(exported: Exported, candidate: Candidate) -> Engines:
    """Start both engines. :raises EngineError: a file is missing or a different one, or the back end refuses it"""
    manifest, artifact = exported.manifest, candidate.artifact
    contracts = (
        Contract.encoder(manifest.views.shape, manifest.features, manifest.views.window),
        Contract.head(manifest.features, attention=manifest.attention),
    )
    paths = [exported.check(graph) for graph in (artifact.encoder, artifact.head)]
    with ExitStack() as loaded:
        encoder, head = (
            loaded.enter_context(closing(candidate.backend.open(path, contract, candidate.device, artifact)))
            for path, contract in zip(paths, contracts, strict=True)
        )
        loaded.pop_all()
    return Engines(encoder, head, artifact)


def load_engines(exported: Exported, wanted: Requested | None = None, compare: Compare | None = None) -> Engines:
    """Load the best candidate that gives the scores of fp32.

    The scores of an artifact were compared with those of fp32 when it was exported. If a back end computes in a lower
    precision than the artifact's, they are compared here, once, and the result is kept in the user's cache.

    :param compare: does that comparison; None allows a lower precision only if a comparison was kept before
    :raises EngineError: nothing loads; its sentence and its class are those of the last candidate
    :raises GraphRefusedError: nothing that the user asked for can be held within limits
    """
    wanted = wanted or Requested()
    found, refusals = candidates(exported, wanted), list[EngineError]()
    for index, candidate in enumerate(found[:-1], start=1):
        try:
            engines = start(exported, candidate)
            with ExitStack() as refused:
                refused.callback(engines.close)
                _admit(exported, engines, wanted, compare)
                if wanted.precision is None and _is_slower(exported, candidate, engines, found[index:]):
                    continue
                refused.pop_all()
        except EngineError as error:
            refusals.append(error)
        else:
            break
    else:
        engines = start(exported, found[-1])
    for refusal in refusals:
        log.warning("%s; %s runs instead", refusal, engines.encoder.label)
    return engines


def _admit(exported: Exported, engines: Engines, wanted: Requested, compare: Compare | None) -> None:
    """Check the scores. :raises EngineError: they are not those of fp32 here, as was found before or is found now"""
    artifact, label = engines.artifact, engines.encoder.label
    accuracy = checks.found(artifact, label)
    if accuracy is None and wanted.precision is None and engines.precision != artifact.precision:
        accuracy = _compared(exported, engines, compare)
    if accuracy is not None and not accuracy.passed:
        file = artifact.encoder.file
        if engines.precision == artifact.precision:
            raise EngineError(f"{file} gives other scores than its graph here, as `spai-run --check` found")
        raise EngineError(f"{file} gives other scores in {engines.precision} than in {artifact.precision}")


def _is_slower(exported: Exported, candidate: Candidate, engines: Engines, others: Sequence[Candidate]) -> bool:
    """Whether 8 bits on a CPU are slower here than the best candidate with more bits; it is measured once.

    The table of engines says what is fast if products are large. If they are small, rounding costs more than it saves.
    """
    rival = next((one for one in others if one.precision != candidate.precision), None)
    if not candidate.backend.own or rival is None:
        return False
    own = _speed(exported, candidate, engines)
    try:
        with closing(start(exported, rival)) as loaded:
            other = _speed(exported, rival, loaded)
    except EngineError:
        return False
    if other > own:
        what = f"{engines.artifact.encoder.file} in {engines.encoder.label}"
        log.info("%s takes %.1f views a second, fewer than %.1f in %s", what, own, other, rival.precision)
    return other > own


def _speed(exported: Exported, candidate: Candidate, engines: Engines) -> float:
    """The speed in views a second, as it was measured before, or else is measured now."""
    label = f"{engines.encoder.label} {candidate.precision}"
    known = speed.found(engines.artifact, label)
    if known is None:
        known = speed.views_per_second(engines.encoder, exported.manifest)
        speed.keep(engines.artifact, label, known)
    return known


def _compared(exported: Exported, engines: Engines, compare: Compare | None) -> Accuracy:
    """Compare the scores. :raises EngineError: they cannot be compared, or the result cannot be kept"""
    artifact, label = engines.artifact, engines.encoder.label
    if compare is None:
        raise EngineError(f"nothing is known of {artifact.encoder.file} in {engines.precision}")
    try:
        checks.prepare()
    except OutputError as error:
        raise EngineError(
            f"whether {engines.precision} gives the scores of {artifact.precision} could not be kept ({error}): "
            f"set SPAI_CACHE to a folder, or give --precision {engines.precision}"
        ) from error
    alone = replace(exported, manifest=replace(exported.manifest, artifacts=(artifact,)), named=None)
    as_it_is, *_ = candidates(alone, Requested("cpu", precision=artifact.precision))
    with closing(start(alone, as_it_is)) as reference:
        accuracy = compare(engines, reference)
    checks.keep(artifact, label, accuracy)
    return accuracy
