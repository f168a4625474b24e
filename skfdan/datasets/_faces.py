"""Toy faces: a drawn head whose brows, lids and mouth follow facial action units."""

from __future__ import annotations

import numpy as np

__all__ = ["EMOTION_FACES", "NEUTRAL_FACE", "draw_person", "film", "mix_face"]

#: What a face does; 0 is at rest, 1 is strong. After the action units (AU) of FACS.
NEUTRAL_FACE = dict.fromkeys(
    (
        "brow_inner",  # AU 1 up, AU 4 down
        "brow_outer",  # AU 2 up
        "brow_pinch",  # AU 4, brows together
        "lid_upper",  # AU 5 up, AU 43 down
        "lid_lower",  # AU 6 and 7, squint
        "corner",  # AU 12 up, AU 15 down
        "stretch",  # AU 20 wide, AU 18 pucker
        "jaw",  # AU 26
        "press",  # AU 24, thin lips
        "lip_raise",  # AU 10
        "nose",  # AU 9, wrinkles
        "talk",  # how far speech opens the mouth, about the rest value
        "nod",  # head down
    ),
    0.0,
)

#: Deviations from the face at rest, after Ekman & Friesen (1978).
EMOTION_FACES = {
    name: dict(zip(NEUTRAL_FACE, values, strict=True))
    for name, values in {
        #            inner outer pinch upper lower corner stretch jaw press raise nose talk nod
        "anger": (-1.1, 0.4, 1.0, 0.15, 0.5, -0.5, 0.0, 0.0, 0.9, 0.1, 0.3, 0.3, 0.2),
        "boredom": (-0.1, -0.3, 0.0, -0.8, 0.0, -0.3, -0.1, 0.0, 0.1, 0.0, 0.0, -0.4, 0.3),
        "calm": (0.1, 0.0, 0.0, -0.4, 0.1, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, -0.2, 0.0),
        "disgust": (-0.6, -0.4, 0.4, -0.3, 0.7, -0.4, -0.1, 0.1, 0.0, 1.1, 1.2, -0.1, -0.2),
        "fear": (1.0, 0.1, 0.8, 0.9, 0.0, -0.35, 0.8, 0.35, 0.2, 0.0, 0.0, 0.1, 0.0),
        "happiness": (0.1, 0.1, 0.0, 0.0, 0.6, 1.1, 0.6, 0.25, 0.0, 0.2, 0.0, 0.2, -0.1),
        "neutral": (0.0,) * 13,
        "sadness": (0.9, -0.7, 0.4, -0.5, 0.2, -0.9, -0.2, 0.0, 0.3, 0.0, 0.0, -0.4, 0.5),
        "surprise": (1.1, 1.2, 0.0, 1.0, 0.0, 0.0, -0.6, 0.9, -0.2, 0.0, 0.0, 0.2, -0.2),
    }.items()
}

# Standard deviations of all action units: of speakers' faces at rest, of one speaker's
# way of showing one emotion, of clips about that; and how strongly a clip shows it.
SPEAKER_SPREAD, STYLE_SPREAD, CLIP_SPREAD = 0.12, 0.12, 0.12
INTENSITY = (0.7, 1.2)

# Red, green, blue. Neighbouring speakers get skins that differ; the first three hair
# and the first two eye colours go with every skin.
# fmt: off
SKINS = ((250, 218, 194), (158, 106, 74), (236, 193, 160), (198, 144, 104),
         (255, 226, 207), (132, 86, 60), (222, 172, 132), (171, 116, 80))
HAIRS = ((44, 34, 30), (76, 48, 32), (28, 28, 34), (150, 98, 52), (214, 172, 104), (128, 50, 30))
EYES = ((84, 58, 38), (60, 44, 34), (74, 112, 152), (92, 122, 74), (104, 112, 120))
SHIRTS = ((70, 110, 170), (190, 80, 80), (90, 150, 110), (225, 180, 90), (120, 90, 150))
# fmt: on

SCALE = 3  # drawn this many times larger, then averaged: anti-aliasing
REACH = 0.55  # the drawing goes this far from the middle of the face, in frames


