"""train.py score: depth maps of any program under the rules of a recipe's data."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from app.compare import main as compare
from app.prediction.command import main as predict
from app.training.command import main
from app.training.predicted import PredictedMaps
from app.training.score import Tally
from datamodules import KITTIDataModule
from datamodules.errors import DataError
from datamodules.files.depths.reading import DEPTH_SUFFIXES
from datamodules.files.images.decoding import IMAGE_SUFFIXES
from models.scoring import Scoring
from tests.app.training.test_train import folder_data, write_config
from tests.datamodules.layouts import KITTI_SIZE, write_kitti

pytestmark = pytest.mark.usefixtures("_here")
ROWS, COLS = 42, 56


@pytest.fixture
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def rooms(tmp_path) -> Path:
    """Two folders of three pictures whose names are the same in both."""
    rng = np.random.default_rng(0)
    root = tmp_path / "rooms"
    for place in ("hall", "loft"):
        for part in ("rgb", "depth"):
            (root / part / place).mkdir(parents=True)
        for i in range(3):
            image = rng.integers(0, 255, (ROWS, COLS, 3), dtype=np.uint8)
            depth = rng.integers(1000, 6000, (ROWS, COLS)).astype(np.uint16)
            depth[:3] = 0
            cv2.imwrite(str(root / f"rgb/{place}/{i}.png"), image)
            cv2.imwrite(str(root / f"depth/{place}/{i}.png"), depth)
    return root


def truth(root: Path, name: str) -> np.ndarray:
    depth = cv2.imread(str(root / f"depth/{name}.png"), cv2.IMREAD_UNCHANGED)
    return depth.astype(np.float32) / 1000


def config(tmp_path, root, weights="no") -> list[str]:
    # Everything is tested on; weights that are not there are not asked for.
    data = folder_data(root, val_fraction=0.5)
    data["init_args"]["image_size"] = [ROWS, COLS]
    return ["--config", str(write_config(tmp_path, tmp_path / weights, data))]


def score(tmp_path, root, maps, *more) -> dict:
    main(["score", "--predictions", str(maps), *config(tmp_path, root), *more])
    results = list(Path(maps).glob("test_*.json"))
    return json.loads(max(results, key=lambda p: p.stat().st_mtime_ns).read_text())


def test_score__equals_the_test_of_the_network_that_predicted(
    tmp_path, rooms, tiny_weights, capsys
):
    data = folder_data(rooms, val_fraction=0.5)
    where = write_config(tmp_path, tiny_weights, data, adapter=None)
    size = ["--data.image_size", f"[{ROWS}, {COLS}]"]
    more = ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true"]
    align = ["--align", "median"]
    for extra in ([], align):
        main(["test", "--config", str(where), *size, *more, *extra, "--per_image=true"])
    tested = {p.name: json.loads(p.read_text()) for p in tmp_path.glob("test_*.json")}
    base = ["--model", str(tiny_weights), "--size", f"{COLS}x{ROWS}"]
    out = ["--output", "maps", "--format", "npy", "--accelerator", "cpu"]
    predict([str(rooms / "rgb"), *base, *out, "--precision", "32-true"])
    for extra in ([], align):
        score(tmp_path, rooms, "maps", *extra)
    assert len(tested) == 2
    for name, result in tested.items():
        found = json.loads(Path("maps", name).read_text())
        assert found["n_images"] == result["n_images"]
        for metric, value in result["metrics"].items():
            # One and the same network in batches of other sizes.
            assert found["metrics"][metric] == pytest.approx(value, rel=1e-4), metric
    capsys.readouterr()
    compare(["test_full.csv", "maps/test_full.csv"])
    assert "3 images" in capsys.readouterr().out


@pytest.mark.parametrize("style", ["{place}/{i}", "{place}_{i}", "deep/{place}/{i}"])
@pytest.mark.parametrize("ending", [".npy", ".depth.npy", ".png", ".png.png", ".exr"])
def test_score__finds_maps_by_any_name(tmp_path, rooms, style, ending):
    if style.startswith("deep"):
        (tmp_path / "deep").mkdir()
        rooms = rooms.rename(tmp_path / "deep/rooms")
        style = "rgb/{place}/{i}"
    for place in ("hall", "loft"):
        for i in range(3):
            depth = truth(rooms, f"{place}/{i}")
            depth[depth == 0] = 9
            path = tmp_path / "maps" / f"{style.format(place=place, i=i)}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if ending.endswith(".npy"):
                np.save(path, depth)
            else:
                stored = depth if ending == ".exr" else (depth * 1000).round()
                kind = np.float32 if ending == ".exr" else np.uint16
                write = path.with_suffix(".exr") if ending == ".exr" else path
                cv2_write(write, stored.astype(kind))
    scale = ["--depth_scale", "1000"] if ending.endswith("png") else []
    found = score(tmp_path, rooms, tmp_path / "maps", *scale)
    assert found["metrics"]["delta1"] == 1
    assert found["metrics"]["abs_rel"] < 1e-6
    assert found["n_missing"] == 0


def cv2_write(path: Path, stored: np.ndarray) -> None:
    if path.suffix == ".exr":
        from datamodules.files.depths.writing import write_exr

        write_exr(path, stored)
    else:
        assert cv2.imwrite(str(path), stored)


def written(tmp_path, rooms, change=lambda depth: depth) -> Path:
    for place in ("hall", "loft"):
        for i in range(3):
            path = tmp_path / f"maps/{place}/{i}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            depth = truth(rooms, f"{place}/{i}")
            np.save(path, change(np.where(depth > 0, depth, np.nan)))
    return tmp_path / "maps"


def test_score__what_does_not_count_may_be_anything(tmp_path, rooms):
    """The truth's unknown pixels are NaN in these maps."""
    assert score(tmp_path, rooms, written(tmp_path, rooms))["metrics"]["delta1"] == 1


