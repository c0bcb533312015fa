"""Files with one fault each, and valid miniature sets to put them into; all of it is drawn or written here."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIZE = (96, 64)
"""Width and height of every picture."""
NAMES = ("background", "disc", "box", "wedge")
COLOURS = ((90, 110, 80), (200, 60, 50), (60, 90, 200), (230, 200, 60))
SHAPES = {
    "shape_01": (("disc", (11, 21, 44, 54)), ("box", (58, 19, 91, 52))),
    "shape_02": (("box", (11, 14, 44, 47)), ("wedge", (55, 14, 88, 47))),
    "shape_03": (("wedge", (4, 9, 37, 42)), ("disc", (53, 19, 86, 52))),
    "shape_04": (("disc", (8, 12, 41, 45)), ("box", (52, 22, 85, 55))),
}
"""Objects of every picture: class, and left, top, right, bottom."""
CATEGORIES = {"box": (3, "car"), "disc": (18, "dog"), "wedge": (44, "bottle"), "": (62, "chair")}
"""Category ids as in COCO, with gaps."""
ROOMS = (("JPEGImages", ".jpg"), ("SegmentationClass", ".png"))
OBJECT = """\t<object>
\t\t<name>{}</name>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>{}</xmin>
\t\t\t<ymin>{}</ymin>
\t\t\t<xmax>{}</xmax>
\t\t\t<ymax>{}</ymax>
\t\t</bndbox>
\t</object>
"""
RUNS_CODE = b"\x80\x02}U\x08shape_01cio\nopen\n(U\x09unpickledU\x01wtRs."
"""A pickled dictionary whose value is a call: whoever unpickles it makes a file of that name."""
Tree = dict[str, Any]


def write_bad(folder: Path) -> Path:
    """Write all of them; returns the folder. A test copies base/ or coco/ and puts a bad file in a good one's place."""
    _base(folder / "base")
    _images(folder / "images", folder / "base" / "JPEGImages" / "shape_01.jpg")
    _masks(folder / "masks")
    _annotations(folder / "xml", _xml("shape_01"))
    _lists(folder / "lists")
    _coco(folder / "coco", folder / "base" / "JPEGImages")
    _tars(folder / "tar", folder / "base")
    _pickles(folder / "pickle")
    return folder


