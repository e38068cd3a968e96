"""The probe: when a source goes empty beyond its usual rate, find out why, from its own frames, by the by.

The first empty frame is diagnosed; each mistake that brings something back on it is put on trial on the frames that
follow, empty or not, until it is convicted or cleared. Traffic goes first, always: see `Budget`.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from vedette_server.contract.answer import Answer
from vedette_server.contract.contract import Output
from vedette_server.contract.mistakes import Mistake
from vedette_server.contract.options import AskedImage, require, resolve
from vedette_server.contract.refusal import Reason, Refused
from vedette_server.engine.query import Monitor, Query, unfailing
from vedette_server.explain.diagnosis import Candidate, Diagnosis
from vedette_server.explain.explain import explain, find
from vedette_server.explain.findings import OF_MISTAKE, Code, Confidence, Finding
from vedette_server.explain.trial import Trial, TrialVerdict
from vedette_server.repository.repository import ModelVersion
from vedette_server.watch.diagnostician import Diagnostician
from vedette_server.watch.sources import Key, SourceRecord, Sources
from vedette_server.watch.watched import Watched

log = structlog.get_logger()

_TRIES = 3  # empty frames of a source that are diagnosed in a row before it is taken for quiet
_PAUSE_SECONDS, _LONGEST_PAUSE = 60.0, 3600.0  # before a source is tried again
_HOLD_SECONDS = 120.0  # that a suspicion stands before it is put on trial again
_APART_BITS, _APART_SECONDS = 4, 10.0  # by which frames differ that count as two: in their hashes, or in time
_GONE_SECONDS = 600.0  # after which a source that is not seen any more is suspected of nothing
_PATIENCE_SECONDS = 60.0  # for the next frame of a source on trial
# What an answer may be sure of and still be looked into: what it only suspects could have another cause, too.
_UNEXPLAINED = {Code.QUIET_SCENE, Code.NO_PROPOSALS}


@dataclass(frozen=True)
class _Frame:
    """A frame of a source, and what it gave as sent."""

    sample: AskedImage
    answer: Answer
    seen: float  # on the monotonic clock

    def differs_from(self, other: "_Frame") -> bool:
        ours, theirs = self.answer.pixels, other.answer.pixels
        changed = ours is not None and theirs is not None and (ours.hash ^ theirs.hash).bit_count() >= _APART_BITS
        return changed or self.seen >= other.seen + _APART_SECONDS


class Probe:
    """Sees every answer, explains it, and looks into sources that have gone empty, one at a time."""

    def __init__(self, monitor: Monitor, share: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        """`share` of the workers' time is for diagnoses beside traffic.

        0 switches them off: it explains from what the answers themselves tell.
        """
        self._monitor = unfailing(monitor)
        self._diagnostician = Diagnostician(share) if share else None
        self._clock = clock
        self._sources = Sources(clock)
        self._suspects: dict[SourceRecord, ModelVersion] = {}
        self._task: asyncio.Task[None] | None = None
        self._on_trial: SourceRecord | None = None
        self._last: _Frame | None = None  # that counted
        self._next: asyncio.Future[_Frame] | None = None  # waited for

    def see(self, served: Watched, source: str, asked: AskedImage, answer: Answer) -> tuple[Finding, ...]:
        """Explain an answer of a source, and look into the source if it needs it."""
        record = self._sources.of(_key(served, source))
        record.see(answer)
        if record.suspicion and record.calm:  # whatever it was, it has been mended
            self._tell(served.model, record, None)
        findings = explain(answer, served.model.contract, record.context(served.golden_failing, served.usual))
        frame = _Frame(asked, answer, self._clock())
        self._look_into(served, record, frame, findings)
        self._forget_gone(frame.seen)
        return findings

    def unloaded(self, model: ModelVersion) -> None:
        """A version is served no more: nothing is suspected of its sources."""
        for source, suspected in list(self._suspects.items()):
            if suspected is model:
                self._tell(model, source, None)

    def _forget_gone(self, now: float) -> None:
        """Let go of what is suspected of sources that have not been seen for long."""
        for source, model in list(self._suspects.items()):
            if now > source.seen + _GONE_SECONDS:
                self._tell(model, source, None)

    async def diagnose(self, served: Watched, query: Query, *, sampled: bool) -> Diagnosis:
        """Find out why a query's image gives nothing; or, where it is to be `sampled`, the source's last empty frame.

        Raises `Refused`, also FEATURE_NOT_SERVED where diagnoses are switched off, OUTPUT_NOT_PRODUCED where the model
        finds no objects, and SAMPLE_MISSING.
        """
        if self._diagnostician is None:
            raise Refused(Reason.FEATURE_NOT_SERVED, feature="Diagnose", setting="diagnose_share above 0")
        require(Output.BOXES, served.model.contract)
        sample: AskedImage | None = AskedImage(query.image, resolve(query.asked, served.model.contract))
        if sampled:
            sample = self._sources.sample(_key(served, query.source))
        if sample is None:
            raise Refused(Reason.SAMPLE_MISSING, model=served.model.name, stream=query.source)
        return await self._diagnostician.diagnose(served, sample, thumbnails=True)

    def _look_into(self, served: Watched, source: SourceRecord, frame: _Frame, findings: tuple[Finding, ...]) -> None:
        if self._diagnostician is None:
            return
        if self._on_trial is source:
            if self._next and not self._next.done() and (self._last is None or frame.differs_from(self._last)):
                self._next.set_result(frame)
            return
        empty = frame.answer.empty
        unsure = empty and (findings[0].code in _UNEXPLAINED or findings[0].confidence is Confidence.SUSPECTED)
        open_case = unsure or (empty and source.suspicion is not None)
        if self._on_trial is None and open_case and source.due:
            self._on_trial = source
            log.info("looking_into", **_names(source.key))
            self._task = asyncio.create_task(self._run(self._diagnostician, served, source, frame))
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._on_trial = self._last = self._next = None
        if not task.cancelled() and (bug := task.exception()):
            log.error("bug", exc_info=bug)

    async def stop(self) -> None:
        """Give up what is being looked into."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, doctor: Diagnostician, served: Watched, source: SourceRecord, frame: _Frame) -> None:
        try:
            suspicion = await self._investigate(doctor, served, source, frame)
        except (Refused, TimeoutError) as error:  # the version has gone, or the source has
            log.info("probe_ended_early", **_names(source.key), why=str(error))
            source.quiet_until = self._clock() + _PAUSE_SECONDS
            return
        self._conclude(served, source, suspicion)

    def _conclude(self, served: Watched, source: SourceRecord, suspicion: Finding | None) -> None:
        now = self._clock()
        if suspicion:
            source.fruitless, source.quiet_until = 0, now + _HOLD_SECONDS
            log.warning("cause_suspected", **_names(source.key), cause=suspicion.code, evidence=suspicion.evidence)
        else:
            source.accept()
            source.quiet_until = now + min(_PAUSE_SECONDS * 2**source.fruitless, _LONGEST_PAUSE)
            source.fruitless += 1
            log.info("no_cause_found", **_names(source.key))
        self._tell(served.model, source, suspicion)

    def _tell(self, model: ModelVersion, source: SourceRecord, suspicion: Finding | None) -> None:
        source.suspicion = suspicion
        self._suspects.pop(source, None)
        if suspicion:
            self._suspects[source] = model
        self._monitor.suspected(model, source.key.name, suspicion.code if suspicion else None)

    async def _investigate(
        self, doctor: Diagnostician, served: Watched, source: SourceRecord, frame: _Frame
    ) -> Finding | None:
        """Diagnose empty frames until one tells something, then put that on trial."""
        for _ in range(_TRIES):
            self._last = frame
            self._sources.keep(source.key, frame.sample)
            diagnosis = await doctor.diagnose(served, frame.sample, thumbnails=False)
            helping = [one.mistake for one in diagnosis.ranked if one.gains_on(diagnosis.as_sent)]
            trials: dict[Mistake, Trial] = {
                mistake: Trial(gains=1) for mistake in helping if mistake is not Mistake.THRESHOLD
            }
            if trials:
                return await self._try(doctor, served, trials)
            frame = await self._next_frame(empty=True)
        return None

    async def _next_frame(self, *, empty: bool) -> _Frame:
        """The next frame of the source that differs from the last one. Raises `TimeoutError`."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                self._next = asyncio.get_running_loop().create_future()
                frame = await self._next
                if not empty or frame.answer.empty:
                    return frame

    async def _try(self, doctor: Diagnostician, served: Watched, trials: dict[Mistake, Trial]) -> Finding | None:
        """Put mistakes on trial on the frames that follow; returns the first that is convicted."""
        while trials:
            frame = await self._next_frame(empty=False)
            self._last = frame
            as_sent = Candidate(Mistake.NONE, frame.answer)
            for mistake, trial in list(trials.items()):
                undone = await doctor.try_one(served, frame.sample, mistake)
                gained = undone.gains_on(as_sent)
                if gained or as_sent.gains_on(undone) or not undone.detections:  # else both found as much
                    trial.count(gained=gained)
                if trial.verdict is TrialVerdict.FAULTY:
                    return _suspicion(mistake, trial)
                if trial.verdict is TrialVerdict.HONEST:
                    del trials[mistake]
        return None


def _suspicion(mistake: Mistake, trial: Trial) -> Finding:
    code, undone = OF_MISTAKE[mistake]
    seen = f"{undone}, {trial.gains} of {trial.frames} frames of this source give more than as they were sent"
    return find(code, Confidence.LIKELY, seen)


def _key(served: Watched, name: str) -> Key:
    return Key(served.model.name, served.model.version, name)


def _names(key: Key) -> dict[str, str | int]:
    return {"model": key.model, "version": key.version, "stream": key.name}
