"""The closed list of findings, with the meaning, the evidence and the remedy of each."""

from dataclasses import dataclass
from enum import StrEnum

from vedette_server.contract.mistakes import Mistake


class Code(StrEnum):
    """A reason for an empty answer, or something suspicious about an answer. The API has the same list."""

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
    """The confidence of a finding."""

    SUSPECTED = "SUSPECTED"  # the evidence suggests it, but allows other readings
    LIKELY = "LIKELY"  # the evidence leaves little else
    CERTAIN = "CERTAIN"  # measured, not inferred


@dataclass(frozen=True)
class Finding:
    """A named cause with its evidence."""

    code: Code
    confidence: Confidence
    evidence: str  # one sentence
    remedy: str  # one sentence


@dataclass(frozen=True)
class FindingRow:
    """The documentation of a finding for users."""

    meaning: str
    recognised: str
    remedy: str


_PROBED = "Undoing it restores detections on nearly every frame that the server tries: see Diagnose."

FINDINGS = {
    Code.QUIET_SCENE: FindingRow(
        "As far as the server can tell, the scene is empty.",
        "Nothing below was recognised.",
        "No action is needed; if the image shows an object, run Diagnose on it.",
    ),
    Code.NON_FINITE_VALUES: FindingRow(
        "Values inside the model became NaN or infinite; Detectron2 silently drops the affected results.",
        "The outputs of the model's parts are summed; the evidence names the first part with a non-finite sum.",
        "Import an earlier checkpoint; if the weights are sound, check the input's range and the precision.",
    ),
    Code.VALUES_IN_UNIT_RANGE: FindingRow(
        "The pixels were scaled to [0, 1] before they were cast to 8 bits.",
        "No sample is above 1, and in this frame or an earlier one of the feed they have the structure of a picture.",
        "Send 0 to 255: remove the division by 255.",
    ),
    Code.VALUES_SCALED_UP: FindingRow(
        "The pixels were multiplied by 255 once too often.", _PROBED, "Send 0 to 255: remove the multiplication."
    ),
    Code.VALUES_NORMALISED: FindingRow(
        "The pixels were normalised before they were sent, but the model normalises them itself.",
        "All samples are at 0 to 3 or, wrapped around zero, at 253 to 255; they make sense as signed numbers, and "
        "the channels differ, which excludes black and white.",
        "Remove the normalisation: the model itself subtracts the mean and divides by the standard deviation.",
    ),
    Code.IMAGE_BLACK: FindingRow(
        "The image is black: a covered or dead camera, or an unlit night.",
        "At least 99 % of the samples are at most 12 of 255: certain if nothing in the whole image stands out from "
        "sensor noise, suspected if something does, as in a picture of stars.",
        "Check the camera, its lens cap and its exposure.",
    ),
    Code.IMAGE_SATURATED: FindingRow(
        "The image is saturated: most of it is at full brightness.",
        "At least half of the samples are at least 250 of 255: certain if the image is clipped and shows nothing, "
        "otherwise suspected, as for a page, snow, or goods on white.",
        "Lower the exposure, or turn the camera away from the light.",
    ),
    Code.IMAGE_FLAT: FindingRow(
        "The image has a single colour: a test picture, a lost signal, or a covered lens.",
        "The samples spread by less than two levels in every channel: certain if all pixels are the same, "
        "otherwise suspected, as for a clear sky.",
        "Check the output of the camera or the decoder.",
    ),
    Code.FEED_FROZEN: FindingRow(
        "The feed repeats one picture.",
        "Ten consecutive frames have the same pixels, although sensor noise alone makes frames differ. Suspected if "
        "the picture has no such noise, as on a screen.",
        "Restart the camera or the decoder.",
    ),
    Code.SCORES_FLAT: FindingRow(
        "The model scores everything alike, as a head with random weights does.",
        "The mean share of the best class, background included, is close to one divided by the number of classes.",
        "Import the trained checkpoint with its config, and remove the waivers that admitted this one.",
    ),
    Code.GOLDEN_FAILING: FindingRow(
        "The model's answers to its golden images differ from those at import.",
        "Golden images are inferred again at each start of a worker, and periodically.",
        "Run `vedette-server check` on the model; if its files are sound, import it again.",
    ),
    Code.EMPTIED_BY_CLIPPING: FindingRow(
        "All boxes that were found are outside the image, so nothing remains.",
        "Boxes above the threshold had no area after they were clipped to the image.",
        "Check the model's box regression: BBOX_REG_WEIGHTS must be those used in training.",
    ),
    Code.CLASS_FILTER: FindingRow(
        "There were detections, but none of a requested class.",
        "Detections are counted before the class filter.",
        "Request their classes, or all.",
    ),
    Code.CAPPED: FindingRow(
        "There were detections, but the maximum number is 0.",
        "Detections are counted before the cap.",
        "Set TEST.DETECTIONS_PER_IMAGE to 100, and remove the waiver of ALWAYS_EMPTY.",
    ),
    Code.BELOW_THRESHOLD: FindingRow(
        "Candidates that the model considers more likely than not are below the threshold.",
        "The best score is at least 0.5 and not above the threshold. A quiet scene reports weaker best scores.",
        "Lower the threshold, in the request or in model.toml.",
    ),
    Code.CHANNELS_SWAPPED: FindingRow(
        "Red and blue are swapped: RGB was sent as BGR, or vice versa.",
        _PROBED,
        'Declare the order that you send, such as pixel_format="RGB8", or reverse it: pixels[:, :, ::-1].',
    ),
    Code.IMAGE_ROTATED: FindingRow(
        "The image is rotated: the camera is mounted differently, or an EXIF orientation was lost.",
        _PROBED,
        "Rotate the image upright before sending it, or keep its EXIF orientation and use ORIENTATION_APPLY.",
    ),
    Code.IMAGE_MIRRORED: FindingRow(
        "The image is mirrored.", _PROBED, "Switch off the camera's mirroring, or flip the image: pixels[:, ::-1]."
    ),
    Code.IMAGE_INVERTED: FindingRow("The image is a negative.", _PROBED, "Invert it: 255 - pixels."),
    Code.LAYOUT_TRANSPOSED: FindingRow(
        "Planar data was sent as interleaved pixels, or vice versa.",
        _PROBED,
        "Declare the layout that you send, or transpose it: pixels.transpose(1, 2, 0) turns CHW into HWC.",
    ),
    Code.SIZE_SWAPPED: FindingRow(
        "Height and width are swapped, so each row begins at a wrong offset.",
        _PROBED,
        "Send height = pixels.shape[0], width = pixels.shape[1].",
    ),
    Code.COLOUR_FOR_GREY: FindingRow(
        "The model was trained on grey pictures but receives colour.",
        _PROBED,
        "Convert the image to grey before sending it.",
    ),
    Code.IMAGE_TOO_DARK: FindingRow("The image is too dark for the model.", _PROBED, "Raise the exposure or the gain."),
    Code.IMAGE_TOO_BRIGHT: FindingRow(
        "The image is too bright for the model.", _PROBED, "Lower the exposure or the gain."
    ),
    Code.GREY_FOR_COLOUR: FindingRow(
        "The image has no colour, but the model was trained on colour.",
        "The channels of a sample differ by less than one level, and model.toml does not allow GRAY8.",
        "Send colour; if the model was trained on grey, allow GRAY8 in model.toml.",
    ),
    Code.IMAGE_TOO_SMALL: FindingRow(
        "The image is far smaller than the model's training images.",
        "It is enlarged at least threefold before the model sees it.",
        "Send the camera's full size, not a thumbnail.",
    ),
    Code.IMAGE_TOO_LARGE: FindingRow(
        "The image is far larger than the model's training images, so objects vanish when it is reduced.",
        "It is reduced at least eightfold before the model sees it; or its centre, unreduced, yields detections.",
        "Cut it into parts of about the training size, and send those.",
    ),
    Code.NO_PROPOSALS: FindingRow(
        "The model proposed no regions.",
        "Regions are counted before and after filtering.",
        "Check MODEL.PROPOSAL_GENERATOR.MIN_SIZE and MODEL.RPN in the config.",
    ),
}

