"""The engine of many processes: the result of a local run, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lisrd.cli.engine import build_engine
from lisrd.errors import InputError, MissingExtraError
from lisrd.image import write_image
from lisrd.match import Policy
from lisrd.scale import LocalEngine, RayEngine, exhaustive_pairs, extract, image_names, match_pairs
from lisrd.scale.ray_engine import write_shard
from lisrd.scale.store import ResumableStore
from lisrd.scale.work import Broken, Record, Written
from small_describer import SmallDescriber
from test_extract import assert_same, contents


@dataclass(frozen=True)
class Doubling:
    """Work that can be checked by eye; odd numbers are broken, and `deadly` ends its process at once."""

    deadly: int | None = None

    def __call__(self, batch: list[int]) -> list[Record | Broken]:
        if self.deadly in batch:
            os.kill(os.getpid(), signal.SIGKILL)
        return [
            Broken(self.name_of(n), "odd") if n % 2 else Record(self.name_of(n), {"x": np.array([2 * n])})
            for n in batch
        ]

    def name_of(self, item: int) -> str:
        return f"n/{item}"


class TestShard:
    def test_its_records_are_one_part(self, tmp_path: Path):
        outcomes = write_shard(Doubling(), [[2, 3], [4]], tmp_path, "{}")
        assert outcomes == [Written("n/2"), Broken("n/3", "odd"), Written("n/4")]
        (part,) = tmp_path.iterdir()
        assert {name: values.tolist() for name, values in contents(part).items()} == {
            "n/2/x": [4],
            "n/4/x": [8],
        }

    def test_done_twice_it_is_one_part(self, tmp_path: Path):
        for _ in range(2):
            write_shard(Doubling(), [[2]], tmp_path, "{}")
        write_shard(Doubling(), [[4]], tmp_path, "{}")
        assert len(list(tmp_path.iterdir())) == 2

    def test_without_records_there_is_no_part(self, tmp_path: Path):
        assert write_shard(Doubling(), [[1]], tmp_path, "{}") == [Broken("n/1", "odd")]
        assert not list(tmp_path.iterdir())

    def test_what_fails_leaves_nothing(self, tmp_path: Path):
        with pytest.raises(TypeError):
            write_shard(Doubling(), [[2], ["no number"]], tmp_path, "{}")  # type: ignore[list-item]
        assert not list(tmp_path.iterdir())

    def test_storage_that_is_not_shared(self, tmp_path: Path):
        with pytest.raises(InputError, match="storage that all machines share"):
            write_shard(Doubling(), [[2]], tmp_path / "absent", "{}")


class TestEngines:
    def test_in_threads(self, tmp_path: Path):
        with ResumableStore(tmp_path / "s.h5", {}) as store:
            outcomes = list(LocalEngine(3).run(Doubling(), [[n] for n in range(5)], store))
        assert [outcome.name for outcome in outcomes] == [f"n/{n}" for n in range(5)]
        assert contents(tmp_path / "s.h5").keys() == {"n/0/x", "n/2/x", "n/4/x"}

    def test_names(self):
        assert build_engine("local", 2) == LocalEngine(2)
        assert build_engine("ray", None, "auto", "cuda:0") == RayEngine("auto", gpus=1.0)
        with pytest.raises(InputError, match="use local or ray"):
            build_engine("spark")
        with pytest.raises(InputError, match="workers is 0"):
            LocalEngine(0)

    def test_without_ray_the_extra_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "ray", None)
        with (
            pytest.raises(MissingExtraError, match=r"lisrd\[ray\]"),
            ResumableStore(tmp_path / "s.h5", {}) as store,
        ):
            list(RayEngine().run(Doubling(), [[2]], store))


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """Two worker processes of a cluster on this machine, which find the modules of the tests."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


