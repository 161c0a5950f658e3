"""Decoding: every kind of pixel against its documented conversion, every kind of damage named."""

from __future__ import annotations

import resource
import sys

import numpy as np
import pytest
from make_images import encoded, oriented, photo, png_header, write
from PIL import Image

from nearfar.data import BadImage, decode
from nearfar.data.decode import inspect
from nearfar.data.jpeg import zeroed
from nearfar.data.pixels import fitted_size, upright

WHOLE = {"channels": 3, "long_side": 4096}


def reason(data: bytes, **settings: int) -> str:
    with pytest.raises(BadImage) as caught:
        decode(data, **{**WHOLE, **settings})
    return caught.value.reason


def pixels(array: np.ndarray) -> np.ndarray:
    return array.transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("data", "expected", "detail"),
    [
        (b"", "empty", "empty"),
        (b"<!DOCTYPE html><html>404</html>", "not an image", "HTML"),
        (b"Dear Sir,\n", "not an image", "text"),
        (bytes(4096), "not an image", "zero bytes"),
        (b"PAR1\0\1\2", "not an image", "Parquet"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "unsupported format", "HEIC"),
        (b"\x89PNG\r\n\x1a\n", "damaged", "damaged"),
    ],
)
def test_D3_what_is_no_image_is_named(data: bytes, expected: str, detail: str) -> None:
    with pytest.raises(BadImage, match=detail) as caught:
        decode(data, **WHOLE)
    assert caught.value.reason == expected


