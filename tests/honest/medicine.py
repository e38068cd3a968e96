"""Bodies and cells: X-rays, tomography, ultrasound, and microscopes of three kinds."""

import cv2
import numpy as np

from tests.honest.canvas import Field, Picture, bits, blob, blurred, clouds, ramp, rng, sensor, shipped, spots

SIZE = (700, 620)


def x_ray(number: int) -> Picture:
    chance = rng("x_ray", number)
    height, width = SIZE
    film: Field = np.zeros(SIZE, np.float32)
    match number:
        case 0 | 1:  # a chest; as a positive and as a negative
            blob(film, (360, 310), (330, 280), 0, 170)
            for side in (190, 430):
                blob(film, (330, side), (220, 95), 0, -110)
            for row in range(120, 580, 50):
                cv2.ellipse(film, (310, row), (230, 50), 0, 180, 360, 190, 7)
            film[:, 295:325] += 40
            film = blurred(film, 3)
            return sensor(chance, 255 - film if number else film, 3)
        case 2:  # a hand on black
            blob(film, (480, 310), (150, 110), 0, 130)
            for finger in range(5):
                cv2.line(film, (230 + 40 * finger, 420), (150 + 80 * finger, 90 + 30 * abs(2 - finger)), 150.0, 24)
                cv2.line(film, (230 + 40 * finger, 420), (150 + 80 * finger, 90 + 30 * abs(2 - finger)), 230.0, 10)
            return sensor(chance, film, 2, 2)
        case 3:  # bones on white
            film += 252
            cv2.line(film, (300, 0), (330, 700), 120.0, 60)
            cv2.line(film, (300, 0), (330, 700), 150.0, 36)
            return sensor(chance, film, 1, 3)
        case 4:  # teeth
            for tooth in range(7):
                blob(film, (330, 60 + 85 * tooth), (150, 34), 0, 190)
                blob(film, (300, 60 + 85 * tooth), (70, 8), 0, -70)
            return sensor(chance, film + 30 * clouds(chance, height, width, 0.1), 4, 1.5)
        case 5:  # luggage: false colours on white
            bag = np.full((*SIZE, 3), 255, np.float32)
            for _ in range(14):
                x, y = int(chance.integers(60, 500)), int(chance.integers(60, 600))
                tint = [(230, 140, 40), (60, 120, 200), (80, 170, 90)][int(chance.integers(3))]
                cv2.rectangle(
                    bag, (x, y), (x + int(chance.integers(20, 160)), y + int(chance.integers(20, 120))), tint, -1
                )
            return sensor(chance, bag, 2, 2)
        case _:  # a weld, dark
            film += ramp(height, width, 20, 34) + 8 * clouds(chance, height, width, 0.05)
            film[320:380] += 28
            spots(chance, film, 40, 3, 40)
            return sensor(chance, film, 2)


def chest(number: int) -> Picture:
    """One of a day's X-rays: no two are alike."""
    chance = rng("chest", number)
    film: Field = np.zeros((512, 448), np.float32)
    wide, tall, axis = float(chance.uniform(150, 210)), float(chance.uniform(200, 250)), float(chance.uniform(200, 250))
    blob(film, (260, axis), (tall, wide), float(chance.uniform(-0.1, 0.1)), float(chance.uniform(120, 200)))
    for side in (-0.45, 0.45):
        blob(film, (240, axis + side * wide), (0.65 * tall, 0.34 * wide), 0, -90)
    for row in range(90, 430, int(chance.integers(32, 44))):
        cv2.ellipse(film, (int(axis), row), (int(0.8 * wide), 36), 0, 180, 360, float(chance.uniform(120, 200)), 5)
    return sensor(chance, blurred(film, 2), float(chance.uniform(1, 4)))


def tomography(number: int) -> Picture:
    chance = rng("tomography", number)
    slice_: Field = np.zeros((512, 512), np.float32)
    match number:
        case 0:
            return shipped("skimage", "data/phantom.png", grey=True)
        case 1 | 2:  # a head; the second in a window for bones, nearly all black
            blob(slice_, (256, 256), (210, 170), 0, 200)
            blob(slice_, (256, 256), (190, 150), 0, -100)
            if number == 1:
                return sensor(chance, slice_ + clouds(chance, 512, 512, 0.1) * 40 * (slice_ > 80), 4)
            bone = cv2.ellipse(np.zeros_like(slice_), (256, 256), (168, 208), 0, 0, 360, 235.0, 7)
            return bits(blurred(bone, 2))
        case 3:  # magnetic resonance, whose noise is positive
            blob(slice_, (260, 250), (200, 160), 0.1, 90)
            for _ in range(30):
                blob(
                    slice_,
                    tuple(chance.uniform(150, 360, 2)),
                    tuple(chance.uniform(8, 40, 2)),
                    0,
                    float(chance.uniform(-30, 60)),
                )
            real, imaginary = chance.normal(0, 5, (2, 512, 512))
            return bits(np.hypot(slice_ + real, imaginary))
        case 4:  # ultrasound, a fan of speckle
            rows, columns = np.mgrid[:512, :512].astype(np.float32)
            fan = (np.abs(np.arctan2(columns - 256, rows + 30)) < 0.6) & (np.hypot(columns - 256, rows + 30) < 500)
            speckle = chance.exponential(1.0, (512, 512)) * 60 * clouds(chance, 512, 512, 0.2)
            return bits(blurred(speckle, 1.2) * fan * 1.6)
        case 5:  # the last slice, where little is left of the body
            blob(slice_, (250, 262), (14, 18), 0, 60)
            return sensor(chance, slice_, 1)
        case _:  # 12 bits shifted into 8, without a window
            blob(slice_, (256, 256), (160, 200), 0, 9)
            blob(slice_, (256, 200), (60, 50), 0, -4)
            return sensor(chance, slice_, 0.4)


