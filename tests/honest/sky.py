"""From above and upwards: satellites by day and by night, stars, weather, sea and sky, fog and snow."""

import cv2
import numpy as np

from tests.honest.canvas import Field, Picture, bits, blob, blurred, clouds, colour, ramp, rng, sensor, shipped, spots

SIZE = (600, 800)


def satellite(number: int) -> Picture:
    chance = rng("satellite", number)
    height, width = SIZE
    land = clouds(chance, height, width, 0.4)
    match number:
        case 0:  # fields
            tiles = chance.integers(0, 3, (10, 14))
            tints = np.array([(96, 120, 60), (150, 140, 90), (70, 95, 55)], np.uint8)
            return sensor(chance, cv2.resize(tints[tiles], (width, height), interpolation=cv2.INTER_NEAREST), 5)
        case 1:  # a coast
            picture = colour(land, (70, 90, 60), (160, 150, 120))
            picture[land < 0.45] = (12, 40, 70)
            return sensor(chance, picture, 3)
        case 2:  # cloud, nearly white
            return sensor(chance, colour(land, (236, 240, 244), (255, 255, 255)), 1)
        case 3:  # desert
            return sensor(chance, colour(land, (190, 150, 105), (215, 175, 130)), 2)
        case 4:  # ice
            ice = np.where(land[:, :, None] > 0.5, (245, 248, 250), (10, 25, 45)).astype(np.float32)
            return sensor(chance, ice, 3, 1)
        case _:  # ocean and nothing else
            return sensor(chance, colour(land, (8, 22, 44), (12, 28, 52)), 1)


def lights(number: int) -> Picture:
    """Satellites at night."""
    chance = rng("lights", number)
    night: Field = np.full(SIZE, 2.0, np.float32)
    match number:
        case 0:  # a city's streets
            for at in range(60, 780, 24):
                cv2.line(night, (at, 100), (at, 500), 120.0, 1)
                cv2.line(night, (60, at % 500), (760, at % 500), 150.0, 1)
            return bits(colour(np.clip(blurred(night, 2) / 160, 0, 1), (2, 2, 5), (255, 210, 140)))
        case 1:  # villages
            spots(chance, night, 90, 2.0, 200)
            return sensor(chance, night, 1)
        case 2:  # a few ships
            spots(chance, night, 6, 1.2, 160)
            return bits(night)
        case 3:  # a coast's towns
            spots(chance, night, 160, 3, 120)
            night[(clouds(chance, *SIZE, 0.5) < 0.5)] = 1
            return bits(night)
        case _:  # moonlight on cloud
            return sensor(chance, 4 + 10 * clouds(chance, *SIZE, 0.3), 1.2)


def stars(number: int) -> Picture:
    chance = rng("stars", number)
    sky: Field = np.zeros((800, 800), np.float32)
    match number:
        case 0:
            spots(chance, sky, 400, 1.3, 230)
            return sensor(chance, sky + 6, 2)
        case 1:  # sharp: one pixel each
            spots(chance, sky, 250, 0, 230)
            return bits(sky)
        case 2:
            return shipped("skimage", "data/hubble_deep_field.jpg")
        case 3:  # a crescent
            cv2.circle(sky, (400, 400), 120, 220.0, -1)
            cv2.circle(sky, (350, 380), 130, 0.0, -1)
            return bits(blurred(sky, 1.5))
        case 4:  # a galaxy
            blob(sky, (400, 400), (60, 220), 0.4, 60)
            blob(sky, (400, 400), (15, 30), 0.4, 150)
            spots(chance, sky, 60, 1.4, 150)
            return sensor(chance, sky + 8, 3)
        case 5:  # the sun's disc
            cv2.circle(sky, (400, 400), 330, 235.0, -1)
            return bits(np.dstack([sky, 0.75 * sky, 0.2 * sky]))
        case 6:
            return shipped("skimage", "data/moon.png", grey=True)
        case 7:  # a few planets far apart
            spots(chance, sky, 4, 2.5, 200)
            return sensor(chance, sky + 1, 0.8)
        case _:  # 16 bits shifted into 8
            spots(chance, sky, 300, 1.6, 9)
            return bits(sky * 0.3)


def field_of_stars(number: int) -> Picture:
    """One of a night's exposures."""
    chance = rng("field", number)
    sky: Field = np.zeros((512, 512), np.float32)
    spots(chance, sky, int(chance.integers(20, 300)), float(chance.uniform(0.9, 1.8)), 230)
    return sensor(chance, sky + float(chance.uniform(2, 8)), 2)