@pytest.mark.parametrize("share", [0.6, 0.95, 0.999])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 95, "subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_D4_truncated_jpeg_is_listed(mode: str, options: dict, share: float) -> None:
    data = encoded(photo(120, 160).convert(mode), "JPEG", **options)
    assert reason(data[: int(len(data) * share)], long_side=32) == "truncated"


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "BMP", "PPM", "GIF"])
def test_D4_truncated_files_of_other_formats_are_listed(kind: str) -> None:
    data = encoded(photo(), kind)
    assert reason(data[: len(data) * 6 // 10]) in ("truncated", "damaged")


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"quality": 95, "subsampling": 0}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_D5_zeroed_bytes_in_a_jpeg_are_detected(mode: str, options: dict) -> None:
    """At 60 places; one in twenty may pass in progressive files, whose refining scans are bare bits."""
    data = encoded(photo(240, 320).convert(mode), "JPEG", **options)
    assert decode(data, **WHOLE).shape == (3, 240, 320)
    missed = 0
    for start in np.linspace(700, len(data) - 202, 60).astype(int):
        try:
            decode(data[:start] + bytes(200) + data[start + 200 :], channels=3, long_side=64)
            missed += 1
        except BadImage as bad:
            assert bad.reason == "damaged"
    assert missed <= (3 if options.get("progressive") else 0)


@pytest.mark.parametrize(
    "options", [{}, {"optimize": True}, {"progressive": True}, {"quality": 100, "progressive": True}]
)
def test_D5_flat_pictures_have_honest_runs_of_zeros(options: dict) -> None:
    stripes = Image.fromarray((np.indices((800, 800))[0] // 4 % 2 * 255).astype(np.uint8)).convert("RGB")
    for picture in (Image.new("RGB", (1200, 1200), "white"), stripes):
        assert decode(encoded(picture, "JPEG", **options), channels=3, long_side=32).shape == (3, 32, 32)


def test_D5_the_check_for_zeros_sees_what_the_decoder_does_not() -> None:
    data = encoded(photo(240, 320).convert("CMYK"), "JPEG", quality=85)
    start = len(data) // 2
    assert zeroed(data[:start] + bytes(200) + data[start + 200 :])
    assert not zeroed(data)


def test_D5_one_flipped_bit_in_a_png_is_detected() -> None:
    """In every byte of the chunks; without checksums a fifth of them passes unseen, as another colour."""
    data = encoded(Image.new("RGB", (64, 64), "red"), "PNG")
    for place in range(12, len(data) - 12):
        broken = bytearray(data)
        broken[place] ^= 1
        assert reason(bytes(broken), max_pixels=10**12) in ("damaged", "truncated")


@pytest.mark.parametrize("side", [60_000, 12_000])
def test_D6_large_headers_are_refused_before_allocation(side: int) -> None:
    data = png_header(side, side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason(data) == "too large"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    assert grown < 50e6


def test_D6_the_limit_is_adjustable() -> None:
    data = encoded(photo(48, 64), "JPEG")
    assert reason(data, max_pixels=48 * 64 - 1) == "too large"
    assert decode(data, **WHOLE, max_pixels=48 * 64).shape == (3, 48, 64)
    assert inspect(png_header(12_000, 12_000), max_pixels=12_000**2).height == 12_000


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_D7_sixteen_bits_are_scaled_by_depth(kind: str) -> None:
    deep = np.linspace(0, 60_000, 48 * 64).reshape(48, 64).astype(np.uint16)
    out = decode(encoded(Image.fromarray(deep), kind), channels=1, long_side=64)
    assert np.array_equal(out[0], np.rint(deep / 257))
    assert abs(out.mean() / (deep.mean() / 257) - 1) < 0.01


def test_D7_thirty_two_bit_whole_numbers_are_scaled() -> None:
    values = np.arange(48 * 64, dtype=np.int32).reshape(48, 64)
    small, large = (encoded(Image.fromarray(v), "TIFF") for v in (values, values * 1000))
    assert np.array_equal(decode(small, channels=1, long_side=64)[0], np.rint(values / 257))
    assert np.array_equal(decode(large, channels=1, long_side=64)[0], np.rint(values / values.max() * 255))


def test_D8_cmyk_tiff_is_multiplied_out() -> None:
    ink = np.random.default_rng(0).integers(0, 256, (8, 8, 4)).astype(np.uint8)
    out = pixels(decode(encoded(Image.fromarray(ink, "CMYK"), "TIFF"), **WHOLE))
    expected = (255.0 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
    assert np.abs(out - expected).max() <= 1


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}])
def test_D8_cmyk_jpeg_is_close_to_its_source(options: dict) -> None:
    picture = photo()
    out = pixels(decode(encoded(picture.convert("CMYK"), "JPEG", quality=98, **options), **WHOLE))
    assert np.abs(out.astype(int) - np.asarray(picture)).mean() < 6


@pytest.mark.parametrize("background", [0, 255])
def test_D8_transparency_is_laid_over_the_background(background: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (9, 7, 4)).astype(np.uint8)
    alpha = values[..., 3:] / 255.0
    expected = np.rint(values[..., :3] * alpha + background * (1 - alpha))
    out = decode(encoded(Image.fromarray(values), "PNG"), **WHOLE, background=background)
    assert np.array_equal(pixels(out), expected)
    grey = Image.fromarray(values[..., [0, 3]])
    out = decode(encoded(grey, "PNG"), channels=1, long_side=9, background=background)
    assert np.array_equal(out[0], expected[..., 0])


def test_D8_palette_with_a_transparent_entry() -> None:
    picture = Image.new("P", (4, 2))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((0, 0), 1)
    out = pixels(decode(encoded(picture, "PNG", transparency=0), **WHOLE))
    assert out[0, 0].tolist() == [0, 0, 255]
    assert out[1, 1].tolist() == [255, 255, 255]


def test_D8_one_bit_becomes_black_and_white() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (9, 7)).astype(bool)
    for kind in ("PNG", "TIFF", "BMP"):
        out = decode(encoded(Image.fromarray(bits), kind), channels=1, long_side=9)
        assert np.array_equal(out[0], bits * 255), kind


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 900.0)])
def test_D8_floating_point_tiff(low: float, high: float) -> None:
    values = np.linspace(low, high, 48).reshape(6, 8).astype(np.float32)
    out = decode(encoded(Image.fromarray(values), "TIFF"), channels=1, long_side=8)
    assert np.array_equal(out[0], np.rint((values.astype(float) - low) / (high - low) * 255))


