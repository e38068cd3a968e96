"""What came of trying the known mistakes on one image: ranked, summed up, drawn."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from vedette_server.contract.answer import Answer
from vedette_server.contract.contract import InputContract
from vedette_server.contract.mistakes import Mistake
from vedette_server.explain.explain import CONVINCING
from vedette_server.explain.findings import FINDINGS, OF_MISTAKE, Code, Confidence, Finding

GAIN = 0.7  # by which the convincing scores of an image must add up to more for something to have been gained
COLUMNS, _TILE, _CAPTION = 4, 320, 34  # tiles in a row, and pixels
_HELPS, _PLAIN, _BACKGROUND = (46, 160, 67), (110, 110, 110), (250, 250, 250)


@dataclass(frozen=True)
class Candidate:
    """An image with one mistake undone, and what it gave."""

    mistake: Mistake
    answer: Answer

    @property
    def detections(self) -> int:
        """How many there are."""
        return len(self.answer.detections)

    @property
    def best_score(self) -> float:
        """Of any candidate before the threshold; 0 where nothing was scored."""
        return self.answer.evidence.best_score or 0.0

    @property
    def conviction(self) -> float:
        """The sum of the scores that the model holds more likely than not."""
        scores = self.answer.detections.scores
        return float(scores[scores > CONVINCING].sum())

    @property
    def certainty(self) -> float:
        """The same, each by how far it lies above even odds, cubed, so that one sure detection counts for several.

        What undoing a mistake brings forth that was never made is doubtful.
        """
        scores = self.answer.detections.scores
        surplus = (scores[scores > CONVINCING] - CONVINCING) / (1 - CONVINCING)
        return float((surplus**3).sum())

    def gains_on(self, other: "Candidate") -> bool:
        """Whether it found convincingly more."""
        return self.conviction >= other.conviction + GAIN


@dataclass(frozen=True)
class Diagnosis:
    """What was tried about an image."""

    as_sent: Candidate
    ranked: tuple[Candidate, ...]  # the likeliest cause first
    findings: tuple[Finding, ...]  # about the image as sent

    @property
    def cause(self) -> Candidate | None:
        """The likeliest cause; None: nothing helps."""
        return next((one for one in self.ranked if one.gains_on(self.as_sent)), None)


def rank(as_sent: Candidate, tried: Sequence[Candidate], findings: Sequence[Finding]) -> tuple[Candidate, ...]:
    """What gains first; of that, what the image itself speaks for, then what the model is surest of."""
    seen = {finding.code for finding in findings}

    def order(candidate: Candidate) -> tuple[bool, bool, float, float]:
        gains = candidate.gains_on(as_sent)
        return gains, gains and OF_MISTAKE[candidate.mistake][0] in seen, candidate.certainty, candidate.best_score

    return tuple(sorted(tried, key=order, reverse=True))


def summary(diagnosis: Diagnosis, contract: InputContract) -> str:
    """The likeliest cause, its evidence and the line to change; or that nothing helps."""
    sent, cause = diagnosis.as_sent, diagnosis.cause
    given = f"As sent, the image gives {_told(sent, contract)}"
    if cause:
        code, undone = OF_MISTAKE[cause.mistake]
        row = FINDINGS[code]
        return f"{row.meaning} {given}; {undone}, it gives {_told(cause, contract)}. {row.remedy}"
    if sent.detections:
        return f"{given}; nothing that was tried gives convincingly more."
    if diagnosis.findings and diagnosis.findings[0].code is not Code.QUIET_SCENE:
        first = diagnosis.findings[0]
        sure = "Perhaps: " if first.confidence is Confidence.SUSPECTED else ""
        return f"{sure}{FINDINGS[first.code].meaning} {first.evidence}; nothing that was tried helps. {first.remedy}"
    return f"{given}, and nothing that was tried helps: either nothing is there, or the cause is another."


def _told(candidate: Candidate, contract: InputContract) -> str:
    evidence = candidate.answer.evidence
    best = "nothing was scored"
    if evidence.best_class_id is not None:
        best = f"best {contract.class_names[evidence.best_class_id]} {candidate.best_score:.2f}"
    return f"{_count(candidate)} above {candidate.answer.threshold:g} ({best})"


def _count(candidate: Candidate) -> str:
    return f"{candidate.detections} detection{'s' * (candidate.detections != 1)}"


def sheet(diagnosis: Diagnosis) -> bytes:
    """The thumbnails side by side as PNG, the image as sent first, then as they are ranked."""
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
