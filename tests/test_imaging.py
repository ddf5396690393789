import io
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fmnist.data.dataset import Dataset
from fmnist.errors import UserError
from fmnist.imaging import decode, read_pictures, to_model_image

TROUSERS = [(80, 40), (220, 40), (230, 360), (170, 360), (150, 120), (130, 360), (70, 360)]


def drawn(size: tuple[int, int] = (300, 400), background: object = "white", ink: object = "navy") -> Image.Image:
    """Trousers, as a person might draw them."""
    picture = Image.new("RGB", size, background)  # type: ignore[arg-type]
    ImageDraw.Draw(picture).polygon(TROUSERS, fill=ink)  # type: ignore[arg-type]
    return picture


def encoded(picture: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def extent(image: NDArray[np.uint8]) -> tuple[int, int]:
    """(height, width) of what is not background."""
    rows, columns = np.flatnonzero(image.max(1) > 40), np.flatnonzero(image.max(0) > 40)
    return int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1


def test_a_photo_on_white_becomes_a_light_garment_on_black() -> None:
    image = to_model_image(drawn())
    assert image.shape == (28, 28)
    assert image.dtype == np.uint8
    assert image[:, 0].max() == image[:, -1].max() == 0  # narrower than high, so there is black on both sides
    assert image[2:5, 14].min() > 200
    height, width = extent(image)
    assert height == 28
    assert abs(width - 28 * 160 / 320) <= 1


def test_polarity_does_not_matter() -> None:
    light = to_model_image(drawn(background="black", ink="white")).astype(int)
    dark = to_model_image(drawn(background="white", ink="black")).astype(int)
    assert np.abs(light - dark).max() <= 2


def test_where_the_garment_lies_and_how_large_it_is_does_not_matter() -> None:
    small = to_model_image(drawn()).astype(int)
    wide = Image.new("RGB", (1000, 700), "white")
    wide.paste(drawn().resize((600, 800)).crop((100, 60, 500, 760)), (500, 0))
    assert np.abs(small - to_model_image(wide)).mean() < 6


def test_a_noisy_background_is_trimmed_too() -> None:
    pixels = np.asarray(drawn()).astype(int)
    noisy = np.clip(pixels + np.random.default_rng(0).normal(0, 4, pixels.shape) - 10, 0, 255).astype(np.uint8)
    assert extent(to_model_image(Image.fromarray(noisy)))[0] == 28


def test_the_data_sets_own_images_pass_unchanged(dataset: Dataset) -> None:
    same = [np.array_equal(to_model_image(Image.fromarray(image)), image) for image in dataset.test.images]
    assert np.mean(same) > 0.95  # a few touch the border all around


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (300, 400), (0, 0, 0, 0))
    ImageDraw.Draw(clear).polygon(TROUSERS, fill="navy")
    assert np.abs(to_model_image(clear).astype(int) - to_model_image(drawn())).max() <= 2


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGBA", "LA", "I;16", "I", "F"])
def test_every_mode_gives_the_same_garment(mode: str) -> None:
    grey = drawn(ink="black").convert("L")
    if mode in ("I;16", "I"):
        wide = np.asarray(grey).astype(np.uint16) * 257
        picture = Image.fromarray(wide if mode == "I;16" else wide.astype(np.int32))
    else:
        picture = grey.convert("RGB").convert(mode) if mode in ("P", "CMYK", "RGBA") else grey.convert(mode)
    expected = to_model_image(grey).astype(int)
    assert np.abs(expected - to_model_image(picture)).mean() < 3


def test_a_large_picture_of_16_bits_takes_a_few_times_its_size() -> None:
    picture = Image.fromarray(np.full((1000, 2000), 40_000, np.uint16))
    tracemalloc.start()
    try:
        to_model_image(picture)
        assert tracemalloc.get_traced_memory()[1] < 12 * 1000 * 2000
    finally:
        tracemalloc.stop()


def test_a_photo_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees
    turned = encoded(drawn().transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)
    upright = encoded(drawn(), "JPEG", quality=95)
    assert np.abs(decode(turned, "x").astype(int) - decode(upright, "x")).mean() < 3


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_formats(format: str) -> None:
    assert extent(decode(encoded(drawn(), format), "x"))[0] == 28


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (3, 900)])
@pytest.mark.parametrize("colour", ["white", "black", "grey"])
def test_a_blank_picture_is_blank(size: tuple[int, int], colour: str) -> None:
    assert np.ptp(to_model_image(Image.new("RGB", size, colour))) == 0


def with_broken_exif() -> bytes:
    buffer = io.BytesIO()
    drawn().convert("RGB").save(buffer, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is no PNG"),
        (b"hello", "is no PNG, JPEG, WebP or IDX; give a picture"),
        (encoded(drawn(), "GIF"), "is no PNG, JPEG, WebP or IDX"),
        (encoded(drawn())[:300], "is a damaged picture"),
        (encoded(drawn(), "JPEG")[:300], "is a damaged picture"),
        (with_broken_exif(), "is a damaged picture"),
    ],
)
def test_what_is_no_picture(content: bytes, told: str) -> None:
    with pytest.raises(UserError, match=f"^x: {told}"):
        decode(content, "x")


def test_a_bomb_is_refused_without_a_word_of_pillow() -> None:
    with pytest.raises(UserError, match=r"^x: has too many pixels; give 50,000,000 at most"):
        decode(encoded(Image.new("1", (12_000, 9_000))), "x")


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    bomb = encoded(Image.new("1", (10_000, 9_000)))
    assert len(bomb) < 20_000
    with pytest.raises(UserError, match=r"^x: has .* pixels; give 50,000,000 at most"):
        decode(bomb, "x")


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "trousers.png"
    drawn().save(path)
    assert read_pictures(path).shape == (1, 28, 28)
    assert read_pictures(Path(__file__).parent / "data" / "t10k-images-idx3-ubyte.gz").shape == (100, 28, 28)
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    for wrong, told in [
        (tmp_path, "is a folder; name the pictures in it"),
        (tmp_path / "empty", "is empty; give a picture"),
        (tmp_path / "pipe", "is no file; give one"),
        (Path("/dev/zero"), "is no file; give one"),
        (tmp_path / "none", r"cannot be read \(No such file"),
        (Path(__file__).parent / "data" / "t10k-labels-idx1-ubyte.gz", r"holds uint8 \[100\]; give pictures"),
    ]:
        with pytest.raises(UserError, match=told):
            read_pictures(wrong)
