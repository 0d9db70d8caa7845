"""The original implementation: its tf.data pipeline on the host, its JAX augmentation behind it, both on the processor."""
import importlib.util
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import tensorflow as tf

import protocol

if not hasattr(jax, "tree_map"):  # gone from JAX since
    jax.tree_map = jax.tree_util.tree_map


def load(folder, name):
    spec = importlib.util.spec_from_file_location(name, os.path.join(folder, "utils", name + ".py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def host_batches(given, dataset):
    """As dataset.load does, from files in memory and with this machine's number of threads."""
    tf.config.threading.set_inter_op_parallelism_threads(given.cores)
    options = tf.data.Options()
    options.threading.private_threadpool_size = given.cores
    options.threading.max_intra_op_parallelism = 1
    options.deterministic = False
    mode = dataset.PreprocessMode.PRETRAIN

    def pair(image):
        return {
            "view1": dataset._preprocess_image(image, mode),
            "view2": dataset._preprocess_image(image, mode),
            "labels": tf.constant(0),
        }

    images = tf.data.Dataset.from_tensor_slices([open(path, "rb").read() for path in given.files])
    images = images.repeat().shuffle(10 * protocol.BATCH, seed=0).with_options(options)
    pairs = images.map(pair, num_parallel_calls=tf.data.experimental.AUTOTUNE).batch(protocol.BATCH, drop_remainder=True)
    return pairs.prefetch(tf.data.experimental.AUTOTUNE).as_numpy_iterator()


def main():
    given = protocol.arguments()
    if not given.reference:
        sys.exit("--reference is missing")
    dataset, augmentations = load(given.reference, "dataset"), load(given.reference, "augmentations")

    @jax.jit
    def augment(batch, key):
        views = augmentations.postprocess(batch, key)
        return dataset.normalize_images(views["view1"]), dataset.normalize_images(views["view2"])

    def batches():
        """One batch in flight, as the training loop has."""
        key, last = jax.random.PRNGKey(0), None
        for batch in host_batches(given, dataset):
            key, draw = jax.random.split(key)
            views = augment(batch, draw)
            if last is not None:
                yield jax.block_until_ready(last)
            last = views

    how = "the arithmetic that ours reproduces; two decodes, every branch of every condition computed"
    note = f"{how}; TensorFlow {tf.__version__}, JAX {jax.__version__}"
    protocol.serve(batches(), given.recipe.size, note)


if __name__ == "__main__":
    main()
