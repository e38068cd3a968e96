"""The outcome of trying the known mistakes on one image: ranked, summarised, drawn."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from vedette_server.contract.answer import Answer
from vedette_server.contract.contract import InputContract
from vedette_server.contract.mistakes import Mistake
from vedette_server.explain.explain import CONVINCING
from vedette_server.explain.findings import FINDINGS, OF_MISTAKE, Code, Confidence, Finding

GAIN = 0.7  # minimum increase of an image's summed convincing scores that counts as a gain
COLUMNS, _TILE, _CAPTION = 4, 320, 34  # tiles per row, and pixels
_HELPS, _PLAIN, _BACKGROUND = (46, 160, 67), (110, 110, 110), (250, 250, 250)


@dataclass(frozen=True)
class Candidate:
    """An image with one mistake undone, and its answer."""

    mistake: Mistake
    answer: Answer

    @property
    def detections(self) -> int:
        """The number of detections."""
        return len(self.answer.detections)

    @property
    def best_score(self) -> float:
        """The best score of any candidate before the threshold; 0 if nothing was scored."""
        return self.answer.evidence.best_score or 0.0

    @property
    def conviction(self) -> float:
        """The sum of the scores that are more likely than not."""
        scores = self.answer.detections.scores
        return float(scores[scores > CONVINCING].sum())

    @property
    def certainty(self) -> float:
        """Their surplus above even odds, cubed and summed, so that one confident detection outweighs several.

        Undoing a mistake that was never made yields only doubtful detections.
        """
        scores = self.answer.detections.scores
        surplus = (scores[scores > CONVINCING] - CONVINCING) / (1 - CONVINCING)
        return float((surplus**3).sum())

    def gains_on(self, other: "Candidate") -> bool:
        """Return whether it found convincingly more."""
        return self.conviction >= other.conviction + GAIN


@dataclass(frozen=True)
class Diagnosis:
    """The result of trying mistakes on an image."""

    as_sent: Candidate
    ranked: tuple[Candidate, ...]  # most likely cause first
    findings: tuple[Finding, ...]  # for the image as sent

    @property
    def cause(self) -> Candidate | None:
        """The most likely cause; None if nothing helps."""
        return next((one for one in self.ranked if one.gains_on(self.as_sent)), None)


def rank(as_sent: Candidate, tried: Sequence[Candidate], findings: Sequence[Finding]) -> tuple[Candidate, ...]:
    """Rank gains first; among those, mistakes with evidence in the image itself, then the most confident."""
    seen = {finding.code for finding in findings}

    def order(candidate: Candidate) -> tuple[bool, bool, float, float]:
        gains = candidate.gains_on(as_sent)
        return gains, gains and OF_MISTAKE[candidate.mistake][0] in seen, candidate.certainty, candidate.best_score

    return tuple(sorted(tried, key=order, reverse=True))


def summary(diagnosis: Diagnosis, contract: InputContract) -> str:
    """Return the most likely cause with its evidence and remedy, or a statement that nothing helps."""
    sent, cause = diagnosis.as_sent, diagnosis.cause
    given = f"As sent, the image yields {_told(sent, contract)}"
    if cause:
        code, undone = OF_MISTAKE[cause.mistake]
        row = FINDINGS[code]
        return f"{row.meaning} {given}; {undone}, it yields {_told(cause, contract)}. {row.remedy}"
    if sent.detections:
        return f"{given}; none of the attempts yields convincingly more."
    if diagnosis.findings and diagnosis.findings[0].code is not Code.QUIET_SCENE:
        first = diagnosis.findings[0]
        sure = "Perhaps: " if first.confidence is Confidence.SUSPECTED else ""
        return f"{sure}{FINDINGS[first.code].meaning} {first.evidence}; none of the attempts helps. {first.remedy}"
    return f"{given}, and none of the attempts helps: either the scene is empty, or the cause is a different one."


def _told(candidate: Candidate, contract: InputContract) -> str:
    evidence = candidate.answer.evidence
    best = "nothing was scored"
    if evidence.best_class_id is not None:
        best = f"best {contract.class_names[evidence.best_class_id]} {candidate.best_score:.2f}"
    return f"{_count(candidate)} above {candidate.answer.threshold:g} ({best})"


def _count(candidate: Candidate) -> str:
    return f"{candidate.detections} detection{'s' * (candidate.detections != 1)}"


def sheet(diagnosis: Diagnosis) -> bytes:
    """Draw the thumbnails side by side as PNG: the image as sent first, then the ranked ones."""
    shown = [one for one in (diagnosis.as_sent, *diagnosis.ranked) if one.answer.thumbnail]
    pictures = [Image.open(io.BytesIO(one.answer.thumbnail or b"")) for one in shown]
    height = max((picture.height for picture in pictures), default=0) + _CAPTION
    canvas = Image.new("RGB", (COLUMNS * _TILE, -(-len(shown) // COLUMNS) * height), _BACKGROUND)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for index, (one, picture) in enumerate(zip(shown, pictures, strict=True)):
        left, top = index % COLUMNS * _TILE, index // COLUMNS * height
        canvas.paste(picture, (left, top + _CAPTION))
        colour = _HELPS if one.gains_on(diagnosis.as_sent) else _PLAIN
        words = OF_MISTAKE[one.mistake][1] if one.mistake in OF_MISTAKE else "as sent"
        draw.text((left + 4, top + 1), words, colour, font)
        draw.text((left + 4, top + 16), f"{_count(one)}, best {one.best_score:.2f}", colour, font)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()