def draw_person(rng: np.random.Generator, number: int, *, beard: bool) -> dict:
    """Draw what a speaker looks like; `beard` allows one, and chooses among the haircuts."""
    skin = np.clip(np.add(SKINS[number % len(SKINS)], rng.normal(0, 5, 3)), 40, 255)
    hair = HAIRS[rng.integers(len(HAIRS) if skin[1] > 160 else 3)]
    return {
        "skin": skin,
        "hair": np.array(hair, dtype=float),
        "eye": np.array(EYES[rng.integers(len(EYES) if skin[1] > 130 else 2)], dtype=float),
        "shirt": np.array(SHIRTS[rng.integers(len(SHIRTS))], dtype=float),
        "width": rng.uniform(0.27, 0.295),
        "height": rng.uniform(0.365, 0.39),
        "jaw": rng.uniform(0.1, 0.3),
        "eye_gap": rng.uniform(0.115, 0.125),
        "eye_size": rng.uniform(1.05, 1.2),
        "nose": rng.uniform(0.85, 1.2),
        "mouth": rng.uniform(1.0, 1.2),
        "lips": rng.uniform(0.9, 1.2),
        "brow": rng.uniform(0.95, 1.2) * (1.15 if beard else 1.0),
        "style": (("short", "parted", "curly") if beard else ("long", "bob", "bun"))[
            rng.integers(3)
        ],
        "beard": beard and rng.random() < 0.4,
        "rest": rng.normal(0, SPEAKER_SPREAD, len(NEUTRAL_FACE)),
    }


def mix_face(
    person: dict,
    emotion: str,
    separation: float,
    style_rng: np.random.Generator,
    clip_rng: np.random.Generator,
) -> dict[str, float]:
    """Put emotion, the speaker's way of showing it and the clip's chance on a face at rest."""
    n = len(NEUTRAL_FACE)
    shown = clip_rng.uniform(*INTENSITY) * np.array(list(EMOTION_FACES[emotion].values()))
    shown += style_rng.normal(0, STYLE_SPREAD, n)
    units = person["rest"] + separation * shown + clip_rng.normal(0, CLIP_SPREAD, n)
    return dict(zip(NEUTRAL_FACE, units.clip(-1.6, 1.6).tolist(), strict=True))


def film(
    person: dict,
    face: dict[str, float],
    loudness: np.ndarray,
    rng: np.random.Generator,
    fps: int,
    size: int,
) -> np.ndarray:
    """Film a talking head.

    Parameters
    ----------
    person : dict
        What `draw_person` returns.
    face : dict
        The keys of `NEUTRAL_FACE`.
    loudness : ndarray of shape (n_frames,)
        Envelope of the speech, 0 to about 1; it opens the mouth.
    rng : Generator
        Draws light, background, place, motion and blinks.
    fps : int
        Frames a second.
    size : int
        Height and width in pixels.

    Returns
    -------
    ndarray of shape (n_frames, size, size, 3), dtype uint8
        RGB.
    """
    from PIL import Image

    bust = _bust(person, rng, size)
    background = _background(rng, size)
    n = len(loudness)
    time = np.arange(n) / fps
    # Swaying to the side, up and down, in radians, and of the brows.
    hertz, start = rng.uniform(0.2, 0.7, (4, 1)), rng.random((4, 1))
    sway = np.sin(2 * np.pi * (hertz * time + start)) * [[0.008], [0.007], [0.03], [0.15]]
    zoom = rng.uniform(1.1, 1.16)
    place = rng.normal(0, 0.008, 2)
    # One blink about every two seconds, of three frames at ten a second.
    blinks = rng.uniform(0, time[-1] + 2, max(1, round(time[-1] / 2)))
    shut = np.clip(1.2 - abs(time - blinks[:, None]) / 0.12, 0, 1).max(axis=0)

    frames = np.empty((n, size, size, 3), np.uint8)
    half = REACH * size
    for i in range(n):
        layer = bust.copy()
        units = dict(face, brow_inner=face["brow_inner"] + sway[3, i])
        units["jaw"] += 0.32 * (1 + 0.6 * units["talk"]) * loudness[i]
        _draw_features(_Brush(layer, size, person["skin"]), person, units, shut[i])
        x = (0.5 + place[0] + sway[0, i]) * size
        y = (0.52 + place[1] + sway[1, i] + 0.02 * face["nod"] + 0.012 * loudness[i]) * size
        cos, sin = np.cos(sway[2, i]) / zoom, np.sin(sway[2, i]) / zoom
        matrix = (cos, sin, half - cos * x - sin * y, -sin, cos, half + sin * x - cos * y)
        head = layer.reduce(SCALE).transform(
            (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
        )
        frames[i] = np.asarray(Image.alpha_composite(background, head))[..., :3]
    exposure = rng.uniform(0.9, 1.06) * rng.normal(1, 0.02, 3)
    table = np.clip(np.arange(256)[:, None] * exposure, 0, 255).astype(np.uint8)
    return np.stack([table[frames[..., c], c] for c in range(3)], axis=-1)


class _Brush:
    """Draws in face coordinates: in frames, from the middle of the face, y downwards."""

    def __init__(self, image, size, skin):
        from PIL import ImageDraw

        self.draw, self.unit, self.skin = ImageDraw.Draw(image), size * SCALE, skin

    def pixels(self, x, y):
        return ((np.stack([x, y], axis=-1) + REACH) * self.unit).ravel().tolist()

    def polygon(self, x, y, colour):
        self.draw.polygon(self.pixels(x, y), fill=_rgb(colour))

    def ellipse(self, x, y, a, b, colour):
        angle = np.linspace(0, 2 * np.pi, 48)
        self.polygon(x + a * np.cos(angle), y + b * np.sin(angle), colour)

    def area(self, x, top, bottom, colour):
        """Fill what lies between two curves over the same x."""
        self.polygon(np.append(x, x[::-1]), np.append(top, bottom[::-1]), colour)

    def line(self, x, y, width, colour):
        width = max(1, round(width * self.unit))
        self.draw.line(self.pixels(x, y), fill=_rgb(colour), width=width, joint="curve")

    def wrinkle(self, x, y, strength):
        if strength > 0.15:
            self.line(x, y, 0.007, self.skin * (0.86 - 0.28 * min(strength, 1)))


def _rgb(colour):
    return tuple(int(min(255, c)) for c in colour)


def _background(rng, size):
    from PIL import Image

    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    base = rng.uniform(80, 170) + rng.uniform(-20, 20, 3)
    image = np.broadcast_to(base, (size, size, 3)).copy()
    slope = rng.uniform(-0.25, 0.25) * (x - 0.5) + rng.uniform(-0.3, 0.1) * (y - 0.5)
    image *= 1 + slope[..., None]
    for _ in range(3):
        spot = np.hypot(x - rng.random(), y - rng.random()) / rng.uniform(0.15, 0.4)
        image += np.exp(-(spot**4))[..., None] * rng.uniform(-22, 22, 3)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8)).convert("RGBA")


