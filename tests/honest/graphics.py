"""Pictures that nobody photographed: cartoons, logos, charts, maps, plans, silhouettes."""

import cv2
import numpy as np
from PIL import Image, ImageDraw

from tests.honest.canvas import Picture, bits, blurred, clouds, colour, font, ramp, rng, shipped, words

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def flat_art(number: int) -> Picture:
    chance = rng("flat_art", number)
    art = Image.new("RGB", (800, 600), WHITE)
    draw = ImageDraw.Draw(art)
    match number:
        case 0:  # a cartoon
            draw.rectangle((0, 0, 800, 350), (110, 200, 250))
            draw.rectangle((0, 350, 800, 600), (110, 190, 80))
            draw.ellipse((600, 40, 720, 160), (255, 220, 60), BLACK, 4)
            draw.ellipse((250, 200, 420, 420), (240, 120, 90), BLACK, 6)
            draw.ellipse((290, 260, 320, 290), WHITE, BLACK, 3)
        case 1:  # a logo on white
            draw.polygon([(400, 200), (480, 380), (320, 380)], (220, 30, 40))
            draw.text((300, 400), "ACME", (40, 40, 40), font(70, "DejaVuSans-Bold"))
        case 2:  # a logo on black
            art.paste(BLACK, (0, 0, 800, 600))
            draw.text((330, 270), "nova", (250, 250, 250), font(60))
        case 3:  # a flag
            for index, tint in enumerate(((0, 85, 164), WHITE, (239, 65, 53))):
                draw.rectangle((267 * index, 0, 267 * index + 267, 600), tint)
        case 4:  # pixel art
            grid = chance.integers(0, 4, (24, 32))
            tints = np.array([(20, 12, 28), (208, 70, 72), (109, 170, 44), (222, 238, 214)], np.uint8)
            return np.kron(tints[grid], np.ones((24, 24, 1), np.uint8))
        case 5:
            return shipped("skimage", "data/color.png")
        case 6:  # an icon, tiny lines on white
            draw.ellipse((370, 270, 430, 330), outline=BLACK, width=3)
        case _:  # a test chart
            for index in range(8):
                tint = (255 * (index >> 1 & 1), 255 * (index >> 2 & 1), 255 * (index & 1))
                draw.rectangle((100 * index, 0, 100 * index + 100, 600), tint)
    return np.asarray(art)


def charts(number: int) -> Picture:
    chance = rng("charts", number)
    dark = number == 4
    chart = Image.new("RGB", (900, 600), (24, 24, 30) if dark else WHITE)
    draw = ImageDraw.Draw(chart)
    ink = (200, 200, 200) if dark else BLACK
    draw.line((80, 40, 80, 540, 860, 540), ink, 2)
    for step in range(6):
        draw.text((40, 530 - 90 * step), str(step * 20), ink, font(12))
    match number:
        case 0 | 4:  # lines
            for tint in ((31, 119, 180), (255, 127, 14)):
                steps = np.cumsum(chance.normal(0, 14, 79)) + 300
                draw.line([(80 + 10 * x, float(y)) for x, y in enumerate(steps)], tint, 2)
        case 1:  # bars
            for bar in range(12):
                draw.rectangle((100 + 60 * bar, float(chance.uniform(80, 500)), 140 + 60 * bar, 540), (70, 130, 180))
        case 2:  # points
            for x, y in chance.normal((470, 290), (150, 90), (200, 2)):
                draw.ellipse((x - 2, y - 2, x + 2, y + 2), (200, 60, 60))
        case _:  # heat
            heat = Image.fromarray(bits(255 * colour(clouds(chance, 20, 30, 0.4), (0.1, 0, 0.4), (1, 0.9, 0.1))))
            chart.paste(heat.resize((700, 460), Image.Resampling.NEAREST), (100, 60))
    return np.asarray(chart)


