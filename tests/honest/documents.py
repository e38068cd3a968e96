"""Paper and screens: scans, faxes, codes, boards, terminals, windows."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tests.honest.canvas import Picture, bits, clouds, font, page, paragraph, ramp, rng, sensor, shipped, words

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def documents(number: int) -> Picture:
    chance = rng("documents", number)
    match number:
        case 0:
            return np.asarray(page(chance, 827, 1169, WHITE, 14, BLACK))
        case 1:  # a scanner's own white, a little turned
            sheet = page(chance, 1000, 1400, (250, 249, 245), 18, (40, 40, 45))
            return sensor(
                chance, np.asarray(sheet.rotate(0.7, Image.Resampling.BICUBIC, fillcolor=(252, 252, 252))), 1.5, 0.7
            )
        case 2:  # a receipt
            sheet = Image.new("RGB", (320, 900), (253, 253, 253))
            draw = ImageDraw.Draw(sheet)
            for row in range(24):
                draw.text((15, 20 + 34 * row), words(chance, 2), (60, 60, 70), font(14, "DejaVuSansMono"))
                draw.text(
                    (250, 20 + 34 * row), f"{chance.uniform(1, 99):.2f}", (60, 60, 70), font(14, "DejaVuSansMono")
                )
            return sensor(chance, np.asarray(sheet), 2.0, 0.6)
        case 3:  # nothing but a title
            sheet = Image.new("RGB", (827, 1169), WHITE)
            ImageDraw.Draw(sheet).text((280, 540), "Appendix", BLACK, font(40, "DejaVuSerif"))
            return np.asarray(sheet)
        case 4:  # a form
            sheet = Image.new("RGB", (800, 1100), WHITE)
            draw = ImageDraw.Draw(sheet)
            for row in range(14):
                draw.rectangle((60, 80 + 70 * row, 740, 130 + 70 * row), outline=(90, 90, 90))
                draw.text((66, 84 + 70 * row), words(chance, 2), (70, 70, 70), font(11))
            return np.asarray(sheet)
        case 5:  # yellowed, photographed by a lamp
            sheet = page(chance, 700, 900, (235, 224, 190), 16, (70, 50, 40))
            return sensor(
                chance, np.asarray(sheet) * (0.7 + 0.3 * clouds(chance, 900, 700, 1.0, 1))[:, :, None], 3, 0.8
            )
        case 6:
            return shipped("skimage", "data/page.png", grey=True)
        case 7:
            return shipped("skimage", "data/text.png", grey=True)
        case _:  # a thesis at 150 dpi
            return np.asarray(page(chance, 1240, 1754, WHITE, 20, BLACK).convert("L"))


def scan(number: int) -> Picture:
    """One of a batch of pages: no two are alike."""
    chance = rng("scan", number)
    paper = 255 - int(chance.integers(0, 6))
    sheet = page(chance, 620, 877, (paper,) * 3, float(chance.uniform(9, 15)), BLACK)
    turned = sheet.rotate(float(chance.uniform(-1, 1)), Image.Resampling.BICUBIC, fillcolor=(paper,) * 3)
    return sensor(chance, np.asarray(turned), float(chance.uniform(0, 2)))


def faxed(number: int) -> Picture:
    """The same in 1 bit."""
    return _bilevel(page(rng("faxed", number), 620, 877, WHITE, 12, BLACK))


def fax(number: int) -> Picture:
    """All of it is 1 bit: 0 and 255, nothing between."""
    chance = rng("fax", number)
    match number:
        case 0:
            return _bilevel(page(chance, 864, 1100, WHITE, 16, BLACK))
        case 1:
            return _dithered(shipped("skimage", "data/camera.png", grey=True))
        case 2:
            return _code(chance, 33, 12)
        case 3:  # bars
            bars = np.repeat(chance.integers(0, 2, 95, np.uint8) * 255, 6)
            sheet = np.full((300, len(bars) + 80), 255, np.uint8)
            sheet[30:240, 40:-40] = bars
            return sheet
        case 4:  # a score
            sheet = np.full((900, 700), 255, np.uint8)
            for top in range(60, 850, 110):
                sheet[top : top + 50 : 10, 40:660] = 0
                for x in chance.integers(50, 650, 18):
                    y = top + int(chance.integers(0, 40))
                    sheet[y : y + 9, x : x + 11], sheet[y - 25 : y, x + 9 : x + 11] = 0, 0
            return sheet
        case 5:
            return _dithered(ramp(500, 700, 40, 220).astype(np.uint8))
        case 6:  # white on black
            return 255 - _bilevel(page(chance, 700, 900, WHITE, 18, BLACK))
        case _:
            return _code(chance, 21, 9)


def _bilevel(sheet: Image.Image) -> Picture:
    return np.where(np.asarray(sheet.convert("L")) > 128, 255, 0).astype(np.uint8)


def _dithered(grey: Picture) -> Picture:
    return np.asarray(Image.fromarray(grey).convert("1").convert("L"))


def _code(chance: np.random.Generator, cells: int, side: int) -> Picture:
    """A QR code's look."""
    grid = chance.integers(0, 2, (cells, cells), np.uint8) * 255
    for row, column in ((0, 0), (0, cells - 7), (cells - 7, 0)):
        grid[row : row + 7, column : column + 7] = 0
        grid[row + 1 : row + 6, column + 1 : column + 6] = 255
        grid[row + 2 : row + 5, column + 2 : column + 5] = 0
    return np.pad(np.kron(grid, np.ones((side, side), np.uint8)), 4 * side, constant_values=255)