def _outline(person, scale=1.0):
    """Outline of the head: an egg whose jaw tapers."""
    angle = np.linspace(0, 2 * np.pi, 144)
    x, y = np.cos(angle), np.sin(angle)
    x = np.sign(x) * abs(x) ** 0.9 * (1 - person["jaw"] * np.clip(y, 0, 1) ** 2)
    return scale * person["width"] * x, scale * person["height"] * y


def _bust(person, rng, size):
    """Draw everything that does not move on its own: hair, ears, head, nose, neck, shirt."""
    from PIL import Image

    side = 2 * round(REACH * size) * SCALE
    w, h, style = person["width"], person["height"], person["style"]
    skin, hair = person["skin"], person["hair"]
    # Transparent pixels keep the hair's colour, for they are averaged with the edge.
    image = Image.new("RGBA", (side, side), (*_rgb(hair), 0))
    brush = _Brush(image, size, skin)

    if style == "long":
        brush.ellipse(0, -0.02, 1.2 * w, 1.12 * h, hair)
        brush.polygon(1.2 * w * np.array([-1, 1, 1.15, -1.15]), np.array([0, 0, 0.6, 0.6]), hair)
    elif style == "bob":
        brush.ellipse(0, -0.03, 1.22 * w, 1.05 * h, hair)
        brush.ellipse(0, 0.1, 1.25 * w, 0.22, hair)
    elif style == "bun":
        brush.ellipse(0, -1.12 * h, 0.1, 0.09, hair)
    elif style == "curly":
        for a in np.linspace(np.pi * 0.98, np.pi * 2.02, 10):
            brush.ellipse(1.02 * w * np.cos(a), 0.98 * h * np.sin(a) - 0.02, 0.08, 0.08, hair)
    brush.ellipse(0, 0.68, 0.5, 0.24, person["shirt"])
    neck = np.array([[-0.13, 0.2], [0.13, 0.2], [0.15, 0.47], [0, 0.56], [-0.15, 0.47]])
    brush.polygon(*neck.T, 0.78 * skin)
    for x in (-w, w):
        brush.ellipse(x, 0.0, 0.035, 0.065, skin * 0.92)
        brush.ellipse(x, 0.0, 0.018, 0.04, skin * 0.75)
    brush.polygon(*_outline(person), skin)
    if person["beard"]:
        x, y = _outline(person, 1.02)
        x, y = x[y > 0], y[y > 0]
        t = np.linspace(x[-1], x[0], 60)
        u = abs(t / t[0])
        edge = 0.135 + 0.05 * np.exp(-(((u - 0.6) / 0.2) ** 2)) - 0.13 * u**6
        brush.polygon(np.append(x, t), np.append(y, edge), 0.35 * skin + 0.65 * hair)
    # The hairline, from one temple over the forehead to the other.
    x, y = _outline(person, 1.06)
    x, y = x[y < -0.08], y[y < -0.08] - 0.02
    t = np.linspace(x[-1], x[0], 60)
    u = t / abs(t).max()
    edge = {
        "short": -0.25 + 0.045 * u**4 + 0.014 * abs(np.sin(9 * u)),
        "curly": -0.24 + 0.012 * np.cos(14 * u) + 0.04 * u**4,
        "parted": -0.28 + 0.08 * abs(u + 0.35) ** 1.5,
        "long": -0.295 + 0.095 * abs(u) ** 1.6,
        "bob": -0.245 + 0.02 * u**2,
        "bun": -0.275 + 0.075 * u**4,
    }[style]
    temple = (y.max() + 0.2) * u**8
    brush.polygon(np.append(x, t), np.append(y, edge + temple), hair)
    return _shade(image, person, rng, size)


