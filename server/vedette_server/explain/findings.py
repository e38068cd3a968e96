"""The closed list of findings: what each means, how it is recognised, what to do about it."""

from dataclasses import dataclass
from enum import StrEnum

from vedette_server.contract.mistakes import Mistake


class Code(StrEnum):
    """What an answer is empty because of, or what is suspicious about it. The API has the same list."""

    QUIET_SCENE = "QUIET_SCENE"
    NON_FINITE_VALUES = "NON_FINITE_VALUES"
    VALUES_IN_UNIT_RANGE = "VALUES_IN_UNIT_RANGE"
    VALUES_SCALED_UP = "VALUES_SCALED_UP"
    VALUES_NORMALISED = "VALUES_NORMALISED"
    IMAGE_BLACK = "IMAGE_BLACK"
    IMAGE_SATURATED = "IMAGE_SATURATED"
    IMAGE_FLAT = "IMAGE_FLAT"
    FEED_FROZEN = "FEED_FROZEN"
    SCORES_FLAT = "SCORES_FLAT"
    GOLDEN_FAILING = "GOLDEN_FAILING"
    EMPTIED_BY_CLIPPING = "EMPTIED_BY_CLIPPING"
    CLASS_FILTER = "CLASS_FILTER"
    CAPPED = "CAPPED"
    BELOW_THRESHOLD = "BELOW_THRESHOLD"
    CHANNELS_SWAPPED = "CHANNELS_SWAPPED"
    IMAGE_ROTATED = "IMAGE_ROTATED"
    IMAGE_MIRRORED = "IMAGE_MIRRORED"
    IMAGE_INVERTED = "IMAGE_INVERTED"
    LAYOUT_TRANSPOSED = "LAYOUT_TRANSPOSED"
    SIZE_SWAPPED = "SIZE_SWAPPED"
    COLOUR_FOR_GREY = "COLOUR_FOR_GREY"
    IMAGE_TOO_DARK = "IMAGE_TOO_DARK"
    IMAGE_TOO_BRIGHT = "IMAGE_TOO_BRIGHT"
    GREY_FOR_COLOUR = "GREY_FOR_COLOUR"
    IMAGE_TOO_SMALL = "IMAGE_TOO_SMALL"
    IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE"
    NO_PROPOSALS = "NO_PROPOSALS"


class Confidence(StrEnum):
    """How sure a finding is."""

    SUSPECTED = "SUSPECTED"  # the evidence points there, and could be read otherwise
    LIKELY = "LIKELY"  # the evidence leaves little else
    CERTAIN = "CERTAIN"  # measured, not inferred


@dataclass(frozen=True)
class Finding:
    """One named, evidenced cause."""

    code: Code
    confidence: Confidence
    evidence: str  # what was seen, in one sentence
    remedy: str  # what to do, in one sentence


@dataclass(frozen=True)
class FindingRow:
    """What users read about a finding."""

    meaning: str
    recognised: str
    remedy: str


_PROBED = "Undone, it brings detections back on nearly every frame that the server has tried: see Diagnose."

