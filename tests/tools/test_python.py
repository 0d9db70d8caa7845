"""The Python package against the program and its own promises: test_python.py DATASET DAMAGED

DATASET has 41 images in 5 classes; record 11 of DAMAGED cannot be decoded. BYOL_PROGRAM and BYOL_LIBRARY are set.
"""
import gc
import json
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

import numpy as np

import byol

DATASET, DAMAGED = sys.argv[1:3]
RECORDS, SIZE, BATCH = 41, 16, 6
MASK = 2**64 - 1


def absorbed(state, data):
    """As tools/batch_hash.c."""
    for (word,) in struct.iter_unpack("<Q", data):
        state ^= word
        state = ((state << 27 | state >> 37) * 0x9FB21C651E98DF25) & MASK
        state = (state + 0x52DCE729) & MASK
    return state


def batch_hash(state, batch):
    for i in range(len(batch)):
        for view in batch.views:
            state = absorbed(state, view[i].tobytes())
        state = absorbed(state, struct.pack("<qq", batch.labels[i], batch.ids[i]))
    return state


def loader(dataset=DATASET, **options):
    options = {"batch": BATCH, "settings": {"size": SIZE}, "seed": 3, "epochs": 2, "keep_last": True, "threads": 2, **options}
    return byol.Loader(dataset, **options)


def stream_hash(given, state=0x9E3779B97F4A7C15):
    batch = given.next()
    while batch is not None:
        state, batch = batch_hash(state, batch), given.next()
    return state


def address(array):
    return array.__array_interface__["data"][0]


class Batches(unittest.TestCase):
    def test_the_bytes_are_those_of_the_program(self):
        base = [os.environ.get("BYOL_PROGRAM", "build/byol"), "bench", "loader", DATASET, "--size", str(SIZE), "--batch", "5",
                "--seed", "3", "--epochs", "2", "--hash", "--json", "--quiet", "--no-floor"]  # fmt: skip
        for layout, more in (("NCHW", ["--layout", "chw"]), ("NHWC", ["--layout", "hwc", "--normalise"])):
            answer = json.loads(subprocess.run(base + more, check=True, stdout=subprocess.PIPE).stdout)
            normal = {"mean": byol.IMAGENET_MEAN, "deviation": byol.IMAGENET_DEVIATION} if layout == "NHWC" else {}
            ours = loader(batch=5, layout=layout, keep_last=False, **normal)
            self.assertEqual(f"{stream_hash(ours):016x}", answer["hash"])

    def test_iterating_gives_epochs(self):
        given = loader()
        self.assertEqual(len(given), 7)
        for epoch in range(2):
            ids = []
            for number, batch in enumerate(given):
                self.assertEqual((batch.epoch, batch.index, len(batch)), (epoch, number, 6 if number < 6 else 5))
                view1, view2 = batch
                self.assertEqual((view1.shape, view2.dtype), ((len(batch), 3, SIZE, SIZE), np.float32))
                np.testing.assert_array_equal(batch.labels, given.dataset.labels[batch.ids])
                ids += batch.ids.tolist()
            self.assertEqual(sorted(ids), list(range(RECORDS)))
        self.assertEqual(list(given), [])

    def test_bytes_and_what_remains(self):
        batch = loader(pixels="uint8").next()
        self.assertEqual((batch.views[0].shape, batch.views[0].dtype), ((BATCH, SIZE, SIZE, 3), np.uint8))
        self.assertEqual(batch.rest[1].shape, (BATCH,))
        self.assertTrue((np.sort(batch.rest[0]["order"], axis=1) == range(4)).all())
        single = loader(recipe="eval").next()
        self.assertEqual((len(single.views), single.rest), (1, ()))

    def test_resuming_anywhere(self):
        whole = stream_hash(loader())
        for stop in range(15):
            first, state = loader(), 0x9E3779B97F4A7C15
            for _ in range(stop):
                state = batch_hash(state, first.next())
            saved = pickle.loads(pickle.dumps(first.state_dict()))
            self.assertEqual(saved, json.loads(json.dumps(saved)))
            second = loader(threads=1, slots=2)
            second.load_state_dict(saved)
            self.assertEqual(second.position, divmod(stop, 7))
            self.assertEqual(stream_hash(second, state), whole)
        with self.assertRaisesRegex(byol.Error, "seed, batch differ|batch, seed differ|seed.*differ"):
            loader(seed=4).load_state_dict(saved)
        with self.assertRaisesRegex(byol.Error, "batch_index"):
            loader().load_state_dict({**saved, "batch_index": 8})

    def test_two_loaders_at_once(self):
        first, second, state = loader(), loader(seed=4), [0, 0]
        for _ in range(14):
            state = [batch_hash(old, given.next()) for old, given in zip(state, (first, second))]
        self.assertEqual(state, [stream_hash(loader(seed=seed), 0) for seed in (3, 4)])

    def test_ranks_share_each_batch(self):
        whole = loader(batch=6, keep_last=False)
        parts = [loader(batch=3, keep_last=False, rank=rank, ranks=2) for rank in range(2)]
        self.assertEqual([len(part) for part in parts], [len(whole)] * 2)
        for batch in whole:
            ids = [number for part in parts for number in part.next().ids]
            self.assertEqual(ids, batch.ids.tolist())

    def test_the_recipe_of_a_state_is_what_the_file_held(self):
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder, name) for name in ("run.yaml", "copy.yaml")]
            for path in paths:
                path.write_text(f"batch: 512\nencoder: resnet18\nviews:\n  base: small\n  size: {SIZE}\n")
            given = loader(recipe=paths[0], settings=None)
            self.assertEqual(given.next().views[0].shape[2], SIZE)
            state = given.state_dict()
            loader(recipe=paths[1], settings=None).load_state_dict(state)
            paths[0].write_text(paths[0].read_text() + "  view1.blur: 0.5\n")
            with self.assertRaisesRegex(byol.Error, "another stream: recipe differ"):
                loader(recipe=paths[0], settings=None).load_state_dict(state)
            paths[0].write_text("batches: 512\n")
            with self.assertRaisesRegex(byol.Error, "run.yaml.*line 1.*did you mean 'batch'") as raised:
                loader(recipe=paths[0])
            self.assertEqual((raised.exception.status, raised.exception.file), ("config", str(paths[0])))

    def test_interrupts_lose_nothing(self):
        def interrupt(_, frame):
            if frame.f_code.co_name == "next" and "batch" not in frame.f_locals:
                raise KeyboardInterrupt

        old = signal.signal(signal.SIGALRM, interrupt)
        given, state, interrupts = loader(threads=1, slots=2, settings={"size": 96}), 0, 0
        try:
            for number in range(14):
                batch = None
                while batch is None:
                    signal.setitimer(signal.ITIMER_REAL, 0.0002 * (1 + interrupts))
                    try:
                        batch = given.next()
                    except KeyboardInterrupt:
                        interrupts += 1
                        self.assertEqual(given.position, divmod(number, 7))
                self.assertLessEqual(given.statistics.held, 1)
                state = batch_hash(state, batch)
                del batch
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        self.assertEqual(state, stream_hash(loader(settings={"size": 96}), 0))
        print(f"{interrupts} interrupts", file=sys.stderr)

    def test_going_back_with_batches_held(self):
        given = loader()
        start, held = given.state_dict(), given.next()
        pixels = held.views[0].copy()
        given.load_state_dict(start)
        np.testing.assert_array_equal(given.next().views[0], pixels)
        np.testing.assert_array_equal(held.views[0], pixels)