def maps(number: int) -> Picture:
    chance = rng("maps", number)
    if number == 3:
        return _heights()
    paper = {0: (242, 239, 233), 1: WHITE, 2: (20, 60, 140), 4: WHITE, 5: (250, 250, 250)}[number]
    sheet = Image.new("RGB", (1000, 700), paper)
    draw = ImageDraw.Draw(sheet)
    match number:
        case 0:  # streets
            for _ in range(30):
                ends = chance.integers(0, 1000, 4).tolist()
                draw.line(ends, (190, 190, 190), 12)
                draw.line(ends, WHITE, 9)
            draw.polygon([(0, 500), (400, 620), (300, 700), (0, 700)], (170, 211, 223))
            for _ in range(20):
                draw.text(tuple(chance.integers(0, 650, 2).tolist()), words(chance, 2).title(), (90, 90, 90), font(12))
        case 1 | 2:  # a plan; a blueprint
            ink = BLACK if number == 1 else (225, 235, 250)
            for _ in range(14):
                x, y = int(chance.integers(40, 800)), int(chance.integers(40, 560))
                draw.rectangle(
                    (x, y, x + int(chance.integers(50, 180)), y + int(chance.integers(40, 130))), outline=ink, width=2
                )
                draw.text((x + 6, y + 6), f"{chance.integers(100, 999)}", ink, font(12, "DejaVuSansMono"))
        case 4:  # contours, thin
            land = (clouds(chance, 700, 1000, 0.5) * 12).astype(np.uint8)
            edges = cv2.Laplacian(land, cv2.CV_16S) > 0
            return np.where(edges[:, :, None], np.array([150, 100, 60], np.uint8), np.uint8(255)).astype(np.uint8)
        case _:  # a network
            for tint in ((220, 40, 40), (40, 120, 220), (60, 160, 70)):
                points = [(int(x), int(chance.integers(80, 620))) for x in range(50, 1000, 130)]
                draw.line(points, tint, 10)
                for x, y in points:
                    draw.ellipse((x - 9, y - 9, x + 9, y + 9), WHITE, BLACK, 3)
    return np.asarray(sheet)


def _heights() -> Picture:
    from tests.honest.canvas import folder

    with np.load(folder("matplotlib") / "mpl-data/sample_data/jacksboro_fault_dem.npz") as file:
        land = file["elevation"].astype(np.float32)
    return bits(255 * (land - land.min()) / (land.max() - land.min()))


def silhouettes(number: int) -> Picture:
    chance = rng("silhouettes", number)
    match number:
        case 0:
            return shipped("skimage", "data/horse.png", grey=True)
        case 1:  # hills before dusk
            picture = colour(ramp(600, 800, 0, 1), (250, 150, 60), (255, 220, 120))
            ridge = 380 + 60 * np.cumsum(chance.normal(0, 0.1, 800))
            picture[np.arange(600)[:, None] > ridge[None]] = 4
            return bits(picture)
        case 2:  # a window from within
            room = np.full((600, 800), 9, np.float32)
            room[80:480, 150:650] = 255
            room[80:480, 395:405], room[275:285, 150:650] = 9, 9
            return bits(blurred(room, 2))
        case 3:  # branches before a white sky
            view = np.full((600, 800), 255, np.float32)
            for _ in range(40):
                cv2.line(
                    view,
                    tuple(chance.integers(0, 800, 2).tolist()),
                    tuple(chance.integers(0, 800, 2).tolist()),
                    12.0,
                    2,
                )
            return bits(view)
        case _:  # a person against a stage light
            stage = np.zeros((600, 800), np.float32)
            cv2.circle(stage, (400, 280), 210, 255.0, -1)
            cv2.rectangle(stage, (370, 240), (430, 600), 0.0, -1)
            cv2.circle(stage, (400, 200), 36, 0.0, -1)
            return bits(blurred(stage, 2))


TRADES = {"flat art": (flat_art, 8), "charts": (charts, 5), "maps": (maps, 6), "silhouettes": (silhouettes, 5)}
