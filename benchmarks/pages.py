"""Seeded images of the kinds whose pixels repeat, drawn with Pillow: pages of a document, and screens."""

import random
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFont

PAGE_SIZE = (1240, 1754)  # A4 at 150 dots an inch
SCREEN_SIZE = (1920, 1080)
WORDS = [
    "the",
    "of",
    "tokens",
    "image",
    "model",
    "layer",
    "page",
    "window",
    "budget",
    "encoder",
    "answer",
    "table",
    "figure",
    "value",
    "result",
    "share",
    "pruning",
    "text",
    "visual",
    "between",
    "first",
    "every",
    "under",
    "number",
    "question",
    "method",
    "frame",
    "report",
    "keeps",
]

WHITE, INK = (255, 255, 255), (24, 24, 28)


def text_page(seed: int) -> Image.Image:
    """Paragraphs under headings, on white."""
    chance, page = random.Random(seed), Image.new("RGB", PAGE_SIZE, WHITE)
    pencil = ImageDraw.Draw(page)
    height = 120
    while height < PAGE_SIZE[1] - 200:
        pencil.text((120, height), _sentence(chance, 4).title(), INK, ImageFont.load_default(32))
        height = _paragraph(pencil, chance, (120, height + 60), PAGE_SIZE[0] - 240, chance.randint(4, 9)) + 40
    return page


def table_page(seed: int) -> Image.Image:
    """A heading, a ruled table of numbers, and a paragraph below."""
    chance, page = random.Random(seed), Image.new("RGB", PAGE_SIZE, WHITE)
    pencil = ImageDraw.Draw(page)
    pencil.text((120, 120), _sentence(chance, 5).title(), INK, ImageFont.load_default(32))
    columns, rows, font = 5, chance.randint(14, 22), ImageFont.load_default(20)
    width = (PAGE_SIZE[0] - 240) // columns
    for row in range(rows + 1):
        top = 220 + 44 * row
        pencil.line((120, top, 120 + width * columns, top), INK, 3 if row < 2 else 1)
        for column in range(columns) if row < rows else ():
            is_name = row == 0 or column == 0
            cell = chance.choice(WORDS) if is_name else f"{chance.uniform(0, 100):.2f}"
            pencil.text((130 + width * column, top + 10), cell, INK, font)
    _paragraph(pencil, chance, (120, 260 + 44 * rows), PAGE_SIZE[0] - 240, 6)
    return page


def editor_screen(seed: int) -> Image.Image:
    """A title bar, a panel with a list, lines of text in a dark window, and a status bar."""
    chance, screen = random.Random(seed), Image.new("RGB", SCREEN_SIZE, (30, 31, 36))
    pencil, font = ImageDraw.Draw(screen), ImageFont.load_default(18)
    _bar(pencil, chance, (58, 60, 68), (230, 230, 235))
    pencil.rectangle((0, 48, 359, SCREEN_SIZE[1] - 29), (40, 42, 48))
    for row in range(24):
        _icon(pencil, chance, (24, 70 + 40 * row), 20)
        pencil.text((56, 70 + 40 * row), _sentence(chance, 2), (200, 200, 205), font)
    for row in range(36):
        indent = 40 * chance.randint(0, 4)
        color = chance.choice([(220, 220, 225), (130, 190, 140), (120, 160, 220)])
        if chance.random() < 0.85:
            pencil.text((400 + indent, 70 + 27 * row), _sentence(chance, chance.randint(2, 9)), color, font)
    pencil.rectangle((0, SCREEN_SIZE[1] - 28, *SCREEN_SIZE), (20, 90, 160))
    pencil.text((20, SCREEN_SIZE[1] - 25), _sentence(chance, 3), WHITE, font)
    return screen


def desktop_screen(seed: int) -> Image.Image:
    """A window and icons on a background that fades from top to bottom."""
    chance = random.Random(seed)
    above, below = ([chance.randint(20, 220) for _ in range(3)] for _ in range(2))
    screen = Image.new("RGB", SCREEN_SIZE)
    pencil, font = ImageDraw.Draw(screen), ImageFont.load_default(18)
    for row in range(SCREEN_SIZE[1]):
        part = row / (SCREEN_SIZE[1] - 1)
        color = tuple(round(one + part * (other - one)) for one, other in zip(above, below, strict=True))
        pencil.line((0, row, SCREEN_SIZE[0], row), color)
    _bar(pencil, chance, (245, 245, 245), INK)
    for place in range(12):
        left, top = 40 + 110 * (place % 2), 90 + 150 * (place // 2)
        _icon(pencil, chance, (left, top), 64)
        pencil.text((left, top + 74), chance.choice(WORDS), WHITE, font)
    pencil.rectangle((420, 140, 1619, 939), WHITE, (120, 120, 120))
    pencil.rectangle((420, 140, 1619, 183), (225, 228, 232), (120, 120, 120))
    pencil.text((440, 150), _sentence(chance, 3).title(), INK, font)
    for row in range(5):
        left = 470 + 220 * row
        pencil.rounded_rectangle((left, 220, left + 180, 264), 8, (40, 110, 210))
        pencil.text((left + 30, 230), chance.choice(WORDS), WHITE, font)
    _paragraph(pencil, chance, (470, 310), 1100, 14)
    return screen


DRAWN: dict[str, Callable[[int], Image.Image]] = {
    "document, text": text_page,
    "document, table": table_page,
    "screen, editor": editor_screen,
    "screen, desktop with a gradient": desktop_screen,
}
"""By name; the same seed draws the same image."""


def _sentence(chance: random.Random, num_words: int) -> str:
    return " ".join(chance.choices(WORDS, k=num_words))


def _paragraph(
    pencil: ImageDraw.ImageDraw, chance: random.Random, corner: tuple[int, int], width: int, num_lines: int
) -> int:
    """Write lines as wide as the column, the last one shorter; returns where the next paragraph begins."""
    font = ImageFont.load_default(20)
    for number in range(num_lines):
        line, limit = "", width if number < num_lines - 1 else width * chance.uniform(0.2, 0.9)
        while font.getlength(line) < limit - 100:
            line += chance.choice(WORDS) + " "
        pencil.text((corner[0], corner[1] + 30 * number), line, INK, font)
    return corner[1] + 30 * num_lines


def _bar(
    pencil: ImageDraw.ImageDraw, chance: random.Random, ground: tuple[int, int, int], ink: tuple[int, int, int]
) -> None:
    """A title bar with entries of a menu and buttons."""
    pencil.rectangle((0, 0, SCREEN_SIZE[0], 47), ground)
    for entry in range(6):
        pencil.text((24 + 110 * entry, 12), chance.choice(WORDS).title(), ink, ImageFont.load_default(18))
    for button, color in enumerate([(237, 106, 94), (245, 191, 79), (98, 197, 84)]):
        left = SCREEN_SIZE[0] - 110 + 34 * button
        pencil.ellipse((left, 14, left + 18, 32), color)


def _icon(pencil: ImageDraw.ImageDraw, chance: random.Random, corner: tuple[int, int], size: int) -> None:
    """A coloured square with a disc in it."""
    color, inner = (tuple(chance.randint(40, 230) for _ in range(3)) for _ in range(2))
    left, top = corner
    pencil.rounded_rectangle((left, top, left + size, top + size), size // 5, color)
    pencil.ellipse((left + size // 4, top + size // 4, left + 3 * size // 4, top + 3 * size // 4), inner)