def _shade(image, person, rng, size):
    """Light the flat drawing as if the head were round."""
    from PIL import Image

    pixels = np.array(image)
    axis = ((np.arange(len(pixels)) + 0.5) / (size * SCALE) - REACH).astype(np.float32)
    w, h, gap, nose = person["width"], person["height"], person["eye_gap"], person["nose"]

    def blob(x, y, a, b):
        return np.outer(np.exp(-(((axis - y) / b) ** 2)), np.exp(-(((axis - x) / a) ** 2)))

    from_side, from_above = rng.normal(0, 0.06), rng.uniform(0.0, 0.12)
    nx, ny = (axis / w).clip(-1, 1)[None, :], (axis / h).clip(-1, 1)[:, None]
    light = 0.8 + 0.22 * np.sqrt((1 - 0.8 * nx**2 - 0.5 * ny**2).clip(0, None))
    light = light + from_side * nx - from_above * ny
    for x in (-gap, gap):
        light -= 0.18 * blob(x, -0.075, 0.075, 0.045)  # the eye's socket
        light += 0.07 * blob(1.15 * x, 0.06, 0.06, 0.05)  # the cheekbone
        light -= 0.10 * blob(np.sign(x) * 0.052 * nose, 0.05, 0.02, 0.05)  # beside the nose
        light -= 0.45 * blob(np.sign(x) * 0.022 * nose, 0.098, 0.013, 0.009)  # the nostril
    light += 0.13 * blob(0, -0.01, 0.022 * nose, 0.075)  # the nose's bridge
    light += 0.10 * blob(0, 0.072, 0.028 * nose, 0.022)  # its tip
    light -= 0.16 * blob(0, 0.108, 0.045 * nose, 0.014)  # under it
    light -= 0.10 * blob(0, 0.255, 0.06, 0.016)  # under the lips
    colour = pixels[..., :3] * light[..., None]
    blush = blob(-1.2 * gap, 0.08, 0.06, 0.045) + blob(1.2 * gap, 0.08, 0.06, 0.045)
    colour[..., 0] += 14 * blush
    colour[..., 1:] -= 6 * blush[..., None]
    pixels[..., :3] = colour.clip(0, 255)
    return Image.fromarray(pixels, "RGBA")


def _draw_features(brush, person, units, shut):
    """Draw eyes, brows, mouth and wrinkles of one frame."""
    t = np.linspace(-1, 1, 17)
    for side in (-1, 1):
        _draw_eye(brush, person, units, shut, side, t)
        # The brow, from its inner to its outer end.
        s, pinch = (t + 1) / 2, units["brow_pinch"]
        x = side * (0.06 - 0.018 * pinch + s * (0.15 + 0.012 * pinch))
        y = -0.148 - 0.052 * ((1 - s) * units["brow_inner"] + s * units["brow_outer"])
        y = y - 0.022 * np.sin(np.pi * s**1.2) * (1 + 0.3 * units["brow_outer"])
        thick = 0.013 * person["brow"] * np.sqrt((1.15 - s) * np.minimum(1, 8 * s + 0.3))
        brush.area(x, y - thick, y + thick, person["hair"] * 0.7 + person["skin"] * 0.08)
        # Between the brows, on the nose, from the nose to the corner of the mouth.
        brush.wrinkle(side * (0.016 + 0.004 * t), -0.13 + 0.022 * t, pinch)
        brush.wrinkle(side * (0.03 + 0.006 * t), -0.012 * t, units["nose"])
        fold = max(0.8 * units["corner"], units["lip_raise"])
        brush.wrinkle(side * (0.094 + 0.038 * t - 0.01 * t**2), 0.148 + 0.04 * t, fold)
    # Raised brows wrinkle the forehead, where no hair covers it.
    for y in (-0.222, -0.245) if person["style"] in ("parted", "long", "bun") else ():
        brush.wrinkle(0.1 * t, y - 0.006 * (1 - t**2), 0.7 * units["brow_inner"] - 0.2)
    _draw_mouth(brush, person, units, t)