def test_score__align_and_each_image(tmp_path, rooms):
    maps = written(tmp_path, rooms, lambda depth: np.nan_to_num(1 / (3 * depth) - 0.02))
    found = score(tmp_path, rooms, maps, "--align", "disparity")
    assert found["align"] == "disparity"
    assert found["metrics"]["abs_rel"] < 1e-5
    text = (maps / "test_full_aligned_disparity.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == found["n_images"] == 3
    score(tmp_path, rooms, maps, "--align", "median", "--per_image", "false")
    assert not (maps / "test_full_aligned_median.csv").exists()


def test_score__part_of_the_frames_is_no_result_of_them(tmp_path, rooms, capsys):
    maps = written(tmp_path, rooms)
    tested = [row["image"] for row in rows_after(tmp_path, rooms, maps)]
    place, name = Path(tested[0]).parts[-2:]
    (maps / place / name).with_suffix(".npy").unlink()
    found = score(tmp_path, rooms, maps)
    assert (found["n_missing"], found["n_images"]) == (1, 2)
    out = capsys.readouterr().out
    assert "1 frames have no map" in out
    assert "2 of 3 images were scored; this is no result of the data set" in out
    assert (maps / "test_full_part.json").is_file()


def rows_after(tmp_path, rooms, maps) -> list[dict]:
    score(tmp_path, rooms, maps)
    return list(csv.DictReader((maps / "test_full.csv").read_text().splitlines()))


def test_score__another_unit_is_doubted(tmp_path, rooms, capsys):
    maps = written(tmp_path, rooms, lambda depth: depth * 1000)
    score(tmp_path, rooms, maps)
    assert "is --depth_scale right" in capsys.readouterr().out


def test_score__zero_is_scored_and_said(tmp_path, rooms, capsys):
    def hole(depth):
        depth[10, 10] = 0
        return depth

    found = score(tmp_path, rooms, written(tmp_path, rooms, hole))
    assert 0.99 < found["metrics"]["delta1"] < 1
    assert "3 maps have depth of 0 or less" in capsys.readouterr().out


def broken(depth):
    depth[20, 20] = np.inf
    return depth


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken, "is not finite in 1 of the"),
        (lambda depth: np.nan_to_num(depth * 1000).astype(np.int32), "--depth_scale"),
        (lambda depth: np.stack([depth] * 3), "has one number a pixel"),
    ],
)
def test_score__a_map_that_is_none_is_one_line(
    tmp_path, rooms, capsys, change, message
):
    maps = written(tmp_path, rooms, change)
    with pytest.raises(SystemExit):
        score(tmp_path, rooms, maps)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert not list(maps.glob("test_*"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "has no depth map"),
        (["other/7.npy"], "none of the 3 frames"),
        (["0.npy", "1.npy", "2.npy"], "could be of"),
    ],
)
def test_score__maps_of_nothing_or_of_several(tmp_path, rooms, capsys, names, message):
    (tmp_path / "maps").mkdir()
    for name in names:
        (tmp_path / "maps" / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / "maps" / name, np.ones((ROWS, COLS), np.float32))
    maps = PredictedMaps(tmp_path / "maps", None) if names else None
    if message == "could be of":
        assert maps is not None
        maps.path("hall/0.png")
        with pytest.raises(DataError, match=message):
            maps.path("loft/0.png")
        return
    with pytest.raises(SystemExit):
        score(tmp_path, rooms, tmp_path / "maps")
    assert message in capsys.readouterr().err