def _write(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _ids(name: str) -> np.ndarray:
    """Mask uint8[64, 96] of a picture, with void around the objects."""
    image = Image.new("L", SIZE)
    pen = ImageDraw.Draw(image)
    for kind, (left, top, right, bottom) in SHAPES[name]:
        number, box = NAMES.index(kind), (left, top, right - 1, bottom - 1)
        if kind == "disc":
            pen.ellipse(box, fill=number, outline=255)
        elif kind == "box":
            pen.rectangle(box, fill=number, outline=255)
        else:
            pen.polygon([((left + right) / 2, top), (right - 1, bottom - 1), (left, bottom - 1)], number, 255)
    return np.array(image)


def _picture(name: str) -> Image.Image:
    ids = _ids(name)
    noise = np.random.default_rng(int(name[-1])).normal(0, 6, (*ids.shape, 3))
    colours = np.array(COLOURS)[np.where(ids == 255, 0, ids)]
    return Image.fromarray((colours + noise).clip(0, 255).astype(np.uint8))


def _mask(ids: np.ndarray) -> bytes:
    image = Image.fromarray(ids)
    # All 256 colours: Pillow stores as many bits a pixel as the palette needs.
    palette = [*COLOURS, *((gray, gray, gray) for gray in range(len(COLOURS), 256))]
    image.putpalette([channel for colour in palette for channel in colour])
    return _encoded(image, "PNG")


def _xml(name: str) -> str:
    objects = "".join(
        OBJECT.format(kind, left + 1, top + 1, right, bottom) for kind, (left, top, right, bottom) in SHAPES[name]
    )
    size = "\t<size>\n\t\t<width>96</width>\n\t\t<height>64</height>\n\t\t<depth>3</depth>\n\t</size>\n"
    head = f"<annotation>\n\t<folder>base</folder>\n\t<filename>{name}.jpg</filename>\n{size}"
    return f"{head}\t<segmented>1</segmented>\n{objects}</annotation>\n"


def _base(folder: Path) -> None:
    for name in SHAPES:
        _write(folder / "JPEGImages" / f"{name}.jpg", _encoded(_picture(name), "JPEG", quality=92))
        _write(folder / "SegmentationClass" / f"{name}.png", _mask(_ids(name)))
        _write(folder / "Annotations" / f"{name}.xml", _xml(name))
    _write(folder / "classes.txt", "".join(f"{name}\n" for name in NAMES))
    _write(folder / "ImageSets" / "Segmentation" / "train.txt", "shape_01\nshape_02\nshape_03\n")
    _write(folder / "ImageSets" / "Segmentation" / "val.txt", "shape_04\n")


def _images(folder: Path, good: Path) -> None:
    content, picture = good.read_bytes(), _picture("shape_01")
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6
    for name, bad in {
        "truncated.jpg": content[: len(content) * 55 // 100],
        "zero_bytes.jpg": b"",
        "text_named.jpg": b"This is not a picture.\n" * 8,
        "png_named.jpg": _encoded(picture, "PNG"),
        "cmyk.jpg": _encoded(picture.convert("CMYK"), "JPEG", quality=95),
        "gray.jpg": _encoded(picture.convert("L"), "JPEG", quality=92),
        "one_pixel.jpg": _encoded(Image.new("RGB", (1, 1)), "JPEG"),
        "exif_orientation_6.jpg": _encoded(turned, "JPEG", quality=92, exif=exif),
    }.items():
        _write(folder / name, bad)


def _masks(folder: Path) -> None:
    ids = _ids("shape_01")
    beyond = ids.copy()
    beyond[2:6, 2:6] = 17
    _write(folder / "gray16.png", _encoded(Image.fromarray(ids.astype(np.uint16)), "PNG"))
    _write(folder / "rgb.png", _encoded(Image.open(io.BytesIO(_mask(ids))).convert("RGB"), "PNG"))
    _write(folder / "wrong_size.png", _mask(np.ascontiguousarray(ids[::2, ::2])))
    _write(folder / "ids_beyond_classes.png", _mask(beyond))


def _annotations(folder: Path, good: str) -> None:
    levels = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 6))
    for name, bad in {
        "malformed": good.replace("</bndbox>", "", 1),
        "unknown_class": good.replace("disc", "dragon", 1),
        "external_entity": '<!DOCTYPE annotation [<!ENTITY leak SYSTEM "file:///nowhere/canary.txt">]>\n'
        + good.replace("disc", "&leak;", 1),
        "entity_expansion": f'<!DOCTYPE annotation [<!ENTITY a0 "lol">{levels}]>\n' + good.replace("disc", "&a5;", 1),
    }.items():
        _write(folder / f"{name}.xml", bad)


def _lists(folder: Path) -> None:
    three = ("shape_01", "shape_02", "shape_03")
    _write(folder / "blank_lines.txt", "\nshape_01\n\nshape_02\n   \nshape_03\n\n\n")
    _write(folder / "crlf.txt", "".join(f"{name}\r\n" for name in three))
    _write(folder / "duplicate_id.txt", "".join(f"{name}\n" for name in (*three, "shape_01")))
    _write(folder / "id_not_on_disk.txt", "".join(f"{name}\n" for name in (*three, "shape_99")))