class Memory(unittest.TestCase):
    def test_nothing_is_copied(self):
        given, places = loader(slots=2, epochs=0), set()
        for _ in range(20):
            places.add(address(given.next().views[0]))
        self.assertEqual(len(places), 2)
        batch = given.next()
        self.assertEqual(address(batch.views[1]) % 64, 0)
        self.assertFalse(batch.views[0].flags.owndata)
        self.assertEqual(address(np.from_dlpack(batch.views[0])), address(batch.views[0]))
        self.assertNotEqual(address(batch.copy().views[0]), address(batch.views[0]))

    def test_what_is_held_stays_and_no_more_is_a_clear_error(self):
        given = loader(slots=3, epochs=0)
        held = [given.next() for _ in range(3)]
        self.assertEqual(len({address(batch.views[0]) for batch in held}), 3)
        self.assertEqual(given.statistics.held, 3)
        with self.assertRaisesRegex(byol.Error, "all 3 batch buffers are held") as raised:
            given.next()
        self.assertEqual(raised.exception.status, "invalid")
        part = held[1].views[1][2:4]  # a view of a view holds the batch alone
        before = part.copy()
        held.clear()
        self.assertEqual(given.statistics.held, 1)
        for _ in range(10):
            given.next()
        np.testing.assert_array_equal(part, before)
        kept = [given.next().copy() for _ in range(10)]
        self.assertEqual(len(kept), 10)

    def test_a_loop_holds_one(self):
        given = loader(slots=2)
        for batch in given:
            view1, view2 = batch.views
            self.assertLessEqual(given.statistics.held, 2)
        del batch, view1, view2
        self.assertEqual(given.statistics.held, 0)

    def test_batches_outlive_their_loader(self):
        given = loader()
        batch = given.next()
        before = batch.views[0].copy()
        given.close()
        with self.assertRaisesRegex(byol.Error, "closed"):
            given.next()
        del given
        gc.collect()
        np.testing.assert_array_equal(batch.views[0], before)

    def test_other_threads_drop_batches(self):
        given, dropped = loader(epochs=0), []
        for _ in range(30):
            dropped.append(given.next())
            thread = threading.Thread(target=dropped.clear)
            thread.start()
            thread.join()
        self.assertEqual(given.statistics.held, 0)

    def test_it_does_not_grow(self):
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        given = loader(epochs=0, settings={"size": 8})
        for _ in range(500):
            given.next()
        before = resident()
        for _ in range(3000):
            given.next()
        self.assertLess(resident() - before, 2 << 20)
        threads = threading.active_count(), len(os.listdir("/proc/self/task"))
        for _ in range(20):
            loader().next()
        self.assertEqual((threading.active_count(), len(os.listdir("/proc/self/task"))), threads)

    def test_torch_shares_the_memory(self):
        try:
            import torch
        except ImportError:
            self.skipTest("torch is not installed")
        given = loader(epochs=0)
        batch = given.next()
        tensor = torch.from_dlpack(batch.views[0])
        place, before = address(batch.views[0]), tensor.clone()
        self.assertEqual(tensor.data_ptr(), place)
        self.assertEqual(torch.from_numpy(batch.labels).data_ptr(), address(batch.labels))
        self.assertEqual(torch.from_dlpack(np.from_dlpack(batch.views[0])).data_ptr(), place)
        self.assertEqual(torch.asarray(batch.views[0], copy=False).data_ptr(), place)
        del batch
        for _ in range(10):
            given.next()
        self.assertEqual(given.statistics.held, 1)
        self.assertTrue(torch.equal(tensor, before))
        del tensor
        self.assertEqual(given.statistics.held, 0)