def _draw_eye(brush, person, units, shut, side, t):
    skin, big = person["skin"], person["eye_size"]
    x0, y0 = side * person["eye_gap"], -0.06
    opening = np.clip(1 + 0.65 * units["lid_upper"], 0.12, 1.8) * (1 - shut)
    squint = np.clip(1 - 0.55 * units["lid_lower"], 0.15, 1.2) * (1 - 0.5 * shut)
    x = x0 + 0.058 * big * t
    arch = (1 - t**2) ** 0.7
    # Sad lids hang at the outside.
    hang = 0.008 * side * t * (units["brow_inner"] - units["brow_outer"]) * 0.5
    top = y0 - 0.03 * big * opening * arch + hang
    bottom = y0 + 0.022 * big * squint * arch + hang
    top = np.minimum(top, bottom)
    brush.area(x, top, bottom, 0.5 * skin + (118, 124, 130))

    def disc(radius, colour, dx=0.0, dy=0.0):
        # A circle cut off by the lids: they bound it from above and below.
        u = np.linspace(-1, 1, 17)
        cx, cy = x0 + dx, y0 - 0.004 + 0.006 * units["nod"] + dy
        xs, half = cx + radius * u, radius * np.sqrt(1 - u**2)
        lo, hi = np.interp(xs, x, top), np.interp(xs, x, bottom)
        brush.area(xs, np.clip(cy - half, lo, hi), np.clip(cy + half, lo, hi), colour)

    disc(0.027 * big, person["eye"] * 0.75)
    disc(0.021 * big, person["eye"] * 1.15)
    disc(0.012 * big, (18, 16, 18))
    disc(0.006 * big, (255, 255, 255), -0.008, -0.01)
    brush.line(x, top, 0.011, np.minimum(person["hair"], 70) * 0.6)
    brush.line(x, bottom, 0.005, skin * 0.66)
    if opening > 0.5:
        brush.line(x, top - 0.016 * (0.4 + 0.6 * arch), 0.005, skin * 0.72)
    brush.wrinkle(x, bottom + 0.016 + 0.004 * arch, 0.9 * units["lid_lower"])


def _draw_mouth(brush, person, units, t):
    lips = person["skin"] * (0.78, 0.55, 0.52) + (22, 8, 10)
    width = np.clip(1 + 0.32 * units["stretch"] + 0.1 * units["corner"], 0.45, 1.7)
    jaw = np.clip(units["jaw"], 0, 1.4)
    rise = max(0, units["lip_raise"])
    lift = np.clip(units["corner"], -1.3, 1.4)
    y0 = 0.2 - 0.01 * rise
    x = 0.1 * person["mouth"] * width * t
    # Corners go up in a smile and down in a frown, the middle stays.
    bow = y0 + 0.042 * lift * (0.45 - np.abs(t) ** 1.8)
    arch = (1 - np.abs(t) ** 2.4) ** 0.8
    thin = person["lips"] * np.clip(1 - 0.75 * units["press"], 0.2, 1.3)
    open_top = bow - (0.012 * jaw + 0.03 * rise * (1 - 0.5 * t**2)) * arch
    open_bottom = bow + (0.085 * jaw + 0.008 * rise) * arch
    cupid = 1 - 0.25 * np.exp(-((t / 0.18) ** 2))
    brush.area(x, open_top - 0.02 * thin * arch * cupid, open_bottom + 0.026 * thin * arch, lips)
    if (open_bottom - open_top).max() > 0.012:
        brush.area(x, open_top, open_bottom, (70, 22, 26))
        opening = open_bottom - open_top
        tongue = open_bottom - np.minimum(0.4 * opening, 6 * opening**2) * (1 - t**2)
        brush.area(x, tongue, open_bottom, (178, 80, 84))
        show = 0.016 + 0.02 * max(0, lift) + 0.02 * rise
        # A grin bares all of them.
        most = np.clip(0.45 + 0.5 * max(lift, rise), 0.45, 1)
        teeth = open_top + np.minimum(show * arch, most * opening)
        brush.area(x[2:-2], open_top[2:-2], teeth[2:-2], (244, 240, 232))
    else:
        brush.line(x, bow, 0.009, lips * 0.55)