FINDINGS = {
    Code.QUIET_SCENE: FindingRow(
        "As far as can be told, nothing is there.",
        "Nothing below was recognised.",
        "Nothing is to be done; if something should have been found, ask Diagnose about this image.",
    ),
    Code.NON_FINITE_VALUES: FindingRow(
        "Inside the model, values became NaN or infinite; Detectron2 drops what they touch without a word.",
        "The outputs of the model's parts are summed; the first part whose sum is not finite is named.",
        "Import an earlier checkpoint; if the weights are sound, the input's range or the precision overflows.",
    ),
    Code.VALUES_IN_UNIT_RANGE: FindingRow(
        "The pixels were scaled to [0, 1] before they became 8 bits.",
        "No sample lies above 1, and in this frame or an earlier one of the feed they have a picture's structure.",
        "Send 0 to 255: leave out the division by 255.",
    ),
    Code.VALUES_SCALED_UP: FindingRow(
        "The pixels were multiplied by 255 once too often.", _PROBED, "Send 0 to 255: leave out the multiplication."
    ),
    Code.VALUES_NORMALISED: FindingRow(
        "The pixels were normalised before they were sent; the model normalises by itself.",
        "All samples lie at 0 to 3 or, wrapped around zero, at 253 to 255, where they make sense as signed numbers and "
        "the channels differ: black and white does not.",
        "Leave out the normalisation: the model subtracts the mean and divides by itself.",
    ),
    Code.IMAGE_BLACK: FindingRow(
        "The image is black: a covered or dead camera, or night without light.",
        "At least 99 % of the samples are at most 12 of 255: certain where nothing in the whole image stands out of a "
        "sensor's noise, suspected where something does, as in a picture of stars.",
        "Look at the camera, its lens cap and its exposure.",
    ),
    Code.IMAGE_SATURATED: FindingRow(
        "The image is blinded: most of it is as bright as can be.",
        "At least half of the samples are at least 250 of 255: certain where light was cut off everywhere and nothing "
        "is left, suspected else, as of a page, of snow or of goods on white.",
        "Lower the exposure, or turn the camera out of the light.",
    ),
    Code.IMAGE_FLAT: FindingRow(
        "The image has one colour: a test picture, a lost signal, a covered lens.",
        "The samples spread by less than two levels in every channel: certain where all pixels are the same, "
        "suspected else, as of a clear sky.",
        "Look at what the camera or the decoder delivers.",
    ),
    Code.FEED_FROZEN: FindingRow(
        "The feed repeats one picture.",
        "Ten frames in a row have the same pixels; a sensor's noise alone makes two frames differ. Suspected where "
        "the picture has no such noise, as a screen's.",
        "Restart the camera or the decoder.",
    ),
    Code.SCORES_FLAT: FindingRow(
        "The model scores everything alike, as a head with random weights does.",
        "The mean share of the best class, background included, is near one part in the number of classes.",
        "Import the trained checkpoint, with its config, and take back the waivers that let this one in.",
    ),
    Code.GOLDEN_FAILING: FindingRow(
        "The model no longer answers its golden images as it did when it was imported.",
        "They are inferred again at each start of a worker, and every now and then.",
        "Run `vedette-server check` on the model; import it again where its files are sound.",
    ),
    Code.EMPTIED_BY_CLIPPING: FindingRow(
        "What was found lies outside the image, so that nothing of it is left.",
        "Boxes above the threshold had no area once they were cut to the image.",
        "Look at the model's box regression: BBOX_REG_WEIGHTS must be those of the training.",
    ),
    Code.CLASS_FILTER: FindingRow(
        "There were detections, and none of them of a class that was asked for.",
        "They are counted before the class filter.",
        "Ask for their classes, or for all.",
    ),
    Code.CAPPED: FindingRow(
        "There were detections, and the number that is allowed is nothing.",
        "They are counted before the cap.",
        "Set TEST.DETECTIONS_PER_IMAGE to 100, and take back the waiver of ALWAYS_EMPTY.",
    ),
    Code.BELOW_THRESHOLD: FindingRow(
        "Candidates that the model holds more likely than not lie below the threshold.",
        "The best score is at least 0.5 and not above the threshold. A weaker best score is told with a quiet scene.",
        "Lower the threshold, in the request or in model.toml.",
    ),
    Code.CHANNELS_SWAPPED: FindingRow(
        "Red and blue are exchanged: RGB was sent as BGR, or the reverse.",
        _PROBED,
        'Declare the order in which you send, such as pixel_format="RGB8", or turn it: pixels[:, :, ::-1].',
    ),
    Code.IMAGE_ROTATED: FindingRow(
        "The image is turned: the camera hangs otherwise, or an EXIF orientation was lost.",
        _PROBED,
        "Turn the image upright before it is sent, or keep its EXIF orientation and ORIENTATION_APPLY.",
    ),
    Code.IMAGE_MIRRORED: FindingRow(
        "The image is mirrored.", _PROBED, "Switch the camera's mirroring off, or flip it: pixels[:, ::-1]."
    ),
    Code.IMAGE_INVERTED: FindingRow("The image is a negative.", _PROBED, "Invert it: 255 - pixels."),
    Code.LAYOUT_TRANSPOSED: FindingRow(
        "Planes were sent as interleaved pixels, or the reverse.",
        _PROBED,
        "Declare the layout in which you send, or turn it: pixels.transpose(1, 2, 0) makes HWC of CHW.",
    ),
    Code.SIZE_SWAPPED: FindingRow(
        "Height and width are exchanged, so that each row begins where none does.",
        _PROBED,
        "Send height = pixels.shape[0], width = pixels.shape[1].",
    ),
    Code.COLOUR_FOR_GREY: FindingRow(
        "The model was trained on grey pictures and is sent colour.", _PROBED, "Make the image grey before it is sent."
    ),
    Code.IMAGE_TOO_DARK: FindingRow("The image is too dark for the model.", _PROBED, "Raise the exposure or the gain."),
    Code.IMAGE_TOO_BRIGHT: FindingRow(
        "The image is too bright for the model.", _PROBED, "Lower the exposure or the gain."
    ),
    Code.GREY_FOR_COLOUR: FindingRow(
        "The image has no colour, and the model was trained on colour.",
        "The channels of a sample differ by less than one level, and model.toml does not allow GRAY8.",
        "Send colour; if the model was trained on grey, allow GRAY8 in model.toml.",
    ),
    Code.IMAGE_TOO_SMALL: FindingRow(
        "The image is far smaller than what the model was trained on.",
        "It is enlarged at least threefold before the model sees it.",
        "Send the camera's own size, not a thumbnail.",
    ),
    Code.IMAGE_TOO_LARGE: FindingRow(
        "The image is far larger than what the model was trained on, so that objects vanish when it is reduced.",
        "It is reduced at least eightfold before the model sees it; or its middle, unreduced, gives detections.",
        "Cut it into parts of about the trained size, and send those.",
    ),
    Code.NO_PROPOSALS: FindingRow(
        "The model proposed no region at all.",
        "Regions are counted before and after their filter.",
        "Look at MODEL.PROPOSAL_GENERATOR.MIN_SIZE and MODEL.RPN in the config.",
    ),
}