class Documentation(unittest.TestCase):
    """What README.md shows runs as it stands there, with fewer images and epochs."""

    def blocks(self):
        text = Path("tools/python/README.md").read_text().replace("photos.byol", DATASET)
        text = text.replace("batch=256", "batch=8").replace("range(100)", "range(2)")
        return re.findall("```python\n(.*?)```", text, re.DOTALL)

    def test_the_first_loop(self):
        names = {}
        exec(self.blocks()[0], names)
        self.assertEqual(names["view1"].shape, (8, 3, 224, 224))
        self.assertEqual(names["loader"].position, (2, 0))

    def test_the_loop_in_place_of_a_data_loader(self):
        try:
            import torch
        except ImportError:
            self.skipTest("torch is not installed")
        names = {"torch": torch, "byol": byol, "device": "cpu"}
        exec(self.blocks()[1].split("# after")[1], names)
        self.assertEqual((names["view2"].shape, names["view2"].dtype), ((8, 3, 224, 224), torch.float32))
        self.assertEqual((names["labels"].dtype, len(names["labels"])), (torch.int64, 8))

    def test_the_example_learns_and_resumes(self):
        try:
            import torchvision
        except ImportError:
            self.skipTest("torchvision is not installed")
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "CHECKPOINT": f"{folder}/byol.pt", "OMP_NUM_THREADS": "2"}
            for steps, last in (("1", "step 1:"), ("2", "step 2:")):
                command = [sys.executable, "tools/python/example_pytorch.py", DATASET, steps]
                told = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout.decode().splitlines()
                self.assertEqual(len(told), 1)
                self.assertIn(last, told[0])


class Rest(unittest.TestCase):
    def test_datasets(self):
        dataset = byol.Dataset(DATASET)
        self.assertEqual((len(dataset), len(dataset.classes), dataset.classes[3]), (RECORDS, 5, "class3"))
        self.assertEqual(dataset.labels.tolist(), [i % 5 for i in range(RECORDS)])
        self.assertEqual(dataset.name(7), "class2/00007.jpg")
        data = dataset.read(7)
        self.assertEqual((data[:2], data[-2:]), (b"\xff\xd8", b"\xff\xd9"))
        self.assertEqual(len(dataset.size(7)), 2)
        self.assertRaises(IndexError, dataset.read, RECORDS)
        self.assertRaises(IndexError, dataset.name, -1)

    def test_recipes(self):
        self.assertIn("byol", byol.recipes())
        self.assertIn("view1.blur: 0.5\n", byol.describe_recipe("small", {"view1": {"blur": 0.5}}))

    def test_errors_name_the_place(self):
        with self.assertRaises(byol.Error) as raised:
            for _ in loader(DAMAGED):
                pass
        error = raised.exception
        self.assertEqual(error.record, 11)
        self.assertIn("record 11", str(error))
        self.assertTrue(error.file and error.reason and error.status)
        skipping = loader(DAMAGED, policy="skip", epochs=1)
        self.assertEqual(sum(len(batch) for batch in skipping), RECORDS)
        self.assertEqual([skip.record for skip in skipping.skips()], [11])
        for status, build in {
            "not_found": lambda: byol.Dataset("absent"),
            "config": lambda: loader(settings={"sise": 3}),
            "invalid": lambda: loader(batch=0),
        }.items():
            with self.assertRaises(byol.Error) as raised:
                build()
            self.assertEqual(raised.exception.status, status)
        for wrong in ({"batch": -1}, {"layout": "CHWN"}, {"mean": (0, 0)}, {"pixels": "int8"}, {"deviation": (1, 0, 1)}):
            self.assertRaises(byol.Error, loader, **wrong)
        self.assertRaisesRegex(byol.Error, "did you mean 'byol'", loader, recipe="bylo")

    def test_a_forked_process_is_told(self):
        given = loader()
        batch = given.next()
        child = os.fork()
        if child == 0:
            try:
                given.next()
            except byol.Error as error:
                del batch, given
                os._exit(0 if "fork" in str(error) else 1)
            os._exit(2)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertIsNotNone(given.next())
        self.assertEqual(len(batch), BATCH)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
