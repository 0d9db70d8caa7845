"""PyTorch's DataLoader, with one worker process per core, as torchvision's and albumentations' users run it."""
import numpy as np
import torch

import protocol


class Pairs(torch.utils.data.Dataset):
    def __init__(self, files, pair):
        self.files, self.pair = files, pair

    def __getitem__(self, index):
        return self.pair(self.files[index])


class EndlessBatches:
    """Every image once before any comes again; a batch may span two passes."""

    def __init__(self, count, batch):
        self.count, self.batch = count, batch

    def __iter__(self):
        generator, batch = np.random.default_rng(0), []
        while True:
            for index in generator.permutation(self.count):
                batch.append(int(index))
                if len(batch) == self.batch:
                    yield batch
                    batch = []


def batches(files, pair, cores, prepare_worker=lambda: None, batch=protocol.BATCH, pinned=False):
    def start(_):
        torch.set_num_threads(1)
        prepare_worker()

    return torch.utils.data.DataLoader(
        Pairs(files, pair),
        batch_sampler=EndlessBatches(len(files), batch),
        num_workers=cores,
        worker_init_fn=start,
        prefetch_factor=2,
        pin_memory=pinned,
    )