def test_D21_nan_in_a_tiff_is_listed() -> None:
    values = np.zeros((4, 4), np.float32)
    values[1, 1] = np.nan
    assert reason(encoded(Image.fromarray(values), "TIFF")) == "not finite"


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_D9_eight_orientations_are_equal(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    outputs, plain = [], photo(50, 90)
    for orientation in range(1, 9):
        picture, exif = oriented(plain, orientation)
        data = encoded(picture, kind, exif=exif, **options)
        header = inspect(data)
        assert (header.height, header.width) == (50, 90)
        outputs.append(decode(data, channels=3, long_side=40))
    assert outputs[0].shape == (3, 22, 40)
    assert all(np.array_equal(outputs[0], other) for other in outputs[1:])
    assert np.array_equal(pixels(decode(encoded(plain, kind, **options), **WHOLE)), np.asarray(plain))


@pytest.mark.parametrize("long_side", [160, 40])
def test_D9_eight_orientations_of_a_jpeg_are_equal_up_to_its_rounding(long_side: int) -> None:
    outputs, plain = [], photo(96, 160)
    for orientation in range(1, 9):
        picture, exif = oriented(plain, orientation)
        data = encoded(picture, "JPEG", exif=exif, quality=95, subsampling=0)
        outputs.append(decode(data, channels=3, long_side=long_side).astype(int))
    assert all(other.shape == outputs[0].shape for other in outputs)
    assert max(np.abs(outputs[0] - other).mean() for other in outputs) < 2


def test_upright_is_pillows_exif_transpose() -> None:
    from PIL import ImageOps

    array = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    for orientation in range(10):
        picture = Image.fromarray(array)
        picture.getexif()[0x0112] = orientation
        turned = ImageOps.exif_transpose(picture)
        assert np.array_equal(upright(array, orientation), np.asarray(turned)), orientation


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_D10_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert inspect(data).animated
    assert decode(data, **WHOLE)[:, 5, 5].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 20_000)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_D11_extreme_shapes(size: tuple[int, int], kind: str) -> None:
    out = decode(encoded(Image.new("RGB", (size[1], size[0]), "red"), kind), channels=3, long_side=64)
    assert out.shape == (3, *fitted_size(*size, 64))
    assert min(out.shape) >= 1
    assert abs(int(out[0].mean()) - 254) <= 1


def triangle(old: int, new: int) -> np.ndarray:
    """Weights `[new, old]` of a triangle filter as wide as two new pixels."""
    scale = old / new
    centres = (np.arange(new) + 0.5) * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(old) + 0.5 - centres[:, None]) / scale)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("kind", "tolerance"), [("PNG", 0.6), ("JPEG", 2.5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_shrinking_is_antialiased(kind: str, tolerance: float, channels: int) -> None:
    """Against the filter as two matrices. A JPEG is first shrunk by its decoder: 1 to 2 grey values here."""
    picture = photo(256, 384)
    out = decode(encoded(picture, kind, quality=95), channels=channels, long_side=48)
    plain = np.asarray(picture.convert("L" if channels == 1 else "RGB")).reshape(256, 384, channels)
    expected = np.einsum("ab,bcd,ec->aed", triangle(256, 32), plain, triangle(384, 48), optimize=True)
    assert out.shape == (channels, 32, 48)
    assert np.abs(pixels(out) - expected).mean() < tolerance


def test_never_enlarged_and_colour_to_grey_is_luma() -> None:
    picture = photo(20, 30)
    out = decode(encoded(picture, "PNG"), channels=1, long_side=224)
    weights = np.array([0.299, 0.587, 0.114])
    assert np.array_equal(out[0], np.floor(np.asarray(picture) @ weights + 0.5 + 1e-9))


def test_grey_jpeg_in_colour(tmp_path) -> None:
    path = write(tmp_path / "grey.jpg", photo().convert("L"), quality=95)
    out = decode(path, **WHOLE)
    assert np.array_equal(out[0], out[2])
    assert inspect(path.read_bytes()).grey


def test_unreadable_file_is_named(tmp_path) -> None:
    with pytest.raises(BadImage, match="No such file") as caught:
        decode(tmp_path / "gone.png", **WHOLE)
    assert caught.value.reason == "unreadable"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM"])
def test_no_damage_escapes_as_another_error(kind: str) -> None:
    """Random bytes overwritten, anywhere: pixels or `BadImage`, nothing else."""
    data, random = encoded(photo(24, 32), kind), np.random.default_rng(0)
    for _ in range(150):
        broken = bytearray(data)
        start = int(random.integers(0, len(data)))
        broken[start : start + 4] = random.bytes(4)
        try:
            assert decode(bytes(broken), channels=3, long_side=32, max_pixels=10**6).shape[0] == 3
        except BadImage as bad:
            assert bad.reason