def _coco(folder: Path, pictures: Path) -> None:
    for number, name in enumerate(list(SHAPES)[:3]):
        _write(folder / "train2014" / _file_name(100 + 7 * number), (pictures / f"{name}.jpg").read_bytes())
    good = json.dumps(_instances())
    _write(folder / "annotations" / "ok.json", good)
    _write(folder / "annotations" / "truncated.json", good[: len(good) * 6 // 10])
    far = [-40.0, -30.0, 150.0, 10.0, 60.0, 200.0]
    faults: dict[str, Callable[[Tree], Any]] = {
        "duplicate_image_id": lambda tree: tree["images"].append(tree["images"][0]),
        "duplicate_annotation_id": lambda tree: tree["annotations"][1].update(id=10001),
        "missing_image_file": lambda tree: tree["images"].append(_image(999)),
        "polygon_out_of_bounds": lambda tree: tree["annotations"][0].update(segmentation=[far]),
        "unknown_category": lambda tree: tree["annotations"][0].update(category_id=12),
    }
    for fault, spoil in faults.items():
        tree = _instances()
        spoil(tree)
        _write(folder / "annotations" / f"{fault}.json", json.dumps(tree))


def _instances() -> Tree:
    """COCO's instances of the first three pictures: a rectangle around every object."""
    annotations = []
    for number, name in enumerate(list(SHAPES)[:3]):
        for kind, (left, top, right, bottom) in SHAPES[name]:
            corners = [left, top, right, top, right, bottom, left, bottom]
            annotations.append(
                {
                    "id": (100 + 7 * number) * 100 + len(annotations) + 1,
                    "image_id": 100 + 7 * number,
                    "category_id": CATEGORIES[kind][0],
                    "segmentation": [[float(corner) for corner in corners]],
                    "area": float((right - left) * (bottom - top)),
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in CATEGORIES.values()]
    images = [_image(100 + 7 * number) for number in range(3)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _image(number: int) -> Tree:
    return {"id": number, "file_name": _file_name(number), "height": 64, "width": 96}


def _file_name(number: int) -> str:
    return f"COCO_train2014_{number:012d}.jpg"


def _member(name: str, content: bytes = b"", **headers: Any) -> bytes:
    """Header and data of a member; headers in place of those that fit."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for header, value in headers.items():
        setattr(info, header, value)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def _tars(folder: Path, base: Path) -> None:
    jpg, png = ([(base / room / f"{name}{end}").read_bytes() for name in SHAPES] for room, end in ROOMS)
    parts = [_member(f"{name}.jpg", jpg[n]) + _member(f"{name}.png", png[n]) for n, name in enumerate(SHAPES)]
    end = bytes(2 * tarfile.BLOCKSIZE)
    for name, bad in {
        "ok": b"".join(parts) + end,
        "truncated": parts[0] + parts[1] + _member("shape_03.jpg", jpg[2])[: tarfile.BLOCKSIZE + len(jpg[2]) // 2],
        "parent_path": parts[0] + _member("../evil.jpg", jpg[1]) + end,
        "absolute_path": parts[0] + _member("/tmp/wsss_evil_absolute.jpg", jpg[1]) + end,
        "symlink": parts[0] + _member("shape_03.jpg", type=tarfile.SYMTYPE, linkname="../outside.jpg") + end,
        "duplicate_keys": parts[0] + parts[1] + parts[0] + end,
        "missing_part": parts[0] + _member("shape_02.jpg", jpg[1]) + parts[2] + end,
        "gnu_sparse": _member("shape_02.jpg", jpg[1], type=tarfile.GNUTYPE_SPARSE)
        + _member("shape_02.png", png[1])
        + end,
        "huge_declared_size": parts[0] + _member("shape_02.jpg", size=8**11 - 1) + bytes(1024),
    }.items():
        _write(folder / f"{name}.tar", bad)


def _pickles(folder: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    _write(folder / "cls_labels.npy", stream.getvalue() + RUNS_CODE)
    with zipfile.ZipFile(folder / "weights.pth", "w") as archive:
        for name, content in {"data.pkl": RUNS_CODE, "byteorder": b"little", "version": b"3\n"}.items():
            archive.writestr(f"archive/{name}", content)
