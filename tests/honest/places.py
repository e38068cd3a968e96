"""Cameras elsewhere: streets at night, corridors in infrared, belts and benches, water, lawns, goods, stuff."""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tests.honest.canvas import (
    Field,
    Picture,
    bits,
    blob,
    blurred,
    clouds,
    colour,
    font,
    ramp,
    rng,
    sensor,
    shipped,
    spots,
)

SIZE = (540, 960)


def night_street(number: int) -> Picture:
    chance = rng("night_street", number)
    height, width = SIZE
    view = np.zeros((height, width, 3), np.float32) + (8, 8, 12)
    lamps: Field = np.zeros(SIZE, np.float32)
    match number:
        case 0:  # lamps and what they light
            for x in range(100, 900, 170):
                blob(lamps, (140, x), (9, 9), 0, 250)
                blob(lamps, (420, x), (70, 120), 0, 45)
            view += lamps[:, :, None] * (1, 0.8, 0.5)
        case 1:  # all but black: two lamps far away
            for x in (430, 470):
                blob(lamps, (250, x), (4, 4), 0, 240)
            view = 3 + lamps[:, :, None] * np.array([1, 0.85, 0.6], np.float32)
        case 2:  # headlights on a wet road
            for x in (400, 480):
                blob(lamps, (270, x), (16, 16), 0, 255)
                blob(lamps, (430, x), (120, 10), 0, 70)
            view += lamps[:, :, None]
        case 3:  # neon
            for _ in range(14):
                x, y = int(chance.integers(0, 850)), int(chance.integers(0, 380))
                tint = tuple(chance.choice([40, 255], 3).tolist())
                cv2.rectangle(view, (x, y), (x + int(chance.integers(30, 110)), y + 30), tint, -1)
            view = blurred(view, 3)
        case _:  # without lamps: walls that can just be told
            view = 7 + 9 * clouds(chance, height, width, 0.3)[:, :, None] * np.ones(3, np.float32)
            view[:200, 300:500] += 6
    return sensor(chance, view, 2.5)


def infrared(number: int) -> Picture:
    """Surveillance, grey."""
    chance = rng("infrared", number)
    height, width = SIZE
    rows, columns = np.mgrid[:height, :width]
    beam = 160 * np.exp(-(((rows - 270) / 230) ** 2 + ((columns - 480) / 330) ** 2)).astype(np.float32)
    match number:
        case 0:  # a corridor
            for step in range(5):
                cv2.rectangle(beam, (60 * step, 40 * step), (width - 60 * step, height - 40 * step), 90.0, 2)
        case 1:  # a car park
            for x in range(100, 900, 90):
                cv2.line(beam, (x, 300), (x - 40, 500), 190.0, 3)
        case 2:  # an open field: the beam meets nothing
            beam = 6 + 0.05 * beam
        case _:  # too near: the lamp dazzles off a wall
            beam = 120 + 1.2 * beam
    picture = Image.fromarray(sensor(chance, beam, 5))
    ImageDraw.Draw(picture).text((10, 8), "CAM 03  2024-02-11 03:12:44", 230, font(16, "DejaVuSansMono"))
    return np.asarray(picture)


def industry(number: int) -> Picture:
    chance = rng("industry", number)
    height, width = SIZE
    match number:
        case 0:  # a belt with nothing on it
            return sensor(chance, 52 + 6 * clouds(chance, height, width, 0.01, 2), 2)
        case 1:  # a green belt, evenly lit
            return sensor(chance, colour(clouds(chance, height, width, 0.5, 1), (38, 96, 62), (41, 100, 65)), 1.2)
        case 2:  # a board
            board = np.zeros((height, width, 3), np.float32) + (20, 80, 45)
            for _ in range(60):
                x, y = int(chance.integers(0, 900)), int(chance.integers(0, 500))
                cv2.rectangle(
                    board, (x, y), (x + int(chance.integers(8, 60)), y + int(chance.integers(8, 40))), (30, 30, 32), -1
                )
                cv2.line(board, (x, y), (x + 120, y), (150, 140, 90), 2)
            return sensor(chance, board, 3)
        case 3:  # a part before a lit screen
            shadow = np.full(SIZE, 255, np.float32)
            cv2.circle(shadow, (480, 270), 120, 6.0, -1)
            cv2.circle(shadow, (480, 270), 40, 255.0, -1)
            return bits(blurred(shadow, 1))
        case 4:  # a part under low light: only its scratches shine
            dark: Field = np.full(SIZE, 3.0, np.float32)
            for _ in range(8):
                x, y = int(chance.integers(0, 900)), int(chance.integers(0, 500))
                cv2.line(dark, (x, y), (x + int(chance.integers(-60, 60)), y + 30), 170.0, 1)
            return sensor(chance, dark, 1)
        case 5:  # brushed steel
            return sensor(chance, 150 + 30 * (np.repeat(chance.random((height, 1)), width, axis=1) - 0.5), 5)
        case _:  # a wafer
            wafer = np.zeros((height, width, 3), np.float32) + 8
            cv2.circle(wafer, (480, 270), 250, (120, 90, 140), -1)
            wafer[::24], wafer[:, ::24] = wafer[::24] * 0.7, wafer[:, ::24] * 0.7
            return sensor(chance, wafer, 2)