def thermal(number: int) -> Picture:
    chance = rng("thermal", number)
    heat = 0.25 + 0.1 * clouds(chance, 480, 640, 0.6)
    for _ in range(2):
        blob(heat, tuple(chance.uniform(120, 380, 2)), (90, 45), float(chance.uniform(0, 3)), 0.5)
    match number:
        case 0:
            return sensor(chance, 255 * heat, 2, 2)
        case 1:  # iron
            red, green, blue = np.clip(2.2 * heat, 0, 1), np.clip(2 * heat - 0.8, 0, 1), np.clip(np.sin(5 * heat), 0, 1)
            return bits(255 * np.dstack([red, green, blue]))
        case 2:  # a wall: all of it the same temperature
            return sensor(chance, 118 + 5 * clouds(chance, 480, 640, 0.8, 2), 0.8)
        case 3:  # black hot
            return sensor(chance, 255 * (1 - heat), 2, 2)
        case _:  # a cold sky, one aircraft
            cold: Field = np.full((480, 640), 9, np.float32)
            cv2.line(cold, (300, 240), (322, 236), 210.0, 3)
            return sensor(chance, cold, 1, 1)


def sea_and_sky(number: int) -> Picture:
    chance = rng("sea_and_sky", number)
    height, width = SIZE
    match number:
        case 0:
            return sensor(chance, colour(ramp(height, width, 0, 1), (70, 130, 210), (150, 190, 230)), 1)
        case 1:  # without noise, and with hardly a gradient
            return bits(colour(ramp(height, width, 0, 1), (120, 170, 228), (124, 174, 231)))
        case 2:  # dusk
            return sensor(chance, colour(ramp(height, width, 0, 1), (40, 40, 90), (240, 130, 50)), 2)
        case 3:  # a horizon
            picture = colour(ramp(height, width, 0, 1), (150, 180, 210), (190, 205, 220))
            picture[300:] = colour(clouds(chance, 300, width, 0.05), (30, 60, 80), (70, 100, 120))
            return sensor(chance, picture, 2)
        case 4:  # overcast
            return sensor(chance, 205 + 6 * clouds(chance, height, width, 0.7, 2), 0.7)
        case 5:  # waves
            return sensor(chance, colour(clouds(chance, height, width, 0.03), (15, 50, 70), (60, 105, 125)), 3)
        case _:  # a gull in front of nothing
            picture = colour(ramp(height, width, 0, 1), (168, 200, 232), (172, 203, 234))
            cv2.polylines(picture, [np.array([(380, 290), (400, 300), (420, 290)])], False, (90, 90, 95), 2)
            return bits(picture)


def fog_and_snow(number: int) -> Picture:
    chance = rng("fog_and_snow", number)
    height, width = SIZE
    drift = clouds(chance, height, width, 0.5)
    match number:
        case 0:  # fog: shapes that are hardly there
            view = 222 + 6 * drift
            for x in (150, 420, 640):
                view[200:, x : x + 20] -= 9
            return sensor(chance, view, 1.2, 4)
        case 1:  # a slope in the sun
            return sensor(chance, colour(drift, (238, 242, 250), (255, 255, 255)), 1)
        case 2:  # trees in snow
            view = np.asarray(colour(drift, (244, 246, 250), (255, 255, 255)))
            for _ in range(40):
                x, y = int(chance.integers(0, width)), int(chance.integers(250, height))
                cv2.line(view, (x, y), (x, y - int(chance.integers(20, 120))), (50, 45, 45), 3)
            return sensor(chance, view, 2, 0.8)
        case 3:  # a white-out with a horizon
            view = np.full(SIZE, 253.5, np.float32)
            view[:250] -= 4
            return sensor(chance, view, 0.8, 6)
        case 4:  # fog by lamplight
            return sensor(chance, colour(drift, (205, 190, 160), (214, 200, 172)), 1)
        case _:  # all but white
            return sensor(chance, 252 + 3 * drift, 1)


TRADES = {
    "satellite": (satellite, 6),
    "night lights": (lights, 5),
    "stars": (stars, 9),
    "thermal": (thermal, 5),
    "sea and sky": (sea_and_sky, 7),
    "fog and snow": (fog_and_snow, 6),
}