def screens(number: int) -> Picture:
    chance = rng("screens", number)
    dark = number in (0, 2, 6)
    paper, ink = ((12, 12, 12), (204, 204, 204)) if dark else (WHITE, (30, 30, 30))
    screen = Image.new("RGB", (1280, 720), paper)
    draw = ImageDraw.Draw(screen)
    match number:
        case 0 | 1:  # a terminal
            for row in range(20 if number else 44):
                draw.text(
                    (6, 4 + 16 * row),
                    "$ " + words(chance, int(chance.integers(1, 14))),
                    ink,
                    font(12, "DejaVuSansMono"),
                )
        case 2:  # an editor
            draw.rectangle((0, 0, 200, 720), (30, 30, 30))
            for row in range(40):
                tint = [(86, 156, 214), (206, 145, 120), (78, 201, 176), (220, 220, 170)][int(chance.integers(4))]
                draw.text(
                    (220 + 20 * int(chance.integers(4)), 10 + 17 * row),
                    words(chance, 6),
                    tint,
                    font(12, "DejaVuSansMono"),
                )
        case 3:  # windows
            screen.paste((58, 110, 165), (0, 0, 1280, 720))
            for left, top in ((80, 60), (420, 160), (700, 260)):
                draw.rectangle((left, top, left + 480, top + 360), (240, 240, 240), (100, 100, 100))
                draw.rectangle((left, top, left + 480, top + 26), (0, 84, 227))
                paragraph(chance, draw, (left + 16, top + 40, left + 460, top + 350), 12, (20, 20, 20))
        case 4:  # a spreadsheet
            for x in range(0, 1280, 80):
                draw.line((x, 0, x, 720), (212, 212, 212))
            for y in range(0, 720, 20):
                draw.line((0, y, 1280, y), (212, 212, 212))
                draw.text((84, y + 3), f"{chance.uniform(0, 9999):.2f}", ink, font(11))
        case 5:  # a web page
            draw.rectangle((0, 0, 1280, 60), (24, 119, 242))
            for row in range(3):
                draw.rectangle(
                    (240, 100 + 200 * row, 520, 260 + 200 * row), tuple(chance.integers(80, 230, 3).tolist())
                )
                paragraph(chance, draw, (540, 100 + 200 * row, 1040, 270 + 200 * row), 15, (60, 60, 60))
        case 6:  # an empty prompt, as a console shows it
            draw.text((6, 6), "login: _", (170, 170, 170), font(14, "DejaVuSansMono"))
        case _:  # a dialogue on a bright desktop
            draw.rectangle((420, 250, 860, 450), (245, 245, 245), (160, 160, 160))
            draw.text((450, 290), "Save changes?", ink, font(20))
    return np.asarray(screen)


def boards(number: int) -> Picture:
    """Whiteboards and blackboards."""
    chance = rng("boards", number)
    black = number == 2
    board = Image.new("RGB", (1024, 680), (35, 60, 50) if black else WHITE)
    draw = ImageDraw.Draw(board)
    pens = [(230, 230, 220)] if black else [(20, 20, 30), (180, 30, 40), (20, 60, 160)]
    for _ in range(3 if number == 4 else 10):
        x, y = int(chance.integers(40, 700)), int(chance.integers(30, 600))
        points = [(x + 12 * step, y + int(chance.integers(-14, 14))) for step in range(20)]
        draw.line(points, pens[int(chance.integers(len(pens)))], 4)
    picture = np.asarray(board.filter(ImageFilter.GaussianBlur(0.8)), np.float32)
    glare = 30 * clouds(chance, 680, 1024, 0.9, 2)[:, :, None]
    return bits(picture + (0 if number == 0 else glare if black else 10 - glare) + chance.normal(0, 1.5, picture.shape))


TRADES = {"documents": (documents, 9), "fax": (fax, 8), "screens": (screens, 8), "boards": (boards, 5)}