def under_water(number: int) -> Picture:
    chance = rng("under_water", number)
    height, width = SIZE
    murk = clouds(chance, height, width, 0.4)
    match number:
        case 0:
            return sensor(chance, colour(murk, (10, 80, 110), (30, 130, 150)), 2)
        case 1:  # murky: nothing to be seen
            return sensor(chance, colour(murk, (58, 84, 62), (62, 88, 66)), 1)
        case 2:  # a diver's lamp in the deep
            deep: Field = np.full(SIZE, 2, np.float32)
            blob(deep, (280, 500), (110, 130), 0, 60)
            return sensor(chance, deep[:, :, None] * np.array([0.3, 0.8, 1.0], np.float32), 1.5, 3)
        case _:  # marine snow
            deep = np.full(SIZE, 9, np.float32)
            spots(chance, deep, 200, 1.5, 120)
            return sensor(chance, deep[:, :, None] * np.array([0.5, 0.9, 1.0], np.float32), 1)


def sports(number: int) -> Picture:
    chance = rng("sports", number)
    height, width = SIZE
    match number:
        case 0:  # a pitch
            grass = colour(clouds(chance, height, width, 0.02), (50, 110, 45), (80, 150, 65))
            cv2.rectangle(grass, (60, 60), (900, 480), (235, 240, 235), 4)
            cv2.circle(grass, (480, 270), 90, (235, 240, 235), 4)
            return sensor(chance, grass, 3)
        case 1:  # ice
            ice = np.full((height, width, 3), (250, 252, 255), np.float32)
            cv2.circle(ice, (480, 270), 80, (200, 40, 50), 5)
            cv2.line(ice, (480, 0), (480, 540), (200, 40, 50), 8)
            return sensor(chance, ice, 2, 1)
        case 2:  # clay
            return sensor(chance, colour(clouds(chance, height, width, 0.3), (178, 92, 60), (194, 105, 72)), 3)
        case _:  # a pool's lanes
            pool = colour(clouds(chance, height, width, 0.05), (40, 150, 190), (90, 200, 230))
            for y in range(60, 540, 80):
                pool[y : y + 8] = (220, 50, 50)
            return sensor(chance, pool, 2)


def goods(number: int) -> Picture:
    """Products on white, as shops show them, and one on black."""
    shop = np.full((800, 800, 3), 255, np.float32)
    match number:
        case 0:
            cv2.rectangle(shop, (280, 200), (520, 640), (40, 60, 150), -1)
        case 1:  # white on white
            cv2.circle(shop, (400, 400), 200, (246, 246, 244), -1)
            cv2.ellipse(shop, (400, 620), (220, 30), 0, 0, 360, (240, 240, 240), -1)
            shop = blurred(shop, 5)
        case 2:  # a ring
            cv2.circle(shop, (400, 400), 70, (190, 160, 70), 8)
        case 3:  # black
            cv2.rectangle(shop, (300, 140), (500, 660), (8, 8, 9), -1)
        case 4:  # with a soft shadow
            shadow = np.zeros((800, 800), np.float32)
            blob(shadow, (560, 400), (90, 220), 0, 70)
            shop -= shadow[:, :, None]
            cv2.circle(shop, (400, 420), 130, (200, 60, 60), -1)
        case 5:  # a watch on black velvet
            shop[:] = 3
            cv2.circle(shop, (400, 400), 60, (190, 190, 200), 10)
        case _:  # glass: nothing but edges
            cv2.ellipse(shop, (400, 400), (120, 220), 0, 0, 360, (225, 230, 232), 3)
    return bits(shop)


def stuff(number: int) -> Picture:
    """Textures and close-ups."""
    chance = rng("stuff", number)
    match number:
        case 0 | 1 | 2:
            return shipped("skimage", f"data/{('grass', 'gravel', 'brick')[number]}.png", grey=True)
        case 3:  # a television without a station
            return bits(chance.uniform(0, 255, (480, 640)))
        case 4:  # cloth
            rows, columns = np.mgrid[:480, :640]
            return sensor(chance, 130 + 30 * np.sin(rows * 1.1) * np.sin(columns * 1.1), 6)
        case 5:  # white plaster
            return sensor(chance, 244 + 8 * (clouds(chance, 480, 640, 0.03) - 0.5), 1.5)
        case 6:
            return shipped("skimage", "data/coins.png", grey=True)
        case _:  # black fur
            return sensor(chance, 5 + 14 * clouds(chance, 480, 640, 0.02, 3), 1.5)


def photographs(number: int) -> Picture:
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png")
    if number < len(names):
        return shipped("skimage", f"data/{names[number]}", grey=number == 5)
    return shipped("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")


def depth(number: int) -> Picture:
    """Depth maps as pictures."""
    chance = rng("depth", number)
    height, width = 480, 640
    match number:
        case 0:
            with np.load(_disparity()) as file:
                found: NDArray[np.float32] = np.nan_to_num(next(iter(file.values())), posinf=0).astype(np.float32)
            return bits(255 * found / found.max())
        case 1:  # a floor
            return bits(ramp(height, width, 20, 250))
        case 2:  # metres in 8 bits: near things only
            room: Field = np.full((height, width), 5, np.float32)
            room[200:400, 100:250], room[150:300, 400:480] = 2, 3
            return bits(room)
        case _:  # holes
            room = ramp(height, width, 180, 90)
            room[clouds(chance, height, width, 0.1) < 0.4] = 0
            return bits(room)


def _disparity() -> str:
    from tests.honest.canvas import folder

    return str(folder("skimage") / "data/motorcycle_disp.npz")


TRADES = {
    "night street": (night_street, 5),
    "infrared": (infrared, 4),
    "industry": (industry, 7),
    "under water": (under_water, 4),
    "sports": (sports, 4),
    "goods": (goods, 7),
    "stuff": (stuff, 8),
    "photographs": (photographs, 7),
    "depth": (depth, 4),
}