def fluorescence(number: int) -> Picture:
    chance = rng("fluorescence", number)
    glow: Field = np.zeros((768, 768), np.float32)

    def cells(count: int, level: float) -> Field:
        made: Field = np.zeros((768, 768), np.float32)
        for _ in range(count):
            blob(
                made,
                tuple(chance.uniform(20, 748, 2)),
                tuple(chance.uniform(9, 20, 2)),
                float(chance.uniform(0, 3)),
                level,
            )
        return made

    match number:
        case 0:
            return sensor(chance, cells(30, 160) + 3, 1.5)
        case 1:  # stained blue and green
            return np.dstack(
                [
                    np.zeros_like(glow).astype(np.uint8),
                    sensor(chance, cells(12, 120), 1),
                    sensor(chance, cells(25, 190), 1),
                ]
            )
        case 2:  # dim: 16 bits shifted into 8
            return sensor(chance, cells(25, 10) + 1, 0.5)
        case 3:  # one cell alone
            blob(glow, (300, 420), (14, 18), 0.5, 90)
            return sensor(chance, glow + 2, 1)
        case 4:  # beads
            spots(chance, glow, 120, 1.5, 230)
            return sensor(chance, glow + 4, 1.5)
        case 5:  # filaments
            for _ in range(25):
                points = np.cumsum(chance.normal(0, 14, (60, 2)) + chance.normal(0, 8, 2), axis=0) + chance.uniform(
                    0, 768, 2
                )
                cv2.polylines(glow, [points.astype(np.int32)], False, 120.0, 2)
            return sensor(chance, glow, 2, 1.2)
        case _:  # red on black, without background
            made = cells(9, 220)
            return np.dstack([bits(np.where(made > 20, made, 0)), np.zeros((768, 768, 2), np.uint8)])


def bright_field(number: int) -> Picture:
    chance = rng("bright_field", number)
    match number:
        case 0:
            return shipped("skimage", "data/ihc.png")
        case 1:  # blood
            smear = np.full((600, 800, 3), (238, 232, 228), np.float32)
            for _ in range(160):
                middle, radius = tuple(chance.integers(0, 800, 2).tolist()), int(chance.integers(13, 18))
                cv2.circle(smear, middle, radius, (214, 150, 150), -1)
                cv2.circle(smear, middle, radius // 3, (228, 190, 188), -1)
            return sensor(chance, smear, 2, 1.5)
        case 2:  # few cells, white light
            field = np.full((600, 800, 3), 254, np.float32)
            for _ in range(6):
                cv2.circle(field, tuple(chance.integers(40, 560, 2).tolist()), 18, (200, 170, 215), -1)
            return sensor(chance, field, 1, 2)
        case 3:  # phase contrast
            return sensor(chance, 128 + 50 * (clouds(chance, 600, 800, 0.05) - 0.5), 2)
        case 4:  # a gel
            gel = np.full((500, 700), 225, np.float32)
            for lane in range(10):
                for _ in range(6):
                    y = int(chance.integers(30, 470))
                    cv2.rectangle(gel, (30 + 66 * lane, y), (80 + 66 * lane, y + 5), float(chance.uniform(40, 180)), -1)
            return sensor(chance, gel, 2, 2)
        case 5:
            return shipped("skimage", "data/cell.png", grey=True)
        case 6:
            return shipped("skimage", "data/retina.jpg")
        case _:
            return shipped("skimage", "data/microaneurysms.png")


def electrons(number: int) -> Picture:
    chance = rng("electrons", number)
    height, width = 640, 800
    match number:
        case 0:  # particles
            view = 60 + 20 * clouds(chance, height, width, 0.2)
            for _ in range(60):
                blob(view, tuple(chance.uniform(0, 640, 2)), (float(chance.uniform(10, 30)),) * 2, 0, 80)
            return sensor(chance, view, 9)
        case 1:  # a lattice
            rows, columns = np.mgrid[:height, :width]
            return sensor(chance, 120 + 25 * (np.sin(rows * 0.7) + np.sin(columns * 0.6 + rows * 0.35)), 14)
        case 2:  # a grid's bars over nothing
            view = np.full((height, width), 4, np.float32)
            view[::130], view[:, ::130] = 90, 90
            return sensor(chance, cv2.dilate(view, np.ones((25, 25))), 2, 2)
        case 3:  # hardly any contrast
            return sensor(chance, 140 + 4 * clouds(chance, height, width, 0.3), 1.0)
        case _:  # charged: the specimen shines
            view = 40 + 30 * clouds(chance, height, width, 0.1)
            blob(view, (300, 400), (180, 260), 0.3, 240)
            return sensor(chance, view, 5)


TRADES = {
    "x-ray": (x_ray, 7),
    "tomography": (tomography, 7),
    "fluorescence": (fluorescence, 7),
    "bright field": (bright_field, 8),
    "electrons": (electrons, 5),
}