def test_maps__of_one_file_go_by_number(tmp_path):
    for name in ("0001", "rgb_00012"):
        np.save(tmp_path / f"{name}.npy", np.ones((2, 2), np.float32))
    maps = PredictedMaps(tmp_path, None)
    assert maps.path("nyu.mat#12") == tmp_path / "rgb_00012.npy"
    assert maps.path("nyu.mat#1") == tmp_path / "0001.npy"
    assert maps.path("nyu.mat#2") is None


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, ".JPG"])
@pytest.mark.parametrize("map_suffix", DEPTH_SUFFIXES)
def test_maps__of_every_kind_of_picture_and_of_map(tmp_path, suffix, map_suffix):
    for name in (f"a{suffix}{map_suffix}", f"b.depth{map_suffix}"):
        (tmp_path / name).touch()
    maps = PredictedMaps(tmp_path, None)
    assert maps.path(f"x/a{suffix}") == tmp_path / f"a{suffix}{map_suffix}"
    assert maps.path(f"x/b{suffix}") == tmp_path / f"b.depth{map_suffix}"


def test_maps__of_predict_know_their_scale(tmp_path):
    cv2.imwrite(str(tmp_path / "a.depth.png"), np.full((2, 2), 512, np.uint16))
    header = {"header": {"png_units_per_metre": 256}, "files": {}}
    (tmp_path / "predictions.json").write_text(json.dumps(header))
    maps = PredictedMaps(tmp_path, None)
    path = maps.path("x/a.jpg")
    assert path is not None
    assert (maps.read(path) == 2).all()


@pytest.mark.parametrize("protocol", ["kitti_eigen_garg_kb", "kitti_da2"])
def test_tally__whole_frames_and_the_window_alone_score_alike(tmp_path, protocol):
    data = KITTIDataModule(
        str(write_kitti(tmp_path)),
        image_size=(28, 98),
        eval_protocol=protocol,
        num_workers=0,
    )
    data.setup("test")
    rules = data.protocol
    rng = np.random.default_rng(0)
    rows, cols = KITTI_SIZE
    whole = rng.uniform(3, 60, KITTI_SIZE).astype(np.float32)
    top, left = rows - 352, (cols - 1216) // 2
    parts = {"whole": whole}
    if rules.window == "kb":
        parts["window"] = whole[top : top + 352, left : left + 1216]
    scores = []
    for name, depth in parts.items():
        for batch in data.test_dataloader():
            for path in batch["path"]:
                own = tmp_path / name / Path(path).relative_to(tmp_path)
                own.parent.mkdir(parents=True, exist_ok=True)
                np.save(own.with_suffix(".npy"), depth)
        tally = Tally(rules, PredictedMaps(tmp_path / name, None), Scoring())
        for batch in data.test_dataloader():
            tally.add(batch)
        scores.append(tally.metrics.compute())
    assert int(scores[0]["n_images"]) == 3
    for other in scores[1:]:
        assert other == scores[0]
