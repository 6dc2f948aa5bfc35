"""Whatever a user brings becomes RGB in [0, 1], or an error that says why not."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from jaxtyping import TypeCheckError
from PIL import Image

from lisrd.errors import InputError
from lisrd.image import MAX_PIXELS, as_image, read_image, write_image

# Two rows, three columns: every pixel differs, so that a turn or a swap of axes shows.
RED_GREEN_BLUE = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [40, 50, 60], [70, 80, 90]]], np.uint8
)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def test_reads_what_was_written(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", RED_GREEN_BLUE)
    assert np.array_equal(read_image(tmp_path / "a.png"), RED_GREEN_BLUE)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]  # nothing temporary is left


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    write_image(tmp_path / "grey.png", RED_GREEN_BLUE[..., 0])
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(RED_GREEN_BLUE[..., :1], 3, axis=2))


def test_exif_turns_the_image_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn a quarter clockwise to show"
    path = save(tmp_path / "turned.png", Image.fromarray(RED_GREEN_BLUE), exif=exif)
    assert np.array_equal(read_image(path), np.rot90(RED_GREEN_BLUE, -1))
    with Image.open(path) as image:
        assert as_image(image).shape == (1, 3, 3, 2)


def test_alpha_is_dropped_not_composited(tmp_path: Path) -> None:
    transparent = np.dstack([RED_GREEN_BLUE, np.zeros((2, 3), np.uint8)])
    path = save(tmp_path / "alpha.png", Image.fromarray(transparent))
    assert np.array_equal(read_image(path), RED_GREEN_BLUE)
    assert torch.equal(as_image(transparent), as_image(RED_GREEN_BLUE))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257, 1000, 65535]], np.uint16)
    path = save(tmp_path / "deep.png", Image.fromarray(values))
    assert read_image(path)[0, :, 0].tolist() == [0, 1, 4, 255]


@pytest.mark.parametrize("mode", ["P", "CMYK", "LA", "1", "L"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(RED_GREEN_BLUE)
    image = image.convert("L").convert("LA") if mode == "LA" else image.convert(mode)
    path = save(tmp_path / "image.tif", image)
    read = read_image(path)
    assert read.shape == (2, 3, 3)
    assert np.array_equal(read, np.array(image.convert("RGB")))


def test_palette_with_transparency(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    image = Image.fromarray(RED_GREEN_BLUE).convert("P")
    read = read_image(save(tmp_path / "image.png", image, transparency=b"\x00\x80\xff"))
    assert np.array_equal(read, np.array(image.convert("RGB")))
    assert not recwarn


def test_floats_of_a_tiff_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "float.tif", Image.fromarray(np.zeros((2, 2), np.float32)))
    with pytest.raises(InputError, match=r"float\.tif: holds floats of unknown range"):
        read_image(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.png does not exist; check the path"):
        read_image(tmp_path / "nowhere.png")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory; give the path of one image"):
        read_image(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(InputError, match=r"empty\.jpg is empty \(0 bytes\)"):
        read_image(tmp_path / "empty.jpg")


def test_text_file(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not pixels")
    with pytest.raises(InputError, match=r"notes\.png is not an image that Pillow can read"):
        read_image(tmp_path / "notes.png")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_truncated_file(tmp_path: Path, photograph: np.ndarray, suffix: str) -> None:
    whole = save(tmp_path / f"whole.{suffix}", Image.fromarray(photograph)).read_bytes()
    (tmp_path / f"half.{suffix}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"half\.{suffix} is broken or truncated"):
        read_image(tmp_path / f"half.{suffix}")


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size and whose data is missing: decoding it would fail differently."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT", b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


def test_a_header_that_claims_too_much_is_refused_before_decoding(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png_claiming(60_000, 60_000))
    with pytest.raises(InputError, match=r"bomb\.png is too large to decode .*resize it first"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_our_own_limit_lies_below_pillows(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(png_claiming(MAX_PIXELS // 1000 + 1, 1000))
    with pytest.raises(InputError, match=r"large\.png: 170001 x 1000 pixels are more than 170,000,000"):
        read_image(tmp_path / "large.png")


def test_forty_megapixels_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "forty.png", Image.new("L", (8000, 5000), 7), compress_level=1)
    image = read_image(path)
    assert image.shape == (5000, 8000, 3)
    assert image[-1, -1].tolist() == [7, 7, 7]


def test_writing_needs_a_known_suffix_and_a_directory(tmp_path: Path) -> None:
    for name in ("a.pgx", "a.psd"):  # Pillow reads the second, and writes none
        with pytest.raises(InputError, match=r"unknown image suffix '\.p..'; use \.png"):
            write_image(tmp_path / name, RED_GREEN_BLUE)
    with pytest.raises(InputError, match=r"an image is \(H, W, 3\) or \(H, W\), not \(2, 2, 5\)"):
        write_image(tmp_path / "a.png", np.zeros((2, 2, 5), np.uint8))
    with pytest.raises(InputError, match=r"is not a directory; create it before writing a\.png"):
        write_image(tmp_path / "missing" / "a.png", RED_GREEN_BLUE)
    with pytest.raises(InputError, match="only uint8 images are written, not float32"):
        write_image(tmp_path / "a.png", RED_GREEN_BLUE.astype(np.float32))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.png", RED_GREEN_BLUE)

    def broken_off(image: Image.Image, path: Path, format: str) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", broken_off)
    with pytest.raises(InputError, match="no space left"):
        write_image(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8))
    assert np.array_equal(read_image(tmp_path / "a.png"), RED_GREEN_BLUE)
    assert len(list(tmp_path.iterdir())) == 1


def test_every_form_of_one_image_is_the_same_tensor(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", RED_GREEN_BLUE)
    tensor = torch.from_numpy(RED_GREEN_BLUE).permute(2, 0, 1)
    forms = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.fromarray(RED_GREEN_BLUE),
        RED_GREEN_BLUE,
        RED_GREEN_BLUE[:, ::-1][:, ::-1],  # negative strides
        RED_GREEN_BLUE.astype(np.float64) / 255,
        tensor,
        tensor[None],
        tensor.float() / 255,
    ]
    for form in forms:
        image = as_image(form)
        assert image.dtype == torch.float32
        assert torch.allclose(image[0, :, 0, 1], torch.tensor([0.0, 1, 0]), atol=1e-7)
        assert torch.allclose(image, as_image(RED_GREEN_BLUE), atol=1e-7)


def test_one_pixel_of_a_flipped_array() -> None:
    """NumPy calls it contiguous, whatever its strides are."""
    pixel = np.full((1, 1), 0.5)[::-1, ::-1]
    assert as_image(pixel).tolist() == [[[[0.5]]] * 3]


def test_batches_and_grey_tensors() -> None:
    assert as_image(torch.zeros(5, 3, 4, 6)).shape == (5, 3, 4, 6)
    assert as_image(torch.zeros(5, 1, 4, 6)).shape == (5, 3, 4, 6)
    assert as_image(torch.zeros(1, 4, 6)).shape == (1, 3, 4, 6)
    assert as_image(torch.zeros(4, 6)).shape == (1, 3, 4, 6)
    assert as_image(np.zeros((4, 6))).shape == (1, 3, 4, 6)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.full((3, 4, 4), 255.0), r"up to 255; .*looks like 0\.\.255, divide by 255"),
        (torch.full((3, 4, 4), 300.0), r"up to 300; .*\[0, 1\]: rescale it"),
        (torch.full((3, 4, 4), -0.5), r"down to -0\.5; .*rescale it"),
        (torch.full((3, 4, 4), torch.nan), "NaN or infinite"),
        (torch.full((3, 4, 4), torch.inf), "NaN or infinite"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), r"dtype torch\.int64; use uint8"),
        (np.zeros((4, 4, 3), np.int32), r"dtype int32; use uint8"),
        (np.zeros((4, 4), np.uint16), r"dtype uint16; use uint8"),
        (torch.zeros(7, 5, 3), r"tensor of shape \(7, 5, 3\); .*channels first"),
        (np.zeros((3, 4, 5), np.uint8), r"array of shape \(3, 4, 5\); .*channels last"),
        (np.zeros((1, 3, 4, 5), np.uint8), r"array of shape \(1, 3, 4, 5\)"),
        (torch.zeros(3, 0, 5), "has no pixels"),
    ],
)
def test_errors_say_what_is_wrong(image: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_image(image)


def test_what_is_no_image_at_all() -> None:
    with pytest.raises(
        (InputError, TypeCheckError), match="image"
    ):  # the latter under `--jaxtyping-packages`
        as_image([[0, 1]])  # type: ignore[arg-type]


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9).map(lambda s: (*s, 3))))
def test_eight_bits_survive_exactly(image: np.ndarray) -> None:
    back = (as_image(image)[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    assert np.array_equal(back, image)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_image_never_raise_anything_else(tmp_path_factory: object, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.png"  # type: ignore[attr-defined]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(InputError, match=r"random\.png"):
        read_image(path)