# Finding code and description of each mistake.
OF_MISTAKE = {
    Mistake.CHANNELS_SWAPPED: (Code.CHANNELS_SWAPPED, "with red and blue swapped"),
    Mistake.UNIT_RANGE: (Code.VALUES_IN_UNIT_RANGE, "multiplied by 255"),
    Mistake.SCALED_UP: (Code.VALUES_SCALED_UP, "divided by 255"),
    Mistake.NORMALISED: (Code.VALUES_NORMALISED, "with the model's own normalisation undone"),
    Mistake.NORMALISED_IMAGENET: (Code.VALUES_NORMALISED, "with ImageNet's normalisation undone"),
    Mistake.ROTATED_90: (Code.IMAGE_ROTATED, "rotated left by 90 degrees"),
    Mistake.ROTATED_180: (Code.IMAGE_ROTATED, "rotated by 180 degrees"),
    Mistake.ROTATED_270: (Code.IMAGE_ROTATED, "rotated right by 90 degrees"),
    Mistake.MIRRORED: (Code.IMAGE_MIRRORED, "mirrored"),
    Mistake.INVERTED: (Code.IMAGE_INVERTED, "inverted"),
    Mistake.COLOUR_FOR_GREY: (Code.COLOUR_FOR_GREY, "converted to grey"),
    Mistake.CHW_AS_HWC: (Code.LAYOUT_TRANSPOSED, "read as CHW"),
    Mistake.HWC_AS_CHW: (Code.LAYOUT_TRANSPOSED, "read as HWC"),
    Mistake.SIZE_SWAPPED: (Code.SIZE_SWAPPED, "with height and width swapped"),
    Mistake.TOO_FAR: (Code.IMAGE_TOO_LARGE, "cropped to its centre, unreduced"),
    Mistake.TOO_DARK: (Code.IMAGE_TOO_DARK, "brightened"),
    Mistake.TOO_BRIGHT: (Code.IMAGE_TOO_BRIGHT, "darkened"),
    Mistake.THRESHOLD: (Code.BELOW_THRESHOLD, "at the lowest threshold"),
}