# What each mistake is called as a finding, and in words.
OF_MISTAKE = {
    Mistake.CHANNELS_SWAPPED: (Code.CHANNELS_SWAPPED, "with red and blue exchanged"),
    Mistake.UNIT_RANGE: (Code.VALUES_IN_UNIT_RANGE, "multiplied by 255"),
    Mistake.SCALED_UP: (Code.VALUES_SCALED_UP, "divided by 255"),
    Mistake.NORMALISED: (Code.VALUES_NORMALISED, "with the model's own normalisation undone"),
    Mistake.NORMALISED_IMAGENET: (Code.VALUES_NORMALISED, "with ImageNet's normalisation undone"),
    Mistake.ROTATED_90: (Code.IMAGE_ROTATED, "turned left by 90 degrees"),
    Mistake.ROTATED_180: (Code.IMAGE_ROTATED, "turned by 180 degrees"),
    Mistake.ROTATED_270: (Code.IMAGE_ROTATED, "turned right by 90 degrees"),
    Mistake.MIRRORED: (Code.IMAGE_MIRRORED, "mirrored"),
    Mistake.INVERTED: (Code.IMAGE_INVERTED, "inverted"),
    Mistake.COLOUR_FOR_GREY: (Code.COLOUR_FOR_GREY, "made grey"),
    Mistake.CHW_AS_HWC: (Code.LAYOUT_TRANSPOSED, "read as CHW"),
    Mistake.HWC_AS_CHW: (Code.LAYOUT_TRANSPOSED, "read as HWC"),
    Mistake.SIZE_SWAPPED: (Code.SIZE_SWAPPED, "with height and width exchanged"),
    Mistake.TOO_FAR: (Code.IMAGE_TOO_LARGE, "cut to its middle, unreduced"),
    Mistake.TOO_DARK: (Code.IMAGE_TOO_DARK, "brightened"),
    Mistake.TOO_BRIGHT: (Code.IMAGE_TOO_BRIGHT, "darkened"),
    Mistake.THRESHOLD: (Code.BELOW_THRESHOLD, "at the lowest threshold"),
}