def worker_processes() -> list[int]:
    """Processes of Ray's that work on a shard now."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
        except OSError:  # ended since
            continue
        if title.startswith(b"ray::write_shard"):
            found.append(int(folder.name))
    return found


class Killer(threading.Thread):
    """Ends one worker by SIGKILL in the middle of its shard: when it has begun its part."""

    def __init__(self, parts: Path) -> None:
        super().__init__(daemon=True)
        self.parts = parts
        self.killed: list[int] = []

    def run(self) -> None:
        deadline = time.monotonic() + 120
        while not self.killed and time.monotonic() < deadline:
            if any(self.parts.glob("shard-*.tmp")):
                for process in worker_processes()[:1]:
                    os.kill(process, signal.SIGKILL)
                    self.killed.append(process)
            time.sleep(0.002)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="workers are found by their names in /proc")
@pytest.mark.usefixtures("cluster")
class TestCluster:
    def test_one_of_two_workers_is_killed(self, tmp_path: Path, photograph: np.ndarray):
        (tmp_path / "images").mkdir()
        for i in range(8):
            crop = photograph[8 * i : 8 * i + 200, 6 * i : 6 * i + 220]
            write_image(tmp_path / "images" / f"{i:02d}.png", np.ascontiguousarray(crop))
        (tmp_path / "images" / "broken.png").write_bytes(b"no image")
        local = extract(tmp_path / "images", tmp_path / "local.h5", SmallDescriber(), 300)
        killer = Killer(tmp_path / "ray.h5.parts")
        killer.start()
        engine = RayEngine(shard_batches=3)
        report = extract(tmp_path / "images", tmp_path / "ray.h5", SmallDescriber(), 300, engine=engine)
        killer.join()
        assert killer.killed
        assert report == local
        assert_same(tmp_path / "ray.h5", tmp_path / "local.h5")
        assert not (tmp_path / "ray.h5.parts").exists()

        pairs = exhaustive_pairs(image_names(tmp_path / "local.h5"))
        match_pairs(tmp_path / "local.h5", pairs, tmp_path / "local-m.h5")
        killer = Killer(tmp_path / "ray-m.h5.parts")
        killer.start()
        match_pairs(tmp_path / "local.h5", pairs, tmp_path / "ray-m.h5", engine=RayEngine(shard_batches=8))
        killer.join()
        assert killer.killed
        assert_same(tmp_path / "ray-m.h5", tmp_path / "local-m.h5")

    def test_an_interrupted_run_is_resumed_by_either_engine(self, tmp_path: Path):
        engine = RayEngine(shard_batches=2)
        batches = [[n] for n in range(0, 40, 2)]

        def run_and_stop_after(count: int) -> None:
            with ResumableStore(tmp_path / "s.h5", {}) as store:
                for done, _ in enumerate(engine.run(Doubling(), batches, store), 1):
                    if done == count:
                        raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_and_stop_after(4)
        assert not (tmp_path / "s.h5").exists()
        with ResumableStore(tmp_path / "s.h5", {}) as store:
            missing = [batch for batch in batches if f"n/{batch[0]}" not in store]
            assert 0 < len(missing) <= len(batches) - 4
            list(LocalEngine().run(Doubling(), missing, store))
        assert contents(tmp_path / "s.h5").keys() == {f"n/{n}/x" for n in range(0, 40, 2)}

    def test_what_kills_every_process_is_found_and_the_others_are_done(self, tmp_path: Path):
        engine = RayEngine(shard_batches=3, retries=0)
        with ResumableStore(tmp_path / "s.h5", {}) as store:
            outcomes = list(engine.run(Doubling(deadly=4), [[n] for n in range(0, 12, 2)], store))
        broken = [outcome for outcome in outcomes if isinstance(outcome, Broken)]
        assert [one.name for one in broken] == ["n/4"]
        assert "its process died 1 times" in broken[0].reason
        assert contents(tmp_path / "s.h5").keys() == {f"n/{n}/x" for n in (0, 2, 6, 8, 10)}

    def test_mistakes_of_the_user_come_back_as_they_are(self, tmp_path: Path, photograph: np.ndarray):
        for name in ("a.png", "b.png"):
            write_image(tmp_path / name, np.ascontiguousarray(photograph[:100, :120]))
        extract(tmp_path, tmp_path / "f.h5", SmallDescriber(), 50)
        with pytest.raises(InputError, match=r"^policy: these features have no invariance"):
            match_pairs(
                tmp_path / "f.h5",
                [("a.png", "b.png")],
                tmp_path / "m.h5",
                Policy(only=("nothing",)),
                engine=RayEngine(),
            )
